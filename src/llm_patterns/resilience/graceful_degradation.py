"""When the best answer cannot be had in time, which lesser one is still honest, and who notices how often it was given?

A ladder declares its levels, the best first: full model, smaller model, cached answer, rules. Each call takes the first
level that is good enough, has time, has room and is up, within one deadline for the whole; the answer says which level
gave it and why not the one above. Below the last level is a value that is there already: an honest "not now".

Invariants, held for any timings, failures, load and cancellations:

1. Every call ends in an answer, in a failure that is the request's own (`raise_on`), or in its caller's cancellation;
   where all levels fail, the answer is `not_now`.
2. It ends by the deadline, the ambient one if that is earlier; and a level whose `reserve` fits into what the deadline
   and the later reserves leave is never out of time because of the levels before it.
3. No level answers whose quality is below what the call needs, or below its own floor.
4. The cache gets answers of the first level only, and only accepted ones.
5. The shares of the levels add up to the answers; a drill is no answer.

>>> import asyncio
>>> from llm_patterns.resilience.degradation_levels import Level, LevelPolicy
>>> async def broken(question):
...     raise ConnectionError("no route")
>>> async def small(question):
...     return f"in short: {question}"
>>> ladder = GracefulDegradation(
...     DegradationPolicy(deadline=8),
...     [
...         Level("full", broken, LevelPolicy(quality=0.8, reserve=2)),
...         Level("small", small, LevelPolicy(quality=0.6, reserve=1)),
...     ],
...     not_now="We can't answer at the moment.",
... )
>>> answer = asyncio.run(ladder.call("why?"))
>>> answer.value, answer.level, answer.degraded, answer.reason.value
('in short: why?', 'small', True, 'failed')

Sources: Google, "Site Reliability Engineering" (2016), chapter 22; Klein et al., "Brownout" (ICSE 2014); and against it
all, Gabrielson, "Avoiding fallback in distributed systems" (Amazon Builders' Library, 2019).
"""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import inf
from random import Random
from typing import Final, Generic, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from llm_patterns import clock
from llm_patterns.deadlines import deadline_at
from llm_patterns.errors import ConfigurationError, ErrorKind, failure_of
from llm_patterns.events import EventHook, emit
from llm_patterns.resilience.breaker_detectors import CusumDetector, Evidence, Finding
from llm_patterns.resilience.degradation_levels import (
    Level,
    LevelAtWork,
    LevelStatistics,
    SkipReason,
    Unserved,
    value_of,
)
from llm_patterns.resilience.degraded_answers import Answer, Skipped
from llm_patterns.resilience.stale_cache import Cached, StaleCache

__all__ = [
    "DegradationEvent",
    "DegradationPolicy",
    "DegradationStatistics",
    "Degraded",
    "DegradedShareRose",
    "GracefulDegradation",
    "LevelDrilled",
]

Q = TypeVar("Q")
R = TypeVar("R")

NOT_NOW: Final = "not now"
"""The name of what is below the last level."""
_RECENT: Final = 1_000
"""Answers over which the recent share fades."""


class DegradationPolicy(BaseModel):
    """What one call may take, and who comes first.

    >>> DegradationPolicy(deadline=8).priorities
    ('critical', 'normal', 'background')
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    deadline: float = Field(
        gt=0,
        le=3600,
        description="Seconds for the whole ladder, from the call's beginning. An ambient deadline that is earlier "
        "wins. No default: it is how long your users wait.",
    )
    priorities: tuple[str, ...] = Field(
        default=("critical", "normal", "background"),
        min_length=1,
        max_length=10,
        description="Classes of calls, the first the highest; a call that names none is of the first. Few, since each "
        "must mean something when half of the traffic has to go.",
    )
    headroom: float = Field(
        default=0.1,
        ge=0,
        le=0.5,
        description="Share of a level's cap that each class leaves free for the classes above. 0 serves whoever comes "
        "first.",
    )
    raise_on: frozenset[ErrorKind] = Field(
        default=frozenset({ErrorKind.INVALID_REQUEST, ErrorKind.CONTENT_FILTERED}),
        description="Kinds of failure that are the request's own: raised as they came, for a lesser model must not "
        "answer what a better one would not.",
    )
    require_disjoint: bool = Field(
        default=False,
        description="Whether two levels that depend on the same thing are refused when the ladder is built.",
    )
    retry_after: float = Field(
        default=30.0,
        ge=1,
        le=3600,
        description="Seconds after which to come back, where neither an open circuit nor a provider says so. Up to "
        "half as much is added at random, so that they do not come back as one.",
    )
    usual_degraded_share: float = Field(
        default=0.05,
        ge=0.001,
        le=0.4,
        description="Share of degraded answers on an ordinary day. An alarm is raised when it is outgrown.",
    )
    alarm_interval: float = Field(
        default=3600.0,
        ge=1,
        le=86_400,
        description="Seconds between two such alarms, at least.",
    )


@dataclass(frozen=True, slots=True)
class Degraded:
    """A call was answered by a lesser level, or not at all."""

    level: str
    skipped: tuple[Skipped, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class DegradedShareRose:
    """More answers are degraded than usual; `finding` is the evidence, `degraded_share` that of the last thousand."""

    finding: Finding
    degraded_share: float


@dataclass(frozen=True, slots=True)
class LevelDrilled:
    """A drill asked this level: `reason` is None if it answered well."""

    level: str
    reason: SkipReason | None
    error: Exception | None
    seconds: float


DegradationEvent = Degraded | DegradedShareRose | LevelDrilled
"""What `on_event` hears. An answer of the first level is no event."""


@dataclass(frozen=True, slots=True)
class DegradationStatistics:
    """Counts since the beginning: the levels in order, and what was not answered by one.

    `raised` are failures of the request's own, `cancelled` were given up by their callers. `recent_degraded_share` is
    that of about the last thousand answers.
    """

    levels: tuple[LevelStatistics, ...]
    not_now: int
    not_now_seconds: float
    raised: int
    cancelled: int
    recent_degraded_share: float

    @property
    def answers(self) -> int:
        """Return the answers in all, "not now" among them."""
        return sum(level.answers for level in self.levels) + self.not_now

    @property
    def shares(self) -> dict[str, float]:
        """Return the share of each level, and of "not now", in the answers."""
        counts = {level.name: level.answers for level in self.levels} | {NOT_NOW: self.not_now}
        return {name: count / max(1, self.answers) for name, count in counts.items()}

    @property
    def degraded_share(self) -> float:
        """Return the share of answers that the first level did not give."""
        return 1 - self.levels[0].answers / self.answers if self.answers else 0.0


def reserved_after(reserves: Sequence[float]) -> list[float]:
    """Return for each level the seconds that those after it need.

    >>> reserved_after([2.0, 1.0, 0.5])
    [1.5, 0.5, 0.0]
    """
    return [sum(reserves[at + 1 :], 0.0) for at in range(len(reserves))]


class GracefulDegradation(Generic[Q, R]):
    """A ladder of levels. `await ladder.call(request)` always has an answer in time.

    Each level turns the request into its own client's call, so models of several vendors and a look-up can stand in one
    ladder; for streams, a level opens one, and the ladder ends with the opening. A level must heed cancellation: one
    that does not can't be cut off.

    *not_now* is given where no level answers. *accept* says whether an answer is one: whole, and of the right form.
    *cache* gives its fresh answers instead of the first level's and is filled by them. *rng* spreads when to come back;
    *on_event* hears a `DegradationEvent`.
    """

    def __init__(
        self,
        policy: DegradationPolicy,
        levels: Sequence[Level[Q, R]],
        *,
        not_now: R,
        accept: Callable[[R], bool] | None = None,
        cache: StaleCache[Q, R] | None = None,
        rng: Random | None = None,
        on_event: EventHook[DegradationEvent] | None = None,
    ) -> None:
        _check(policy, levels)
        self.policy = policy
        self.cache = cache
        self._not_now = not_now
        self._rng = rng
        self._on_event = on_event
        self._ranks = {name: rank for rank, name in enumerate(policy.priorities)}
        reserved = reserved_after([level.policy.reserve for level in levels])
        self._levels = [
            LevelAtWork(level, reserved=seconds, headroom=policy.headroom, accept=accept)
            for level, seconds in zip(levels, reserved, strict=True)
        ]
        if cache is not None:
            first = self._levels[0]
            first.call = partial(cache.fill, call=first.call, accept=accept)
        self._watch = _ShareWatch(policy)
        self._not_now_answers = self._raised = self._cancelled = 0
        self._seconds = [0.0] * (len(levels) + 1)
        self._latest = 0
        self._since: float | None = None

    async def call(
        self, request: Q, *, priority: str | None = None, need: float = 0.0
    ) -> Answer[R]:
        """Return the best answer that can be had in time, of a quality of at least *need*, or `not_now`.

        *priority* is one of the policy's; those below it are shed first. Raises what is in `raise_on`, as it came.
        """
        time = get_running_loop().time
        began = time()
        ends, ambient = began + self.policy.deadline, deadline_at()
        if ambient is not None:
            ends = min(ends, ambient)
        rank = 0 if priority is None else self._rank(priority)
        held = None if self.cache is None else self.cache.fresh(request, began)
        if held is not None and self._levels[0].quality >= need:
            return self._answer(0, held, began, began, ())
        skipped: list[Skipped] = []
        now = began
        try:
            for depth, level in enumerate(self._levels):
                try:
                    answer = await level.ask(request, now, ends, rank, need)
                except Unserved as unserved:
                    skipped.append(self._skip(level, unserved))
                    now = time()
                else:
                    return self._answer(depth, answer, began, time(), tuple(skipped))
        except asyncio.CancelledError:
            self._cancelled += 1
            raise
        return self._no_answer(began, now, tuple(skipped))

    def record(self, level: str, score: float) -> None:
        """Take in what an answer of *level* was worth, from 0 to 1: a person's verdict, a judge's, a test's."""
        if not 0 <= score <= 1:
            raise ConfigurationError(f"the score is {score}; it must be from 0 to 1")
        self._named(level).record(score)

    async def drill(
        self, request: Q, *, score: Callable[[R], float] | None = None
    ) -> tuple[LevelDrilled, ...]:
        """Ask every level once, one after another, as no user does while the first is well.

        It counts in no share, comes after all priorities, and reaches levels below their floor, which *score* can bring
        back. It does not overrule an open circuit.
        """
        return tuple([await self._drill(level, request, score) for level in self._levels])

    async def keep_drilling(
        self, request: Q, *, interval: float, score: Callable[[R], float] | None = None
    ) -> NoReturn:
        """Drill again and again, *interval* seconds apart on average: a task to keep as long as the ladder."""
        while True:
            await asyncio.sleep(interval * (0.5 + self._chance()))
            await self.drill(request, score=score)

    def statistics(self) -> DegradationStatistics:
        """Return the counts so far."""
        now = get_running_loop().time()
        *seconds, not_now_seconds = self._seconds_at(now)
        return DegradationStatistics(
            levels=tuple(
                level.statistics(now, spent)
                for level, spent in zip(self._levels, seconds, strict=True)
            ),
            not_now=self._not_now_answers,
            not_now_seconds=not_now_seconds,
            raised=self._raised,
            cancelled=self._cancelled,
            recent_degraded_share=self._watch.share,
        )

    def _rank(self, priority: str) -> int:
        try:
            return self._ranks[priority]
        except KeyError:
            known = ", ".join(self._ranks)
            raise ConfigurationError(
                f"there is no priority {priority!r}; the policy has {known}"
            ) from None

    def _named(self, name: str) -> LevelAtWork[Q, R]:
        for level in self._levels:
            if level.name == name:
                return level
        known = ", ".join(level.name for level in self._levels)
        raise ConfigurationError(f"there is no level {name!r}; the ladder has {known}")

    def _skip(self, level: LevelAtWork[Q, R], unserved: Unserved) -> Skipped:
        error = unserved.error
        if error is not None and failure_of(error).kind in self.policy.raise_on:
            self._raised += 1
            raise error
        level.skipped[unserved.reason] += 1
        return Skipped(level.name, unserved.reason, error)

    def _answer(
        self,
        depth: int,
        answer: R | Cached[R],
        began: float,
        now: float,
        skipped: tuple[Skipped, ...],
    ) -> Answer[R]:
        level = self._levels[depth]
        level.answers += 1
        self._served(depth, now)
        value, age = (answer.value, answer.age) if isinstance(answer, Cached) else (answer, None)
        if depth:
            emit(self._on_event, Degraded(level.name, skipped, now - began))
        may_act = level.safe_for_actions or (depth == 0 and age is None)
        return Answer(value, level.name, depth, level.quality, now - began, age, skipped, may_act)

    def _no_answer(self, began: float, now: float, skipped: tuple[Skipped, ...]) -> Answer[R]:
        self._not_now_answers += 1
        self._served(len(self._levels), now)
        emit(self._on_event, Degraded(NOT_NOW, skipped, now - began))
        return Answer(
            value=self._not_now,
            level=NOT_NOW,
            depth=len(self._levels),
            quality=0.0,
            seconds=now - began,
            age=None,
            skipped=skipped,
            may_act=False,
            retry_after=self._retry_after(skipped),
        )

    def _retry_after(self, skipped: tuple[Skipped, ...]) -> float:
        told = [failure_of(each.error).retry_after for each in skipped if each.error is not None]
        soonest = min(filter(None, told), default=self.policy.retry_after)
        return soonest * (1 + self._chance() / 2)

    def _served(self, depth: int, now: float) -> None:
        if self._since is not None:
            self._seconds[self._latest] += now - self._since
        self._latest, self._since = depth, now
        finding = self._watch.record(depth > 0, now)
        if finding is not None:
            emit(self._on_event, DegradedShareRose(finding, self._watch.share))

    def _seconds_at(self, now: float) -> list[float]:
        seconds = [*self._seconds]
        seconds[self._latest] += 0.0 if self._since is None else now - self._since
        return seconds

    def _chance(self) -> float:
        return (self._rng or clock.rng()).random()

    async def _drill(
        self, level: LevelAtWork[Q, R], request: Q, score: Callable[[R], float] | None
    ) -> LevelDrilled:
        time = get_running_loop().time
        began, reason, error = time(), None, None
        try:
            ends, rank = began + self.policy.deadline + level.reserved, len(self._ranks)
            answer = await level.ask(request, began, ends, rank, None)
            if score is not None:
                level.record(score(value_of(answer)))
        except Unserved as unserved:
            reason, error = unserved.reason, unserved.error
        drilled = LevelDrilled(level.name, reason, error, time() - began)
        emit(self._on_event, drilled)
        return drilled


class _ShareWatch:
    """Says when more answers are degraded than usual, at most once an interval."""

    def __init__(self, policy: DegradationPolicy) -> None:
        usual = policy.usual_degraded_share
        self.share = usual
        self._interval = policy.alarm_interval
        self._quiet_until = -inf
        self._detector = CusumDetector(healthy_rate=usual, sick_rate=max(0.1, 2 * usual))

    def record(self, degraded: bool, now: float) -> Finding | None:
        self.share += (degraded - self.share) / _RECENT
        finding = self._detector.record(degraded, False, now)
        if finding is None:
            return None
        if isinstance(finding, Evidence):
            self._detector.reset()
        if now < self._quiet_until:
            return None
        self._quiet_until = now + self._interval
        return finding


def _check(policy: DegradationPolicy, levels: Sequence[Level[Q, R]]) -> None:
    names = [level.name for level in levels]
    if not names or NOT_NOW in names or len(set(names)) < len(names):
        raise ConfigurationError(
            f"the levels are {names}; one or more with names of their own are needed, and {NOT_NOW!r} is taken"
        )
    needed = sum(level.policy.reserve for level in levels)
    if needed > policy.deadline:
        raise ConfigurationError(
            f"the levels reserve {needed:g} s and the deadline is {policy.deadline:g} s: the first would never be "
            "asked; lower the reserves, drop a level, or let users wait longer"
        )
    for level in levels:
        _check_dimmer(level)
    if policy.require_disjoint:
        _check_disjoint(levels)


def _check_dimmer(level: Level[Q, R]) -> None:
    timeout, dimmer = level.policy.timeout, level.dimmer
    if timeout is not None and dimmer is not None and dimmer.policy.target >= timeout:
        raise ConfigurationError(
            f"level {level.name!r} has a timeout of {timeout:g} s and a dimmer with a target of "
            f"{dimmer.policy.target:g} s, so that an answer is cut off, and its breaker counts it, before the dimmer "
            "calls it slow; lower the target"
        )


def _check_disjoint(levels: Sequence[Level[Q, R]]) -> None:
    for one, other in combinations(levels, 2):
        shared = one.policy.depends_on & other.policy.depends_on
        if shared:
            raise ConfigurationError(
                f"levels {one.name!r} and {other.name!r} both depend on {', '.join(sorted(shared))} and fail together; "
                "give one of them another provider, or drop it"
            )
