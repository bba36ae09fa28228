"""A stream broke after its first token: what may be shown next, so that nobody reads a sentence twice?

Before the first token another target can be asked and nobody notices. After it, text is on a screen, and a second model
writes another text. So each change of target is told by a `StreamSwitched` in the stream: either the answer starts over
(drop what was shown), or the next target goes on from the text so far, where it can.

Invariants:

1. Between the chunks of two targets there is a `StreamSwitched`.
2. The text since the last restart is what the consumer may show, and nothing in it comes twice.
3. Each stream that was opened is closed once, by its end, its failure, `aclose` or cancellation.

Going on takes a model that continues an assistant's message (*prefill*). What can't be gone on from starts over: a tool
call half-way, an answer that is held to a schema, or no target left that takes a prefill.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from inspect import isawaitable
from typing import Literal, Protocol, Self

from pydantic import ConfigDict

from llm_patterns.chat import ChatChunk, ChatRequest, ChatStream, Message
from llm_patterns.errors import LLMPatternsError, failure_of
from llm_patterns.quotas import Quotas

__all__ = ["AfterFirstToken", "FailoverStream", "StreamInterrupted", "StreamSwitched"]

AfterFirstToken = Literal["raise", "restart", "continue"]


class StreamInterrupted(LLMPatternsError):
    """A stream broke after its first token and was not taken up elsewhere.

    `target` was writing, `text` is what came (since the last restart), `error` what broke it. Its headers say
    `x-should-retry: false`: whoever starts over must first take back what was shown.
    """

    def __init__(self, target: str, text: str, error: Exception) -> None:
        self.target = target
        self.text = text
        self.error = error
        self.kind = failure_of(error).kind
        self.headers = {"x-should-retry": "false"}
        super().__init__(f"{target} broke off after {len(text)} characters: {error!r}")


class StreamSwitched(ChatChunk):
    """In place of a chunk: `before` broke with `error`, and from here on `target` writes.

    `restarted` True: the answer starts over, drop what was shown. False: it goes on from there. As a chunk it is empty,
    so whoever does not look shows a continued answer as it should be, and a restarted one twice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    before: str
    target: str
    restarted: bool
    error: Exception


class StreamCall(Protocol):
    """What a stream asks of the call that opened it."""

    target: str

    def ended(self, *, succeeded: bool | None) -> None:
        """Give back what the call held: the stream is over. The second time does nothing."""

    def broke(self, error: Exception) -> None:
        """Note that the target failed; raises *error* if it is one that must not be answered by another target."""

    async def reopen(self, request: ChatRequest, *, prefill: bool) -> ChatStream | None:
        """Open *request* at a target that was not asked yet, or return None where there is no such target."""


def continuation(request: ChatRequest, text: str, written: int) -> tuple[ChatRequest, str]:
    """Return the request that goes on from *text*, and the white space that its answer may bring a second time.

    Providers refuse a prefill that ends in white space, so it is taken off here and, if it comes again, there.
    `max_tokens` bounds the whole answer: the *written* tokens are taken off.
    """
    prefill = text.rstrip()
    changes: dict[str, object] = {"messages": (*request.messages, Message.assistant(prefill))}
    if request.max_tokens is not None:
        changes["max_tokens"] = max(1, request.max_tokens - written)
    return request.model_copy(update=changes), text[len(prefill) :]


class FailoverStream:
    """A `ChatStream` that outlives the target it began at, as far as the policy goes."""

    def __init__(
        self,
        call: StreamCall,
        request: ChatRequest,
        chunks: ChatStream,
        *,
        after_first_token: AfterFirstToken,
        stall_timeout: float | None,
        told: Callable[[StreamSwitched], object],
    ) -> None:
        self._call = call
        self._request = request
        self._chunks = chunks
        self._afterwards = after_first_token
        self._stall_timeout = stall_timeout
        self._told = told
        self._pieces: list[str] = []
        self._calls_tools = False
        self._finished = False
        self._closed = False
        self._twice = ""

    @property
    def target(self) -> str:
        """Return the name of the target that is writing."""
        return self._call.target

    @property
    def text(self) -> str:
        """Return the text so far, since the last restart."""
        return "".join(self._pieces)

    @property
    def quotas(self) -> Quotas | None:
        """Return what is left of the target's rate limits, where it was said."""
        quotas = getattr(self._chunks, "quotas", None)
        return quotas if isinstance(quotas, Quotas) else None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatChunk:
        if self._closed:
            raise StopAsyncIteration
        try:
            async with asyncio.timeout(self._stall_timeout):
                chunk = await anext(self._chunks)
        except StopAsyncIteration:
            await self._close(succeeded=True)
            raise
        except Exception as error:
            return await self._switch(error)
        except BaseException:
            await self._close(succeeded=None)
            raise
        return self._seen(chunk)

    async def aclose(self) -> None:
        """Stop reading and free the connection. What came so far came: that is a success of the target's."""
        if not self._closed:
            await self._close(succeeded=True)

    async def _close(self, *, succeeded: bool | None) -> None:
        self._closed = True
        try:
            await close_stream(self._chunks)
        finally:
            self._call.ended(succeeded=succeeded)

    def _seen(self, chunk: ChatChunk) -> ChatChunk:
        if self._twice and chunk.text:
            chunk = chunk.model_copy(update={"text": self._once(chunk.text)})
        self._pieces.append(chunk.text)
        self._calls_tools = self._calls_tools or bool(chunk.tool_calls)
        self._finished = self._finished or chunk.finish_reason is not None
        return chunk

    def _once(self, text: str) -> str:
        """Return *text* without the white space at its beginning that was shown before the break."""
        while self._twice and text and text[0] == self._twice[0]:
            text, self._twice = text[1:], self._twice[1:]
        if text:
            self._twice = ""
        return text

    async def _switch(self, error: Exception) -> ChatChunk:
        if self._finished:  # the answer is whole: only its connection broke
            await self._close(succeeded=True)
            raise StopAsyncIteration
        try:
            with suppress(Exception):  # it is broken already, and that is the error that counts
                await close_stream(self._chunks)
            before = self.target
            self._call.broke(error)
            restarted = await self._taken_up(before, error)
        except BaseException:
            self._closed = True
            self._call.ended(succeeded=None)
            raise
        switched = StreamSwitched(
            before=before, target=self.target, restarted=restarted, error=error
        )
        self._told(switched)
        return switched

    async def _taken_up(self, before: str, error: Exception) -> bool:
        """Take the answer up elsewhere, and return whether it starts over; raises `StreamInterrupted`."""
        if self._afterwards == "raise":
            raise StreamInterrupted(before, self.text, error) from error
        try:
            if self._can_continue:
                text = self.text
                request, twice = continuation(self._request, text, len(text) // 4)
                chunks = await self._call.reopen(request, prefill=True)
                if chunks is not None:
                    self._chunks, self._twice = chunks, twice
                    return False
            chunks = await self._call.reopen(self._request, prefill=False)
        except Exception as failed:
            raise StreamInterrupted(before, self.text, error) from failed
        if chunks is None:
            raise StreamInterrupted(before, self.text, error) from error
        self._chunks, self._twice = chunks, ""
        self._pieces.clear()
        self._calls_tools = False
        return True

    @property
    def _can_continue(self) -> bool:
        if self._afterwards != "continue" or self._request.response_schema is not None:
            return False
        return bool(self.text.strip()) and not self._calls_tools


async def close_stream(chunks: object) -> None:
    """Close a stream by the name that its client has for it: `aclose`, or `close` as in the vendors' SDKs."""
    close: Callable[[], Awaitable[None] | None] | None
    close = getattr(chunks, "aclose", None) or getattr(chunks, "close", None)
    if close is not None and isawaitable(closing := close()):
        await closing
