"""A thousand storms through the whole stack; and the storms do find what is broken."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from functools import partialmethod
from typing import Any

import pytest

from llm_patterns.chat import ChatChunk
from llm_patterns.resilience import (
    CircuitBreaker,
    FailoverStream,
    InFlightBudget,
    Permit,
    StaleCache,
    StreamSwitched,
    Target,
)
from llm_patterns.resilience.degradation_levels import LevelAtWork
from llm_patterns.resilience.failover_calls import Call, Common
from tests.guides import storm

STORMS = 1_000
BATCH = 50


@pytest.mark.timeout(120)
@pytest.mark.parametrize("first", range(0, STORMS, BATCH))
def test_whatever_strikes_every_promise_is_kept(first: int) -> None:
    """No answer lost or doubled, no task left, every invariant held; a failure names its seed."""
    for seed in range(first, first + BATCH):
        storm.check(seed)


def test_a_seed_is_a_storm() -> None:
    """The same number gives the same run; the next one another."""
    first, again, other = (storm.told(storm.run(seed)) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_the_storms_reach_every_corner() -> None:
    """Among the first hundred, calls end in each way there is, and circuits go through each change."""
    ends: Counter[str] = Counter()
    for seed in range(100):
        seen = storm.run(seed)
        ends.update(type(event).__name__ for _, event in seen.circuits)
        for outcome in seen.outcomes:
            ends["left"] += outcome.left
            ends[type(outcome.error).__name__] += outcome.error is not None
            ends[outcome.answer.level if outcome.answer else ""] += 1
            for chunk in outcome.chunks or ():
                restarted = getattr(chunk, "restarted", None)
                ends[f"restarted {restarted}"] += 1
    levels = ("full", "cached", "not now", "left", "restarted True", "StreamInterrupted")
    circuits = ("BreakerOpened", "BreakerHalfOpened", "BreakerClosed", "CircuitOpen")
    assert all(ends[end] >= 5 for end in (*levels, *circuits, "AllTargetsFailed")), ends


def at_once(self: CircuitBreaker, now: float) -> float:
    """Wait for nothing."""
    return 0.0


def any_entry(self: StaleCache[Any, Any], request: object, now: float) -> object:
    """Give any answer that is held."""
    from llm_patterns.resilience import Cached  # noqa: PLC0415

    held = next(iter(vars(self)["_entries"].values()), None)
    return None if held is None else Cached(held[0], now - held[1])


async def silently(self: FailoverStream) -> ChatChunk:
    """Say of each new beginning that the answer goes on."""
    chunk = await NEXT(self)
    restarted = isinstance(chunk, StreamSwitched)
    return chunk.model_copy(update={"restarted": False}) if restarted else chunk


def keep_place(self: Target, permit: Permit, **outcome: Any) -> None:
    """Forget to give the place back."""
    self.breaker.release(permit, **outcome)


def ask_twice(self: Call[Any], common: Common, candidates: list[Target], *a: Any, **k: Any) -> None:
    """Ask each target again and again."""
    CALL(self, common, [target for target in candidates for _ in range(4)], *a, **k)


def far(self: Any, began: float) -> float:
    """There is always time."""
    return began + 1e6


async def unhurried(
    self: LevelAtWork[Any, Any], request: Any, now: float, ends: float, *rest: Any
) -> Any:
    """Ask a level as if nobody waited."""
    return await ASK(self, request, now, ends + 1e6, *rest)


NEXT, CALL, ASK = FailoverStream.__anext__, Call.__init__, LevelAtWork.ask
BUGS: dict[str, tuple[list[tuple[type, str, object]], Callable[[storm.Storm], None]]] = {
    "open circuits admit": (
        [(CircuitBreaker, "_wait", at_once)],
        storm.open_circuits_are_left_alone,
    ),
    "a cache mixes its answers up": (
        [(StaleCache, "get", any_entry)],
        storm.no_answer_is_lost_or_doubled,
    ),
    "a restart is not told": (
        [(FailoverStream, "__anext__", silently)],
        storm.streams_show_nothing_twice,
    ),
    "places at targets are kept": ([(Target, "release", keep_place)], storm.nothing_is_left_behind),
    "calls stay in the budget": (
        [(InFlightBudget, "end", partialmethod(lambda self: None))],
        storm.nothing_is_left_behind,
    ),
    "targets are asked again": ([(Call, "__init__", ask_twice)], storm.attempts_are_bounded),
    "nobody looks at the clock": (
        [(LevelAtWork, "ask", unhurried), (Common, "deadline", far)],
        storm.deadlines_hold,
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_storms_find(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With this bug in the library, one of the first hundred storms breaks that promise."""
    patches, holds = BUGS[bug]
    for owner, name, broken in patches:
        monkeypatch.setattr(owner, name, broken)
    with pytest.raises(AssertionError):
        deque((holds(storm.run(seed)) for seed in range(100)), maxlen=0)


def test_a_broken_promise_names_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sees the failure can see the storm again."""
    monkeypatch.setattr(CircuitBreaker, "_wait", at_once)
    with pytest.raises(AssertionError) as failure:
        deque(map(storm.check, range(100)), maxlen=0)
    assert failure.value.__notes__[0].startswith("storm ")
    assert "python -m tests.guides.storm" in failure.value.__notes__[0]
