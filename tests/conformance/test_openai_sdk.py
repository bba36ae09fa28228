"""The official `openai` SDK meets in the simulated provider what it meets at OpenAI."""

import asyncio
import json
from itertools import pairwise

import httpx2
import openai
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
    MalformedOutput,
    RateLimits,
    SimulatedModel,
    SimulatedProvider,
    TruncatedOutput,
    fixed,
    improvised,
    scripted,
    simulate,
)
from llm_patterns.simulation.embedding import similarity
from llm_patterns.simulation.transport import SimulatedTransport

FAST = ConstantLatency(0.001, 0.0001)
HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["city", "days"],
        },
    },
}


def sdk(connection, *, max_retries=0, **options):
    """The vendor's client; without retries of its own unless the test is about them."""
    return openai.AsyncOpenAI(
        base_url=f"{connection.address}/v1",
        api_key=options.pop("api_key", "key"),
        http_client=connection.httpx2(),
        max_retries=max_retries,
        **options,
    )


def provider(**options):
    return SimulatedProvider(**{"latency": FAST, "responder": fixed("Hello, reader."), **options})


def ask(world, simulated, *, app=None, client=None, **request):
    """Send one chat completion and return the answer or the error."""

    async def use(connection):
        async with sdk(connection, **(client or {})) as api:
            try:
                return await api.chat.completions.create(
                    **{"model": "small", "messages": HELLO, **request}
                )
            except openai.OpenAIError as error:
                return error

    return world.run(simulated, use, **(app or {}))


def test_a_completion_has_text_and_usage(world):
    """Prompt tokens include the cached ones, which stand by themselves too."""
    usage = Usage(input_tokens=20, cached_input_tokens=80, output_tokens=5)
    answer = ask(world, provider(responder=fixed("Yes.", usage=usage)))
    assert answer.choices[0].message.content == "Yes."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == 100
    assert answer.usage.prompt_tokens_details.cached_tokens == 80
    assert answer.usage.total_tokens == 105
    assert answer.object == "chat.completion"
    assert answer._request_id.startswith("req_")


def test_the_request_reaches_the_provider_whole(world):
    """Every kind of message, tools and settings arrive as what they mean."""
    seen = []

    def responder(request, rng):
        seen.append(request)
        return fixed("ok")(request, rng)

    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": "{}"},
    }
    ask(
        world,
        provider(responder=responder),
        messages=[
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "Good "}, {"type": "text", "text": "day"}],
            },
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "Sunny"},
        ],
        tools=[WEATHER],
        max_tokens=50,
        temperature=0.5,
        seed=7,
        stop="END",
        user="anna",
    )
    (request,) = seen
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool"]
    assert request.messages[1].content == "Good day"
    assert request.messages[2].tool_calls[0].name == "get_weather"
    assert request.messages[3].tool_call_id == "call_1"
    assert request.tools[0].parameters == WEATHER["function"]["parameters"]
    assert (request.max_tokens, request.temperature, request.seed) == (50, 0.5, 7)
    assert (request.stop, request.user) == (("END",), "anna")


def test_attempts_are_entered_under_the_name_of_the_user(world):
    """The ledger says who asked."""
    simulated = provider()
    ask(world, simulated, user="anna")
    assert [attempt.caller for attempt in simulated.ledger] == ["anna"]


def test_an_answer_stops_at_a_stop_sequence(world):
    """The sequence itself is left out."""
    answer = ask(world, provider(responder=fixed("one END two")), stop=["END"])
    assert answer.choices[0].message.content == "one "


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_an_answer_ends_at_its_limit(world, limit):
    """Both names of the limit work, and the answer says that it was cut."""
    answer = ask(world, provider(responder=fixed("word " * 40)), **{limit: 5})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5


def test_a_stream_gives_the_text_in_pieces(world):
    """Pieces, then the reason to finish, then the usage alone."""

    async def use(connection):
        async with sdk(connection) as api:
            stream = await api.chat.completions.create(
                model="small", messages=HELLO, stream=True, stream_options={"include_usage": True}
            )
            return [event async for event in stream]

    events = world.run(provider(), use)
    pieces = [event.choices[0].delta.content for event in events if event.choices]
    assert len(pieces) > 4
    assert "".join(piece or "" for piece in pieces) == "Hello, reader."
    assert events[0].choices[0].delta.role == "assistant"
    assert [event.choices[0].finish_reason for event in events if event.choices][-1] == "stop"
    assert events[-1].choices == []
    assert events[-1].usage.completion_tokens == 4
    assert len({event.id for event in events}) == 1


def test_a_stream_without_the_option_carries_no_usage(world):
    """The usage is opt-in."""

    async def use(connection):
        async with sdk(connection) as api:
            stream = await api.chat.completions.create(model="small", messages=HELLO, stream=True)
            return [event.usage async for event in stream]

    assert set(world.run(provider(), use)) == {None}


def test_a_stream_comes_at_the_pace_of_the_model():
    """Pieces arrive as they are written, not at the end."""

    async def use():
        http = httpx2.AsyncClient(
            transport=SimulatedTransport(provider(latency=ConstantLatency(1, 2)))
        )
        loop = asyncio.get_running_loop()
        async with openai.AsyncOpenAI(base_url="http://x/v1", api_key="k", http_client=http) as api:
            stream = await api.chat.completions.create(model="small", messages=HELLO, stream=True)
            return [loop.time() async for event in stream if event.choices[0].delta.content]

    times = simulate(use)
    assert times == [1, 3, 5, 7]
    assert {later - earlier for earlier, later in pairwise(times)} == {2}


def test_a_tool_is_called_when_the_request_demands_it(world):
    """The arguments are JSON of the tool's schema."""
    answer = ask(world, provider(responder=improvised()), tools=[WEATHER], tool_choice="required")
    (call,) = answer.choices[0].message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert call.function.name == "get_weather"
    assert isinstance(arguments["city"], str)
    assert arguments["days"] >= 1
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None


def test_a_tool_call_is_streamed(world):
    """The SDK's own accumulator puts it together."""

    async def use(connection):
        named = {"type": "function", "function": {"name": "get_weather"}}
        async with sdk(connection) as api:
            opened = api.chat.completions.stream(
                model="small", messages=HELLO, tools=[WEATHER], tool_choice=named
            )
            async with opened as stream:
                return await stream.get_final_completion()

    (call,) = world.run(provider(responder=improvised()), use).choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city", "days"}


class Trip(BaseModel):
    """What the model shall fill in."""

    city: str
    days: int
    stops: list[str]


def test_an_answer_of_a_json_schema_is_parsed(world):
    """`parse` gives an object of the class asked for."""

    async def use(connection):
        async with sdk(connection) as api:
            return await api.chat.completions.parse(
                model="small", messages=HELLO, response_format=Trip
            )

    parsed = world.run(provider(responder=improvised()), use).choices[0].message.parsed
    assert isinstance(parsed, Trip)


def test_any_json_can_be_asked_for(world):
    """`json_object` gives an object."""
    answer = ask(world, provider(responder=improvised()), response_format={"type": "json_object"})
    assert json.loads(answer.choices[0].message.content) == {}


def test_malformed_json_reaches_the_parser(world):
    """The fault that claims to be whole breaks `parse`, as in production."""

    async def use(connection):
        async with sdk(connection) as api:
            with pytest.raises(ValueError, match="JSON"):
                await api.chat.completions.parse(
                    model="small", messages=HELLO, response_format=Trip
                )

    world.run(provider(responder=improvised(), faults=[MalformedOutput()]), use)


def test_truncated_json_is_the_sdk_s_length_error(world):
    """The fault that says so is an error of its own."""

    async def use(connection):
        async with sdk(connection) as api:
            with pytest.raises(openai.LengthFinishReasonError):
                await api.chat.completions.parse(
                    model="small", messages=HELLO, response_format=Trip
                )

    world.run(provider(responder=improvised(), faults=[TruncatedOutput()]), use)


@pytest.mark.parametrize("options", [{"encoding_format": "float"}, {}], ids=["float", "packed"])
def test_embeddings_are_near_for_similar_texts(world, options):
    """Vectors of length 1, as numbers or in the packed form that the SDK asks for by itself."""
    texts = ["reset my password", "resetting the password", "what is the weather"]

    async def use(connection):
        async with sdk(connection) as api:
            return await api.embeddings.create(
                model="embedder", input=texts, dimensions=64, **options
            )

    answer = world.run(provider(), use)
    one, two, other = (list(row.embedding) for row in answer.data)
    assert len(one) == 64
    assert similarity(one, one) == pytest.approx(1)
    assert similarity(one, two) > similarity(one, other)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


def test_embeddings_fail_as_chats_do(world):
    """They pass the same faults and stand in the same books."""
    simulated = provider(faults=[ErrorRate(status_code=500, latency=0)])

    async def use(connection):
        async with sdk(connection) as api:
            with pytest.raises(openai.InternalServerError):
                await api.embeddings.create(model="embedder", input="Hello")

    world.run(simulated, use)
    assert simulated.ledger[0].status_code == 500


def test_models_are_listed(world):
    """The provider's models, by name."""

    async def use(connection):
        async with sdk(connection) as api:
            return [model.id async for model in await api.models.list()]

    models = [SimulatedModel("small"), SimulatedModel("large")]
    assert world.run(provider(models=models), use) == ["small", "large"]


@pytest.mark.parametrize(
    ("status_code", "expected", "kind"),
    [
        (400, openai.BadRequestError, ErrorKind.INVALID_REQUEST),
        (401, openai.AuthenticationError, ErrorKind.AUTHENTICATION),
        (403, openai.PermissionDeniedError, ErrorKind.AUTHENTICATION),
        (404, openai.NotFoundError, ErrorKind.INVALID_REQUEST),
        (408, openai.APIStatusError, ErrorKind.TIMEOUT),
        (409, openai.ConflictError, ErrorKind.CONFLICT),
        (422, openai.UnprocessableEntityError, ErrorKind.INVALID_REQUEST),
        (429, openai.RateLimitError, ErrorKind.RATE_LIMITED),
        (500, openai.InternalServerError, ErrorKind.SERVER),
        (502, openai.InternalServerError, ErrorKind.SERVER),
        (503, openai.InternalServerError, ErrorKind.OVERLOADED),
        (504, openai.InternalServerError, ErrorKind.TIMEOUT),
    ],
)
def test_each_status_is_the_sdk_s_error_and_our_kind(world, status_code, expected, kind):
    """What the SDK raises, the library understands."""
    fault = ErrorRate(status_code=status_code, retry_after=2, latency=0)
    error = ask(world, provider(faults=[fault]))
    assert type(error) is expected
    assert error.body["message"]
    failure = failure_of(error)
    assert (failure.kind, failure.status_code, failure.retry_after) == (kind, status_code, 2)


def test_an_overloaded_server_says_so(world):
    """A full queue is 503, with the vendor's words."""

    async def use(connection):
        async with sdk(connection) as api:
            calls = (api.chat.completions.create(model="m", messages=HELLO) for _ in range(3))
            return await asyncio.gather(*calls, return_exceptions=True)

    server = FifoServer(slots=1, max_queue=1)
    answers = world.run(provider(server=server, latency=ConstantLatency(0.1, 0)), use)
    (error,) = [each for each in answers if isinstance(each, Exception)]
    assert error.status_code == 503
    assert error.code == "server_is_overloaded"
    assert failure_of(error).kind is ErrorKind.OVERLOADED


def test_a_rate_limit_has_the_vendor_s_headers_and_words(world):
    """Limit, rest and reset, and how long to wait."""

    async def use(connection):
        async with sdk(connection) as api:
            raw = api.chat.completions.with_raw_response
            first = await raw.create(model="small", messages=HELLO)
            with pytest.raises(openai.RateLimitError) as caught:
                await raw.create(model="small", messages=HELLO)
            return first.headers, caught.value

    limits = RateLimits(requests_per_minute=1, tokens_per_minute=60_000)
    headers, error = world.run(provider(limits=limits), use)
    assert headers["x-ratelimit-limit-requests"] == "1"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-limit-tokens"] == "60000"
    assert 59 < seconds(headers["x-ratelimit-reset-requests"]) <= 60
    assert error.code == "rate_limit_exceeded"
    assert error.type == "requests"
    assert error.response.headers["retry-after"] == "60"
    assert 59 < failure_of(error).retry_after <= 60


def seconds(text):
    """`59.9s` or `1m0s` as a number."""
    minutes, _, rest = text.rstrip("s").rpartition("m")
    return 60 * int(minutes or 0) + float(rest)


def test_a_used_up_token_limit_is_named(world):
    """The type of the error says which limit it was."""
    limits = RateLimits(requests_per_minute=100, tokens_per_minute=10)
    error = ask(world, provider(limits=limits), max_tokens=500)
    assert error.type == "tokens"


def test_a_wrong_key_is_refused(world):
    """401, and the key is not repeated in full."""
    error = ask(world, provider(), app={"api_key": "right"}, client={"api_key": "sk-wrong-secret"})
    assert isinstance(error, openai.AuthenticationError)
    assert error.code == "invalid_api_key"
    assert "sk-wrong-secret" not in str(error)


def test_the_right_key_is_let_in(world):
    """With a key set, requests that bring it pass."""
    answer = ask(world, provider(), app={"api_key": "right"}, client={"api_key": "right"})
    assert answer.choices[0].message.content == "Hello, reader."


def test_an_unknown_model_is_not_found(world):
    """404, and the message names those that exist."""
    error = ask(world, provider(models=[SimulatedModel("small", FAST)]), model="huge")
    assert isinstance(error, openai.NotFoundError)
    assert error.code == "model_not_found"
    assert "small" in error.message


def test_too_long_a_prompt_is_refused(world):
    """400 with the code that clients look for."""
    model = SimulatedModel("small", FAST, context_window=100)
    messages = [{"role": "user", "content": "word " * 1000}]
    error = ask(world, provider(models=[model]), messages=messages)
    assert error.code == "context_length_exceeded"


def test_the_sdk_obeys_retry_after(world):
    """Its own retries wait as long as they are told, then succeed."""
    fault = ErrorRate(status_code=429, duration=0.01, retry_after=0.03, latency=0)
    simulated = provider(faults=[fault])
    answer = ask(world, simulated, client={"max_retries": 2})
    assert answer.choices[0].message.content == "Hello, reader."
    refused, served = simulated.ledger
    assert (refused.status_code, served.status_code) == (429, 200)
    assert served.started_at - refused.started_at >= 0.03


def test_the_sdk_s_wait_is_exact_in_virtual_time():
    """An unmodified client of the vendor's, its sleeps included, runs on the simulated clock."""
    simulated = provider(faults=[ErrorRate(status_code=429, duration=10, retry_after=7, latency=0)])

    async def use():
        http = httpx2.AsyncClient(transport=SimulatedTransport(simulated))
        async with openai.AsyncOpenAI(
            base_url="http://x/v1", api_key="k", http_client=http, max_retries=2
        ) as api:
            await api.chat.completions.create(model="small", messages=HELLO)

    simulate(use)
    assert [attempt.started_at for attempt in simulated.ledger] == [0, 7, 14]


def test_the_sdk_gives_up_after_its_retries(world):
    """Three attempts for `max_retries=2`: what a layer above multiplies."""
    simulated = provider(faults=[ErrorRate(status_code=500, retry_after=0.001, latency=0)])
    error = ask(world, simulated, client={"max_retries": 2})
    assert isinstance(error, openai.InternalServerError)
    assert len(simulated.ledger) == 3


@pytest.mark.parametrize("fault", [Hang(), None], ids=["hang", "slow"])
def test_a_time_out_ends_the_wait_and_the_work(world, fault):
    """The client's error is a time-out; the provider hears that nobody waits any more."""
    simulated = provider(latency=ConstantLatency(30, 0), faults=[fault] if fault else [])

    async def use(connection):
        async with sdk(connection, timeout=0.05) as api:
            with pytest.raises(openai.APITimeoutError) as caught:
                await api.chat.completions.create(model="small", messages=HELLO)
        await connection.until(lambda: simulated.ledger[0].abandoned)
        return caught.value

    assert failure_of(world.run(simulated, use)).kind is ErrorKind.TIMEOUT


def test_a_broken_connection_is_the_sdk_s_connection_error(world):
    """Before the answer is whole."""
    error = ask(world, provider(faults=[Disconnect()]))
    assert type(error) is openai.APIConnectionError
    assert failure_of(error).kind is ErrorKind.CONNECTION


def test_a_stream_that_breaks_is_the_sdk_s_connection_error(world):
    """After the first pieces."""

    async def use(connection):
        pieces = []
        async with sdk(connection) as api:
            stream = await api.chat.completions.create(model="small", messages=HELLO, stream=True)
            try:
                async for event in stream:
                    pieces += [event.choices[0].delta.content]
            except openai.OpenAIError as error:
                return pieces, error

    pieces, error = world.run(provider(faults=[Disconnect(after=0.5)]), use)
    assert "".join(pieces) == "Hello, "
    assert type(error) is openai.APIConnectionError
    assert failure_of(error).kind is ErrorKind.CONNECTION


def test_an_error_in_mid_stream_is_understood(world):
    """It has no status, since the answer had begun with 200; its code tells."""

    async def use(connection):
        async with sdk(connection) as api:
            stream = await api.chat.completions.create(model="small", messages=HELLO, stream=True)
            with pytest.raises(openai.APIError) as caught:
                async for _ in stream:
                    pass
        return caught.value

    error = world.run(provider(faults=[Disconnect(status_code=503)]), use)
    assert not isinstance(error, openai.APIConnectionError)
    assert failure_of(error).kind is ErrorKind.OVERLOADED


def test_closing_a_stream_stops_the_provider(world):
    """A server that notices drops the rest, and bills what was written."""
    server = FifoServer(slots=1, abandoned="drop")
    simulated = provider(
        server=server, latency=ConstantLatency(0.001, 30), responder=fixed("word " * 9)
    )

    async def use(connection):
        async with sdk(connection) as api:
            stream = await api.chat.completions.create(model="small", messages=HELLO, stream=True)
            await anext(stream)
            await anext(stream)
            await stream.close()
            await connection.until(lambda: not server.in_flight)

    world.run(simulated, use)
    assert simulated.ledger[0].abandoned
    assert simulated.ledger[0].usage.output_tokens < 12


def test_one_server_answers_many_at_once(world):
    """A hundred requests in flight, each with its own answer."""

    async def use(connection):
        async with sdk(connection) as api:
            calls = (api.chat.completions.create(model="m", messages=HELLO) for _ in range(100))
            return await asyncio.gather(*calls)

    replies = scripted(*(str(number) for number in range(100)))
    answers = world.run(provider(responder=replies), use)
    assert {answer.choices[0].message.content for answer in answers} == set(map(str, range(100)))
