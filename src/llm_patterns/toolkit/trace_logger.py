"""What happened in that one call, step by step, and can the logging never be what breaks it?

A span is a step; the one that is current when another begins is its parent, in the same task and in those started from
it. When a span ends, it is decided whether its trace is kept: by its id, or since something in it failed or was slow.
What is kept goes to a sink, which takes it at once; texts go through a redaction hook first, if they are kept at all.

Invariants, for any interleaving of tasks, errors, cancellations and streams given up:

1. Every span that begins ends once, and goes once to the sink or into the count of what was not kept.
2. A span's parent is the one that was current where its task was started, or that was entered since.
3. A span lies within its parent, or says that it outlived it.
4. No prompt, no answer and no message of an error is in a span, unless `capture_content` asks for it; and then none
   that the hook did not return.
5. No more than `max_buffered_spans` wait for the decision on their trace.
6. Nothing in here raises into a call, swallows its cancellation, or waits.

>>> from llm_patterns.simulation import simulate
>>> sink = MemorySink()
>>> traces = TraceLogger(sink=sink)
>>> async def answer():
...     with traces.span("answer") as span:
...         span.set("documents", 4)
...         with traces.span("retrieve"):
...             await asyncio.sleep(0.25)
>>> simulate(answer)
>>> [(span.name, span.duration, span.parent_id is None) for span in sink.spans]
[('retrieve', 0.25, False), ('answer', 0.25, True)]

Sources: Sigelman et al., "Dapper, a Large-Scale Distributed Systems Tracing Infrastructure" (Google, 2010); those of
`spans`, and for a model's calls of `gen_ai`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial, wraps
from random import Random
from threading import RLock
from typing import Any, Final, ParamSpec, TypeVar, cast

from pydantic import JsonValue

from llm_patterns import clock
from llm_patterns.errors import ConfigurationError
from llm_patterns.events import EventHook, emit
from llm_patterns.layers import Layer
from llm_patterns.toolkit import gen_ai
from llm_patterns.toolkit.event_attributes import event_attributes, event_name
from llm_patterns.toolkit.open_spans import (
    Span,
    TraceClock,
    TracePolicy,
    current_context,
    current_span,
)
from llm_patterns.toolkit.redaction import Cleaned, Redact, Redactor
from llm_patterns.toolkit.spans import FinishedSpan, KeptBy, SpanContext, SpanKind, keeps
from llm_patterns.toolkit.trace_sampling import TailSampler, Trace
from llm_patterns.toolkit.trace_sinks import LiveSink, MemorySink, TraceSink
from llm_patterns.toolkit.traced_streams import TracedStream

__all__ = [
    "MemorySink",
    "RedactionFailed",
    "Span",
    "TraceEvent",
    "TraceEvicted",
    "TraceLogger",
    "TracePolicy",
    "TraceStatistics",
    "current_context",
]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Waiting = tuple[FinishedSpan, Mapping[str, JsonValue]]

WITHHELD: Final = "[withheld]"
"""In place of a text that the redaction hook did not return."""

_LOG = logging.getLogger(__name__)
_NOTHING: Final[Mapping[str, object]] = {}


@dataclass(frozen=True, slots=True)
class RedactionFailed:
    """A span goes without its texts: the hook raised (`reason` is the error's class), took too long, or was busy."""

    span: str
    reason: str


@dataclass(frozen=True, slots=True)
class TraceEvicted:
    """A trace that nobody had decided on lost its first `spans`, since others needed the room."""

    spans: int


TraceEvent = RedactionFailed | TraceEvicted


@dataclass(frozen=True, slots=True)
class TraceStatistics:
    """Counts of spans since the beginning. Those that ended were kept, not kept, evicted, or are still buffered."""

    started: int
    ended: int
    kept: Mapping[KeptBy, int]
    discarded: int
    evicted: int
    buffered: int
    redactions_failed: int
    sink_errors: int

    @property
    def open(self) -> int:
        """Return the spans that have begun and not ended."""
        return self.started - self.ended


class TraceLogger:
    """Begins spans, decides what becomes of them, and hands them to *sink*. Safe to share between tasks and threads.

    *redact* takes each text that is kept, and is needed where the policy captures content. *rng* draws the ids.

    Raises:
        ConfigurationError: if content is captured and nothing redacts it.
    """

    def __init__(
        self,
        policy: TracePolicy | None = None,
        *,
        sink: TraceSink,
        redact: Redact | None = None,
        rng: Random | None = None,
        on_event: EventHook[TraceEvent] | None = None,
    ) -> None:
        self.policy = policy or TracePolicy()
        if self.policy.capture_content and redact is None:
            raise ConfigurationError(
                "capture_content is on and there is no redact hook; pass one, or redact=str if "
                "whoever reads the traces may read every prompt as it was written"
            )
        self._sink = sink
        self._live = sink if isinstance(sink, LiveSink) else None
        self._rng = rng
        self._on_event = on_event
        self._redactor = Redactor(
            redact or str,
            timeout=self.policy.redact_timeout,
            max_pending=self.policy.max_redacting,
            max_chars=self.policy.max_content_chars,
        )
        self._tail: TailSampler[Waiting] = TailSampler(
            keep_errors=self.policy.keep_errors,
            keep_slower_than=self.policy.keep_slower_than,
            max_buffered_spans=self.policy.max_buffered_spans,
        )
        # Reentrant, since the garbage collector may end an abandoned stream's span in the middle of another's end.
        self._lock = RLock()
        self._started = self._ended = self._unrecorded = 0
        self._kept: dict[KeptBy, int] = {"head": 0, "error": 0, "slow": 0}
        self._redactions_failed = self._sink_errors = 0

    def span(
        self,
        name: str,
        *,
        kind: SpanKind = "internal",
        attributes: Mapping[str, object] = _NOTHING,
        parent: SpanContext | None = None,
    ) -> Span:
        """Begin a span under the current one, or under *parent*, such as another service's (see `remote_parent`).

        Use it as a block: `with traces.span("retrieve") as span:`. Or keep it, and `end` it.
        """
        local = current_span() if parent is None else None
        above = parent if local is None else local.context
        if local is not None and not local.owned_by(self):
            local = None
        time = TraceClock() if local is None else local.time
        context, parent_id = self._ids(name, kind, time, above)
        trace = self._trace(context, drawn=above is None) if local is None else local.trace
        span = Span(
            self,
            name,
            kind=kind,
            context=context,
            parent=local,
            parent_id=parent_id,
            trace=trace,
            time=time,
            recording=trace.kept_by is not None or self._tail.active,
        )
        with self._lock:
            self._started += 1
        if attributes:
            span.update(attributes)
        return span

    def stream(self, chunks: AsyncIterable[T], *, span: Span) -> TracedStream[T]:
        """Return *chunks*, to be read in their place; *span* ends with them, however they end."""
        return TracedStream(chunks, span)

    def layer(
        self, *, operation: str = "chat", provider: str | None = None, model: str | None = None
    ) -> Layer:
        """Return a layer that records each call of a model, of any client; a stream until its last chunk is read.

        *provider* and *model* are for calls that do not show them. Outside a retry the layer records the call with
        all its attempts, as the conventions ask; inside, each attempt.
        """

        def wrap(call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
            vendor = provider or gen_ai.provider_of(call)

            @wraps(call)
            async def traced(*args: P.args, **kwargs: P.kwargs) -> R:
                span = self._asked(args, kwargs, operation, vendor, model)
                try:
                    with span.current():
                        answer = await call(*args, **kwargs)
                except BaseException as error:
                    span.fail(error)
                    span.end()
                    raise
                if isinstance(answer, AsyncIterable):
                    kept = self.policy.max_raw_chars if self.policy.capture_content else 0
                    reader = gen_ai.StreamReader(max_chars=kept)
                    return cast(R, TracedStream(answer, span, reader=reader))
                self._answered(span, answer)
                return answer

            return traced

        return wrap

    def event(self, event: object) -> None:
        """Note *event* in the current span: a hook for any pattern's `on_event`.

        What is kept of it, and what not, is in `event_attributes`.
        """
        span = current_span()
        if span is not None and span.recording:
            with suppress(Exception):  # an event may compute what it shows
                span.event(event_name(event), event_attributes(event))

    async def flush(self, *, limit: float) -> bool:
        """Return whether all that ended so far is out, waiting at most *limit* seconds for hook and sink."""
        loop = asyncio.get_running_loop()
        until = loop.time() + limit
        cleaned = await self._redactor.flush(limit=limit)
        left = max(0.0, until - loop.time())
        return await asyncio.to_thread(self._sink.flush, left) and cleaned

    def statistics(self) -> TraceStatistics:
        """Return the counts of this moment."""
        with self._lock:
            return TraceStatistics(
                started=self._started,
                ended=self._ended,
                kept=dict(self._kept),
                discarded=self._unrecorded + self._tail.discarded,
                evicted=self._tail.evicted,
                buffered=self._tail.buffered,
                redactions_failed=self._redactions_failed,
                sink_errors=self._sink_errors,
            )

    def using(self, context: SpanContext) -> AbstractContextManager[object] | None:
        """Return what makes the span current for the sink's own library, if it has one."""
        return None if self._live is None else self._live.current(context)

    def finish(self, span: Span) -> None:
        """Take a span that is over. Spans call it themselves."""
        with self._lock:
            if span.ended:
                return
            span.ended = True
            self._ended += 1
            if not span.recording:
                self._unrecorded += 1
                return
            before = self._tail.evicted
            released = self._decide(span)
            evicted = self._tail.evicted - before
        if evicted:
            emit(self._on_event, TraceEvicted(evicted))
        for finished, content in released:
            self._release(finished, content)

    def _ids(
        self, name: str, kind: SpanKind, time: TraceClock, above: SpanContext | None
    ) -> tuple[SpanContext, int | None]:
        if self._live is not None:
            start = time.start_time + time.elapsed()
            try:
                given = self._live.start(name, kind=kind, start_time=start, parent=above)
                if given[0].trace_id:  # OpenTelemetry without its SDK gives none
                    return given
            except Exception:
                self._sink_failed()
        rng = self._rng or clock.rng()
        span_id = rng.getrandbits(64) or 1
        if above is not None:
            return SpanContext(above.trace_id, span_id, above.sampled), above.span_id
        trace_id = rng.getrandbits(128) or 1
        return SpanContext(trace_id, span_id, keeps(trace_id, self.policy.sample_rate)), None

    def _trace(self, context: SpanContext, *, drawn: bool) -> Trace[Waiting]:
        known = drawn and self._live is None
        rate = self.policy.sample_rate if known else None
        return Trace(sampled=context.sampled, sample_rate=rate)

    def _decide(self, span: Span) -> list[Waiting]:
        """Return the spans to release, now that *span* is over, and count them."""
        trace: Trace[Waiting] = span.trace
        over = (span.finished(), span.content_by_name)
        if trace.kept_by == "head":
            self._kept["head"] += 1
            return [over]
        released = self._tail.ended(
            trace,
            over,
            failed=over[0].status == "error",
            duration=over[0].duration,
            last=span.root,
        )
        if trace.kept_by is None:
            return []
        self._kept[trace.kept_by] += len(released)
        return [(_kept(finished, trace, last=span.root), content) for finished, content in released]

    def _release(self, finished: FinishedSpan, content: Mapping[str, JsonValue]) -> None:
        if content:
            self._redactor.start(content, partial(self._cleaned, finished, content))
        else:
            self._put(finished)

    def _cleaned(
        self, finished: FinishedSpan, content: Mapping[str, JsonValue], outcome: Cleaned
    ) -> None:
        if isinstance(outcome, str):
            with self._lock:
                self._redactions_failed += 1
            emit(self._on_event, RedactionFailed(finished.name, outcome))
            outcome = {**dict.fromkeys(content, WITHHELD), "redaction.failed": outcome}
        self._put(finished._replace(attributes={**finished.attributes, **outcome}))

    def _put(self, finished: FinishedSpan) -> None:
        try:
            self._sink.put(finished)
        except Exception:
            self._sink_failed()

    def _sink_failed(self) -> None:
        """Count an error of the sink's; log the first."""
        with self._lock:
            self._sink_errors += 1
            first = self._sink_errors == 1
        if first:
            _LOG.exception("%r failed on a span; later failures are only counted", self._sink)

    def _asked(
        self,
        args: Sequence[object],
        kwargs: Mapping[str, object],
        operation: str,
        provider: str | None,
        model: str | None,
    ) -> Span:
        """Begin the span of a call; what can't be read of its request is left out."""
        request: object = kwargs
        asked: dict[str, JsonValue] = {"gen_ai.operation.name": operation}
        with suppress(Exception):
            request = gen_ai.request_of(args, kwargs)
            asked = gen_ai.request_attributes(request, operation=operation, provider=provider)
        if model is not None:
            asked.setdefault(gen_ai.REQUEST_MODEL, model)
        named = asked.get(gen_ai.REQUEST_MODEL)
        name = operation if named is None else f"{operation} {named}"
        span = self.span(name, kind="client", attributes=asked)
        if self.policy.capture_content and span.recording:
            with suppress(Exception):
                span.content(gen_ai.INPUT_MESSAGES, gen_ai.input_messages(request))
        return span

    def _answered(self, span: Span, answer: object) -> None:
        if span.recording:
            with suppress(Exception):
                span.update(gen_ai.response_attributes(answer))
                if self.policy.capture_content:
                    span.content(gen_ai.OUTPUT_MESSAGES, gen_ai.output_messages(answer))
        span.end()


def _kept(finished: FinishedSpan, trace: Trace[Waiting], *, last: bool) -> FinishedSpan:
    """Note why *finished* was kept, and on a trace's last span what is missing of it."""
    reason: KeptBy = trace.kept_by or "head"
    if not (last and trace.evicted and finished.parent_id is None):
        return finished._replace(kept_by=reason)
    attributes = {**finished.attributes, "evicted_spans": trace.evicted}
    return finished._replace(kept_by=reason, attributes=attributes)
