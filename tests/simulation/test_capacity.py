"""Servers: what finite capacity does to those who wait, against closed forms."""

import asyncio
from math import factorial
from random import Random
from statistics import fmean

import pytest

from llm_patterns.errors import ConfigurationError
from llm_patterns.simulation import (
    FifoServer,
    ProcessorSharingServer,
    QueueFull,
    Server,
    open_loop,
    poisson,
    simulate,
)


def sojourns(server: Server, *, load: float, work: str, count: int = 40_000) -> float:
    """The mean seconds in the system under Poisson arrivals of *load* a second and work of mean 1."""
    rng = Random(11)

    async def main() -> list[float]:
        spent = []
        loop_time = asyncio.get_running_loop().time

        async def job(number: int) -> None:
            began = loop_time()
            await server.submit(rng.expovariate(1.0) if work == "random" else 1.0).done
            spent.append(loop_time() - began)

        await open_loop(job, poisson(load, duration=count / load, rng=rng))
        return spent

    return fmean(simulate(main))


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_slot_with_random_work_is_m_m_1(load: float) -> None:
    """Mean time 1 / (capacity - load)."""
    assert sojourns(FifoServer(1), load=load, work="random") == pytest.approx(
        1 / (1 - load), rel=0.1
    )


def test_one_slot_with_equal_work_is_m_d_1() -> None:
    """Pollaczek and Khinchine: half the wait of random work."""
    assert sojourns(FifoServer(1), load=0.8, work="equal") == pytest.approx(1 + 0.8 / 0.4, rel=0.1)


def test_several_slots_wait_as_erlang_says() -> None:
    """M/M/c: the mean wait is the chance to wait (Erlang's C) over the spare capacity."""
    slots, load = 4, 3.2
    ahead = [load**busy / factorial(busy) for busy in range(slots)]
    full = load**slots / factorial(slots) * slots / (slots - load)
    expected = 1 + full / (sum(ahead) + full) / (slots - load)
    assert sojourns(FifoServer(slots), load=load, work="random") == pytest.approx(expected, rel=0.1)


def test_shared_capacity_beyond_one_is_m_m_c_too() -> None:
    """With random work it cannot matter who is served: as many leave either way."""
    shared = sojourns(ProcessorSharingServer(4), load=3.2, work="random")
    queued = sojourns(FifoServer(4), load=3.2, work="random")
    assert shared == pytest.approx(queued, rel=0.1)


@pytest.mark.parametrize("work", ["random", "equal"])
def test_processor_sharing_does_not_care_how_work_is_spread(work: str) -> None:
    """Mean time 1 / (capacity - load) for any distribution: the insensitivity of M/G/1-PS."""
    server = ProcessorSharingServer(1)
    assert sojourns(server, load=0.8, work=work) == pytest.approx(5, rel=0.1)


def test_shared_capacity_slows_everyone_alike() -> None:
    """Two at full speed, four at half."""

    async def main() -> list[float]:
        server = ProcessorSharingServer(2)
        jobs = [server.submit(1.0) for _ in range(4)]
        await asyncio.sleep(1)
        assert server.in_flight == 4
        assert server.waiting == 0
        assert [job.attained() for job in jobs] == pytest.approx([0.5] * 4)
        jobs.append(server.submit(0.25))
        ended = []
        for job in jobs:
            await job.done
            ended.append(job.finished_at or 0.0)
        return ended

    # Four share two until second 1; then five, at 0.4 each, until the short one ends at 1.625.
    assert simulate(main) == pytest.approx([2.125, 2.125, 2.125, 2.125, 1.625])


def test_a_part_of_the_work_can_be_waited_for() -> None:
    """As a stream waits for its next token, queued or running, on either server."""

    async def main(server: Server) -> list[float]:
        loop_time = asyncio.get_running_loop().time
        first, second = server.submit(1.0), server.submit(1.0)
        times = []
        await second.reach(0.5)
        times.append(loop_time())
        await second.reach(0.25)
        times.append(loop_time())
        await asyncio.gather(first.reach(1.0), second.reach(1.0))
        return [*times, loop_time()]

    assert simulate(main(FifoServer(1))) == [1.5, 1.5, 2.0]
    assert simulate(main(ProcessorSharingServer(1))) == [1.0, 1.0, 2.0]


@pytest.mark.parametrize(
    "server", [FifoServer(1, max_queue=1), ProcessorSharingServer(1, max_running=2)]
)
def test_what_does_not_fit_is_refused(server: Server) -> None:
    """The third request finds no room."""

    async def main() -> None:
        jobs = [server.submit(1.0), server.submit(1.0)]
        with pytest.raises(QueueFull):
            server.submit(1.0)
        await asyncio.gather(*(job.done for job in jobs))

    simulate(main)


@pytest.mark.parametrize(
    ("server", "ends"),
    [
        (FifoServer(1, abandoned="finish"), 3.0),
        (FifoServer(1, abandoned="drop"), 1.5),
        (ProcessorSharingServer(1, abandoned="finish"), 3.0),
        (ProcessorSharingServer(1, abandoned="drop"), 4 / 3),
    ],
    ids=["fifo finishes", "fifo drops", "sharing finishes", "sharing drops"],
)
def test_the_abandoned_are_worked_on_or_dropped(server: Server, ends: float) -> None:
    """Of three, one that runs and one that waits are left after half a second."""

    async def main() -> float:
        jobs = [server.submit(1.0) for _ in range(3)]
        await asyncio.sleep(0.5)
        for job in jobs[:2]:
            job.abandon()
            job.abandon()  # twice is once
        await jobs[2].done
        assert jobs[2].attained() == 1.0
        await asyncio.sleep(10)
        assert server.in_flight == server.waiting == 0
        return jobs[2].finished_at or 0.0

    assert simulate(main) == pytest.approx(ends)


def test_shared_capacity_does_not_stall_after_a_year() -> None:
    """There the clock's own steps are coarser than the work's, and work still ends when it should."""

    async def main() -> list[float]:
        await asyncio.sleep(365 * 86_400 + 0.1)
        server, loop_time, spent = ProcessorSharingServer(1), asyncio.get_running_loop().time, []
        for number in range(50):
            began = loop_time()
            await server.submit(0.1 + number / 7).done
            spent.append(loop_time() - began - (0.1 + number / 7))
        return spent

    assert max(map(abs, simulate(main))) < 1e-7


def test_lost_capacity_comes_back() -> None:
    """Nothing starts while it is gone; what waits starts when told."""

    async def main() -> float:
        server, left = FifoServer(2), [0.0]
        server.capacity_factor = lambda: left[0]
        job = server.submit(1.0)
        await asyncio.sleep(5)
        assert (server.in_flight, server.waiting, job.attained()) == (0, 1, 0.0)
        left[0] = 1.0
        server.capacity_changed()
        await job.done
        return job.finished_at or 0.0

    assert simulate(main) == 6.0


def test_shared_capacity_follows_the_fault() -> None:
    """Half the capacity, half the speed; none, no progress."""

    async def main() -> float:
        server, left = ProcessorSharingServer(1), [1.0]
        server.capacity_factor = lambda: left[0]
        job = server.submit(2.0)
        for factor in (0.5, 0.0, 1.0):
            await asyncio.sleep(1)
            left[0] = factor
            server.capacity_changed()
        await job.done
        return job.finished_at or 0.0

    assert simulate(main) == pytest.approx(3.5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FifoServer(0),
        lambda: FifoServer(1, max_queue=-1),
        lambda: ProcessorSharingServer(0),
        lambda: ProcessorSharingServer(float("nan")),
        lambda: ProcessorSharingServer(1, max_running=0),
    ],
)
def test_a_server_without_capacity_is_refused(make) -> None:  # type: ignore[no-untyped-def]
    """When it is made, with the values."""
    with pytest.raises(ConfigurationError, match=r"Server\("):
        make()
