"""One step of a ladder: what it calls, what it may take, and what its answers are worth.

A level is measured while it is used: how long it is the one that answers, why it is passed over, and what the scores
given to its answers say of its quality. The time that it may take is what the levels after it do not need.

Invariants: (1) the calls of a level in flight never exceed its cap, nor, when one is admitted, the limit of its
priority; (2) every call that began ends, and gives back its place and its breaker's permit, cancelled ones too.

>>> [time_for(left, reserved=2.5, timeout=4.0) for left in (10.0, 5.0, 2.0)]
[4.0, 2.5, -0.5]
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError, current_task, get_running_loop
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llm_patterns.errors import ErrorKind, LLMPatternsError, failure_of
from llm_patterns.resilience.circuit_breaker import CircuitBreaker, CircuitOpen, Permit, vote_of
from llm_patterns.resilience.load_shedding import Dimmer, in_flight_limit
from llm_patterns.resilience.stale_cache import Cached

__all__ = [
    "AnswerRejected",
    "Level",
    "LevelAtWork",
    "LevelPolicy",
    "LevelStatistics",
    "SkipReason",
    "Unserved",
    "measured",
    "reason_of",
    "time_for",
    "value_of",
]

Q = TypeVar("Q")
R = TypeVar("R")
Q_contra = TypeVar("Q_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

_PRIOR: Final = 20
"""Scores that the declared quality counts for."""
_EPSILON: Final = 1e-9
_MEMORY: Final = 500
"""Scores after which older ones fade: last year's quality is nobody's."""


class SkipReason(StrEnum):
    """Why a level did not answer."""

    FAILED = "failed"
    REJECTED = "rejected"
    TOO_SLOW = "too_slow"
    OPEN = "open"
    REFUSED = "refused"
    NO_TIME = "no_time"
    SHED = "shed"
    BELOW_FLOOR = "below_floor"


class AnswerRejected(LLMPatternsError):
    """A level answered, and `accept` said that it is no answer: cut short, or of another form."""

    def __init__(self, level: str) -> None:
        self.level = level
        super().__init__(f"the answer of level {level!r} was not accepted")


class LevelPolicy(BaseModel):
    """What a level may take, and what it gives.

    >>> LevelPolicy(quality=0.8, reserve=2.0).max_in_flight
    100
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    quality: float = Field(
        ge=0,
        le=1,
        description="What an answer of the level is worth, from 0 to 1, on your own evaluation; scores that are "
        "recorded correct it. No default: a guess here is the whole ladder's.",
    )
    reserve: float = Field(
        ge=0,
        le=600,
        description="Seconds that the level needs: no level before it may use them, and it does not start with less. "
        "Its median at the top of the ladder, its 99th percentile below. No default: with 0, a slow level before it "
        "leaves it no time at all.",
    )
    timeout: float | None = Field(
        default=None,
        gt=0,
        le=600,
        description="Seconds that the level may take at most. None: all that the levels after it do not need.",
    )
    quality_floor: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="The level is not asked while its measured quality is lower. 0 trusts it, whatever the scores.",
    )
    max_in_flight: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="Calls of the level at once: the load it can bear, also when all the traffic falls to it. 100 is "
        "what an httpx client has connections for.",
    )
    depends_on: frozenset[str] = Field(
        default=frozenset(),
        description="What must be up for the level to work (a provider, a region, a database), to be compared with "
        "the other levels'.",
    )
    safe_for_actions: bool = Field(
        default=False,
        description="Whether its answers may cause side effects although a better level was passed over. False: no "
        "tool call that a lesser model made up is run.",
    )

    @model_validator(mode="after")
    def _times_are_ordered(self) -> Self:
        if self.timeout is not None and self.reserve > self.timeout:
            raise ValueError(
                f"reserve is {self.reserve} s and timeout {self.timeout} s: "
                "the level can't need more than it may take"
            )
        return self


@dataclass(frozen=True, slots=True)
class Level(Generic[Q_contra, R_co]):
    """A way to answer: its name, its call, what the policy says of it, and what watches over it.

    *breaker* says that it is down, so that no time is lost on it; *dimmer* that it is slow, so that fewer calls use it.
    """

    name: str
    call: Callable[[Q_contra], Awaitable[R_co | Cached[R_co]]]
    policy: LevelPolicy
    breaker: CircuitBreaker | None = None
    dimmer: Dimmer | None = None


@dataclass(frozen=True, slots=True)
class LevelStatistics:
    """What a level did since the beginning.

    `skipped` counts why it did not answer. `attempt_seconds` were spent on its calls; in `seconds` the latest answer
    was its own, which says how many minutes of an incident it carried. `exercised_at` is the loop time of its last good
    answer, to a user or to a drill, None before the first. `dimmed_to` is the share of its cap in use.
    """

    name: str
    answers: int
    skipped: dict[SkipReason, int]
    attempts: int
    attempt_seconds: float
    seconds: float
    in_flight: int
    quality: float
    scores: int
    dimmed_to: float
    exercised_at: float | None


def time_for(left: float, *, reserved: float, timeout: float | None) -> float:
    """Return the seconds that a level may take of the *left* ones, when those after it have *reserved* theirs.

    Whatever it does with them, what the others need is still there.
    """
    spare = left - reserved
    return spare if timeout is None else min(timeout, spare)


def measured(mean: float, weight: int, score: float) -> tuple[float, int]:
    """Return the mean quality and its weight after one more *score*.

    It begins as the declared quality, with the weight of 20 scores; after 500 the oldest fade.

    >>> measured(0.8, 19, 0.0)
    (0.76, 20)
    """
    weight = min(weight + 1, _MEMORY)
    return mean + (score - mean) / weight, weight


def reason_of(error: Exception, *, cut_off: bool) -> SkipReason:
    """Return what *error* says of why a level did not answer; *cut_off* is whether its time was up.

    >>> from llm_patterns.errors import Overloaded
    >>> reason_of(Overloaded("busy"), cut_off=False).value, reason_of(TimeoutError(), cut_off=True).value
    ('failed', 'too_slow')
    """
    if cut_off:
        return SkipReason.TOO_SLOW
    if isinstance(error, AnswerRejected):
        return SkipReason.REJECTED
    if isinstance(error, CircuitOpen):
        return SkipReason.OPEN
    known = {ErrorKind.TIMEOUT: SkipReason.TOO_SLOW, ErrorKind.REFUSED: SkipReason.REFUSED}
    return known.get(failure_of(error).kind, SkipReason.FAILED)


class Unserved(Exception):
    """A level did not answer: why, and what it raised, if it was asked at all. It does not leave the ladder."""

    def __init__(self, reason: SkipReason, error: Exception | None = None) -> None:
        self.reason = reason
        self.error = error


class LevelAtWork(Generic[Q, R]):
    """A level in its place in a ladder, with what it has in flight and its counts. Only the ladder makes it."""

    def __init__(
        self,
        level: Level[Q, R],
        *,
        reserved: float,
        headroom: float,
        accept: Callable[[R], bool] | None = None,
    ) -> None:
        self.name = level.name
        self.call = level.call
        self.reserved = reserved
        self.safe_for_actions = level.policy.safe_for_actions
        self.quality = level.policy.quality
        self.answers = 0
        self.skipped = dict.fromkeys(SkipReason, 0)
        self._breaker = level.breaker
        self._dimmer = level.dimmer
        self._policy = level.policy
        self._headroom = headroom
        self._accept = accept
        self._in_flight = 0
        self._attempts = 0
        self._attempt_seconds = 0.0
        self._exercised_at: float | None = None
        self._weight = _PRIOR
        self._scores = 0

    def record(self, score: float) -> None:
        """Correct the quality by the score of one answer."""
        self.quality, self._weight = measured(self.quality, self._weight, score)
        self._scores += 1

    async def ask(
        self,
        request: Q,
        now: float,
        ends: float,
        rank: int,
        need: float | None,
    ) -> R | Cached[R]:
        """Return the level's answer, in what it may take of the time until *ends*; raises `Unserved`, with the reason.

        Asked in this order: is it as good as is needed (None asks it whatever its quality), is there time, is there
        room for the priority, and is it up?
        """
        policy = self._policy
        if need is not None and (self.quality < need or self.quality < policy.quality_floor):
            raise Unserved(SkipReason.BELOW_FLOOR)
        seconds = time_for(ends - now, reserved=self.reserved, timeout=policy.timeout)
        if seconds < policy.reserve - _EPSILON or seconds <= 0:
            raise Unserved(SkipReason.NO_TIME)
        if self._in_flight >= self._limit(rank, now):
            raise Unserved(SkipReason.SHED)
        permit = None if self._breaker is None else self._permit(self._breaker)
        self._in_flight += 1
        self._attempts += 1
        healthy: bool | None = None
        loop = get_running_loop()
        cutoff = _Cutoff(loop, now + seconds)
        try:
            with cutoff:
                answer = await self.call(request)
            healthy = None if isinstance(answer, Cached) else True
            if self._accept is not None and not self._accept(value_of(answer)):
                raise AnswerRejected(self.name)  # noqa: TRY301 - its reason is found where the others' are
        except Exception as error:
            if healthy is None:
                healthy = self._vote(error, cut_off=cutoff.expired)
            raise Unserved(reason_of(error, cut_off=cutoff.expired), error) from error
        finally:
            self._in_flight -= 1
            taken = loop.time() - now
            self._attempt_seconds += taken
            if self._breaker is not None and permit is not None:
                self._breaker.release(permit, succeeded=healthy)
            # A quick failure is no quick answer, but what has taken too long was slow however it ended.
            if self._dimmer is not None and (healthy or taken > self._dimmer.policy.target):
                self._dimmer.record(taken, now + taken)
        self._exercised_at = now
        return answer

    def statistics(self, now: float, seconds: float) -> LevelStatistics:
        """Return the counts so far; *seconds* is how long its answer was the latest."""
        return LevelStatistics(
            name=self.name,
            answers=self.answers,
            skipped={reason: count for reason, count in self.skipped.items() if count},
            attempts=self._attempts,
            attempt_seconds=self._attempt_seconds,
            seconds=seconds,
            in_flight=self._in_flight,
            quality=self.quality,
            scores=self._scores,
            dimmed_to=1.0 if self._dimmer is None else self._dimmer.level(now),
            exercised_at=self._exercised_at,
        )

    def _limit(self, rank: int, now: float) -> int:
        cap = self._policy.max_in_flight
        if self._dimmer is None and not rank:
            return cap
        share = 1.0 if self._dimmer is None else self._dimmer.level(now)
        return in_flight_limit(cap, share, rank, self._headroom)

    def _permit(self, breaker: CircuitBreaker) -> Permit:
        try:
            return breaker.acquire()
        except CircuitOpen as error:
            raise Unserved(SkipReason.OPEN, error) from None

    def _vote(self, error: Exception, *, cut_off: bool) -> bool | None:
        # A breaker sees a time-out from outside as a cancellation; here it is known for what it is.
        breaker = self._breaker
        return False if cut_off or breaker is None else vote_of(error, breaker.policy)


class _Cutoff:
    """`asyncio.timeout_at` as a plain context manager, in half its time: the most that a call pays for a ladder."""

    __slots__ = ("_cancelling", "_handle", "_task", "expired")

    def __init__(self, loop: AbstractEventLoop, ends: float) -> None:
        task = current_task(loop)
        assert task is not None, "a level is asked within a task"
        self._task = task
        self._cancelling = task.cancelling()
        self._handle = loop.call_at(ends, self._cut)
        self.expired = False

    def _cut(self) -> None:
        self.expired = True
        self._task.cancel()

    def __enter__(self) -> None:
        """Nothing: the time runs already."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._handle.cancel()
        # Others may have cancelled the task too; then it is theirs, and stays a cancellation.
        if self.expired and self._task.uncancel() <= self._cancelling and kind is CancelledError:
            raise TimeoutError from error


def value_of(answer: R | Cached[R]) -> R:
    """Return the answer itself, cached or not."""
    return answer.value if isinstance(answer, Cached) else answer
