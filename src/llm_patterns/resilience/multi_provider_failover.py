"""The provider fails: which other one takes this request, how much load can it bear, and when do we go back?

Targets are asked one after the other in order of preference, each at most once, and each only if its circuit breaker,
its quota and its own limits admit the request. The deadline is split over those that may still be asked, so that one
that hangs leaves time for the next. Going back needs no rule of its own: the breaker of the first choice probes and
ramps, and a conversation stays where its prompt is cached until that target fails or the cache is cold.

Invariants, held for any interleaving of calls, faults and cancellations:

1. A call sends at most `max_attempts` requests, and none twice to the same target.
2. What a target is sent never exceeds its limits, and nothing is sent to one that is open or rests.
3. A call, or the opening of a stream, is over by its deadline; no attempt starts with less than `expected_latency`
   left.
4. A failure that is not to be failed over reaches the caller as it was raised, and changes no target's health.
5. A hedged call has one winner; the other attempt is cancelled and closed. Hedges never exceed `max_hedge_share` of the
   calls, and three on top.
6. Cancellation ends all attempts of a call; every permit and place it held is given back once.
7. A conversation changes its target only if that target refused or failed it, or `stickiness` has passed.

>>> import asyncio
>>> async def primary(question):
...     raise ConnectionError("no route")
>>> async def spare(question):
...     return f"answer to {question}"
>>> failover = MultiProviderFailover(FailoverPolicy(deadline=30), [Target("primary"), Target("spare")])
>>> asyncio.run(failover.over({"primary": primary, "spare": spare})("why?"))
'answer to why?'

Sources: Dean and Barroso, "The Tail at Scale" (CACM 2013) for hedged requests; Efraimidis and Spirakis (2006) for the
draw by weights; the breaker's own in `circuit_breaker`.
"""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial, wraps
from random import Random
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, cast

from llm_patterns import clock
from llm_patterns.chat import ChatRequest, ChatResponse, ChatStream
from llm_patterns.errors import ConfigurationError, ErrorKind, Failure, LLMPatternsError
from llm_patterns.events import EventHook, emit
from llm_patterns.quotas import quotas_of
from llm_patterns.resilience.circuit_breaker import CircuitOpen, vote_of
from llm_patterns.resilience.failover_calls import (
    AllTargetsFailed,
    Attempt,
    AttentionNeeded,
    Call,
    Common,
    Cutoff,
    GaveUp,
    TargetFailed,
)
from llm_patterns.resilience.failover_rules import FailoverPolicy, attempt_share, ranked
from llm_patterns.resilience.failover_streams import FailoverStream, StreamSwitched
from llm_patterns.resilience.failover_targets import (
    Target,
    TargetRefused,
    TargetStatistics,
    UnsupportedFeature,
    quota_wait,
)
from llm_patterns.resilience.retry_budgets import RetryBudget

__all__ = [
    "FailoverEvent",
    "FailoverStatistics",
    "MultiProviderFailover",
    "NoCapableTarget",
    "ProbeFinished",
    "RequestServed",
    "Served",
    "ServedBecause",
    "SessionSwitched",
]

P = ParamSpec("P")
R = TypeVar("R")


class ServedBecause(StrEnum):
    """Why this target answered."""

    FIRST_CHOICE = "first_choice"
    SESSION = "session"
    FAILOVER = "failover"
    HEDGE = "hedge"


class NoCapableTarget(LLMPatternsError):
    """No target can serve what the request asks for; `lacks` says what is missing at each."""

    kind = ErrorKind.INVALID_REQUEST

    def __init__(self, lacks: tuple[UnsupportedFeature, ...]) -> None:
        self.lacks = lacks
        super().__init__("no target can serve the request: " + "; ".join(map(str, lacks)))


@dataclass(frozen=True, slots=True)
class RequestServed:
    """`target` answered after `seconds`; `attempts` of others failed or refused before. A stream: its first chunk."""

    target: str
    because: ServedBecause
    attempts: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SessionSwitched:
    """A conversation went on at another target; its prompt is read there from the beginning."""

    session: str
    before: str
    target: str


@dataclass(frozen=True, slots=True)
class ProbeFinished:
    """A probe of an idle target answered after `seconds`, or failed."""

    target: str
    failure: Failure | None
    seconds: float


FailoverEvent = (
    TargetFailed
    | AttentionNeeded
    | RequestServed
    | SessionSwitched
    | StreamSwitched
    | ProbeFinished
    | AllTargetsFailed
)
"""What `on_event` hears. The last of a call that no target answered is the error itself."""


class Served(NamedTuple, Generic[R]):
    """An answer, who gave it and why. `degraded`: not by a first choice, so its quality may be another.

    `attempts` are those that failed or refused before it; `seconds` is the time of all together.
    """

    response: R
    target: str
    because: ServedBecause
    degraded: bool
    attempts: tuple[TargetFailed, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class FailoverStatistics:
    """Counts since the beginning. `stopped` are calls that failed in a way no target could have helped."""

    calls: int
    served: dict[ServedBecause, int]
    degraded: int
    gave_up: dict[GaveUp, int]
    stopped: int
    hedges: int
    session_switches: int
    stream_restarts: int
    stream_continuations: int
    targets: dict[str, TargetStatistics]


class MultiProviderFailover:
    """A `ChatModel` made of several: where one fails, it asks the next.

    `call` says who answered and why; `complete` and `stream` are the same for those who take any `ChatModel`. `over`
    guards other callables, such as two SDKs' methods. One instance belongs to one event loop.

    Each attempt after a call's first draws on *budget*. Where a layer of retries shares it, both count the call and its
    success, so give it half the ratio. *rng* draws by weight; *on_event* hears a `FailoverEvent` for everything that
    happens.
    """

    def __init__(
        self,
        policy: FailoverPolicy,
        targets: Sequence[Target],
        *,
        budget: RetryBudget | None = None,
        rng: Random | None = None,
        on_event: EventHook[FailoverEvent] | None = None,
    ) -> None:
        names = [target.name for target in targets]
        if not names or len(set(names)) != len(names):
            raise ConfigurationError(
                f"the targets are {names}; one or more are needed, each under its own name"
            )
        self.policy = policy
        self.targets = tuple(sorted(targets, key=lambda target: target.tier))
        self._common = Common(policy, budget, cast("EventHook[object] | None", on_event))
        self._rng = rng
        self._on_event = on_event
        self._listed = policy.order == "listed"
        # Where nothing has to be drawn, measured or afforded, a call that succeeds at once is quick.
        self._plain = self._listed and policy.hedge_percentile is None and budget is None
        self._modelled = [target for target in self.targets if target.model is not None]
        self._choosy = any(not target.takes_all for target in self._modelled)
        self._first_shares = [
            attempt_share(
                policy.deadline, others=min(others, policy.max_attempts - 1), policy=policy
            )
            for others in range(len(names))
        ]
        first = self.targets[0]
        self._preferred = {first.name}
        if not self._listed:
            self._preferred = {each.name for each in self.targets if each.tier == first.tier}
        self._sessions: OrderedDict[str, tuple[Target, float]] = OrderedDict()
        self._degraded = self._switches = self._restarts = self._continuations = 0
        self._because = dict.fromkeys(ServedBecause, 0)

    async def call(
        self, request: ChatRequest, *, session: str | None = None
    ) -> Served[ChatResponse]:
        """Return the answer, who gave it and why.

        *session* names the conversation, which stays with its target. Raises `AllTargetsFailed`, `NoCapableTarget`, or
        as it came what is not to be failed over.
        """

        def ask(target: Target) -> Awaitable[ChatResponse]:
            return target.chat.complete(target.fitted(request))

        return await self._serve(self._capable(request), ask, "complete", request, session)

    async def complete(self, request: ChatRequest, *, session: str | None = None) -> ChatResponse:
        """Return the answer; its `model` is the one that gave it. Raises as `call` does."""
        return (await self.call(request, session=session)).response

    async def stream(self, request: ChatRequest, *, session: str | None = None) -> FailoverStream:
        """Return the answer as a stream, once its first chunk is there; raises as `call` does.

        What happens after the first chunk is for the policy's `after_first_token` to say.
        """
        call = _StreamCall(self, request, session)
        return FailoverStream(
            call,
            request,
            await call.opened(),
            after_first_token=self.policy.after_first_token,
            stall_timeout=self.policy.stall_timeout,
            told=self._stream_switched,
        )

    def over(
        self, calls: Mapping[str, Callable[P, Awaitable[R]]], *, kind: str = "call"
    ) -> Callable[P, Coroutine[Any, Any, R]]:
        """Return one callable over those of *calls*, by the names of targets, all with the same arguments.

        Latencies of one *kind* are compared with each other. On the opening of a stream it guards the opening.
        """
        unknown = calls.keys() - {target.name for target in self.targets}
        if unknown or not calls:
            raise ConfigurationError(
                f"calls are given for {sorted(calls)}; the targets are {[each.name for each in self.targets]}"
            )
        candidates = [target for target in self.targets if target.name in calls]

        @wraps(calls[candidates[0].name])
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            def ask(target: Target) -> Awaitable[R]:
                return calls[target.name](*args, **kwargs)

            return (await self._serve(candidates, ask, kind, None, None)).response

        return guarded

    async def probe(self, request: ChatRequest, *, idle: float = 0.0) -> list[ProbeFinished]:
        """Send *request* to each target that answered nothing for *idle* seconds, and return how it went.

        A probe counts for a target's health as any request does, so that an expired key is found, and alarmed on,
        before the target is needed. Those that are open, rest or are full are left alone.
        """
        now = get_running_loop().time()
        due = [
            target
            for target in self.targets
            if target in self._modelled
            and now - target.last_answered >= idle
            and target.available(now)
        ]
        async with asyncio.TaskGroup() as group:
            probes = [group.create_task(self._probe(target, request)) for target in due]
        return [each for probe in probes if (each := probe.result()) is not None]

    @asynccontextmanager
    async def probing(self, request: ChatRequest, *, every: float) -> AsyncIterator[None]:
        """Probe, within this context, whichever target has been idle for *every* seconds."""
        if not 1 <= every <= 86_400:
            raise ConfigurationError(
                f"every is {every} s; give 1 or more, since probes are billed, and a day or less, since keys expire"
            )

        async def keep_probing() -> None:
            while True:
                await asyncio.sleep(every)
                await self.probe(request, idle=every)

        async with asyncio.TaskGroup() as group:
            prober = group.create_task(keep_probing(), name="failover probes")
            try:
                yield
            finally:
                prober.cancel()

    def statistics(self) -> FailoverStatistics:
        """Return the counts so far, and the targets as they are now."""
        now = get_running_loop().time()
        return FailoverStatistics(
            calls=self._common.calls,
            served=dict(self._because),
            degraded=self._degraded,
            gave_up=dict(self._common.gave_up),
            stopped=self._common.stopped,
            hedges=self._common.hedges,
            session_switches=self._switches,
            stream_restarts=self._restarts,
            stream_continuations=self._continuations,
            targets={target.name: target.statistics(now) for target in self.targets},
        )

    async def _serve(
        self,
        candidates: list[Target],
        ask: Callable[[Target], Awaitable[R]],
        kind: str,
        request: ChatRequest | None,
        session: str | None,
    ) -> Served[R]:
        policy, common = self.policy, self._common
        time = get_running_loop().time
        began = time()
        deadline = common.deadline(began)
        if not self._plain or session is not None or deadline < began + policy.deadline:
            queue = self._queue(candidates, session, began)
            call = Call(common, queue, ask, kind, request, began=began, deadline=deadline)
            return await self._finish(call, session)
        # All that a call costs that the first choice answers is in these lines, and nothing else.
        target, others = candidates[0], candidates[1:]
        try:
            permit = target.acquire(began, request)
        except (TargetRefused, CircuitOpen) as refusal:
            call = Call(common, candidates, ask, kind, request, began=began, deadline=deadline)
            del call.queue[0]
            call.refuse(target, refusal)
            return await self._finish(call, None)
        try:
            again = partial(common.cut_at, began, deadline, others, 1)
            with Cutoff(began + self._first_shares[len(others)], again):
                answer = await ask(target)
        except Exception as error:
            call = Call(common, candidates, ask, kind, request, began=began, deadline=deadline)
            del call.queue[0]
            call.sent = 1
            call.fail(Attempt(target, permit, began), error)
            return await self._finish(call, None)
        except BaseException:
            target.release(permit, succeeded=None)
            raise
        now = time()
        target.release(permit, succeeded=True, duration=now - began)
        target.answered(kind, now - began, now)
        common.calls += 1
        return self._served(answer, target, ServedBecause.FIRST_CHOICE, (), now - began)

    async def _finish(self, call: Call[R], session: str | None) -> Served[R]:
        """Return the answer of a call that is not over at once."""
        try:
            won = await call.win()
            won.settle(succeeded=True)
        finally:
            call.end()
        return self._won(call, won, session)

    def _won(self, call: Call[R], won: Attempt, session: str | None) -> Served[R]:
        if won.hedge:
            because = ServedBecause.HEDGE
        elif call.attempts:
            because = ServedBecause.FAILOVER
        elif won.target is self._sticky(session, call.began):
            because = ServedBecause.SESSION
        else:
            because = ServedBecause.FIRST_CHOICE
        if session is not None:
            self._remember(session, call, won)
        now = get_running_loop().time()
        won.target.answered(call.kind, won.seconds or 0.0, now)
        answer, attempts = cast("R", won.answer), tuple(call.attempts)
        return self._served(answer, won.target, because, attempts, now - call.began)

    def _served(
        self,
        answer: R,
        target: Target,
        because: ServedBecause,
        attempts: tuple[TargetFailed, ...],
        seconds: float,
    ) -> Served[R]:
        """Keep the books of an answered call."""
        self._heed(target, answer)
        self._because[because] += 1
        degraded = target.name not in self._preferred
        self._degraded += degraded
        if self._on_event is not None:
            served = RequestServed(target.name, because, len(attempts), seconds)
            emit(self._on_event, served)
        return Served(answer, target.name, because, degraded, attempts, seconds)

    def _heed(self, target: Target, answer: object) -> None:
        """Let *target* rest if its headers say that little of its quota is left."""
        if isinstance(answer, ChatResponse):  # asked first, since it is quick
            quotas = answer.quotas
        else:
            told = hasattr(answer, "quotas") or hasattr(answer, "headers")
            quotas = quotas_of(answer) if told else None
        if quotas is not None and quotas.share_left <= self.policy.quota_reserve:
            wait = quota_wait(quotas, reserve=self.policy.quota_reserve)
            now = get_running_loop().time()
            target.rest(min(wait, self.policy.max_rest), ErrorKind.RATE_LIMITED, now)

    def _capable(self, request: ChatRequest) -> list[Target]:
        """Return the targets that can serve *request*; raises `NoCapableTarget`."""
        if not self._choosy and request.messages[-1].role != "assistant":
            return self._modelled
        lacks = {target: target.lack(request) for target in self._modelled}
        capable = [target for target, lack in lacks.items() if lack is None]
        if not capable:
            raise NoCapableTarget(tuple(lack for lack in lacks.values() if lack is not None))
        return capable

    def _queue(self, candidates: list[Target], session: str | None, now: float) -> list[Target]:
        """Return *candidates* in the order in which they are asked; a conversation's own target comes first."""
        if self._listed:
            queue = list(candidates)
        else:
            queue = ranked(candidates, self.policy.order, now, self._rng or clock.rng())
        sticky = self._sticky(session, now)
        if sticky in queue:
            queue.remove(sticky)
            queue.insert(0, sticky)
        return queue

    def _sticky(self, session: str | None, now: float) -> Target | None:
        """Return where a conversation was last answered, None if it is new or its cache is cold."""
        if session is None or session not in self._sessions:
            return None
        target, last = self._sessions[session]
        return target if now - last < self.policy.stickiness else None

    def _remember(self, session: str, call: Call[Any], won: Attempt) -> None:
        now = get_running_loop().time()
        before, target = self._sticky(session, now), won.target
        if before is not None and before is not target:
            if won.hedge and before.name not in {attempt.target for attempt in call.attempts}:
                target = (
                    before  # it was only slow once, and the conversation's prompt is cached there
                )
            else:
                self._switches += 1
                emit(self._on_event, SessionSwitched(session, before.name, target.name))
        self._sessions[session] = (target, now)
        self._sessions.move_to_end(session)
        if len(self._sessions) > self.policy.max_sessions:
            self._sessions.popitem(last=False)

    def _stream_switched(self, switched: StreamSwitched) -> None:
        self._restarts += switched.restarted
        self._continuations += not switched.restarted
        emit(self._on_event, switched)

    async def _probe(self, target: Target, request: ChatRequest) -> ProbeFinished | None:
        """Ask one target, outside of all calls; None if it refused meanwhile or can't serve the request."""
        loop_time = get_running_loop().time
        began = loop_time()
        try:
            fitted = target.fitted(request)
            attempt = Attempt(target, target.acquire(began, request), began)
        except (TargetRefused, CircuitOpen):
            return None
        failure = None
        try:
            async with asyncio.timeout(self.policy.attempt_timeout or self.policy.deadline):
                await target.chat.complete(fitted)
            attempt.settle(succeeded=True)
            target.last_answered = loop_time()
        except Exception as error:
            attempt.settle(succeeded=vote_of(error, target.breaker.policy))
            failed = self._common.failed(target, error, loop_time() - began)
            self._common.react(target, failed)
            failure = failed.failure
        finally:
            attempt.settle(succeeded=None)
        finished = ProbeFinished(target.name, failure, loop_time() - began)
        emit(self._on_event, finished)
        return finished


class _StreamCall:
    """The call behind a stream: it opens it, and opens it anew elsewhere."""

    def __init__(
        self, failover: MultiProviderFailover, request: ChatRequest, session: str | None
    ) -> None:
        self._failover = failover
        self._session = session
        self._won: Attempt | None = None
        self.target = ""
        began = get_running_loop().time()
        queue = failover._queue(failover._capable(request), session, began)
        deadline = failover._common.deadline(began)
        self._call: Call[ChatStream] = Call(
            failover._common, queue, self._open, "stream", request, began=began, deadline=deadline
        )

    async def opened(self) -> ChatStream:
        """Open the stream at whichever target sends a first chunk."""
        won = await self._win()
        return self._failover._won(self._call, won, self._session).response

    def ended(self, *, succeeded: bool | None) -> None:
        """Give back what the call held: the stream is over. The second time does nothing."""
        if self._won is not None:
            self._won.settle(succeeded=succeeded)
        self._call.end()

    def broke(self, error: Exception) -> None:
        """Note that the target failed; raises *error* if it is one that no other target should be asked for."""
        if self._won is not None:
            self._call.fail(self._won, error)

    async def reopen(self, request: ChatRequest, *, prefill: bool) -> ChatStream | None:
        """Open *request* at a target that was not asked yet, or return None where no such target is to be had."""
        call, now = self._call, get_running_loop().time()
        queue = [target for target in call.queue if target.lack(request) is None]
        if not queue or (prefill and not any(target.available(now) for target in queue)):
            return None
        call.queue, call.request = queue, request
        call.deadline = self._failover._common.deadline(now)
        won = await self._win()
        won.target.answered(call.kind, won.seconds or 0.0, get_running_loop().time())
        if self._session is not None:
            self._failover._remember(self._session, call, won)
        return cast("ChatStream", won.answer)

    async def _win(self) -> Attempt:
        try:
            self._won = won = await self._call.win()
        except BaseException:
            self._call.end()
            raise
        self.target = won.target.name
        return won

    async def _open(self, target: Target) -> ChatStream:
        return await target.chat.stream(target.fitted(cast("ChatRequest", self._call.request)))
