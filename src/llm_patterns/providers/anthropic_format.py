"""The format of Anthropic's Messages API: requests, answers, streams and errors.

Each model below is one JSON body, read and written by the same description: clients write requests
and read answers, the simulated provider the other way round. `seed` has no counterpart here and is
left out.

The reference is https://platform.claude.com/docs/en/api/messages. Of its two versions the newer has
no `temperature` any more (https://platform.claude.com/docs/en/api/versioning).

>>> from llm_patterns.chat import ChatRequest, Message
>>> messages = (Message.system("Be brief."), Message.user("Hello"))
>>> request = ChatRequest(model="small", messages=messages, max_tokens=9)
>>> body = RequestBody.of(request).model_dump_json(exclude_none=True)
>>> body
'{"model":"small","max_tokens":9,"messages":[{"role":"user","content":"Hello"}],"system":"Be brief."}'
>>> RequestBody.model_validate_json(body).chat_request() == request
True
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue

from llm_patterns.chat import (
    ChatChunk,
    ChatRequest,
    ChatResponse,
    FinishReason,
    Message,
    Tool,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from llm_patterns.errors import InvalidRequest, ProviderError, error_for_status
from llm_patterns.providers.sse import Event, encode

__all__ = [
    "ChunkReader",
    "ChunkWriter",
    "ErrorBody",
    "RequestBody",
    "ResponseBody",
    "UsageBody",
    "Version",
    "error_from",
    "status_of",
]

Version = Literal["2023-06-01", "2026-10-21"]

DEFAULT_VERSION: Final[Version] = "2026-10-21"
"""The newest version, as the vendor recommends."""

WITH_TEMPERATURE: Final[Version] = "2023-06-01"
"""The last version in which a request may have a temperature."""

DEFAULT_MAX_TOKENS: Final = 4096
"""What is sent where a request names no limit, since this API demands one."""


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Asked(_Body):
    """A part of a request: numbers must be numbers there, as the API demands."""

    model_config = ConfigDict(strict=True)


class _Text(_Asked):
    type: Literal["text"] = "text"
    text: str


class _ToolUse(_Asked):
    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: Mapping[str, JsonValue]

    @classmethod
    def of(cls, call: ToolCall) -> Self:
        return cls(id=call.id, name=call.name, input=_object(call.arguments))

    def tool_call(self) -> ToolCall:
        return ToolCall(id=self.id, name=self.name, arguments=json.dumps(self.input))


class _ToolResult(_Asked):
    type: Literal["tool_result"] = "tool_result"
    tool_use_id: str
    content: str | tuple[_Text, ...] = ""
    is_error: bool | None = None


_Block = Annotated[_Text | _ToolUse | _ToolResult, Discriminator("type")]


class _Message(_Asked):
    role: Literal["user", "assistant", "system"]
    content: str | tuple[_Block, ...]

    def messages(self) -> Iterator[Message]:
        """Yield a message for each tool result, and one for the rest."""
        blocks = (_Text(text=self.content),) if isinstance(self.content, str) else self.content
        results = [block for block in blocks if isinstance(block, _ToolResult)]
        for result in results:
            yield Message.tool(_joined(result.content), tool_call_id=result.tool_use_id)
        if len(results) < len(blocks):
            calls = (block.tool_call() for block in blocks if isinstance(block, _ToolUse))
            text = "".join(block.text for block in blocks if isinstance(block, _Text))
            yield Message(role=self.role, content=text, tool_calls=tuple(calls))


class _Tool(_Asked):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    input_schema: Mapping[str, JsonValue]

    @classmethod
    def of(cls, tool: Tool) -> Self:
        return cls(
            name=tool.name, description=tool.description or None, input_schema=tool.parameters
        )

    def tool(self) -> Tool:
        return Tool(
            name=self.name, description=self.description or "", parameters=self.input_schema
        )


class _ToolChoice(_Asked):
    type: Literal["auto", "any", "none", "tool"]
    name: str | None = None

    @classmethod
    def of(cls, choice: str) -> Self:
        match choice:
            case "auto" | "none":
                return cls(type=choice)
            case "required":
                return cls(type="any")
        return cls(type="tool", name=choice)

    def tool_choice(self) -> str:
        return "required" if self.type == "any" else self.name or self.type


class _Metadata(_Asked):
    user_id: str | None = None


class _OutputConfig(_Asked):
    format: Mapping[str, JsonValue] | None = None

    @classmethod
    def of(cls, schema: Mapping[str, JsonValue]) -> Self:
        return cls(format={"type": "json_schema", "schema": dict(schema)})

    def schema_asked(self) -> Mapping[str, JsonValue] | None:
        schema = (self.format or {}).get("schema")
        return schema if isinstance(schema, dict) else None


class RequestBody(_Asked):
    """The body of `POST /v1/messages`."""

    model: str
    max_tokens: int = Field(ge=1)
    messages: tuple[_Message, ...] = Field(min_length=1)
    system: str | tuple[_Text, ...] | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    stop_sequences: tuple[str, ...] | None = None
    tools: tuple[_Tool, ...] | None = None
    tool_choice: _ToolChoice | None = None
    output_config: _OutputConfig | None = None
    metadata: _Metadata | None = None
    stream: bool | None = None

    @classmethod
    def of(
        cls, request: ChatRequest, *, stream: bool = False, version: Version = DEFAULT_VERSION
    ) -> Self:
        """Return *request* as a body.

        Raises `InvalidRequest` for what *version* of this API has no way to say: a temperature (or
        one above 1), only system messages, or an earlier tool call whose arguments are not a JSON
        object.
        """
        _check_temperature(request.temperature, version)
        system = "\n\n".join(each.content for each in request.messages if each.role == "system")
        turns = tuple(_turns(request.messages))
        if not turns:
            raise InvalidRequest("all messages are system messages; this API needs one of a user")
        return cls(
            model=request.model,
            max_tokens=request.max_tokens or DEFAULT_MAX_TOKENS,
            messages=turns,
            system=system or None,
            temperature=request.temperature,
            stop_sequences=request.stop or None,
            tools=tuple(_Tool.of(tool) for tool in request.tools) or None,
            tool_choice=_ToolChoice.of(request.tool_choice) if request.tools else None,
            output_config=None
            if request.response_schema is None
            else _OutputConfig.of(request.response_schema),
            metadata=None if request.user is None else _Metadata(user_id=request.user),
            stream=stream or None,
        )

    def chat_request(self) -> ChatRequest:
        """Return what is asked."""
        system = (Message.system(_joined(self.system)),) if self.system else ()
        turns = (message for turn in self.messages for message in turn.messages())
        return ChatRequest(
            model=self.model,
            messages=(*system, *turns),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            stop=self.stop_sequences or (),
            tools=tuple(tool.tool() for tool in self.tools or ()),
            tool_choice=self.tool_choice.tool_choice() if self.tool_choice else "auto",
            response_schema=self.output_config.schema_asked() if self.output_config else None,
            user=self.metadata.user_id if self.metadata else None,
        )


class _CacheCreation(_Body):
    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class UsageBody(_Body):
    """Tokens as this format counts them: `input_tokens` leaves out those of the cache.

    `cache_creation` divides the tokens written into the cache by how long they are kept. A stream
    brings it with its start only, so what is written later counts as kept for the shorter time.
    """

    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None

    @classmethod
    def of(cls, usage: Usage) -> Self:
        """Return *usage* in these words."""
        short, long = usage.cache_write_tokens, usage.cache_write_1h_tokens
        return cls(
            input_tokens=usage.input_tokens,
            cache_creation_input_tokens=short + long,
            cache_creation=_CacheCreation(
                ephemeral_5m_input_tokens=short, ephemeral_1h_input_tokens=long
            ),
            cache_read_input_tokens=usage.cached_input_tokens,
            output_tokens=usage.output_tokens,
        )

    def usage(self) -> Usage:
        """Return the parts that do not overlap."""
        written = self.cache_creation_input_tokens or 0
        kept = self.cache_creation.ephemeral_1h_input_tokens if self.cache_creation else 0
        return Usage(
            input_tokens=self.input_tokens or 0,
            cached_input_tokens=self.cache_read_input_tokens or 0,
            cache_write_tokens=max(0, written - kept),
            cache_write_1h_tokens=kept,
            output_tokens=self.output_tokens or 0,
        )

    def updated(self, later: UsageBody) -> UsageBody:
        """Return these counts with those that *later* names."""
        return self.model_copy(update={name: each for name, each in later if each is not None})


class _OtherBlock(_Body):
    """A kind of content that `ChatResponse` has no word for, such as thinking."""

    type: str


class ResponseBody(_Body):
    """The body of a whole answer."""

    id: str = ""
    type: str = "message"
    role: str = "assistant"
    model: str = ""
    content: tuple[
        Annotated[_Text | _ToolUse | _OtherBlock, Field(union_mode="left_to_right")], ...
    ]
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: UsageBody = UsageBody()

    @classmethod
    def of(cls, response: ChatResponse) -> Self:
        """Return *response* as a body."""
        text = (_Text(text=response.text),) if response.text else ()
        return cls(
            id=response.id,
            model=response.model,
            content=(*text, *(_ToolUse.of(call) for call in response.tool_calls)),
            stop_reason=_STOP_REASON[response.finish_reason],
            usage=UsageBody.of(response.usage),
        )

    def chat_response(self) -> ChatResponse:
        """Return the answer."""
        calls = (block.tool_call() for block in self.content if isinstance(block, _ToolUse))
        return ChatResponse(
            id=self.id,
            model=self.model,
            text="".join(block.text for block in self.content if isinstance(block, _Text)),
            tool_calls=tuple(calls),
            finish_reason=_finish(self.stop_reason),
            usage=self.usage.usage(),
        )


class ChunkWriter:
    """Writes a streamed answer as the events of this format, block by block."""

    def __init__(self, answer_id: str, model: str, usage: Usage) -> None:
        self._message = ResponseBody(
            id=answer_id,
            model=model,
            content=(),
            usage=UsageBody.of(usage.model_copy(update={"output_tokens": 1})),
        )
        self._index = -1
        self._block: str | None = None

    def opening(self) -> bytes:
        """Return the events before the first piece."""
        return _event("message_start", message=self._message.model_dump()) + _event("ping")

    def piece(self, chunk: ChatChunk) -> bytes:
        """Return the events for *chunk*, those of the end with the last one."""
        events = []
        if chunk.text:
            if self._block != "text":
                events.append(self._open("text", text=""))
            events.append(self._delta("text_delta", text=chunk.text))
        for call in chunk.tool_calls:
            if call.id is not None:
                events.append(self._open("tool_use", id=call.id, name=call.name, input={}))
            events.append(self._delta("input_json_delta", partial_json=call.arguments))
        if chunk.finish_reason is not None:
            events.append(self._ending(chunk.finish_reason, chunk.usage or Usage()))
        return b"".join(events)

    def _open(self, kind: str, **content: JsonValue) -> bytes:
        closing = self._close()
        self._index += 1
        self._block = kind
        block = {"type": kind, **content}
        return closing + _event("content_block_start", index=self._index, content_block=block)

    def _delta(self, kind: str, **content: JsonValue) -> bytes:
        return _event("content_block_delta", index=self._index, delta={"type": kind, **content})

    def _close(self) -> bytes:
        return b"" if self._block is None else _event("content_block_stop", index=self._index)

    def _ending(self, reason: FinishReason, usage: Usage) -> bytes:
        delta: JsonValue = {"stop_reason": _STOP_REASON[reason], "stop_sequence": None}
        counts = UsageBody.of(usage).model_dump(exclude={"cache_creation"})
        closing = self._close() + _event("message_delta", delta=delta, usage=counts)
        return closing + _event("message_stop")


class _Delta(_Body):
    text: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class _StreamEvent(_Body):
    type: str
    index: int = 0
    message: ResponseBody | None = None
    content_block: _ToolUse | _OtherBlock | None = None
    delta: _Delta = _Delta()
    usage: UsageBody | None = None


class ChunkReader:
    """Reads a stream's events. `finished` tells whether the answer is whole."""

    def __init__(self) -> None:
        self.finished = False
        self._calls: dict[int, int] = {}
        self._usage = UsageBody()
        self._finish_reason: FinishReason | None = None

    def read(self, event: Event) -> Iterable[ChatChunk]:
        """Return the chunks in *event*; raises `ProviderError` for an error sent mid-stream."""
        if event.name == "error":
            raise _stream_error(event.data)
        told = _StreamEvent.model_validate_json(event.data)
        self._note(told)
        match told.type:
            case "content_block_start" if isinstance(told.content_block, _ToolUse):
                return [self._call(told.index, told.content_block)]
            case "content_block_delta" if told.delta.text:
                return [ChatChunk(text=told.delta.text)]
            case "content_block_delta" if told.delta.partial_json:
                index, piece = self._calls.get(told.index, 0), told.delta.partial_json
                return [ChatChunk(tool_calls=(ToolCallDelta(index=index, arguments=piece),))]
            case "message_stop":
                self.finished = True
                reason = self._finish_reason or "stop"
                return [ChatChunk(finish_reason=reason, usage=self._usage.usage())]
        return []

    def end(self) -> Iterable[ChatChunk]:
        """Return nothing: the end is an event of its own here."""
        return []

    def _note(self, told: _StreamEvent) -> None:
        for usage in (told.message and told.message.usage, told.usage):
            self._usage = self._usage.updated(usage or UsageBody())
        if told.delta.stop_reason is not None:
            self._finish_reason = _finish(told.delta.stop_reason)

    def _call(self, block: int, use: _ToolUse) -> ChatChunk:
        self._calls[block] = len(self._calls)
        delta = ToolCallDelta(index=self._calls[block], id=use.id, name=use.name)
        return ChatChunk(tool_calls=(delta,))


class _Details(_Body):
    error_code: str | None = None


class _Error(_Body):
    type: str = "api_error"
    message: str = ""
    details: _Details | None = None

    def provider_error(self, status_code: int, headers: Mapping[str, str]) -> ProviderError:
        code = (self.details and self.details.error_code) or self.type
        return error_for_status(status_code, self.message, code=code, headers=headers)


class ErrorBody(_Body):
    """The body of an error."""

    type: str = "error"
    error: _Error
    request_id: str | None = None

    @classmethod
    def of(cls, error: ProviderError, *, request_id: str | None = None) -> Self:
        """Return *error* in this vendor's words."""
        named = _ERROR_TYPE.get(status_of(error)) or (
            "invalid_request_error" if status_of(error) < 500 else "api_error"
        )
        return cls(error=_Error(type=named, message=error.message), request_id=request_id)


def status_of(error: ProviderError) -> int:
    """Return the status that this API gives *error*: a full queue has one of its own here.

    >>> from llm_patterns.errors import Overloaded
    >>> status_of(Overloaded("busy", status_code=503, code="server_is_overloaded"))
    529
    """
    return 529 if error.code == "server_is_overloaded" else error.status_code or 500


_ERROR_TYPE: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""The API's word for each status (https://platform.claude.com/docs/en/api/errors)."""

_STATUS: Final = {kind: status for status, kind in _ERROR_TYPE.items()}


def error_from(status_code: int, body: bytes, headers: Mapping[str, str]) -> ProviderError:
    """Return the error that an answer of *status_code* stands for, whatever its *body* is like.

    >>> error_from(529, b'{"error": {"type": "overloaded_error", "message": "Overloaded"}}', {})
    Overloaded('Overloaded')
    >>> error_from(502, b"<html>Bad gateway</html>", {})
    ServerError('<html>Bad gateway</html>')
    """
    try:
        error = ErrorBody.model_validate_json(body).error
    except ValueError:
        text = body.decode("utf-8", "replace")[:500]
        return error_for_status(status_code, text or f"status {status_code}", headers=headers)
    return error.provider_error(status_code, headers)


def _stream_error(data: str) -> ProviderError:
    try:
        error = ErrorBody.model_validate_json(data).error
    except ValueError:
        return error_for_status(500, data[:500])
    return error.provider_error(_STATUS.get(error.type, 500), {})


def _check_temperature(temperature: float | None, version: Version) -> None:
    if temperature is None:
        return
    if version != WITH_TEMPERATURE:
        raise InvalidRequest(
            f"temperature is {temperature}; version {version} of this API has none: leave it out, "
            f"or use version={WITH_TEMPERATURE!r}"
        )
    if temperature > 1:
        raise InvalidRequest(f"temperature is {temperature}; this API takes 0 to 1")


def _turns(messages: Iterable[Message]) -> Iterator[_Message]:
    """Yield the turns; results of tools that were called together must come back together."""
    spoken = (message for message in messages if message.role != "system")
    for role, run in groupby(spoken, key=lambda message: message.role):
        if role == "tool":
            yield _Message(role="user", content=tuple(_result(message) for message in run))
        else:
            yield from (_turn(message) for message in run)


def _turn(message: Message) -> _Message:
    if message.role != "assistant":
        return _Message(role="user", content=message.content)
    if not message.tool_calls:
        return _Message(role="assistant", content=message.content)
    text = (_Text(text=message.content),) if message.content else ()
    calls = (_ToolUse.of(call) for call in message.tool_calls)
    return _Message(role="assistant", content=(*text, *calls))


def _result(message: Message) -> _ToolResult:
    return _ToolResult(tool_use_id=message.tool_call_id or "", content=message.content)


def _object(arguments: str) -> Mapping[str, JsonValue]:
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InvalidRequest(
            f"the arguments of a tool call are {arguments!r}; this API takes a JSON object only"
        )
    return value


def _joined(content: str | tuple[_Text, ...]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _event(kind: str, **fields: object) -> bytes:
    return encode(json.dumps({"type": kind, **fields}), kind)


def _finish(reason: str | None) -> FinishReason:
    return _FINISH.get(reason or "end_turn", "stop")


_FINISH: Final[Mapping[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_STOP_REASON: Final[Mapping[FinishReason, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
