"""The trace logger on real threads, real files and pipes, real clients, and OpenTelemetry's SDK.

No time is measured here. That a call did not wait is shown by order: it is over while the writer provably still waits,
for a lock that the test holds, a pipe that nobody reads, or a hook that has not returned.
"""

import asyncio
import gc
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedWriter, FileIO, RawIOBase
from pathlib import Path
from random import Random
from typing import Any

import anthropic
import openai
import pytest
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace._sampling_experimental import (
    composable_traceid_ratio_based,
    composite_sampler,
)
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from llm_patterns.chat import ChatRequest, Message
from llm_patterns.errors import ConfigurationError, Overloaded
from llm_patterns.layers import LayeredModel
from llm_patterns.simulation import ConstantLatency, SimulatedProvider, fixed, simulate
from llm_patterns.simulation.transport import SimulatedTransport
from llm_patterns.toolkit import (
    JsonLinesPolicy,
    JsonLinesSink,
    MemorySink,
    OpenTelemetrySink,
    TraceFile,
    TraceLogger,
    TracePolicy,
    current_context,
    read_lines,
    remote_parent,
    tee,
    trace_headers,
)
from llm_patterns.toolkit.spans import keeps

httpx2 = pytest.importorskip("httpx2")

QUICK = JsonLinesPolicy(flush_interval=0.01, retry_delay=0.01)
SECRET = "my divorce"


def read(path: Path) -> TraceFile:
    """What a file holds."""
    with path.open("rb") as lines:
        return read_lines(lines)


async def work(traces: TraceLogger, *, steps: int = 20) -> list[int]:
    """Steps in tasks of a group, and what they return."""

    async def step(number: int) -> int:
        with traces.span(f"step {number}"):
            await asyncio.sleep(0)
        return number

    with traces.span("work"):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(step(number)) for number in range(steps)]
    return [task.result() for task in tasks]


# --- disks -------------------------------------------------------------------------------------------


def test_spans_are_in_the_file_when_the_sink_is_closed(tmp_path: Path) -> None:
    """Written by a thread, in batches."""
    sink = JsonLinesSink(tmp_path / "traces.jsonl")

    async def main() -> None:
        traces = TraceLogger(sink=sink)
        await work(traces)
        assert await traces.flush(limit=5)

    asyncio.run(main())
    assert sink.close(5)
    assert len(read(tmp_path / "traces.jsonl").spans) == 21


def test_spans_are_written_without_being_asked_for(tmp_path: Path) -> None:
    """After the interval at the latest: another process can read along."""
    path = tmp_path / "traces.jsonl"
    sink = JsonLinesSink(path, QUICK)
    TraceLogger(sink=sink).span("step").end()
    while not (path.exists() and read(path).spans):
        threading.Event().wait(0.005)
    assert sink.close(5)


class Blocked(RawIOBase):
    """A disk that takes nothing while the test holds the lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reached = threading.Event()
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.reached.set()
        with self.lock:
            self.content += bytes(data)
        return len(data)


def test_no_call_waits_for_a_disk_that_hangs() -> None:
    """All calls are over while the writer waits for the lock; the rest is bounded, counted and announced."""
    disk = Blocked()
    sink = JsonLinesSink(disk, JsonLinesPolicy(max_queue=8, max_batch=4, flush_interval=0.01))
    traces = TraceLogger(sink=sink)
    with disk.lock:
        traces.span("first").end()
        assert disk.reached.wait(10)
        assert asyncio.run(work(traces, steps=100)) == list(range(100))
        assert not sink.flush(0.01)
        seen = sink.statistics()
        assert (seen.received, seen.written, seen.queued) == (102, 0, 8)
    assert sink.flush(10)
    assert sink.close(10)
    found = read_lines(disk.content.splitlines(keepends=True))
    assert (len(found.spans), found.dropped, found.torn) == (8, 94, 0)
    assert found.spans[-1].name == "work"


def test_a_sink_that_hangs_is_left_behind_at_its_end() -> None:
    """Closing has a limit too, and says that something is missing."""
    disk = Blocked()
    sink = JsonLinesSink(disk, QUICK)
    with disk.lock:
        TraceLogger(sink=sink).span("step").end()
        assert disk.reached.wait(10)
        assert not sink.close(0.01)


def test_no_call_waits_for_a_pipe_without_a_reader(tmp_path: Path) -> None:
    """The writer hangs in the opening of it, until somebody reads."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    sink = JsonLinesSink(path, QUICK)
    assert asyncio.run(work(TraceLogger(sink=sink))) == list(range(20))
    assert sink.statistics().written == 0
    with path.open("rb") as pipe:
        assert sink.flush(10)
        assert sink.close(10)
        assert len(read_lines(pipe).spans) == 21


def test_a_reader_who_leaves_costs_half_a_line_at_most(tmp_path: Path) -> None:
    """The pipe breaks, is opened anew, and the line that was cut is written again as a whole."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    sink = JsonLinesSink(path, QUICK)
    traces = TraceLogger(sink=sink)

    def steps(first: int) -> None:
        for number in range(first, first + 5):
            with traces.span("step", attributes={"number": number, "long": "x" * 1_000}):
                pass

    steps(0)
    descriptor = os.open(path, os.O_RDONLY)
    assert len(read_lines([os.read(descriptor, 10)]).spans) == 0
    os.close(descriptor)
    steps(5)
    while not sink.statistics().errors:
        steps(10)
        threading.Event().wait(0.005)
    with path.open("rb") as pipe:
        assert sink.close(10)
        found = read_lines(pipe)
    assert "BrokenPipeError" in str(sink.statistics().last_error)
    assert found.torn == 0
    assert found.spans


def test_a_full_disk_fails_no_call() -> None:
    """Every write fails, and is counted."""
    sink = JsonLinesSink("/dev/full", QUICK)
    assert asyncio.run(work(TraceLogger(sink=sink))) == list(range(20))
    assert not sink.flush(0.05)
    seen = sink.statistics()
    assert (seen.received, seen.written, seen.queued) == (21, 0, 21)
    assert "No space left on device" in str(seen.last_error)
    assert not sink.close(0.05)


def test_a_pipe_that_is_full_and_would_not_wait_is_tried_again() -> None:
    """What fits is taken, the rest later: lines stay whole."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    stream = BufferedWriter(FileIO(writer, "w"))
    sink = JsonLinesSink(stream, QUICK)
    traces = TraceLogger(sink=sink)
    for number in range(200):
        traces.span("step", attributes={"n": number, "long": "x" * 1_000}).end()
    assert not sink.flush(0.05)
    content = b""
    while len(read_lines(content.splitlines(keepends=True)).spans) < 200:
        content += os.read(reader, 65_536)
    assert sink.close(10)
    stream.close()
    os.close(reader)
    assert [span.attributes["n"] for span in read_lines(content.splitlines(True)).spans] == [
        *range(200)
    ]


def test_a_stream_that_somebody_closes_is_an_error_like_others(tmp_path: Path) -> None:
    """The writer goes on, and so do the calls."""
    stream = (tmp_path / "traces.jsonl").open("wb")
    sink = JsonLinesSink(stream, QUICK)
    stream.close()
    assert asyncio.run(work(TraceLogger(sink=sink))) == list(range(20))
    assert not sink.flush(0.05)
    assert "ValueError" in str(sink.statistics().last_error)
    sink.close(0)


PROGRAM = """
import os, sys
from llm_patterns.toolkit import JsonLinesPolicy, JsonLinesSink, TraceLogger
sink = JsonLinesSink(sys.argv[1], JsonLinesPolicy(exit_timeout=float(sys.argv[2])))
traces = TraceLogger(sink=sink)
for _ in range(3):
    traces.span("step").end()
{more}
"""


def run(path: str, *, timeout: float = 30, more: str = "", exit_timeout: float = 5) -> str:
    """Run a program that leaves spans behind."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM.format(more=more), path]
    done = subprocess.run(
        [*command, str(exit_timeout)],
        check=True,
        timeout=timeout,
        capture_output=True,
        text=True,
    )
    assert not done.stderr
    return done.stdout


def test_the_end_of_a_program_writes_what_waits(tmp_path: Path) -> None:
    """Nobody has to remember."""
    run(str(tmp_path / "traces.jsonl"))
    assert len(read(tmp_path / "traces.jsonl").spans) == 3


def test_the_end_of_a_program_does_not_wait_for_a_disk_that_hangs(tmp_path: Path) -> None:
    """Here a pipe that nobody ever reads."""
    os.mkfifo(tmp_path / "pipe")
    run(str(tmp_path / "pipe"), exit_timeout=0.1)


FORK = """
child = os.fork()
for _ in range(2):
    traces.span("after").end()
if child:
    os.waitpid(child, 0)
else:
    assert sink.close(5)
    os._exit(0)
"""


def test_a_forked_worker_writes_its_own_spans_and_draws_its_own_ids(tmp_path: Path) -> None:
    """Not the parent's once more; and not its random numbers, which would give two requests one id."""
    more = f"import warnings; warnings.simplefilter('ignore')\n{FORK}"
    run(str(tmp_path / "traces.jsonl"), more=more)
    names = [span.name for span in read(tmp_path / "traces.jsonl").spans]
    ids = {span.span_id for span in read(tmp_path / "traces.jsonl").spans}
    assert sorted(names) == ["after"] * 4 + ["step"] * 3
    assert len(ids) == 7


# --- hooks and threads ---------------------------------------------------------------------------------


def test_no_call_waits_for_a_hook_that_hangs() -> None:
    """The span goes without its texts when the time is up, and later ones at once."""
    sink, release, reached = MemorySink(), threading.Event(), threading.Event()

    def hook(text: str) -> str:
        reached.set()
        assert release.wait(30)
        return text

    async def main() -> None:
        policy = TracePolicy(capture_content=True, redact_timeout=0.02, max_redacting=2)
        traces = TraceLogger(policy, sink=sink, redact=hook)
        for _ in range(4):
            with traces.span("step") as span:
                span.content("question", SECRET)
        assert len(sink.spans) == 2
        assert await traces.flush(limit=10)
        assert reached.is_set()
        release.set()
        async with asyncio.timeout(10):
            while traces._redactor._running:  # noqa: ASYNC110 - of another thread
                await asyncio.sleep(0.001)
        with traces.span("later") as span:
            span.content("question", "harmless")
        assert await traces.flush(limit=10)

    asyncio.run(main())
    reasons = [span.attributes.get("redaction.failed") for span in sink.spans]
    assert reasons == ["busy", "busy", "timeout", "timeout", None]
    assert SECRET not in str(sink.spans)


def test_a_hook_works_in_its_own_thread() -> None:
    """The loop turns meanwhile; a hook that ends its thread by force costs the text."""
    sink, threads = MemorySink(), []

    def hook(text: str) -> str:
        threads.append(threading.current_thread())
        if text == "stop":
            raise SystemExit
        return text.replace(SECRET, "[x]")

    async def main() -> None:
        traces = TraceLogger(TracePolicy(capture_content=True), sink=sink, redact=hook)
        for text in (SECRET, "stop"):
            with traces.span("step") as span:
                span.content("question", text)
        assert await traces.flush(limit=10)

    asyncio.run(main())
    assert [span.attributes["question"] for span in sink.spans] == ["[x]", "[withheld]"]
    assert threading.current_thread() not in threads


def test_steps_in_threads_belong_to_the_step_that_started_them() -> None:
    """Each thread has its own current span; ids stay apart."""
    sink = MemorySink()
    traces = TraceLogger(sink=sink)

    def in_thread(number: int) -> None:
        with traces.span(f"thread {number}"):
            for _ in range(50):
                traces.span("inner").end()

    async def main() -> None:
        with traces.span("work"):
            await asyncio.gather(*(asyncio.to_thread(in_thread, n) for n in range(8)))

    asyncio.run(main())
    by_id = {span.span_id: span for span in sink.spans}
    assert len(by_id) == 8 * 51 + 1
    for span in sink.spans:
        expected = {"inner": "thread", "thread": "work"}.get(span.name.split()[0])
        assert expected is None or by_id[span.parent_id or 0].name.startswith(expected)
    seen = traces.statistics()
    assert seen.started == seen.ended == seen.kept["head"] == 409


def test_spans_that_the_garbage_collector_ends_disturb_nobody(tmp_path: Path) -> None:
    """Abandoned streams in cycles, collected in the middle of puts, by whichever thread."""
    sink = JsonLinesSink(tmp_path / "traces.jsonl", QUICK)

    async def main() -> None:
        traces = TraceLogger(sink=sink)

        async def pieces() -> Any:
            yield 1
            yield 2

        for _ in range(300):
            cycle: list[Any] = [traces.stream(pieces(), span=traces.span("stream"))]
            cycle.append(cycle)
            await anext(cycle[0])
            with traces.span("step"):
                pass
        del cycle
        await asyncio.to_thread(gc.collect)
        await asyncio.sleep(0)
        assert traces.statistics().open == 0
        assert await traces.flush(limit=10)

    thresholds = gc.get_threshold()
    gc.set_threshold(50, 2, 2)
    try:
        asyncio.run(main())
    finally:
        gc.set_threshold(*thresholds)
    assert sink.close(10)
    assert len(read(tmp_path / "traces.jsonl").spans) == 600


# --- real clients ----------------------------------------------------------------------------------------


def answering() -> Any:
    """An HTTP client whose other end is the simulated provider."""
    simulated = SimulatedProvider(
        latency=ConstantLatency(0.5, 0.1), responder=fixed("Hello, reader.")
    )
    return httpx2.AsyncClient(transport=SimulatedTransport(simulated))


async def ask_openai(traces: TraceLogger) -> None:
    """A completion, and a stream of one."""
    async with openai.AsyncOpenAI(
        base_url="http://simulated/v1", api_key="key", http_client=answering(), max_retries=0
    ) as client:
        ask = traces.layer()(client.chat.completions.create)
        messages: Any = [{"role": "user", "content": SECRET}]
        await ask(model="small", messages=messages, max_tokens=50)
        stream: Any = await ask(
            model="small",
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
        )
        async with stream:
            assert (
                "".join(
                    [
                        chunk.choices[0].delta.content or ""
                        async for chunk in stream
                        if chunk.choices
                    ]
                )
                == "Hello, reader."
            )


async def ask_anthropic(traces: TraceLogger) -> None:
    """A message, and a stream of one."""
    async with anthropic.AsyncAnthropic(
        base_url="http://simulated", api_key="key", http_client=answering(), max_retries=0
    ) as client:
        ask = traces.layer()(client.messages.create)
        messages: Any = [{"role": "user", "content": SECRET}]
        await ask(model="small", messages=messages, max_tokens=50)
        stream: Any = await ask(model="small", messages=messages, max_tokens=50, stream=True)
        async for _ in stream:
            pass


@pytest.mark.parametrize("ask", [ask_openai, ask_anthropic], ids=["openai", "anthropic"])
def test_the_vendors_own_clients_are_understood(ask: Any) -> None:
    """Whole and streamed, with the vendor's name, the usage, and the text where it is wanted."""
    sink = MemorySink()

    async def main() -> None:
        policy = TracePolicy(capture_content=True)
        await ask(TraceLogger(policy, sink=sink, redact=lambda text: text.replace(SECRET, "[x]")))

    simulate(main)
    whole, streamed = (dict(span.attributes) for span in sink.spans)
    for told in (whole, streamed):
        assert told["gen_ai.provider.name"] in {"openai", "anthropic"}
        assert told["gen_ai.request.model"] == told["gen_ai.response.model"] == "small"
        assert told["gen_ai.response.finish_reasons"] in (["stop"], ["end_turn"])
        assert told["gen_ai.usage.input_tokens"] == 3
        assert told["gen_ai.usage.output_tokens"] == 4
        assert told["gen_ai.input.messages"][0]["parts"][0]["content"] == "[x]"
        assert told["gen_ai.output.messages"][0]["parts"][0]["content"] == "Hello, reader."
    assert streamed["gen_ai.response.time_to_first_chunk"] == 0.5
    assert whole["gen_ai.response.id"]


# --- OpenTelemetry -------------------------------------------------------------------------------------


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """What OpenTelemetry would have sent."""
    return InMemorySpanExporter()


@pytest.fixture
def backend(exporter: InMemorySpanExporter) -> Iterator[TracerProvider]:
    """OpenTelemetry's SDK, exporting to memory."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


def agent(traces: TraceLogger) -> Any:
    """A run with tasks, an error, a cancellation, a stream and an event."""

    async def main() -> None:
        simulated = SimulatedProvider(latency=ConstantLatency(0.5, 0.1))
        model = LayeredModel(simulated, traces.layer(provider="house"))
        request = ChatRequest(model="small", messages=(Message.user("Hi"),))

        async def step(number: int) -> None:
            with traces.span("step", attributes={"number": number}) as span:
                span.event("retried", {"delay": 0.25})
                async with asyncio.timeout(None if number else 0.5):
                    await model.complete(request)

        with traces.span("agent", kind="server") as span:
            span.set("parts", [{"a": 1}])
            async with asyncio.TaskGroup() as group:
                for number in range(2):
                    group.create_task(quietly(step(number)))
            async for _ in await model.stream(request):
                pass
            with pytest.raises(Overloaded), traces.span("fails"):
                raise Overloaded(SECRET)

    return main


async def quietly(step: Any) -> None:
    """Run a step whose time may be up."""
    with suppress(TimeoutError):
        await step


def test_opentelemetry_gets_what_the_file_gets(
    tmp_path: Path, backend: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """The same run in both: names, ids, parents, times, status, attributes, events."""
    path = tmp_path / "traces.jsonl"
    file = JsonLinesSink(path)
    simulate(agent(TraceLogger(sink=tee(file, OpenTelemetrySink(backend)))))
    assert file.close(5)
    exported = {span.context.span_id: span for span in exporter.get_finished_spans()}
    lines = read(path).spans
    assert len(lines) == len(exported) == 7
    for line in lines:
        span = exported[line.span_id]
        assert (span.name, span.kind.name.lower()) == (line.name, line.kind)
        assert span.context.trace_id == line.trace_id
        assert (span.parent.span_id if span.parent else None) == line.parent_id
        assert span.start_time == round(line.start_time * 1e6) * 1_000
        assert span.end_time - span.start_time == pytest.approx(line.duration * 1e9, abs=1e3)
        assert (span.status.status_code.name == "ERROR") == (line.status == "error")
        attributes = dict(span.attributes)
        assert attributes.pop("cancelled", False) == (line.status == "cancelled")
        plain = {
            name: json.dumps(value)
            if isinstance(value, list) and isinstance(value[0], dict)
            else tuple(value)
            if isinstance(value, list)
            else value
            for name, value in line.attributes.items()
        }
        assert attributes == plain
        assert [event.name for event in span.events] == [event.name for event in line.events]
    assert {line.status for line in lines} == {"ok", "error", "cancelled"}
    assert SECRET not in path.read_text() + str([span.to_json() for span in exported.values()])


def test_other_libraries_spans_nest_in_ours_and_ours_in_theirs(
    backend: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """A web framework's around it, an HTTP client's within; and nothing stays current."""
    tracer = backend.get_tracer("framework")

    async def main() -> None:
        traces = TraceLogger(sink=OpenTelemetrySink(backend))
        get, post = map(tracer.start_as_current_span, ("GET /answer", "POST"))
        with get, traces.span("answer"), post:
            traces.span("inner").end()
        assert not otel.get_current_span().get_span_context().is_valid

    asyncio.run(main())
    spans = {span.name: span for span in exporter.get_finished_spans()}
    parents = {
        name: next(
            other for other, each in spans.items() if span.parent and each.context == span.parent
        )
        for name, span in spans.items()
        if span.parent
    }
    assert parents == {"answer": "GET /answer", "POST": "answer", "inner": "POST"}


def test_a_generator_closed_in_another_task_leaves_no_error_and_no_wrong_parent(
    backend: TracerProvider, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    """OpenTelemetry's own block logs an error there."""

    async def holding(block: Any) -> Any:
        with block:
            yield 1

    async def abandon(block: Any) -> None:
        pieces = holding(block)
        await anext(pieces)
        await asyncio.create_task(pieces.aclose())

    async def main() -> None:
        traces = TraceLogger(sink=OpenTelemetrySink(backend))
        with traces.span("reader") as reader:
            await abandon(traces.span("held"))
            with traces.span("next") as after:
                assert after.parent_id == reader.context.span_id

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
        assert not caplog.records
        asyncio.run(abandon(backend.get_tracer("theirs").start_as_current_span("held")))
        assert "Failed to detach context" in caplog.text


def test_a_trace_that_is_not_kept_is_not_exported(exporter: InMemorySpanExporter) -> None:
    """The provider's sampler decides, and nobody else hears of the rest either."""
    provider = TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    memory = MemorySink()

    async def main() -> None:
        traces = TraceLogger(
            TracePolicy(keep_errors=False), sink=tee(memory, OpenTelemetrySink(provider))
        )
        await work(traces)
        assert traces.statistics().discarded == 21

    asyncio.run(main())
    assert not exporter.get_finished_spans()
    assert not memory.spans


def test_without_an_sdk_spans_have_ids_all_the_same() -> None:
    """The API alone gives none."""
    memory = MemorySink()

    async def main() -> None:
        traces = TraceLogger(sink=tee(memory, OpenTelemetrySink(otel.NoOpTracerProvider())))
        await work(traces, steps=1)
        assert await traces.flush(limit=1)

    asyncio.run(main())
    assert all(span.trace_id for span in memory.spans)
    assert memory.spans[0].parent_id == memory.spans[1].span_id


def test_a_processor_that_fails_breaks_no_call(caplog: pytest.LogCaptureFixture) -> None:
    """OpenTelemetry lets its error through; here it is logged once, and counted."""

    class Broken(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            raise RuntimeError("no")

    provider = TracerProvider()
    provider.add_span_processor(Broken())
    traces = TraceLogger(sink=OpenTelemetrySink(provider))
    assert asyncio.run(work(traces, steps=3)) == [0, 1, 2]
    assert traces.statistics().sink_errors == 4
    assert len(caplog.records) == 1


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says what works without it."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError, match=r"\[otel\].*JsonLinesSink"):
        OpenTelemetrySink()


def test_the_header_is_opentelemetrys(backend: TracerProvider) -> None:
    """Its propagator reads what we send, and we read what it sends."""
    propagator = TraceContextTextMapPropagator()

    async def main() -> None:
        with TraceLogger(sink=MemorySink()).span("call") as span:
            context = propagator.extract(trace_headers(current_context()))
            theirs = otel.get_current_span(context).get_span_context()
            assert (theirs.trace_id, theirs.span_id) == span.context[:2]
            assert theirs.trace_flags.sampled
        sent: dict[str, str] = {}
        with backend.get_tracer("theirs").start_as_current_span("call") as other:
            propagator.inject(sent)
            ids = other.get_span_context()
        parent = remote_parent(sent)
        assert parent is not None
        assert parent[:3] == (ids.trace_id, ids.span_id, True)

    asyncio.run(main())


def test_the_rate_keeps_the_traces_that_opentelemetrys_consistent_sampler_keeps() -> None:
    """By the same bits, at the same threshold."""
    rng = Random(1)
    for rate in (0.0, 0.001, 0.1, 1 / 3, 0.999, 1.0):
        sampler = composite_sampler(composable_traceid_ratio_based(rate))
        for _ in range(500):
            trace_id = rng.getrandbits(128)
            theirs = sampler.should_sample(None, trace_id, "step").decision.is_sampled()
            assert keeps(trace_id, rate) == theirs
