"""The words everything shares: requests, answers, streams and usage of a chat model.

They are the part of the OpenAI chat-completions and Anthropic messages formats on which both agree;
the wire formats themselves live in `llm_patterns.providers`. All are frozen: a layer that changes a
request makes a new one.

>>> request = ChatRequest(model="small", messages=(Message.user("Hello"),))
>>> request.model_copy(update={"model": "large"}).model
'large'
>>> Usage(input_tokens=200, cached_input_tokens=800, output_tokens=50).total_tokens
1050
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Literal, Protocol, Self, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from llm_patterns.quotas import Quotas

__all__ = [
    "ChatChunk",
    "ChatModel",
    "ChatRequest",
    "ChatResponse",
    "ChatStream",
    "FinishReason",
    "Message",
    "Role",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "Usage",
]

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ToolCall(_Frozen):
    """A call the model asks for. `arguments` is JSON text as the model wrote it, so it may not parse."""

    id: str
    name: str
    arguments: str


class Message(_Frozen):
    """One turn of the conversation.

    >>> Message.system("Be brief.").role
    'system'
    """

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = Field(
        default=None, description="For role `tool`: the call that this answers."
    )

    @classmethod
    def system(cls, content: str) -> Self:
        """Return an instruction to the model."""
        return cls(role="system", content=content)

    @classmethod
    def user(cls, content: str) -> Self:
        """Return a turn of the user's."""
        return cls(role="user", content=content)

    @classmethod
    def assistant(cls, content: str = "", *, tool_calls: tuple[ToolCall, ...] = ()) -> Self:
        """Return a turn of the model's."""
        return cls(role="assistant", content=content, tool_calls=tool_calls)

    @classmethod
    def tool(cls, content: str, *, tool_call_id: str) -> Self:
        """Return a tool's result."""
        return cls(role="tool", content=content, tool_call_id=tool_call_id)


class Tool(_Frozen):
    """A function that the model may ask for; `parameters` is the JSON Schema of its arguments."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str = ""
    parameters: Mapping[str, JsonValue] = Field(default_factory=lambda: {"type": "object"})


class ChatRequest(_Frozen):
    """What a model is asked. `max_tokens` bounds the answer; `response_schema` asks for JSON of that schema."""

    model: str
    messages: tuple[Message, ...] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str = Field(
        default="auto", description="`auto`, `none`, `required`, or a tool's name."
    )
    response_schema: Mapping[str, JsonValue] | None = None
    user: str | None = Field(
        default=None, description="Who asks: for limits, bills and abuse reports."
    )


class Usage(_Frozen):
    """Tokens of one answer, in parts that do not overlap.

    The vendors count differently: OpenAI's `prompt_tokens` include what was read from and written to
    its cache, Anthropic's `input_tokens` include neither. Here `input_tokens` is what had nothing to
    do with a cache.

    >>> Usage(input_tokens=20, cached_input_tokens=80)
    Usage(input_tokens=20, cached_input_tokens=80)
    """

    input_tokens: int = Field(default=0, ge=0)
    cached_input_tokens: int = Field(default=0, ge=0, description="Read from the vendor's cache.")
    cache_write_tokens: int = Field(
        default=0,
        ge=0,
        description="Written to the vendor's cache, for the time it keeps by default.",
    )
    cache_write_1h_tokens: int = Field(
        default=0, ge=0, description="Written to the cache to be kept an hour, which is dearer."
    )
    output_tokens: int = Field(default=0, ge=0)

    @property
    def total_input_tokens(self) -> int:
        """Return all tokens read, wherever from: what a threshold in a price list counts."""
        return (
            self.input_tokens
            + self.cached_input_tokens
            + self.cache_write_tokens
            + self.cache_write_1h_tokens
        )

    @property
    def total_tokens(self) -> int:
        """Return all tokens read and written."""
        return self.total_input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            cache_write_1h_tokens=self.cache_write_1h_tokens + other.cache_write_1h_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
        )

    def __repr_args__(self) -> Iterator[tuple[str, int]]:
        return ((name, count) for name, count in self if count)


class ChatResponse(_Frozen):
    """A whole answer. `model` is the one that really answered."""

    id: str
    model: str
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason = "stop"
    usage: Usage = Usage()
    quotas: Quotas | None = Field(
        default=None, repr=False, description="What is left of the rate limits, where it was said."
    )


class ToolCallDelta(_Frozen):
    """A piece of the *index*-th tool call; `id` and `name` come with its first piece only."""

    index: int = Field(ge=0)
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class ChatChunk(_Frozen):
    """A piece of a streamed answer. The last one carries `finish_reason` and `usage`."""

    text: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


@runtime_checkable
class ChatStream(Protocol):
    """A streamed answer: iterate it to its end, or `aclose()` it so that the provider may stop."""

    def __aiter__(self) -> AsyncIterator[ChatChunk]:
        """Return the iterator over the chunks."""

    async def __anext__(self) -> ChatChunk:
        """Return the next chunk; raises `StopAsyncIteration` after the last."""

    async def aclose(self) -> None:
        """Stop reading and free the connection. Safe to call twice."""


@runtime_checkable
class ChatModel(Protocol):
    """Anything that answers chat requests: a real provider, the simulated one, or either behind layers."""

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """Return the whole answer; raises `ProviderError`."""

    async def stream(self, request: ChatRequest) -> ChatStream:
        """Return the answer as a stream, once its first chunk is there; raises `ProviderError`."""
