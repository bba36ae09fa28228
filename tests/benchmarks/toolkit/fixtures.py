"""How often a test fails that waits on the real clock, beside four busy processes: a shared machine's everyday."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from course.benchmarks import Row
from llm_patterns.errors import ServerError
from llm_patterns.resilience import RetryPolicy, RetryWithBudget
from llm_patterns.simulation import simulate
from tests.benchmarks.rounds import interleaved, middle

PEERS = ()
ROUNDS = 200
WAIT = 0.05
SPARE = {"5 ms": 0.005, "20 ms": 0.02, "100 ms": 0.1}
"""How much later than due the test lets the answer be."""


async def retried() -> float:
    """Return the seconds of a call that fails once, on the clock of its loop."""
    errors = [ServerError("once")]
    policy = RetryPolicy(deadline=60, initial_delay=WAIT, jitter="none")

    @RetryWithBudget(policy)
    async def call() -> None:
        if errors:
            raise errors.pop()

    now = asyncio.get_running_loop().time
    began = now()
    await call()
    return now() - began


@contextmanager
def busy(processes: int = 4) -> Iterator[None]:
    """Keep the processors busy meanwhile."""
    running = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)
    ]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def measure() -> list[Row]:
    """Return how often the test fails, by what it allows, and how long it takes."""
    late: dict[str, list[float]] = {"real clock": [], "virtual time": []}

    def timed(clock: str, run: Callable[[], float]) -> Callable[[], float]:
        def sample() -> float:
            began = perf_counter()
            late[clock].append(run() - WAIT)
            return (perf_counter() - began) * 1_000

        return sample

    with busy():
        samples = interleaved(
            {
                "real clock": timed("real clock", lambda: asyncio.run(retried())),
                "virtual time": timed("virtual time", lambda: simulate(retried)),
            },
            rounds=ROUNDS,
        )
    allowed = [("real clock", spare) for spare in SPARE] + [("virtual time", "0 ms")]
    return [
        {
            "Test": f"{clock}, {spare} to spare",
            "Failures": sum(each > SPARE.get(spare, 0.0) + 1e-9 for each in late[clock][1:]),
            "Runs": ROUNDS,
            **middle(samples[clock]),
            "Unit": "ms a test",
        }
        for clock, spare in allowed
    ]
