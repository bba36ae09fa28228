"""Is this dependency sick? Detectors that look at one outcome after another and say so, behind one protocol.

| detector | says sick when | weak at | source |
| --- | --- | --- | --- |
| `CusumDetector`, the default | bad calls outrun good ones more than by chance | a wrong idea of healthy | Page 1954 |
| `RateDetector` | too large a share of the last calls or seconds was bad | few calls; many | resilience4j |
| `StreakDetector` | several calls in a row were bad | a brown-out in which some succeed | Nygard 2007 |

A call is bad if it failed or was slow. Invariants, for each: (1) a record takes constant time and the detector constant
memory, whatever the traffic; (2) it answers from what was recorded since the last `reset`, and from nothing else;
(3) `CusumDetector` opens on independent calls of the healthy rate once in at least `calls_between_false_opens`.

>>> detector = StreakDetector(bad_calls=3)
>>> [bool(detector.record(failed, False, now=0.0)) for failed in (True, True, False, True, True, True)]
[False, False, False, False, False, True]

Sources: Page, "Continuous Inspection Schemes" (Biometrika 1954); Reynolds and Stoumbos, "A CUSUM Chart for Monitoring
a Proportion When Inspecting Continuously" (Journal of Quality Technology 1999); Brook and Evans, "An Approach to the
Probability Distribution of Cusum Run Length" (Biometrika 1972); Moustakides, "Optimal Stopping Times for Detecting
Changes in Distributions" (Annals of Statistics 1986), measured by the worst history before the change.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import inf, log, log1p, sqrt
from typing import Final, Protocol

from llm_patterns.errors import ConfigurationError

__all__ = [
    "BaselineExceeded",
    "CusumDetector",
    "Detector",
    "Evidence",
    "RateDetector",
    "StreakDetector",
]

_SLICES: Final = 20
_BLOCK: Final = 1_000
"""Calls over which the healthy rate is compared with the assumed one."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a detector saw in its last `calls` calls; a `score` of `threshold` or more opens the circuit."""

    detector: str
    score: float
    threshold: float
    calls: int

    @property
    def ratio(self) -> float:
        """Return the score over the threshold: 1 opens."""
        return self.score / self.threshold

    def __str__(self) -> str:
        return f"{self.detector} {self.score:.3g} of {self.threshold:.3g} in {self.calls} calls"


@dataclass(frozen=True, slots=True)
class BaselineExceeded:
    """More of the last `calls` calls were bad than a dependency of the assumed rate would have.

    Either it is less healthy than you think, or `slow_after` is too short. Until one is corrected, false opens are more
    frequent than was asked for.
    """

    rate: float
    assumed: float
    calls: int


Finding = Evidence | BaselineExceeded


class Detector(Protocol):
    """Judges a stream of outcomes. It belongs to one breaker, which tells it of calls while the circuit is closed."""

    def record(self, failed: bool, slow: bool, now: float) -> Finding | None:
        """Take one outcome in; return evidence if the circuit should open, or a doubt about the assumptions."""

    def evidence(self, now: float) -> Evidence:
        """Return what there is so far."""

    def reset(self) -> None:
        """Forget the outcomes: the circuit changed its state, and a new judgement begins."""


class CusumDetector:
    """Page's sequential test: none with as few false opens finds the change to the sick rate sooner (Moustakides).

    Each bad call adds to a score, each good one takes 1 off, never below zero; the circuit opens at the threshold. What
    a bad call adds follows from the two rates (the log-likelihood ratios, rounded to whole steps as Reynolds and
    Stoumbos advise), and the threshold from the calls between false opens, exactly, by Brook and Evans' chain.

    The guarantee is for independent calls at *healthy_rate*. Where the true rate is higher, or failures come in bursts,
    false opens are more frequent; once in a thousand calls the rate is compared, and `BaselineExceeded` says so.

    >>> detector = CusumDetector(healthy_rate=0.05, sick_rate=0.5, calls_between_false_opens=1_000_000)
    >>> detector.step, detector.threshold, detector.calls_to_detect(1.0), round(detector.calls_to_detect(0.4))
    (4, 23, 6.0, 22)
    """

    def __init__(
        self,
        *,
        healthy_rate: float = 0.05,
        sick_rate: float = 0.5,
        calls_between_false_opens: int = 1_000_000,
    ) -> None:
        _check_rates(healthy_rate, sick_rate)
        if not 1_000 <= calls_between_false_opens <= 10**9:
            raise ConfigurationError(
                f"calls_between_false_opens is {calls_between_false_opens}; it must be from 1,000, below which noise "
                "opens the circuit daily, to 1,000,000,000"
            )
        self.healthy_rate = healthy_rate
        self.step = bad_step(healthy_rate, sick_rate)
        self.threshold = _threshold(healthy_rate, self.step, calls_between_false_opens)
        self._score = 0
        self._calls = 0  # since the score was last zero
        self._left = _BLOCK
        self._bad = 0
        spread = sqrt(healthy_rate * (1 - healthy_rate) * _BLOCK)
        self._most_bad = healthy_rate * _BLOCK + 4 * spread  # by chance once in 30,000 blocks

    def record(self, failed: bool, slow: bool, now: float) -> Finding | None:
        """Take one outcome in."""
        self._left -= 1
        if failed or slow:
            self._bad += 1
            self._calls += 1
            self._score += self.step
            if self._score >= self.threshold:
                return self.evidence(now)
        elif self._score:
            self._score -= 1
            self._calls = self._calls + 1 if self._score else 0
        return None if self._left > 0 else self._compared()

    def evidence(self, now: float) -> Evidence:
        """Return the score, and the calls since it was last zero."""
        return Evidence("cusum", self._score, self.threshold, self._calls)

    def reset(self) -> None:
        """Forget the score. The comparison with the assumed rate goes on: it is about weeks, not incidents."""
        self._score = self._calls = 0

    def calls_to_detect(self, rate: float) -> float:
        """Return the calls until it opens, on average, when each is bad with probability *rate*."""
        return average_run_length(rate, self.step, self.threshold)

    def _compared(self) -> BaselineExceeded | None:
        bad, self._bad, self._left = self._bad, 0, _BLOCK
        if bad <= self._most_bad:
            return None
        return BaselineExceeded(bad / _BLOCK, self.healthy_rate, _BLOCK)


class RateDetector:
    """The usual one: opens when *failure_rate* of a sliding window failed, or *slow_rate* of it was slow.

    The window is the last *window_calls* calls (100 where none is given), or the last *window* seconds, in twentieths.
    Below *minimum_calls* in it nothing is decided. Whether that is quick or noisy depends on the traffic: a window of
    calls must be half full of failures, a window of seconds holds more calls the busier the service.
    """

    def __init__(
        self,
        *,
        failure_rate: float = 0.5,
        slow_rate: float = 0.5,
        window_calls: int | None = None,
        window: float | None = None,
        minimum_calls: int = 10,
    ) -> None:
        for name, value in (("failure_rate", failure_rate), ("slow_rate", slow_rate)):
            if not 0.05 <= value <= 1:
                raise ConfigurationError(
                    f"{name} is {value}; a share from 0.05, below which noise opens the circuit, to 1 is needed"
                )
        self.failure_rate = failure_rate
        self.slow_rate = slow_rate
        self.minimum_calls = minimum_calls
        self._window = _window(window_calls, window, minimum_calls)

    def record(self, failed: bool, slow: bool, now: float) -> Evidence | None:
        """Take one outcome in."""
        seen = self._window
        seen.add(failed, slow, now)
        if seen.calls < self.minimum_calls:
            return None
        if (
            seen.failed >= self.failure_rate * seen.calls
            or seen.slow >= self.slow_rate * seen.calls
        ):
            return self.evidence(now)
        return None

    def evidence(self, now: float) -> Evidence:
        """Return the rate that is nearer to its threshold."""
        seen = self._window
        seen.turn(now)
        calls = max(1, seen.calls)
        failures = Evidence("failure rate", seen.failed / calls, self.failure_rate, seen.calls)
        slows = Evidence("slow-call rate", seen.slow / calls, self.slow_rate, seen.calls)
        return max(failures, slows, key=lambda each: each.ratio)

    def reset(self) -> None:
        """Empty the window."""
        self._window.clear()


class StreakDetector:
    """Opens after *bad_calls* in a row. The oldest rule, and the one that most libraries have alone."""

    def __init__(self, *, bad_calls: int = 5) -> None:
        if not 2 <= bad_calls <= 1_000:
            raise ConfigurationError(
                f"bad_calls is {bad_calls}; it must be from 2, since one call is no pattern, to 1000"
            )
        self.bad_calls = bad_calls
        self._streak = 0

    def record(self, failed: bool, slow: bool, now: float) -> Evidence | None:
        """Take one outcome in."""
        if not (failed or slow):
            self._streak = 0
            return None
        self._streak += 1
        return self.evidence(now) if self._streak >= self.bad_calls else None

    def evidence(self, now: float) -> Evidence:
        """Return the length of the streak."""
        return Evidence("streak", self._streak, self.bad_calls, self._streak)

    def reset(self) -> None:
        """Begin a new streak."""
        self._streak = 0


def bad_step(healthy_rate: float, sick_rate: float) -> int:
    """Return what a bad call adds to the score when a good one takes 1 off.

    The log-likelihood ratios of a bad and of a good call, the one over the other, rounded. The score then rises in the
    long run where more than one call in `step + 1` is bad.

    >>> bad_step(0.05, 0.5), bad_step(0.01, 0.3)
    (4, 10)
    """
    bad = log(sick_rate / healthy_rate)
    good = log1p(-healthy_rate) - log1p(-sick_rate)
    return max(1, round(bad / good))


@lru_cache(maxsize=256)
def average_run_length(rate: float, step: int, threshold: int) -> float:
    """Return the calls until the score reaches *threshold*, on average, when each is bad with probability *rate*.

    From a score s the expected calls are L(s) = 1 + rate L(s + step) + (1 - rate) L(s - 1), and 0 at the threshold.
    Each L(s) is written as a + b L(s - 1) from the top down, and solved at zero, which a good call does not leave.
    """
    a, b = [0.0] * threshold, [0.0] * threshold

    def after_a_bad_call(score: int) -> tuple[float, float]:
        """L(score + step), as the first plus the second times L(score)."""
        rest, again = 0.0, float(score + step < threshold)
        for above in range(min(score + step, threshold - 1), score, -1):
            rest, again = rest + again * a[above], again * b[above]
        return rest, again

    for score in range(threshold - 1, 0, -1):
        rest, again = after_a_bad_call(score)
        stays = 1 - rate * again
        a[score], b[score] = (1 + rate * rest) / stays, (1 - rate) / stays
    rest, again = after_a_bad_call(0)
    leaves = rate * (1 - again)
    return (1 + rate * rest) / leaves if leaves > 0 else inf


@lru_cache(maxsize=256)
def _threshold(healthy_rate: float, step: int, calls_between_false_opens: int) -> int:
    """Return the lowest threshold that noise reaches no more often than asked."""
    low, high = 1, 2
    while average_run_length(healthy_rate, step, high) < calls_between_false_opens:
        low, high = high, high * 2
    while low < high:
        middle = (low + high) // 2
        if average_run_length(healthy_rate, step, middle) < calls_between_false_opens:
            low = middle + 1
        else:
            high = middle
    return high


def _check_rates(healthy_rate: float, sick_rate: float) -> None:
    if not 0.001 <= healthy_rate <= 0.5 or not 0.1 <= sick_rate <= 0.95:
        raise ConfigurationError(
            f"healthy_rate is {healthy_rate} and sick_rate {sick_rate}; "
            "shares from 0.001 to 0.5 and from 0.1 to 0.95 are needed"
        )
    if sick_rate < 2 * healthy_rate:
        raise ConfigurationError(
            f"sick_rate is {sick_rate} and healthy_rate {healthy_rate}: rates that are less than a factor of 2 apart "
            "take hundreds of calls to tell apart"
        )


class _Window:
    """Totals of what it holds."""

    __slots__ = ("calls", "failed", "slow")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.calls = self.failed = self.slow = 0

    def add(self, failed: bool, slow: bool, now: float) -> None:
        raise NotImplementedError

    def turn(self, now: float) -> None:
        """Drop what is too old at *now*."""


class _CountWindow(_Window):
    """The last *size* calls: a ring of two bits each."""

    __slots__ = ("_at", "_ring")

    def __init__(self, size: int) -> None:
        self._ring = bytearray(size)
        super().__init__()

    def clear(self) -> None:
        super().clear()
        self._at = 0

    def add(self, failed: bool, slow: bool, now: float) -> None:
        ring, at = self._ring, self._at
        if self.calls < len(ring):
            self.calls += 1
        else:
            self.failed -= ring[at] & 1
            self.slow -= ring[at] >> 1
        ring[at] = failed | slow << 1
        self.failed += failed
        self.slow += slow
        self._at = (at + 1) % len(ring)


class _TimeWindow(_Window):
    """The last *seconds*, in slices: what leaves does so a slice at a time."""

    __slots__ = ("_at", "_ends", "_per_second", "_slices")

    def __init__(self, seconds: float) -> None:
        self._per_second = _SLICES / seconds
        super().__init__()

    def clear(self) -> None:
        super().clear()
        self._slices = [[0, 0, 0] for _ in range(_SLICES)]  # calls, failed, slow
        self._at = 0
        self._ends = float("-inf")

    def add(self, failed: bool, slow: bool, now: float) -> None:
        if now >= self._ends:
            self.turn(now)
        piece = self._slices[self._at % _SLICES]
        piece[0] += 1
        piece[1] += failed
        piece[2] += slow
        self.calls += 1
        self.failed += failed
        self.slow += slow

    def turn(self, now: float) -> None:
        number = int(now * self._per_second)
        for old in range(max(self._at + 1, number - _SLICES + 1), number + 1):
            self._drop(self._slices[old % _SLICES])
        self._at = max(self._at, number)
        self._ends = (self._at + 1) / self._per_second

    def _drop(self, piece: list[int]) -> None:
        self.calls -= piece[0]
        self.failed -= piece[1]
        self.slow -= piece[2]
        piece[:] = (0, 0, 0)


def _window(calls: int | None, seconds: float | None, minimum_calls: int) -> _Window:
    if calls is not None and seconds is not None:
        raise ConfigurationError(
            f"window_calls is {calls} and window {seconds} s; a window is of calls or of seconds: give one"
        )
    if seconds is not None:
        if not 1 <= seconds <= 3600 or minimum_calls < 2:
            raise ConfigurationError(
                f"window is {seconds} s and minimum_calls {minimum_calls}; "
                "from 1 to 3600 s, and at least 2 calls, are needed"
            )
        return _TimeWindow(seconds)
    size = 100 if calls is None else calls
    if not 2 <= minimum_calls <= size <= 10_000:
        raise ConfigurationError(
            f"window_calls is {size} and minimum_calls {minimum_calls}; a window of at most 10,000 calls, and a "
            "minimum from 2 that fits into it, are needed"
        )
    return _CountWindow(size)
