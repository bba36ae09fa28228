"""What one recorded step costs its caller: begun, given two attributes, ended and queued, in a running loop.

Every subject writes to the same place, `/dev/null`, from a thread of its own, so that what is compared is what the
caller pays for: the same span in OpenTelemetry's SDK behind its batch processor, and a line of as many facts through
`logging` with a `QueueHandler`, which is a record and no span. Queues are large enough to lose nothing, and are emptied
between the rounds; a tenth of the spans is kept where it says so. The time is the processor's, of the caller's thread:
what it waits for the interpreter's lock while a writer encodes is not in it, nor what other programs take.
"""

import asyncio
import json
import logging
import logging.handlers
import queue
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter, thread_time
from typing import TextIO

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from course.benchmarks import Row
from llm_patterns.toolkit import (
    JsonLinesPolicy,
    JsonLinesSink,
    MemorySink,
    TraceLogger,
    TracePolicy,
)
from tests.benchmarks.rounds import interleaved, middle, ratio

PEERS = ("opentelemetry-sdk",)
ROUNDS = 15
SPANS = 5_000
OURS = "TraceLogger, JSON lines"
DISK = Path("/dev/null")
LARGE = JsonLinesPolicy(max_queue=100_000)

Subject = tuple[Callable[[], None], Callable[[], object]]
"""What records one step, and what empties the queue."""


class ToNowhere(SpanExporter):
    """Encodes spans as OpenTelemetry's console exporter does, and writes them to the disk of the others."""

    def __init__(self, disk: TextIO) -> None:
        self._disk = disk

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write a batch."""
        self._disk.writelines(span.to_json(indent=None) + "\n" for span in spans)
        return SpanExportResult.SUCCESS


def ours(policy: TracePolicy, sink: JsonLinesSink | MemorySink) -> Subject:
    """A step of ours."""
    traces = TraceLogger(policy, sink=sink)

    def step() -> None:
        with traces.span("retrieve") as span:
            span.set("documents", 4)
            span.set("index", "wiki")

    return step, partial(sink.flush, 60)


def opentelemetry(rate: float, disk: TextIO) -> Subject:
    """The same in OpenTelemetry."""
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(rate)))
    provider.add_span_processor(BatchSpanProcessor(ToNowhere(disk), max_queue_size=100_000))
    tracer = provider.get_tracer("benchmark")

    def step() -> None:
        with tracer.start_as_current_span("retrieve") as span:
            span.set_attribute("documents", 4)
            span.set_attribute("index", "wiki")

    return step, partial(provider.force_flush, 60_000)


def logged(disk: TextIO) -> Subject:
    """A line with a duration and two facts, through a queue to a listener's thread."""
    lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    logger = logging.Logger("benchmark", logging.INFO)
    logger.addHandler(logging.handlers.QueueHandler(lines))
    listener = logging.handlers.QueueListener(lines, logging.StreamHandler(disk))
    listener.start()

    def step() -> None:
        start = perf_counter()
        facts = {"name": "retrieve", "documents": 4, "index": "wiki"}
        logger.info(json.dumps({**facts, "duration": perf_counter() - start}))

    def flush() -> None:
        while not lines.empty():
            pass

    return step, flush


async def microseconds(step: Callable[[], None]) -> float:
    """Return the processor time of one step, averaged over many, with a turn of the loop after each hundred."""
    start = thread_time()
    for number in range(SPANS):
        step()
        if number % 100 == 0:
            await asyncio.sleep(0)
    return (thread_time() - start) / SPANS * 1e6


def timed(runner: asyncio.Runner, subject: Subject) -> float:
    """Return the microseconds of one step; its queue is empty before and after."""
    step, flush = subject
    measured = runner.run(microseconds(step))
    flush()
    return measured


def measure() -> list[Row]:
    """Return the microseconds of a recorded step, and how many times ours that is."""
    everything, tenth = TracePolicy(), TracePolicy(sample_rate=0.1)
    drawn = TracePolicy(sample_rate=0.1, keep_errors=False)
    with asyncio.Runner() as runner, DISK.open("w") as disk:
        subjects = {
            OURS: ours(everything, JsonLinesSink(DISK, LARGE)),
            "TraceLogger, memory": ours(everything, MemorySink(max_spans=10)),
            "TraceLogger, a tenth and all errors": ours(tenth, JsonLinesSink(DISK, LARGE)),
            "TraceLogger, a tenth": ours(drawn, JsonLinesSink(DISK, LARGE)),
            "OpenTelemetry SDK": opentelemetry(1.0, disk),
            "OpenTelemetry SDK, a tenth": opentelemetry(0.1, disk),
            "logging, QueueHandler": logged(disk),
        }
        samples = interleaved(
            {name: partial(timed, runner, subject) for name, subject in subjects.items()},
            rounds=ROUNDS,
        )
    return [
        {
            "Recorder": name,
            "Times ours": ratio(samples, name, OURS),
            **middle(samples[name]),
            "Unit": "µs a step",
        }
        for name in samples
    ]
