"""The provider's rate limits: requests and tokens a minute, as its gate applies them.

A token bucket for each, refilled without pause, which is how the vendors describe theirs. A request
reserves its input and the most it may write (`max_tokens`); refused requests count against the
requests limit too, as OpenAI documents ("unsuccessful requests contribute to your per-minute
limit").
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from llm_patterns.quotas import Quota, Quotas

__all__ = ["Gate", "RateLimitState", "RateLimits"]


class RateLimits(BaseModel):
    """What one key may use in a minute; None is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: int | None = Field(
        default=None, ge=1, description="Requests, refused ones too."
    )
    tokens_per_minute: int | None = Field(
        default=None, ge=1, description="Input and reserved output."
    )
    failures_count: bool = Field(
        default=True, description="Whether refused requests count as requests."
    )


@dataclass(frozen=True, slots=True)
class RateLimitState:
    """What the rate-limit headers say. Resets are seconds until the bucket is full again."""

    limit_requests: int | None
    remaining_requests: int
    reset_requests: float
    limit_tokens: int | None
    remaining_tokens: int
    reset_tokens: float

    @property
    def quotas(self) -> Quotas | None:
        """Return the same as a client reads it from the headers, or None where nothing is limited."""
        requests, tokens = self.limit_requests, self.limit_tokens
        if requests is None and tokens is None:
            return None
        return Quotas(
            None
            if requests is None
            else Quota(requests, self.remaining_requests, self.reset_requests),
            None if tokens is None else Quota(tokens, self.remaining_tokens, self.reset_tokens),
        )


_TOLERANCE: Final = 1e-3
"""Of a request or token: what rounding may leave out of a bucket after exactly the wait that was asked for."""


class _Bucket:
    def __init__(self, per_minute: int | None) -> None:
        self.capacity = per_minute
        self.level = float(per_minute or 0)
        self._since = 0.0

    def refill(self, now: float) -> None:
        if self.capacity is not None:
            gained = (now - self._since) * self.capacity / 60
            self.level = min(float(self.capacity), self.level + gained)
            self._since = now

    def wait_for(self, amount: float) -> float:
        """Return the seconds until *amount* is there, in whole milliseconds; infinity if it can't be."""
        if self.capacity is None or self.level >= amount - _TOLERANCE:
            return 0.0
        if amount > self.capacity:
            return inf
        return ceil((amount - self.level) * 60_000 / self.capacity) / 1000

    def take(self, amount: float) -> None:
        if self.capacity is not None:
            self.level -= amount

    def remaining(self) -> int:
        return max(0, int(self.level + _TOLERANCE))

    def reset(self) -> float:
        return 0.0 if self.capacity is None else (self.capacity - self.level) * 60 / self.capacity


class Gate:
    """One key's buckets. Times are loop times."""

    def __init__(self, limits: RateLimits) -> None:
        self.limits = limits
        self._requests = _Bucket(limits.requests_per_minute)
        self._tokens = _Bucket(limits.tokens_per_minute)

    def admit(self, tokens: int, now: float) -> float:
        """Take a request of *tokens* and return 0, or refuse it and return the seconds to wait.

        Who comes back alone after that is admitted; infinity if the bucket can't hold that many.
        """
        self._refill(now)
        wait = self._wait_for(tokens)
        if wait == 0:
            self._requests.take(1)
            self._tokens.take(tokens)
        elif self.limits.failures_count:
            self._requests.take(max(0.0, min(1.0, self._requests.level)))
            wait = self._wait_for(tokens)  # what it just took must come back first
        return wait

    def _wait_for(self, tokens: int) -> float:
        return max(self._requests.wait_for(1), self._tokens.wait_for(tokens))

    def state(self, now: float) -> RateLimitState:
        """Return what the headers say now."""
        self._refill(now)
        return RateLimitState(
            limit_requests=self.limits.requests_per_minute,
            remaining_requests=self._requests.remaining(),
            reset_requests=self._requests.reset(),
            limit_tokens=self.limits.tokens_per_minute,
            remaining_tokens=self._tokens.remaining(),
            reset_tokens=self._tokens.reset(),
        )

    def _refill(self, now: float) -> None:
        self._requests.refill(now)
        self._tokens.refill(now)
