"""How many simulated requests a second of real time: the provider alone, and behind a time-out and a retry layer."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from time import perf_counter

from course.benchmarks import Row
from llm_patterns.chat import ChatRequest, ChatResponse, Message, Usage
from llm_patterns.layers import Layer
from llm_patterns.resilience import RetryPolicy, RetryWithBudget
from llm_patterns.simulation import (
    ConstantLatency,
    FifoServer,
    SimulatedProvider,
    fixed,
    open_loop,
    poisson,
    simulate,
)
from tests.benchmarks.rounds import interleaved, middle

PEERS = ("pydantic",)
ROUNDS = 7
SECONDS = 240
REQUEST = ChatRequest(model="small", messages=(Message.user("Hello"),), max_tokens=200)
ARRIVALS = list(poisson(40, duration=SECONDS, rng=Random(0)))

Ask = Callable[[ChatRequest], Awaitable[ChatResponse]]


def alone(ask: Ask) -> Ask:
    """Return the provider's own method."""
    return ask


def guarded(ask: Ask) -> Ask:
    """Return it behind a time-out and `RetryWithBudget`, as a service calls it."""
    retry: Layer = RetryWithBudget(RetryPolicy(deadline=60))

    async def in_time(request: ChatRequest) -> ChatResponse:
        async with asyncio.timeout(5):
            return await ask(request)

    return retry(in_time)


def requests_per_second(layer: Callable[[Ask], Ask]) -> float:
    """Run four minutes of forty requests a second, and return requests by real seconds."""

    async def main() -> None:
        usage = Usage(input_tokens=500, output_tokens=200)
        provider = SimulatedProvider(
            server=FifoServer(50),
            latency=ConstantLatency(0.2, 0.004),
            responder=fixed(usage=usage),
        )
        ask = layer(provider.complete)
        await open_loop(lambda number: ask(REQUEST), ARRIVALS)

    start = perf_counter()
    simulate(main)
    return len(ARRIVALS) / (perf_counter() - start)


def measure() -> list[Row]:
    """Return the requests a second of real time."""
    subjects = {
        "provider": partial(requests_per_second, alone),
        "provider, time-out, RetryWithBudget": partial(requests_per_second, guarded),
    }
    samples = interleaved(subjects, rounds=ROUNDS)
    return [
        {"Path": name, **middle(values), "Unit": "requests a second"}
        for name, values in samples.items()
    ]
