"""The simulated provider: what it answers, refuses, loses and bills."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from decimal import Decimal
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_patterns.chat import ChatRequest, Message, ToolCall, Usage
from llm_patterns.errors import (
    ConfigurationError,
    ConnectionFailed,
    ErrorKind,
    InvalidRequest,
    Overloaded,
    ProviderError,
    RateLimited,
    ServerError,
)
from llm_patterns.simulation import (
    BrownOut,
    CapacityLoss,
    ConstantLatency,
    Disconnect,
    ErrorRate,
    Fault,
    FifoServer,
    Hang,
    MalformedOutput,
    Outage,
    RateLimits,
    Reply,
    SimulatedModel,
    SimulatedProvider,
    TruncatedOutput,
    fixed,
    open_loop,
    poisson,
    simulate,
)
from llm_patterns.simulation.limits import Gate

REQUEST = ChatRequest(model="small", messages=(Message.user("Hello there"),))
USAGE = Usage(input_tokens=10, output_tokens=5)
LATENCY = ConstantLatency(time_to_first_token=1.0, seconds_per_token=0.5)
TEXT = "abcdefghij"


def provider(*faults: Fault, **options: object) -> SimulatedProvider:
    """One that takes 3 s for an answer of ten letters and five tokens."""
    options.setdefault("latency", LATENCY)
    options.setdefault("responder", fixed(TEXT, usage=USAGE))
    return SimulatedProvider(faults=faults, **options)  # type: ignore[arg-type]


def after(second: float, ask: Callable[[], Awaitable[object]]) -> object:
    """The result or the error of a call made at that second, and when it came."""

    async def main() -> tuple[object, float]:
        await asyncio.sleep(second)
        try:
            result: object = await ask()
        except ProviderError as error:
            result = error
        return result, asyncio.get_running_loop().time()

    return simulate(main)


def test_an_answer_takes_its_time_and_is_in_the_books() -> None:
    """First token after 1 s, four more each 0.5 s."""
    p = provider()
    answer, at = after(2, lambda: p.client("me").complete(REQUEST))  # type: ignore[misc]
    assert (answer.text, answer.usage, answer.finish_reason, at) == (TEXT, USAGE, "stop", 5.0)
    (row,) = p.ledger
    assert (row.caller, row.model, row.started_at, row.latency) == ("me", "small", 2.0, 3.0)
    assert (row.status_code, row.error, row.wasted) == (200, None, False)
    assert repr(row) == "<Attempt me small at 2 s: 200>"


def test_tokens_are_counted_where_nobody_says_how_many() -> None:
    """A quarter of the characters, of the messages and of what is written."""
    p = SimulatedProvider(responder=fixed("12345678"))
    answer, _ = after(0, lambda: p.complete(REQUEST))  # type: ignore[misc]
    assert answer.usage == Usage(input_tokens=3, output_tokens=2)


@pytest.mark.parametrize(
    ("fault", "kind", "status"),
    [
        (Outage(start=10, duration=5, retry_after=4), ErrorKind.OVERLOADED, 503),
        (ErrorRate(start=10, duration=5), ErrorKind.SERVER, 500),
        (
            ErrorRate(start=10, duration=5, status_code=429, retry_after=4),
            ErrorKind.RATE_LIMITED,
            429,
        ),
    ],
)
def test_an_outage_refuses_while_it_lasts(fault: ErrorRate, kind: ErrorKind, status: int) -> None:
    """Quickly, with the status and the wait that it was given; before and after all is well."""
    for second, refused in ((9, False), (10, True), (14.9, True), (15, False)):
        p = provider(fault)
        result, at = after(second, lambda p=p: p.complete(REQUEST))  # type: ignore[misc]
        assert isinstance(result, ProviderError) is refused
        if isinstance(result, ProviderError):
            assert (result.kind, result.status_code, result.retry_after) == (
                kind,
                status,
                fault.retry_after,
            )
            assert at == pytest.approx(second + 0.05)
            assert (p.ledger[0].error, p.ledger[0].usage) == (kind, None)


def test_an_error_rate_strikes_its_share() -> None:
    """On the provider's own chance: another seed, other victims; the clients' chance changes nothing."""

    def victims(seed: int, run: int = 0) -> list[bool]:
        p = provider(ErrorRate(probability=0.3), seed=seed, server=FifoServer(1000))

        async def main() -> None:
            await asyncio.gather(
                *(p.complete(REQUEST) for _ in range(1000)), return_exceptions=True
            )

        simulate(main, seed=run)
        return [row.error is not None for row in p.ledger]

    assert sum(victims(1)) == pytest.approx(300, rel=0.15)
    assert victims(1) == victims(1, run=5) != victims(2)


def test_lost_capacity_makes_a_queue_that_drains() -> None:
    """Requests of the gap start when it is over."""
    p = provider(CapacityLoss(start=0, duration=10, remaining=0))
    _, at = after(1, lambda: p.complete(REQUEST))  # type: ignore[misc]
    assert at == 13.0


def test_a_brown_out_is_slow() -> None:
    """Everything works, several times slower."""
    p = provider(BrownOut(start=0, duration=10, slowdown=4))
    _, at = after(1, lambda: p.complete(REQUEST))  # type: ignore[misc]
    assert at == 13.0


def test_a_hang_ends_with_the_callers_patience() -> None:
    """No answer, no capacity used, no bill."""
    p = provider(Hang())

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await p.complete(REQUEST)

    simulate(main)
    (row,) = p.ledger
    assert (row.abandoned, row.finished_at, row.usage) == (True, 5.0, None)


@pytest.mark.parametrize(
    ("abandoned", "wasted", "written"), [("finish", True, 5), ("drop", False, 3)]
)
def test_who_left_is_billed_for_what_was_written(
    abandoned: str, wasted: bool, written: int
) -> None:
    """A server that does not notice writes it all."""
    p = provider(server=FifoServer(1, abandoned=abandoned))  # type: ignore[arg-type]

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.2):
                await p.complete(REQUEST)
        await asyncio.sleep(10)

    simulate(main)
    (row,) = p.ledger
    assert (row.abandoned, row.wasted) == (True, wasted)
    assert row.usage == Usage(input_tokens=10, output_tokens=written)
    assert row.finished_at == (3.0 if wasted else 2.2)


def test_a_full_queue_is_overload() -> None:
    """The request that does not fit gets a 503."""
    p = provider(server=FifoServer(1, max_queue=0))

    async def main() -> list[object]:
        calls = [p.complete(REQUEST) for _ in range(2)]
        return await asyncio.gather(*calls, return_exceptions=True)

    _, refused = simulate(main)
    assert isinstance(refused, Overloaded)
    assert refused.status_code == 503


def test_rate_limits_hold_over_an_hour_and_tell_the_true_wait() -> None:
    """At twice the quota, the quota is served; who waits as told is served next."""
    p = provider(
        limits=RateLimits(requests_per_minute=60, failures_count=False), server=FifoServer(100)
    )
    waits: list[float] = []

    async def ask(number: int) -> None:
        try:
            await p.complete(REQUEST)
        except RateLimited as error:
            waits.append(error.retry_after or 0.0)

    async def main() -> None:
        await open_loop(ask, poisson(2, duration=3600, rng=Random(3)))

    simulate(main)
    served = sum(row.status_code == 200 for row in p.ledger)
    assert 3600 <= served <= 3600 + 60
    assert waits
    assert all(0 < wait <= 1 for wait in waits)

    async def obedient() -> str:
        q = provider(limits=RateLimits(requests_per_minute=1))
        await q.complete(REQUEST)
        with pytest.raises(RateLimited) as caught:
            await q.complete(REQUEST)
        await asyncio.sleep(caught.value.retry_after or 0.0)
        return (await q.complete(REQUEST)).text

    assert simulate(obedient) == TEXT


@given(
    st.integers(1, 100_000),
    st.integers(1, 10_000_000),
    st.floats(0, 3e7),
    st.lists(st.tuples(st.floats(0, 90), st.floats(0, 1)), max_size=20),
)
@example(1, 1, 8_388_551.7, [(0.0, 0.0), (0.0, 0.0)])  # there the clock can't tell all of a minute
def test_who_waits_as_told_is_admitted(
    requests: int, tokens: int, start: float, asks: list[tuple[float, float]]
) -> None:
    """At any rate and after any time, a refused request that comes back alone is taken."""
    gate = Gate(RateLimits(requests_per_minute=requests, tokens_per_minute=tokens))
    now = start
    for pause, share in asks:
        now += pause
        size = int(share * tokens)
        if wait := gate.admit(size, now):
            now += wait
            assert gate.admit(size, now) == 0


def test_a_request_larger_than_the_limit_is_not_told_to_wait() -> None:
    """No wait would do: the message says what would."""
    p = provider(limits=RateLimits(tokens_per_minute=100))
    request = REQUEST.model_copy(update={"max_tokens": 200})
    error, _ = after(0, lambda: p.complete(request))  # type: ignore[misc]
    assert isinstance(error, RateLimited)
    assert error.retry_after is None
    assert "reduce the input or max_tokens" in str(error)


@pytest.mark.parametrize(("count", "left"), [(True, 2), (False, 6)])
def test_refused_requests_count_where_the_provider_counts_them(count: bool, left: int) -> None:
    """Four refusals for want of tokens take four requests, or none."""
    limits = RateLimits(requests_per_minute=7, tokens_per_minute=15, failures_count=count)
    gate = Gate(limits)
    assert [gate.admit(15, 0.0) > 0 for _ in range(5)] == [False, True, True, True, True]
    assert gate.state(0.0).remaining_requests == left


def test_tokens_are_limited_by_what_may_be_written() -> None:
    """A request reserves its input and `max_tokens`, and the state says what is left."""
    p = provider(limits=RateLimits(tokens_per_minute=1000, requests_per_minute=100))

    async def main() -> None:
        await p.complete(REQUEST.model_copy(update={"max_tokens": 890}))
        state = p.rate_limit_state()
        assert (state.limit_tokens, state.limit_requests) == (1000, 100)
        assert state.remaining_tokens == 100 + 1000 * 3 // 60
        assert state.reset_tokens == pytest.approx(54 - 3)
        with pytest.raises(RateLimited):
            await p.complete(REQUEST.model_copy(update={"max_tokens": 890}))

    simulate(main)


async def chunks(
    p: SimulatedProvider, request: ChatRequest = REQUEST
) -> list[tuple[float, object]]:
    """When each piece of a stream came."""
    loop_time = asyncio.get_running_loop().time
    stream = await p.stream(request)
    return [(loop_time(), chunk) async for chunk in stream]


def test_a_stream_comes_token_by_token() -> None:
    """Its pieces are the whole text; usage comes with the last."""
    p = provider()
    came = simulate(chunks(p))
    texts = [chunk.text for _, chunk in came]  # type: ignore[attr-defined]
    assert "".join(texts) == TEXT
    assert [at for at, _ in came] == [1.0, 1.5, 2.0, 2.5, 3.0, 3.0]
    last = came[-1][1]
    assert (last.finish_reason, last.usage) == ("stop", USAGE)  # type: ignore[attr-defined]
    assert (p.ledger[0].first_token_at, p.ledger[0].latency) == (1.0, 3.0)


def test_several_tokens_can_come_at_once() -> None:
    """Fewer, larger pieces."""
    came = simulate(chunks(provider(tokens_per_chunk=2)))
    assert [at for at, _ in came] == [1.0, 2.0, 3.0, 3.0]


def test_a_stream_that_breaks_says_so_and_is_billed_so_far() -> None:
    """Half of it arrives."""
    p = provider(Disconnect(after=0.5))

    async def main() -> str:
        stream, text = await p.stream(REQUEST), ""
        while True:
            try:
                text += (await anext(stream)).text
            except ConnectionFailed:
                return text

    text = simulate(main)
    assert TEXT.startswith(text)
    assert 0 < len(text) < len(TEXT)
    (row,) = p.ledger
    assert (row.error, row.status_code) == (ErrorKind.CONNECTION, None)
    assert row.usage is not None
    assert 0 < row.usage.output_tokens < 5


def test_a_stream_that_breaks_before_its_first_chunk_never_opens() -> None:
    """So that a guard on the opening sees it."""
    p = provider(Disconnect(after=0))
    error, at = after(0, lambda: p.stream(REQUEST))  # type: ignore[misc]
    assert isinstance(error, ConnectionFailed)
    assert at == LATENCY.time_to_first_token


def test_an_error_in_mid_answer_has_its_status() -> None:
    """As Anthropic's 529 that comes after some of the text."""
    p = provider(Disconnect(after=0.5, status_code=529))
    error, _ = after(0, lambda: p.complete(REQUEST))  # type: ignore[misc]
    assert isinstance(error, Overloaded)
    assert (p.ledger[0].status_code, p.ledger[0].error) == (529, ErrorKind.OVERLOADED)


def test_a_whole_answer_can_break_too() -> None:
    """The caller sees a broken connection when that share of the work is done."""
    result, at = after(0, lambda: provider(Disconnect(after=0.5)).complete(REQUEST))  # type: ignore[misc]
    assert isinstance(result, ConnectionFailed)
    assert at == 1.5


def test_a_closed_stream_frees_its_slot() -> None:
    """And closing twice is closing once."""
    p = provider(server=FifoServer(1, abandoned="drop"))

    async def main() -> float:
        stream = await p.stream(REQUEST)
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await p.complete(REQUEST)
        return asyncio.get_running_loop().time()

    assert simulate(main) == 4.0
    assert p.ledger[0].abandoned


def test_who_breaks_off_in_the_middle_is_billed_for_what_was_written() -> None:
    """Leaving the loop is not enough, since nothing tells the provider: `aclose` is."""
    p = provider(server=FifoServer(1, abandoned="drop"))

    async def main() -> str:
        async with aclosing(await p.stream(REQUEST)) as stream:
            async for chunk in stream:
                if asyncio.get_running_loop().time() >= 2:
                    return chunk.text
        raise AssertionError

    assert simulate(main) == TEXT[4:6]
    (row,) = p.ledger
    assert (row.abandoned, row.finished_at) == (True, 2.0)
    assert row.usage == Usage(input_tokens=10, output_tokens=3)


def test_cancelling_a_reader_abandons_the_stream() -> None:
    """In the opening, and between chunks."""
    p = provider(server=FifoServer(2, abandoned="drop"))

    async def main() -> None:
        for patience in (0.5, 1.2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(chunks(p), patience)

    simulate(main)
    assert [row.abandoned for row in p.ledger] == [True, True]


def test_max_tokens_cuts_the_answer_and_says_so() -> None:
    """As the vendors do it."""
    request = REQUEST.model_copy(update={"max_tokens": 2})
    answer, _ = after(0, lambda: provider().complete(request))  # type: ignore[misc]
    assert (answer.finish_reason, answer.usage.output_tokens) == ("length", 2)
    assert answer.text == TEXT[:4]


@pytest.mark.parametrize(
    ("fault", "reason"), [(TruncatedOutput, "length"), (MalformedOutput, "stop")]
)
def test_output_can_be_cut(fault: type[TruncatedOutput], reason: str) -> None:
    """Honestly or not."""
    answer, _ = after(0, lambda: provider(fault(keep=0.4)).complete(REQUEST))  # type: ignore[misc]
    assert (answer.text, answer.finish_reason) == (TEXT[:4], reason)


def test_max_tokens_is_met_to_the_token() -> None:
    """Whatever the two lengths are: rounding takes none away."""
    for written in range(2, 60):
        p = provider(responder=fixed("x" * written, usage=Usage(output_tokens=written)))
        for most in range(1, written):
            request = REQUEST.model_copy(update={"max_tokens": most})
            answer, _ = after(0, lambda p=p, request=request: p.complete(request))  # type: ignore[misc]
            assert (answer.usage.output_tokens, len(answer.text)) == (most, most)


def test_a_malformed_tool_call_does_not_parse() -> None:
    """The arguments end early too."""
    reply = Reply(tool_calls=(ToolCall(id="1", name="find", arguments='{"city": "Oslo"}'),))
    p = provider(MalformedOutput(keep=0.5), responder=lambda request, rng: reply)
    answer, _ = after(0, lambda: p.complete(REQUEST))  # type: ignore[misc]
    assert answer.tool_calls[0].arguments == '{"city":'
    assert answer.finish_reason == "tool_calls"


def test_tool_calls_are_answers_too() -> None:
    """Whole, and streamed."""
    call = ToolCall(id="1", name="look_up", arguments='{"a":1}')
    p = provider(responder=lambda request, rng: Reply(tool_calls=(call,)))
    answer, _ = after(0, lambda: p.complete(REQUEST))  # type: ignore[misc]
    assert (answer.tool_calls, answer.finish_reason) == ((call,), "tool_calls")
    deltas = [delta for _, chunk in simulate(chunks(p)) for delta in chunk.tool_calls]  # type: ignore[attr-defined]
    assert "".join(delta.arguments for delta in deltas) == call.arguments
    assert (deltas[0].id, deltas[0].name) == ("1", "look_up")


def test_unknown_models_and_long_prompts_are_refused() -> None:
    """With the status and the code of the real ones."""
    model = SimulatedModel("small", context_window=12)
    p = provider(models=[model])
    result, _ = after(0, lambda: p.complete(REQUEST.model_copy(update={"model": "large"})))  # type: ignore[misc]
    assert isinstance(result, InvalidRequest)
    assert (result.status_code, result.code) == (404, "model_not_found")
    result, _ = after(0, lambda: p.complete(REQUEST.model_copy(update={"max_tokens": 10})))  # type: ignore[misc]
    assert isinstance(result, InvalidRequest)
    assert result.code == "context_length_exceeded"


def test_an_embedding_is_an_attempt_like_any_other() -> None:
    """A vector for each text, of the same letters the same; read, not written, and refused as all are."""
    p = provider(Outage(start=10))
    texts = ["reset my password", "weather", "reset my password"]
    (vectors, usage), at = after(0, lambda: p.embed("small", texts, dimensions=8, caller="me"))  # type: ignore[misc]
    assert [len(vector) for vector in vectors] == [8, 8, 8]
    assert vectors[0] == vectors[2] != vectors[1]
    assert (usage, at) == (Usage(input_tokens=5 + 2 + 5), LATENCY.time_to_first_token)
    assert (p.ledger[0].caller, p.ledger[0].usage) == ("me", usage)
    refused, _ = after(10, lambda: p.embed("small", texts))
    assert isinstance(refused, Overloaded)


def test_the_bill_is_exact() -> None:
    """Each billed attempt at its own price."""
    p = provider()

    async def main() -> None:
        await asyncio.gather(*(p.complete(REQUEST) for _ in range(3)))

    simulate(main)
    assert p.ledger.cost_usd(lambda usage, model: Decimal(usage.output_tokens) / 10) == Decimal(
        "1.5"
    )
    assert p.ledger.started_per_second(until=2) == [3, 0]
    assert {row["status_code"] for row in p.ledger.rows()} == {200}
    assert len(p.ledger[:2]) == 2


def test_a_script_is_followed_and_its_last_word_repeated() -> None:
    """And an empty one is refused."""
    from llm_patterns.simulation import scripted  # noqa: PLC0415

    p = provider(responder=scripted("one", Reply("two")))

    async def main() -> list[str]:
        return [(await p.complete(REQUEST)).text for _ in range(3)]

    assert simulate(main) == ["one", "two", "two"]
    with pytest.raises(ConfigurationError, match="at least one"):
        scripted()


def test_a_chunk_has_at_least_one_token() -> None:
    """Said when the provider is made."""
    with pytest.raises(ConfigurationError, match="tokens_per_chunk is 0"):
        provider(tokens_per_chunk=0)


def test_on_a_real_loop_faults_are_timed_from_the_first_request() -> None:
    """There is no beginning of the simulation to count from."""

    async def main() -> None:
        p = SimulatedProvider(
            latency=ConstantLatency(0, 0), faults=[ErrorRate(duration=0.01, latency=0)]
        )
        with pytest.raises(ServerError):
            await p.complete(REQUEST)

    asyncio.run(main())
