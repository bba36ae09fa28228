"""Which step are we in, and what may be written down of it?

A context variable holds the current span, so a task begins in the span in which it was started. Leaving a span never
uses the variable's token: a generator may be closed by another task than the one that entered it, and there a token
raises. Times within a trace are its first span's time of day plus the loop's time since, so that a clock that is set
meanwhile moves no child out of its parent.

Invariants:

1. A span ends once. After that nothing changes it.
2. No span holds more than its policy allows, but an error's class always has room.
3. A span whose block is left is no longer current where it was entered, in whichever task it is left.

>>> current_context() is None
True
"""

from __future__ import annotations

import asyncio
import math
from asyncio import CancelledError
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from llm_patterns import clock
from llm_patterns.toolkit.gen_ai import error_attributes
from llm_patterns.toolkit.redaction import shortened
from llm_patterns.toolkit.spans import (
    FinishedSpan,
    SpanContext,
    SpanEvent,
    SpanKind,
    SpanStatus,
)
from llm_patterns.toolkit.trace_sampling import Trace

__all__ = ["Span", "SpanOwner", "TraceClock", "TracePolicy", "current_context", "current_span"]

_INT64: Final = 1 << 63
_MAX_ITEMS: Final = 128


class TracePolicy(BaseModel):
    """Which traces are kept, and how much of each.

    >>> TracePolicy(sample_rate=0.1).keep_errors
    True
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sample_rate: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of the traces that are kept, drawn by trace id; a caller's own decision goes before. "
        "1 keeps all; below it, an average over kept traces must be weighted.",
    )
    keep_errors: bool = Field(
        default=True,
        description="Keep a trace that was not drawn when a span in it fails: at a rate of 0.01 you would have a "
        "hundredth of the failures otherwise.",
    )
    keep_slower_than: float | None = Field(
        default=None,
        gt=0,
        description="Keep a trace that was not drawn when a span in it takes so many seconds.",
    )
    max_buffered_spans: int = Field(
        default=2_048,
        ge=1,
        le=1_000_000,
        description="Spans that may wait until it is known whether their trace is kept, about a megabyte without "
        "content. A request of 20 spans at 100 in flight is 2,000.",
    )
    capture_content: bool = Field(
        default=False,
        description="Keep prompts and answers, as far as the redaction hook lets them pass. Whoever reads traces "
        "then reads what your users wrote.",
    )
    max_content_chars: int = Field(
        default=16_384,
        ge=1,
        le=10_000_000,
        description="Characters of one prompt or answer that are kept: without a bound, a long context is copied "
        "into each of an agent's twenty steps.",
    )
    max_raw_chars: int = Field(
        default=65_536,
        ge=1,
        le=100_000_000,
        description="Characters of it that wait in memory for the redaction hook, which sees no more. Several times "
        "`max_content_chars`, so that what the hook would miss at the cut is not kept anyway.",
    )
    redact_timeout: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="Seconds that the redaction hook may take for a span; then the span goes without its texts.",
    )
    max_redacting: int = Field(
        default=256, ge=1, le=100_000, description="Spans that may wait for the redaction hook."
    )
    max_attributes: int = Field(
        default=64, ge=1, le=1_024, description="Attributes of a span, and of an event in it."
    )
    max_attribute_chars: int = Field(
        default=1_024, ge=16, le=65_536, description="Characters of one attribute's text."
    )
    max_events: int = Field(
        default=128,
        ge=1,
        le=4_096,
        description="Events in a span. A retry loop without an end would fill the memory with its own story.",
    )


class TraceClock:
    """The time within one trace: the seconds since it began, on the loop's clock, and the time of day it began at."""

    __slots__ = ("_began", "_loop", "start_time")

    def __init__(self) -> None:
        self._loop = asyncio._get_running_loop()
        self._began = 0.0 if self._loop is None else self._loop.time()
        self.start_time = clock.now()

    def elapsed(self) -> float:
        """Return the seconds since the trace began; in a thread without its loop, by the time of day."""
        if self._loop is not None and asyncio._get_running_loop() is self._loop:
            return self._loop.time() - self._began
        return clock.now() - self.start_time


class SpanOwner(Protocol):
    """What a span needs of the logger that began it."""

    policy: TracePolicy

    def finish(self, span: Span) -> None:
        """Take a span that is over; of several calls for one span, the first counts."""

    def using(self, context: SpanContext) -> AbstractContextManager[object] | None:
        """Return what makes the span current for others than this library, if there are any."""


_NOTHING: Final[Mapping[str, object]] = {}


class Span:
    """A step that has begun. Use it as a block, or `end` it yourself.

    As a block it is current inside, and an error that leaves the block is its own. Nothing in here raises, and after
    the end nothing in here does anything. Where nobody will read it, `recording` is false.
    """

    __slots__ = (
        *("_attributes", "_began", "_block", "_displaced", "_entered_by", "_error", "_events"),
        *("_lost", "_outer", "_owner", "_status", "content_by_name", "context", "ended", "kind"),
        *("name", "parent", "parent_id", "recording", "root", "time", "trace"),
    )

    def __init__(
        self,
        owner: SpanOwner,
        name: str,
        *,
        kind: SpanKind,
        context: SpanContext,
        parent: Span | None,
        parent_id: int | None,
        trace: Trace[Any],
        time: TraceClock,
        recording: bool,
    ) -> None:
        self.name = name
        self.kind: SpanKind = kind
        self.context = context
        self.parent = parent
        self.parent_id = parent_id
        self.root = parent is None
        self.trace = trace
        self.time = time
        self.recording = recording
        self.ended = False
        self.content_by_name: dict[str, JsonValue] = {}
        self._owner = owner
        self._began = time.elapsed()
        self._attributes: dict[str, JsonValue] = {}
        self._events: list[SpanEvent] = []
        self._status: SpanStatus = "ok"
        self._error: Mapping[str, JsonValue] = {}
        self._lost = 0
        self._entered_by: object = None
        self._displaced = False
        self._outer: Span | None = None
        self._block: AbstractContextManager[object] | None = None

    def set(self, name: str, value: object) -> None:
        """Set an attribute: text, a number, a truth value, or a list of them; of anything else the type is kept.

        Not for what somebody wrote: that is `content`.
        """
        if self.recording and not self.ended:
            self._keep(self._attributes, name, value)

    def update(self, attributes: Mapping[str, object]) -> None:
        """Set several attributes."""
        for name, value in attributes.items():
            self.set(name, value)

    def content(self, name: str, value: JsonValue) -> None:
        """Set an attribute that somebody wrote: kept if the policy says so, as the redaction hook returns it."""
        policy = self._owner.policy
        if not policy.capture_content or not self.recording or self.ended:
            return
        if name not in self.content_by_name and len(self.content_by_name) >= policy.max_attributes:
            self._lost += 1
        else:
            # It waits for the hook, and before that perhaps for the decision on its trace.
            self.content_by_name[name] = shortened(value, max_chars=policy.max_raw_chars)

    def event(self, name: str, attributes: Mapping[str, object] = _NOTHING) -> None:
        """Note that something happened now."""
        if not self.recording or self.ended:
            return
        if len(self._events) >= self._owner.policy.max_events:
            self._lost += 1
            return
        kept: dict[str, JsonValue] = {}
        for key, value in attributes.items():
            self._keep(kept, key, value)
        self._events.append(SpanEvent(name, self.time.elapsed() - self._began, kept))

    def fail(self, error: BaseException) -> None:
        """Note that the step failed with *error*: its class, never its message, which may quote the prompt."""
        if isinstance(error, CancelledError | GeneratorExit):
            self._status = "cancelled"
        else:
            self._status = "error"
            self._error = {"error.type": type(error).__name__}
            with suppress(Exception):  # a client's error may compute what it shows
                self._error = error_attributes(error)

    def end(self) -> None:
        """End the step. Only the first time counts."""
        self._owner.finish(self)

    def owned_by(self, owner: SpanOwner) -> bool:
        """Return whether *owner* began it."""
        return self._owner is owner

    @property
    def elapsed(self) -> float:
        """Return the seconds since the step began."""
        return self.time.elapsed() - self._began

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this the current span as long as the block lasts, without ending it there."""
        outer = _CURRENT.get()
        _CURRENT.set(self)
        try:
            with self._owner.using(self.context) or nullcontext():
                yield
        finally:
            _leave(self, outer)

    def __enter__(self) -> Self:
        self._entered_by = _task()
        self._outer = _CURRENT.get()
        _CURRENT.set(self)
        self._block = self._owner.using(self.context)
        if self._block is not None:
            self._block.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._block is not None:
            self._block.__exit__(None, None, None)
        _leave(self, self._outer)
        # Left by another task than it was entered by, it stays current where it was entered: see `current_span`.
        self._displaced = _task() is not self._entered_by
        self._entered_by = None
        if not self._displaced:
            self._outer = None
        if error is not None:
            self.fail(error)
        self.end()

    def finished(self) -> FinishedSpan:
        """Return what is known of the step, which ends now, and let go of the rest."""
        duration = max(0.0, self.time.elapsed() - self._began)
        lost: dict[str, JsonValue] = (
            {"lost_attributes_and_events": self._lost} if self._lost else {}
        )
        span = FinishedSpan(
            *(self.name, self.context.trace_id, self.context.span_id, self.parent_id),
            *(self.time.start_time + self._began, duration, self._status, self.kind),
            {**self._attributes, **lost, **self._error},
            tuple(self._events),
            sample_rate=self.trace.sample_rate,
            outlived_parent=self.parent is not None and self.parent.ended,
            handle=self.context.handle,
        )
        # A task may go on for days in the span that it was started in, and in its parents.
        self.parent, self._attributes, self._events = None, {}, []
        return span

    def _keep(self, attributes: dict[str, JsonValue], name: str, value: object) -> None:
        policy = self._owner.policy
        if name not in attributes and len(attributes) >= policy.max_attributes:
            self._lost += 1
        else:
            attributes[name] = _plain(value, policy.max_attribute_chars)


_CURRENT: ContextVar[Span | None] = ContextVar("llm_patterns_span", default=None)


def current_span() -> Span | None:
    """Return the span that a step beginning now would have as its parent, or None."""
    span = _CURRENT.get()
    while span is not None and span._displaced:
        span = span._outer
    return span


def current_context() -> SpanContext | None:
    """Return the ids of the current span, for `trace_headers`, or None."""
    span = current_span()
    return None if span is None else span.context


def _leave(span: Span, outer: Span | None) -> None:
    """Make *outer* current again, if in this context *span* is, or one begun in it."""
    inside = current_span()
    while inside is not None and inside is not span:
        inside = inside._outer or inside.parent
    if inside is span:
        _CURRENT.set(outer)


def _task() -> asyncio.Task[Any] | None:
    return None if asyncio._get_running_loop() is None else asyncio.current_task()


def _plain(value: object, max_chars: int) -> JsonValue:
    """Return *value* as it may be stored. Numbers that JSON or OpenTelemetry has no room for become text."""
    if isinstance(value, str):
        return str(value)[:max_chars]
    if isinstance(value, bool) or (isinstance(value, int) and -_INT64 <= value < _INT64):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return [_plain(each, max_chars) for each in value[:_MAX_ITEMS]]
    if isinstance(value, frozenset | set):
        return sorted((_plain(each, max_chars) for each in value), key=str)[:_MAX_ITEMS]
    return type(value).__name__
