"""Our own clients of both formats, against the same provider."""

import asyncio

import httpx
import pytest

from llm_patterns.chat import ChatModel, ChatRequest, ChatStream, Message, Tool, ToolCall, Usage
from llm_patterns.errors import (
    AuthenticationFailed,
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    RequestTimeout,
    ServerError,
)
from llm_patterns.providers import AnthropicMessages, OpenAICompatibleChat
from llm_patterns.quotas import quotas_of
from llm_patterns.simulation import (
    ConstantLatency,
    Disconnect,
    ErrorRate,
    FifoServer,
    Hang,
    RateLimits,
    Reply,
    SimulatedModel,
    SimulatedProvider,
    fixed,
    improvised,
    simulate,
)
from llm_patterns.simulation.transport import SimulatedTransport

FAST = ConstantLatency(0.001, 0.0001)
HELLO = ChatRequest(model="small", messages=(Message.user("Hello"),))
WEATHER = Tool(
    name="get_weather",
    description="The weather of a city.",
    parameters={"type": "object", "properties": {"city": {"enum": ["Oslo"]}}},
)


def openai_client(address, http, *, api_key="key", **options):
    return OpenAICompatibleChat(f"{address}/v1", api_key, client=http, **options)


def anthropic_client(address, http, *, api_key="key", **options):
    return AnthropicMessages(address, api_key=api_key, client=http, **options)


@pytest.fixture(params=[openai_client, anthropic_client], ids=["openai", "anthropic"])
def make_client(request):
    """A maker of each of the two clients."""
    return request.param


def provider(**options):
    return SimulatedProvider(**{"latency": FAST, "responder": fixed("Hello, reader."), **options})


def use_model(world, make_client, simulated, use, *, app=None, **options):
    """Run *use* with a model that reaches *simulated*; return what it gives or the error it raises."""

    async def connected(connection):
        async with (
            connection.httpx() as http,
            make_client(connection.address, http, **options) as model,
        ):
            try:
                return await use(model, connection)
            except ProviderError as error:
                return error

    return world.run(simulated, connected, **(app or {}))


def ask(world, make_client, simulated, request=HELLO, **options):
    return use_model(
        world, make_client, simulated, lambda model, _: model.complete(request), **options
    )


def read(world, make_client, simulated, request=HELLO, **options):
    """Stream an answer and return its chunks and the error that ends them, if any."""

    async def use(model, _):
        chunks = []
        try:
            async for chunk in await model.stream(request):
                chunks += [chunk]
        except ProviderError as error:
            return chunks, error
        return chunks, None

    return use_model(world, make_client, simulated, use, **options)


def test_what_is_left_of_the_limits_comes_with_the_answer(world, make_client):
    """A whole answer, a stream and a refusal carry the headers' quotas, in either spelling."""
    limited = provider(limits=RateLimits(requests_per_minute=3, tokens_per_minute=90_000))

    async def use(model, _):
        answer = await model.complete(HELLO)
        stream = await model.stream(HELLO)
        await stream.aclose()
        await model.complete(HELLO)
        with pytest.raises(RateLimited) as refusal:
            await model.complete(HELLO)
        return [quotas_of(each) for each in (answer, stream, refusal.value)]

    told = use_model(world, make_client, limited, use)
    assert [(each.requests.limit, each.requests.remaining) for each in told] == [
        (3, 2),
        (3, 1),
        (3, 0),
    ]
    assert all(0 < each.requests.reset <= 61 for each in told)
    assert all(each.tokens.limit == 90_000 >= each.tokens.remaining > 70_000 for each in told)


def test_they_are_chat_models(make_client):
    """Both fit the protocol."""
    assert isinstance(make_client("http://x", httpx.AsyncClient()), ChatModel)


def test_an_answer_is_the_provider_s_own(world, make_client):
    """Text, reason and usage in this library's words, whatever the format in between."""
    usage = Usage(input_tokens=20, cached_input_tokens=80, cache_write_tokens=9, output_tokens=5)
    answer = ask(world, make_client, provider(responder=fixed("Yes.", usage=usage)))
    assert (answer.text, answer.finish_reason, answer.model) == ("Yes.", "stop", "small")
    assert answer.usage == usage


def test_a_request_arrives_as_it_was(world, make_client):
    """What goes through the format comes out the same."""
    seen = []

    def responder(request, rng):
        seen.append(request)
        return Reply("ok")

    calls = (
        ToolCall(id="call_1", name="get_weather", arguments='{"city": "Oslo"}'),
        ToolCall(id="call_2", name="get_weather", arguments='{"city": "Rome"}'),
    )
    request = ChatRequest(
        model="small",
        messages=(
            Message.system("Be brief."),
            Message.user("Hello"),
            Message.assistant("Let me see.", tool_calls=calls),
            Message.tool("Sunny", tool_call_id="call_1"),
            Message.tool("Rain", tool_call_id="call_2"),
            Message.assistant("It rains."),
            Message.user("Thanks"),
        ),
        max_tokens=100,
        stop=("END", "STOP"),
        tools=(WEATHER,),
        tool_choice="get_weather",
        response_schema={"type": "object", "properties": {"city": {"type": "string"}}},
        user="anna",
    )
    ask(world, make_client, provider(responder=responder), request)
    assert seen == [request]


def test_a_stream_is_the_same_answer_in_pieces(world, make_client):
    """The last chunk alone carries reason and usage."""
    chunks, error = read(world, make_client, provider())
    assert error is None
    assert len(chunks) > 4
    assert "".join(chunk.text for chunk in chunks) == "Hello, reader."
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason == "stop"
    assert chunks[-1].usage == Usage(input_tokens=2, output_tokens=4)


def test_a_tool_call_comes_whole_and_in_pieces(world, make_client):
    """The same call, answered at once or streamed."""
    call = ToolCall(id="call_1", name="get_weather", arguments='{"city": "Oslo"}')
    simulated = provider(responder=lambda request, rng: Reply("Let me see.", tool_calls=(call,)))
    answer = ask(world, make_client, simulated)
    assert (answer.tool_calls, answer.finish_reason) == ((call,), "tool_calls")
    chunks, _ = read(world, make_client, simulated)
    deltas = [delta for chunk in chunks for delta in chunk.tool_calls]
    assert {delta.index for delta in deltas} == {0}
    assert (deltas[0].id, deltas[0].name) == ("call_1", "get_weather")
    assert "".join(delta.arguments for delta in deltas) == call.arguments
    assert chunks[-1].finish_reason == "tool_calls"


def test_two_tool_calls_are_told_apart(world, make_client):
    """Each piece names the call it belongs to."""
    calls = tuple(ToolCall(id=f"call_{n}", name="get_weather", arguments="{}") for n in (1, 2))
    simulated = provider(responder=lambda request, rng: Reply(tool_calls=calls))
    chunks, _ = read(world, make_client, simulated)
    deltas = [delta for chunk in chunks for delta in chunk.tool_calls if delta.id]
    assert [(delta.index, delta.id) for delta in deltas] == [(0, "call_1"), (1, "call_2")]


def test_an_answer_that_hits_its_limit_says_so(world, make_client):
    """Whole or streamed."""
    request = HELLO.model_copy(update={"max_tokens": 2})
    assert ask(world, make_client, provider(), request).finish_reason == "length"
    assert read(world, make_client, provider(), request)[0][-1].finish_reason == "length"


def test_the_schema_asked_for_is_answered(world, make_client):
    """Structured output in either format."""
    schema = {"type": "object", "properties": {"city": {"const": "Oslo"}}}
    request = HELLO.model_copy(update={"response_schema": schema})
    assert (
        ask(world, make_client, provider(responder=improvised()), request).text
        == '{"city": "Oslo"}'
    )


@pytest.mark.parametrize(
    ("status_code", "expected"),
    [
        (400, InvalidRequest),
        (401, AuthenticationFailed),
        (402, QuotaExhausted),
        (403, AuthenticationFailed),
        (404, InvalidRequest),
        (408, RequestTimeout),
        (409, Conflict),
        (413, InvalidRequest),
        (429, RateLimited),
        (500, ServerError),
        (502, ServerError),
        (503, Overloaded),
        (504, RequestTimeout),
        (529, Overloaded),
    ],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_each_status_is_an_error_of_the_tree(world, make_client, status_code, expected, streamed):
    """With its status, its wait and its headers, whether a stream was asked for or not."""
    simulated = provider(faults=[ErrorRate(status_code=status_code, retry_after=2, latency=0)])
    if streamed:
        error = use_model(world, make_client, simulated, lambda model, _: model.stream(HELLO))
    else:
        error = ask(world, make_client, simulated)
    assert type(error) is expected
    assert (error.status_code, error.retry_after) == (status_code, 2)
    assert "simulated failure" in error.message
    assert {"request-id", "x-request-id"} & set(error.headers)


def test_a_rate_limit_is_an_error_with_its_wait(world, make_client):
    """The provider's own limit, not a fault."""

    async def use(model, _):
        await model.complete(HELLO)
        return await model.complete(HELLO)

    error = use_model(world, make_client, provider(limits=RateLimits(requests_per_minute=1)), use)
    assert type(error) is RateLimited
    assert 59 < error.retry_after <= 60


def test_a_wrong_key_and_an_unknown_model_are_refused(world, make_client):
    """Each with its own error."""
    simulated = provider(models=[SimulatedModel("large")])
    app = {"api_key": "right"}
    wrong = ask(world, make_client, simulated, app=app, api_key="wrong")
    unknown = ask(world, make_client, simulated, app=app, api_key="right")
    assert type(wrong) is AuthenticationFailed
    assert (type(unknown), unknown.status_code) == (InvalidRequest, 404)


@pytest.mark.parametrize("fault", [Hang(), None], ids=["hang", "slow"])
@pytest.mark.parametrize("method", ["complete", "stream"])
def test_a_late_answer_is_a_time_out(world, make_client, fault, method):
    """Of the whole answer, or of a stream's opening; the provider hears of it."""
    simulated = provider(latency=ConstantLatency(30, 0), faults=[fault] if fault else [])

    async def use(model, connection):
        with pytest.raises(RequestTimeout, match=r"within 0\.05 s"):
            await getattr(model, method)(HELLO)
        await connection.until(lambda: simulated.ledger[0].abandoned)

    assert use_model(world, make_client, simulated, use, timeout=0.05) is None


def test_a_stream_that_stalls_is_a_time_out(world, make_client):
    """The wait between two chunks is bounded too."""
    simulated = provider(latency=ConstantLatency(0.001, 30))
    chunks, error = read(world, make_client, simulated, timeout=0.2)
    assert type(error) is RequestTimeout
    assert len(chunks) == 1


def test_a_broken_connection_is_told(world, make_client):
    """Before the answer is whole."""
    assert type(ask(world, make_client, provider(faults=[Disconnect()]))) is ConnectionFailed


def test_a_stream_that_breaks_is_told(world, make_client):
    """After the chunks that still came."""
    chunks, error = read(world, make_client, provider(faults=[Disconnect(after=0.5)]))
    assert "".join(chunk.text for chunk in chunks) == "Hello, "
    assert type(error) is ConnectionFailed


@pytest.mark.parametrize(
    ("status_code", "expected"), [(529, Overloaded), (500, ServerError), (429, RateLimited)]
)
def test_an_error_in_mid_stream_is_told(world, make_client, status_code, expected):
    """It comes as an event, after the chunks that still came."""
    simulated = provider(faults=[Disconnect(after=0.5, status_code=status_code)])
    chunks, error = read(world, make_client, simulated)
    assert "".join(chunk.text for chunk in chunks) == "Hello, "
    assert type(error) is expected


def test_nobody_at_the_address_is_a_failed_connection(make_client):
    """A refused connection has no status."""

    async def use():
        async with make_client("http://127.0.0.1:9", None) as model:
            with pytest.raises(ConnectionFailed) as caught:
                await model.complete(HELLO)
        return caught.value

    assert asyncio.run(use()).status_code is None


def test_closing_a_stream_frees_the_provider(world, make_client):
    """Closing twice is allowed, and reading on ends at once."""
    server = FifoServer(slots=1, abandoned="drop")
    simulated = provider(server=server, latency=ConstantLatency(0.001, 30))

    async def use(model, connection):
        stream = await model.stream(HELLO)
        assert isinstance(stream, ChatStream)
        await anext(stream)
        await stream.aclose()
        await stream.aclose()
        assert [chunk async for chunk in stream] == []
        await connection.until(lambda: not server.in_flight)

    assert use_model(world, make_client, simulated, use) is None
    assert simulated.ledger[0].abandoned


def test_a_cancelled_call_is_cancelled_in_the_provider(world, make_client):
    """Nobody works for a caller who has gone, if the server notices."""
    server = FifoServer(slots=1, abandoned="drop")
    simulated = provider(server=server, latency=ConstantLatency(30, 0))

    async def use(model, connection):
        call = asyncio.create_task(model.complete(HELLO))
        await connection.until(lambda: server.in_flight == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await connection.until(lambda: not server.in_flight)

    assert use_model(world, make_client, simulated, use) is None


def test_connections_are_used_again(world, make_client):
    """After a whole answer, an error and a stream read to its end: one connection serves them all."""
    simulated = provider(faults=[ErrorRate(status_code=429, duration=0.005, latency=0)])
    peers = set()

    async def use(model, connection):
        if world.virtual:
            return
        with pytest.raises(RateLimited):
            await model.complete(HELLO)
        await asyncio.sleep(0.01)
        for _ in range(3):
            await model.complete(HELLO)
            assert [chunk async for chunk in await model.stream(HELLO)]
            peers.update(connection.peers)

    use_model(world, make_client, simulated, use)
    assert len(peers) == (0 if world.virtual else 1)


def test_a_temperature_goes_where_it_is_known():
    """OpenAI's format takes it; Anthropic's newer version has none, and the older one takes up to 1."""
    seen = []

    def responder(request, rng):
        seen.append(request.temperature)
        return Reply("ok")

    request = HELLO.model_copy(update={"temperature": 0.7})

    async def use():
        transport = SimulatedTransport(provider(responder=responder))
        async with httpx.AsyncClient(transport=transport) as http:
            await openai_client("http://x", http).complete(request)
            await anthropic_client("http://x", http, version="2023-06-01").complete(request)
            with pytest.raises(InvalidRequest, match="leave it out"):
                await anthropic_client("http://x", http).complete(request)
            warm = request.model_copy(update={"temperature": 1.3})
            with pytest.raises(InvalidRequest, match="0 to 1"):
                await anthropic_client("http://x", http, version="2023-06-01").complete(warm)

    simulate(use)
    assert seen == [0.7, 0.7]
