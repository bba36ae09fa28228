"""Answers that real servers give, beyond those of the simulated one."""

import json

import httpx
import pytest

from llm_patterns.chat import ChatRequest, Message, Tool, ToolCall, Usage
from llm_patterns.errors import (
    ConfigurationError,
    ConnectionFailed,
    ContentFiltered,
    InvalidRequest,
    Overloaded,
    QuotaExhausted,
    ServerError,
)
from llm_patterns.providers import AnthropicMessages, OpenAICompatibleChat
from llm_patterns.providers.sse import encode
from llm_patterns.simulation import simulate

HELLO = ChatRequest(model="small", messages=(Message.user("Hello"),))


class Canned(httpx.AsyncBaseTransport):
    """A server that gives one answer, and keeps what it was asked."""

    def __init__(self, body, *, status_code=200, headers=None):
        self.response = httpx.Response(status_code, content=body, headers=headers)
        self.request = None

    async def handle_async_request(self, request):
        self.request = json.loads(await request.aread())
        return self.response


def openai_client(server, **options):
    http = httpx.AsyncClient(transport=server)
    return OpenAICompatibleChat("http://server/v1/", "key", client=http, **options)


def anthropic_client(server, **options):
    http = httpx.AsyncClient(transport=server)
    return AnthropicMessages("http://server", api_key="key", client=http, **options)


def openai_stream(*events):
    return b"".join(
        encode(event if isinstance(event, str) else json.dumps(event)) for event in events
    )


def anthropic_stream(*events):
    return b"".join(encode(json.dumps(event), event["type"]) for event in events)


def complete(client, request=HELLO):
    return simulate(lambda: client.complete(request))


def stream(client, request=HELLO):
    async def read():
        return [chunk async for chunk in await client.stream(request)]

    return simulate(read)


def text(content, **choice):
    return {"choices": [{"index": 0, "delta": {"content": content}, **choice}]}


def test_a_server_that_says_little_is_understood():
    """No id, no usage, no reason, nulls where others have objects."""
    body = {"choices": [{"message": {"content": "Hi", "tool_calls": None}}], "usage": None}
    answer = complete(openai_client(Canned(json.dumps(body))))
    assert (answer.text, answer.finish_reason, answer.usage) == ("Hi", "stop", Usage())


def test_a_refusal_is_a_filtered_answer():
    """Its text says why."""
    body = {"choices": [{"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}]}
    answer = complete(openai_client(Canned(json.dumps(body))))
    assert (answer.text, answer.finish_reason) == ("No.", "content_filter")


def test_a_stream_without_an_end_mark_is_whole_if_it_says_why_it_ended():
    """Some servers leave out `[DONE]`, and the usage."""
    body = openai_stream(text("Hi"), text("!", finish_reason="stop"))
    chunks = stream(openai_client(Canned(body)))
    assert "".join(chunk.text for chunk in chunks) == "Hi!"
    assert (chunks[-1].finish_reason, chunks[-1].usage) == ("stop", Usage())


def test_a_stream_that_stops_short_is_not_whole():
    """Closed in good order by a server that had not finished."""
    with pytest.raises(ConnectionFailed, match="before the answer was whole"):
        stream(openai_client(Canned(openai_stream(text("Hi")))))


def test_an_empty_stream_ends_with_its_reason():
    """The first chunk may be the last."""
    body = openai_stream({"choices": [{"delta": {}, "finish_reason": "content_filter"}]}, "[DONE]")
    (chunk,) = stream(openai_client(Canned(body)))
    assert chunk.finish_reason == "content_filter"


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"choices": []}', b"null"])
def test_an_unreadable_answer_is_the_server_s_error(body):
    """A proxy's page with status 200, or a body without an answer."""
    with pytest.raises(ServerError, match="cannot be read"):
        complete(openai_client(Canned(body)))


@pytest.mark.parametrize("client", [openai_client, anthropic_client])
def test_an_unreadable_event_is_the_server_s_error(client):
    """The stream ends there."""
    with pytest.raises(ServerError, match="cannot be read"):
        stream(client(Canned(encode("{", "content_block_delta"))))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"error": {"message": "no credit", "code": "insufficient_quota"}}, QuotaExhausted),
        ({"error": {"message": "filtered", "code": "content_filter"}}, ContentFiltered),
        ({"error": {"message": "bad", "code": 400}}, InvalidRequest),
        ({"error": {"message": "broken", "type": "server_error"}}, ServerError),
    ],
)
def test_an_error_event_is_read_by_its_code(data, expected):
    """Words or, as some servers do, a status."""
    with pytest.raises(expected, match=data["error"]["message"]):
        stream(openai_client(Canned(openai_stream(data))))


def test_what_came_before_an_error_is_given_first():
    """Even when both arrive in one packet."""
    body = openai_stream(text("Hi"), {"error": {"message": "busy", "code": "server_is_overloaded"}})

    async def read():
        opened = await openai_client(Canned(body)).stream(HELLO)
        first = await anext(opened)
        with pytest.raises(Overloaded):
            await anext(opened)
        return first.text, [chunk async for chunk in opened]

    assert simulate(read) == ("Hi", [])


def test_text_about_errors_is_no_error():
    """An answer may contain the word."""
    body = openai_stream({**text('{"error": "x"}', finish_reason="stop"), "error": None}, "[DONE]")
    assert stream(openai_client(Canned(body)))[0].text == '{"error": "x"}'


def test_an_error_page_becomes_the_message():
    """What a gateway says in HTML is still told, up to 500 characters."""
    with pytest.raises(ServerError) as caught:
        complete(openai_client(Canned(b"<html>" + b"x" * 1000, status_code=502)))
    assert len(caught.value.message) == 500


def test_an_empty_error_names_its_status():
    """Better than an empty message."""
    for client in (openai_client, anthropic_client):
        with pytest.raises(ServerError, match="status 500"):
            complete(client(Canned(b"", status_code=500)))


def test_the_limit_is_sent_under_the_name_that_the_server_knows():
    """The new name, or the first one for older servers."""
    request = HELLO.model_copy(update={"max_tokens": 9})
    body = json.dumps({"choices": [{"message": {"content": "Hi"}}]})
    new, old = Canned(body), Canned(body)
    complete(openai_client(new), request)
    complete(openai_client(old, old_limit=True), request)
    assert (new.request["max_completion_tokens"], "max_tokens" in new.request) == (9, False)
    assert (old.request["max_tokens"], "max_completion_tokens" in old.request) == (9, False)


def test_a_schema_is_sent_as_strict_and_any_object_as_such():
    """The two forms of structured output."""
    body = json.dumps({"choices": [{"message": {"content": "{}"}}]})
    schema = {"type": "object", "properties": {}}
    strict, loose = Canned(body), Canned(body)
    complete(openai_client(strict), HELLO.model_copy(update={"response_schema": schema}))
    complete(openai_client(loose), HELLO.model_copy(update={"response_schema": {"type": "object"}}))
    named = strict.request["response_format"]["json_schema"]
    assert (named["strict"], named["schema"]) == (True, schema)
    assert loose.request["response_format"] == {"type": "json_object"}


def test_thinking_is_left_out_of_the_answer():
    """Blocks that have no word here do not disturb; an unknown reason is a stop."""
    blocks = [{"type": "thinking", "thinking": "..."}, {"type": "text", "text": "Hi"}]
    body = {"content": blocks, "stop_reason": "pause_turn", "usage": {"input_tokens": 5}}
    answer = complete(anthropic_client(Canned(json.dumps(body))))
    assert (answer.text, answer.finish_reason, answer.usage.input_tokens) == ("Hi", "stop", 5)


@pytest.mark.parametrize(
    ("creation", "expected"),
    [
        ({}, {"cache_write_tokens": 10}),
        (
            {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6},
            {"cache_write_tokens": 4, "cache_write_1h_tokens": 6},
        ),
    ],
    ids=["undivided", "by time kept"],
)
def test_tokens_written_to_anthropics_cache_are_a_part_of_their_own(creation, expected):
    """Beside the input, divided by the time that they are kept."""
    usage = {"input_tokens": 1, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 100}
    usage["cache_creation"] = creation or None
    answer = complete(anthropic_client(Canned(json.dumps({"content": [], "usage": usage}))))
    assert answer.usage == Usage(input_tokens=1, cached_input_tokens=100, **expected)


def test_tokens_written_to_openais_cache_are_a_part_of_the_prompts():
    """Here they are taken out of it, as the cached ones are."""
    details = {"cached_tokens": 2_000, "cache_write_tokens": 400}
    usage = {"prompt_tokens": 2_600, "completion_tokens": 7, "prompt_tokens_details": details}
    body = {"choices": [{"message": {"content": "Hi"}}], "usage": usage}
    answer = complete(openai_client(Canned(json.dumps(body))))
    assert answer.usage == Usage(
        input_tokens=200, cached_input_tokens=2_000, cache_write_tokens=400, output_tokens=7
    )


def test_what_a_stream_writes_to_the_cache_after_its_start_is_counted():
    """The start divides what it knows of; the end has the whole, and the rest is kept the shorter time."""
    start = {
        "input_tokens": 7,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
    }
    end = {"cache_creation_input_tokens": 100, "output_tokens": 9}
    body = anthropic_stream(
        {"type": "message_start", "message": {"content": [], "usage": start}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": end},
        {"type": "message_stop"},
    )
    assert stream(anthropic_client(Canned(body)))[-1].usage == Usage(
        input_tokens=7, cache_write_tokens=80, cache_write_1h_tokens=20, output_tokens=9
    )


def test_the_usage_of_a_stream_is_put_together():
    """Input comes with the start, output with the end; unknown events are passed over."""
    message = {"content": [], "usage": {"input_tokens": 7, "output_tokens": 1}}
    thinking = {"type": "thinking_delta", "thinking": "..."}
    body = anthropic_stream(
        {"type": "message_start", "message": message},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking"}},
        {"type": "content_block_delta", "index": 0, "delta": thinking},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "something_new", "index": 2},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "refusal"},
            "usage": {"output_tokens": 9},
        },
        {"type": "message_stop"},
    )
    chunks = stream(anthropic_client(Canned(body)))
    assert [chunk.text for chunk in chunks] == ["Hi", ""]
    assert chunks[-1].usage == Usage(input_tokens=7, output_tokens=9)
    assert chunks[-1].finish_reason == "content_filter"


def test_an_unreadable_error_event_is_the_server_s_error():
    """Its text becomes the message."""
    with pytest.raises(ServerError, match="not JSON"):
        stream(anthropic_client(Canned(encode("not JSON", "error"))))


def test_a_spend_limit_is_no_rate_limit():
    """429 that waiting will not cure, by the code in the details."""
    error = {
        "type": "rate_limit_error",
        "message": "x",
        "details": {"error_code": "enforced_spend_limit_reached"},
    }
    with pytest.raises(QuotaExhausted):
        complete(anthropic_client(Canned(json.dumps({"error": error}), status_code=429)))


@pytest.mark.parametrize(
    ("messages", "wrong"),
    [
        ((Message.system("Be brief."),), "one of a user"),
        (
            (Message.assistant(tool_calls=(ToolCall(id="1", name="f", arguments="[1]"),)),),
            "JSON object",
        ),
        (
            (Message.assistant(tool_calls=(ToolCall(id="1", name="f", arguments="{"),)),),
            "JSON object",
        ),
    ],
)
def test_what_anthropic_cannot_be_told_is_refused_before_it_is_sent(messages, wrong):
    """The same request would fail there."""
    server = Canned(b"")
    with pytest.raises(InvalidRequest, match=wrong):
        complete(anthropic_client(server), HELLO.model_copy(update={"messages": messages}))
    assert server.request is None


def test_settings_that_anthropic_names_otherwise_are_translated():
    """Limit, tools and choice; the seed has no counterpart."""
    server = Canned(json.dumps({"content": []}))
    request = ChatRequest(
        model="small",
        messages=(Message.system("One."), Message.system("Two."), Message.user("Hello")),
        tools=(Tool(name="f"),),
        tool_choice="required",
        seed=7,
    )
    complete(anthropic_client(server), request)
    assert server.request["system"] == "One.\n\nTwo."
    assert server.request["max_tokens"] == 4096
    assert server.request["tools"] == [{"name": "f", "input_schema": {"type": "object"}}]
    assert server.request["tool_choice"] == {"type": "any"}
    assert "seed" not in server.request


@pytest.mark.parametrize("url", ["api.example.com", "ftp://example.com", ""])
def test_an_address_without_http_is_refused(url):
    """When the client is made, not at the first request."""
    with pytest.raises(ConfigurationError, match="http"):
        OpenAICompatibleChat(url, "key")


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_wait_without_end_is_refused(timeout):
    """Every call has a deadline."""
    with pytest.raises(ConfigurationError, match="timeout"):
        AnthropicMessages(api_key="key", timeout=timeout)


def test_a_client_closes_its_own_connections_only():
    """A borrowed pool stays open."""

    async def use():
        borrowed = httpx.AsyncClient()
        async with OpenAICompatibleChat("http://server/v1", "key", client=borrowed):
            pass
        assert not borrowed.is_closed
        await borrowed.aclose()
        own = OpenAICompatibleChat("http://server/v1", "key")
        await own.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await own.complete(HELLO)

    simulate(use)
