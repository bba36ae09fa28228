"""What it costs to count a duration, how many numbers are kept for it, and how far the quantiles are off.

The durations are those of a chat: a log-normal time to the first token with a slow tail, and 20 ms for each token of
the Azure conversation trace's lengths.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random
from time import perf_counter
from typing import Protocol

from ddsketch import DDSketch
from fastdigest import TDigest
from hdrh.histogram import HdrHistogram

from course.benchmarks import Row
from llm_patterns.simulation import TokenLengths
from llm_patterns.toolkit import Distribution, LatencyTracker
from tests.benchmarks.rounds import interleaved, middle, ratio, significant

PEERS = ("ddsketch", "hdrhistogram", "fastdigest")
ROUNDS = 15
CALLS = 50_000
OURS = "LatencyTracker.record"
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


class Store(Protocol):
    """Something that keeps durations."""

    def add(self, seconds: float) -> object:
        """Keep one."""

    def quantile(self, q: float) -> float:
        """Return the quantile."""

    def kept(self) -> int:
        """Return how many numbers are kept."""


class Everything:
    """A list, sorted when asked."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.add = self.values.append

    def quantile(self, q: float) -> float:
        """Exact."""
        return sorted(self.values)[int(q * (len(self.values) - 1))]

    def kept(self) -> int:
        """All."""
        return len(self.values)


class Ours:
    """The tracker: a window and the time since the start, one error, one event loop."""

    def __init__(self) -> None:
        self.tracker = LatencyTracker()
        self.add = self.tracker.record

    def seen(self) -> Distribution:
        """Since the start."""
        return self.tracker.statistics().total.completed

    def quantile(self, q: float) -> float:
        """Within the error."""
        return self.seen().quantile(q) or 0.0

    def kept(self) -> int:
        """Bins of each slice of the window, and of what came before it."""
        parts = self.tracker.policy.slices + 1
        return parts * int(self.seen()._sketch._store.length())


class Sketch:
    """DDSketch as it comes, without a window."""

    def __init__(self) -> None:
        self.sketch = DDSketch(0.01)
        self.add = self.sketch.add

    def quantile(self, q: float) -> float:
        """Within the error."""
        return self.sketch.get_quantile_value(q) or 0.0

    def kept(self) -> int:
        """Bins between the smallest and the largest."""
        return int(self.sketch._store.length())


class Hdr:
    """HdrHistogram of two significant digits, from a millisecond to a day, in milliseconds."""

    def __init__(self) -> None:
        self.histogram = HdrHistogram(1, 86_400_000, 2)

    def add(self, seconds: float) -> None:
        """In whole milliseconds."""
        self.histogram.record_value(int(seconds * 1000))

    def quantile(self, q: float) -> float:
        """In seconds again."""
        return float(self.histogram.get_value_at_percentile(q * 100)) / 1000

    def kept(self) -> int:
        """Counters, all allocated at once."""
        return int(self.histogram.counts_len)


class Digest:
    """A t-digest, compiled."""

    def __init__(self) -> None:
        self.digest = TDigest()
        self.add = self.digest.update

    def quantile(self, q: float) -> float:
        """Interpolated."""
        return float(self.digest.quantile(q))

    def kept(self) -> int:
        """Centroids."""
        return int(self.digest.n_centroids)


STORES: dict[str, Callable[[], Store]] = {
    OURS: Ours,
    "DDSketch alone": Sketch,
    "HdrHistogram": Hdr,
    "t-digest (fastdigest)": Digest,
    "a list": Everything,
}


def durations(count: int) -> list[float]:
    """Durations of chats, the same in every run."""
    rng, lengths = Random(1), TokenLengths.azure("conversation")
    slow = (rng.lognormvariate(1.5, 0.8) if rng.random() < 0.03 else 0.0 for _ in range(count))
    return [
        rng.lognormvariate(-0.7, 0.5) + late + 0.02 * lengths.sample(rng).output_tokens
        for late in slow
    ]


async def microseconds(make: Callable[[], Store], values: list[float]) -> float:
    """Return the time of counting one, averaged over many."""
    add = make().add
    start = perf_counter()
    for value in values:
        add(value)
    return (perf_counter() - start) / len(values) * 1e6


async def accuracy(values: list[float]) -> dict[str, Row]:
    """Return what each keeps of *values*, and how far its quantiles are from the exact ones."""
    exact, found = sorted(values), {}
    for name, make in STORES.items():
        store = make()
        for value in values:
            store.add(value)
        off = {
            label: significant(abs(store.quantile(q) / exact[int(q * (len(exact) - 1))] - 1))
            for label, q in QUANTILES.items()
        }
        found[name] = {"Numbers kept": store.kept(), **off}
    return found


def measure() -> list[Row]:
    """Return the microseconds of counting a duration, what is kept of a hundred thousand, and the errors."""
    values = durations(100_000)
    with asyncio.Runner() as runner:
        subjects = {
            name: partial(lambda make: runner.run(microseconds(make, values[:CALLS])), make)
            for name, make in STORES.items()
        }
        samples = interleaved(subjects, rounds=ROUNDS)
        found = runner.run(accuracy(values))
    return [
        {
            "Store": name,
            "Times ours": ratio(samples, name, OURS),
            **middle(samples[name]),
            "Unit": "µs a duration",
            **found[name],
        }
        for name in STORES
    ]
