"""What does a call to a model say of itself, in the words that every tracing backend knows?

The shapes of requests, answers, chunks and errors of this library and of the vendors' clients are read, and told as
attributes of OpenTelemetry's semantic conventions for generative AI. No client is imported, and nothing is read that
anyone wrote: the messages come from functions of their own, for whoever wants them.

Invariants:

1. `request_attributes`, `response_attributes` and `error_attributes` hold no text of a prompt, an answer or an error.
2. Input tokens include the cached ones, whichever way the vendor counts.

>>> attributes = response_attributes({"model": "small-2", "choices": [{"finish_reason": "stop"}],
...                                   "usage": {"prompt_tokens": 100, "completion_tokens": 5}})
>>> attributes["gen_ai.response.model"], attributes["gen_ai.usage.input_tokens"]
('small-2', 100)

Source: github.com/open-telemetry/semantic-conventions-genai, `client-inference.md`, as of November 2026. Its status is
"development": names may change once more, and then change here, in one place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pydantic import JsonValue

from llm_patterns.chat import Usage
from llm_patterns.errors import ErrorKind, failure_of
from llm_patterns.toolkit.usage import field_of, items_of, usage_of

__all__ = [
    "StreamReader",
    "error_attributes",
    "input_messages",
    "output_messages",
    "provider_of",
    "request_attributes",
    "request_of",
    "response_attributes",
]

Attributes = dict[str, JsonValue]

REQUEST_MODEL: Final = "gen_ai.request.model"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"

_REQUEST: Final = {
    "model": REQUEST_MODEL,
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
}
_VENDORS: Final = frozenset({"anthropic", "openai"})


def request_of(args: Sequence[object], kwargs: Mapping[str, object]) -> object:
    """Return the request among a call's arguments: an object with a `model`, else the named arguments."""
    return next((each for each in args if field_of(each, "model") is not None), kwargs)


def provider_of(call: Callable[..., object]) -> str | None:
    """Return the vendor whose client *call* belongs to, where that shows: `openai`, `anthropic`; else None."""
    method: object = call
    while method is not None and getattr(method, "__self__", None) is None:
        method = getattr(method, "__wrapped__", None)  # another layer's, or the client's own
    name = type(getattr(method, "__self__", None)).__module__.partition(".")[0]
    return name if name in _VENDORS else None


def request_attributes(request: object, *, operation: str, provider: str | None) -> Attributes:
    """Return what *request* asks for, but for its messages.

    >>> request_attributes({"model": "small", "max_tokens": 9, "messages": []}, operation="chat", provider="openai")
    {'gen_ai.operation.name': 'chat', 'gen_ai.provider.name': 'openai', 'gen_ai.request.model': 'small', \
'gen_ai.request.max_tokens': 9}
    """
    attributes: Attributes = {"gen_ai.operation.name": operation}
    if provider is not None:
        attributes["gen_ai.provider.name"] = provider
    for name, attribute in _REQUEST.items():
        value = field_of(request, name)
        if isinstance(value, str if name == "model" else int | float):
            attributes[attribute] = value
    if attributes.get("gen_ai.request.choice.count") == 1:
        del attributes["gen_ai.request.choice.count"]
    return attributes


def response_attributes(response: object) -> Attributes:
    """Return who answered, how the answer ended and what was used, as far as *response* says so."""
    attributes: Attributes = {}
    for name in ("id", "model"):
        if isinstance(value := field_of(response, name), str):
            attributes[f"gen_ai.response.{name}"] = value
    if reasons := _finish_reasons(response):
        attributes["gen_ai.response.finish_reasons"] = reasons
    return attributes | _usage_attributes(usage_of(response))


def error_attributes(error: BaseException) -> Attributes:
    """Return the class of *error* in few words: its kind where that is known, else its type. Never its message.

    >>> error_attributes(TimeoutError("gave up on: tell me about my divorce"))
    {'error.type': 'timeout'}
    """
    failure = failure_of(error)
    known = failure.kind is not ErrorKind.UNKNOWN
    attributes: Attributes = {"error.type": failure.kind.value if known else type(error).__name__}
    if failure.status_code is not None:
        attributes["http.response.status_code"] = failure.status_code
    return attributes


class StreamReader:
    """What the chunks of one stream add up to, in the words of a whole answer.

    Of its text *max_chars* are kept, by default none.
    """

    def __init__(self, *, max_chars: int = 0) -> None:
        self._left = max_chars
        self._seen: Attributes = {}
        self._usage: dict[str, int] = {}
        self._text: list[str] = []

    def read(self, chunk: object) -> None:
        """Read one chunk of any client. The last word counts, and for tokens the largest: they come as running sums."""
        # Some events hold the answer itself: Anthropic's first as `message`, those of OpenAI's responses as `response`.
        for part in (*(field_of(chunk, name) for name in ("message", "response", "delta")), chunk):
            if part is None or isinstance(part, str):
                continue
            for name, value in response_attributes(part).items():
                if isinstance(value, int):
                    self._usage[name] = max(value, self._usage.get(name, 0))
                else:
                    self._seen[name] = value
        if self._left > 0:
            self._text.append(_chunk_text(chunk)[: self._left])
            self._left -= len(self._text[-1])

    def attributes(self) -> Attributes:
        """Return what was seen. A stream that never said why it ended, did not end well."""
        unsaid: Attributes = {"gen_ai.response.finish_reasons": ["error"]}
        return {"gen_ai.request.stream": True, **unsaid, **self._seen, **self._usage}

    def messages(self) -> list[JsonValue]:
        """Return the text so far, as `output_messages` does."""
        return [_message("assistant", "".join(self._text))]


def input_messages(request: object) -> list[JsonValue]:
    """Return what *request* says to the model, in the conventions' form: each message with its parts.

    >>> input_messages({"system": "Be brief.", "messages": [{"role": "user", "content": "Hello"}]})[1]
    {'role': 'user', 'parts': [{'type': 'text', 'content': 'Hello'}]}
    """
    told = [_text(field_of(request, name)) for name in ("system", "instructions")]
    asked = field_of(request, "messages") or field_of(request, "input")
    return [
        *(_message("system", text) for text in told if text),
        *(
            _said(each, _role(each))
            for each in ([asked] if isinstance(asked, str) else items_of(asked))
        ),
    ]


def output_messages(response: object) -> list[JsonValue]:
    """Return what *response* says, in the conventions' form: a message for each choice."""
    choices = [field_of(choice, "message") for choice in items_of(field_of(response, "choices"))]
    return [_said(each, "assistant") for each in choices or [response]]


def _role(message: object) -> str:
    role = field_of(message, "role")
    return role if isinstance(role, str) else "user"


def _said(message: object, role: str) -> JsonValue:
    """Read one message: its text and its tool calls, or the result of one."""
    said = message if isinstance(message, str) else _words(message)
    answered = field_of(message, "tool_call_id")
    if isinstance(answered, str):
        part: JsonValue = {"type": "tool_call_response", "id": answered, "response": said}
        return {"role": role, "parts": [part]}
    calls = [_tool_call(each) for each in items_of(field_of(message, "tool_calls"))]
    return _message(role, said, *calls)


def _message(role: str, text: str, *parts: JsonValue) -> JsonValue:
    words: list[JsonValue] = [{"type": "text", "content": text}] if text else []
    return {"role": role, "parts": [*words, *parts]}


def _words(message: object) -> str:
    return next(
        (
            text
            for name in ("content", "text", "output_text")
            if (text := _text(field_of(message, name)))
        ),
        "",
    )


def _text(content: object) -> str:
    """Return the text of *content*: itself, or its blocks of text."""
    if isinstance(content, str):
        return content
    return "".join(
        text for block in items_of(content) if isinstance(text := field_of(block, "text"), str)
    )


def _tool_call(call: object) -> JsonValue:
    function = field_of(call, "function") or call
    read: dict[str, JsonValue] = {"type": "tool_call"}
    for name, value in (
        ("id", field_of(call, "id")),
        ("name", field_of(function, "name")),
        ("arguments", field_of(function, "arguments")),
    ):
        if value is not None:
            read[name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return read


def _chunk_text(chunk: object) -> str:
    choice = next(iter(items_of(field_of(chunk, "choices"))), None)
    for holder in (field_of(choice, "delta"), field_of(chunk, "delta"), chunk):
        if isinstance(holder, str):
            return holder
        if text := _words(holder):
            return text
    return ""


def _finish_reasons(response: object) -> list[JsonValue]:
    holders = [*items_of(field_of(response, "choices")), response]
    names = ("finish_reason", "stop_reason", "status")
    return [
        reason
        for each in holders
        for name in names
        if isinstance(reason := field_of(each, name), str)
    ]


def _usage_attributes(usage: Usage | None) -> Attributes:
    if usage is None:
        return {}
    cached = {
        "gen_ai.usage.cache_read.input_tokens": usage.cached_input_tokens,
        "gen_ai.usage.cache_write.input_tokens": usage.cache_write_tokens
        + usage.cache_write_1h_tokens,
    }
    return {
        "gen_ai.usage.input_tokens": usage.total_input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        **{name: tokens for name, tokens in cached.items() if tokens},
    }
