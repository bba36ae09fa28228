"""The breaker's invariants hold on random schedules of faults, concurrency and cancellations."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_patterns.resilience import circuit_breaker
from tests.resilience.breaker_invariants import (
    CALLS,
    INVARIANTS,
    POLICIES,
    STREAKS,
    Run,
    run_calls,
)


@pytest.mark.parametrize("holds", INVARIANTS, ids=lambda holds: str(holds.__name__))
def test_whatever_happens(holds: Callable[[Run], None]) -> None:
    """Each promise of the pattern, for every policy."""

    @settings(max_examples=500)
    @given(CALLS, POLICIES, STREAKS, st.integers(0, 99))
    def check(schedule, policy, streak, seed) -> None:  # type: ignore[no-untyped-def]
        holds(run_calls(circuit_breaker, schedule, policy, streak, seed))

    check()
