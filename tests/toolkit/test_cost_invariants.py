"""The invariants of the ledger and of recorded streams hold on random schedules."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings

from tests.toolkit import cost_invariants as invariants
from tests.toolkit.cost_invariants import LEDGER_CHECKS, PLANS, STREAMS, Run, play_in_memory


@pytest.mark.parametrize("holds", LEDGER_CHECKS, ids=lambda holds: str(holds.__name__))
def test_whatever_happens_to_the_store(holds: Callable[[Run], None]) -> None:
    """Each promise of the ledger, with one process or two, in memory."""

    @settings(max_examples=200)
    @given(PLANS)
    def check(plan: dict[str, Any]) -> None:
        holds(play_in_memory(plan))

    check()


@settings(max_examples=200)
@given(STREAMS)
def test_whatever_ends_a_stream(plans: list[tuple[str, int, int]]) -> None:
    """It is told once."""
    invariants.streams_are_told_once(plans)
