"""What a guarded call costs while the circuit is closed: an awaited function that does nothing, beside the peers'."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any

import pybreaker

from course.benchmarks import Row
from llm_patterns.resilience import (
    BreakerPolicy,
    CircuitBreaker,
    Detector,
    RateDetector,
    StreakDetector,
)
from tests.benchmarks.resilience import breaker_peers
from tests.benchmarks.rounds import interleaved, middle, ratio

PEERS = ("aiobreaker", "purgatory", "hyx", "circuitbreaker", "fluxgate", "pybreaker")
ROUNDS = 15
CALLS = 20_000
OURS = "CircuitBreaker"
DETECTORS: dict[str, Callable[[], Detector]] = {
    f"{OURS}, streak": StreakDetector,
    f"{OURS}, rate of calls": RateDetector,
    f"{OURS}, rate of seconds": partial(RateDetector, window=60.0),
}


async def nothing(argument: int) -> int:
    """Do nothing."""
    return argument


def at_once(argument: int) -> int:
    """Do nothing, without asyncio."""
    return argument


def guarded() -> dict[str, Callable[[int], Awaitable[int]]]:
    """Return `nothing`, bare and behind each layer."""
    calls: dict[str, Any] = {"no layer": nothing, OURS: CircuitBreaker(BreakerPolicy())(nothing)}
    for name, detector in DETECTORS.items():
        calls[name] = CircuitBreaker(BreakerPolicy(), detector=detector())(nothing)
    for name, layer in breaker_peers.PEERS.items():
        calls[name] = layer()(nothing)
    return calls


async def microseconds(call: Callable[[int], Awaitable[int]]) -> float:
    """Return the time of one call, averaged over many."""
    start = perf_counter()
    for number in range(CALLS):
        await call(number)
    return (perf_counter() - start) / CALLS * 1e6


def microseconds_at_once(call: Callable[[int], int]) -> float:
    """Return the same of a call that is not awaited."""
    start = perf_counter()
    for number in range(CALLS):
        call(number)
    return (perf_counter() - start) / CALLS * 1e6


def measure() -> list[Row]:
    """Return the microseconds of a call behind each layer, and how many times ours that is."""
    with asyncio.Runner() as runner:
        subjects: dict[str, Callable[[], float]] = {
            name: partial(lambda call: runner.run(microseconds(call)), call)
            for name, call in guarded().items()
        }
        blocking = pybreaker.CircuitBreaker()(at_once)
        subjects["pybreaker, not awaited"] = partial(microseconds_at_once, blocking)
        samples = interleaved(subjects, rounds=ROUNDS)
    return [
        {
            "Layer": name,
            "Times ours": ratio(samples, name, OURS),
            **middle(samples[name]),
            "Unit": "µs a call",
        }
        for name in samples
    ]
