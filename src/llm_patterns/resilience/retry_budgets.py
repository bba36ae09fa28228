"""May this process afford one more attempt? Budgets that all calls to one dependency share.

A retry cap per call bounds what one request may do; only a budget over all of them bounds the load that a failing
provider receives. Four designs from production systems and the default, behind one protocol:

| budget | what earns retries | what they cost | source |
| --- | --- | --- | --- |
| `EarnedBudget`, the default | a share of the successes of the last seconds | 1 if it fails | Brooker, resized |
| `WindowBudget` | a share of the calls of the last seconds, and a minimum a second | 1 | Finagle |
| `InFlightBudget` | a share of the calls in flight, and a minimum | 1 while it runs | Envoy |
| `ThrottleBucket` | successes refill a bucket that failures drain | none: off below half | gRPC, proposal A6 |
| `QuotaBucket` | successes refill a bucket, a successful retry returns its cost | 5, time-outs 10 | AWS SDKs |

Invariants, for each: (1) what it holds is never below zero nor above its capacity; (2) the retries it grants never
exceed what calls and successes earned plus what it began with; (3) a permit that is given back unused leaves it as it
was. Times are loop times in seconds. A budget belongs to one event loop and takes no lock: its methods do not wait.

>>> budget = WindowBudget(ratio=0.5, min_per_second=0)
>>> for second in range(4):
...     budget.begin(now=second)
>>> [budget.acquire(Failure(ErrorKind.SERVER), now=4) is not None for _ in range(3)]
[True, True, False]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

from llm_patterns.errors import ConfigurationError, ErrorKind, Failure

__all__ = [
    "BudgetStatistics",
    "EarnedBudget",
    "InFlightBudget",
    "QuotaBucket",
    "RetryBudget",
    "ThrottleBucket",
    "Unlimited",
    "WindowBudget",
]

_EPSILON: Final = 1e-9
_SLICES: Final = 10


@dataclass(frozen=True, slots=True)
class BudgetStatistics:
    """A budget at one moment; `level` and `capacity` are in its own unit, `ratio` is the one over the other."""

    level: float
    capacity: float
    granted: int
    refused: int

    @property
    def ratio(self) -> float:
        """Return how full it is, 0 to 1; 1 for a budget without an end."""
        return min(1.0, self.level / self.capacity) if 0 < self.capacity < float("inf") else 1.0


class RetryBudget(ABC):
    """What grants or refuses retries. A call begins, its attempts end, the call ends; retries are acquired between.

    A permit is what the budget wants to know of a retry that it granted. Every permit is released exactly once: with
    `succeeded` True or False when the attempt is over, with None when it never began.
    """

    def __init__(self) -> None:
        self._granted = 0
        self._refused = 0

    def begin(self, now: float) -> None:  # noqa: B027 - not every budget counts calls
        """Note that a call begins."""

    def end(self) -> None:  # noqa: B027 - nor what is in flight
        """Note that a call is over, however it ended."""

    def succeeded(self) -> None:  # noqa: B027 - nor successes
        """Note that a first attempt succeeded; retries say so when they are released."""

    def failed(self, failure: Failure) -> None:  # noqa: B027 - nor failures
        """Note that an attempt failed in a way that may be retried."""

    def acquire(self, failure: Failure, now: float) -> float | None:
        """Return a permit for one retry after *failure*, or None if it can't be afforded."""
        cost = self._cost(failure)
        if not self._affordable(cost, now):
            self._refused += 1
            return None
        self._granted += 1
        return self._spend(cost, now)

    def release(self, permit: float, *, succeeded: bool | None) -> None:  # noqa: B027
        """Give *permit* back: the retry is over, or (None) was never made."""

    def statistics(self, now: float) -> BudgetStatistics:
        """Return the budget as it is."""
        level, capacity = self._level(now)
        return BudgetStatistics(level, capacity, self._granted, self._refused)

    def _cost(self, failure: Failure) -> float:
        return 1.0

    def _affordable(self, cost: float, now: float) -> bool:
        return self._level(now)[0] >= cost - _EPSILON

    @abstractmethod
    def _spend(self, cost: float, now: float) -> float:
        """Take *cost* and return the permit."""

    @abstractmethod
    def _level(self, now: float) -> tuple[float, float]: ...


class Unlimited(RetryBudget):
    """No budget: each retry is granted. For experiments, and for callers of whom there is only one."""

    def _spend(self, cost: float, now: float) -> float:
        return cost

    def _level(self, now: float) -> tuple[float, float]:
        return float("inf"), float("inf")


class _WindowedBudget(RetryBudget):
    """Counts the calls and retries of the last *window* seconds, in slices: constant memory whatever the traffic."""

    def __init__(self, window: float) -> None:
        super().__init__()
        if not 0 < window < float("inf"):
            raise ConfigurationError(f"window is {window} s; it must be positive and finite")
        self._per_second = _SLICES / window
        self._slices = [[-_SLICES, 0, 0] for _ in range(_SLICES)]  # number, calls, retries
        self._slice = self._slices[0]
        self._slice_ends = float("-inf")

    def begin(self, now: float) -> None:
        """Count a call."""
        # Every call pays for this, so it is no more than a comparison and an addition.
        if now >= self._slice_ends:
            self._turn_to(now)
        self._slice[1] += 1

    def _turn_to(self, now: float) -> None:
        number = int(now * self._per_second)
        self._slice = self._slices[number % _SLICES]
        self._slice_ends = (number + 1) / self._per_second
        if self._slice[0] != number:
            self._slice[:] = (number, 0, 0)

    def _totals(self, now: float) -> tuple[int, int]:
        """Return the calls and the retries of the window that ends at *now*."""
        oldest = int(now * self._per_second) - _SLICES
        recent = [piece for piece in self._slices if piece[0] > oldest]
        return sum(piece[1] for piece in recent), sum(piece[2] for piece in recent)


class EarnedBudget(_WindowedBudget):
    """The default: successes earn retries, and what a window's traffic could not have earned expires.

    A retry costs 1, a success earns *ratio*, and a retry that succeeds brings its cost back: Brooker's bucket (2022).
    What is new is its size. A fixed one is too small for a busy process or, times a hundred replicas, no limit at all;
    this one holds what the calls of the last *window* seconds earn, and at least *floor*, so that a quiet process can
    still retry a lone failure. A fleet that fails all at once retries `replicas * floor` times and then stops.
    """

    def __init__(self, *, ratio: float = 0.1, floor: float = 2.0, window: float = 10.0) -> None:
        super().__init__(window)
        if not 0 <= ratio <= 1 or not 0 <= floor < float("inf"):
            raise ConfigurationError(
                f"ratio is {ratio} and floor is {floor}; a share from 0 to 1 and a finite floor of 0 or more are needed"
            )
        self.ratio = ratio
        self.floor = floor
        self._held = floor

    def succeeded(self) -> None:
        """Earn the ratio; the capacity is applied when somebody asks."""
        self._held += self.ratio

    def release(self, permit: float, *, succeeded: bool | None) -> None:
        """Bring the cost back, unless the retry failed."""
        if succeeded is not False:
            self._held += permit

    def _spend(self, cost: float, now: float) -> float:
        self._held = max(0.0, self._held - cost)
        return cost

    def _level(self, now: float) -> tuple[float, float]:
        calls, _ = self._totals(now)
        capacity = max(self.floor, self.ratio * calls)
        self._held = min(self._held, capacity)
        return self._held, capacity


class WindowBudget(_WindowedBudget):
    """At most *ratio* retries for each call of the last *window* seconds, and *min_per_second* on top.

    Finagle's `RetryBudget` (its defaults: 0.2, 10 a second, 10 s). The minimum lets a quiet client retry at all, but
    every process has it, so a fleet of N has N times that whatever happens. Credit expires with the window.
    """

    def __init__(
        self, *, ratio: float = 0.2, min_per_second: float = 10.0, window: float = 10.0
    ) -> None:
        super().__init__(window)
        if not 0 <= ratio <= 1 or not 0 <= min_per_second < float("inf"):
            raise ConfigurationError(
                f"ratio is {ratio} and min_per_second is {min_per_second}; "
                "a share from 0 to 1 and a finite minimum of 0 or more are needed"
            )
        self.ratio = ratio
        self._minimum = min_per_second * window

    def release(self, permit: float, *, succeeded: bool | None) -> None:
        """Give back a retry that was never made."""
        if succeeded is None:
            piece = self._slices[int(permit) % _SLICES]
            if piece[0] == permit:  # else it is out of the window already
                piece[2] -= 1

    def _spend(self, cost: float, now: float) -> float:
        self._turn_to(now)
        self._slice[2] += 1
        return float(self._slice[0])

    def _level(self, now: float) -> tuple[float, float]:
        calls, retries = self._totals(now)
        capacity = self.ratio * calls + self._minimum
        return max(0.0, capacity - retries), capacity


class InFlightBudget(RetryBudget):
    """At most *ratio* of the calls in flight may be retries, and *min_concurrency* always may.

    Envoy's `retry_budget` (its defaults: `budget_percent` 20 %, `min_retry_concurrency` 3). It needs no clock, and it
    follows latency by itself: when the provider slows down, more calls are in flight, and more retries are granted.
    """

    def __init__(self, *, ratio: float = 0.2, min_concurrency: int = 3) -> None:
        super().__init__()
        if not 0 <= ratio <= 1 or min_concurrency < 0:
            raise ConfigurationError(
                f"ratio is {ratio} and min_concurrency is {min_concurrency}; "
                "a share from 0 to 1 and a minimum of 0 or more are needed"
            )
        self.ratio = ratio
        self.min_concurrency = min_concurrency
        self._calls = 0
        self._retries = 0

    def begin(self, now: float) -> None:
        """Count a call in."""
        self._calls += 1

    def end(self) -> None:
        """Count a call out."""
        self._calls -= 1

    def release(self, permit: float, *, succeeded: bool | None) -> None:
        """Count a retry out."""
        self._retries -= 1

    def _spend(self, cost: float, now: float) -> float:
        self._retries += 1
        return cost

    def _level(self, now: float) -> tuple[float, float]:
        capacity = max(float(self.min_concurrency), self.ratio * self._calls)
        return max(0.0, capacity - self._retries), capacity


class ThrottleBucket(RetryBudget):
    """gRPC's retry throttling: failures drain a bucket, successes refill it, and below half there are no retries.

    Proposal A6, "Throttling Retry Attempts and Hedged RPCs": every failed attempt takes 1 token, retried or not, every
    success gives *token_ratio*, and retries stop while the bucket is at most half full. gRPC has no default; its
    example has 10 and 0.1.
    """

    def __init__(self, *, max_tokens: float = 10.0, token_ratio: float = 0.1) -> None:
        super().__init__()
        if not 0 < max_tokens <= 1000 or not 0 < token_ratio < float("inf"):
            raise ConfigurationError(
                f"max_tokens is {max_tokens} and token_ratio is {token_ratio}; "
                "A6 wants a maximum above 0 and up to 1000, and a positive ratio"
            )
        self.max_tokens = max_tokens
        self.token_ratio = token_ratio
        self._tokens = max_tokens

    def succeeded(self) -> None:
        """Refill by the ratio."""
        tokens = self._tokens + self.token_ratio
        self._tokens = min(self.max_tokens, tokens)

    def failed(self, failure: Failure) -> None:
        """Drain by 1."""
        self._tokens = max(0.0, self._tokens - 1)

    def release(self, permit: float, *, succeeded: bool | None) -> None:
        """Refill by the ratio if the retry succeeded."""
        if succeeded:
            self.succeeded()

    def _affordable(self, cost: float, now: float) -> bool:
        return self._tokens > self.max_tokens / 2

    def _spend(self, cost: float, now: float) -> float:
        return 0.0  # failures have drained the bucket already

    def _level(self, now: float) -> tuple[float, float]:
        return self._tokens, self.max_tokens


class QuotaBucket(RetryBudget):
    """The AWS SDKs' retry quota: a retry costs tokens, and a retry that succeeds brings its cost back.

    Their standard mode: 500 tokens, 5 for a retry and 10 after a time-out, 1 back for each first attempt that
    succeeds. With `retry_cost=1, success_refund=0.1` it is the bucket of Brooker's "Fixing retries with token buckets
    and circuit breakers" (2022).
    """

    def __init__(
        self,
        *,
        capacity: float = 500.0,
        retry_cost: float = 5.0,
        timeout_cost: float = 10.0,
        success_refund: float = 1.0,
    ) -> None:
        super().__init__()
        for name, value in (("retry_cost", retry_cost), ("timeout_cost", timeout_cost)):
            if not 0 < value <= capacity:
                raise ConfigurationError(
                    f"{name} is {value} and capacity is {capacity}; a cost must be above 0 and fit into the bucket"
                )
        if not 0 <= success_refund < float("inf"):
            raise ConfigurationError(
                f"success_refund is {success_refund}; a finite refund of 0 or more is needed"
            )
        self.capacity = capacity
        self.retry_cost = retry_cost
        self.timeout_cost = timeout_cost
        self.success_refund = success_refund
        self._tokens = capacity

    def succeeded(self) -> None:
        """Refill by the refund."""
        self._refill(self.success_refund)

    def release(self, permit: float, *, succeeded: bool | None) -> None:
        """Bring the cost back, unless the retry failed."""
        if succeeded is not False:
            self._refill(permit)

    def _refill(self, tokens: float) -> None:
        tokens += self._tokens
        self._tokens = min(self.capacity, tokens)

    def _cost(self, failure: Failure) -> float:
        return self.timeout_cost if failure.kind is ErrorKind.TIMEOUT else self.retry_cost

    def _spend(self, cost: float, now: float) -> float:
        self._tokens = max(0.0, self._tokens - cost)
        return cost

    def _level(self, now: float) -> tuple[float, float]:
        return self._tokens, self.capacity
