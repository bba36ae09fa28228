"""One call: whom may it still ask, how long may each take, and what does it hold meanwhile?

A call asks targets until one answers. While an attempt runs it holds a permit of its target, and perhaps one of the
shared budget; each is given back once, with the outcome. When an attempt's share of the time is over, it is cut off
only if another target could take its place then.
"""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from types import TracebackType
from typing import Final, Generic, Literal, TypeVar, cast

from llm_patterns.chat import ChatRequest
from llm_patterns.deadlines import deadline_at
from llm_patterns.errors import ErrorKind, Failure, LLMPatternsError, failure_of
from llm_patterns.events import EventHook, emit
from llm_patterns.resilience.circuit_breaker import CircuitOpen, Permit, vote_of
from llm_patterns.resilience.failover_rules import (
    FailoverPolicy,
    Reaction,
    attempt_share,
    reaction_to,
)
from llm_patterns.resilience.failover_streams import close_stream
from llm_patterns.resilience.failover_targets import Target, TargetRefused
from llm_patterns.resilience.retry_budgets import RetryBudget

__all__ = ["AllTargetsFailed", "AttentionNeeded", "GaveUp", "TargetFailed"]

R = TypeVar("R")

HEDGE_BURST: Final = 3.0
HEDGE_SAMPLES: Final = 20
"""Answers of a target that must be known before a percentile of them means something."""

GaveUp = Literal["targets", "attempts", "budget", "deadline"]
"""What ran out when a call failed."""


class AllTargetsFailed(LLMPatternsError):
    """No target answered. `attempts` holds each that failed or refused, in order; `reason` is what ran out.

    `kind` is that of the last request that was sent, `REFUSED` if none was; `retry_after` the seconds until a target
    may admit one again. The headers say `x-should-retry: false`: what could be tried at once has been tried.
    """

    def __init__(
        self, reason: GaveUp, attempts: tuple[TargetFailed, ...], retry_after: float | None
    ) -> None:
        self.reason: GaveUp = reason
        self.attempts = attempts
        self.retry_after = retry_after
        self.headers = {"x-should-retry": "false"}
        asked = [attempt.failure for attempt in attempts if attempt.asked]
        self.kind = asked[-1].kind if asked else ErrorKind.REFUSED
        self.status_code = asked[-1].status_code if asked else None
        told = "; ".join(f"{each.target}: {each.error!r}" for each in attempts) or "none was asked"
        super().__init__(f"no target answered ({_WHY[reason]}): {told}")


_WHY: Final[Mapping[GaveUp, str]] = {
    "targets": "no other target is left",
    "attempts": "max_attempts reached",
    "budget": "the shared budget is empty",
    "deadline": "no time left before the deadline",
}


@dataclass(frozen=True, slots=True)
class TargetFailed:
    """A target failed a request after `seconds`, or (kind `REFUSED`) was not asked."""

    target: str
    error: Exception
    failure: Failure
    seconds: float

    @property
    def asked(self) -> bool:
        """Return whether a request was sent."""
        return self.failure.kind is not ErrorKind.REFUSED


@dataclass(frozen=True, slots=True)
class AttentionNeeded:
    """A target fails in a way that only a person can mend. It rests for `seconds`, and is tried again."""

    target: str
    failure: Failure
    seconds: float


class Common:
    """What the calls of one failover have in common: their policy, their budget, and the books."""

    def __init__(
        self,
        policy: FailoverPolicy,
        budget: RetryBudget | None,
        on_event: EventHook[object] | None,
    ) -> None:
        self.policy = policy
        self.budget = budget
        self.on_event = on_event
        self.hedge_credit = HEDGE_BURST
        self.calls = self.stopped = self.hedges = 0
        self.gave_up: Counter[GaveUp] = Counter()

    def begin(self, now: float) -> None:
        """Note that a call begins."""
        self.calls += 1
        if self.policy.hedge_percentile is not None:
            credit = self.hedge_credit + self.policy.max_hedge_share
            self.hedge_credit = min(HEDGE_BURST, credit)
        if self.budget is not None:
            self.budget.begin(now)

    def deadline(self, now: float) -> float:
        """Return the loop time at which a call that begins now is over; the ambient deadline holds if it is earlier."""
        ambient = deadline_at()
        ours = now + self.policy.deadline
        return ours if ambient is None else min(ours, ambient)

    def cut_at(
        self, began: float, deadline: float, others: Sequence[Target], sent: int, now: float
    ) -> float:
        """Return when an attempt that *began* then, the call's *sent*-th, is cut off, as far as one knows *now*.

        Its share is that of those *others* that would be available: a target that nobody can stand in for is left
        alone until the deadline.
        """
        most = self.policy.max_attempts - sent
        waiting = min(most, sum(target.available(now) for target in others))
        return began + attempt_share(deadline - began, others=waiting, policy=self.policy)

    def failed(self, target: Target, error: Exception, seconds: float) -> TargetFailed:
        """Keep the books of a failed attempt."""
        failed = TargetFailed(target.name, error, failure_of(error), seconds)
        target.failed(failed.failure.kind)
        emit(self.on_event, failed)
        return failed

    def react(self, target: Target, failed: TargetFailed) -> Reaction:
        """Return the reaction to a failure; the target rests where it says so."""
        policy, failure = self.policy, failed.failure
        reaction = reaction_to(failed.error, failure, policy.reactions)
        now = get_running_loop().time()
        if reaction is Reaction.REST:
            wish = policy.rate_limit_rest if failure.retry_after is None else failure.retry_after
            target.rest(min(wish, policy.max_rest), failure.kind, now)
        elif reaction is Reaction.ALARM:
            target.rest(policy.alarm_rest, failure.kind, now)
            emit(self.on_event, AttentionNeeded(target.name, failure, policy.alarm_rest))
        return reaction


class Cutoff:
    """A time-out that asks before it cuts: `asyncio.timeout_at`, but *again* may name a later time when it has come."""

    __slots__ = ("_again", "_cut", "_nested", "_task", "_timer", "_until")

    def __init__(self, until: float, again: Callable[[float], float]) -> None:
        self._until = until
        self._again = again
        self._cut = False

    def __enter__(self) -> None:
        loop = get_running_loop()
        self._timer = loop.call_at(self._until, self._fire)
        self._task = task = cast("asyncio.Task[object]", asyncio.current_task(loop))
        self._nested = task.cancelling()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._cut and self._task.uncancel() <= self._nested and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _fire(self) -> None:
        loop = get_running_loop()
        now = loop.time()
        if (until := self._again(now)) > now:
            self._timer = loop.call_at(until, self._fire)
        else:
            self._cut = True
            self._task.cancel()


class Attempt:
    """One request on its way to one target, and what it holds."""

    __slots__ = (
        *("_settled", "answer", "began", "budget", "budget_permit"),
        *("hedge", "permit", "seconds", "target"),
    )

    def __init__(self, target: Target, permit: Permit, began: float) -> None:
        self.target = target
        self.permit = permit
        self.began = began
        self.seconds: float | None = None
        self.hedge = False
        self.answer: object = None
        self.budget: RetryBudget | None = None
        self.budget_permit: float | None = None
        self._settled = False

    def settle(self, *, succeeded: bool | None) -> None:
        """Give back what it holds, with its outcome. The second time does nothing."""
        if self._settled:
            return
        self._settled = True
        duration = self.seconds if succeeded else None
        self.target.release(self.permit, succeeded=succeeded, duration=duration)
        if self.budget is None:
            return
        if self.budget_permit is not None:
            self.budget.release(self.budget_permit, succeeded=succeeded)
        elif succeeded:
            self.budget.succeeded()


class Call(Generic[R]):
    """One call: who may still be asked (`queue`), what failed, and when it is over."""

    def __init__(
        self,
        common: Common,
        candidates: list[Target],
        ask: Callable[[Target], Awaitable[R]],
        kind: str,
        request: ChatRequest | None,
        *,
        began: float,
        deadline: float,
    ) -> None:
        self.common = common
        self.queue = list(candidates)
        self.ask = ask
        self.kind = kind
        self.request = request
        self.began = began
        self.deadline = deadline
        self.attempts: list[TargetFailed] = []
        self.sent = 0
        self._now = get_running_loop().time
        self._last = Failure(ErrorKind.TIMEOUT)  # what a hedge is for
        self._drawn: float | None = None  # of the budget, for the next attempt
        self._candidates = candidates
        self._ended = False
        common.begin(began)

    def end(self) -> None:
        """Note that the call is over. The second time does nothing."""
        if not self._ended and self.common.budget is not None:
            self.common.budget.end()
        self._ended = True

    async def win(self) -> Attempt:
        """Ask one target after the other until one answers; its attempt is the caller's to settle."""
        while True:
            attempt = self._next()
            delay = self._hedge_delay(attempt.target)
            if delay is None:
                won = await self._ask(attempt)
            else:
                won = await self._race(attempt, delay)
            if won is not None:
                return won

    def fail(self, attempt: Attempt, error: Exception) -> None:
        """Note that *attempt* failed; raises *error* if no other target is to be asked for it."""
        target, common = attempt.target, self.common
        attempt.settle(succeeded=vote_of(error, target.breaker.policy))
        failed = common.failed(target, error, self._now() - attempt.began)
        self.attempts.append(failed)
        if common.react(target, failed) is Reaction.STOP:
            common.stopped += 1
            if len(self.attempts) > 1:
                told = ", ".join(f"{each.target}: {each.error!r}" for each in self.attempts[:-1])
                error.add_note(f"from {failed.target}, after {told}")
            raise error
        if not failed.asked:
            self.sent -= 1  # a pattern inside the target refused it
            return
        self._last = failed.failure
        if common.budget is not None:
            common.budget.failed(failed.failure)

    def refuse(self, target: Target, refusal: Exception) -> None:
        """Note that *target* was not asked."""
        failed = TargetFailed(target.name, refusal, failure_of(refusal), 0.0)
        self.attempts.append(failed)
        emit(self.common.on_event, failed)

    def _next(self) -> Attempt:
        """Return leave to ask the next target; raises `AllTargetsFailed` if there is none."""
        while self.queue:
            now = self._now()
            if (reason := self._out_of(now)) is not None:
                raise self._gave_up(reason)
            if not self._affords(now):
                raise self._gave_up("budget")
            target = self.queue.pop(0)
            try:
                return self._begun(target, now)
            except (TargetRefused, CircuitOpen) as refusal:
                self.refuse(target, refusal)
        raise self._gave_up("targets")

    def _out_of(self, now: float) -> GaveUp | None:
        policy = self.common.policy
        if self.sent >= policy.max_attempts:
            return "attempts"
        left = self.deadline - now
        return "deadline" if left < policy.expected_latency or left <= 0 else None

    def _affords(self, now: float) -> bool:
        """Draw on the budget for the next attempt, unless it is the call's first."""
        budget = self.common.budget
        if budget is not None and self.sent and self._drawn is None:
            self._drawn = budget.acquire(self._last, now)
            return self._drawn is not None
        return True

    def _begun(self, target: Target, now: float) -> Attempt:
        """Begin an attempt with what was drawn; raises what *target* refuses it with."""
        attempt = Attempt(target, target.acquire(now, self.request), now)
        attempt.budget, attempt.budget_permit = self.common.budget, self._drawn
        self._drawn = None
        self.sent += 1
        return attempt

    async def _ask(self, attempt: Attempt) -> Attempt | None:
        began, cut_at = attempt.began, self.common.cut_at
        again = partial(cut_at, began, self.deadline, self.queue, self.sent)
        try:
            with Cutoff(again(began), again):
                attempt.answer = await self.ask(attempt.target)
        except Exception as error:
            self.fail(attempt, error)
            return None
        except BaseException:
            attempt.settle(succeeded=None)
            raise
        attempt.seconds = self._now() - attempt.began
        return attempt

    def _hedge_delay(self, target: Target) -> float | None:
        share = self.common.policy.hedge_percentile
        if share is None or self.common.hedge_credit < 1 or not self.queue:
            return None
        return target.percentile(self.kind, share, at_least=HEDGE_SAMPLES)

    async def _race(self, first: Attempt, delay: float) -> Attempt | None:
        """Ask a second target if the first takes longer than *delay*; return whichever answers, None if both fail."""
        attempts = [first]
        outcome: Attempt | Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._outcome(first))]
                answered, _ = await asyncio.wait(tasks, timeout=delay)
                if not answered and (second := self._hedge()) is not None:
                    attempts.append(second)
                    tasks.append(group.create_task(self._outcome(second)))
                outcome = await _first(tasks)
                for task in tasks:
                    task.cancel()
        except BaseException:
            outcome = None
            raise
        finally:
            for attempt in attempts:
                if attempt is not outcome:
                    await _drop(attempt)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _hedge(self) -> Attempt | None:
        """Return leave to ask a second target beside the first, or None if there is none or it can't be afforded."""
        now, common = self._now(), self.common
        target = next((each for each in self.queue if each.available(now)), None)
        if target is None or self._out_of(now) is not None or common.hedge_credit < 1:
            return None
        if not self._affords(now):
            return None
        attempt = self._begun(target, now)
        attempt.hedge = True
        self.queue.remove(target)
        common.hedge_credit -= 1
        common.hedges += 1
        return attempt

    async def _outcome(self, attempt: Attempt) -> Attempt | Exception | None:
        try:
            return await self._ask(attempt)
        except Exception as error:
            return error

    def _gave_up(self, reason: GaveUp) -> AllTargetsFailed:
        common, now = self.common, self._now()
        if common.budget is not None and self._drawn is not None:
            common.budget.release(self._drawn, succeeded=None)
            self._drawn = None
        common.gave_up[reason] += 1
        wait = min(target.retry_after(now) for target in self._candidates)
        failed = AllTargetsFailed(reason, tuple(self.attempts), wait if wait < inf else None)
        if self.attempts:
            failed.__cause__ = self.attempts[-1].error
        emit(common.on_event, failed)
        return failed


async def _first(
    tasks: list[asyncio.Task[Attempt | Exception | None]],
) -> Attempt | Exception | None:
    """Return the first answer of a race; where there is none, the error that is the caller's, or None."""
    waiting, ended = set(tasks), list[Attempt | Exception | None]()
    while waiting:
        _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        ended = [task.result() for task in tasks if task.done()]
        if answered := [each for each in ended if isinstance(each, Attempt)]:
            return answered[0]
    return next((each for each in ended if each is not None), None)


async def _drop(attempt: Attempt) -> None:
    """Close an answer that lost the race, if it came at all, and give back what the attempt held."""
    try:
        if attempt.answer is not None:
            await close_stream(attempt.answer)
    finally:
        attempt.settle(succeeded=None)
