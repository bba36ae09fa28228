"""A deadline in a worker thread, which has no event loop of its own."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context

import pytest

from llm_patterns.deadlines import deadline, deadline_at, time_left


def test_a_thread_of_the_task_sees_the_task_s_deadline() -> None:
    """A blocking client can be given what is left; a thread without the context has none."""

    async def main() -> None:
        with deadline(60):
            left = await asyncio.to_thread(time_left)
            assert left is not None
            assert 0 < left <= 60
            assert await asyncio.to_thread(deadline_at) == deadline_at()
            assert await asyncio.get_running_loop().run_in_executor(None, time_left) is None

    asyncio.run(main())


def test_a_thread_that_outlives_the_loop_has_no_deadline() -> None:
    """The loop's clock tells it nothing any more."""

    async def main() -> Context:
        with deadline(60):
            return copy_context()

    context = asyncio.run(main())
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(context.run, time_left).result() is None


def test_a_thread_without_a_loop_can_set_none() -> None:
    """A deadline's time is a loop's."""

    def set_one() -> None:
        with deadline(1):
            pass

    with (
        ThreadPoolExecutor(1) as thread,
        pytest.raises(RuntimeError, match="no running event loop"),
    ):
        thread.submit(set_one).result()
