"""The latency tracker: each call once, how it ended kept apart, streams from first token to last, bounded series."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import reduce
from operator import add
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llm_patterns.chat import ChatRequest, ChatStream, Message, Usage
from llm_patterns.deadlines import deadline, hard_deadline, require_time
from llm_patterns.errors import (
    ConnectionFailed,
    InvalidRequest,
    LLMPatternsError,
    RateLimited,
    RequestTimeout,
)
from llm_patterns.layers import LayeredModel
from llm_patterns.simulation import (
    ConstantLatency,
    Disconnect,
    Hang,
    SimulatedProvider,
    fixed,
    simulate,
)
from llm_patterns.toolkit.costs import OVERFLOW
from llm_patterns.toolkit.latency_tracker import (
    Latencies,
    LatencyPolicy,
    LatencyRecorded,
    LatencyTracker,
)
from llm_patterns.toolkit.stopwatches import Timing, timing_of
from tests.toolkit import latency_invariants as invariants
from tests.toolkit.latency_invariants import STREAMS

REQUEST = ChatRequest(model="small", messages=(Message.user("Hello"),))
CALLS = st.lists(
    st.tuples(st.floats(0, 100), st.sampled_from(Timing), st.sampled_from("abcdef")), max_size=40
)


def counts(latencies: Latencies) -> dict[str, int]:
    """How many there are of each timing that happened."""
    seen = {timing.value: getattr(latencies, timing).count for timing in Timing}
    return {name: count for name, count in seen.items() if count}


@given(CALLS, st.integers(1, 6))
def test_every_call_is_in_exactly_one_series(
    calls: list[tuple[float, Timing, str]], limit: int
) -> None:
    """Invariant 1: the series add up to the total, their number is bounded, and the rest is in one more."""

    async def main() -> None:
        latencies = LatencyTracker(LatencyPolicy(max_series=limit))
        for seconds, timing, model in calls:
            latencies.record(seconds, timing, labels={"model": model})
        names = list(dict.fromkeys(model for _, _, model in calls))
        for seen in (latencies.statistics(), latencies.recent()):
            assert len(seen.series) == min(len(names), limit + 1)
            by_model = seen.by("model")
            assert set(by_model) == {*names[:limit], *([OVERFLOW] if names[limit:] else [])}
            assert counts(reduce(add, by_model.values(), seen.empty)) == counts(seen.total)
            for timing in Timing:
                of_it = [each for each in calls if each[1] is timing]
                assert getattr(seen.total, timing).count == len(of_it)
                for name in names[:limit]:
                    expected = sum(each[2] == name for each in of_it)
                    assert getattr(by_model[name], timing).count == expected

    simulate(main)


def test_a_window_forgets_and_the_total_does_not() -> None:
    """Recent is the last minute, statistics are since the start."""

    async def main() -> None:
        latencies = LatencyTracker(LatencyPolicy(window=60, slices=6))
        latencies.record(9)
        await asyncio.sleep(59)
        latencies.record(1)
        assert latencies.recent().total.completed.max == 9
        await asyncio.sleep(1)
        assert latencies.recent().total.completed.max == 1
        await asyncio.sleep(60)
        assert latencies.recent().total.completed.p99 is None
        assert latencies.statistics().total.completed.count == 2

    simulate(main)


async def answer() -> str:
    """A good call of 2 seconds."""
    await asyncio.sleep(2)
    return "answer"


def failing(error: BaseException) -> Callable[[], Awaitable[str]]:
    """A call that fails after 2 seconds."""

    async def call() -> str:
        await asyncio.sleep(2)
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "timing"),
    [
        (RateLimited("slow down", status_code=429), "failed"),
        (ConnectionFailed("broke"), "failed"),
        (KeyError("a bug"), "failed"),
        (TimeoutError(), "timed_out"),
        (RequestTimeout("no answer", status_code=504), "timed_out"),
        (asyncio.CancelledError(), "cancelled"),
        (GeneratorExit(), "cancelled"),
    ],
)
def test_how_a_call_ended_is_kept_apart(error: BaseException, timing: str) -> None:
    """Only what was answered is a latency of answers; the error passes as it came."""

    async def main() -> None:
        latencies = LatencyTracker()
        call = latencies.layer()(failing(error))
        with pytest.raises(type(error)) as caught:
            await call()
        assert caught.value is error
        assert await latencies.layer()(answer)() == "answer"
        seen = latencies.statistics().total
        assert counts(seen) == {"completed": 1, timing: 1}
        assert getattr(seen, timing).max == 2

    simulate(main)


def test_a_refusal_is_no_latency() -> None:
    """Nothing was sent."""

    async def main() -> None:
        latencies = LatencyTracker()
        with deadline(1), pytest.raises(LLMPatternsError), latencies.stopwatch():
            require_time(2)
        assert counts(latencies.statistics().total) == {"refused": 1}

    simulate(main)


def test_the_deadline_s_cancellation_is_a_time_out() -> None:
    """Seen from inside, a deadline further out only cancels; the caller's leaving does too."""

    async def main() -> None:
        latencies = LatencyTracker()
        call = latencies.layer()(lambda: asyncio.sleep(100))
        with pytest.raises(TimeoutError):
            async with hard_deadline(5):
                await call()
        with deadline(50):
            task = asyncio.create_task(call())
        await asyncio.sleep(3)
        task.cancel()
        await asyncio.wait([task])
        seen = latencies.statistics().total
        assert (seen.timed_out.max, seen.cancelled.max) == (5, 3)
        assert counts(seen) == {"timed_out": 1, "cancelled": 1}

    simulate(main)


def test_time_outs_raise_what_callers_waited_and_not_what_answers_took() -> None:
    """Survivor bias: of ten calls three hang, and the completed alone look fast."""

    async def main() -> None:
        latencies = LatencyTracker()
        for seconds in (1, 1, 1, 1, 1, 1, 1):
            latencies.record(seconds)
        for _ in range(3):
            latencies.record(10, Timing.TIMED_OUT)
        latencies.record(0.01, Timing.FAILED)
        seen = latencies.statistics().total
        assert (seen.completed.p90, seen.waited.p90) == pytest.approx((1, 10), rel=0.01)
        assert seen.waited.count == 10

    simulate(main)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stopwatch_times_its_block(asynchronous: bool) -> None:
    """As `with` and as `async with`; it can be read while it runs."""

    async def main() -> float:
        latencies = LatencyTracker()
        watch = latencies.stopwatch(labels={"step": "rerank"})
        if asynchronous:
            async with watch:
                await asyncio.sleep(3)
        else:
            with watch as running:
                await asyncio.sleep(1)
                assert (running.elapsed, running.running) == (1, True)
                await asyncio.sleep(2)
        await asyncio.sleep(4)
        assert latencies.statistics().by("step")["rerank"].completed.max == 3
        return watch.elapsed

    assert simulate(main) == 3


def test_a_stopwatch_counts_once() -> None:
    """Stopped by hand, it is not counted again at the block's end; it can be used again."""

    async def main() -> None:
        latencies = LatencyTracker()
        watch = latencies.stopwatch()
        watch.stop()
        with watch:
            await asyncio.sleep(1)
            watch.stop()
            await asyncio.sleep(5)
        assert counts(latencies.statistics().total) == {"completed": 1}
        with watch:
            await asyncio.sleep(2)
        assert latencies.statistics().total.completed.max == 2

    simulate(main)


@given(STREAMS)
def test_a_stream_passes_as_it_came_and_ends_once(stream: tuple[list[int], str]) -> None:
    """Invariants 2 and 3, however it ends."""
    invariants.timed_streams(stream)


def test_a_stream_of_the_provider_is_timed_by_its_tokens() -> None:
    """Through a layered model, which stays a model; the reported tokens count, not the chunks."""

    async def main() -> Latencies:
        provider = SimulatedProvider(
            latency=ConstantLatency(time_to_first_token=0.5, seconds_per_token=0.1),
            responder=fixed("word " * 40, usage=Usage(input_tokens=9, output_tokens=41)),
            tokens_per_chunk=10,
        )
        latencies = LatencyTracker()
        model = LayeredModel(provider, latencies.layer())
        stream = await model.stream(REQUEST)
        assert isinstance(stream, ChatStream)
        assert "".join([chunk.text async for chunk in stream]) == "word " * 40
        await model.complete(REQUEST)
        return latencies.statistics().total

    seen = simulate(main)
    assert counts(seen) == {"completed": 2, "time_to_first_token": 1, "time_per_token": 1}
    assert seen.time_to_first_token.max == 0.5
    assert seen.time_per_token.max == pytest.approx(0.1)
    assert seen.completed.max == pytest.approx(4.5)


def test_a_stream_that_breaks_has_failed_after_its_first_token() -> None:
    """And has no pace: what is missing may be the slow part."""

    async def main() -> Latencies:
        provider = SimulatedProvider(faults=[Disconnect()], responder=fixed("a b c d e f"))
        latencies = LatencyTracker()
        stream = await latencies.layer()(provider.stream)(REQUEST)
        with pytest.raises(ConnectionFailed):
            [chunk async for chunk in stream]
        return latencies.statistics().total

    assert counts(simulate(main)) == {"failed": 1, "time_to_first_token": 1}


def test_a_stream_that_never_opens_is_a_time_out() -> None:
    """It has no first token to count."""

    async def main() -> Latencies:
        provider = SimulatedProvider(faults=[Hang()])
        latencies = LatencyTracker()
        with pytest.raises(TimeoutError):
            async with hard_deadline(7):
                await latencies.layer()(provider.stream)(REQUEST)
        return latencies.statistics().total

    seen = simulate(main)
    assert (counts(seen), seen.timed_out.max) == ({"timed_out": 1}, 7)


@pytest.mark.parametrize(
    "last",
    [
        {"type": "message_delta", "usage": {"output_tokens": 21}},
        {"choices": [], "usage": {"completion_tokens": 21, "prompt_tokens": 9}},
        {"type": "response.completed", "response": {"usage": {"output_tokens": 21}}},
        SimpleNamespace(usage=SimpleNamespace(output_tokens=21)),
    ],
)
def test_the_pace_is_by_the_tokens_that_any_client_s_stream_reports(last: object) -> None:
    """Anthropic's, OpenAI's two, and objects: twenty tokens in four seconds after the first, in three chunks."""

    async def chunks() -> AsyncIterator[object]:
        for chunk in ({"usage": None}, {"type": "ping"}, last):
            yield chunk
            await asyncio.sleep(2)

    async def call() -> AsyncIterator[object]:
        return chunks()

    async def main() -> Latencies:
        latencies = LatencyTracker()
        async for _ in await latencies.layer()(call)():
            pass
        return latencies.statistics().total

    assert simulate(main).time_per_token.max == pytest.approx(4 / 20)


def test_a_stream_that_is_dropped_was_cancelled() -> None:
    """A `break` is the usual way to leave one; the provider's own stream is then dropped too."""

    async def main() -> Latencies:
        provider = SimulatedProvider(responder=fixed("word " * 40))
        latencies = LatencyTracker()
        async for _ in await latencies.layer()(provider.stream)(REQUEST):
            await asyncio.sleep(1)
            break
        await asyncio.sleep(1)
        return latencies.statistics().total

    seen = simulate(main)
    assert counts(seen) == {"cancelled": 1, "time_to_first_token": 1}
    assert seen.cancelled.max == pytest.approx(1.3)


class SdkStream:
    """A stream as the vendors' SDKs have them: an async context manager with `close` and more."""

    def __init__(self) -> None:
        self.response = SimpleNamespace(status_code=200)
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[str]:
        for chunk in ("a", "b"):
            await asyncio.sleep(1)
            yield chunk

    async def close(self) -> None:
        """Hang up."""
        self.closed += 1


@pytest.mark.parametrize("closing", ["close", "aclose", "async with"])
def test_an_sdk_s_stream_keeps_its_ways(closing: str) -> None:
    """Its attributes, its context, and the name that it has for hanging up."""
    opened = SdkStream()

    async def call() -> SdkStream:
        return opened

    async def main() -> None:
        latencies = LatencyTracker()
        stream: Any = await latencies.layer()(call)()
        assert stream.response.status_code == 200
        if closing == "async with":
            async with stream as entered:
                assert await anext(entered) == "a"
        else:
            assert await anext(stream) == "a"
            await getattr(stream, closing)()
        assert counts(latencies.statistics().total) == {"cancelled": 1, "time_to_first_token": 1}

    simulate(main)
    assert opened.closed == 1


def test_the_layer_keeps_name_and_arguments() -> None:
    """The timing is not seen from outside."""

    @LatencyTracker().layer()
    async def ask(question: str, *, polite: bool = False) -> str:
        """Ask."""
        return f"{question}{'?' if polite else '!'}"

    assert (ask.__name__, ask.__doc__) == ("ask", "Ask.")

    async def main() -> str:
        return await ask("why", polite=True)

    assert simulate(main) == "why?"


def test_a_hook_hears_of_every_duration() -> None:
    """With its labels: where the slow one is logged. One that raises does not break the call."""
    heard: list[LatencyRecorded] = []

    def hook(event: LatencyRecorded) -> None:
        heard.append(event)
        raise RuntimeError("the log is down")

    async def main() -> str:
        return await LatencyTracker(on_event=hook).layer(labels={"model": "x"})(answer)()

    assert simulate(main) == "answer"
    assert heard == [LatencyRecorded(2, Timing.COMPLETED, {"model": "x"})]


def test_calls_are_grouped_by_any_label() -> None:
    """Those without it are under the empty value."""

    async def main() -> None:
        latencies = LatencyTracker()
        latencies.record(1, labels={"model": "a", "route": "chat"})
        latencies.record(3, labels={"model": "a"})
        seen = latencies.statistics()
        assert {name: each.completed.max for name, each in seen.by("route").items()} == {
            "": 3,
            "chat": 1,
        }
        assert seen.by("model")["a"].completed.mean == 2

    simulate(main)


def test_a_snapshot_does_not_change_with_later_calls() -> None:
    """Statistics are of the moment they were taken."""

    async def main() -> None:
        latencies = LatencyTracker()
        latencies.record(1)
        before = latencies.statistics(), latencies.recent()
        latencies.record(2)
        assert [each.total.completed.count for each in before] == [1, 1]

    simulate(main)


def test_memory_is_bounded_whatever_is_recorded() -> None:
    """Labels, times and durations without end: series, slices and bins stay within the policy's."""
    policy = LatencyPolicy(window=10, slices=2, max_bins=128, max_series=3)

    async def main() -> None:
        latencies, rng = LatencyTracker(policy), Random(1)
        for number in range(2_000):
            latencies.record(10 ** rng.uniform(-9, 9), labels={"user": str(number % 50)})
            await asyncio.sleep(rng.random())
        series = vars(latencies)["_series"]
        parts = [
            part
            for timings in series.values()
            for each in timings.values()
            for part in [each._past, *each._parts]
        ]
        assert len(series) == 4
        assert len(parts) == 4 * 3
        assert max(len(part._sketch._store.bins) for part in parts) <= 128

    simulate(main)


@pytest.mark.parametrize("seconds", [-0.1, float("nan"), float("inf")])
def test_what_is_no_duration_is_refused(seconds: float) -> None:
    """A clock that went backwards is a bug, not a fast call; and it makes no series."""

    async def main() -> int:
        latencies = LatencyTracker()
        with pytest.raises(ValueError, match="can't be"):
            latencies.record(seconds)
        return len(latencies.statistics().series)

    assert simulate(main) == 0


@pytest.mark.parametrize(
    "options",
    [
        *({"window": 0}, {"window": float("inf")}, {"slices": 1}, {"relative_error": 0.5}),
        *({"max_bins": 1}, {"max_series": 0}, {"windows": 3}),
    ],
)
def test_a_policy_that_cannot_work_is_refused_when_made(options: dict[str, Any]) -> None:
    """The extremes that would cost memory or meaning."""
    with pytest.raises(ValidationError):
        LatencyPolicy(**options)


def test_a_call_that_is_over_without_an_error_is_complete() -> None:
    """And a request that can't succeed has failed."""
    assert timing_of(None) is Timing.COMPLETED
    assert timing_of(InvalidRequest("no", status_code=400)) is Timing.FAILED
