"""Where do finished spans go? To memory, to several places, or to whatever backend OpenTelemetry feeds.

A sink is anything that takes a finished span at once. OpenTelemetry wants to know of a span from its beginning, and
gives it its ids: so that the spans of other libraries nest within ours, and ours within theirs.

Invariants:

1. `put` waits for nothing.
2. In OpenTelemetry a span has the parent, the beginning, the end, the status and the events that it has here.
3. A span that was not kept is never ended in OpenTelemetry, and so never exported.

>>> sink = MemorySink(max_spans=1)
>>> for number in (1, 2):
...     sink.put(FinishedSpan("step", 1, number, None, 1767571200.0, 0.5))
>>> [span.span_id for span in sink.spans]
[2]

The file's sink is in `json_lines`. Source: OpenTelemetry's tracing API, whose package the extra `otel` installs.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, runtime_checkable
from weakref import WeakSet

from llm_patterns.errors import ConfigurationError
from llm_patterns.toolkit.spans import FinishedSpan, SpanContext, SpanKind

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["LiveSink", "MemorySink", "OpenTelemetrySink", "TraceSink", "tee"]

_NANOSECONDS: Final = 1_000_000_000


class TraceSink(Protocol):
    """Takes finished spans, from any thread."""

    def put(self, span: FinishedSpan) -> None:
        """Take *span* at once, waiting for nothing."""

    def flush(self, timeout: float) -> bool:
        """Return whether all that was put before is out, waiting at most *timeout* seconds for it."""


@runtime_checkable
class LiveSink(TraceSink, Protocol):
    """A sink that follows spans from their beginning, and gives them their ids."""

    def start(
        self, name: str, *, kind: SpanKind, start_time: float, parent: SpanContext | None
    ) -> tuple[SpanContext, int | None]:
        """Return the ids of a span that begins, with the sink's own span as `handle`, and its parent's id."""

    def current(self, context: SpanContext) -> AbstractContextManager[object]:
        """Make the span of *context* the current one for those who ask the sink's own library."""


class MemorySink:
    """Keeps the last *max_spans* in `spans`: for tests and notebooks."""

    def __init__(self, *, max_spans: int = 100_000) -> None:
        self.spans: deque[FinishedSpan] = deque(maxlen=max_spans)

    def put(self, span: FinishedSpan) -> None:
        """Keep *span*."""
        self.spans.append(span)

    def flush(self, timeout: float) -> bool:
        """Return True: nothing waits here."""
        return True


class OpenTelemetrySink:
    """Hands spans to OpenTelemetry, of *provider* or the one that the process has set.

    Whether a trace is drawn is then the provider's sampler to say, so leave `sample_rate` at 1. Its processor decides
    what a slow backend costs: with a `BatchSpanProcessor` spans are dropped, and no call waits.

    Raises:
        ConfigurationError: if OpenTelemetry's API is not installed.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        try:
            from opentelemetry import trace  # noqa: PLC0415 - the extra's
        except ImportError as error:
            raise ConfigurationError(
                "OpenTelemetrySink needs opentelemetry-api: install production-llm-patterns[otel], "
                "or write the spans with JsonLinesSink"
            ) from error
        self._trace = trace
        self._provider = provider or trace.get_tracer_provider()
        self._tracer = self._provider.get_tracer("llm_patterns")
        self._ours: WeakSet[Span] = WeakSet()

    def start(
        self, name: str, *, kind: SpanKind, start_time: float, parent: SpanContext | None
    ) -> tuple[SpanContext, int | None]:
        """Begin a span under *parent*; under another library's span, such as a web framework's, if that is current."""
        above = self._trace.get_current_span()
        if above in self._ours or not above.get_span_context().is_valid:
            above = self._span_of(parent)
        span = self._tracer.start_span(
            name,
            context=self._trace.set_span_in_context(above),
            kind=self._trace.SpanKind[kind.upper()],
            start_time=round(start_time * _NANOSECONDS),
        )
        self._ours.add(span)
        ids, above_ids = span.get_span_context(), above.get_span_context()
        context = SpanContext(ids.trace_id, ids.span_id, ids.trace_flags.sampled, span)
        return context, above_ids.span_id if above_ids.is_valid else None

    def current(self, context: SpanContext) -> AbstractContextManager[object]:
        """Make the span the parent of what other libraries begin meanwhile."""
        return _current(cast("Span", context.handle))

    def put(self, span: FinishedSpan) -> None:
        """End the span, with all that is known of it."""
        ended = cast("Span | None", span.handle)
        if ended is None:
            return
        start = span.start_time
        ended.set_attributes({name: _plain(value) for name, value in span.attributes.items()})
        for name, after, attributes in span.events:
            plain = {key: _plain(value) for key, value in attributes.items()}
            ended.add_event(name, plain, timestamp=round((start + after) * _NANOSECONDS))
        if span.status == "error":
            ended.set_status(self._trace.StatusCode.ERROR)
        elif span.status == "cancelled":
            ended.set_attribute("cancelled", True)
        ended.end(end_time=round((start + span.duration) * _NANOSECONDS))

    def flush(self, timeout: float) -> bool:
        """Return whether the provider exported all it has; True for one that can't be asked."""
        flush = getattr(self._provider, "force_flush", None)
        return flush is None or bool(flush(round(timeout * 1000)))

    def _span_of(self, parent: SpanContext | None) -> Span:
        if parent is None:
            return self._trace.INVALID_SPAN
        if isinstance(parent.handle, self._trace.Span):
            return parent.handle
        flags = self._trace.TraceFlags(parent.sampled)
        ids = self._trace.SpanContext(
            parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags
        )
        return self._trace.NonRecordingSpan(ids)


def tee(*sinks: TraceSink) -> TraceSink:
    """Return a sink that gives each span to all of *sinks*.

    Raises:
        ConfigurationError: if more than one of them wants to give the ids.
    """
    live = [sink for sink in sinks if isinstance(sink, LiveSink)]
    if len(live) > 1:
        raise ConfigurationError(
            f"{len(live)} sinks would give a span its ids; leave one of {live}"
        )
    return _LiveTee(sinks, live[0]) if live else _Tee(sinks)


class _Tee:
    def __init__(self, sinks: Sequence[TraceSink]) -> None:
        self._sinks = sinks

    def put(self, span: FinishedSpan) -> None:
        for sink in self._sinks:
            sink.put(span)

    def flush(self, timeout: float) -> bool:
        flushed = [sink.flush(timeout) for sink in self._sinks]
        return all(flushed)


class _LiveTee(_Tee):
    def __init__(self, sinks: Sequence[TraceSink], live: LiveSink) -> None:
        super().__init__(sinks)
        self.start = live.start
        self.current = live.current


@contextmanager
def _current(span: Span) -> Iterator[None]:
    """As OpenTelemetry's `use_span`, but for a block that is left in another task than it was entered in."""
    from opentelemetry import context, trace  # noqa: PLC0415 - the extra's

    outer = context.get_current()
    context.attach(trace.set_span_in_context(span))
    try:
        yield
    finally:
        # `detach` would log an error in another task, where there is nothing of ours to undo.
        if trace.get_current_span() is span:
            context.attach(outer)


def _plain(value: object) -> Any:
    """Return *value* as an attribute may be: lists of text and numbers as they are, what is nested as JSON."""
    nested = isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(each, dict | list) for each in value)
    )
    return json.dumps(value, ensure_ascii=False) if nested else value
