"""How are values distributed, in memory that does not grow with their number, and over which stretch of time?

A `Distribution` is a DDSketch (Masson, Rim and Lee, VLDB 2019): it counts values in bins whose width is a fixed share
of the value, so that every quantile is within `relative_error` of the exact one, and two of them add up to what one
would have seen. A `WindowedDistribution` keeps one for each slice of the last seconds, and adds them up when asked.

Invariants:

1. A quantile is within `relative_error` of the value of that rank, for any values in any order.
2. There are never more than `max_bins` bins. Past them the smallest values share one: high quantiles keep their error.
3. The sum of two is the distribution of all their values, whatever was recorded where.
4. A window holds the slices that began less than its length ago, whole; all slices ever are the total.

>>> latencies = Distribution()
>>> for milliseconds in range(1, 1001):
...     latencies.record(milliseconds / 1000)
>>> latencies.count, latencies.max
(1000, 1.0)
>>> abs(latencies.p99 - 0.99) < 0.01 * 0.99
True

The sketch is the package `ddsketch` (the extra `latency`), loaded when the first one is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Self

from llm_patterns.errors import ConfigurationError

if TYPE_CHECKING:
    from ddsketch.ddsketch import BaseDDSketch

__all__ = ["Distribution", "WindowedDistribution"]


class Distribution:
    """Counts of values of 0 and above, such as seconds. What is empty has no mean and no quantile: they are None."""

    __slots__ = ("_sketch", "max", "max_bins", "relative_error")

    def __init__(self, *, relative_error: float = 0.01, max_bins: int = 1024) -> None:
        self._sketch = _sketch(relative_error, max_bins)
        self.relative_error = relative_error
        self.max_bins = max_bins
        self.max: float | None = None

    @classmethod
    def of(
        cls,
        bins: Iterable[tuple[float, int]],
        *,
        relative_error: float = 0.01,
        max_bins: int = 1024,
    ) -> Self:
        """Return the distribution whose `bins` another process sent. Mean and maximum are then within the error too."""
        made = cls(relative_error=relative_error, max_bins=max_bins)
        for value, count in bins:
            made.record(value, count=count)
        return made

    def record(self, value: float, *, count: int = 1) -> None:
        """Count *value*, *count* times."""
        if not 0 <= value < inf:
            raise ValueError(f"a value of {value} can't be; 0 or more and finite is needed")
        self._sketch.add(value, count)
        if self.max is None or value > self.max:
            self.max = value

    @property
    def count(self) -> int:
        """Return how many values there are."""
        return int(self._sketch.count)

    @property
    def mean(self) -> float | None:
        """Return the exact mean, or None if there is nothing."""
        return self._sketch.sum / self._sketch.count if self._sketch.count else None

    @property
    def p50(self) -> float | None:
        """Return the median."""
        return self.quantile(0.5)

    @property
    def p90(self) -> float | None:
        """Return what nine of ten do not exceed."""
        return self.quantile(0.9)

    @property
    def p99(self) -> float | None:
        """Return what ninety-nine of a hundred do not exceed."""
        return self.quantile(0.99)

    def quantile(self, q: float) -> float | None:
        """Return the value of rank `q * (count - 1)`, rounded down, or None if there is nothing."""
        if not 0 <= q <= 1:
            raise ValueError(f"the quantile {q} can't be; it is a share from 0 to 1")
        value = self._sketch.get_quantile_value(q)
        return None if value is None or self.max is None else min(float(value), self.max)

    def share_over(self, value: float) -> float | None:
        """Return the share of what is above *value*, give or take what lies within the error of it."""
        over = sum(count for middle, count in self.bins() if middle > value)
        return over / self.count if self.count else None

    def bins(self) -> list[tuple[float, int]]:
        """Return the middle of each bin that holds something, ascending, and how much: to plot, export or send."""
        store, mapping, zeros = self._sketch._store, self._sketch._mapping, self._sketch._zero_count
        filled = [
            (mapping.value(key), int(count))
            for key, count in enumerate(store.bins, start=store.offset)
            if count
        ]
        return [(0.0, int(zeros)), *filled] if zeros else filled

    def __add__(self, other: Self) -> Self:
        return self._empty()._merge(self)._merge(other)

    def _empty(self) -> Self:
        return type(self)(relative_error=self.relative_error, max_bins=self.max_bins)

    def _merge(self, other: Self) -> Self:
        if (self.relative_error, self.max_bins) != (other.relative_error, other.max_bins):
            raise ConfigurationError(
                f"distributions with errors of {self.relative_error} and {other.relative_error}, and up to "
                f"{self.max_bins} and {other.max_bins} bins, don't add up; make them with the same settings"
            )
        self._sketch.merge(other._sketch)
        if other.max is not None:
            self.max = other.max if self.max is None else max(self.max, other.max)
        return self


class WindowedDistribution:
    """A distribution of the last *window* seconds, in *slices*, and one since the beginning. Times are loop times.

    The window turns by whole slices: it reaches back at least `window * (1 - 1 / slices)` seconds and never more than
    *window*. A slice that leaves it is added to the past, so a value is stored once.
    """

    __slots__ = ("_numbers", "_parts", "_past", "_per_second")

    def __init__(
        self,
        *,
        window: float = 60.0,
        slices: int = 10,
        relative_error: float = 0.01,
        max_bins: int = 1024,
    ) -> None:
        if not 0 < window < inf or slices < 1:
            raise ConfigurationError(
                f"window is {window} s in {slices} slices; a positive, finite time in 1 or more is needed"
            )
        self._past = Distribution(relative_error=relative_error, max_bins=max_bins)
        self._parts = [self._past._empty() for _ in range(slices)]
        self._numbers = [0] * slices
        self._per_second = slices / window

    def record(self, value: float, now: float) -> None:
        """Count *value* at *now*."""
        number = int(now * self._per_second)
        at = number % len(self._numbers)
        if self._numbers[at] != number:
            self._turn(at, number)
        self._parts[at].record(value)

    def recent(self, now: float) -> Distribution:
        """Return what the window that ends at *now* holds."""
        oldest = int(now * self._per_second) - len(self._numbers)
        seen = self._past._empty()
        for number, part in zip(self._numbers, self._parts, strict=True):
            if number > oldest:
                seen._merge(part)
        return seen

    def total(self) -> Distribution:
        """Return all that there ever was."""
        seen = self._past + self._parts[0]
        for part in self._parts[1:]:
            seen._merge(part)
        return seen

    def _turn(self, at: int, number: int) -> None:
        self._past._merge(self._parts[at])
        self._parts[at] = self._past._empty()
        self._numbers[at] = number


def _sketch(relative_error: float, max_bins: int) -> BaseDDSketch:
    if not 0 < relative_error < 1 or max_bins < 1:
        raise ConfigurationError(
            f"relative_error is {relative_error} and max_bins is {max_bins}; "
            "a share between 0 and 1, and 1 bin or more are needed"
        )
    try:
        from ddsketch.ddsketch import LogCollapsingLowestDenseDDSketch  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise ConfigurationError(
            "ddsketch is not installed; pip install 'production-llm-patterns[latency]'"
        ) from error
    return LogCollapsingLowestDenseDDSketch(relative_error, max_bins)
