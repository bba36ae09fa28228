"""The invariants of ladders, dimmers and stale caches hold on random histories."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.resilience.degradation_invariants import (
    INVARIANTS,
    Run,
    check_cache,
    check_dimmer,
    check_dimming,
    check_limits,
    random_history,
    run_history,
)


@pytest.mark.parametrize("holds", INVARIANTS, ids=lambda holds: str(holds.__name__))
def test_whatever_happens(holds: Callable[[Run], None]) -> None:
    """Each promise of the ladder, for any levels, timings, failures, priorities and cancellations."""

    @settings(max_examples=200)
    @given(st.randoms(use_true_random=False))
    def check(rng: Random) -> None:
        holds(run_history(random_history(rng)))

    check()


def test_all_promises_hold_over_four_thousand_histories_more() -> None:
    """Drawn evenly, where hypothesis likes the edges."""
    for seed in range(4_000):
        run = run_history(random_history(Random(seed)))
        for holds in INVARIANTS:
            holds(run)


def test_a_dimmer_keeps_its_bounds_and_its_rates() -> None:
    """Whatever is recorded, and whenever."""
    check_dimmer(runs=400)
    check_dimming()


def test_limits_keep_the_order_of_priorities() -> None:
    """For any cap, level and headroom."""
    check_limits(runs=3_000)


def test_a_cache_keeps_its_bound() -> None:
    """The least recently used goes first."""
    check_cache(runs=300)
