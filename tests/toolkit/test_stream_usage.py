"""Streams: recorded once however they end, exactly where they told their usage, and marked where not."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_patterns.chat import (
    ChatChunk,
    ChatRequest,
    ChatStream,
    Message,
    Tool,
    ToolCallDelta,
    Usage,
)
from llm_patterns.errors import ConnectionFailed
from llm_patterns.layers import LayeredModel
from llm_patterns.simulation import (
    ConstantLatency,
    Disconnect,
    FifoServer,
    ProcessorSharingServer,
    SimulatedProvider,
    fixed,
    simulate,
)
from llm_patterns.toolkit import CostPolicy, CostTracker, ModelPrice, StreamUsage, estimated_tokens

QUESTION = "What is left of a stream that nobody reads to its end?"
REQUEST = ChatRequest(model="house", messages=(Message.user(QUESTION),))
ANSWER = "four" * 20  # tokens
ASKED = estimated_tokens(QUESTION)


def tracker(**options: Any) -> CostTracker:
    """A tracker that knows one model, at a dollar a token."""
    price = ModelPrice(
        input_usd_per_mtok=Decimal(1_000_000), output_usd_per_mtok=Decimal(1_000_000)
    )
    return CostTracker(CostPolicy(prices={"house": price}), **options)


def streamed(
    read: Callable[[ChatStream], Awaitable[object]],
    costs: CostTracker,
    *,
    faults: Any = (),
    server: Any = None,
) -> SimulatedProvider:
    """Let *read* do with a stream of twenty tokens, one each second, what it will."""
    provider = SimulatedProvider(
        server=server or ProcessorSharingServer(10),
        latency=ConstantLatency(time_to_first_token=1, seconds_per_token=1),
        responder=fixed(ANSWER),
        tokens_per_chunk=1,
        faults=faults,
    )

    async def main() -> None:
        with costs.labels(tenant="acme"):
            stream = await LayeredModel(provider, costs.layer()).stream(REQUEST)
        with costs.labels(tenant="another"):
            await read(stream)
        del stream
        gc.collect()
        await asyncio.sleep(100)

    simulate(main)
    return provider


async def to_the_end(stream: ChatStream) -> None:
    """Read it out."""
    assert isinstance(stream, ChatStream)
    assert "".join([chunk.text async for chunk in stream]) == ANSWER


async def to_the_last_chunk(stream: ChatStream) -> None:
    """Read what there is and close, without waiting for the end to be said."""
    async for chunk in stream:
        if chunk.finish_reason:
            break
    await stream.aclose()


async def four_and_close(stream: ChatStream) -> None:
    """Read four tokens, and hang up, twice."""
    for _ in range(4):
        await anext(stream)
    await stream.aclose()
    await stream.aclose()


async def four_and_leave(stream: ChatStream) -> None:
    """Read four tokens, and forget it."""
    for _ in range(4):
        await anext(stream)


async def four_and_time_out(stream: ChatStream) -> None:
    """Read four tokens, and have no more patience."""
    with suppress(TimeoutError):
        async with asyncio.timeout(3.5):
            await to_the_end(stream)


async def nothing(stream: ChatStream) -> None:
    """Do not even look."""


@pytest.mark.parametrize(
    "read", [to_the_end, to_the_last_chunk], ids=lambda read: str(read.__name__)
)
def test_a_stream_that_is_read_out_is_recorded_as_it_told(read: Any) -> None:
    """Exactly, under the labels of its opening, as the provider has it in its own books."""
    costs = tracker()
    provider = streamed(read, costs)
    statistics = costs.statistics()
    assert statistics.total.usage == provider.ledger[0].usage
    assert (statistics.total.calls, statistics.total.estimated) == (1, 0)
    assert list(statistics.by("tenant")) == ["acme"]
    assert list(statistics.by("outcome")) == ["answered"]


@pytest.mark.parametrize(
    ("read", "written"),
    [(four_and_close, 4), (four_and_leave, 4), (four_and_time_out, 4), (nothing, 0)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_stream_that_is_cut_off_is_recorded_as_far_as_it_came(read: Any, written: int) -> None:
    """Once, marked as estimated; the question from the request, the answer from what was read (invariant 2)."""
    costs = tracker()
    provider = streamed(read, costs)
    statistics = costs.statistics()
    assert statistics.total.usage == Usage(input_tokens=ASKED, output_tokens=written)
    assert (statistics.total.calls, statistics.total.estimated) == (1, 1)
    assert list(statistics.by("outcome")) == ["cut_off"]
    if read in (four_and_close, four_and_time_out):  # the others never told the provider
        assert statistics.total.usage == provider.ledger[0].usage


def test_a_stream_that_breaks_is_recorded_as_far_as_it_came() -> None:
    """And the error reaches the reader."""
    costs = tracker()

    async def read(stream: ChatStream) -> None:
        with pytest.raises(ConnectionFailed):
            await to_the_end(stream)

    streamed(read, costs, faults=[Disconnect(after=0.5)])
    total = costs.statistics().total
    assert (total.calls, total.estimated) == (1, 1)
    assert 8 <= total.usage.output_tokens <= 10


def test_what_a_model_writes_after_the_reader_has_left_is_not_in_the_estimate() -> None:
    """A server that does not notice bills the whole: the estimate is too low, and says so by its mark."""
    costs = tracker()
    provider = streamed(four_and_close, costs, server=FifoServer(1))
    billed = provider.ledger[0].usage
    assert billed is not None
    assert billed.output_tokens == 20
    assert costs.statistics().total.usage.output_tokens == 4


def test_a_stream_is_priced_as_what_it_says_it_is() -> None:
    """Its model and its tier come before those that were asked for; a tier that is given, before its own."""
    price = ModelPrice(
        input_usd_per_mtok=Decimal(8), output_usd_per_mtok=Decimal(8), batch_ratio=Decimal("0.5")
    )
    costs = CostTracker(CostPolicy(prices={"real": price}))

    async def chunks(tier: str) -> AsyncIterator[dict[str, Any]]:
        usage = {"prompt_tokens": 1_000_000}
        yield {"model": "real", "service_tier": tier, "choices": [], "usage": usage}

    async def main() -> None:
        for told, tier in (("default", None), ("batch", None), ("default", "batch")):
            stream = costs.record_stream(chunks(told), model="asked for", tier=tier)
            assert [each async for each in stream]

    simulate(main)
    assert costs.statistics().by("model")["real"].usd == 8 + 4 + 4


def test_tokens_are_counted_by_the_callers_tokenizer() -> None:
    """Where the rule of thumb does not do."""
    costs = tracker(count_tokens=len)
    streamed(four_and_close, costs)
    assert costs.statistics().total.usage == Usage(input_tokens=len(QUESTION), output_tokens=16)


def test_a_stream_that_outlives_its_loop_is_counted_where_it_is_dropped() -> None:
    """Nobody is left to schedule it with."""
    costs = tracker()

    async def chunks() -> AsyncIterator[ChatChunk]:
        yield ChatChunk(text="word")

    async def main() -> AsyncIterator[ChatChunk]:
        return costs.record_stream(chunks(), model="house")

    stream = simulate(main)
    assert costs.statistics().total.calls == 0
    del stream
    gc.collect()
    assert costs.statistics().total.calls == 1


def test_the_clients_own_attributes_are_reached_through_the_recorded_stream() -> None:
    """So that code that looks at the response's headers goes on working."""
    costs = tracker()

    async def read(stream: Any) -> None:
        assert stream.id.startswith("simulated")
        with pytest.raises(AttributeError):
            stream.no_such_thing  # noqa: B018
        async with stream:
            pass

    streamed(read, costs)
    assert costs.statistics().total.calls == 1


OPENAI = [
    {"model": "gpt", "service_tier": "flex", "choices": [{"delta": {"content": "fourfour"}}], "usage": None},
    {"model": "gpt", "choices": [{"delta": {"tool_calls": [{"function": {"name": "find", "arguments": "{ }."}}]}}]},
    {"model": "gpt", "choices": [{"delta": {}, "finish_reason": "stop"}]},
    {"model": "gpt", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 7}},
]  # fmt: skip
ANTHROPIC = [
    {"type": "message_start", "message": {"model": "claude", "usage": {
        "input_tokens": 9, "cache_creation_input_tokens": 6, "output_tokens": 1,
        "cache_creation": {"ephemeral_1h_input_tokens": 5}, "service_tier": "batch"}}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "fourfour"}},
    {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "findfour"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"},
     "usage": {"cache_creation_input_tokens": 7, "output_tokens": 7}},
    {"type": "message_stop"},
]  # fmt: skip
RESPONSES = [
    {"type": "response.created", "response": {"model": "gpt", "usage": None}},
    {"type": "response.output_text.delta", "delta": "fourfour"},
    {"type": "response.function_call_arguments.delta", "delta": "findfour"},
    {"type": "response.completed", "response": {"model": "gpt", "usage": {
        "input_tokens": 9, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 7}}},
]  # fmt: skip
CHUNKS = [
    ChatChunk(text="fourfour"),
    ChatChunk(tool_calls=(ToolCallDelta(index=0, name="find", arguments="{ }."),)),
    ChatChunk(finish_reason="stop", usage=Usage(input_tokens=9, output_tokens=7)),
]
KEPT = Usage(input_tokens=9, cache_write_tokens=2, cache_write_1h_tokens=5, output_tokens=7)
STREAMS = {
    "openai": (OPENAI, Usage(input_tokens=9, output_tokens=7)),
    "anthropic": (ANTHROPIC, KEPT),
    "responses": (RESPONSES, Usage(input_tokens=9, output_tokens=7)),
    "ours": (CHUNKS, Usage(input_tokens=9, output_tokens=7)),
}


def seen(chunks: list[Any]) -> StreamUsage:
    """What is known after these."""
    stream = StreamUsage()
    for chunk in chunks:
        stream.add(chunk)
    return stream


@pytest.mark.parametrize("client", STREAMS)
def test_every_clients_stream_tells_its_usage_at_its_end(client: str) -> None:
    """In running sums, in the last chunk, or in an answer that an event holds."""
    chunks, usage = STREAMS[client]
    assert seen(chunks).measured() == (usage, False)
    assert seen(chunks).whole


@pytest.mark.parametrize("client", STREAMS)
def test_every_clients_stream_is_estimated_by_what_it_wrote(client: str) -> None:
    """Text and calls of tools: sixteen characters were written, which is four tokens."""
    chunks, _ = STREAMS[client]
    cut = seen([each for each in chunks if not isinstance(each, dict) or "usage" not in str(each)])
    usage, estimated = seen(chunks[:-1] if client == "ours" else chunks[:3]).measured("four" * 3)
    assert (usage.output_tokens, estimated) == (4, True)
    assert cut.measured("four" * 3)[0].input_tokens == (9 if client == "ours" else 3)


def test_what_the_start_told_of_the_input_is_not_estimated() -> None:
    """Anthropic's first event has it, so a cut costs only the knowledge of the output."""
    usage, estimated = seen(ANTHROPIC[:3]).measured("ignored")
    assert usage == Usage(
        input_tokens=9, cache_write_tokens=1, cache_write_1h_tokens=5, output_tokens=4
    )
    assert estimated


def test_a_running_sum_in_mid_stream_is_a_lower_bound() -> None:
    """Some servers send the usage so far with every chunk: it counts, but not as the last word."""
    usage = {"prompt_tokens": 9, "completion_tokens": 3}
    running = {"choices": [{"delta": {"content": "four"}}], "usage": usage}
    assert seen([running]).measured() == (Usage(input_tokens=9, output_tokens=3), True)
    ended = seen([running])
    ended.end()
    assert ended.measured() == (Usage(input_tokens=9, output_tokens=3), False)
    assert (seen([running]).whole, ended.whole) == (False, True)


def test_a_stream_that_never_tells_is_estimated_at_its_end_too() -> None:
    """OpenAI's without `include_usage`; it is whole all the same."""
    stream = seen(OPENAI[:3])
    stream.end()
    assert stream.measured("four") == (Usage(input_tokens=1, output_tokens=4), True)
    assert (stream.whole, stream.model, stream.tier) == (True, "gpt", "flex")


def test_the_tier_of_a_stream_is_taken_where_it_is_told() -> None:
    """With Anthropic's first event."""
    assert (seen(ANTHROPIC).model, seen(ANTHROPIC).tier) == ("claude", "batch")


def test_only_the_text_of_a_request_is_counted() -> None:
    """However deep; pictures and names are none."""
    request = ChatRequest(
        model="a-long-name-that-is-no-text",
        messages=(Message.system("four"), Message.user("fourfour")),
        tools=(Tool(name="tool", description="four"),),
    )
    assert StreamUsage().measured((request, {}))[0].input_tokens == 5
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9_999}}
    content = [{"type": "text", "text": "four"}, picture]
    asked = ({"messages": [{"role": "user", "content": content}], "instructions": "four"},)
    assert StreamUsage().measured(asked)[0].input_tokens == 2


@given(cut=st.integers(0, 5), client=st.sampled_from(sorted(STREAMS)))
def test_an_estimate_is_marked_and_never_below_what_was_told(cut: int, client: str) -> None:
    """Wherever the stream was cut (invariant 1)."""
    chunks, whole = STREAMS[client]
    usage, estimated = seen(chunks[:cut]).measured()
    told = int(client == "anthropic" and cut > 0)
    assert estimated == (usage != whole)
    assert told <= usage.output_tokens <= whole.output_tokens
