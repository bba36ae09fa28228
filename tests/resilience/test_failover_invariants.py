"""The invariants hold on random schedules of calls, faults, streams, hedges and cancellations."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.resilience import failover_invariants as invariants
from tests.resilience.failover_invariants import (
    BUDGETS,
    CALLS,
    PARTS,
    POLICIES,
    TARGETS,
    Run,
    run_calls,
)

INVARIANTS = [
    invariants.attempts_are_bounded,
    invariants.limits_hold,
    invariants.rests_are_kept,
    invariants.deadlines_hold,
    invariants.nobody_is_cut_off_too_soon,
    invariants.bad_requests_stop,
    invariants.nothing_is_left_behind,
    invariants.streams_are_closed_once,
    invariants.hedges_are_few,
    invariants.nobody_waits_for_a_loser,
    invariants.conversations_stay,
    invariants.switches_are_visible,
    invariants.nothing_is_shown_twice,
]
MODULES = {part.__name__.rpartition(".")[2]: part for part in PARTS}


@pytest.mark.parametrize("holds", INVARIANTS, ids=lambda holds: str(holds.__name__))
def test_whatever_happens(holds: Callable[[Run, dict[str, Any]], None]) -> None:
    """Each promise of the pattern."""

    @settings(max_examples=200)
    @given(TARGETS, CALLS, POLICIES, BUDGETS, st.integers(0, 99))
    def check(targets, schedule, policy, budget, seed) -> None:  # type: ignore[no-untyped-def]
        holds(run_calls(MODULES, targets, schedule, policy, budget=budget, seed=seed), policy)

    check()
