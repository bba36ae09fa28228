"""Virtual time: `simulate` runs ordinary asyncio code without waiting.

The loop below is asyncio's own, with one change: where it would sleep until the next timer, it
moves its clock there. An hour of outage with a thousand clients takes a second, and the same seed
gives the same run on every machine.

>>> import asyncio
>>> async def patient():
...     await asyncio.sleep(3600)
...     return asyncio.get_running_loop().time()
>>> simulate(patient)
3600.0

It needs no thread and no socket, and it nests in a loop that is already running (a notebook's
kernel, a widget's callback, Python in a browser). Virtual time ends where the real world begins:
code that would wait for a socket or a process is stopped with `OutsideWorld`; work handed to a
thread (`asyncio.to_thread`) runs inline and takes no virtual time; a thread that code starts by
itself is not seen at all.
"""

from __future__ import annotations

import asyncio
import asyncio.events
import asyncio.tasks
import gc
import inspect
import math
import random
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, Literal, NoReturn, TypeVar, TypeVarTuple, cast

from llm_patterns.clock import World
from llm_patterns.errors import LLMPatternsError

__all__ = ["Deadlock", "LeftoverTasks", "OutsideWorld", "VirtualTimeLoop", "simulate"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START: Final = datetime(2026, 1, 5, tzinfo=UTC)
"""The time of day at which simulations begin: a Monday's midnight, so that days and weeks start even."""


class Deadlock(LLMPatternsError):
    """Nothing can ever happen again: every task waits, and no timer will ever be due."""

    def __init__(self, waiting: Iterable[str], at: float) -> None:
        self.waiting = tuple(waiting)
        lines = "".join(f"\n  {task}" for task in self.waiting)
        super().__init__(
            f"deadlock after {at:g} s of virtual time: no timer will ever be due, and these tasks wait for each other "
            f"or for something outside the simulation:{lines}"
        )


class LeftoverTasks(LLMPatternsError):
    """The simulation's main function returned while tasks that it started were still running."""

    def __init__(self, tasks: Iterable[str]) -> None:
        self.tasks = tuple(tasks)
        lines = "".join(f"\n  {task}" for task in self.tasks)
        super().__init__(
            "main returned with tasks still running; await or cancel them "
            f"(asyncio.TaskGroup does both), or pass leftover='cancel':{lines}"
        )


class OutsideWorld(LLMPatternsError, RuntimeError):
    """Code in a simulation tried to wait for a real socket, process or signal."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        super().__init__(
            f"loop.{operation}() would wait for the real world, where virtual time does not pass; "
            "give the code an in-process counterpart, such as SimulatedProvider or its transport"
        )


class _Task(asyncio.Task[T]):
    """A task whose hash is its number, so that sets of tasks (as in TaskGroup) iterate alike in every run."""

    def __init__(
        self, coro: Coroutine[Any, Any, T], *, loop: VirtualTimeLoop, **options: Any
    ) -> None:
        loop.tasks_started += 1
        self.number = loop.tasks_started
        if options.get("name") is None:
            options["name"] = f"task-{self.number}"
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self.number


class _Clock:
    """Stands where asyncio's loop expects a selector: waiting for *timeout* moves the clock instead."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> tuple[()]:
        if timeout is None or (timeout > 0 and self._loop.next_timer() == math.inf):
            raise Deadlock(_described(_unfinished(self._loop)), self._loop.time())
        if timeout > 0:
            self._loop.advance(timeout)
        return ()


class VirtualTimeLoop(asyncio.BaseEventLoop, World):
    """asyncio's event loop on a clock that jumps from timer to timer.

    *seed* seeds `rng`, the run's source of chance. `simulate` makes, runs and closes one.
    """

    def __init__(self, *, seed: int = 0, start: datetime = START) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.tasks_started = 0
        self._start = start.timestamp()
        self._now = 0.0
        self._selector = _Clock(self)
        self._clock_resolution = math.ulp(0.0)
        self.set_task_factory(cast(Any, _task))

    def time(self) -> float:
        """Return the seconds of virtual time since the simulation began."""
        return self._now

    def wall_time(self) -> float:
        """Return the simulated time of day in seconds since the epoch."""
        return self._start + self._now

    def advance(self, timeout: float) -> None:
        """Move the clock by *timeout* seconds, landing exactly on the next timer where that is what was meant."""
        due = self.next_timer()
        reached = self._now + timeout
        self._now = due if abs(due - reached) < 1e-6 else reached
        # asyncio runs the timers due before now + resolution: one float step is those due now.
        self._clock_resolution = math.ulp(self._now)

    def next_timer(self) -> float:
        """Return the loop time at which the next timer is due, or infinity."""
        timers = cast("list[asyncio.TimerHandle]", vars(self)["_scheduled"])
        return timers[0].when() if timers else math.inf

    def run_in_executor(
        self, executor: object, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run *func* here and now; it takes no virtual time."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _process_events(self, event_list: object) -> None:
        """Do nothing: there are no files to watch."""

    def _write_to_self(self) -> None:
        """Do nothing: the loop never blocks, so nothing has to wake it."""


def _task(loop: VirtualTimeLoop, coro: Coroutine[Any, Any, T], **options: Any) -> _Task[T]:
    return _Task(coro, loop=loop, **options)


def _refusal(operation: str) -> Callable[..., NoReturn]:
    def refuse(self: VirtualTimeLoop, *args: object, **options: object) -> NoReturn:
        raise OutsideWorld(operation)

    return refuse


for _operation in (
    *("add_reader", "add_writer", "add_signal_handler", "connect_read_pipe", "connect_write_pipe"),
    *("create_connection", "create_datagram_endpoint", "create_server", "connect_accepted_socket"),
    *("create_unix_connection", "create_unix_server", "getaddrinfo", "getnameinfo", "start_tls"),
    *(
        "sock_accept",
        "sock_connect",
        "sock_recv",
        "sock_recv_into",
        "sock_recvfrom",
        "sock_sendall",
    ),
    *("sock_sendfile", "sock_sendto", "sendfile", "subprocess_exec", "subprocess_shell"),
):
    setattr(VirtualTimeLoop, _operation, _refusal(_operation))


def simulate(
    main: Callable[[], Coroutine[Any, Any, T]] | Coroutine[Any, Any, T],
    *,
    seed: int = 0,
    start: datetime = START,
    leftover: Literal["raise", "cancel"] = "raise",
) -> T:
    """Run *main* in virtual time and return its result.

    *main* is an async function without arguments, or a coroutine. *seed* decides all chance that
    code takes from `clock.rng()`; *start* is the time of day at second 0. Raises `Deadlock` when
    nothing can ever happen again, `LeftoverTasks` when main leaves tasks behind (they are
    cancelled; *leftover* = "cancel" does it silently, as `asyncio.run` does), and whatever main
    raises.
    """
    coroutine = main if inspect.iscoroutine(main) else cast("Callable[[], Any]", main)()
    loop = VirtualTimeLoop(seed=seed, start=start)
    with _alone_in_thread(), _rare_garbage_collection():
        try:
            result: T = loop.run_until_complete(coroutine)
        except BaseException:
            _cancel(loop, _unfinished(loop))
            raise
        else:
            _close_generators(loop)
            abandoned = [task for task in _unfinished(loop) if not task.cancelling()]
            report = _described(abandoned)
            _cancel(loop, _unfinished(loop))
            if report and leftover == "raise":
                raise LeftoverTasks(report)
            return result
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


@contextmanager
def _alone_in_thread() -> Iterator[None]:
    """Hide the loop and task that are running in this thread, if any, so that another loop may run inside them."""
    outer = asyncio.events._get_running_loop()
    task = asyncio.current_task(outer) if outer else None
    if outer and task:
        asyncio.tasks._leave_task(outer, task)
    asyncio.events._set_running_loop(None)
    try:
        yield
    finally:
        asyncio.events._set_running_loop(outer)
        if outer and task:
            asyncio.tasks._enter_task(outer, task)


@contextmanager
def _rare_garbage_collection() -> Iterator[None]:
    """Look for garbage less often: a run makes many small objects and keeps them (a third of its time otherwise)."""
    thresholds = gc.get_threshold()
    gc.set_threshold(100_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def _unfinished(loop: VirtualTimeLoop) -> list[_Task[Any]]:
    return sorted(cast("set[_Task[Any]]", asyncio.all_tasks(loop)), key=lambda task: task.number)


def _close_generators(loop: VirtualTimeLoop) -> None:
    """Let asyncio close the generators that were dropped half-way: those tasks are its own, not main's."""
    while closing := [
        each for each in _unfinished(loop) if not inspect.iscoroutine(each.get_coro())
    ]:
        loop.run_until_complete(asyncio.gather(*closing, return_exceptions=True))


def _cancel(loop: VirtualTimeLoop, tasks: list[_Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


def _described(tasks: Iterable[_Task[Any]]) -> list[str]:
    return [_description(task) for task in tasks]


def _description(task: _Task[Any]) -> str:
    coroutine = task.get_coro()
    name = getattr(coroutine, "__qualname__", repr(coroutine))
    frames = task.get_stack(limit=1)
    where = f" at line {frames[0].f_lineno} of {frames[0].f_code.co_filename}" if frames else ""
    return f"{task.get_name()} ({name}{where})"
