"""The types a reader of the resilience patterns relies on; checked by mypy, never run."""

from typing import assert_type

from openai import AsyncOpenAI

from llm_patterns.chat import ChatModel, ChatRequest, ChatResponse, ChatStream
from llm_patterns.errors import ErrorKind, Failure, failure_of
from llm_patterns.layers import Layer, LayeredModel, compose
from llm_patterns.resilience import (
    BreakerEvent,
    BreakerPolicy,
    BreakerSharing,
    BreakerStatistics,
    CircuitBreaker,
    CircuitBreakers,
    CircuitOpen,
    CusumDetector,
    Detector,
    EarnedBudget,
    Evidence,
    Permit,
    RateDetector,
    RetriesExhausted,
    RetryBudget,
    RetryEvent,
    RetryPolicy,
    RetryStatistics,
    RetryWithBudget,
    StopReason,
    StreakDetector,
    StreamRestarted,
    vote_of,
)
from llm_patterns.simulation import SimulatedProvider, simulate
from llm_patterns.stores import MemoryVerdicts, ValkeyVerdicts, VerdictStore


async def guards_keep_signatures(model: ChatModel, request: ChatRequest) -> None:
    """A guarded call takes and returns what the call does."""
    retry = RetryWithBudget(RetryPolicy(deadline=30))

    @retry
    async def ask(question: str, *, times: int = 1) -> bytes:
        return question.encode() * times

    assert_type(await ask("why", times=2), bytes)
    await ask(3)  # type: ignore[arg-type]
    assert_type(await retry(model.complete)(request), ChatResponse)
    assert_type(await retry(model.stream)(request), ChatStream)
    layer: Layer = retry
    assert_type(await compose(layer, layer)(model.complete)(request), ChatResponse)
    layered: ChatModel = LayeredModel(model, retry)
    del layered


async def an_sdk_s_method_keeps_its_own(client: AsyncOpenAI) -> None:
    """Models are listed as before."""
    retry = RetryWithBudget(RetryPolicy(deadline=30), budget=EarnedBudget())
    page = await retry(client.models.retrieve)("gpt-5-mini")
    assert_type(page.id, str)


async def what_comes_back_is_typed(
    retry: RetryWithBudget, error: RetriesExhausted, request: ChatRequest
) -> None:
    """Statistics, reasons, events, restarted streams."""
    assert_type(retry.statistics(), RetryStatistics)
    assert_type(retry.budget, RetryBudget)
    assert_type(error.reason, StopReason)
    assert_type(error.kind, ErrorKind)
    assert_type(failure_of(error), Failure)

    def hook(event: RetryEvent) -> None:
        """Hear."""

    RetryWithBudget(RetryPolicy(deadline=1), on_event=hook)
    RetryPolicy()  # type: ignore[call-arg]

    async def numbers() -> list[int]:
        return [1]

    provider = SimulatedProvider()
    async for piece in retry.stream(provider.stream, request):
        if not isinstance(piece, StreamRestarted):
            assert_type(piece.text, str)
    assert_type(simulate(numbers), list[int])


async def breakers_keep_signatures(model: ChatModel, request: ChatRequest) -> None:
    """As every layer does, and detectors are interchangeable."""
    detectors: list[Detector] = [CusumDetector(), RateDetector(window=60), StreakDetector()]
    for detector in detectors:
        breaker = CircuitBreaker(BreakerPolicy(), detector=detector)
        assert_type(await breaker(model.complete)(request), ChatResponse)
        assert_type(await breaker(model.stream)(request), ChatStream)
        layer: Layer = breaker
        del layer
    breakers = CircuitBreakers(BreakerPolicy(), detector=StreakDetector)
    assert_type(breakers.of("openai", "gpt-6"), CircuitBreaker)
    CircuitBreakers(BreakerPolicy(), detector=StreakDetector())  # type: ignore[arg-type]


def breakers_are_guarded_by_hand(breaker: CircuitBreaker, error: Exception) -> None:
    """A permit is taken and given back with what became of the call."""
    permit = breaker.acquire()
    assert_type(permit, Permit)
    breaker.release(permit, succeeded=vote_of(error, breaker.policy))
    breaker.release(permit)  # type: ignore[call-arg]
    assert_type(breaker.available(), bool)
    assert_type(breaker.retry_after(), float)
    breaker.force("half open")  # type: ignore[arg-type]
    assert_type(breaker.statistics(), BreakerStatistics)


def refusals_and_events_are_typed(refusal: CircuitOpen) -> None:
    """What opened the circuit may be another process's to know."""
    assert_type(refusal.evidence, Evidence | None)
    assert_type(refusal.kind, ErrorKind)

    def hook(event: BreakerEvent) -> None:
        """Hear."""

    CircuitBreaker(BreakerPolicy(), on_event=hook)


async def stores_are_interchangeable() -> None:
    """A fleet's verdicts in this process or on a server."""
    stores: list[VerdictStore] = [MemoryVerdicts(), ValkeyVerdicts("redis://localhost")]
    for store in stores:
        async with BreakerSharing(store) as sharing:
            assert_type(sharing, BreakerSharing)
            CircuitBreaker(BreakerPolicy(), key="k", sharing=sharing)
