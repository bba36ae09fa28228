"""What the shapes of the vendors' requests, answers and chunks say, in the conventions' words."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_patterns.chat import ChatChunk, ChatRequest, ChatResponse, Message, ToolCall, Usage
from llm_patterns.toolkit.gen_ai import (
    StreamReader,
    error_attributes,
    input_messages,
    output_messages,
    provider_of,
    request_attributes,
    request_of,
    response_attributes,
)

CALL = {"id": "c1", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
OPENAI = {
    "id": "chatcmpl-1",
    "model": "gpt-6",
    "choices": [
        {"finish_reason": "tool_calls", "message": {"content": "Hi", "tool_calls": [CALL]}}
    ],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 60},
    },
}
ANTHROPIC = {
    "id": "msg_1",
    "model": "claude",
    "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}],
    "usage": {
        "input_tokens": 30,
        "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 10,
        "output_tokens": 7,
    },
}
RESPONSES = {
    "id": "resp_1",
    "model": "gpt-6",
    "status": "completed",
    "output_text": "Hi",
    "usage": {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 7,
    },
}
OURS = ChatResponse(
    id="1",
    model="small",
    text="Hi",
    tool_calls=(ToolCall(id="c1", name="weather", arguments="{}"),),
    usage=Usage(input_tokens=40, cached_input_tokens=60, output_tokens=7),
)


@pytest.mark.parametrize(
    ("response", "reason"),
    [(OPENAI, "tool_calls"), (ANTHROPIC, "end_turn"), (RESPONSES, "completed"), (OURS, "stop")],
    ids=["openai", "anthropic", "responses", "ours"],
)
def test_each_clients_answer_says_the_same(response: Any, reason: str) -> None:
    """A hundred tokens in, the cached ones among them, and seven out."""
    read = response_attributes(response)
    assert read["gen_ai.usage.input_tokens"] == 100
    assert read["gen_ai.usage.output_tokens"] == 7
    assert read["gen_ai.response.finish_reasons"] == [reason]
    assert {"gen_ai.response.id", "gen_ai.response.model"} <= set(read)


def test_what_was_read_from_a_cache_and_written_to_one_is_told_apart() -> None:
    """Both are in the whole; none is mentioned where it is none."""
    read = response_attributes(ANTHROPIC)
    assert read["gen_ai.usage.cache_read.input_tokens"] == 60
    assert read["gen_ai.usage.cache_write.input_tokens"] == 10
    assert not [name for name in response_attributes(RESPONSES) if "cache" in name]


def test_an_answer_that_says_nothing_is_no_answer() -> None:
    """Not a number, not a guess."""
    assert response_attributes(object()) == response_attributes({"usage": None}) == {}


def test_a_request_says_its_settings() -> None:
    """Those of an object or of named arguments; one choice is not worth a word."""
    asked = {"model": "gpt-6", "max_completion_tokens": 9, "temperature": 0.5, "n": 1, "seed": None}
    read = request_attributes(
        request_of(("a question",), asked), operation="chat", provider="openai"
    )
    assert read == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-6",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.temperature": 0.5,
    }
    ours = ChatRequest(model="small", messages=(Message.user("Hi"),))
    assert request_of((ours,), {}) is ours
    three = request_attributes({"n": 3}, operation="chat", provider=None)
    assert three["gen_ai.request.choice.count"] == 3


def test_a_vendor_is_known_by_whose_method_is_called() -> None:
    """Of its own client; of a plain function it is not."""
    client = type("Completions", (), {"create": lambda self: None, "__module__": "openai.chat"})()
    assert provider_of(client.create) == "openai"
    assert provider_of(print) is None


def test_messages_are_told_in_parts() -> None:
    """System, text, a call of a tool and its result, as each client has them."""
    asked = {
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
            {"content": "no role"},
        ],
    }
    call = {
        "type": "tool_call",
        "id": "c1",
        "name": "weather",
        "arguments": '{"city": "Paris"}',
    }
    assert input_messages(asked) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "Weather?"}]},
        {"role": "assistant", "parts": [call]},
        {
            "role": "tool",
            "parts": [{"type": "tool_call_response", "id": "c1", "response": "rain"}],
        },
        {"role": "user", "parts": [{"type": "text", "content": "no role"}]},
    ]
    assert input_messages({"input": "Hello"})[0] == {
        "role": "user",
        "parts": [{"type": "text", "content": "Hello"}],
    }
    assert output_messages(OPENAI) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Hi"}, call]}
    ]
    assert output_messages(ANTHROPIC)[0] == {
        "role": "assistant",
        "parts": [{"type": "text", "content": "Hi!"}],
    }
    assert output_messages(RESPONSES) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Hi"}]}
    ]


STREAMS: dict[str, list[Any]] = {
    "openai": [
        {"id": "1", "model": "m", "choices": [{"delta": {"content": "H"}, "finish_reason": None}]},
        {"id": "1", "model": "m", "choices": [{"delta": {"content": "i"}}]},
        {"id": "1", "model": "m", "choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}},
    ],
    "anthropic": [
        {
            "type": "message_start",
            "message": {"id": "1", "model": "m", "usage": {"input_tokens": 9, "output_tokens": 1}},
        },
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "H"}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "i"}},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "stop"},
            "usage": {"input_tokens": 9, "output_tokens": 2},
        },
    ],
    "responses": [
        {"type": "response.created", "response": {"id": "1", "model": "m", "status": "started"}},
        {"type": "response.output_text.delta", "delta": "Hi"},
        {
            "type": "response.completed",
            "response": {
                "id": "1",
                "model": "m",
                "status": "stop",
                "usage": {
                    "input_tokens": 9,
                    "input_tokens_details": {"cached_tokens": 0},
                    "output_tokens": 2,
                },
            },
        },
    ],
    "ours": [
        ChatChunk(text="H"),
        ChatChunk(text="i"),
        ChatChunk(finish_reason="stop", usage=Usage(input_tokens=9, output_tokens=2)),
    ],
}


@pytest.mark.parametrize("client", STREAMS)
def test_the_chunks_of_a_stream_add_up_to_an_answer(client: str) -> None:
    """The same, whichever client's: reason, tokens, text."""
    reader = StreamReader(max_chars=100)
    for chunk in STREAMS[client]:
        reader.read(chunk)
    read = reader.attributes()
    assert read["gen_ai.request.stream"] is True
    assert read["gen_ai.response.finish_reasons"] == ["stop"]
    assert (read["gen_ai.usage.input_tokens"], read["gen_ai.usage.output_tokens"]) == (9, 2)
    assert reader.messages() == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Hi"}]}
    ]


def test_no_more_of_a_streams_text_is_kept_than_asked_for() -> None:
    """However long it runs."""
    reader = StreamReader(max_chars=3)
    for _ in range(10):
        reader.read(ChatChunk(text="ab"))
    assert reader.messages() == [
        {"role": "assistant", "parts": [{"type": "text", "content": "aba"}]}
    ]


def test_a_stream_without_an_end_ended_in_error() -> None:
    """And its text is kept only on request."""
    reader = StreamReader()
    reader.read(STREAMS["ours"][0])
    assert reader.attributes()["gen_ai.response.finish_reasons"] == ["error"]
    assert reader.messages() == [{"role": "assistant", "parts": []}]


SECRET = "zebra"
TEXTS = st.recursive(
    st.just(SECRET) | st.integers() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["messages", "content", "text", "message", "choices", "delta", "input", "system"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@given(TEXTS)
def test_no_text_of_a_prompt_or_an_answer_is_an_attribute(shape: Any) -> None:
    """Whatever holds it: objects, mappings, lists of them (invariant 1)."""
    holder = SimpleNamespace(**shape) if isinstance(shape, dict) else shape
    reader = StreamReader()
    for each in (shape, holder):
        reader.read(each)
        told = [
            request_attributes(each, operation="chat", provider=None),
            response_attributes(each),
            reader.attributes(),
        ]
        assert SECRET not in str(told)
    assert SECRET not in str(error_attributes(ValueError(shape)))
