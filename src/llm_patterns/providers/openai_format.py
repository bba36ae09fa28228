"""The format of OpenAI's chat completions, embeddings and errors, which many other servers speak too.

Each model below is one JSON body, read and written by the same description: clients write requests
and read answers, the simulated provider the other way round. Fields that `ChatRequest` has no word
for are ignored when read, except those that would change the answer.

The reference is https://platform.openai.com/docs/api-reference/chat.

>>> from llm_patterns.chat import ChatRequest, Message
>>> request = ChatRequest(model="small", messages=(Message.user("Hello"),), max_tokens=9)
>>> body = RequestBody.of(request).model_dump_json(exclude_none=True)
>>> body
'{"model":"small","messages":[{"role":"user","content":"Hello"}],"max_completion_tokens":9}'
>>> RequestBody.model_validate_json(body).chat_request() == request
True
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

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
from llm_patterns.errors import ErrorKind, ProviderError, error_for_status
from llm_patterns.providers.sse import Event

__all__ = [
    "ChunkBody",
    "ChunkReader",
    "EmbeddingRequestBody",
    "ErrorBody",
    "RequestBody",
    "ResponseBody",
    "UsageBody",
    "error_from",
]

DONE: Final = "[DONE]"
"""The data of a stream's last event."""


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Asked(_Body):
    """A part of a request: numbers must be numbers there, as the API demands."""

    model_config = ConfigDict(strict=True)


class _Text(_Asked):
    type: Literal["text"] = "text"
    text: str


class _Function(_Body):
    name: str
    arguments: str


class _ToolCall(_Body):
    id: str
    type: str = "function"
    function: _Function

    @classmethod
    def of(cls, call: ToolCall) -> Self:
        return cls(id=call.id, function=_Function(name=call.name, arguments=call.arguments))

    def tool_call(self) -> ToolCall:
        return ToolCall(id=self.id, name=self.function.name, arguments=self.function.arguments)


class _Message(_Asked):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[_Text, ...] | None = None
    tool_calls: tuple[_ToolCall, ...] | None = None
    tool_call_id: str | None = None

    @classmethod
    def of(cls, message: Message) -> Self:
        calls = tuple(_ToolCall.of(call) for call in message.tool_calls) or None
        return cls(
            role=message.role,
            content=None if calls and not message.content else message.content,
            tool_calls=calls,
            tool_call_id=message.tool_call_id,
        )

    def message(self) -> Message:
        content = self.content or ""
        return Message(
            role="system" if self.role == "developer" else self.role,
            content=content if isinstance(content, str) else "".join(part.text for part in content),
            tool_calls=tuple(call.tool_call() for call in self.tool_calls or ()),
            tool_call_id=self.tool_call_id,
        )


class _ToolFunction(_Asked):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: Mapping[str, JsonValue] | None = None


class _Tool(_Asked):
    type: Literal["function"] = "function"
    function: _ToolFunction

    @classmethod
    def of(cls, tool: Tool) -> Self:
        function = _ToolFunction(
            name=tool.name, description=tool.description or None, parameters=tool.parameters
        )
        return cls(function=function)

    def tool(self) -> Tool:
        return Tool(
            name=self.function.name,
            description=self.function.description or "",
            parameters=self.function.parameters or {"type": "object"},
        )


class _FunctionName(_Asked):
    name: str


class _ToolChoice(_Asked):
    type: Literal["function"] = "function"
    function: _FunctionName


class _ResponseFormat(_Asked):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: Mapping[str, JsonValue] | None = None

    @classmethod
    def of(cls, schema: Mapping[str, JsonValue]) -> Self:
        if schema == _ANY_OBJECT:
            return cls(type="json_object")
        # Strict, so that a schema the API cannot guarantee is refused instead of taken as a hint.
        named: Mapping[str, JsonValue] = {
            "name": "response",
            "strict": True,
            "schema": dict(schema),
        }
        return cls(type="json_schema", json_schema=named)

    def schema_asked(self) -> Mapping[str, JsonValue] | None:
        if self.type == "text":
            return None
        schema = (self.json_schema or {}).get("schema")
        return schema if isinstance(schema, dict) else _ANY_OBJECT


_ANY_OBJECT: Final[Mapping[str, JsonValue]] = {"type": "object"}


class _StreamOptions(_Asked):
    include_usage: bool = False


_Choosing = Annotated[str, Field(pattern="^(auto|none|required)$")]


class RequestBody(_Asked):
    """The body of `POST /v1/chat/completions`."""

    model: str
    messages: tuple[_Message, ...] = Field(min_length=1)
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    stop: str | tuple[str, ...] | None = None
    seed: int | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    tools: tuple[_Tool, ...] | None = None
    tool_choice: _Choosing | _ToolChoice | None = None
    response_format: _ResponseFormat | None = None
    user: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None

    @classmethod
    def of(cls, request: ChatRequest, *, stream: bool = False, old_limit: bool = False) -> Self:
        """Return *request* as a body; *old_limit* names the limit of the answer `max_tokens`."""
        return cls(
            model=request.model,
            messages=tuple(_Message.of(message) for message in request.messages),
            max_completion_tokens=None if old_limit else request.max_tokens,
            max_tokens=request.max_tokens if old_limit else None,
            temperature=request.temperature,
            stop=request.stop or None,
            seed=request.seed,
            tools=tuple(_Tool.of(tool) for tool in request.tools) or None,
            tool_choice=_tool_choice(request),
            response_format=None
            if request.response_schema is None
            else _ResponseFormat.of(request.response_schema),
            user=request.user,
            stream=stream or None,
            stream_options=_StreamOptions(include_usage=True) if stream else None,
        )

    def chat_request(self) -> ChatRequest:
        """Return what is asked."""
        choice, stop = self.tool_choice or "auto", self.stop or ()
        return ChatRequest(
            model=self.model,
            messages=tuple(message.message() for message in self.messages),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=self.temperature,
            stop=(stop,) if isinstance(stop, str) else stop,
            seed=self.seed,
            tools=tuple(tool.tool() for tool in self.tools or ()),
            tool_choice=choice if isinstance(choice, str) else choice.function.name,
            response_schema=self.response_format.schema_asked() if self.response_format else None,
            user=self.user,
        )

    @property
    def include_usage(self) -> bool:
        """Return whether a stream shall end with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class _CachedTokens(_Body):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class UsageBody(_Body):
    """Tokens as this format counts them: the prompt's include those read from and written to the cache."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: _CachedTokens | None = None

    @classmethod
    def of(cls, usage: Usage) -> Self:
        """Return *usage* in these words."""
        return cls(
            prompt_tokens=usage.total_input_tokens,
            completion_tokens=usage.output_tokens,
            total_tokens=usage.total_tokens,
            prompt_tokens_details=_CachedTokens(
                cached_tokens=usage.cached_input_tokens,
                cache_write_tokens=usage.cache_write_tokens + usage.cache_write_1h_tokens,
            ),
        )

    def usage(self) -> Usage:
        """Return the parts that do not overlap."""
        details = self.prompt_tokens_details or _CachedTokens()
        cached, written = details.cached_tokens or 0, details.cache_write_tokens or 0
        return Usage(
            input_tokens=max(0, self.prompt_tokens - cached - written),
            cached_input_tokens=cached,
            cache_write_tokens=written,
            output_tokens=self.completion_tokens,
        )


class _AnswerMessage(_Body):
    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: str | None = None
    tool_calls: tuple[_ToolCall, ...] | None = None


class _Choice(_Body):
    index: int = 0
    message: _AnswerMessage
    logprobs: None = None
    finish_reason: str | None = None


class ResponseBody(_Body):
    """The body of a whole answer."""

    id: str = ""
    object: str = "chat.completion"
    created: int = 0
    model: str = ""
    choices: tuple[_Choice, ...] = Field(min_length=1)
    usage: UsageBody | None = None

    @classmethod
    def of(cls, response: ChatResponse, *, created: int) -> Self:
        """Return *response* as a body; *created* is in seconds since the epoch."""
        message = _AnswerMessage(
            content=None if response.tool_calls and not response.text else response.text,
            tool_calls=tuple(_ToolCall.of(call) for call in response.tool_calls) or None,
        )
        return cls(
            id=response.id,
            created=created,
            model=response.model,
            choices=(_Choice(message=message, finish_reason=response.finish_reason),),
            usage=UsageBody.of(response.usage),
        )

    def chat_response(self) -> ChatResponse:
        """Return the answer; a refusal is an answer that was filtered."""
        choice = self.choices[0]
        message = choice.message
        return ChatResponse(
            id=self.id,
            model=self.model,
            text=message.content or message.refusal or "",
            tool_calls=tuple(call.tool_call() for call in message.tool_calls or ()),
            finish_reason="content_filter" if message.refusal else _finish(choice.finish_reason),
            usage=(self.usage or UsageBody()).usage(),
        )


class _FunctionDelta(_Body):
    name: str | None = None
    arguments: str | None = None


class _ToolCallDelta(_Body):
    index: int
    id: str | None = None
    type: str | None = None
    function: _FunctionDelta = _FunctionDelta()

    @classmethod
    def of(cls, delta: ToolCallDelta) -> Self:
        function = _FunctionDelta(name=delta.name, arguments=delta.arguments)
        kind = "function" if delta.id else None
        return cls(index=delta.index, id=delta.id, type=kind, function=function)

    def tool_call_delta(self) -> ToolCallDelta:
        return ToolCallDelta(
            index=self.index,
            id=self.id,
            name=self.function.name,
            arguments=self.function.arguments or "",
        )


class _Delta(_Body):
    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: tuple[_ToolCallDelta, ...] | None = None


class _ChunkChoice(_Body):
    index: int = 0
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class ChunkBody(_Body):
    """One event of a streamed answer."""

    id: str = ""
    object: str = "chat.completion.chunk"
    created: int = 0
    model: str = ""
    choices: tuple[_ChunkChoice, ...] = ()
    usage: UsageBody | None = None

    def opening(self) -> Self:
        """Return the first event of a stream, which names the role."""
        return self._with(_ChunkChoice(delta=_Delta(role="assistant", content="")))

    def piece(self, chunk: ChatChunk) -> Self:
        """Return the event for *chunk*."""
        calls = tuple(_ToolCallDelta.of(delta) for delta in chunk.tool_calls) or None
        delta = _Delta(content=chunk.text or None, tool_calls=calls)
        return self._with(_ChunkChoice(delta=delta, finish_reason=chunk.finish_reason))

    def ending(self, usage: Usage) -> Self:
        """Return the event after the last choice, which carries the usage alone."""
        return self.model_copy(update={"usage": UsageBody.of(usage)})

    def to_json(self, *, include_usage: bool) -> str:
        """Return the event's data; with *include_usage*, all events but the last say `null`."""
        body = self.model_dump(exclude_none=True)
        for choice in body["choices"]:
            choice.setdefault("finish_reason", None)
        if include_usage:
            body.setdefault("usage", None)
        return json.dumps(body)

    def chat_chunk(self) -> ChatChunk:
        """Return the piece of the answer."""
        usage = None if self.usage is None else self.usage.usage()
        if not self.choices:
            return ChatChunk(usage=usage)
        delta, reason = self.choices[0].delta, self.choices[0].finish_reason
        return ChatChunk(
            text=delta.content or delta.refusal or "",
            tool_calls=tuple(call.tool_call_delta() for call in delta.tool_calls or ()),
            finish_reason=None if reason is None else _finish(reason),
            usage=usage,
        )

    def _with(self, choice: _ChunkChoice) -> Self:
        return self.model_copy(update={"choices": (choice,)})


class ChunkReader:
    """Reads a stream's events. `finished` tells whether the answer is whole."""

    def __init__(self) -> None:
        self.finished = False
        self._finish_reason: FinishReason | None = None
        self._usage: Usage | None = None

    def read(self, event: Event) -> Iterable[ChatChunk]:
        """Return the chunks in *event*; raises `ProviderError` for an error sent mid-stream.

        The usage comes after the reason to finish, in an event of its own, so the last chunk waits
        for the end.
        """
        if event.data == DONE:
            return self.end()
        if '"error"' in event.data and (error := _stream_error(event.data)) is not None:
            raise error
        chunk = ChunkBody.model_validate_json(event.data).chat_chunk()
        self._finish_reason = chunk.finish_reason or self._finish_reason
        self._usage = chunk.usage or self._usage
        piece = ChatChunk(text=chunk.text, tool_calls=chunk.tool_calls)
        return [piece] if chunk.text or chunk.tool_calls else []

    def end(self) -> Iterable[ChatChunk]:
        """Return the last chunk, if the answer is whole. Some servers leave out the `[DONE]`."""
        if self.finished or self._finish_reason is None:
            return []
        self.finished = True
        return [ChatChunk(finish_reason=self._finish_reason, usage=self._usage or Usage())]


class EmbeddingRequestBody(_Asked):
    """The body of `POST /v1/embeddings`, for texts (not for tokens)."""

    model: str
    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[
            tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1, max_length=2048)
        ]
    )
    dimensions: Annotated[int, Field(ge=1, le=4096)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None

    @property
    def texts(self) -> Sequence[str]:
        """Return the texts, one or many."""
        return (self.input,) if isinstance(self.input, str) else self.input


class _Error(_Body):
    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class ErrorBody(_Body):
    """The body of an error."""

    error: _Error

    @classmethod
    def of(cls, error: ProviderError, *, param: str | None = None, kind: str | None = None) -> Self:
        """Return *error* in this vendor's words; *kind* overrides the type."""
        status = error.status_code or 500
        named, code = _ERROR_WORDS.get(error.kind, (None, None))
        if named is None:
            named = "invalid_request_error" if status < 500 else "server_error"
        return cls(
            error=_Error(
                message=error.message, type=kind or named, param=param, code=error.code or code
            )
        )


_ERROR_WORDS: Final[Mapping[ErrorKind, tuple[str, str]]] = {
    ErrorKind.RATE_LIMITED: ("requests", "rate_limit_exceeded"),
    ErrorKind.QUOTA_EXHAUSTED: ("insufficient_quota", "insufficient_quota"),
    ErrorKind.OVERLOADED: ("service_unavailable_error", "server_is_overloaded"),
}
"""Type and code, where they say more than the status."""


def error_from(status_code: int, body: bytes, headers: Mapping[str, str]) -> ProviderError:
    """Return the error that an answer of *status_code* stands for, whatever its *body* is like.

    >>> error_from(429, b'{"error": {"message": "No credit", "code": "insufficient_quota"}}', {})
    QuotaExhausted('No credit')
    >>> error_from(502, b"<html>Bad gateway</html>", {})
    ServerError('<html>Bad gateway</html>')
    """
    try:
        error = ErrorBody.model_validate_json(body).error
    except ValueError:
        error = _Error(message=body.decode("utf-8", "replace")[:500] or f"status {status_code}")
    code = error.code if isinstance(error.code, str) else error.type
    return error_for_status(status_code, error.message, code=code, headers=headers)


def _stream_error(data: str) -> ProviderError | None:
    try:
        error = ErrorBody.model_validate_json(data).error
    except ValueError:
        return None
    status = error.code if isinstance(error.code, int) else 500
    code = error.code if isinstance(error.code, str) else error.type
    return error_for_status(status, error.message, code=code)


def _tool_choice(request: ChatRequest) -> str | _ToolChoice | None:
    choice = request.tool_choice
    if not request.tools:
        return None  # the API refuses a choice without tools
    if choice in {"auto", "none", "required"}:
        return choice
    return _ToolChoice(function=_FunctionName(name=choice))


def _finish(reason: str | None) -> FinishReason:
    return _FINISH.get(reason or "stop", "stop")


_FINISH: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
