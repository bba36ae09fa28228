"""The invariants hold on random schedules of faults, concurrency, streams and cancellations."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_patterns.resilience import retry_with_budget
from tests.resilience import invariants
from tests.resilience.invariants import BUDGETS, CALLS, POLICIES, Run, check_budgets, run_calls

INVARIANTS = [
    invariants.attempts_are_bounded,
    invariants.deadlines_hold,
    invariants.waits_are_as_asked,
    invariants.the_rest_passes_through,
    invariants.nothing_is_left_behind,
    invariants.errors_are_told,
]


def test_budgets_keep_their_bounds_over_ten_thousand_traces() -> None:
    """Between zero and their capacity, granting no more than was earned, a permit given back unused undone."""
    check_budgets(traces=10_000)


@pytest.mark.parametrize("holds", INVARIANTS, ids=lambda holds: str(holds.__name__))
def test_whatever_happens(holds: Callable[[Run, dict[str, Any]], None]) -> None:
    """Each promise of the pattern, for every budget."""

    @settings(max_examples=500)
    @given(CALLS, POLICIES, BUDGETS, st.integers(0, 99))
    def check(schedule, policy, budget, seed) -> None:  # type: ignore[no-untyped-def]
        holds(run_calls(retry_with_budget, schedule, policy, budget, seed), policy)

    check()
