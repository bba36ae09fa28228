"""When a call to a provider fails, may this process afford one more attempt without helping to keep the provider down?

A retry is decided by four questions, in this order: is it a kind of failure that passes; has this call attempts left;
is there time for one before the deadline; and can the budget that all calls share afford it? The wait before it is the
provider's own `retry-after` where it sent one, and exponential backoff with jitter on top.

Invariants, held for any interleaving of calls, faults and cancellations:

1. The attempts of one call never exceed `max_attempts`; those of all calls never exceed the calls plus the retries that
   the budget granted.
2. No retry starts after the deadline, nor when less than `expected_latency` would be left for it.
3. A wait is never shorter than the provider asked for, and never longer than `max_retry_after` plus `max_delay`.
4. A failure that is not retryable reaches the caller as it was raised.
5. Cancellation is never retried, and a cancelled call gives back what it held.

>>> import asyncio
>>> retry = RetryWithBudget(RetryPolicy(deadline=30))
>>> @retry
... async def ask(question):
...     return f"answer to {question}"
>>> asyncio.run(ask("why?"))
'answer to why?'

Sources: Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015); Bronson et al., "Metastable Failures
in Distributed Systems" (HotOS 2021); the budgets' own in `retry_budgets`.
"""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from functools import partial, wraps
from inspect import isawaitable
from random import Random
from typing import Any, Literal, ParamSpec, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llm_patterns import clock
from llm_patterns.deadlines import deadline_at
from llm_patterns.errors import ErrorKind, Failure, LLMPatternsError, failure_of
from llm_patterns.events import EventHook, emit
from llm_patterns.resilience.retry_budgets import BudgetStatistics, EarnedBudget, RetryBudget

__all__ = [
    "AttemptFailed",
    "BudgetEmpty",
    "RetriesExhausted",
    "RetryEvent",
    "RetryPolicy",
    "RetryScheduled",
    "RetryStatistics",
    "RetryWithBudget",
    "StopReason",
    "StreamRestarted",
    "backoff_delay",
]

P = ParamSpec("P")
R = TypeVar("R")
Jitter = Literal["full", "equal", "decorrelated", "none"]


class StopReason(StrEnum):
    """Why a call was not tried again."""

    ATTEMPTS = "attempts"
    BUDGET = "budget"
    DEADLINE = "deadline"
    RETRY_AFTER = "retry_after"


class RetriesExhausted(LLMPatternsError):
    """A call failed in a way that may be retried, and was not tried again.

    `errors` holds every attempt's error in order; the last one is also the cause. `kind` and `status_code` are the last
    error's. Its headers say `x-should-retry: false`, so that a retry layer further out does not multiply the attempts.
    """

    def __init__(self, reason: StopReason, errors: tuple[Exception, ...], failure: Failure) -> None:
        self.reason = reason
        self.errors = errors
        self.kind = failure.kind
        self.status_code = failure.status_code
        self.headers = {"x-should-retry": "false"}
        attempts = "1 attempt" if len(errors) == 1 else f"{len(errors)} attempts"
        super().__init__(f"gave up after {attempts} ({_WHY[reason]}): {errors[-1]!r}")


_WHY = {
    StopReason.ATTEMPTS: "max_attempts reached",
    StopReason.BUDGET: "the retry budget is empty",
    StopReason.DEADLINE: "no time left before the deadline",
    StopReason.RETRY_AFTER: "the provider asks for a longer wait than max_retry_after",
}


class RetryPolicy(BaseModel):
    """What one call may do.

    >>> RetryPolicy(deadline=10, max_attempts=2).max_attempts
    2
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    deadline: float = Field(
        gt=0,
        description="Seconds from the call's beginning after which no retry may start or run; an earlier deadline of "
        "`deadlines` holds too. No default: a chat has 10, a nightly job an hour.",
    )
    max_attempts: int = Field(
        default=3,
        ge=1,
        le=10,
        description="Attempts in all. 1 turns retries off; each layer of retries multiplies by its own. "
        "3 is what the OpenAI and Anthropic SDKs make.",
    )
    initial_delay: float = Field(
        default=0.5,
        ge=0.01,
        le=60,
        description="Ceiling of the first wait in seconds. Below 0.01 there is no backoff. 0.5 is the SDKs'.",
    )
    multiplier: float = Field(
        default=2.0,
        ge=1,
        le=10,
        description="Growth of the ceiling from wait to wait. 1 is a constant delay, above 4 the cap comes at once.",
    )
    max_delay: float = Field(
        default=8.0, ge=0.01, le=300, description="Cap of the ceiling in seconds. 8 is the SDKs'."
    )
    jitter: Jitter = Field(
        default="full",
        description="How a wait is drawn below its ceiling. `none` sends all callers back in the same instant.",
    )
    max_retry_after: float = Field(
        default=60.0,
        ge=0,
        le=3600,
        description="Longest `retry-after` in seconds that is waited for; a longer one ends the call, for a "
        "shortened wait is sure to fail. 60 refills a quota per minute.",
    )
    attempt_timeout: float | None = Field(
        default=None,
        gt=0,
        description="Seconds after which an attempt is cut off and counts as a time-out. None leaves the first "
        "attempt to the client's own time-out; retries always end at the deadline.",
    )
    expected_latency: float = Field(
        default=0.0,
        ge=0,
        description="Seconds that a good attempt takes: a retry starts only if that much is left.",
    )
    retry_on: frozenset[ErrorKind] = Field(
        default=frozenset(
            {
                *(ErrorKind.RATE_LIMITED, ErrorKind.OVERLOADED, ErrorKind.SERVER),
                *(ErrorKind.CONFLICT, ErrorKind.TIMEOUT, ErrorKind.CONNECTION),
            }
        ),
        description="Kinds of failure that pass: 408, 409, 429, 5xx, 529 and broken connections. The provider's own "
        "`x-should-retry` wins over it.",
    )

    @model_validator(mode="after")
    def _delays_are_ordered(self) -> Self:
        if self.initial_delay > self.max_delay:
            raise ValueError(
                f"initial_delay is {self.initial_delay} s and max_delay {self.max_delay} s: "
                "the first wait can't be longer than the longest"
            )
        return self


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt failed; `attempt` counts from 1, `after` is the seconds since the call began."""

    attempt: int
    failure: Failure
    after: float


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """One more attempt will start in `delay` seconds, as attempt `attempt`."""

    attempt: int
    delay: float
    failure: Failure


@dataclass(frozen=True, slots=True)
class BudgetEmpty:
    """A retry was refused because the shared budget could not afford it."""

    failure: Failure
    budget: BudgetStatistics


@dataclass(frozen=True, slots=True)
class StreamRestarted:
    """In place of a chunk: the stream broke with `error` and begins anew as attempt `attempt`."""

    attempt: int
    error: Exception


RetryEvent = AttemptFailed | RetryScheduled | BudgetEmpty | RetriesExhausted
"""What `on_event` hears. The last of a call that failed is the error itself, which carries the reason."""


@dataclass(frozen=True, slots=True)
class RetryStatistics:
    """Counts since the beginning. `amplification` is the attempts the provider sees for each call."""

    calls: int
    retries: int
    recovered: int
    exhausted: dict[StopReason, int]
    not_retryable: int
    budget: BudgetStatistics

    @property
    def amplification(self) -> float:
        """Return attempts over calls: 1 when nothing is retried."""
        return 1 + self.retries / self.calls if self.calls else 1.0

    @property
    def troubled(self) -> int:
        """Return the calls whose first attempt failed, and that are over. Retries hide them; watch them here."""
        return self.recovered + self.not_retryable + sum(self.exhausted.values())


def backoff_delay(
    attempt: int,
    policy: RetryPolicy,
    rng: Random,
    *,
    previous: float = 0.0,
    retry_after: float | None = None,
) -> float:
    """Return the seconds to wait after failed attempt number *attempt* (from 1).

    With ceiling `c = min(max_delay, initial_delay * multiplier ** (attempt - 1))`: `full` draws from 0 to c, `equal`
    from c/2 to c, `decorrelated` from `initial_delay` to 3 times the *previous* delay, capped; `none` waits c (Brooker
    2015). A provider's *retry_after* is waited for first; the jittered wait comes on top, or all who were told the
    same second would come back in it.

    >>> policy = RetryPolicy(deadline=60, initial_delay=1, jitter="none")
    >>> [backoff_delay(attempt, policy, Random(0)) for attempt in (1, 2, 3, 4, 5)]
    [1.0, 2.0, 4.0, 8.0, 8.0]
    """
    ceiling = min(policy.max_delay, policy.initial_delay * policy.multiplier ** (attempt - 1))
    if policy.jitter == "none":
        return ceiling if retry_after is None else retry_after
    if policy.jitter == "full":
        delay = rng.random() * ceiling
    elif policy.jitter == "equal":
        delay = ceiling * (1 + rng.random()) / 2
    else:
        spread = max(previous, policy.initial_delay) * 3 - policy.initial_delay
        delay = min(policy.max_delay, policy.initial_delay + rng.random() * spread)
    return (retry_after or 0.0) + delay


def retryable(failure: Failure, policy: RetryPolicy) -> bool:
    """Return whether *failure* may pass by itself: what the provider says of it, else its kind."""
    return failure.kind in policy.retry_on if failure.should_retry is None else failure.should_retry


def stop_reason(
    attempt: int, delay: float, left: float, failure: Failure, policy: RetryPolicy
) -> StopReason | None:
    """Return why attempt number *attempt* was the last, or None if another may start in *delay* seconds.

    *left* is the seconds to the deadline. The budget is asked after this: a retry that can't happen must not spend.
    """
    if attempt >= policy.max_attempts:
        return StopReason.ATTEMPTS
    if failure.retry_after is not None and failure.retry_after > policy.max_retry_after:
        return StopReason.RETRY_AFTER
    if delay + policy.expected_latency >= left:
        return StopReason.DEADLINE
    return None


class RetryWithBudget:
    """A layer that tries again what may pass, as far as the shared budget goes.

    Use it on any async callable: `guarded = retry(client.chat.completions.create)`, or as a decorator. On the opening
    of a stream it retries until the first chunk and never after. One instance, and so one budget, serves one
    dependency: a failing model must not use up the retries of a healthy one.

    *budget* may be shared with other instances and with hedging; the default is an `EarnedBudget()`. *rng* draws the
    jitter; *on_event* hears a `RetryEvent` for everything that happens.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        budget: RetryBudget | None = None,
        rng: Random | None = None,
        on_event: EventHook[RetryEvent] | None = None,
    ) -> None:
        self.policy = policy
        self.budget = EarnedBudget() if budget is None else budget
        self._rng = rng
        self._on_event = on_event
        self._calls = 0
        self._retries = 0
        self._recovered = 0
        self._not_retryable = 0
        self._exhausted = dict.fromkeys(StopReason, 0)

    def __call__(self, call: Callable[P, Awaitable[R]], /) -> Callable[P, Coroutine[Any, Any, R]]:
        """Return *call*, guarded. It raises `RetriesExhausted`, or what is not retryable as it came."""
        begin, succeeded, end = self.budget.begin, self.budget.succeeded, self.budget.end
        attempt_timeout = self.policy.attempt_timeout

        @wraps(call)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            # All that a call costs that succeeds at once is in these lines, and nothing else.
            self._calls += 1
            began = get_running_loop().time()
            begin(began)
            try:
                if attempt_timeout is None:
                    result = await call(*args, **kwargs)
                else:
                    result = await self._attempt(partial(call, *args, **kwargs), began)
            except Exception as error:
                return await self._recover(partial(call, *args, **kwargs), began, error)
            else:
                succeeded()
                return result
            finally:
                end()

        return guarded

    async def stream(
        self, call: Callable[P, Awaitable[AsyncIterable[R]]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[R | StreamRestarted]:
        """Open a stream and yield its chunks; where it breaks, say `StreamRestarted` and begin it anew.

        This is how to ask for retries after the first token. The answer starts over, and may read differently: on
        `StreamRestarted`, drop what was shown. What was written before the break is billed all the same. Time-outs and
        the deadline bound each opening; a stream that is open may run on. It is closed when this one is.
        """
        self._calls += 1
        began = get_running_loop().time()
        trouble = _Trouble(self, began)
        self.budget.begin(began)
        try:
            while True:
                try:
                    chunks = await self._open(partial(call, *args, **kwargs), trouble)
                    try:
                        if trouble.errors:
                            yield StreamRestarted(len(trouble.errors) + 1, trouble.errors[-1])
                        async for chunk in chunks:
                            yield chunk
                    finally:
                        await _close(chunks)
                except Exception as error:
                    trouble.settle(succeeded=False)
                    await trouble.wait(error)
                else:
                    trouble.settle(succeeded=True)
                    return
        finally:
            trouble.settle(succeeded=False)
            self.budget.end()

    def statistics(self) -> RetryStatistics:
        """Return the counts so far, and the budget as it is now."""
        return RetryStatistics(
            calls=self._calls,
            retries=self._retries,
            recovered=self._recovered,
            exhausted=dict(self._exhausted),
            not_retryable=self._not_retryable,
            budget=self.budget.statistics(get_running_loop().time()),
        )

    async def _recover(self, call: Callable[[], Awaitable[R]], began: float, error: Exception) -> R:
        trouble = _Trouble(self, began)
        while True:
            await trouble.wait(error)
            try:
                result = await self._attempt(call, began)
            except Exception as again:
                trouble.settle(succeeded=False)
                error = again
            except BaseException:
                trouble.settle(succeeded=False)
                raise
            else:
                trouble.settle(succeeded=True)
                return result

    async def _open(self, call: Callable[[], Awaitable[R]], trouble: _Trouble) -> R:
        if self.policy.attempt_timeout is None and not trouble.errors:
            return await call()
        return await self._attempt(call, trouble.began)

    async def _attempt(self, call: Callable[[], Awaitable[R]], began: float) -> R:
        now = get_running_loop().time()
        limit = self.policy.attempt_timeout or self.policy.deadline
        async with asyncio.timeout_at(min(self._deadline(began), now + limit)):
            return await call()

    def _deadline(self, began: float) -> float:
        ours, ambient = began + self.policy.deadline, deadline_at()
        return ours if ambient is None else min(ours, ambient)


async def _close(chunks: object) -> None:
    """Close a stream by the name that its client has for it: `aclose`, or `close` as in the vendors' SDKs."""
    close = getattr(chunks, "aclose", None) or getattr(chunks, "close", None)
    if close is not None and isawaitable(closing := close()):
        await closing


class _Trouble:
    """What befell one call: its errors so far, and the permit it holds."""

    def __init__(self, retry: RetryWithBudget, began: float) -> None:
        self._retry = retry
        self.began = began
        self._delay = 0.0
        self._permit: float | None = None
        self.errors: list[Exception] = []

    async def wait(self, error: Exception) -> None:
        """Return when the next attempt may start, holding a permit; raise if none may."""
        self.errors.append(error)
        failure = self._sort(error)
        self._permit = self._acquire(failure)
        try:
            await asyncio.sleep(self._delay)
        except BaseException:
            self._release(succeeded=None)
            raise
        self._retry._retries += 1

    def settle(self, *, succeeded: bool) -> None:
        """Note how an attempt ended, and give its permit back. The second time does nothing."""
        if self._permit is not None:
            self._retry._recovered += succeeded
            self._release(succeeded=succeeded)
        elif succeeded:
            self._retry.budget.succeeded()

    def _sort(self, error: Exception) -> Failure:
        retry, failure = self._retry, failure_of(error)
        emit(retry._on_event, AttemptFailed(len(self.errors), failure, self._now() - self.began))
        if not retryable(failure, retry.policy):
            retry._not_retryable += 1
            if len(self.errors) > 1:
                error.add_note(f"after {len(self.errors) - 1} retries of {self.errors[0]!r}")
            raise error
        retry.budget.failed(failure)
        return failure

    def _acquire(self, failure: Failure) -> float:
        retry, attempt, now = self._retry, len(self.errors), self._now()
        rng = retry._rng or clock.rng()
        self._delay = backoff_delay(
            attempt, retry.policy, rng, previous=self._delay, retry_after=failure.retry_after
        )
        left = retry._deadline(self.began) - now
        reason = stop_reason(attempt, self._delay, left, failure, retry.policy)
        if reason is not None:
            raise self._exhausted(reason, failure) from self.errors[-1]
        permit = retry.budget.acquire(failure, now)
        if permit is None:
            emit(retry._on_event, BudgetEmpty(failure, retry.budget.statistics(now)))
            raise self._exhausted(StopReason.BUDGET, failure) from self.errors[-1]
        emit(retry._on_event, RetryScheduled(attempt + 1, self._delay, failure))
        return permit

    def _exhausted(self, reason: StopReason, failure: Failure) -> RetriesExhausted:
        self._retry._exhausted[reason] += 1
        error = RetriesExhausted(reason, tuple(self.errors), failure)
        emit(self._retry._on_event, error)
        return error

    def _release(self, *, succeeded: bool | None) -> None:
        if self._permit is not None:
            self._retry.budget.release(self._permit, succeeded=succeeded)
            self._permit = None

    def _now(self) -> float:
        return get_running_loop().time()
