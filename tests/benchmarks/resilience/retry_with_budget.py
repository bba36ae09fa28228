"""What a guarded call costs that succeeds at once: an awaited function that does nothing, beside the peers'."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any

from course.benchmarks import Row
from llm_patterns.resilience import (
    EarnedBudget,
    InFlightBudget,
    QuotaBucket,
    RetryBudget,
    RetryWithBudget,
    ThrottleBucket,
    Unlimited,
    WindowBudget,
)
from tests.benchmarks.resilience import retry_peers
from tests.benchmarks.rounds import interleaved, middle, ratio

PEERS = ("tenacity", "stamina", "backoff", "nopanic", "redress")
ROUNDS = 15
CALLS = 20_000
OURS = "RetryWithBudget"
BUDGETS: tuple[type[RetryBudget], ...] = (
    *(EarnedBudget, WindowBudget, InFlightBudget, ThrottleBucket, QuotaBucket, Unlimited),
)


async def nothing(argument: int) -> int:
    """Do nothing."""
    return argument


def guarded() -> dict[str, Callable[[int], Awaitable[int]]]:
    """Return `nothing`, bare and behind each layer."""
    calls: dict[str, Any] = {"no layer": nothing}
    for budget in BUDGETS:
        name = OURS if budget is EarnedBudget else f"{OURS}, {budget.__name__}"
        calls[name] = RetryWithBudget(retry_peers.POLICY, budget=budget())(nothing)
    for name, layer in retry_peers.PEERS.items():
        calls[name] = layer()(nothing)
    return calls


async def microseconds(call: Callable[[int], Awaitable[int]]) -> float:
    """Return the time of one call, averaged over many."""
    start = perf_counter()
    for number in range(CALLS):
        await call(number)
    return (perf_counter() - start) / CALLS * 1e6


def measure() -> list[Row]:
    """Return the microseconds of a call behind each layer, and how many times ours that is."""
    with asyncio.Runner() as runner:
        subjects = {
            name: partial(lambda call: runner.run(microseconds(call)), call)
            for name, call in guarded().items()
        }
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
