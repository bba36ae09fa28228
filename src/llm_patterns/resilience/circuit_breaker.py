"""Is this dependency too sick to be called at all, and how do we find out that it is well without hurting it?

A detector looks at each outcome; when it says sick, the circuit opens, and calls are refused at once. After a while a
few probes are let through, and if they succeed, the load comes back as a ramp. Each change of state begins a new
generation, and what was begun in an older one has no say in it.

Invariants, held for any interleaving of calls, faults and cancellations:

1. No call is admitted while the circuit is open; it is open from 1 - `open_jitter` of its open time to all of it, and
   never longer than `max_open_time`.
2. Half open, never more than `max_probes` calls of this generation are in flight, whoever is waiting, and each of them
   gives its place back: by its outcome, by cancellation, or when it has taken `slow_after`.
3. A result of an older generation changes nothing. Nor does a cancelled call, nor a failure that is not in `open_on`.
4. The states follow each other only as drawn: closed, open, half open, ramping, closed; open again from any.
5. While ramping, the share of calls admitted is the share of `ramp` that has passed, to one call.

>>> import asyncio
>>> breaker = CircuitBreaker(BreakerPolicy(), key="openai/gpt-6")
>>> @breaker
... async def ask(question):
...     return f"answer to {question}"
>>> asyncio.run(ask("why?"))
'answer to why?'

Sources: Nygard, "Release It!" (2007; second edition 2018); Brooker, "Will circuit breakers solve my problems?" (2022);
the detectors' own in `breaker_detectors`.
"""

from __future__ import annotations

import math
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from random import Random
from typing import Any, Final, Literal, ParamSpec, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llm_patterns import clock
from llm_patterns.errors import ErrorKind, LLMPatternsError, failure_of
from llm_patterns.events import EventHook, emit
from llm_patterns.resilience.breaker_detectors import (
    BaselineExceeded,
    CusumDetector,
    Detector,
    Evidence,
    Finding,
)

__all__ = [
    "BreakerClosed",
    "BreakerEvent",
    "BreakerHalfOpened",
    "BreakerOpened",
    "BreakerPolicy",
    "BreakerState",
    "BreakerStatistics",
    "CircuitBreaker",
    "CircuitOpen",
    "Permit",
    "vote_of",
]

P = ParamSpec("P")
R = TypeVar("R")

_RAMP_TICK: Final = 0.1
_GOLDEN: Final = 0.6180339887498949


class BreakerState(StrEnum):
    """What a breaker does with a call: admits it, refuses it, tests with it, or admits a growing share."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    RAMPING = "ramping"
    FORCED_OPEN = "forced_open"
    FORCED_CLOSED = "forced_closed"


class CircuitOpen(LLMPatternsError):
    """The call was refused before it was sent.

    `retry_after` is the seconds until one may be admitted, at the earliest; `evidence` is what opened the circuit, None
    where a person or another process did. The kind is `REFUSED`, which no breaker counts, and the headers say
    `x-should-retry: false`: whoever waits should wait for a fallback, not for this.
    """

    kind = ErrorKind.REFUSED

    def __init__(
        self, key: str, state: BreakerState, retry_after: float, evidence: Evidence | None
    ) -> None:
        self.key = key
        self.state = state
        self.retry_after = retry_after
        self.evidence = evidence
        self.headers = {"x-should-retry": "false"}
        of = f" of {key}" if key else ""
        why = f" ({evidence})" if evidence else ""
        then = f"; ask again in {retry_after:.3g} s" if retry_after < math.inf else ""
        super().__init__(f"the circuit{of} is {state.replace('_', ' ')}{why}{then}")


class BreakerPolicy(BaseModel):
    """When to test again, how carefully, and what counts as bad.

    >>> BreakerPolicy(open_time=10).max_probes
    1
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    open_time: float = Field(
        default=30.0,
        ge=1,
        le=600,
        description="Seconds without any call after opening. Below 1 the probes are a load of their own. 30 outlives "
        "most overloads; 5 to 10 where a person waits.",
    )
    max_open_time: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="Longest open time in seconds, however often it grew. A probe is one call: a longer wait saves "
        "little, and a provider that is well again has to wait for it.",
    )
    open_multiplier: float = Field(
        default=2.0,
        ge=1,
        le=4,
        description="Growth of the open time when the circuit opens again. It begins anew when the whole load has "
        "been admitted for as long as the circuit was last open.",
    )
    open_jitter: float = Field(
        default=0.2,
        ge=0,
        le=0.5,
        description="Share by which an open time is shortened at random, at most. 0 sends a fleet's probes in step.",
    )
    max_probes: int = Field(
        default=1,
        ge=1,
        le=100,
        description="Calls in flight at once while half open. One is enough to learn from; a hundred are a load.",
    )
    probes_to_close: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Probes that must succeed, and not be slow, before the circuit closes. One bad probe opens it.",
    )
    ramp: float = Field(
        default=30.0,
        ge=0,
        le=600,
        description="Seconds over which the admitted share then grows from none to all. 0 gives a provider that has "
        "just got up the whole load at once.",
    )
    slow_after: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="Seconds from which a call is slow, and bad though it succeeded; also how long a probe may take. "
        "60 is resilience4j's; twice your p95 finds a brown-out sooner. 3600 turns it off.",
    )
    open_on: frozenset[ErrorKind] = Field(
        default=frozenset(
            {
                *(ErrorKind.SERVER, ErrorKind.OVERLOADED, ErrorKind.TIMEOUT),
                *(ErrorKind.CONNECTION, ErrorKind.UNKNOWN),
            }
        ),
        description="Kinds of failure that are the dependency's. The others (4xx, 429, refusals) have no vote: they "
        "say nothing of its health. Unknown ones count: a breaker that knew no error of its client would never open, "
        "and nobody would see it.",
    )

    @model_validator(mode="after")
    def _open_times_are_ordered(self) -> Self:
        if self.open_time > self.max_open_time:
            raise ValueError(
                f"open_time is {self.open_time} s and max_open_time {self.max_open_time} s: "
                "the first open time can't be longer than the longest"
            )
        return self


@dataclass(frozen=True, slots=True)
class BreakerOpened:
    """The circuit opened for `open_for` seconds, after `reopened` openings without a rest between.

    `evidence` is None where a probe failed (`reopened` is above 0), or where another process decided.
    """

    key: str
    open_for: float
    reopened: int
    evidence: Evidence | None


@dataclass(frozen=True, slots=True)
class BreakerHalfOpened:
    """The open time is over, and the first probe is on its way."""

    key: str


@dataclass(frozen=True, slots=True)
class BreakerClosed:
    """The probes succeeded after `open_seconds`; all calls are admitted `ramp` seconds from now."""

    key: str
    open_seconds: float
    ramp: float


BreakerEvent = BreakerOpened | BreakerHalfOpened | BreakerClosed | BaselineExceeded | CircuitOpen
"""What `on_event` hears. A refused call is told by the error that its caller gets."""


@dataclass(frozen=True, slots=True)
class BreakerStatistics:
    """Counts since the beginning, by outcome, and the state now.

    `slow` are among `succeeded`; `no_vote` were cancelled or failed in a way that does not count; `late` belong to an
    older generation. It `opened` when it had been closed; `bad_probes`, of its own or another process, kept it open;
    `open_seconds` is the time from each opening to its closing.
    """

    key: str
    state: BreakerState
    generation: int
    succeeded: int
    slow: int
    failed: int
    no_vote: int
    late: int
    refused: int
    probes: int
    probes_in_flight: int
    opened: int
    bad_probes: int
    open_seconds: float
    evidence: Evidence


class Permit:
    """Leave to make one call. It is given back with `CircuitBreaker.release`, exactly once."""

    __slots__ = ("began", "generation", "released")

    def __init__(self, generation: int, began: float) -> None:
        self.generation = generation
        self.began = began
        self.released = False


class Sharing(Protocol):
    """What a breaker tells of itself to those who share its verdicts, and asks of them."""

    def join(self, breaker: CircuitBreaker) -> None:
        """It is there."""

    def opened(self, breaker: CircuitBreaker, open_for: float) -> None:
        """It opened for so many seconds."""

    def closed(self, breaker: CircuitBreaker) -> None:
        """Its probes succeeded."""

    def wait_to_probe(self, breaker: CircuitBreaker) -> float:
        """Return the seconds until it may probe, 0 if now; asked when a call could be one."""

    def forget(self, breaker: CircuitBreaker) -> None:
        """It is no longer in use."""


def open_time(reopened: int, policy: BreakerPolicy, rng: Random) -> float:
    """Return the seconds to stay open, after *reopened* openings without a rest between.

    >>> policy = BreakerPolicy(open_time=10, max_open_time=60, open_jitter=0)
    >>> [open_time(reopened, policy, Random(0)) for reopened in range(5)]
    [10.0, 20.0, 40.0, 60.0, 60.0]
    """
    growth = policy.open_multiplier ** min(reopened, 12)
    longest = min(policy.max_open_time, policy.open_time * growth)
    return longest * (1 - policy.open_jitter * rng.random())


def ramp_admits(number: int, since: float, policy: BreakerPolicy, salt: float) -> bool:
    """Return whether call *number* of a ramp is admitted, *since* seconds into it.

    Multiples of the golden ratio spread evenly between 0 and 1 (Weyl), so of any calls in a row the admitted share is
    the share of the ramp that has passed, to a few calls: a thousand waiters at one moment are no stampede. The
    tenths of a second count too, so that one who only asks is not told the same for ever.
    """
    draw = (salt + _GOLDEN * (number + since // _RAMP_TICK)) % 1.0
    return draw * policy.ramp < since


def vote_of(error: BaseException, policy: BreakerPolicy) -> bool | None:
    """Return False if *error* speaks against the dependency, None if it says nothing of it.

    >>> from llm_patterns.errors import Overloaded, RateLimited
    >>> vote_of(Overloaded("busy"), BreakerPolicy()), vote_of(RateLimited("slow down"), BreakerPolicy())
    (False, None)
    """
    counts = isinstance(error, Exception) and failure_of(error).kind in policy.open_on
    return False if counts else None


class CircuitBreaker:
    """A layer that stops calling what is sick.

    Use it on any async callable: `guarded = breaker(client.chat.completions.create)`, or as a decorator; on the opening
    of a stream it guards the opening. Callers that guard by hand `acquire` a permit and `release` it. One instance
    serves one dependency: see `keyed_breakers`. Put a time-out inside it, for a call that hangs tells nothing.

    *detector* decides when to open; the default is a `CusumDetector()`. *sharing* makes several processes agree; *rng*
    draws the jitter; *on_event* hears a `BreakerEvent` for everything that happens.
    """

    def __init__(
        self,
        policy: BreakerPolicy,
        *,
        key: str = "",
        detector: Detector | None = None,
        sharing: Sharing | None = None,
        rng: Random | None = None,
        on_event: EventHook[BreakerEvent] | None = None,
    ) -> None:
        self.policy = policy
        self.key = key
        self.detector: Detector = CusumDetector() if detector is None else detector
        self._sharing = sharing
        self._rng = rng
        self._on_event = on_event
        self._state = BreakerState.CLOSED
        self._generation = 0
        # The generation while the circuit is closed, when a call has nothing to ask; else None.
        self._unguarded: int | None = 0
        self._since = 0.0
        self._openings = _Openings()
        self._probes: dict[Permit, None] = {}  # in flight, the oldest first
        self._probes_good = 0
        self._asked = 0
        self._salt = 0.0
        self._succeeded = self._slow = self._failed = 0
        self._no_vote = self._late = self._refused = self._probed = self._bad_probes = 0
        if sharing is not None:
            sharing.join(self)

    def __call__(self, call: Callable[P, Awaitable[R]], /) -> Callable[P, Coroutine[Any, Any, R]]:
        """Return *call*, guarded. It raises `CircuitOpen`, or what the call raises."""
        record, slow_after = self.detector.record, self.policy.slow_after

        @wraps(call)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            # All that a call costs while the circuit is closed is in these lines, and nothing else.
            generation = self._unguarded
            if generation is None:
                return await self._asking(call, *args, **kwargs)
            loop = get_running_loop()
            began = loop.time()
            try:
                result = await call(*args, **kwargs)
            except BaseException as error:
                now = loop.time()
                self._settle(generation, vote_of(error, self.policy), now - began, now)
                raise
            now = loop.time()
            if now - began >= slow_after or generation != self._unguarded:
                self._settle(generation, True, now - began, now)
                return result
            self._succeeded += 1
            if (finding := record(False, False, now)) is not None:
                self._found(finding, now)
            return result

        return guarded

    @property
    def closed(self) -> bool:
        """Whether every call is admitted, as far as is known without looking at the time."""
        return self._state in (BreakerState.CLOSED, BreakerState.FORCED_CLOSED)

    def acquire(self) -> Permit:
        """Return leave to make one call, at once; raises `CircuitOpen` if there is none."""
        now = get_running_loop().time()
        wait = self._wait(now)
        self._asked += 1
        if wait > 0:
            self._refused += 1
            refusal = CircuitOpen(self.key, self._state, wait, self._openings.evidence)
            emit(self._on_event, refusal)
            raise refusal
        first = self._state is BreakerState.OPEN
        if first:
            self._enter(BreakerState.HALF_OPEN)
        permit = Permit(self._generation, now)
        if self._state is BreakerState.HALF_OPEN:
            self._probes[permit] = None
            self._probed += 1
        if first:
            emit(self._on_event, BreakerHalfOpened(self.key))
        return permit

    def release(
        self, permit: Permit, *, succeeded: bool | None, duration: float | None = None
    ) -> None:
        """Give *permit* back: the call succeeded, failed, or (None) says nothing: cancelled, refused, a 4xx.

        *duration* is the seconds that count as the call's, those since `acquire` where none is given. `vote_of` says
        what an error stands for.

        Raises:
            LLMPatternsError: if it was given back before.
        """
        if permit.released:
            raise LLMPatternsError(f"a permit of the circuit {self.key!r} was released twice")
        permit.released = True
        self._probes.pop(permit, None)
        now = get_running_loop().time()
        taken = now - permit.began if duration is None else duration
        self._settle(permit.generation, succeeded, taken, now)

    def available(self) -> bool:
        """Return whether `acquire` would admit a call now. It takes no permit and counts nothing."""
        return self.retry_after() == 0

    def retry_after(self) -> float:
        """Return the seconds until a call may be admitted, at the earliest: 0 if now, infinity if forced open."""
        return max(0.0, self._wait(get_running_loop().time()))

    def force(self, to: Literal["open", "closed"] | None) -> None:
        """Refuse everything or admit everything, until told otherwise; None gives the choice back to the detector.

        After forced open it begins with a probe, after forced closed with an empty detector.
        """
        now = get_running_loop().time()
        if to == "open":
            self._enter(BreakerState.FORCED_OPEN)
            self._openings.begin(now, 0.0, evidence=None)
        elif to == "closed":
            self._openings.end(now)
            self._enter(BreakerState.FORCED_CLOSED)
        elif self._state is BreakerState.FORCED_OPEN:
            self._openings.until = now
            self._enter(BreakerState.OPEN)
        elif self._state is BreakerState.FORCED_CLOSED:
            self._enter(BreakerState.CLOSED)

    def adopt(self, open_for: float | None) -> None:
        """Take over what another process decided: open for so many seconds, or (None) closed."""
        now = get_running_loop().time()
        if self._state in (BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED):
            return
        if open_for is not None:
            self._open(now, evidence=None, told=open_for)
        elif self._state in (BreakerState.OPEN, BreakerState.HALF_OPEN):
            self._close(now, told=True)

    def statistics(self) -> BreakerStatistics:
        """Return the counts so far, and the state now."""
        now = get_running_loop().time()
        self._pass(now)
        return BreakerStatistics(
            key=self.key,
            state=self._state,
            generation=self._generation,
            succeeded=self._succeeded,
            slow=self._slow,
            failed=self._failed,
            no_vote=self._no_vote,
            late=self._late,
            refused=self._refused,
            probes=self._probed,
            probes_in_flight=len(self._probes),
            opened=self._openings.count,
            bad_probes=self._bad_probes,
            open_seconds=self._openings.seconds(now),
            evidence=self.detector.evidence(now),
        )

    async def _asking(
        self, call: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        permit = self.acquire()
        try:
            result = await call(*args, **kwargs)
        except BaseException as error:
            self.release(permit, succeeded=vote_of(error, self.policy))
            raise
        self.release(permit, succeeded=True)
        return result

    def _wait(self, now: float) -> float:
        """Return the seconds until a call may be admitted."""
        self._pass(now)
        match self._state:
            case BreakerState.CLOSED | BreakerState.FORCED_CLOSED:
                return 0.0
            case BreakerState.FORCED_OPEN:
                return math.inf
            case BreakerState.RAMPING:
                since = now - self._since
                admitted = ramp_admits(self._asked, since, self.policy, self._salt)
                return 0.0 if admitted else _RAMP_TICK
        if len(self._probes) >= self.policy.max_probes:
            return self._patience(now)
        left = self._openings.until - now
        return left if left > 0 or self._sharing is None else self._sharing.wait_to_probe(self)

    def _pass(self, now: float) -> None:
        """Do what time alone does: end the ramp, give up a probe that has taken too long."""
        if self._state is BreakerState.RAMPING:
            if now - self._since >= self.policy.ramp:
                self._state, self._unguarded = BreakerState.CLOSED, self._generation
        elif self._patience(now) <= 0:
            self._open(now, evidence=None)

    def _patience(self, now: float) -> float:
        """Return the seconds until the oldest probe in flight has taken too long."""
        oldest = next(iter(self._probes), None)
        return math.inf if oldest is None else oldest.began + self.policy.slow_after - now

    def _settle(self, generation: int, vote: bool | None, taken: float, now: float) -> None:
        if generation != self._generation:
            self._late += 1
            return
        if vote is None:
            self._no_vote += 1
            return
        slow = taken >= self.policy.slow_after
        self._succeeded += vote
        self._slow += vote and slow
        self._failed += not vote
        if self._state is BreakerState.HALF_OPEN:
            self._probe_over(now, good=vote and not slow)
        elif self._state is not BreakerState.FORCED_CLOSED:
            finding = self.detector.record(not vote, slow, now)
            if finding is not None:
                self._found(finding, now)

    def _probe_over(self, now: float, *, good: bool) -> None:
        self._probes_good += good
        if not good:
            self._open(now, evidence=None)
        elif self._probes_good >= self.policy.probes_to_close:
            self._close(now)

    def _found(self, finding: Finding, now: float) -> None:
        if isinstance(finding, Evidence):
            self._open(now, evidence=finding)
        else:
            emit(self._on_event, finding)

    def _open(self, now: float, *, evidence: Evidence | None, told: float | None = None) -> None:
        reopened = self._openings.reopened_at(now)
        self._bad_probes += self._openings.down
        open_for = told
        if open_for is None:
            open_for = open_time(reopened, self.policy, self._rng or clock.rng())
        self._openings.begin(now, open_for, evidence=evidence)
        self._enter(BreakerState.OPEN)
        if told is None and self._sharing is not None:
            self._sharing.opened(self, open_for)
        emit(self._on_event, BreakerOpened(self.key, open_for, reopened, evidence))

    def _close(self, now: float, *, told: bool = False) -> None:
        open_seconds = self._openings.end(now, ramp=self.policy.ramp)
        self._enter(BreakerState.RAMPING if self.policy.ramp else BreakerState.CLOSED)
        self._since = now
        self._salt = (self._rng or clock.rng()).random()
        if not told and self._sharing is not None:
            self._sharing.closed(self)
        emit(self._on_event, BreakerClosed(self.key, open_seconds, self.policy.ramp))

    def _enter(self, state: BreakerState) -> None:
        self._state = state
        self._generation += 1
        self._unguarded = self._generation if state is BreakerState.CLOSED else None
        self._probes.clear()
        self._probes_good = 0
        self.detector.reset()


class _Openings:
    """How often a circuit was open, for how long, and why the last time."""

    def __init__(self) -> None:
        self.count = 0
        self.until = -math.inf
        self.evidence: Evidence | None = None
        self._reopened = 0
        self._open_for = 0.0
        self._down_since: float | None = None
        self._up_since = -math.inf
        self._seconds = 0.0

    @property
    def down(self) -> bool:
        """Whether it has not closed since it opened."""
        return self._down_since is not None

    def reopened_at(self, now: float) -> int:
        """Return which opening without a rest between one at *now* is, from 0."""
        rested = self._down_since is None and now - self._up_since >= self._open_for
        return 0 if rested else self._reopened + 1

    def begin(self, now: float, open_for: float, *, evidence: Evidence | None) -> None:
        """Note an opening; what a failed probe has no evidence for keeps that of the first."""
        self._reopened = self.reopened_at(now)
        self.until = now + open_for
        self._open_for = open_for
        if self._down_since is None:
            self.count += 1
            self._down_since = now
            self.evidence = evidence

    def end(self, now: float, *, ramp: float = 0.0) -> float:
        """Note that it closed, and return the seconds since it had opened. A rest begins after the ramp."""
        lasted = 0.0 if self._down_since is None else now - self._down_since
        self._seconds += lasted
        self._down_since = None
        self._up_since = now + ramp
        return lasted

    def seconds(self, now: float) -> float:
        """Return how long it was open in all."""
        return self._seconds + (0.0 if self._down_since is None else now - self._down_since)
