"""How long do calls take, at the median and at the slow end, now and since the start, in memory that does not grow?

Durations are counted by label, in distributions with a stated error (`distributions`), for the last seconds and for all
time. What was answered, refused, failed, timed out or cancelled is kept apart: a time-out of five seconds says that
the answer takes more than five seconds, and a refusal in a millisecond says nothing of how long answers take.

Invariants:

1. Every call is in exactly one series, with exactly one outcome; what the bound on series keeps out is in one more.
2. A stopwatch counts once, whatever ends its block, and the error or cancellation passes as it came.
3. A stream's chunks pass as they came; its end is counted once, however it ends.

>>> import asyncio
>>> from llm_patterns.simulation import simulate
>>> async def main():
...     latencies = LatencyTracker()
...     @latencies.layer(labels={"model": "small"})
...     async def ask(seconds):
...         await asyncio.sleep(seconds)
...     for seconds in (1, 2, 30):
...         await ask(seconds)
...     return latencies
>>> latencies = simulate(main)
>>> small = latencies.statistics().by("model")["small"]
>>> small.completed.count, small.completed.max
(3, 30.0)

A tracker belongs to one event loop and takes no lock: its methods do not wait.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections import defaultdict
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, fields
from functools import partial, reduce, wraps
from operator import add
from typing import Any, Final, ParamSpec, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

from llm_patterns.events import EventHook, emit
from llm_patterns.layers import Layer
from llm_patterns.toolkit.costs import OVERFLOW
from llm_patterns.toolkit.distributions import Distribution, WindowedDistribution
from llm_patterns.toolkit.stopwatches import Stopwatch, TimedStream, Timing

__all__ = [
    "Latencies",
    "LatencyPolicy",
    "LatencyRecorded",
    "LatencyStatistics",
    "LatencyTracker",
]

P = ParamSpec("P")
R = TypeVar("R")
Labels = tuple[tuple[str, str], ...]

_OVERFLOW_KEY: Final = (("series", OVERFLOW),)
_NOTHING: Final[Mapping[str, str]] = {}


class LatencyPolicy(BaseModel):
    """What is kept, and how exactly.

    Memory is at most `max_series` times seven timings times `slices + 1` distributions of `max_bins` counts. Latencies
    from a millisecond to a minute fill about 550 bins at an error of 0.01, and a timing that never happened none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    window: float = Field(
        default=60.0,
        gt=0,
        le=86_400,
        description="Seconds that `recent` looks back. 60 is short enough for an alert; a p99 needs a hundred "
        "calls in it.",
    )
    slices: int = Field(
        default=10,
        ge=2,
        le=100,
        description="Parts of the window. It turns by whole parts, so it reaches back between 1 - 1/slices of it "
        "and all of it.",
    )
    relative_error: float = Field(
        default=0.01,
        ge=0.001,
        le=0.1,
        description="How far a quantile may be from the exact one, as a share of it. Bins grow with its inverse.",
    )
    max_bins: int = Field(
        default=1024,
        ge=128,
        le=16_384,
        description="Bins of one distribution. 1024 at 0.01 span a factor of 700 million, such as 10 microseconds "
        "to 2 hours; past it the fastest calls share a bin.",
    )
    max_series: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="Combinations of labels kept apart; later ones share one series. A label with a value for "
        "each user or request would otherwise grow without end.",
    )


@dataclass(frozen=True, slots=True)
class LatencyRecorded:
    """Some seconds were counted."""

    seconds: float
    timing: Timing
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Latencies:
    """The distributions of one or more series: one for each `Timing`, empty where it never happened."""

    completed: Distribution
    failed: Distribution
    timed_out: Distribution
    cancelled: Distribution
    refused: Distribution
    time_to_first_token: Distribution
    time_per_token: Distribution

    @property
    def waited(self) -> Distribution:
        """Return the calls that were answered, timed out or cancelled: how long callers waited for an answer.

        Those that were cut off would have taken longer, so its quantiles are lower bounds of the answers' own, while
        those of `completed` leave the slowest out.
        """
        return self.completed + self.timed_out + self.cancelled

    def __add__(self, other: Latencies) -> Latencies:
        names = [field.name for field in fields(self)]
        return Latencies(*(getattr(self, name) + getattr(other, name) for name in names))


@dataclass(frozen=True, slots=True)
class LatencyStatistics:
    """A snapshot: the latencies of each series."""

    series: Mapping[Labels, Latencies]
    empty: Latencies

    @property
    def total(self) -> Latencies:
        """Return the latencies of all calls."""
        return reduce(add, self.series.values(), self.empty)

    def by(self, label: str) -> dict[str, Latencies]:
        """Return the latencies by value of *label*, sorted; calls without it are under ""."""
        groups: dict[str, Latencies] = defaultdict(lambda: self.empty)
        for labels, latencies in self.series.items():
            value = OVERFLOW if labels == _OVERFLOW_KEY else dict(labels).get(label, "")
            groups[value] += latencies
        return dict(sorted(groups.items()))


class LatencyTracker:
    """Counts how long calls take, by label.

    Put it on a call with `layer`, around a block with `stopwatch`, or `record` what was measured elsewhere. Put the
    layer inside a retry to time every attempt, outside to time what the caller waits for. *on_event* hears
    `LatencyRecorded`, where the single slow call is to be logged.
    """

    def __init__(
        self,
        policy: LatencyPolicy | None = None,
        *,
        on_event: EventHook[LatencyRecorded] | None = None,
    ) -> None:
        self.policy = policy or LatencyPolicy()
        self._on_event = on_event
        self._series: dict[Labels, dict[Timing, WindowedDistribution]] = {}
        self._settings = self.policy.model_dump(include={"relative_error", "max_bins"})
        Distribution(**self._settings)  # a missing extra is found now

    def record(
        self,
        seconds: float,
        timing: Timing = Timing.COMPLETED,
        *,
        labels: Mapping[str, str] = _NOTHING,
    ) -> None:
        """Count *seconds*. *labels* are whatever you want to ask by later: model, route, provider."""
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"a duration of {seconds} s can't be; 0 or more and finite is needed")
        series = self._of(tuple(sorted(labels.items())))
        seen = series.get(timing)
        if seen is None:
            window, slices = self.policy.window, self.policy.slices
            seen = WindowedDistribution(window=window, slices=slices, **self._settings)
            series[timing] = seen
        seen.record(seconds, get_running_loop().time())
        if self._on_event is not None:
            emit(self._on_event, LatencyRecorded(seconds, timing, labels))

    def stopwatch(self, *, labels: Mapping[str, str] = _NOTHING) -> Stopwatch:
        """Return a context manager, for `with` and `async with`, that counts how long its block took."""
        return Stopwatch(partial(self.record, labels=labels))

    def layer(self, *, labels: Mapping[str, str] = _NOTHING) -> Layer:
        """Return a layer that counts each call. A call that opens a stream is over when the stream is.

        Of a stream it counts `TIME_TO_FIRST_TOKEN` and `TIME_PER_TOKEN` too, as its reader sees them, by the tokens
        that the stream reports, or else by its chunks. One that is closed or dropped half-way was cancelled.
        """
        record = partial(self.record, labels=labels)

        def wrap(call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
            @wraps(call)
            async def timed(*args: P.args, **kwargs: P.kwargs) -> R:
                watch = Stopwatch(record).start()
                try:
                    result = await call(*args, **kwargs)
                except BaseException as error:
                    watch.stop(error)
                    raise
                if hasattr(result, "__aiter__"):
                    stream = cast("AsyncIterable[object]", result)
                    return cast("R", TimedStream(stream, watch, record))
                watch.stop()
                return result

            return timed

        return wrap

    def statistics(self) -> LatencyStatistics:
        """Return a snapshot of all calls since the beginning."""
        return self._snapshot(WindowedDistribution.total)

    def recent(self) -> LatencyStatistics:
        """Return a snapshot of the last `window` seconds."""
        now = get_running_loop().time()
        return self._snapshot(lambda each: each.recent(now))

    def _snapshot(self, view: Callable[[WindowedDistribution], Distribution]) -> LatencyStatistics:
        def latencies(timings: Mapping[Timing, WindowedDistribution]) -> Latencies:
            return Latencies(
                *(
                    view(timings[each]) if each in timings else Distribution(**self._settings)
                    for each in Timing
                )
            )

        series = {labels: latencies(timings) for labels, timings in self._series.items()}
        return LatencyStatistics(series, latencies({}))

    def _of(self, labels: Labels) -> dict[Timing, WindowedDistribution]:
        if labels in self._series:
            return self._series[labels]
        room = len(self._series) < self.policy.max_series
        return self._series.setdefault(labels if room else _OVERFLOW_KEY, {})
