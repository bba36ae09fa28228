"""What `TraceLogger` records of steps, calls, streams and events, in virtual time."""

import asyncio
import gc
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from llm_patterns.chat import ChatRequest, Message
from llm_patterns.errors import ConfigurationError, Overloaded
from llm_patterns.layers import LayeredModel
from llm_patterns.resilience import RetryPolicy, RetryWithBudget
from llm_patterns.simulation import (
    ConstantLatency,
    Disconnect,
    ErrorRate,
    SimulatedProvider,
    fixed,
    simulate,
)
from llm_patterns.toolkit import (
    FinishedSpan,
    MemorySink,
    RedactionFailed,
    SpanContext,
    TraceEvicted,
    TraceLogger,
    TracePolicy,
    current_context,
    remote_parent,
    tee,
    trace_headers,
)
from llm_patterns.toolkit.open_spans import TraceClock

SECRET = "my divorce"
ASK = ChatRequest(model="small", max_tokens=50, messages=(Message.user(f"About {SECRET}"),))
CONTENT = TracePolicy(capture_content=True)


def traced(
    work: Callable[[TraceLogger], Any],
    policy: TracePolicy | None = None,
    **options: Any,
) -> list[FinishedSpan]:
    """Run *work* with a logger in virtual time, and return what it kept."""
    sink = MemorySink()

    async def main() -> None:
        await work(TraceLogger(policy, sink=sink, **options))

    simulate(main)
    return list(sink.spans)


def provider(**options: Any) -> SimulatedProvider:
    """One that answers in a second, about what it was asked."""
    options = {"responder": fixed(f"More about {SECRET}."), **options}
    return SimulatedProvider(latency=ConstantLatency(0.5, 0.1), **options)


def test_a_step_has_its_name_its_times_and_its_attributes() -> None:
    """Simulations begin at a Monday's midnight; durations are the loop's."""

    async def work(traces: TraceLogger) -> None:
        await asyncio.sleep(60)
        with traces.span("retrieve", kind="client", attributes={"documents": 4}) as span:
            await asyncio.sleep(0.1)
            span.set("source", "wiki")

    (span,) = traced(work)
    assert (span.name, span.kind, span.status) == ("retrieve", "client", "ok")
    assert (span.start_time, span.duration) == (1767571260.0, pytest.approx(0.1, abs=1e-12))
    assert span.attributes == {"documents": 4, "source": "wiki"}


def test_tasks_of_a_group_are_children_of_the_step_that_started_them() -> None:
    """And siblings of each other, however they interleave."""

    async def work(traces: TraceLogger) -> None:
        async def search(number: int) -> None:
            with traces.span(f"search {number}"):
                await asyncio.sleep(number)

        with traces.span("answer"):
            async with asyncio.TaskGroup() as group:
                for number in (2, 1):
                    group.create_task(search(number))

    *searches, answer = traced(work)
    assert [span.name for span in searches] == ["search 1", "search 2"]
    assert {span.parent_id for span in searches} == {answer.span_id}
    assert answer.parent_id is None


def test_an_error_is_its_class_and_passes_on() -> None:
    """Its message may quote the prompt, so it is nowhere."""

    async def work(traces: TraceLogger) -> None:
        with pytest.raises(Overloaded), traces.span("generate"):
            raise Overloaded(f"refused: {SECRET}", status_code=529)
        with pytest.raises(KeyError), traces.span("parse"):
            raise KeyError(SECRET)

    generate, parse = traced(work)
    assert (generate.status, parse.status) == ("error", "error")
    assert generate.attributes == {"error.type": "overloaded", "http.response.status_code": 529}
    assert parse.attributes == {"error.type": "KeyError"}
    assert SECRET not in str(generate) + str(parse)


def test_an_error_that_can_not_be_looked_at_is_its_class_too() -> None:
    """A client's error may raise where it is asked for its status."""

    class Hostile(Exception):
        @property
        def response(self) -> None:
            raise RuntimeError(SECRET)

    async def work(traces: TraceLogger) -> None:
        with pytest.raises(Hostile), traces.span("generate"):
            raise Hostile

    assert traced(work)[0].attributes == {"error.type": "Hostile"}


def test_a_cancelled_step_is_not_an_error() -> None:
    """The one whose time was up is."""

    async def work(traces: TraceLogger) -> None:
        with suppress(TimeoutError), traces.span("answer"):
            async with asyncio.timeout(1):
                with traces.span("generate"):
                    await asyncio.sleep(2)

    generate, answer = traced(work)
    assert (generate.status, generate.duration) == ("cancelled", 1.0)
    assert (answer.status, answer.attributes) == ("error", {"error.type": "timeout"})


def test_what_is_no_attribute_is_its_type() -> None:
    """A dictionary, an object, a number that JSON does not know: nothing raises, and nothing is quoted."""

    async def work(traces: TraceLogger) -> None:
        with traces.span("step") as span:
            for number, value in enumerate(
                [{"a": SECRET}, object(), float("nan"), 1 << 70, None, {"b", "a"}, (1, "x"), True]
            ):
                span.set(str(number), value)

    values = list(traced(work)[0].attributes.values())
    assert values == ["dict", "object", "nan", "int", "NoneType", ["a", "b"], [1, "x"], True]


def test_a_span_is_bounded_and_an_error_has_room_all_the_same() -> None:
    """Attributes, their text, events: what is too much is counted."""
    policy = TracePolicy(max_attributes=2, max_attribute_chars=16, max_events=1)

    async def work(traces: TraceLogger) -> None:
        with suppress(ValueError), traces.span("step") as span:
            for number in range(5):
                span.set(f"a{number}", "x" * 100)
                span.event("again", {"n": number})
            span.set("a0", "changed")
            raise ValueError("x")

    (span,) = traced(work, policy)
    assert span.attributes == {
        "a0": "changed",
        "a1": "x" * 16,
        "lost_attributes_and_events": 7,
        "error.type": "ValueError",
    }
    assert len(span.events) == 1


def test_a_span_that_is_over_does_not_change() -> None:
    """Late words are lost."""

    async def work(traces: TraceLogger) -> None:
        span = traces.span("step")
        span.end()
        span.set("late", 1)
        span.event("late")
        span.content("late", SECRET)
        span.end()

    assert [(span.attributes, span.events) for span in traced(work)] == [({}, ())]


def test_a_clock_that_is_set_moves_no_child_out_of_its_parent() -> None:
    """Within a trace time is the loop's, from the first span's time of day on."""

    async def work(traces: TraceLogger) -> None:
        with traces.span("outer") as outer:
            outer.time.start_time -= 3600  # as if the machine's clock had been put forward since
            await asyncio.sleep(1)
            with traces.span("inner"):
                await asyncio.sleep(1)

    inner, outer = traced(work)
    assert inner.start_time - outer.start_time == 1.0
    assert inner.start_time + inner.duration <= outer.start_time + outer.duration


def test_a_span_without_a_loop_has_the_time_of_day() -> None:
    """Synchronous programs have traces too, and synchronous redaction."""
    sink = MemorySink()
    traces = TraceLogger(CONTENT, sink=sink, redact=lambda text: text.replace(SECRET, "[x]"))
    with traces.span("outer") as outer:
        outer.content("question", SECRET)
        with traces.span("inner"):
            pass
    inner, outermost = sink.spans
    assert inner.parent_id == outermost.span_id
    assert outermost.attributes == {"question": "[x]"}
    assert TraceClock().elapsed() >= 0


# --- calls of models ---------------------------------------------------------------------------------


def test_a_call_is_recorded_by_the_conventions() -> None:
    """What was asked for and who answered, and not a word of either."""

    async def work(traces: TraceLogger) -> None:
        model = LayeredModel(provider(), traces.layer(provider="house"))
        await model.complete(ASK)

    (span,) = traced(work)
    assert (span.name, span.kind, span.duration) == ("chat small", "client", 1.0)
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "house",
        "gen_ai.request.model": "small",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.response.id": "simulated-1",
        "gen_ai.response.model": "small",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 4,
        "gen_ai.usage.output_tokens": 6,
    }


def test_a_call_with_its_retries_is_one_step_and_each_attempt_an_event() -> None:
    """Outside the retry the layer sees the whole; the pattern's own events say what happened in it."""

    async def work(traces: TraceLogger) -> None:
        faults = [ErrorRate(start=0, duration=0.1, probability=1.0, status_code=529)]
        retry = RetryWithBudget(
            RetryPolicy(deadline=30, jitter="none", initial_delay=1), on_event=traces.event
        )
        model = LayeredModel(provider(faults=faults), traces.layer(), retry)
        await model.complete(ASK)

    (span,) = traced(work)
    assert [event.name for event in span.events] == ["attempt_failed", "retry_scheduled"]
    assert span.events[1].attributes == {
        "attempt": 2,
        "delay": 1.0,
        "failure.kind": "overloaded",
        "failure.status_code": 529,
    }
    assert span.status == "ok"


def test_events_tell_numbers_and_names_and_quote_nobody() -> None:
    """Not the text of an event, nor an error's, be it a single word."""

    @dataclass
    class AnswerJudged:
        score: float
        judge: str
        answer: str
        error: Exception

    async def work(traces: TraceLogger) -> None:
        traces.event("an event outside of every step is nobody's")
        with traces.span("judge"):
            traces.event(AnswerJudged(0.5, "gpt-6.1-sol", SECRET, Overloaded("divorce")))
            traces.event(object())

    (span,) = traced(work)
    assert [event.name for event in span.events] == ["answer_judged", "object"]
    told = span.events[0].attributes
    assert (told["score"], told["judge"], told["error.type"]) == (0.5, "gpt-6.1-sol", "Overloaded")
    assert "divorce" not in str(span)


def test_a_stream_is_a_step_until_its_last_chunk() -> None:
    """With the time to the first one."""

    async def work(traces: TraceLogger) -> None:
        model = LayeredModel(provider(), traces.layer())
        async for _ in await model.stream(ASK):
            await asyncio.sleep(0)

    (span,) = traced(work)
    assert (span.status, span.duration) == ("ok", 1.0)
    assert span.attributes["gen_ai.request.stream"] is True
    assert span.attributes["gen_ai.response.time_to_first_chunk"] == 0.5
    assert span.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert span.attributes["gen_ai.usage.output_tokens"] == 6


def test_a_stream_that_breaks_is_an_error() -> None:
    """It did not say why it ended, so the reason is `error`."""

    async def work(traces: TraceLogger) -> None:
        faults = [Disconnect(start=0, duration=10, probability=1.0, after=0.6)]
        model = LayeredModel(provider(faults=faults), traces.layer())
        with pytest.raises(ConnectionError):
            async for _ in await model.stream(ASK):
                pass

    (span,) = traced(work)
    assert (span.status, span.attributes["error.type"]) == ("error", "connection")
    assert span.attributes["gen_ai.response.finish_reasons"] == ["error"]


@pytest.mark.parametrize("how", ["closed", "left by a block", "dropped", "dropped in a cycle"])
def test_a_stream_that_its_reader_leaves_is_cancelled(how: str) -> None:
    """Closed or not, its step ends, once, and what was read is known."""

    async def work(traces: TraceLogger) -> None:
        stream: Any = await LayeredModel(provider(), traces.layer()).stream(ASK)
        await anext(stream)
        if how == "closed":
            await stream.aclose()
            await stream.close()
        elif how == "left by a block":
            async with stream:
                pass
        else:
            holder = [stream]
            if how == "dropped in a cycle":
                holder.append(holder)
            del stream, holder
            gc.collect()
            await asyncio.sleep(0)

    (span,) = traced(work)
    assert (span.status, span.duration) == ("cancelled", 0.5)
    assert span.attributes["gen_ai.response.finish_reasons"] == ["error"]


def test_a_traced_stream_still_is_the_clients() -> None:
    """What else it has is there: its usage, its response."""

    async def work(traces: TraceLogger) -> None:
        stream: Any = await LayeredModel(provider(), traces.layer()).stream(ASK)
        assert stream.usage.output_tokens == 6
        assert not hasattr(stream, "no_such_thing")
        await stream.aclose()

    assert len(traced(work)) == 1


def test_a_call_that_can_not_be_read_is_a_step_all_the_same() -> None:
    """An answer that raises where it is looked at, and a request that does."""

    class Hostile:
        def __getattr__(self, name: str) -> None:
            raise RuntimeError(name)

    async def work(traces: TraceLogger) -> None:
        async def call(request: object) -> object:
            return request

        hostile = Hostile()
        layer = traces.layer(model="mine")
        assert await layer(call)(hostile) is hostile
        assert await layer(call)("a question") == "a question"

    hostile, plain = traced(work, CONTENT, redact=str)
    assert plain.name == "chat mine"
    assert hostile.status == "ok"


# --- content ---------------------------------------------------------------------------------------------


def test_content_is_off_unless_asked_for() -> None:
    """By default nothing that somebody wrote is in any span."""

    async def work(traces: TraceLogger) -> None:
        model = LayeredModel(provider(), traces.layer())
        with traces.span("answer") as span:
            span.content("question", SECRET)
            await model.complete(ASK)
            async for _ in await model.stream(ASK):
                pass

    spans = traced(work)
    assert len(spans) == 3
    assert SECRET not in str(spans)


def test_content_without_a_hook_is_refused_when_the_logger_is_made() -> None:
    """Raw prompts are kept on purpose only."""
    with pytest.raises(ConfigurationError, match="redact=str"):
        TraceLogger(CONTENT, sink=MemorySink())


def test_content_is_what_the_hook_returned() -> None:
    """Prompt and answer, whole and streamed, in the conventions' form."""

    async def work(traces: TraceLogger) -> None:
        model = LayeredModel(provider(), traces.layer())
        await model.complete(ASK)
        async for _ in await model.stream(ASK):
            pass

    spans = traced(work, CONTENT, redact=lambda text: text.replace(SECRET, "[x]"))
    for span in spans:
        assert span.attributes["gen_ai.input.messages"] == [
            {"role": "user", "parts": [{"type": "text", "content": "About [x]"}]}
        ]
        assert span.attributes["gen_ai.output.messages"] == [
            {"role": "assistant", "parts": [{"type": "text", "content": "More about [x]."}]}
        ]
    assert SECRET not in str(spans)


def explode(text: str) -> str:
    """A hook that fails, and quotes."""
    raise ValueError(text)


def stop(text: str) -> str:
    """A hook that fails in the one way that asyncio can't carry."""
    raise StopIteration(text)


@pytest.mark.parametrize(
    ("hook", "reason"),
    [(explode, "ValueError"), (stop, "StopIteration"), (lambda text: [text], "TypeError")],
    ids=["raises", "stops", "returns no text"],
)
def test_a_hook_that_fails_costs_the_texts_and_nothing_else(hook: Any, reason: str) -> None:
    """The span says so, the event says so, and nobody sees the text."""
    events: list[object] = []

    async def work(traces: TraceLogger) -> None:
        model = LayeredModel(provider(), traces.layer())
        assert (await model.complete(ASK)).text.startswith("More")
        assert traces.statistics().redactions_failed == 1

    (span,) = traced(work, CONTENT, redact=hook, on_event=events.append)
    assert span.attributes["gen_ai.input.messages"] == "[withheld]"
    assert span.attributes["gen_ai.output.messages"] == "[withheld]"
    assert span.attributes["redaction.failed"] == reason
    assert events == [RedactionFailed("chat small", reason)]
    assert SECRET not in str(span)


def test_long_content_is_cut_after_the_hook_saw_all_of_it() -> None:
    """What it looks for must not be cut in two; roles and types are not its business."""
    seen: list[str] = []

    def hook(text: str) -> str:
        seen.append(text)
        return text

    async def work(traces: TraceLogger) -> None:
        with traces.span("step") as span:
            span.content("messages", [{"role": "user", "type": "text", "texts": ["abcdef", "gh"]}])

    policy = TracePolicy(capture_content=True, max_content_chars=7)
    (span,) = traced(work, policy, redact=hook)
    assert seen == ["abcdef", "gh"]
    kept = [{"role": "user", "type": "text", "texts": ["abcdef", "g"]}]
    assert span.attributes["messages"] == kept


def test_what_waits_for_the_hook_is_bounded() -> None:
    """A trace that waits for its decision must not hold a book for each step; the hook sees what is held."""
    seen: list[int] = []

    def hook(text: str) -> str:
        seen.append(len(text))
        return text

    async def work(traces: TraceLogger) -> None:
        with traces.span("step") as span:
            for number in range(3):
                span.content(f"text {number}", "x" * 1_000)
            assert [len(str(each)) for each in span.content_by_name.values()] == [100, 100]

    policy = TracePolicy(
        capture_content=True, max_raw_chars=100, max_content_chars=20, max_attributes=2
    )
    (span,) = traced(work, policy, redact=hook)
    assert seen == [100, 100]
    assert span.attributes["lost_attributes_and_events"] == 1
    assert span.attributes["text 1"] == "x" * 20


# --- sampling ---------------------------------------------------------------------------------------------


async def requests(traces: TraceLogger, count: int = 100) -> None:
    """Requests of two steps; the tenth of each ten fails, the fifth is slow."""
    for number in range(count):
        with suppress(Overloaded), traces.span("answer"):
            await asyncio.sleep(3 if number % 10 == 5 else 0.1)
            with traces.span("generate"):
                if number % 10 == 9:
                    raise Overloaded("busy")


def test_drawn_traces_are_whole() -> None:
    """And about as many as the rate says."""
    policy = TracePolicy(sample_rate=0.3, keep_errors=False)
    spans = traced(requests, policy)
    traces = {span.trace_id for span in spans}
    assert len(spans) == 2 * len(traces)
    assert 20 <= len(traces) <= 40


def test_failures_and_slow_requests_are_kept_at_any_rate() -> None:
    """Whole, and marked: an average over kept traces has to be weighted."""
    policy = TracePolicy(sample_rate=0.0, keep_slower_than=2)
    spans = traced(requests, policy)
    assert len(spans) == 40
    assert {span.kept_by for span in spans} == {"error", "slow"}
    assert sum(span.kept_by == "error" for span in spans) == 20
    assert {span.sample_rate for span in spans} == {0.0}


def test_a_weight_for_each_kept_trace_gives_the_true_counts() -> None:
    """1 for what is always kept, 1 over the rate for what was drawn: the share of failures comes out right."""
    spans = traced(lambda traces: requests(traces, 1_000), TracePolicy(sample_rate=0.25))
    roots = [span for span in spans if span.parent_id is None]
    weights = [1.0 if span.status == "error" else 1 / (span.sample_rate or 1) for span in roots]
    failed = sum(span.status == "error" for span in roots)
    assert failed == 100
    assert failed / len(roots) > 0.25
    assert failed / sum(weights) == pytest.approx(0.1, rel=0.15)


def test_what_is_not_kept_costs_no_record() -> None:
    """Without a rule for the tail there is nothing to remember."""

    async def work(traces: TraceLogger) -> None:
        with traces.span("answer") as span:
            assert not span.recording
            span.set("a", 1)
            span.event("b")
        seen = traces.statistics()
        assert (seen.ended, seen.discarded, seen.buffered) == (1, 1, 0)

    assert not traced(work, TracePolicy(sample_rate=0, keep_errors=False))


def test_a_buffer_that_is_full_forgets_the_oldest_trace_and_says_so() -> None:
    """If that one fails later, its root says how much is missing."""
    events: list[object] = []

    async def work(traces: TraceLogger) -> None:
        with suppress(Overloaded), traces.span("old"):
            for _ in range(2):
                with traces.span("forgotten"):
                    pass
            young = traces.span("young", parent=SpanContext(1, 2, sampled=False))
            with young, traces.span("remembered"):
                pass
            raise Overloaded("busy")

    policy = TracePolicy(sample_rate=0, max_buffered_spans=2)
    (span,) = traced(work, policy, on_event=events.append)
    assert (span.name, span.attributes["evicted_spans"]) == ("old", 2)
    assert events == [TraceEvicted(2)]


def test_a_trace_that_nobody_ends_stays_bounded() -> None:
    """A root that is leaked keeps no more than the bound."""

    async def work(traces: TraceLogger) -> None:
        traces.span("leaked").__enter__()
        for _ in range(50):
            with traces.span("step"):
                pass
        seen = traces.statistics()
        assert seen.buffered <= 10
        assert (seen.buffered + seen.evicted, seen.open) == (50, 1)

    traced(work, TracePolicy(sample_rate=0, max_buffered_spans=10))


# --- across services -----------------------------------------------------------------------------------


def test_a_trace_goes_on_in_the_next_service() -> None:
    """Two services, two loggers, one trace; the caller's decision counts."""
    here, there = MemorySink(), MemorySink()

    async def main() -> None:
        caller = TraceLogger(TracePolicy(sample_rate=0.0), sink=here)
        called = TraceLogger(TracePolicy(sample_rate=1.0), sink=there)
        with caller.span("call") as call:
            headers = trace_headers(current_context())
            assert headers["traceparent"].endswith("-00")
        await asyncio.create_task(serve(called, headers))
        assert call.context.trace_id == remote_parent(headers).trace_id  # type: ignore[union-attr]

    async def serve(traces: TraceLogger, headers: dict[str, str]) -> None:
        with pytest.raises(Overloaded), traces.span("serve", parent=remote_parent(headers)):
            raise Overloaded("busy")

    simulate(main)
    (served,) = there.spans
    assert not here.spans
    assert (served.kept_by, served.sample_rate) == ("error", None)


def test_two_loggers_share_a_trace_but_not_its_fate() -> None:
    """A step of another logger's is a parent like another service's."""
    mine, other = MemorySink(), MemorySink()

    async def main() -> None:
        with (
            TraceLogger(sink=mine).span("outer") as outer,
            TraceLogger(sink=other).span("inner") as inner,
        ):
            assert inner.parent_id == outer.context.span_id

    simulate(main)
    assert mine.spans[0].trace_id == other.spans[0].trace_id


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00-0-0-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later",
        "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01later",
    ],
)
def test_a_header_that_is_not_well_formed_is_no_header(header: str) -> None:
    """The trace begins anew."""
    assert remote_parent({"traceparent": header}) is None


def test_a_header_of_a_later_version_is_understood() -> None:
    """It may go on after the flags, of which only the first bit counts."""
    header = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0b-what-comes"
    parent = remote_parent({"x": "y", "TRACEPARENT": header})
    assert parent == SpanContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0xF067AA0BA902B7, sampled=True)
    assert trace_headers(None) == {}


# --- the rest ----------------------------------------------------------------------------------------------


def test_runs_repeat_and_another_seed_gives_other_ids() -> None:
    """Ids come from the simulation's chance, or from the source that was passed."""

    def run(seed: int, rng: Random | None = None) -> list[FinishedSpan]:
        sink = MemorySink()

        async def main() -> None:
            await requests(TraceLogger(TracePolicy(sample_rate=0.3), sink=sink, rng=rng))

        simulate(main, seed=seed)
        return list(sink.spans)

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert run(1, Random(7)) == run(2, Random(7))


def test_a_sink_that_fails_breaks_no_call(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, and counted from then on."""

    class Broken(MemorySink):
        def put(self, span: FinishedSpan) -> None:
            raise OSError("no")

    traces = TraceLogger(sink=Broken())

    async def main() -> None:
        for _ in range(3):
            with traces.span("step"):
                pass

    with caplog.at_level(logging.ERROR):
        simulate(main)
    assert traces.statistics().sink_errors == 3
    assert len(caplog.records) == 1


def test_a_tee_gives_each_span_to_all() -> None:
    """Memory and memory."""
    one, two = MemorySink(), MemorySink(max_spans=1)

    async def main() -> None:
        traces = TraceLogger(sink=tee(one, two))
        for _ in range(2):
            with traces.span("step"):
                pass
        assert await traces.flush(limit=1)

    simulate(main)
    assert (len(one.spans), len(two.spans)) == (2, 1)


def test_only_one_sink_gives_the_ids() -> None:
    """Two that would are refused when they are joined."""
    live: Any = SimpleNamespace(put=print, flush=print, start=print, current=print)
    with pytest.raises(ConfigurationError, match="2 sinks"):
        tee(live, live)


@pytest.mark.parametrize(
    "wrong", [{"sample_rate": 1.5}, {"max_buffered_spans": 0}, {"redact_timeout": 0}, {"rate": 1}]
)
def test_a_policy_that_can_not_work_is_refused(wrong: dict[str, Any]) -> None:
    """When it is made."""
    with pytest.raises(ValidationError):
        TracePolicy(**wrong)
