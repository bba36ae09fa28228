"""Time and chance come from the running loop."""

import asyncio
import time

from llm_patterns import clock
from llm_patterns.simulation import simulate


def test_outside_a_simulation_it_is_the_machine_s_time() -> None:
    """With a loop and without."""

    async def now() -> float:
        return clock.now()

    before = time.time()
    assert before <= clock.now() <= asyncio.run(now()) <= time.time()


def test_chance_is_the_run_s_own() -> None:
    """Each simulation has its seeded source; elsewhere the process has one."""

    async def draw() -> float:
        return clock.rng().random()

    assert simulate(draw, seed=4) == simulate(draw, seed=4)
    assert clock.rng() is clock.rng()
