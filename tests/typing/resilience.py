"""The types a reader of the resilience patterns relies on; checked by mypy, never run."""

from typing import assert_type

from openai import AsyncOpenAI

from llm_patterns.chat import ChatModel, ChatRequest, ChatResponse, ChatStream
from llm_patterns.errors import ErrorKind, Failure, failure_of
from llm_patterns.layers import Layer, LayeredModel, compose
from llm_patterns.resilience import (
    AllTargetsFailed,
    Answer,
    BreakerEvent,
    BreakerPolicy,
    BreakerSharing,
    BreakerStatistics,
    CircuitBreaker,
    CircuitBreakers,
    CircuitOpen,
    CusumDetector,
    DegradationEvent,
    DegradationPolicy,
    DegradationStatistics,
    Detector,
    EarnedBudget,
    Evidence,
    FailoverEvent,
    FailoverPolicy,
    FailoverStatistics,
    FailoverStream,
    GaveUp,
    GracefulDegradation,
    Level,
    LevelPolicy,
    MultiProviderFailover,
    Permit,
    ProbeFinished,
    RateDetector,
    RetriesExhausted,
    RetryBudget,
    RetryEvent,
    RetryPolicy,
    RetryStatistics,
    RetryWithBudget,
    Served,
    ServedBecause,
    SkipReason,
    StaleCache,
    StaleCachePolicy,
    StopReason,
    StreakDetector,
    StreamRestarted,
    Target,
    TargetFailed,
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


async def ladders_know_what_they_answer(
    full: ChatModel, small: ChatModel, request: ChatRequest, apology: ChatResponse
) -> None:
    """All levels take the same request and give the same kind of answer."""
    cache: StaleCache[ChatRequest, ChatResponse] = StaleCache(
        StaleCachePolicy(fresh=60, stale=600), key=lambda request: request.model_dump_json()
    )
    needs = LevelPolicy(quality=0.8, reserve=1)

    def hook(event: DegradationEvent) -> None:
        """Hear."""

    ladder = GracefulDegradation(
        DegradationPolicy(deadline=8),
        [
            Level("full", full.complete, needs),
            Level("small", small.complete, needs),
            Level("cached", cache.recall, needs),
        ],
        not_now=apology,
        accept=lambda response: response.finish_reason == "stop",
        cache=cache,
        on_event=hook,
    )
    answer = await ladder.call(request, priority="normal", need=0.5)
    assert_type(answer, Answer[ChatResponse])
    assert_type(answer.value.text, str)
    assert_type(answer.reason, SkipReason | None)
    assert_type(answer.for_action(), ChatResponse)
    assert_type(ladder.statistics(), DegradationStatistics)
    await ladder.call("why?")  # type: ignore[arg-type]
    LevelPolicy(quality=0.8)  # type: ignore[call-arg]
    streams = [Level("full", full.stream, needs), Level("small", small.stream, needs)]
    opened = await GracefulDegradation(DegradationPolicy(deadline=8), streams, not_now=None).call(
        request
    )
    assert_type(opened.value, ChatStream | None)


async def failovers_are_chat_models(
    primary: ChatModel, spare: ChatModel, request: ChatRequest, failed: AllTargetsFailed
) -> None:
    """What is made of several models is one, and says who answered."""

    def hook(event: FailoverEvent) -> None:
        """Hear."""

    failover = MultiProviderFailover(
        FailoverPolicy(deadline=30),
        [Target("primary", primary), Target("spare", spare)],
        on_event=hook,
    )
    model: ChatModel = failover
    assert_type(await model.complete(request), ChatResponse)
    served = await failover.call(request, session="one")
    assert_type(served, Served[ChatResponse])
    assert_type(served.because, ServedBecause)
    assert_type(await failover.stream(request), FailoverStream)
    assert_type(await failover.probe(request), list[ProbeFinished])
    assert_type(failover.statistics(), FailoverStatistics)
    assert_type(failed.reason, GaveUp)
    assert_type(failed.attempts, tuple[TargetFailed, ...])
    FailoverPolicy()  # type: ignore[call-arg]


async def failovers_keep_signatures(failover: MultiProviderFailover) -> None:
    """The one callable has the arguments and the answer of those it is made of."""

    async def small(question: str, *, words: int) -> int:
        return words

    either = failover.over({"primary": small, "spare": small})
    assert_type(await either("why?", words=3), int)
    await either(3, words=3)  # type: ignore[arg-type]
