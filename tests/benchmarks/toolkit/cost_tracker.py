"""What it costs to count a call: price, series and ledger, beside what the peers take for the price alone."""

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Any

from course.benchmarks import Row
from llm_patterns.chat import ChatResponse, Usage
from llm_patterns.toolkit import CostLedger, CostTracker, MemoryCostStore
from tests.benchmarks.rounds import interleaved, middle, ratio

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = (
    "True"  # or it looks for newer prices, over the network
)

PEERS = ("genai-prices", "litellm")
ROUNDS = 15
CALLS = 2_000
OURS = "CostTracker.record"
AT = datetime(2026, 11, 23, tzinfo=UTC)
MODEL = "gpt-4o"
LABELS = {"tenant": "acme", "feature": "search", "prompt_version": "v7"}
USAGE = Usage(input_tokens=500, cached_input_tokens=1_500, output_tokens=200)
ANSWER = ChatResponse(id="1", model=MODEL, usage=USAGE)


async def answer() -> ChatResponse:
    """Answer at once."""
    return ANSWER


def subjects() -> dict[str, Callable[[], Any]]:
    """Return what is done for each call."""
    import genai_prices  # noqa: PLC0415
    import litellm  # noqa: PLC0415

    alone, behind, kept = CostTracker(), CostTracker(), CostTracker(ledger=_ledger())
    record = partial(alone.record, USAGE, MODEL, provider="openai", labels=LABELS, at=AT)
    into_ledger = partial(kept.record, USAGE, MODEL, provider="openai", labels=LABELS, at=AT)
    layered = behind.layer(provider="openai", labels=LABELS)(answer)
    theirs = genai_prices.Usage(input_tokens=2_000, cache_read_tokens=1_500, output_tokens=200)
    response = litellm.ModelResponse(
        model=MODEL,
        usage=litellm.Usage(
            prompt_tokens=2_000,
            completion_tokens=200,
            prompt_tokens_details={"cached_tokens": 1_500},
        ),
    )
    return {
        OURS: record,
        f"{OURS}, with a ledger": into_ledger,
        "CostTracker.layer": lambda: _run(layered()),
        "genai-prices, calc_price": lambda: genai_prices.calc_price(
            theirs, MODEL, provider_id="openai", genai_request_timestamp=AT
        ),
        "litellm, completion_cost": lambda: litellm.completion_cost(response, model=MODEL),
    }


def _ledger() -> CostLedger:
    """Return one that nobody writes: writing is its task's, not the call's."""

    async def make() -> CostLedger:
        return CostLedger(MemoryCostStore())

    return asyncio.run(make())


def _run(call: Any) -> None:
    """Drive a coroutine that waits for nothing."""
    try:
        call.send(None)
    except StopIteration:
        return


def microseconds(call: Callable[[], Any]) -> float:
    """Return the time of one call, averaged over many."""
    start = perf_counter()
    for _ in range(CALLS):
        call()
    return (perf_counter() - start) / CALLS * 1e6


def measure() -> list[Row]:
    """Return the microseconds of a call, and how many times ours that is."""
    measured = {name: partial(microseconds, call) for name, call in subjects().items()}
    samples = interleaved(measured, rounds=ROUNDS)
    return [
        {
            "What": name,
            "Times ours": ratio(samples, name, OURS),
            **middle(samples[name]),
            "Unit": "µs a call",
        }
        for name in samples
    ]
