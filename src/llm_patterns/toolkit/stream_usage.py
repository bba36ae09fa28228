"""How many tokens did a stream use? It tells at its end; one that is cut off has used tokens all the same.

`StreamUsage` keeps what a stream told and what it wrote, whichever client's chunks they are, and estimates the rest.
`RecordedStream` is read in the stream's place and says once, when it ends, what was seen.

Invariants:

1. Usage that was not told in full is marked as estimated, and is never less than what was told.
2. A stream's end is told once, however it comes: read out, broken, closed, cancelled or dropped.

>>> seen = StreamUsage()
>>> seen.add({"choices": [{"delta": {"content": "It depends on"}}]})
>>> seen.measured({"messages": [{"role": "user", "content": "Is it done?"}]})
(Usage(input_tokens=3, output_tokens=4), True)

Sources: OpenAI, the reference of `stream_options` (an interrupted stream may never tell its usage); Anthropic,
"Streaming Messages" (the counts of `message_delta` are running sums).
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import AsyncIterable, Callable, Iterator, Mapping
from functools import partial
from inspect import isawaitable
from typing import Final, Self

from pydantic import BaseModel

from llm_patterns.chat import Usage
from llm_patterns.toolkit.usage import (
    estimated_tokens,
    field_of,
    items_of,
    model_of,
    tier_of,
    usage_of,
)

__all__ = ["RecordedStream", "StreamUsage"]


class StreamUsage:
    """What is known of the usage of one stream, chunk by chunk, whichever client's chunks they are.

    `model` and `tier` are those that the stream names, or None. `whole` is whether the answer came to its end.
    """

    def __init__(self) -> None:
        self.model: str | None = None
        self.tier: str | None = None
        self.whole = False
        self._told: Usage | dict[str, object] = {}
        self._pieces: list[str] = []
        self._complete = False

    def add(self, chunk: object) -> None:
        """Take in the next chunk."""
        # Some events hold an answer: Anthropic's first as `message`, some of OpenAI's responses as `response`.
        whole = field_of(chunk, "message") or field_of(chunk, "response") or chunk
        self.model = model_of(whole) or self.model
        self.tier = tier_of(whole) or self.tier
        self._pieces.extend(_written(chunk))
        self.whole = self.whole or _finishes(chunk)
        usage = field_of(whole, "usage")
        if usage is not None:
            self._note(usage)
            self._complete = self.whole

    def end(self) -> None:
        """Say that the stream has come to its end by itself."""
        self.whole = True
        self._complete = self._told != {}

    def measured(
        self, request: object = None, *, count_tokens: Callable[[str], int] = estimated_tokens
    ) -> tuple[Usage, bool]:
        """Return the usage, and whether it is estimated.

        If the stream told it after its last piece, it is exact. If not, the input is what was told or else the text
        of *request*, none of it taken as cached, and the output what was told or else what was written so far. What
        the model thought without showing it, or wrote after the reader had left, nobody told, and it is not in it.
        """
        told = self._told if isinstance(self._told, Usage) else usage_of({"usage": self._told})
        if told is not None and self._complete:
            return told, False
        if told is None:
            told = Usage(input_tokens=count_tokens("".join(_texts(request))))
        written = max(told.output_tokens, count_tokens("".join(self._pieces)))
        return told.model_copy(update={"output_tokens": written}), True

    def _note(self, usage: object) -> None:
        if isinstance(usage, Usage):
            self._told = usage
        elif isinstance(self._told, dict):
            # Counts are running sums, and a later event leaves out what has not changed.
            told = {name: field_of(usage, name) for name in _COUNTS}
            self._told |= {name: value for name, value in told.items() if value is not None}


class RecordedStream:
    """A stream whose chunks are counted on their way. What else the client's has is passed on."""

    def __init__(
        self, opened: AsyncIterable[object], settle: Callable[[StreamUsage], None]
    ) -> None:
        self._opened = opened
        self._chunks = aiter(opened)
        self._settle: Callable[[StreamUsage], None] | None = settle
        self._seen = StreamUsage()
        self._loop = get_running_loop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> object:
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._seen.end()
            self._end()
            raise
        except BaseException:
            self._end()
            raise
        self._seen.add(chunk)
        return chunk

    async def aclose(self) -> None:
        """Hang up, as the client's own stream does."""
        self._end()
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
        if self._settle is not None:
            settle = partial(self._settle, self._seen)
            try:
                self._loop.call_soon_threadsafe(settle)
            except RuntimeError:  # the loop is closed
                settle()

    def _end(self) -> None:
        settle, self._settle = self._settle, None
        if settle is not None:
            settle(self._seen)


_COUNTS: Final = (
    *("prompt_tokens", "completion_tokens", "prompt_tokens_details"),
    *("input_tokens", "output_tokens", "input_tokens_details"),
    *("cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation"),
)
_LAST_EVENTS: Final = frozenset(
    {"message_stop", "response.completed", "response.incomplete", "response.failed"}
)
_NOT_TEXT: Final = frozenset(
    {
        *("image_url", "source", "input_audio", "file", "file_data"),
        *("model", "role", "type", "id", "tool_call_id", "tool_choice", "user", "metadata"),
    }
)
"""Parts of a request that are no text: pictures, whose tokens their bytes do not tell, and names and settings."""


def _finishes(chunk: object) -> bool:
    if field_of(chunk, "finish_reason") or field_of(field_of(chunk, "delta"), "stop_reason"):
        return True
    return field_of(chunk, "type") in _LAST_EVENTS or any(
        field_of(choice, "finish_reason") for choice in items_of(field_of(chunk, "choices"))
    )


def _written(chunk: object) -> Iterator[str]:
    """Yield the text in a chunk: of this library, of OpenAI's two APIs, or an event of Anthropic's."""
    kind, delta = field_of(chunk, "type"), field_of(chunk, "delta")
    if kind is None:
        for holder in (
            chunk,
            *(field_of(choice, "delta") for choice in items_of(field_of(chunk, "choices"))),
        ):
            yield from _strings(holder, "text", "content", "refusal", "reasoning_content")
            for call in items_of(field_of(holder, "tool_calls")):
                yield from _strings(call, "name", "arguments")
                yield from _strings(field_of(call, "function"), "name", "arguments")
    elif kind == "content_block_delta":
        yield from _strings(delta, "text", "partial_json", "thinking")
    elif isinstance(delta, str):
        yield delta


def _strings(holder: object, *names: str) -> Iterator[str]:
    for name in names:
        value = field_of(holder, name)
        if isinstance(value, str):
            yield value


def _texts(value: object) -> Iterator[str]:
    """Yield every text in a request, however deep: messages, instructions, tools and their schemas."""
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            if name not in _NOT_TEXT:
                yield from _texts(each)
    else:
        for each in items_of(value):
            yield from _texts(each)
