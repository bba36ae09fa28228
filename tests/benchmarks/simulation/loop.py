"""How fast virtual time passes: wake-ups a second of a thousand tasks that sleep a hundred times.

Together, all wake at the same moments; apart, each at its own, as in most experiments. SimPy's processes are
generators and know no asyncio: it is the floor that a discrete-event simulation in Python has, not a substitute.
"""

import asyncio
from collections.abc import Callable, Generator
from functools import partial
from itertools import product
from time import perf_counter
from typing import Any

import looptime
import simpy

from course.benchmarks import Row
from llm_patterns.simulation import simulate
from tests.benchmarks.rounds import interleaved, middle, ratio

PEERS = ("looptime", "simpy")
ROUNDS = 7
TASKS = 1_000
SLEEPS = 100
OURS = "VirtualTimeLoop"
PERIODS = {"together": [1.0] * TASKS, "apart": [1 + task / TASKS for task in range(TASKS)]}


async def sleepers(periods: list[float]) -> None:
    """Sleep a hundred times in each of a thousand tasks."""

    async def sleeper(period: float) -> None:
        for _ in range(SLEEPS):
            await asyncio.sleep(period)

    await asyncio.gather(*map(sleeper, periods))


def on_ours(periods: list[float]) -> None:
    """Run the sleepers on this library's loop."""
    simulate(partial(sleepers, periods))


def on_looptime(periods: list[float]) -> None:
    """Run the sleepers on looptime's."""
    loop: Any = looptime.make_event_loop_class(asyncio.SelectorEventLoop)()
    try:
        loop.run_until_complete(sleepers(periods))
    finally:
        loop.close()


def on_simpy(periods: list[float]) -> None:
    """Run their like as SimPy's processes."""
    environment = simpy.Environment()

    def sleeper(period: float) -> Generator[Any, Any, None]:
        for _ in range(SLEEPS):
            yield environment.timeout(period)

    for period in periods:
        environment.process(sleeper(period))
    environment.run()


def wakeups_per_second(run: Callable[[list[float]], None], periods: list[float]) -> float:
    """Return the wake-ups a second of real time."""
    start = perf_counter()
    run(periods)
    return TASKS * SLEEPS / (perf_counter() - start)


def measure() -> list[Row]:
    """Return the wake-ups a second of each loop, and how many times looptime's that is."""
    loops = {OURS: on_ours, "looptime": on_looptime, "SimPy": on_simpy}
    subjects = {
        f"{loop}, {when}": partial(wakeups_per_second, loops[loop], PERIODS[when])
        for when, loop in product(PERIODS, loops)
    }
    samples = interleaved(subjects, rounds=ROUNDS)
    return [
        {
            "Loop": loop,
            "Wake-ups": when,
            "Times looptime": ratio(samples, f"{loop}, {when}", f"looptime, {when}"),
            **middle(samples[f"{loop}, {when}"]),
            "Unit": "wake-ups a second",
        }
        for when, loop in product(PERIODS, loops)
    ]
