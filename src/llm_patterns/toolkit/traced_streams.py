"""When is a streamed answer over, and in which step are we while it is read?

The span of a stream ends where its reading does: at the last chunk, at an error, when it is closed, or when it is
dropped half-way. It is current only while a chunk is being fetched, so what the reader does in between is the reader's
own; a generator that holds a span open across its `yield`s makes itself the parent of all that.

Invariants:

1. The span ends once, whatever ends the stream.
2. Chunks, errors and the end of the stream reach the reader as they came.

>>> from llm_patterns.simulation import simulate
>>> from llm_patterns.toolkit import MemorySink, TraceLogger
>>> async def pieces():
...     yield "one"
...     yield "two"
>>> sink = MemorySink()
>>> async def read():
...     span = TraceLogger(sink=sink).span("generate")
...     return [piece async for piece in TracedStream(pieces(), span)], sink.spans[0].name
>>> simulate(read)
(['one', 'two'], 'generate')
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from inspect import isawaitable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from llm_patterns.toolkit.gen_ai import OUTPUT_MESSAGES, StreamReader
from llm_patterns.toolkit.open_spans import Span

__all__ = ["TracedStream"]

T = TypeVar("T")


class TracedStream(Generic[T]):
    """The chunks of a stream, read within *span*, which ends with them. What else the client's stream has is passed on.

    *reader* takes in what the chunks of a model say; without it they are not looked at.
    """

    def __init__(
        self, chunks: AsyncIterable[T], span: Span, *, reader: StreamReader | None = None
    ) -> None:
        self._chunks = chunks
        self._iterator: AsyncIterator[T] | None = None
        self._span = span
        self._reader = reader
        self._first_after: float | None = None
        self._loop = asyncio._get_running_loop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chunks, name)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            with self._span.current():
                if self._iterator is None:
                    self._iterator = aiter(self._chunks)
                chunk = await anext(self._iterator)
        except StopAsyncIteration:
            self._settle()
            raise
        except BaseException as error:
            self._span.fail(error)
            self._settle()
            raise
        self._read(chunk)
        return chunk

    async def aclose(self) -> None:
        """Close the client's stream, and end the span."""
        close = getattr(self._chunks, "aclose", None) or getattr(self._chunks, "close", None)
        try:
            if close is not None and isawaitable(closing := close()):
                await closing
        finally:
            self._abandon()

    close = aclose
    """As the vendors' SDKs call it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        span = self.__dict__.get("_span")
        if span is None or span.ended:
            return
        # The garbage collector calls from anywhere, in the middle of anything: the end waits for the loop's next turn.
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._abandon)
        else:
            self._abandon()

    def _read(self, chunk: T) -> None:
        if self._first_after is None:
            self._first_after = self._span.elapsed
        if self._reader is not None and self._span.recording:
            with suppress(Exception):  # a chunk of a shape that nobody foresaw
                self._reader.read(chunk)

    def _abandon(self) -> None:
        """End the span of a stream whose reader left before the end."""
        if not self._span.ended:
            self._span.fail(asyncio.CancelledError())
            self._settle()

    def _settle(self) -> None:
        if self._reader is not None and self._span.recording and not self._span.ended:
            self._span.update(self._reader.attributes())
            if self._first_after is not None:
                self._span.set("gen_ai.response.time_to_first_chunk", round(self._first_after, 6))
            self._span.content(OUTPUT_MESSAGES, self._reader.messages())
        self._span.end()
