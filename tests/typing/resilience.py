"""The types a reader of retries relies on; checked by mypy, never run."""

from typing import assert_type

from openai import AsyncOpenAI

from llm_patterns.chat import ChatModel, ChatRequest, ChatResponse, ChatStream
from llm_patterns.errors import ErrorKind, Failure, failure_of
from llm_patterns.layers import Layer, LayeredModel, compose
from llm_patterns.resilience import (
    EarnedBudget,
    RetriesExhausted,
    RetryBudget,
    RetryEvent,
    RetryPolicy,
    RetryStatistics,
    RetryWithBudget,
    StopReason,
    StreamRestarted,
)
from llm_patterns.simulation import SimulatedProvider, simulate


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
