"""What a call through a ladder costs that succeeds at once: an awaited function that does nothing, beside peers."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any

from course.benchmarks import Row
from llm_patterns.resilience import (
    BreakerPolicy,
    CircuitBreaker,
    DegradationPolicy,
    Dimmer,
    DimmerPolicy,
    GracefulDegradation,
    Level,
    LevelPolicy,
    StaleCache,
    StaleCachePolicy,
)
from tests.benchmarks.resilience.degradation_peers import LADDERS, Step
from tests.benchmarks.rounds import interleaved, middle, ratio

PEERS = ("hyx", "pyresilience", "pydantic-ai-slim")
ROUNDS = 15
CALLS = 5_000
OURS = "GracefulDegradation"
BARE = "no ladder"
SKIPPED = LevelPolicy(quality=0.1, quality_floor=0.5, reserve=1)
USED = LevelPolicy(quality=0.8, reserve=1)

Call = Callable[[int], Awaitable[Any]]


async def nothing(argument: int) -> str:
    """Do nothing."""
    return "done"


async def timed(argument: int) -> str:
    """Do nothing, within asyncio's own time-out."""
    async with asyncio.timeout(10):
        return await nothing(argument)


def ladder(*levels: Level[int, str], cache: StaleCache[int, str] | None = None) -> Call:
    """Return the call of a ladder."""
    return GracefulDegradation(
        DegradationPolicy(deadline=10), levels, not_now="not now", cache=cache
    ).call


def guarded() -> dict[str, Call]:
    """Return `nothing`, bare and on each ladder."""
    used = partial(Level, call=nothing, policy=USED)
    down = partial(Level, call=nothing, policy=SKIPPED)
    calls: dict[str, Call] = {
        BARE: nothing,
        "asyncio.timeout alone": timed,
        OURS: ladder(*(used(name) for name in "abc")),
        f"{OURS}, a dimmer": ladder(used("a", dimmer=Dimmer(DimmerPolicy(target=5)))),
        f"{OURS}, a breaker": ladder(used("a", breaker=CircuitBreaker(BreakerPolicy()))),
        f"{OURS}, a cache": ladder(
            used("a"),
            cache=StaleCache(StaleCachePolicy(fresh=0, stale=60, max_entries=1), key=lambda it: it),
        ),
        f"{OURS}, one level skipped": ladder(down("a"), used("b")),
        f"{OURS}, two levels skipped": ladder(down("a"), down("b"), used("c")),
    }
    steps = [Step(name, nothing) for name in "abc"]
    for name in ("hyx", "pyresilience", "pydantic-ai"):
        calls[name] = LADDERS[name](steps)
    return calls


async def microseconds(call: Call) -> float:
    """Return the time of one call, averaged over many."""
    start = perf_counter()
    for number in range(CALLS):
        await call(number)
    return (perf_counter() - start) / CALLS * 1e6


async def made() -> dict[str, Call]:
    """Return the calls; hyx's time-out wants to be made where it runs."""
    return guarded()


def measure() -> list[Row]:
    """Return the microseconds of a call on each ladder, what it adds to the bare one, and how many times ours it is."""
    with asyncio.Runner() as runner:
        subjects = {
            name: partial(lambda call: runner.run(microseconds(call)), call)
            for name, call in runner.run(made()).items()
        }
        samples = interleaved(subjects, rounds=ROUNDS)
    bare = middle(samples[BARE])["Median"]
    return [
        {
            "Ladder": name,
            "Times ours": ratio(samples, name, OURS),
            "Added": round(middle(samples[name])["Median"] - bare, 2),
            **middle(samples[name]),
            "Unit": "µs a call",
        }
        for name in samples
    ]
