"""The invariants of failover, as checks on random schedules of calls, faults, streams, hedges and cancellations.

Each is a function of what happened in a run of the module under test, so that it can be shown to fail on a copy with a
bug in it.
"""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count, cycle, pairwise
from random import Random
from types import ModuleType
from typing import Any

from hypothesis import strategies as st

from llm_patterns.chat import ChatChunk, ChatRequest, ChatResponse, Message, Usage
from llm_patterns.deadlines import deadline
from llm_patterns.errors import ServerError, error_for_status
from llm_patterns.resilience import (
    failover_calls,
    failover_rules,
    failover_streams,
    failover_targets,
    retry_budgets,
)
from llm_patterns.resilience import multi_provider_failover as failover
from llm_patterns.resilience.circuit_breaker import BreakerPolicy, CircuitBreaker
from llm_patterns.simulation import simulate
from tests.resilience.invariants import Both

CALL: ContextVar[int] = ContextVar("call")
EPSILON = 1e-6
TEXT = "abc def hi jklm"
ASK = ChatRequest(model="any", messages=(Message.user("Go"),))
PARTS: tuple[ModuleType, ...] = (
    *(failover_targets, failover_streams, failover_rules, failover_calls, failover),
)
"""The modules under test, each after those that it imports."""

OUTCOMES = st.sampled_from(
    ["ok", "ok", "ok", "500", "400", "401", "429", "hang", "breaks", "stalls"]
)
TARGETS = st.lists(
    st.fixed_dictionaries(
        {
            "outcomes": st.lists(OUTCOMES, min_size=1, max_size=4),
            "takes": st.sampled_from([0.0, 0.3, 0.7, 1.0, 2.5]),
            "max_in_flight": st.sampled_from([None, None, 1, 2]),
            "requests_per_minute": st.sampled_from([None, None, 6, 60]),
            "prefill": st.booleans(),
        }
    ),
    min_size=1,
    max_size=4,
)
CALLS = st.lists(
    st.lists(  # one conversation after the other, all at once
        st.fixed_dictionaries(
            {
                "pause": st.sampled_from([0.0, 0.1, 1.0, 7.0]),
                "streamed": st.booleans(),
                "stays": st.booleans(),
                "cancelled": st.none() | st.none() | st.floats(0, 12),
                "ambient": st.sampled_from([None, None, None, 2.0, 6.0]),
            }
        ),
        min_size=1,
        max_size=5,
    ),
    min_size=1,
    max_size=4,
)
POLICIES = st.fixed_dictionaries(
    {
        "deadline": st.sampled_from([3.0, 8.0, 20.0]),
        "max_attempts": st.integers(1, 4),
        "expected_latency": st.sampled_from([0.0, 1.0]),
        "attempt_timeout": st.sampled_from([None, None, 1.5]),
        "order": st.sampled_from(["listed", "weighted", "fastest"]),
        "stickiness": st.sampled_from([0.0, 5.0]),
        "hedge_percentile": st.sampled_from([None, 0.5]),
        "max_hedge_share": st.just(0.1),
        "after_first_token": st.sampled_from(["raise", "restart", "continue"]),
        "stall_timeout": st.just(2.0),
        "rate_limit_rest": st.just(3.0),
        "alarm_rest": st.just(4.0),
    }
)
BUDGETS = st.sampled_from([None, "EarnedBudget", "WindowBudget", "InFlightBudget"])


@dataclass
class Sent:
    """One request as the target saw it; `late` if the caller had been cancelled before."""

    target: str
    call: int
    number: int
    start: float
    late: bool
    end: float = float("inf")
    error: Exception | None = None
    opened: bool = False
    answered: bool = False
    closed: int = 0


class Server:
    """A target's other end: it does what is next on its list, and keeps the books."""

    def __init__(self, name: str, plan: dict[str, Any], calls: "Callers") -> None:
        self.name = name
        self.plan = plan
        self.sent: list[Sent] = []
        self.misled: list[str] = []
        self._outcomes = cycle(plan["outcomes"])
        self._calls = calls

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """A whole answer, a second or so later, or a failure."""
        sent, outcome = self._begin()
        try:
            await self._work(outcome)
            sent.answered = True
        except Exception as error:
            sent.error = error
            raise
        finally:
            sent.end = _now()
        return ChatResponse(id="1", model=self.name, text=TEXT)

    async def stream(self, request: ChatRequest) -> "Pieces":
        """A stream, once its first chunk is there."""
        sent, outcome = self._begin()
        try:
            await self._work(outcome)
        except BaseException as error:
            sent.end, sent.error = _now(), error if isinstance(error, Exception) else None
            raise
        sent.opened = True
        return Pieces(self, sent, outcome, request)

    def _begin(self) -> tuple[Sent, str]:
        task = asyncio.current_task()
        late = task is None or task.cancelling() > 0
        number = next(self._calls.numbers)
        sent = Sent(self.name, CALL.get(), number, _now(), late)
        self.sent.append(sent)
        return sent, next(self._outcomes)

    async def _work(self, outcome: str) -> None:
        await asyncio.sleep(10_000 if outcome == "hang" else self.plan["takes"])
        headers = {"retry-after": "2.5"} if outcome == "429" else {}
        if outcome.isdigit():
            raise error_for_status(int(outcome), outcome, headers=headers)


class Pieces:
    """A stream of `TEXT`, or after a prefill of the rest of it, each chunk marked with who wrote it."""

    def __init__(self, server: Server, sent: Sent, outcome: str, request: ChatRequest) -> None:
        self._sent = sent
        self._outcome = outcome
        last = request.messages[-1]
        self._begun = len(last.content) if last.role == "assistant" else 0
        if self._begun and not TEXT.startswith(last.content):
            server.misled.append(last.content)
        self._at = self._begun
        self._mark = Usage(output_tokens=int(server.name[1:]))

    def __aiter__(self) -> "Pieces":
        return self

    async def __anext__(self) -> ChatChunk:
        try:
            await self._write()
        except BaseException as error:
            self._sent.end = _now()
            self._sent.error = error if isinstance(error, Exception) else None
            raise
        if self._at >= len(TEXT):
            self._sent.end = _now()
            self._sent.answered = True
            raise StopAsyncIteration
        self._at += 2
        return ChatChunk(text=TEXT[self._at - 2 : self._at], usage=self._mark)

    async def _write(self) -> None:
        second_half = self._at >= (self._begun + len(TEXT)) // 2
        if second_half and self._outcome == "breaks":
            raise ServerError("broken")
        await asyncio.sleep(10_000 if second_half and self._outcome == "stalls" else 0.1)

    async def aclose(self) -> None:
        self._sent.closed += 1
        self._sent.end = min(self._sent.end, _now())


@dataclass
class Made:
    """One call as its caller saw it; `opened` is when its answer or its first chunk came."""

    number: int
    session: str | None
    plan: dict[str, Any]
    start: float = 0.0
    opened: float | None = None
    end: float = 0.0
    cancelled: bool = False
    result: Any = None
    target: str | None = None
    shown: str = ""
    chunks: list[ChatChunk] = field(default_factory=list)


class Callers:
    """Numbers the calls and the requests; the tasks of a call inherit its number."""

    def __init__(self) -> None:
        self.made: list[Made] = []
        self.numbers = count()

    def begin(self, session: str | None, plan: dict[str, Any]) -> Made:
        """A call begins in this task."""
        made = Made(len(self.made), session, plan, _now())
        self.made.append(made)
        CALL.set(made.number)
        return made


@dataclass
class Run:
    """What a schedule led to. `held` is what was begun or granted at the budget and never ended or released."""

    calls: list[Made]
    servers: list[Server]
    in_flight: list[int]
    breakers: list[Any]
    statistics: Any
    held: tuple[int, int]

    @property
    def sent(self) -> list[Sent]:
        """Every request that was sent."""
        return [sent for server in self.servers for sent in server.sent]


def run_calls(
    modules: dict[str, Any],
    targets: list[dict[str, Any]],
    schedule: list[list[dict[str, Any]]],
    policy: dict[str, Any],
    *,
    budget: str | None,
    seed: int,
) -> Run:
    """Make the calls of *schedule* over *targets* through the modules under test, in virtual time."""

    async def main() -> Run:
        calls = Callers()
        servers = [Server(f"t{at}", plan, calls) for at, plan in enumerate(targets)]
        kept = retry_budgets.InFlightBudget(ratio=0, min_concurrency=10_000)
        shared = None if budget is None else Both(getattr(retry_budgets, budget)(), kept)
        members = [_target(modules["failover_targets"], server) for server in servers]
        many = modules["multi_provider_failover"].MultiProviderFailover(
            modules["failover_rules"].FailoverPolicy(**policy),
            members,
            budget=shared,
            rng=Random(seed),
        )
        async with asyncio.TaskGroup() as group:
            for number, plans in enumerate(schedule):
                group.create_task(_conversation(many, calls, f"s{number}", plans))
        seen = vars(kept)
        return Run(
            calls=calls.made,
            servers=servers,
            in_flight=[member.in_flight for member in members],
            breakers=[member.breaker.statistics() for member in members],
            statistics=many.statistics(),
            held=(seen["_calls"], seen["_retries"]),
        )

    return simulate(main, seed=seed)


def _target(module: Any, server: Server) -> Any:
    plan = server.plan
    limits = module.TargetLimits(
        max_in_flight=plan["max_in_flight"],
        requests_per_minute=plan["requests_per_minute"],
        burst=1,
    )
    target = module.Target(
        server.name,
        server,
        breaker=CircuitBreaker(BreakerPolicy(open_time=3, ramp=2, slow_after=3600)),
        limits=limits,
        capabilities=module.Capabilities(prefill=plan["prefill"]),
    )
    for kind in ("complete", "stream"):  # so that it can be hedged from the first call on
        for _ in range(failover_calls.HEDGE_SAMPLES):
            target.answered(kind, 0.3, 0.0)
    return target


async def _conversation(
    many: Any, calls: Callers, session: str, plans: list[dict[str, Any]]
) -> None:
    for plan in plans:
        await asyncio.sleep(plan["pause"])
        made = calls.begin(session if plan["stays"] else None, plan)
        limit = 200.0 if plan["cancelled"] is None else plan["cancelled"]
        try:
            async with asyncio.timeout(limit) as cancel:
                with deadline(plan["ambient"]):
                    await _make(many, made)
        except Exception as error:
            made.cancelled, made.result = cancel.expired(), error
        made.end = _now()


async def _make(many: Any, made: Made) -> None:
    if not made.plan["streamed"]:
        served = await many.call(ASK, session=made.session)
        made.target, made.opened, made.result = served.target, _now(), served
        return
    stream = await many.stream(ASK, session=made.session)
    made.opened = _now()
    try:
        async for chunk in stream:
            made.chunks.append(chunk)
            made.shown = ("" if getattr(chunk, "restarted", False) else made.shown) + chunk.text
        made.target, made.result = stream.target, "whole"
    finally:
        await stream.aclose()


def _now() -> float:
    return asyncio.get_running_loop().time()


# --- the invariants, by the numbers of the module's docstrings ------------------------------------


def attempts_are_bounded(run: Run, policy: dict[str, Any]) -> None:
    """1: `max_attempts` for each call, and none twice to the same target."""
    for call in run.calls:
        asked = [sent.target for sent in run.sent if sent.call == call.number]
        assert len(asked) <= policy["max_attempts"]
        assert len(set(asked)) == len(asked)


def limits_hold(run: Run, policy: dict[str, Any]) -> None:
    """2: what a target is sent stays within its limits, at each moment and over each period."""
    for server in run.servers:
        most, rate = server.plan["max_in_flight"], server.plan["requests_per_minute"]
        starts = [sent.start for sent in server.sent]
        if most is not None:
            for at in starts:
                busy = sum(sent.start <= at < sent.end - EPSILON for sent in server.sent)
                assert busy <= most
        if rate is not None:
            for first, start in enumerate(starts):
                for last in range(first, len(starts)):
                    period = starts[last] - start
                    assert last - first + 1 <= 1 + period * rate / 60 + EPSILON


def rests_are_kept(run: Run, policy: dict[str, Any]) -> None:
    """2: nothing is sent to a target that asked for a rest, or that only a person can mend."""
    rests = {"429": 2.5, "401": policy["alarm_rest"]}
    for server in run.servers:
        for sent in server.sent:
            rest = rests.get(str(sent.error), 0.0) if sent.error else 0.0
            assert not any(
                sent.end + EPSILON < other.start < sent.end + rest - EPSILON
                for other in server.sent
            )


def deadlines_hold(run: Run, policy: dict[str, Any]) -> None:
    """3: a call, or a stream's opening, is over by its deadline; nothing starts that can't end."""
    for call in run.calls:
        allowed = min(policy["deadline"], call.plan["ambient"] or float("inf"))
        over = call.end if call.opened is None else call.opened
        assert over <= call.start + allowed + EPSILON
        opening = [sent for sent in run.sent if sent.call == call.number and sent.start <= over]
        last = call.start + allowed - policy["expected_latency"]
        assert all(sent.start <= last + EPSILON for sent in opening)


def nobody_is_cut_off_too_soon(run: Run, policy: dict[str, Any]) -> None:
    """3: an attempt that was asked has its expected latency, however many share the time."""
    shortest = min(policy["expected_latency"], policy["attempt_timeout"] or float("inf"))
    for call in run.calls:
        if not call.cancelled and policy["hedge_percentile"] is None:
            for sent in run.sent:
                if sent.call == call.number and sent.error is None and not sent.opened:
                    enough = sent.end - sent.start >= shortest - EPSILON
                    assert enough or call.target == sent.target


def bad_requests_stop(run: Run, policy: dict[str, Any]) -> None:
    """4: what fails everywhere reaches the caller as it was raised, is the end, and speaks against nobody."""
    for call in run.calls:
        mine = [sent for sent in run.sent if sent.call == call.number]
        bad = [sent for sent in mine if str(sent.error) == "400"]
        if bad and policy["hedge_percentile"] is None and not call.cancelled:
            assert call.result is bad[0].error
            assert max(mine, key=lambda sent: sent.number) is bad[0]
    for server, breaker in zip(run.servers, run.breakers, strict=True):
        blameless = sum(
            sent.answered or str(sent.error) in {"400", "401", "429"} for sent in server.sent
        )
        assert breaker.failed <= len(server.sent) - blameless


def nothing_is_left_behind(run: Run, policy: dict[str, Any]) -> None:
    """5, 6: no attempt starts after the cancellation or runs on; all that was held is given back."""
    assert not any(sent.late for sent in run.sent)
    assert all(sent.end < float("inf") for sent in run.sent)
    assert run.in_flight == [0] * len(run.servers)
    assert run.held == (0, 0)
    for server, breaker in zip(run.servers, run.breakers, strict=True):
        assert breaker.probes_in_flight == 0
        counted = breaker.succeeded + breaker.failed + breaker.no_vote + breaker.late
        if policy["hedge_percentile"] is None:
            assert counted == len(server.sent)


def streams_are_closed_once(run: Run, policy: dict[str, Any]) -> None:
    """5, 6: every stream that was opened, whoever lost, broke or left."""
    assert all(sent.closed == 1 for sent in run.sent if sent.opened)


def hedges_are_few(run: Run, policy: dict[str, Any]) -> None:
    """5: their share of the calls, and three on top."""
    most = policy["max_hedge_share"] * run.statistics.calls + 3
    assert run.statistics.hedges <= (most if policy["hedge_percentile"] else 0) + EPSILON


def nobody_waits_for_a_loser(run: Run, policy: dict[str, Any]) -> None:
    """5: a call is answered when its first target is."""
    for call in run.calls:
        if call.opened is not None and not call.plan["streamed"]:
            ends = [sent.end for sent in run.sent if sent.call == call.number and sent.answered]
            assert call.opened <= min(ends) + EPSILON


def conversations_stay(run: Run, policy: dict[str, Any]) -> None:
    """7: a change of target has a cause."""
    for session in {call.session for call in run.calls} - {None}:
        turns = [call for call in run.calls if call.session == session]
        for before, after in pairwise(turns):
            if before.plan["streamed"] or after.plan["streamed"]:
                continue
            if before.target is None or after.target in {None, before.target}:
                continue
            causes = {attempt.target for attempt in after.result.attempts}
            hedged = "hedge" in {before.result.because, after.result.because}
            cold = after.end - before.end >= policy["stickiness"] - EPSILON
            assert before.target in causes or hedged or cold


def switches_are_visible(run: Run, policy: dict[str, Any]) -> None:
    """Streams 1: between the chunks of two targets there is a marker."""
    for call in run.calls:
        for before, after in pairwise(call.chunks):
            if "restarted" in {*vars(before), *vars(after)}:
                continue
            assert before.usage == after.usage


def nothing_is_shown_twice(run: Run, policy: dict[str, Any]) -> None:
    """Streams 2: the text since the last restart is a beginning of the answer, or the whole."""
    for call in run.calls:
        if call.plan["streamed"]:
            assert TEXT.startswith(call.shown)
            assert call.result != "whole" or call.shown == TEXT
            assert getattr(call.result, "text", call.shown) == call.shown
    assert not any(server.misled for server in run.servers)
