"""How much of an expensive level can its provider bear now, and who is served there when it cannot bear all?

A level has a cap on its calls in flight. A dimmer turns the cap down while too many of its answers are slow, and slowly
up again; each priority may use a little less of it than the one above, so that the lowest is shed first.

Invariants, whatever is recorded:

1. A dimmer's level stays between 0 and 1, and moves by no more than its rates allow: down in `fall` seconds, up in
   `rise`. Without answers it stays where it is.
2. A limit is at least 1, so that one call always finds out whether the provider is well; it is never above the cap.
3. At one moment no priority is admitted while a higher one is shed.

>>> dimmer = Dimmer(DimmerPolicy(target=5))
>>> for second in range(10):
...     dimmer.record(9.0, now=second)  # seconds that an answer took
>>> f"{dimmer.level(now=10.0):.2f} of the cap"
'0.50 of the cap'
>>> [in_flight_limit(40, 0.5, rank, headroom=0.1) for rank in (0, 1, 2)]
[20, 18, 16]

Sources: Klein et al., "Brownout: Building More Robust Cloud Applications" (ICSE 2014), whose dimmer is the chance that
a request gets its optional part. Here it is a share of a limit on calls in flight: a chance lets a queue grow for as
long as the provider takes to answer, and is turned down when that queue is there already; a limit bounds the queue.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Dimmer", "DimmerPolicy", "in_flight_limit", "turned"]


class DimmerPolicy(BaseModel):
    """What is slow, how much of it is borne, and how quickly the light goes down and up.

    >>> DimmerPolicy(target=5).slow_share
    0.05
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    target: float = Field(
        gt=0,
        description="Seconds within which answers of the level must come. No default: take what its users bear, above "
        "its p95 on a quiet day, or the level dims itself.",
    )
    slow_share: float = Field(
        default=0.05,
        ge=0.001,
        le=0.5,
        description="Share of answers that may be slower. 0.05 makes the target a 95th percentile.",
    )
    rise: float = Field(
        default=60.0,
        ge=5,
        le=3600,
        description="Seconds from dark to full while no answer is slow: the ramp after an overload. Below 5 a provider "
        "that has just got up is thrown down again.",
    )
    fall: float = Field(
        default=20.0,
        ge=1,
        le=600,
        description="Seconds from full to dark while all answers are slow. Below an answer's own time it overshoots.",
    )
    period: float = Field(
        default=1.0,
        ge=0.1,
        le=60,
        description="Seconds over which answers are counted before the level moves.",
    )

    @model_validator(mode="after")
    def _falls_first(self) -> Self:
        if self.fall > self.rise:
            raise ValueError(
                f"fall is {self.fall} s and rise {self.rise} s: a dimmer that comes back more quickly than it goes "
                "down swings; give it a longer rise"
            )
        return self


def turned(level: float, *, slow: int, answers: int, elapsed: float, policy: DimmerPolicy) -> float:
    """Return the level after *elapsed* seconds in which *slow* of *answers* were slow.

    An integral controller on the share of slow answers, whose error is scaled to 1 at both ends: none slow raises the
    level at `1 / rise` a second, all slow lower it at `1 / fall`. Clamping is its anti-windup, for it has no other
    memory.

    >>> policy = DimmerPolicy(target=5, rise=60, fall=20)
    >>> [round(turned(0.5, slow=slow, answers=100, elapsed=1, policy=policy), 3) for slow in (0, 5, 100)]
    [0.517, 0.5, 0.45]
    """
    share, allowed = slow / answers, policy.slow_share
    if share <= allowed:
        step = (allowed - share) / allowed / policy.rise
    else:
        step = (allowed - share) / (1 - allowed) / policy.fall
    return min(1.0, max(0.0, level + step * elapsed))


def in_flight_limit(cap: int, level: float, rank: int, headroom: float) -> int:
    """Return the calls in flight below which a call of priority *rank* (0 is the highest) is admitted.

    *level* of the *cap* is what the provider bears; each rank leaves the share *headroom* of it to those above.
    """
    return max(1, int(cap * level * (1 - headroom) ** rank))


class Dimmer:
    """Says which share of a level's cap may be used. One instance serves one level; its methods do not wait."""

    def __init__(self, policy: DimmerPolicy) -> None:
        self.policy = policy
        self._level = 1.0
        self._slow = 0
        self._answers = 0
        self._turned_at: float | None = None

    def record(self, seconds: float, now: float) -> None:
        """Take in that an answer took so long."""
        if self._turned_at is None:
            self._turned_at = now
        self._turn(now)
        self._answers += 1
        self._slow += seconds > self.policy.target

    def level(self, now: float) -> float:
        """Return the share of the cap that may be used: 1 in good times."""
        if self._answers:
            self._turn(now)
        return self._level

    def _turn(self, now: float) -> None:
        elapsed = now - (self._turned_at or 0.0)
        if not self._answers or elapsed < self.policy.period:
            return
        # An answer speaks for the time that it took, not for the silence before: calls that hang are no quiet time.
        self._level = turned(
            self._level,
            slow=self._slow,
            answers=self._answers,
            elapsed=min(elapsed, max(self.policy.period, self.policy.target)),
            policy=self.policy,
        )
        self._slow = self._answers = 0
        self._turned_at = now
