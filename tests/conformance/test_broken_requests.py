"""Whatever is sent to the provider, the answer is one of the documented errors, and the server lives on."""

import json

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_patterns.simulation import ConstantLatency, SimulatedProvider, simulate
from llm_patterns.simulation.transport import SimulatedTransport

OPENAI = "/v1/chat/completions"
ANTHROPIC = "/v1/messages"
EMBEDDINGS = "/v1/embeddings"
HELLO = [{"role": "user", "content": "Hello"}]
CHAT = {"model": "small", "messages": HELLO}
MESSAGE = {**CHAT, "max_tokens": 9}
TOOL = {"type": "function", "function": {"name": "weather"}}


def provider():
    return SimulatedProvider(latency=ConstantLatency(0.001, 0.0001))


def send(world, path, body, *, method="POST", headers=None, **options):
    """Send one request, then a good one that must still be answered; return the first answer."""

    async def use(connection):
        async with connection.httpx() as http:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            own = {"anthropic-version": "2026-10-21"} if path == ANTHROPIC else {}
            answer = await http.request(
                method,
                connection.address + path,
                content=content,
                headers={**own, **(headers or {})},
            )
            good = await http.post(connection.address + OPENAI, json=CHAT)
            assert good.status_code in {200, 401}
            return answer

    return world.run(provider(), use, **options)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"hello",
        b"\xff\xfe",
        b"[1, 2",
        b'{"model": "small"',
        b"[" * 5000,
        b'{"a": NaN}',
        b"\x00",
    ],
    ids=["empty", "open", "text", "not-utf8", "list", "cut", "deep", "nan", "null-byte"],
)
@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC, EMBEDDINGS])
def test_malformed_json_is_a_bad_request(world, path, body):
    """In the words of the API that was asked."""
    answer = send(world, path, body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]["type"] == "invalid_request_error"
    if path == ANTHROPIC:
        assert answer.json()["type"] == "error"
        assert answer.json()["request_id"] == answer.headers["request-id"]
    else:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        ({"messages": [{"role": "nobody", "content": ""}]}, "messages.0.role"),
        ({"messages": [{"content": "Hello"}]}, "messages.0.role"),
        ({"model": 5}, "model"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}},
            "tool_choice",
        ),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
    ],
)
def test_a_wrong_field_is_named(world, change, param):
    """400 with the path of the first thing that is wrong."""
    answer = send(world, OPENAI, {**CHAT, **change})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert param in answer.json()["error"]["message"]


def test_a_missing_field_has_a_code_of_its_own(world):
    """As clients of this API expect."""
    error = send(world, OPENAI, {"model": "small"}).json()["error"]
    assert (error["param"], error["code"]) == ("messages", "missing_required_parameter")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "text"),
        ({"tools": [{"name": "weather"}]}, "tools.0.input_schema"),
        ({"tool_choice": {"type": "tool", "name": "other"}}, "tool_choice"),
        ({"stop_sequences": "END"}, "stop_sequences"),
    ],
)
def test_a_wrong_field_is_named_in_a_message(world, change, named):
    """The other format has no field for the path; the message begins with it."""
    answer = send(world, ANTHROPIC, {**MESSAGE, **change})
    assert answer.status_code == 400
    assert named in answer.json()["error"]["message"]


@pytest.mark.parametrize("version", [None, "1999-01-01"])
def test_the_version_is_demanded(world, version):
    """A header that this API cannot do without."""
    headers = {"anthropic-version": version or ""}
    answer = send(world, ANTHROPIC, MESSAGE, headers=headers)
    assert answer.status_code == 400
    assert "anthropic-version" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC, EMBEDDINGS])
def test_an_oversized_body_is_refused(world, path):
    """413, whether it is a little too large or very much."""
    for size in (1001, 2_000_000):
        answer = send(world, path, b" " * size, max_body_bytes=1000)
        assert answer.status_code == 413
        assert "1000 bytes" in answer.json()["error"]["message"]


def test_an_oversized_message_has_the_vendor_s_type(world):
    """As Anthropic documents it."""
    answer = send(world, ANTHROPIC, b" " * 1001, max_body_bytes=1000)
    assert answer.json()["error"]["type"] == "request_too_large"


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/chat", "/v2/chat/completions", "/v1/messages/batches"]
)
def test_an_unknown_path_is_not_found(world, path):
    """404 as JSON."""
    answer = send(world, path, CHAT)
    assert answer.status_code == 404
    assert path in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", OPENAI), ("PUT", ANTHROPIC), ("DELETE", EMBEDDINGS), ("POST", "/v1/models")],
)
def test_a_wrong_method_is_refused(world, method, path):
    """405, and the message says which one is right."""
    answer = send(world, path, b"", method=method)
    assert answer.status_code == 405
    assert "use " in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Basic abc"}, {"authorization": "Bearer"}]
)
@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC])
def test_a_missing_key_is_refused(world, path, headers):
    """401 before the body is looked at, and the message says how to send it."""
    answer = send(world, path, b"{", headers=headers, api_key="secret")
    assert answer.status_code == 401
    assert "Authorization: Bearer" in answer.json()["error"]["message"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("messages", "temperature", "tools", "tool_choice", "response_format", "stop", "stream")


@settings(deadline=None, max_examples=200)
@given(st.fixed_dictionaries({"model": st.just("small")}, optional=dict.fromkeys(FIELDS, JSON)))
def test_no_body_takes_the_server_down(body):
    """Any JSON in any field is answered, never with a failure of the server's own."""

    async def use():
        async with httpx.AsyncClient(transport=SimulatedTransport(provider())) as http:
            content = json.dumps(body)
            headers = {"anthropic-version": "2026-10-21"}
            one = await http.post(f"http://x{OPENAI}", content=content)
            two = await http.post(f"http://x{ANTHROPIC}", content=content, headers=headers)
            return one.status_code, two.status_code

    assert set(simulate(use)) <= {200, 400}
