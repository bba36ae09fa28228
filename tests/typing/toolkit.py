"""The types a reader of the toolkit relies on; checked by mypy, never run."""

from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from typing import assert_type

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion

from llm_patterns.chat import ChatChunk, ChatModel, ChatRequest, ChatStream, Usage
from llm_patterns.layers import Layer
from llm_patterns.resilience import RetryPolicy, RetryWithBudget
from llm_patterns.toolkit import (
    Cost,
    CostBook,
    CostLedger,
    CostRecorded,
    CostStatistics,
    CostTracker,
    JsonLinesSink,
    MemorySink,
    ModelPrice,
    OpenTelemetrySink,
    Span,
    TraceLogger,
    TraceSink,
    current_context,
    price_of,
    remote_parent,
    tee,
    trace_headers,
    usage_of,
)


async def costs_are_counted(
    model: ChatModel, request: ChatRequest, client: AsyncOpenAI, day: datetime
) -> None:
    """A layer keeps the call's signature, a recorded stream its type."""
    costs = CostTracker(on_event=heard)
    layer: Layer = costs.layer(model="small", tier="batch", labels={"tenant": "acme"})
    assert_type(await layer(model.stream)(request), ChatStream)
    create = costs.layer()(client.chat.completions.create)
    assert_type(await create(model="small", messages=[], stream=False), ChatCompletion)
    assert_type(costs.record_stream(chunks(), request=request), AsyncIterator[ChatChunk])
    with costs.labels(tenant="acme", prompt_version="v7", team="blue"):
        assert_type(costs.record(Usage(), "small", at=day), Decimal)
    costs.labels(tenant=1)  # type: ignore[arg-type]
    assert_type(costs.statistics().by("tenant"), dict[str, Cost])


async def chunks() -> AsyncIterator[ChatChunk]:
    """Any stream."""
    yield ChatChunk()


def heard(event: CostRecorded) -> None:
    """A hook takes the event."""
    assert_type(event.usd, Decimal | None)


async def costs_are_kept(day: datetime) -> None:
    """A ledger is a book that a tracker writes into, and reads what a tracker counts."""
    async with CostLedger("sqlite:///costs.db", on_event=lambda event: None) as ledger:
        book: CostBook = ledger
        assert_type(CostTracker(ledger=book).statistics(), CostStatistics)
        assert_type(await ledger.read(since=day), CostStatistics)
        assert_type(await ledger.total(by="tenant"), dict[str, Cost])
    CostLedger(7)  # type: ignore[arg-type]


def prices_are_exact() -> None:
    """Dollars are decimals."""
    price = ModelPrice(input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(2))
    assert_type(price_of(Usage(), "small", prices={"small": price}), Decimal)
    assert_type(usage_of({}), Usage | None)


async def steps_are_traced(
    model: ChatModel, request: ChatRequest, client: AsyncOpenAI, headers: dict[str, str]
) -> None:
    """Layers and streams keep their types; a sink is anything that takes spans."""
    traces = TraceLogger(sink=tee(MemorySink(), JsonLinesSink("traces.jsonl")))
    layer: Layer = traces.layer(provider="house")
    assert_type(await layer(model.stream)(request), ChatStream)
    create = traces.layer()(client.chat.completions.create)
    assert_type(await create(model="small", messages=[], stream=False), ChatCompletion)
    with traces.span("step", parent=remote_parent(headers)) as span:
        assert_type(span, Span)
        assert_type(trace_headers(current_context()), dict[str, str])
        async for piece in traces.stream(chunks(), span=span):
            assert_type(piece, ChatChunk)
    assert_type(await traces.flush(limit=1), bool)
    RetryWithBudget(RetryPolicy(deadline=1), on_event=traces.event)
    traces.span("step", kind="sideways")  # type: ignore[arg-type]
    TraceLogger()  # type: ignore[call-arg]
    TraceLogger(sink=MemorySink(), redact=len)  # type: ignore[arg-type]
    sink: TraceSink = OpenTelemetrySink()
    assert_type(sink.flush(1), bool)
