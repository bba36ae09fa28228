"""The same faults for each circuit breaker: what it lets through, what opens it, and what should not have.

Every peer is as `breaker_peers` sets it up, in virtual time, with calls one after the other unless said otherwise. The
provider takes a tenth of a second where it answers or fails at once.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from course.benchmarks import Row
from llm_patterns.errors import InvalidRequest, Overloaded
from llm_patterns.resilience import BreakerPolicy, CircuitBreaker, RateDetector
from llm_patterns.simulation import simulate
from tests.benchmarks.resilience import breaker_peers
from tests.benchmarks.resilience.breaker_peers import OPEN_TIME, Layer

PEERS = ("aiobreaker", "purgatory", "hyx", "circuitbreaker", "fluxgate")
ROUNDS = 1
SEED = 1
POLICY = BreakerPolicy(open_time=OPEN_TIME, slow_after=10)
WAITERS = 200
RUNS = 300
DAYS = 100


class Provider:
    """A dependency with a switch; it counts the calls that reach it."""

    def __init__(self) -> None:
        self.failure_rate = 0.0
        self.error: Exception = Overloaded("overloaded", status_code=529)
        self.takes = 0.1
        self.reached = 0
        self.in_flight = 0
        self.most_in_flight = 0

    async def __call__(self) -> str:
        """Answer, or fail."""
        self.reached += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        takes, fails = self.takes, random.random() < self.failure_rate
        try:
            await asyncio.sleep(takes)
        finally:
            self.in_flight -= 1
        if fails:
            raise self.error
        return "answer"


class Bench:
    """A provider behind a breaker."""

    def __init__(self, layer: Callable[[], Layer]) -> None:
        self.provider = provider = Provider()

        async def reach() -> str:  # aiobreaker decorates nothing but plain functions
            return await provider()

        self._call = layer()(reach)

    async def call(self) -> bool:
        """Make a call and return whether the provider saw it."""
        before = self.provider.reached
        with suppress(Exception):  # of the provider or of the breaker: the count says which
            await self._call()
        return self.provider.reached > before

    async def calls_to_open(self, limit: int) -> int | None:
        """Return how many calls reach the provider until one does not, or None."""
        for number in range(limit + 1):
            if not await self.call():
                return number
        return None

    async def open(self) -> bool:
        """Let it open by an outage, and return whether it did."""
        self.provider.failure_rate = 1.0
        opened = await self.calls_to_open(300)
        self.provider.failure_rate = 0.0
        return opened is not None


async def outage(bench: Bench) -> int | None:
    """Calls that reach a provider that is down, after 500 that were well."""
    for _ in range(500):
        await bench.call()
    bench.provider.failure_rate = 1.0
    return await bench.calls_to_open(500)


async def brown_out(bench: Bench) -> int | None:
    """The same where four calls in ten fail."""
    for _ in range(500):
        await bench.call()
    bench.provider.failure_rate = 0.4
    return await bench.calls_to_open(1_000)


async def slowness(bench: Bench) -> int | None:
    """The same where all succeed, each after half a minute."""
    bench.provider.takes = 30.0
    return await bench.calls_to_open(200)


async def bad_requests(bench: Bench) -> int | None:
    """The same where the caller sends what is answered with 400."""
    bench.provider.error, bench.provider.failure_rate = InvalidRequest("no", status_code=400), 1.0
    return await bench.calls_to_open(200)


async def cancellations(bench: Bench) -> bool:
    """Whether twenty users who leave open it."""
    bench.provider.takes = 5.0
    for _ in range(20):
        task = asyncio.ensure_future(bench.call())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
    bench.provider.takes = 0.1
    return not await bench.call()


async def stampede(bench: Bench) -> int:
    """The most calls in flight of those that wait when the open time ends."""
    await bench.open()
    await asyncio.sleep(OPEN_TIME + 1)
    bench.provider.most_in_flight, bench.provider.takes = 0, 2.0
    await asyncio.gather(*(bench.call() for _ in range(WAITERS)))
    return bench.provider.most_in_flight


async def herd(bench: Bench) -> float:
    """The share admitted of 200 calls in the five seconds after the third success that follows the outage."""
    await bench.open()
    await asyncio.sleep(OPEN_TIME + 1)
    for _ in range(3):
        await bench.call()
    asked, before = 200, bench.provider.reached
    async with asyncio.TaskGroup() as group:
        for _ in range(asked):
            group.create_task(bench.call())
            await asyncio.sleep(5 / asked)
    return round((bench.provider.reached - before) / asked, 3)


async def late_results(bench: Bench) -> bool:
    """Whether failures of calls that began before the opening open it again after it has closed."""
    bench.provider.takes, bench.provider.failure_rate = 40.0, 1.0
    late = [asyncio.ensure_future(bench.call()) for _ in range(100)]
    await asyncio.sleep(1)
    bench.provider.takes = 0.1
    await bench.open()
    await asyncio.sleep(OPEN_TIME + 1)
    for _ in range(5):
        await bench.call()
    await asyncio.wait(late)
    refused = [not await bench.call() for _ in range(20)]
    return all(refused)


async def false_opens(bench: Bench) -> float:
    """Openings a day at one healthy call in 20 that fails, ten calls a minute."""
    bench.provider.failure_rate, opened = 0.05, 0
    for _ in range(DAYS * 14_400):
        await asyncio.sleep(6)
        if not await bench.call():
            opened += 1
            bench.provider.failure_rate = 0.0
            await asyncio.sleep(OPEN_TIME)
            for _ in range(60):
                await bench.call()
                await asyncio.sleep(1)
            bench.provider.failure_rate = 0.05
    return round(opened / DAYS, 3)


Experiment = Callable[[Bench], Awaitable[Any]]


def run(experiment: Experiment, layer: Callable[[], Layer], seed: int = SEED) -> Any:
    """Run one experiment on a fresh breaker."""

    async def main() -> Any:
        return await experiment(Bench(layer))

    random.seed(seed)
    return simulate(main, seed=seed)


def row(name: str, layer: Callable[[], Layer]) -> Row:
    """Run all experiments for one breaker."""
    found = sorted(
        (run(brown_out, layer, seed) for seed in range(RUNS)),
        key=lambda calls: float("inf") if calls is None else calls,
    )
    return {
        "Breaker": name,
        "Failed calls until an outage opens it": run(outage, layer),
        "Calls until 40% failures open it, median": found[RUNS // 2],
        "Share of those runs in which it opens": 1 - found.count(None) / RUNS,
        "Slow calls until it opens": run(slowness, layer),
        "Bad requests until it opens": run(bad_requests, layer),
        "Opened by users who leave": float(run(cancellations, layer)),
        "In flight of 200 waiters after the open time": run(stampede, layer),
        "Share of the load in the first five seconds": run(herd, layer),
        "Opened by late results": float(run(late_results, layer)),
        "False opens a day, ten calls a minute": run(false_opens, layer),
    }


def measure() -> list[Row]:
    """Return a row for each breaker; None where it does not open at all."""
    ours: dict[str, Callable[[], Any]] = {
        "CircuitBreaker": partial(CircuitBreaker, POLICY),
        "CircuitBreaker, rate of calls": lambda: CircuitBreaker(POLICY, detector=RateDetector()),
        "CircuitBreaker, rate of seconds": lambda: CircuitBreaker(
            POLICY, detector=RateDetector(window=60.0)
        ),
    }
    with breaker_peers.virtual_clock():
        return [row(name, layer) for name, layer in (ours | breaker_peers.PEERS).items()]
