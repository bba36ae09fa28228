"""The types a reader of latencies, deadlines and fixtures relies on; checked by mypy, never run."""

from collections.abc import Mapping
from typing import assert_type

from openai import AsyncOpenAI

from llm_patterns.chat import ChatModel, ChatRequest, ChatResponse, ChatStream
from llm_patterns.layers import Layer, LayeredModel
from llm_patterns.simulation import SimulatedProvider
from llm_patterns.toolkit import (
    Distribution,
    Latencies,
    LatencyPolicy,
    LatencyRecorded,
    LatencyTracker,
    Timing,
    deadline,
    deadline_headers,
    hard_deadline,
    time_allowed,
    time_left,
)
from llm_patterns.toolkit.fixtures import Outcomes, served, workload


async def the_layer_keeps_signatures(model: ChatModel, request: ChatRequest) -> None:
    """A timed call takes and returns what the call does, a stream's opening too."""
    latencies = LatencyTracker(LatencyPolicy(window=30), on_event=heard)
    timed: Layer = latencies.layer(labels={"model": "small"})
    assert_type(await timed(model.complete)(request), ChatResponse)
    assert_type(await timed(model.stream)(request), ChatStream)
    await timed(model.complete)("Hello")  # type: ignore[arg-type]
    layered: ChatModel = LayeredModel(model, timed)
    del layered
    with latencies.stopwatch() as watch:
        assert_type(watch.elapsed, float)
    async with latencies.stopwatch(labels={"step": "rerank"}):
        latencies.record(1.5, Timing.TIMED_OUT)


async def an_sdk_s_method_keeps_its_own(client: AsyncOpenAI) -> None:
    """Models are listed as before."""
    found = await LatencyTracker().layer()(client.models.retrieve)("gpt-6-luna")
    assert_type(found.id, str)


def heard(event: LatencyRecorded) -> None:
    """Hear."""
    assert_type(event.timing, Timing)


def what_is_empty_has_no_quantile(latencies: LatencyTracker) -> None:
    """So that a missing p99 is not taken for a fast one."""
    total = latencies.statistics().total
    assert_type(total, Latencies)
    assert_type(total.completed.p99, float | None)
    assert_type(total.completed + total.timed_out, Distribution)
    assert_type(latencies.recent().by("model"), dict[str, Latencies])
    assert_type(Distribution.of([(0.5, 3)]).bins(), list[tuple[float, int]])


async def deadlines_are_seconds(headers: Mapping[str, str]) -> None:
    """In, out, and what is left."""
    async with hard_deadline(time_allowed(headers, limit=30)):
        with deadline(5):
            assert_type(time_left(), float | None)
            assert_type(deadline_headers(allowance=0.1), dict[str, str])
    time_allowed(headers)  # type: ignore[call-arg]


async def fixtures_are_objects_of_the_library(
    provider: SimulatedProvider, request: ChatRequest
) -> None:
    """Outcomes to assert on, and a provider on a port."""
    outcomes = await workload(lambda number: provider.complete(request), shape="bursts")
    assert_type(outcomes, Outcomes)
    assert_type(outcomes.errors, dict[str, int])
    with served(provider) as server:
        assert_type(server.openai_url, str)
        assert_type(server.provider, SimulatedProvider)
