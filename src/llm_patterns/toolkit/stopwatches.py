"""How long does this block, call or stream take, and how did it end?

A stopwatch times a block in the event loop's time, and a `TimedStream` the chunks on their way to the reader. Both hand
what they saw to a callable, such as `LatencyTracker.record`, with the `Timing` that says what the seconds are of.

>>> import asyncio
>>> from llm_patterns.simulation import simulate
>>> async def main():
...     seen = []
...     with Stopwatch(lambda seconds, timing: seen.append((seconds, timing.value))):
...         await asyncio.sleep(2)
...     return seen
>>> simulate(main)
[(2.0, 'completed')]
"""

from __future__ import annotations

from asyncio import CancelledError, get_running_loop
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from enum import StrEnum
from inspect import isawaitable
from types import TracebackType
from typing import Self

from llm_patterns.deadlines import time_left
from llm_patterns.errors import ErrorKind, failure_of
from llm_patterns.toolkit.usage import field_of

__all__ = ["Stopwatch", "TimedStream", "Timing", "timing_of"]


class Timing(StrEnum):
    """What some seconds are the duration of: a call, by how it ended, or a part of a stream."""

    COMPLETED = "completed"
    """From the request to the whole answer."""
    FAILED = "failed"
    """To the provider's error, or a broken connection."""
    TIMED_OUT = "timed_out"
    """To a time-out or the deadline: the answer takes longer than this."""
    CANCELLED = "cancelled"
    """To the caller's leaving: the answer takes longer than this."""
    REFUSED = "refused"
    """To the refusal by a pattern of this process: nothing was sent."""
    TIME_TO_FIRST_TOKEN = "time_to_first_token"  # noqa: S105
    """From the request to a stream's first chunk."""
    TIME_PER_TOKEN = "time_per_token"  # noqa: S105
    """From a stream's first chunk to its last, for each token after the first."""


def timing_of(error: BaseException | None) -> Timing:
    """Return how a call ended that raised *error*, or None.

    A cancellation at or past the ambient deadline is a time-out: that is how a deadline further out looks from within.
    """
    if error is None:
        return Timing.COMPLETED
    if isinstance(error, CancelledError):
        return Timing.TIMED_OUT if time_left() == 0 else Timing.CANCELLED
    if isinstance(error, GeneratorExit):
        return Timing.CANCELLED
    ended = {ErrorKind.TIMEOUT: Timing.TIMED_OUT, ErrorKind.REFUSED: Timing.REFUSED}
    return ended.get(failure_of(error).kind, Timing.FAILED)


class Stopwatch:
    """Times a block, in the event loop's time, and counts it when it ends. One stopwatch times one block at a time."""

    __slots__ = ("_began", "_ended", "_record")

    def __init__(self, record: Callable[[float, Timing], None]) -> None:
        self._record = record
        self._began = 0.0
        self._ended: float | None = 0.0

    @property
    def running(self) -> bool:
        """Return whether it was started and has not been stopped."""
        return self._ended is None

    @property
    def elapsed(self) -> float:
        """Return the seconds since it was started, or once it was stopped, those that the block took."""
        ended = get_running_loop().time() if self._ended is None else self._ended
        return ended - self._began

    def start(self) -> Self:
        """Begin, or begin anew."""
        self._began, self._ended = get_running_loop().time(), None
        return self

    def stop(self, error: BaseException | None = None) -> None:
        """End with *error*, or None, and count. The second time does nothing."""
        if self._ended is None:
            self._ended = get_running_loop().time()
            self._record(self.elapsed, timing_of(error))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.stop(error)

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.stop(error)


class TimedStream:
    """A stream as it was opened, whose chunks are timed on their way. What else the client's has is passed on."""

    def __init__(
        self,
        chunks: AsyncIterable[object],
        watch: Stopwatch,
        record: Callable[[float, Timing], None],
    ) -> None:
        self._opened = chunks
        self._watch = watch
        self._record = record
        self._loop = get_running_loop()
        self._chunks = aiter(chunks)
        self._first: float | None = None
        self._last = 0.0
        self._received = 0
        self._reported = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> object:
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._finish()
            raise
        except BaseException as error:
            self._watch.stop(error)
            raise
        self._count(chunk)
        return chunk

    async def aclose(self) -> None:
        """Hang up, as the client's own stream does."""
        self._watch.stop(GeneratorExit())
        close = getattr(self._opened, "aclose", None) or getattr(self._opened, "close", None)
        if close is not None and isawaitable(closing := close()):
            await closing

    close = aclose

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __getattr__(self, name: str) -> object:
        return getattr(self._opened, name)

    def __del__(self) -> None:
        # Dropped half-way, as by a `break`. The loop counts it: a finalizer may come in the middle of anything.
        if self._watch.running:
            with suppress(RuntimeError):  # the loop is closed, and nothing counts any more
                self._loop.call_soon_threadsafe(self._watch.stop, GeneratorExit())

    def _count(self, chunk: object) -> None:
        self._last = self._watch.elapsed
        if self._first is None:
            self._first = self._last
            self._record(self._first, Timing.TIME_TO_FIRST_TOKEN)
        self._received += 1
        self._reported = _written(chunk) or self._reported

    def _finish(self) -> None:
        if not self._watch.running:
            return
        self._watch.stop()
        tokens = self._reported or self._received
        if self._first is not None and tokens > 1:
            self._record((self._last - self._first) / (tokens - 1), Timing.TIME_PER_TOKEN)


def _written(chunk: object) -> int:
    """Return the tokens written so far, if the chunk of whichever client tells them."""
    usage = field_of(field_of(chunk, "response") or chunk, "usage")
    told = field_of(usage, "output_tokens") or field_of(usage, "completion_tokens")
    return told if isinstance(told, int) else 0
