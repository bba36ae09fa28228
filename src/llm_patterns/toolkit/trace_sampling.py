"""Which requests' traces are kept, when only the end of one says whether it was worth keeping?

A trace is drawn by its id when it begins. One that was not drawn waits in memory until its first span of this process
is over; it is kept after all as soon as a span of it fails or takes too long. What waits is bounded: the trace that
waits longest loses its spans first.

Invariants:

1. No more than `max_buffered_spans` wait, whatever begins and never ends.
2. Every span is released once, or discarded once; what waits is neither.
3. A trace is released whole or not at all, but for spans that were evicted before it failed, and for those that end
   after its first span did.

>>> tail = TailSampler(keep_errors=True, keep_slower_than=None, max_buffered_spans=10)
>>> trace = Trace(sampled=False)
>>> tail.ended(trace, "retrieve", failed=False, duration=0.1, last=False)
[]
>>> tail.ended(trace, "generate", failed=True, duration=0.2, last=False), trace.kept_by
(['retrieve', 'generate'], 'error')
"""

from __future__ import annotations

from typing import Generic, TypeVar

from llm_patterns.toolkit.spans import KeptBy

__all__ = ["TailSampler", "Trace"]

S = TypeVar("S")


class Trace(Generic[S]):
    """What the spans of one request share: the decision, and until then the spans themselves.

    *sample_rate* is the one it was drawn at, or None if somebody else did; `evicted` counts the spans that had to make
    room.
    """

    __slots__ = ("evicted", "kept_by", "over", "sample_rate", "waiting")

    def __init__(self, *, sampled: bool, sample_rate: float | None = None) -> None:
        self.sample_rate = sample_rate
        self.kept_by: KeptBy | None = "head" if sampled else None
        self.over = False
        self.waiting: list[S] = []
        self.evicted = 0


class TailSampler(Generic[S]):
    """Decides on traces that were not drawn. `discarded` and `evicted` count the spans that are gone."""

    def __init__(
        self, *, keep_errors: bool, keep_slower_than: float | None, max_buffered_spans: int
    ) -> None:
        self._keep_errors = keep_errors
        self._keep_slower_than = keep_slower_than
        self._max_buffered_spans = max_buffered_spans
        self._undecided: dict[Trace[S], None] = {}
        self.buffered = 0
        self.discarded = 0
        self.evicted = 0

    @property
    def active(self) -> bool:
        """Return whether a trace that was not drawn may still be kept."""
        return self._keep_errors or self._keep_slower_than is not None

    def ended(
        self, trace: Trace[S], span: S, *, failed: bool, duration: float, last: bool
    ) -> list[S]:
        """Return the spans to release now that *span* is over; *last* says that its trace is, too."""
        if trace.kept_by is None and not trace.over:
            trace.kept_by = self._reason(failed, duration)
        trace.over = trace.over or last
        trace.waiting.append(span)
        self.buffered += 1
        if trace.kept_by is not None:
            return self._take(trace)
        if trace.over:
            self.discarded += len(self._take(trace))
        else:
            self._undecided[trace] = None
            self._evict()
        return []

    def _reason(self, failed: bool, duration: float) -> KeptBy | None:
        if failed and self._keep_errors:
            return "error"
        slow = self._keep_slower_than is not None and duration >= self._keep_slower_than
        return "slow" if slow else None

    def _take(self, trace: Trace[S]) -> list[S]:
        self._undecided.pop(trace, None)
        taken, trace.waiting = trace.waiting, []
        self.buffered -= len(taken)
        return taken

    def _evict(self) -> None:
        while self.buffered > self._max_buffered_spans:
            oldest = next(iter(self._undecided))
            gone = len(self._take(oldest))
            oldest.evicted += gone
            self.evicted += gone
