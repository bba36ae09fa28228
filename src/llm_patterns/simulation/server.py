"""What a provider's capacity does to the requests that wait for it: two kinds of server.

`FifoServer` has a number of slots and a queue: requests wait, then run at full speed.
`ProcessorSharingServer` starts everything at once and shares its capacity, as continuous batching
does: requests do not wait, they slow down.

Both can go on working for callers who have gone away (`abandoned="finish"`). Many real services do:
the time-out is the client's, and the server has not noticed. It is this wasted work that keeps an
overloaded service down after its cause has gone (Bronson et al., "Metastable Failures in
Distributed Systems", HotOS 2021).

Work is measured in seconds that the request takes on an idle server.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from math import ulp
from typing import Final, Literal, cast

from llm_patterns.errors import ConfigurationError, LLMPatternsError

__all__ = ["Abandoned", "FifoServer", "Job", "ProcessorSharingServer", "QueueFull", "Server"]

Abandoned = Literal["finish", "drop"]
"""What becomes of a request nobody waits for: `finish` works on it to its end, `drop` notices and stops."""

OnEnd = Callable[[float], None]

_EPSILON: Final = 1e-9


def _ignore(at: float) -> None:
    """Hear that a job has ended, and do nothing."""


class QueueFull(LLMPatternsError):
    """The server's queue is as long as it may be."""

    def __init__(self, length: int) -> None:
        self.length = length
        super().__init__(f"the queue is full with {length} requests")


class Job:
    """One request's work on a server. Times are loop times, None until they come."""

    __slots__ = (
        *("_on_end", "_server", "_starting", "done", "finished_at"),
        *("origin", "started_at", "submitted_at", "timer", "work"),
    )

    def __init__(
        self, server: Server, work: float, on_end: OnEnd, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._server = server
        self._on_end = on_end
        self._starting: asyncio.Future[None] | None = None
        self.work = work
        self.done: asyncio.Future[None] = loop.create_future()
        self.submitted_at = loop.time()
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.origin = 0.0
        self.timer: asyncio.TimerHandle | None = None

    async def reach(self, work: float) -> None:
        """Return once *work* seconds' worth are done; at `job.work`, once all is."""
        if work >= self.work:
            await self.done
            return
        if self.started_at is None:
            self._starting = self.done.get_loop().create_future()
            await self._starting
        await self._server._reach(self, work)

    def attained(self) -> float:
        """Return how many seconds' worth are done."""
        if self.started_at is None:
            return 0.0
        return self.work if self.finished_at is not None else self._server._attained(self)

    def abandon(self) -> None:
        """Say that nobody waits for this job any more; the server drops it or works on."""
        if self.finished_at is None and self._server.abandoned == "drop":
            self.finished_at = self.done.get_loop().time()
            self._server._drop(self)

    def start(self, now: float) -> None:
        """Note that the server has begun (called by the server)."""
        self.started_at = now
        if self._starting is not None and not self._starting.done():
            self._starting.set_result(None)

    def finish(self, now: float) -> None:
        """Note that the work is done, and wake who waits for it (called by the server)."""
        self.finished_at = now
        self._on_end(now)
        if not self.done.done():
            self.done.set_result(None)


class Server(ABC):
    """Capacity, and what happens to the requests that want it."""

    def __init__(self, *, abandoned: Abandoned) -> None:
        self.abandoned = abandoned
        self.capacity_factor: Callable[[], float] = lambda: 1.0

    @property
    @abstractmethod
    def in_flight(self) -> int:
        """Return the requests that are being worked on."""

    @property
    @abstractmethod
    def waiting(self) -> int:
        """Return the requests that wait in the queue."""

    @abstractmethod
    def submit(self, work: float, on_end: OnEnd = _ignore) -> Job:
        """Take a request of *work* seconds; *on_end* hears the time of its end. Raises `QueueFull`."""

    @abstractmethod
    def capacity_changed(self) -> None:
        """Look at `capacity_factor` again: a fault has begun or ended."""

    @abstractmethod
    async def _reach(self, job: Job, work: float) -> None: ...

    @abstractmethod
    def _attained(self, job: Job) -> float: ...

    @abstractmethod
    def _drop(self, job: Job) -> None: ...


class FifoServer(Server):
    """*slots* requests at a time, each at full speed; the rest wait in order, at most *max_queue* of them.

    The real counterpart is a pool of workers, or one sequence for each of a GPU's cache blocks.
    """

    def __init__(
        self, slots: int, *, max_queue: int = 100_000, abandoned: Abandoned = "finish"
    ) -> None:
        super().__init__(abandoned=abandoned)
        if slots < 1 or max_queue < 0:
            raise ConfigurationError(
                f"FifoServer(slots={slots}, max_queue={max_queue}): at least 1 slot and a queue of 0 or more"
            )
        self.slots = slots
        self.max_queue = max_queue
        self._queue: deque[Job] = deque()
        self._running = 0
        self._waiting = 0

    @property
    def in_flight(self) -> int:
        """Return the requests that hold a slot."""
        return self._running

    @property
    def waiting(self) -> int:
        """Return the requests that wait for one."""
        return self._waiting

    def submit(self, work: float, on_end: OnEnd = _ignore) -> Job:
        """Start *work* seconds in a free slot, or queue it."""
        loop = asyncio.get_running_loop()
        if self._waiting >= self.max_queue and self._running >= self._slots_now():
            raise QueueFull(self._waiting)
        job = Job(self, work, on_end, loop)
        self._queue.append(job)
        self._waiting += 1
        self._start_next(loop)
        return job

    def capacity_changed(self) -> None:
        """Start what now fits. Requests that run already go on."""
        self._start_next(asyncio.get_running_loop())

    def _slots_now(self) -> int:
        return int(self.slots * self.capacity_factor() + _EPSILON)

    def _start_next(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._queue and self._running < self._slots_now():
            job = self._queue.popleft()
            if job.finished_at is not None:
                continue  # dropped while it waited
            self._waiting -= 1
            self._running += 1
            job.start(loop.time())
            job.timer = loop.call_later(job.work, self._release, job, loop)

    def _release(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        self._running -= 1
        job.finish(loop.time())
        self._start_next(loop)

    async def _reach(self, job: Job, work: float) -> None:
        begun = cast(float, job.started_at)
        await asyncio.sleep(max(0.0, begun + work - job.done.get_loop().time()))

    def _attained(self, job: Job) -> float:
        return job.done.get_loop().time() - cast(float, job.started_at)

    def _drop(self, job: Job) -> None:
        if job.timer is None:
            self._waiting -= 1
        else:
            job.timer.cancel()
            self._running -= 1
            self._start_next(job.done.get_loop())


class ProcessorSharingServer(Server):
    """All requests at once: up to *full_speed* of them each run at full speed, more share that capacity evenly.

    The model of processor-sharing queues (Kleinrock, *Queueing Systems*, volume 2, 1976), and a
    fair picture of continuous batching: past the knee, everyone's tokens come slower. *max_running*
    refuses the request that would be one too many, as a server that runs out of cache memory does.
    """

    def __init__(
        self, full_speed: float, *, max_running: int = 100_000, abandoned: Abandoned = "drop"
    ) -> None:
        super().__init__(abandoned=abandoned)
        if not full_speed > 0 or max_running < 1:
            raise ConfigurationError(
                f"ProcessorSharingServer(full_speed={full_speed}, max_running={max_running}): "
                "a positive capacity and at least 1 running request"
            )
        self.full_speed = full_speed
        self.max_running = max_running
        self._running = 0
        # Every running job gains on this odometer alike: an arrival or a departure is O(log n).
        self._odometer = 0.0
        self._rate = 0.0
        self._since = 0.0
        self._marks: list[tuple[float, int, Job, asyncio.Future[None] | None]] = []
        self._number = count()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def in_flight(self) -> int:
        """Return the requests that share the capacity."""
        return self._running

    @property
    def waiting(self) -> int:
        """Return 0: nobody waits, everybody slows down."""
        return 0

    def submit(self, work: float, on_end: OnEnd = _ignore) -> Job:
        """Start *work* seconds among the others."""
        if self._running >= self.max_running:
            raise QueueFull(self._running)
        loop = asyncio.get_running_loop()
        self._read(loop)
        job = Job(self, work, on_end, loop)
        job.origin = self._odometer
        job.start(loop.time())
        self._running += 1
        self._mark(job, work, None, loop)
        return job

    def capacity_changed(self) -> None:
        """Go on at the new speed."""
        loop = asyncio.get_running_loop()
        self._read(loop)
        self._schedule(loop)

    def _speed(self) -> float:
        capacity = self.full_speed * self.capacity_factor()
        return min(1.0, capacity / self._running) if self._running else 0.0

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._odometer += (now - self._since) * self._rate
        self._since = now

    def _mark(
        self,
        job: Job,
        work: float,
        reached: asyncio.Future[None] | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        heappush(self._marks, (job.origin + work, next(self._number), job, reached))
        self._schedule(loop)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._marks and self._marks[0][2].finished_at is not None:
            heappop(self._marks)  # of a job that was dropped
        self._rate = self._speed()
        if self._marks and self._rate > 0:
            left = max(0.0, self._marks[0][0] - self._odometer)
            self._timer = loop.call_later(left / self._rate, self._pass_marks, loop)

    def _pass_marks(self, loop: asyncio.AbstractEventLoop) -> None:
        self._read(loop)
        # At large times the clock's own step is coarser than the odometer's: a mark that is nearer
        # than it can tell has been passed, or the loop would wait for no time at all, for ever.
        passed = self._odometer + max(_EPSILON, 4 * ulp(max(self._since, self._odometer)))
        while self._marks and self._marks[0][0] <= passed:
            _, _, job, reached = heappop(self._marks)
            if reached is not None:
                if not reached.done():
                    reached.set_result(None)
            elif job.finished_at is None:
                self._running -= 1
                job.finish(loop.time())
        self._schedule(loop)

    async def _reach(self, job: Job, work: float) -> None:
        loop = job.done.get_loop()
        self._read(loop)
        if job.finished_at is None and job.origin + work > self._odometer:
            reached: asyncio.Future[None] = loop.create_future()
            self._mark(job, work, reached, loop)
            await reached

    def _attained(self, job: Job) -> float:
        self._read(job.done.get_loop())
        return min(job.work, self._odometer - job.origin)

    def _drop(self, job: Job) -> None:
        loop = job.done.get_loop()
        self._read(loop)
        self._running -= 1
        self._schedule(loop)
