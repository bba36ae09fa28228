"""Virtual time: ordinary asyncio code, no waiting, the same on every run."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from llm_patterns import clock
from llm_patterns.simulation import Deadlock, LeftoverTasks, OutsideWorld, simulate


async def hour() -> float:
    """Sleep for an hour and tell the time."""
    await asyncio.sleep(3600)
    return asyncio.get_running_loop().time()


def test_an_hour_takes_no_time() -> None:
    """The clock jumps to the next timer."""
    assert simulate(hour) == 3600.0


def test_a_coroutine_will_do() -> None:
    """Main is an async function, or what it returns."""
    assert simulate(hour()) == 3600.0


def test_timers_fall_due_exactly_even_after_a_year() -> None:
    """The clock shows the very number that the timer was set to, however large: no drift, no stall."""

    async def main() -> list[tuple[float, float]]:
        loop = asyncio.get_running_loop()
        times = []
        for seconds in (0.1, 365 * 86_400, 1e6, 1e-6):
            due, reached = loop.time() + seconds, asyncio.Event()
            loop.call_at(due, reached.set)
            await reached.wait()
            times.append((loop.time(), due))
        return times

    assert all(now == due for now, due in simulate(main))


def test_timers_fire_in_the_order_in_which_they_are_due() -> None:
    """However they were set, and however little lies between them."""

    async def main() -> list[str]:
        loop, fired = asyncio.get_running_loop(), list[str]()
        for name, delay in (("b", 1 + 1e-9), ("c", 1e6), ("a", 1.0)):
            loop.call_later(delay, fired.append, name)
        await asyncio.sleep(2e6)
        return fired

    assert simulate(main) == ["a", "b", "c"]


def test_it_nests_in_a_running_loop() -> None:
    """As in a notebook's kernel: the outer loop and its task are as they were."""

    async def outer() -> tuple[float, bool]:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        result = simulate(hour)
        await asyncio.sleep(0)
        return result, asyncio.current_task() is task and asyncio.get_running_loop() is loop

    assert asyncio.run(outer()) == (3600.0, True)
    assert simulate(outer) == (3600.0, True)


def trace(seed: int) -> list[tuple[float, int]]:
    """What a hundred tasks that wait at random do, and when."""

    async def main() -> list[tuple[float, int]]:
        seen = []

        async def worker(number: int) -> None:
            for _ in range(3):
                await asyncio.sleep(clock.rng().random())
                seen.append((asyncio.get_running_loop().time(), number))

        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(worker(number))
        return seen

    return simulate(main, seed=seed)


def test_a_seed_is_a_run() -> None:
    """The same seed gives the same trace, another seed another."""
    assert trace(1) == trace(1) != trace(2)


def cancellations() -> list[int]:
    """The order in which a group cancels its tasks, which it keeps in a set."""

    async def main() -> list[int]:
        order: list[int] = []

        async def fail() -> None:
            await asyncio.sleep(1)
            raise ValueError

        async def worker(number: int) -> None:
            try:
                await asyncio.sleep(10)
            finally:
                order.append(number)

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(50):
                    group.create_task(worker(number))
                group.create_task(fail())
        except* ValueError:
            pass
        return order

    return simulate(main)


def test_a_group_cancels_in_the_same_order_every_time() -> None:
    """Sets of tasks iterate alike, wherever the tasks lie in memory."""
    keep = [object() for _ in range(1000)]
    assert cancellations() == cancellations()
    del keep
    assert cancellations() == cancellations()


@pytest.mark.skipif(sys.platform == "emscripten", reason="a browser's Python has no processes")
def test_the_hash_seed_changes_nothing() -> None:
    """Two interpreters with other hash seeds see the same run."""
    code = "from tests.simulation.test_loop import *; print(trace(3), cancellations())"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_a_deadlock_names_those_who_wait() -> None:
    """Nothing can ever happen again, and the error says who is waiting where."""

    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await asyncio.sleep(5)
        await waits_for_ever()

    with pytest.raises(Deadlock, match=r"(?s)deadlock after 5 s.*main at line") as caught:
        simulate(main)
    assert len(caught.value.waiting) == 1


def test_a_timer_that_is_never_due_is_a_deadlock() -> None:
    """Sleeping for ever is waiting for nothing, not a clock that runs for ever."""
    with pytest.raises(Deadlock, match="no timer will ever be due"):
        simulate(asyncio.sleep(float("inf")))


def test_tasks_left_behind_are_reported() -> None:
    """They are cancelled, and named."""
    ended = []

    async def background() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(True)

    async def main() -> None:
        task = asyncio.create_task(background())
        await asyncio.sleep(1)
        assert not task.done()

    with pytest.raises(LeftoverTasks, match="background") as caught:
        simulate(main)
    assert len(caught.value.tasks) == 1
    assert ended == [True]
    assert simulate(main, leftover="cancel") is None


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: asyncio.open_connection("127.0.0.1", 1),
        lambda: asyncio.create_subprocess_exec("true"),
        lambda: asyncio.get_running_loop().getaddrinfo("localhost", 1),
    ],
    ids=["connection", "process", "name"],
)
def test_the_outside_world_is_refused_at_once(attempt) -> None:  # type: ignore[no-untyped-def]
    """The error names the operation and what to use instead."""

    async def main() -> None:
        await attempt()

    with pytest.raises(OutsideWorld, match="real world"):
        simulate(main)


def test_a_real_http_client_is_refused_too() -> None:
    """Its connection is a socket like any other."""

    async def main() -> None:
        await httpx.AsyncClient().get("http://127.0.0.1:1")

    with pytest.RaisesGroup(OutsideWorld):
        simulate(main)


def test_work_for_a_thread_runs_inline() -> None:
    """In this thread, in no time, and its error is the caller's."""

    async def main() -> tuple[int, float]:
        thread = await asyncio.to_thread(threading.get_ident)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return thread, asyncio.get_running_loop().time()

    assert simulate(main) == (threading.get_ident(), 0.0)


@pytest.mark.skipif(sys.platform == "emscripten", reason="a browser's Python has no processes")
def test_no_thread_and_no_socket_is_made() -> None:
    """An audit hook of the interpreter sees neither."""
    code = """
import sys, threading
from tests.simulation.test_loop import trace
seen = []
sys.addaudithook(lambda event, _: seen.append(event) if event.startswith(("socket.", "_thread.")) else None)
trace(1)
assert not seen, seen
assert threading.active_count() == 1
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_what_main_raises_comes_out() -> None:
    """With its other tasks cancelled."""

    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(100))
        await asyncio.sleep(1)
        assert not task.done()
        raise KeyError("main")

    with pytest.raises(KeyError, match="main"):
        simulate(main)


def test_a_cancelled_main_is_cancelled() -> None:
    """From within, as by anyone else; it may clean up, in virtual time, and leaves no task."""
    ended = []

    async def clean_up() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            ended.append(asyncio.get_running_loop().time())

    async def main() -> None:
        task = asyncio.current_task()
        assert task
        asyncio.get_running_loop().call_later(5, task.cancel)
        async with asyncio.TaskGroup() as group:
            group.create_task(clean_up())

    with pytest.raises(asyncio.CancelledError):
        simulate(main)
    assert ended == [6.0]


def test_a_failed_run_leaves_the_outer_loop_as_it_was() -> None:
    """As when a cell of a notebook raises, and the next one runs."""

    async def outer() -> float:
        task = asyncio.current_task()
        with pytest.raises(Deadlock):
            simulate(asyncio.Event().wait())
        assert asyncio.current_task() is task
        await asyncio.sleep(0)
        return simulate(hour)

    assert asyncio.run(outer()) == 3600.0


def test_generators_are_closed() -> None:
    """One that main left half-way runs its `finally`."""
    closed = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    async def main() -> int:
        async for number in numbers():
            return number
        raise AssertionError

    assert simulate(main) == 1
    assert closed == [True]


def test_the_time_of_day_is_simulated_too() -> None:
    """It starts where asked and moves with the loop."""
    start = datetime(2026, 3, 1, 12, tzinfo=UTC)

    async def main() -> datetime:
        await asyncio.sleep(90)
        return datetime.fromtimestamp(clock.now(), UTC)

    assert simulate(main, start=start) == start + timedelta(seconds=90)


def test_time_outs_fire_in_virtual_time() -> None:
    """`asyncio.timeout` and `wait_for` need nothing special."""

    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(10)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(10), 3)
        return asyncio.get_running_loop().time()

    assert simulate(main) == 8.0
