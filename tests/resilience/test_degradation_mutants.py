"""Each check of the invariants of degradation fails on a copy of the library with a bug in it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from types import ModuleType
from typing import Any

import pytest

from llm_patterns.resilience import (
    degradation_levels,
    graceful_degradation,
    load_shedding,
    stale_cache,
)
from llm_patterns.simulation import LeftoverTasks
from tests.mutants import mutant
from tests.resilience import degradation_invariants as invariants
from tests.resilience.degradation_invariants import (
    Run,
    check_cache,
    check_dimmer,
    check_dimming,
    check_limits,
    random_history,
    run_history,
)

SEARCH = 4_000
"""Histories among which one must show the bug; the search ends at the first."""

LADDER_BUGS = {
    "any failure is raised": (
        "failure_of(error).kind in self.policy.raise_on",
        "True",
        invariants.every_call_is_answered,
    ),
    "the ambient deadline is not looked at": (
        "ends = min(ends, ambient)",
        "pass",
        invariants.time_is_kept,
    ),
    "nothing is kept for the next level": (
        "sum(reserves[at + 1 :], 0.0)",
        "sum(reserves[at + 2 :], 0.0)",
        invariants.time_is_kept,
    ),
    "what the call needs is forgotten": (
        "level.ask(request, now, ends, rank, need)",
        "level.ask(request, now, ends, rank, 0.0)",
        invariants.quality_is_kept,
    ),
    "fresh answers are always good enough": (
        "if held is not None and self._levels[0].quality >= need:",
        "if held is not None:",
        invariants.quality_is_kept,
    ),
    "a lesser level fills the cache": (
        "first = self._levels[0]",
        "first = self._levels[len(self._levels) // 2]",
        invariants.the_cache_is_clean,
    ),
    "the cache takes what is not accepted": (
        "partial(cache.fill, call=first.call, accept=accept)",
        "partial(cache.fill, call=first.call)",
        invariants.the_cache_is_clean,
    ),
    "a drill counts as an answer": (
        "            if score is not None:",
        "            level.answers += 1\n            if score is not None:",
        invariants.the_books_balance,
    ),
    "cancelled calls are not counted": (
        "self._cancelled += 1",
        "self._cancelled += 0",
        invariants.the_books_balance,
    ),
    "who got no answer is not counted": (
        "self._not_now_answers += 1",
        "self._not_now_answers += 0",
        invariants.the_books_balance,
    ),
    "time at the levels gets lost": (
        "self._seconds[self._latest] += now - self._since",
        "pass",
        invariants.the_books_balance,
    ),
    "the highest is shed first": (
        "enumerate(policy.priorities)",
        "enumerate(reversed(policy.priorities))",
        invariants.the_lowest_is_shed_first,
    ),
    "cached answers are acted on": (
        "(depth == 0 and age is None)",
        "depth == 0",
        invariants.actions_are_guarded,
    ),
    "lesser answers are acted on": (
        "may_act = level.safe_for_actions or (",
        "may_act = depth < 2 or (",
        invariants.actions_are_guarded,
    ),
}

LEVEL_BUGS = {
    "the floor is not looked at": (
        "self.quality < need or self.quality < policy.quality_floor",
        "self.quality < need",
        invariants.quality_is_kept,
    ),
    "a level is not cut off": (
        "_Cutoff(loop, now + seconds)",
        "_Cutoff(loop, now + seconds + 5)",
        invariants.time_is_kept,
    ),
    "a time-out passes for a cancellation": (
        "self._task.uncancel() <= self._cancelling",
        "self._task.cancelling() <= self._cancelling",
        invariants.every_call_is_answered,
    ),
    "a cancellation passes for a time-out": (
        "if self.expired and self._task.uncancel() <= self._cancelling and kind is CancelledError",
        "if kind is CancelledError",
        invariants.every_call_is_answered,
    ),
    "a cancelled call goes on": (
        "except Exception as error:\n            if healthy",
        "except BaseException as error:\n            if healthy",
        invariants.every_call_is_answered,
    ),
    "places are not given back": (
        "self._in_flight -= 1",
        "self._in_flight -= 0",
        invariants.nothing_is_left_behind,
    ),
    "cancelled calls keep their permit": (
        "if self._breaker is not None and permit is not None:",
        "if self._breaker is not None and permit is not None and healthy is not None:",
        invariants.nothing_is_left_behind,
    ),
    "one call too many": (
        "self._in_flight >= self._limit(rank, now)",
        "self._in_flight > self._limit(rank, now)",
        invariants.caps_hold,
    ),
    "calls in flight are not counted": (
        "self._in_flight += 1",
        "self._in_flight += 0",
        invariants.caps_hold,
    ),
    "everything is accepted": (
        "self._accept is not None and not",
        "self._accept is None and not",
        invariants.the_cache_is_clean,
    ),
}

CACHE_BUGS = {
    "nothing gets too old": (
        "if age > self.policy.stale:",
        "if age > 1e9:",
        invariants.the_cache_is_clean,
    ),
    "everything is fresh": (
        "held.age > self.policy.fresh",
        "held.age > 1e9",
        invariants.the_cache_is_clean,
    ),
    "an answer hides its age": (
        "Cached(entry[0], age)",
        "Cached(entry[0], 0.0)",
        invariants.the_cache_is_clean,
    ),
    "an answer is as young as its arrival": (
        "self.put(request, answer, began)",
        "self.put(request, answer, get_running_loop().time())",
        invariants.the_cache_is_clean,
    ),
    "tenants share their answers": (
        "key = self._key(request)",
        "key = 0",
        invariants.the_cache_is_clean,
    ),
    "flights are not forgotten": (
        "del self._flights[key]",
        "pass",
        invariants.nothing_is_left_behind,
    ),
    "a flight goes on for nobody": (
        "flight.task.cancel()",
        "pass",
        invariants.nothing_is_left_behind,
    ),
}


def shown(run: Callable[[int], Run], holds: Callable[[Run], None]) -> None:
    """Look for a history on which the promise is broken."""

    def search() -> None:
        for seed in range(SEARCH):
            holds(run(seed))

    with pytest.raises((AssertionError, LeftoverTasks)):
        search()


@pytest.mark.parametrize("bug", LADDER_BUGS)
def test_the_ladder_s_check_finds(bug: str) -> None:
    """A ladder with this bug breaks that promise on some history."""
    old, new, holds = LADDER_BUGS[bug]
    with mutant(graceful_degradation, old, new) as broken:
        shown(lambda seed: run_history(random_history(Random(seed)), ladders=broken), holds)


@contextmanager
def ladder_of(levels: ModuleType) -> Iterator[Any]:
    """A copy of the ladder that is made of another module's levels."""
    with mutant(graceful_degradation, "", "") as copy:
        levels.__dict__.update(
            {
                name: getattr(degradation_levels, name)
                for name in ("Level", "SkipReason", "Unserved")
            }
        )
        copy.__dict__["LevelAtWork"] = levels.__dict__["LevelAtWork"]
        yield copy


@pytest.mark.parametrize("bug", LEVEL_BUGS)
def test_the_level_s_check_finds(bug: str) -> None:
    """Levels with this bug break that promise on some history."""
    old, new, holds = LEVEL_BUGS[bug]
    with mutant(degradation_levels, old, new) as broken, ladder_of(broken) as ladder:
        shown(lambda seed: run_history(random_history(Random(seed)), ladders=ladder), holds)


@pytest.mark.parametrize("bug", CACHE_BUGS)
def test_the_cache_s_check_finds(bug: str) -> None:
    """A cache with this bug breaks that promise on some history."""
    old, new, holds = CACHE_BUGS[bug]
    with mutant(stale_cache, old, new) as broken:
        broken.__dict__.update(Cached=stale_cache.Cached, CacheMiss=stale_cache.CacheMiss)
        shown(lambda seed: run_history(random_history(Random(seed)), caches=broken), holds)


PART_BUGS: dict[str, tuple[ModuleType, str, str, Callable[[Any], None], str]] = {
    "the dimmer winds up": (
        load_shedding,
        "min(1.0, max(0.0, level + step * elapsed))",
        "level + step * elapsed",
        lambda module: check_dimmer(module, runs=200),
        "between 0 and 1",
    ),
    "it rises as it falls": (
        load_shedding,
        "/ policy.rise",
        "/ policy.fall",
        lambda module: check_dimmer(module, runs=200),
        "rose too quickly",
    ),
    "it falls as it likes": (
        load_shedding,
        "(1 - allowed) / policy.fall",
        "(1 - allowed) * policy.fall",
        lambda module: check_dimmer(module, runs=200),
        "fell too quickly",
    ),
    "it falls as it rises": (
        load_shedding,
        "/ policy.fall",
        "/ policy.rise",
        check_dimming,
        "longer than the fall",
    ),
    "nothing may be slow": (
        load_shedding,
        "share, allowed = slow / answers, policy.slow_share",
        "share, allowed = slow / answers, 0.001",
        check_dimming,
        "a twentieth",
    ),
    "one answer speaks for a silence": (
        load_shedding,
        "min(elapsed, max(self.policy.period, self.policy.target))",
        "elapsed",
        lambda module: check_dimmer(module, runs=200),
        "too quickly",
    ),
    "the highest gets less": (
        load_shedding,
        "(1 - headroom) ** rank",
        "(1 + headroom) ** rank",
        lambda module: check_limits(module, runs=200),
        "lower priority",
    ),
    "nobody looks whether it is well": (
        load_shedding,
        "max(1, int",
        "max(0, int",
        lambda module: check_limits(module, runs=200),
        "finds out",
    ),
    "the cache has no bound": (
        stale_cache,
        "if len(self._entries) > self.policy.max_entries:",
        "if len(self._entries) > self.policy.max_entries + 1:",
        lambda module: check_cache(module, runs=100),
        "more entries",
    ),
    "the oldest goes first": (
        stale_cache,
        "        self._entries.move_to_end(key)\n        return Cached",
        "        return Cached",
        lambda module: check_cache(module, runs=100),
        "the wrong one",
    ),
}


@pytest.mark.parametrize("bug", PART_BUGS)
def test_the_part_s_check_finds(bug: str) -> None:
    """A dimmer, a limit or a cache with this bug breaks its own promise."""
    module, old, new, check, said = PART_BUGS[bug]
    with mutant(module, old, new) as broken, pytest.raises(AssertionError, match=said):
        check(broken)
