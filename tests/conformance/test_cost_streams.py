"""The vendors' own streams behind a cost tracker: read as before, and recorded once."""

from decimal import Decimal

import anthropic
import openai
import pytest

from llm_patterns.chat import Usage
from llm_patterns.simulation import ConstantLatency, SimulatedProvider, fixed
from llm_patterns.toolkit import CostPolicy, CostTracker, ModelPrice

HELLO = [{"role": "user", "content": "Hello, are you there?"}]
USAGE = Usage(
    input_tokens=20, cached_input_tokens=80, cache_write_tokens=9, output_tokens=40
)  # of the answer below
ANSWER = "word" * 40


def tracker():
    """A tracker that knows the model."""
    price = ModelPrice(input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(2))
    return CostTracker(CostPolicy(prices={"small": price}))


def openai_call(connection, costs, **options):
    """The SDK's method behind the layer, and what to ask of it."""
    client = openai.AsyncOpenAI(
        base_url=f"{connection.address}/v1", api_key="key", http_client=connection.httpx2()
    )
    call = costs.layer(labels={"tenant": "acme"})(client.chat.completions.create)
    return client, lambda: call(model="small", messages=HELLO, stream=True, **options)


def anthropic_call(connection, costs):
    """The same of the other vendor."""
    client = anthropic.AsyncAnthropic(
        base_url=connection.address, api_key="key", http_client=connection.httpx2()
    )
    call = costs.layer(labels={"tenant": "acme"})(client.messages.create)
    return client, lambda: call(model="small", messages=HELLO, max_tokens=99, stream=True)


def openai_call_with_usage(connection, costs):
    """As one should ask."""
    return openai_call(connection, costs, stream_options={"include_usage": True})


def recorded(world, make_call, *, chunks=None):
    """Read so many chunks of a stream, or all, and return what was recorded."""
    costs = tracker()
    provider = SimulatedProvider(
        latency=ConstantLatency(0.001, 0.0001), responder=fixed(ANSWER, usage=USAGE)
    )

    async def use(connection):
        client, call = make_call(connection, costs)
        async with client:
            stream = await call()
            read = 0
            async with stream:
                async for _ in stream:
                    read += 1
                    if read == chunks:
                        break
            return stream.response.status_code

    assert world.run(provider, use) == 200
    return costs.statistics()


@pytest.mark.parametrize("make_call", [openai_call_with_usage, anthropic_call])
def test_a_stream_that_is_read_out_is_recorded_exactly(world, make_call):
    """Plain, cached, written and answered tokens, as the provider billed them."""
    statistics = recorded(world, make_call)
    assert statistics.total.usage == USAGE
    assert (statistics.total.calls, statistics.total.estimated) == (1, 0)
    assert list(statistics.by("tenant")) == ["acme"]
    assert list(statistics.by("outcome")) == ["answered"]


def test_a_stream_that_does_not_tell_its_usage_is_estimated(world):
    """OpenAI's default: the text is there, the rest is a guess, and is marked as one."""
    statistics = recorded(world, openai_call)
    assert statistics.total.usage == Usage(input_tokens=6, output_tokens=40)
    assert statistics.total.estimated == 1


def test_a_stream_that_is_left_is_recorded_with_the_input_that_its_start_told(world):
    """Anthropic's first event has it; the output is what was read."""
    statistics = recorded(world, anthropic_call, chunks=7)
    known = statistics.total.usage.model_copy(update={"output_tokens": 40})
    assert known == USAGE
    assert 1 < statistics.total.usage.output_tokens < 40
    assert list(statistics.by("outcome")) == ["cut_off"]
