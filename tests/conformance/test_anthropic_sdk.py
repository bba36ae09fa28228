"""The official `anthropic` SDK meets in the simulated provider what it meets at Anthropic."""

import asyncio
from datetime import UTC, datetime, timedelta

import anthropic
import httpx2
import pytest
from pydantic import BaseModel

from llm_patterns.chat import Usage
from llm_patterns.errors import ErrorKind, failure_of
from llm_patterns.simulation import (
    ConstantLatency,
    Disconnect,
    ErrorRate,
    FifoServer,
    Hang,
    RateLimits,
    SimulatedModel,
    SimulatedProvider,
    fixed,
    improvised,
    simulate,
)
from llm_patterns.simulation.transport import SimulatedTransport

FAST = ConstantLatency(0.001, 0.0001)
HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
        "required": ["city", "days"],
    },
}


def sdk(connection, *, max_retries=0, **options):
    """The vendor's client; without retries of its own unless the test is about them."""
    return anthropic.AsyncAnthropic(
        base_url=connection.address,
        api_key=options.pop("api_key", "key"),
        http_client=connection.httpx2(),
        max_retries=max_retries,
        **options,
    )


def provider(**options):
    return SimulatedProvider(**{"latency": FAST, "responder": fixed("Hello, reader."), **options})


def ask(world, simulated, *, app=None, client=None, **request):
    """Send one message and return the answer or the error."""

    async def use(connection):
        async with sdk(connection, **(client or {})) as api:
            try:
                return await api.messages.create(
                    **{"model": "small", "max_tokens": 100, "messages": HELLO, **request}
                )
            except anthropic.AnthropicError as error:
                return error

    return world.run(simulated, use, **(app or {}))


def test_a_message_has_text_and_usage(world):
    """Input tokens leave out the cached ones."""
    usage = Usage(input_tokens=20, cached_input_tokens=80, output_tokens=5)
    answer = ask(world, provider(responder=fixed("Yes.", usage=usage)))
    assert answer.content[0].text == "Yes."
    assert (answer.role, answer.stop_reason) == ("assistant", "end_turn")
    assert answer.usage.input_tokens == 20
    assert answer.usage.cache_read_input_tokens == 80
    assert answer.usage.cache_creation_input_tokens == 0
    assert answer.usage.output_tokens == 5
    assert answer.id.startswith("msg_")
    assert answer._request_id.startswith("req_")


def test_the_request_reaches_the_provider_whole(world):
    """Every kind of block, tools and settings arrive as what they mean."""
    seen = []

    def responder(request, rng):
        seen.append(request)
        return fixed("ok")(request, rng)

    use = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Oslo"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Sunny"}
    blocks = {"type": "tool_result", "tool_use_id": "toolu_2", "content": [text("Rain")]}
    ask(
        world,
        provider(responder=responder),
        system=[text("Be "), text("brief.")],
        messages=[
            {"role": "user", "content": [text("Good "), text("day")]},
            {"role": "assistant", "content": [text("Let me see."), use]},
            {"role": "user", "content": [result, blocks, text("And now?")]},
        ],
        tools=[WEATHER],
        tool_choice={"type": "none"},
        extra_body={"temperature": 0.5},
        extra_headers={"anthropic-version": "2023-06-01"},
        stop_sequences=["END"],
        metadata={"user_id": "anna"},
    )
    (request,) = seen
    roles = [message.role for message in request.messages]
    assert roles == ["system", "user", "assistant", "tool", "tool", "user"]
    assert request.messages[0].content == "Be brief."
    assert request.messages[1].content == "Good day"
    assert request.messages[2].tool_calls[0].arguments == '{"city": "Oslo"}'
    assert [message.content for message in request.messages[3:]] == ["Sunny", "Rain", "And now?"]
    assert request.messages[3].tool_call_id == "toolu_1"
    assert request.tools[0].parameters == WEATHER["input_schema"]
    assert (request.max_tokens, request.temperature) == (100, 0.5)
    assert (request.stop, request.user, request.tool_choice) == (("END",), "anna", "none")


def text(content):
    return {"type": "text", "text": content}


def test_an_answer_ends_at_its_limit(world):
    """And says that it was cut."""
    answer = ask(world, provider(responder=fixed("word " * 40)), max_tokens=5)
    assert answer.stop_reason == "max_tokens"
    assert answer.usage.output_tokens == 5


def test_a_stream_gives_the_text_in_pieces(world):
    """The SDK's own accumulator puts together text, reason and usage."""

    async def use(connection):
        async with sdk(connection) as api:
            opened = api.messages.stream(model="small", max_tokens=100, messages=HELLO)
            async with opened as stream:
                pieces = [piece async for piece in stream.text_stream]
            return pieces, await stream.get_final_message()

    usage = Usage(input_tokens=20, cached_input_tokens=80, output_tokens=7)
    pieces, message = world.run(provider(responder=fixed("Hello, reader.", usage=usage)), use)
    assert len(pieces) > 4
    assert "".join(pieces) == message.content[0].text == "Hello, reader."
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (20, 80)
    assert message.usage.output_tokens == 7


def test_the_events_of_a_stream_come_in_the_documented_order(world):
    """Start, blocks with their deltas, the message's own delta, stop."""

    async def use(connection):
        async with sdk(connection) as api:
            stream = await api.messages.create(
                model="small", max_tokens=100, messages=HELLO, stream=True
            )
            return [event.type async for event in stream]

    kinds = world.run(provider(), use)
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_a_tool_is_called_when_the_request_demands_it(world, choice):
    """The input is an object of the tool's schema."""
    answer = ask(world, provider(responder=improvised()), tools=[WEATHER], tool_choice=choice)
    (call,) = answer.content
    assert (call.type, call.name, answer.stop_reason) == ("tool_use", "get_weather", "tool_use")
    assert isinstance(call.input["city"], str)
    assert call.input["days"] >= 1


def test_a_tool_call_is_streamed(world):
    """Its input arrives as partial JSON, which the SDK puts together."""

    async def use(connection):
        async with sdk(connection) as api:
            opened = api.messages.stream(
                model="small",
                max_tokens=100,
                messages=HELLO,
                tools=[WEATHER],
                tool_choice={"type": "any"},
            )
            async with opened as stream:
                return await stream.get_final_message()

    (call,) = world.run(provider(responder=improvised()), use).content
    assert call.name == "get_weather"
    assert set(call.input) == {"city", "days"}


class Trip(BaseModel):
    """What the model shall fill in."""

    city: str
    days: int
    stops: list[str]


def test_an_answer_of_a_json_schema_is_parsed(world):
    """`parse` gives an object of the class asked for."""

    async def use(connection):
        async with sdk(connection) as api:
            return await api.messages.parse(
                model="small", max_tokens=500, messages=HELLO, output_format=Trip
            )

    assert isinstance(world.run(provider(responder=improvised()), use).parsed_output, Trip)


@pytest.mark.parametrize(
    ("status_code", "expected", "kind", "named"),
    [
        (400, anthropic.BadRequestError, ErrorKind.INVALID_REQUEST, "invalid_request_error"),
        (401, anthropic.AuthenticationError, ErrorKind.AUTHENTICATION, "authentication_error"),
        (402, anthropic.PaymentRequiredError, ErrorKind.QUOTA_EXHAUSTED, "billing_error"),
        (403, anthropic.PermissionDeniedError, ErrorKind.AUTHENTICATION, "permission_error"),
        (404, anthropic.NotFoundError, ErrorKind.INVALID_REQUEST, "not_found_error"),
        (408, anthropic.RequestTimeoutError, ErrorKind.TIMEOUT, "invalid_request_error"),
        (409, anthropic.ConflictError, ErrorKind.CONFLICT, "conflict_error"),
        (413, anthropic.ContentTooLargeError, ErrorKind.INVALID_REQUEST, "request_too_large"),
        (
            422,
            anthropic.UnprocessableEntityError,
            ErrorKind.INVALID_REQUEST,
            "invalid_request_error",
        ),
        (429, anthropic.RateLimitError, ErrorKind.RATE_LIMITED, "rate_limit_error"),
        (500, anthropic.InternalServerError, ErrorKind.SERVER, "api_error"),
        (503, anthropic.ServiceUnavailableError, ErrorKind.OVERLOADED, "api_error"),
        (504, anthropic.GatewayTimeoutError, ErrorKind.TIMEOUT, "timeout_error"),
        (529, anthropic.OverloadedError, ErrorKind.OVERLOADED, "overloaded_error"),
    ],
)
def test_each_status_is_the_sdk_s_error_and_our_kind(world, status_code, expected, kind, named):
    """What the SDK raises, the library understands, `x-should-retry` included."""
    fault = ErrorRate(status_code=status_code, retry_after=2, latency=0)
    error = ask(world, provider(faults=[fault]))
    assert type(error) is expected
    assert error.type == named
    assert error.request_id.startswith("req_")
    failure = failure_of(error)
    assert (failure.kind, failure.status_code, failure.retry_after) == (kind, status_code, 2)
    assert failure.should_retry is (status_code >= 500 or status_code in {408, 409, 429})


def test_an_overloaded_server_says_529(world):
    """A full queue has a status of its own here."""

    async def use(connection):
        async with sdk(connection) as api:
            calls = (api.messages.create(model="m", max_tokens=9, messages=HELLO) for _ in range(3))
            return await asyncio.gather(*calls, return_exceptions=True)

    server = FifoServer(slots=1, max_queue=1)
    answers = world.run(provider(server=server, latency=ConstantLatency(0.1, 0)), use)
    (error,) = [each for each in answers if isinstance(each, Exception)]
    assert type(error) is anthropic.OverloadedError
    assert failure_of(error).kind is ErrorKind.OVERLOADED


def test_a_rate_limit_has_the_vendor_s_headers(world):
    """Limit, rest and time of reset, and how long to wait."""

    async def use(connection):
        async with sdk(connection) as api:
            raw = api.messages.with_raw_response
            first = await raw.create(model="small", max_tokens=9, messages=HELLO)
            with pytest.raises(anthropic.RateLimitError) as caught:
                await raw.create(model="small", max_tokens=9, messages=HELLO)
            return first.headers, caught.value

    limits = RateLimits(requests_per_minute=1, tokens_per_minute=60_000)
    headers, error = world.run(provider(limits=limits), use)
    assert headers["anthropic-ratelimit-requests-limit"] == "1"
    assert headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert headers["anthropic-ratelimit-tokens-limit"] == "60000"
    assert error.response.headers["retry-after"] == "60"
    now = datetime(2026, 1, 5, tzinfo=UTC) if world.virtual else datetime.now(UTC)
    reset = datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"])
    assert timedelta(seconds=30) < reset - now < timedelta(seconds=70)


def test_a_wrong_key_is_refused(world):
    """401, in the vendor's words."""
    error = ask(world, provider(), app={"api_key": "right"}, client={"api_key": "wrong"})
    assert isinstance(error, anthropic.AuthenticationError)
    assert error.type == "authentication_error"


def test_the_right_key_is_let_in(world):
    """With a key set, requests that bring it pass."""
    answer = ask(world, provider(), app={"api_key": "right"}, client={"api_key": "right"})
    assert answer.content[0].text == "Hello, reader."


def test_an_unknown_model_is_not_found(world):
    """404, and the message names those that exist."""
    error = ask(world, provider(models=[SimulatedModel("small", FAST)]), model="huge")
    assert isinstance(error, anthropic.NotFoundError)
    assert "small" in error.api_message


@pytest.mark.parametrize(
    ("version", "temperature"), [("2026-10-21", 0.5), ("2023-06-01", 1.5)], ids=["any", "high"]
)
def test_a_temperature_is_refused_as_the_version_says(world, version, temperature):
    """The newer version has none at all, the older one takes 0 to 1."""
    headers = {"anthropic-version": version}
    error = ask(world, provider(), extra_body={"temperature": temperature}, extra_headers=headers)
    assert isinstance(error, anthropic.BadRequestError)
    assert "temperature" in error.api_message


def test_the_sdk_s_wait_is_exact_in_virtual_time():
    """It obeys retry-after, on the simulated clock."""
    simulated = provider(faults=[ErrorRate(status_code=429, duration=10, retry_after=7, latency=0)])

    async def use():
        http = httpx2.AsyncClient(transport=SimulatedTransport(simulated))
        async with anthropic.AsyncAnthropic(
            base_url="http://x", api_key="k", http_client=http, max_retries=2
        ) as api:
            await api.messages.create(model="small", max_tokens=9, messages=HELLO)

    simulate(use)
    assert [attempt.started_at for attempt in simulated.ledger] == [0, 7, 14]


def test_the_sdk_obeys_the_order_not_to_retry(world):
    """`x-should-retry: false` on what would fail again."""
    simulated = provider(faults=[ErrorRate(status_code=400, latency=0)])
    error = ask(world, simulated, client={"max_retries": 2})
    assert isinstance(error, anthropic.BadRequestError)
    assert len(simulated.ledger) == 1


@pytest.mark.parametrize("fault", [Hang(), None], ids=["hang", "slow"])
def test_a_time_out_ends_the_wait_and_the_work(world, fault):
    """The client's error is a time-out; the provider hears that nobody waits any more."""
    simulated = provider(latency=ConstantLatency(30, 0), faults=[fault] if fault else [])

    async def use(connection):
        async with sdk(connection, timeout=0.05) as api:
            with pytest.raises(anthropic.APITimeoutError) as caught:
                await api.messages.create(model="small", max_tokens=9, messages=HELLO)
        await connection.until(lambda: simulated.ledger[0].abandoned)
        return caught.value

    assert failure_of(world.run(simulated, use)).kind is ErrorKind.TIMEOUT


def test_a_broken_connection_is_the_sdk_s_connection_error(world):
    """Before the answer is whole."""
    error = ask(world, provider(faults=[Disconnect()]))
    assert type(error) is anthropic.APIConnectionError
    assert failure_of(error).kind is ErrorKind.CONNECTION


def read_until_it_breaks(world, simulated):
    """Stream an answer and return its pieces and the error that ends it."""

    async def use(connection):
        pieces = []
        async with sdk(connection) as api:
            opened = api.messages.stream(model="small", max_tokens=100, messages=HELLO)
            try:
                async with opened as stream:
                    async for piece in stream.text_stream:
                        pieces += [piece]
            except Exception as error:
                return "".join(pieces), error

    return world.run(simulated, use)


def test_a_stream_that_breaks_is_understood(world):
    """This SDK lets the transport's own error through."""
    pieces, error = read_until_it_breaks(world, provider(faults=[Disconnect(after=0.5)]))
    assert pieces == "Hello, "
    assert isinstance(error, httpx2.RemoteProtocolError)
    assert failure_of(error).kind is ErrorKind.CONNECTION


@pytest.mark.parametrize(
    ("status_code", "kind"),
    [
        (529, ErrorKind.OVERLOADED),
        (500, ErrorKind.SERVER),
        (429, ErrorKind.RATE_LIMITED),
        (504, ErrorKind.TIMEOUT),
    ],
)
def test_an_error_in_mid_stream_is_understood(world, status_code, kind):
    """Its status is 200, since the answer had begun; its type tells."""
    fault = Disconnect(after=0.5, status_code=status_code)
    pieces, error = read_until_it_breaks(world, provider(faults=[fault]))
    assert pieces == "Hello, "
    assert isinstance(error, anthropic.APIStatusError)
    assert error.status_code == 200
    assert failure_of(error).kind is kind
