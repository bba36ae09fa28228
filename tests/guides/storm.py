"""The whole resilience stack in random weather: what is built, what strikes it, and what must hold whatever does.

Each seed makes another stack, other faults, other calls and other cancellations, and the same ones each time:
`python -m tests.guides.storm 17` runs number 17 again and tells what happened.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import get_running_loop
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import Random
from typing import Any

from llm_patterns.chat import ChatChunk, ChatRequest, ChatResponse, ChatStream, Message
from llm_patterns.errors import InvalidRequest, LLMPatternsError
from llm_patterns.layers import LayeredModel, Timeout
from llm_patterns.resilience import (
    Answer,
    BreakerClosed,
    BreakerHalfOpened,
    BreakerOpened,
    BreakerPolicy,
    CircuitBreaker,
    DegradationPolicy,
    EarnedBudget,
    FailoverPolicy,
    GracefulDegradation,
    InFlightBudget,
    Level,
    LevelPolicy,
    MultiProviderFailover,
    RetryPolicy,
    RetryWithBudget,
    StaleCache,
    StaleCachePolicy,
    StreamInterrupted,
    StreamSwitched,
    Target,
    TargetLimits,
)
from llm_patterns.simulation import (
    BrownOut,
    CapacityLoss,
    ConstantLatency,
    Disconnect,
    ErrorRate,
    Fault,
    FifoServer,
    Hang,
    Outage,
    ProcessorSharingServer,
    RateLimits,
    Reply,
    SimulatedProvider,
    simulate,
)

EPSILON = 1e-6
CALLER: ContextVar[int] = ContextVar("caller")
LAST_CALL = 60.0
WORDS = 12
NOT_NOW = "We cannot answer at the moment."


@dataclass
class Outcome:
    """How one call ended for its caller: exactly one of these fields is set, or the caller left."""

    number: int
    seconds: float = 0.0
    left: bool = False
    answer: Answer[str] | None = None
    error: Exception | None = None
    chunks: list[ChatChunk] | None = None


@dataclass
class Storm:
    """One run: what was built, and everything that was seen."""

    seed: int
    deadline: float
    calls: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    circuits: list[tuple[float, Any]] = field(default_factory=list)
    asked: list[tuple[float, str, int]] = field(default_factory=list)
    providers: list[SimulatedProvider] = field(default_factory=list)
    retries: list[RetryWithBudget] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    failover: MultiProviderFailover | None = None
    ladder: GracefulDegradation[ChatRequest, str] | None = None
    leftovers: Counter[str] = field(default_factory=Counter)


def text_of(number: int) -> str:
    """What every provider answers to call *number*: nobody else's words."""
    return " ".join(f"{number}-{word}" for word in range(WORDS))


def echo(request: ChatRequest, rng: Random) -> Reply:
    """Answer with the asker's own words; go on from them where an assistant's message is the last."""
    number = next(int(each.content) for each in request.messages if each.role == "user")
    whole, last = text_of(number), request.messages[-1]
    return Reply(whole[len(last.content) :] if last.role == "assistant" else whole)


def weather(rng: Random) -> list[Fault]:
    """None to four faults, somewhere in the minute."""

    def fault() -> Fault:
        window = {"start": rng.uniform(0, 50), "duration": rng.uniform(1, 40)}
        share = rng.choice([0.1, 0.5, 1.0])
        kinds: list[Callable[[], Fault]] = [
            lambda: Outage(**window),
            lambda: Hang(**window, probability=share),
            lambda: BrownOut(**window, slowdown=rng.uniform(2, 20)),
            lambda: CapacityLoss(**window, remaining=rng.choice([0.0, 0.3])),
            lambda: Disconnect(**window, probability=share, after=rng.random() * 0.9),
            lambda: Disconnect(**window, probability=share, status_code=529),
            lambda: ErrorRate(**window, probability=share, status_code=rng.choice([500, 401, 529])),
            lambda: ErrorRate(**window, status_code=429, retry_after=rng.choice([None, 1, 20])),
        ]
        return rng.choice(kinds)()

    return [fault() for _ in range(rng.choice([0, 1, 1, 2, 4]))]


def provider(name: str, rng: Random) -> SimulatedProvider:
    """One that may be small, slow, limited, and struck."""
    server = rng.choice([FifoServer(rng.randrange(2, 12)), ProcessorSharingServer(4)])
    return SimulatedProvider(
        name=name,
        server=server,
        latency=ConstantLatency(rng.uniform(0.05, 1), rng.uniform(0.001, 0.2)),
        limits=RateLimits(requests_per_minute=rng.choice([None, 60, 600])),
        faults=weather(rng),
        responder=echo,
        seed=rng.getrandbits(32),
    )


class Watched:
    """A target's model, and when it was asked."""

    def __init__(self, name: str, model: LayeredModel, storm: Storm) -> None:
        self._name = name
        self._model = model
        self._storm = storm

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """Ask, and note it."""
        self._note()
        return await self._model.complete(request)

    async def stream(self, request: ChatRequest) -> ChatStream:
        """Open, and note it."""
        self._note()
        return await self._model.stream(request)

    def _note(self) -> None:
        self._storm.asked.append((get_running_loop().time(), self._name, CALLER.get()))


def target(name: str, storm: Storm, rng: Random) -> Target:
    """A provider behind a time-out and retries of its own, with a breaker around both."""
    simulated = provider(name, rng)
    retry = RetryWithBudget(
        RetryPolicy(deadline=storm.deadline, max_attempts=rng.randrange(1, 4), initial_delay=0.2),
        budget=rng.choice([EarnedBudget, InFlightBudget])(),
        rng=Random(rng.getrandbits(32)),
    )
    breaker = CircuitBreaker(
        BreakerPolicy(open_time=rng.uniform(1, 10), ramp=rng.choice([0, 5]), slow_after=5),
        key=name,
        rng=Random(rng.getrandbits(32)),
        on_event=lambda event: storm.circuits.append((get_running_loop().time(), event)),
    )
    layered = LayeredModel(simulated, retry, Timeout(rng.uniform(1, 4)))
    storm.providers.append(simulated)
    storm.retries.append(retry)
    limits = rng.choice([None, TargetLimits(max_in_flight=rng.randrange(1, 10))])
    return Target(name, Watched(name, layered, storm), breaker=breaker, limits=limits)


def build(storm: Storm, rng: Random) -> None:
    """Degradation around failover around targets."""
    names = ["primary", "spare", "third"][: rng.randrange(2, 4)]
    storm.targets = [target(name, storm, rng) for name in names]
    storm.failover = failover = MultiProviderFailover(
        FailoverPolicy(
            deadline=storm.deadline,
            expected_latency=0.1,
            order=rng.choice(["listed", "weighted", "fastest"]),
            hedge_percentile=rng.choice([None, 0.9]),
            after_first_token=rng.choice(["raise", "restart", "continue"]),
            stall_timeout=4,
        ),
        storm.targets,
        budget=rng.choice([None, EarnedBudget()]),
        rng=Random(rng.getrandbits(32)),
    )

    async def full(request: ChatRequest) -> str:
        return (await failover.complete(request, session=request.user)).text

    cache: StaleCache[ChatRequest, str] = StaleCache(
        StaleCachePolicy(fresh=rng.choice([0, 5]), stale=30),
        key=lambda request: request.messages[0].content,
    )
    storm.ladder = GracefulDegradation(
        DegradationPolicy(deadline=storm.deadline),
        [
            Level("full", full, LevelPolicy(quality=0.9, reserve=0.5, max_in_flight=20)),
            Level("cached", cache.recall, LevelPolicy(quality=0.7, reserve=0)),
        ],
        not_now=NOT_NOW,
        accept=lambda text: text.startswith(tuple("0123456789")),
        cache=cache,
        rng=Random(rng.getrandbits(32)),
    )


async def caller(storm: Storm, plan: Random, position: int) -> None:
    """Make one call at a random moment, in a random way, and leave at a random moment or stay."""
    CALLER.set(position)
    await asyncio.sleep(plan.uniform(0, LAST_CALL))
    number = plan.randrange(15)  # some ask the same, so that a cache has something to give
    patience = plan.choice([None, None, plan.uniform(0, 2)])
    outcome, began = Outcome(number), get_running_loop().time()
    storm.outcomes.append(outcome)
    request = ChatRequest(
        model="any",
        messages=(Message.user(str(number)),),
        user=plan.choice([None, "reader"]),
    )
    ways = [whole, whole, streamed, refused]
    try:
        async with asyncio.timeout(patience) as leaving:
            await plan.choice(ways)(storm, request, outcome, plan)
    except Exception as error:
        if leaving.expired():
            outcome.left = True
        else:
            outcome.error = error
    outcome.seconds = get_running_loop().time() - began


async def whole(storm: Storm, request: ChatRequest, outcome: Outcome, plan: Random) -> None:
    """Ask the ladder."""
    assert storm.ladder is not None
    priority = plan.choice([None, "normal", "background"])
    outcome.answer = await storm.ladder.call(request, priority=priority)


async def streamed(storm: Storm, request: ChatRequest, outcome: Outcome, plan: Random) -> None:
    """Read a stream to its end, or hang up half-way."""
    assert storm.failover is not None
    stream = await storm.failover.stream(request, session=request.user)
    outcome.chunks = chunks = []
    enough = plan.choice([10_000, 3])
    try:
        async for chunk in stream:
            chunks.append(chunk)
            if len(chunks) == enough:
                break
    finally:
        await stream.aclose()


async def refused(storm: Storm, request: ChatRequest, outcome: Outcome, plan: Random) -> None:
    """Ask for what no provider takes: a context too long for any."""
    longer = request.model_copy(update={"max_tokens": 10_000_000})
    await whole(storm, longer, outcome, plan)


def run(seed: int) -> Storm:
    """Make the storm of this number, and let it pass. Raises `LeftoverTasks` if a task outlives it."""
    rng = Random(seed)
    storm = Storm(seed, deadline=rng.uniform(3, 15), calls=rng.randrange(20, 60))

    async def main() -> None:
        build(storm, rng)
        async with asyncio.TaskGroup() as group:
            for position in range(storm.calls):
                group.create_task(caller(storm, Random(rng.getrandbits(64)), position))
        storm.leftovers = held(storm)

    simulate(main, seed=seed)
    return storm


def held(storm: Storm) -> Counter[str]:
    """What is still held when every call is over: it must be nothing."""
    assert storm.failover is not None
    assert storm.ladder is not None
    count: Counter[str] = Counter()
    for each in storm.targets:
        count["places at targets"] += each.in_flight
        count["probes"] += each.breaker.statistics().probes_in_flight
    for retry in storm.retries:
        if isinstance(retry.budget, InFlightBudget):
            count["calls in a retry budget"] += vars(retry.budget)["_calls"]
            count["retries in a budget"] += vars(retry.budget)["_retries"]
    for level in storm.ladder.statistics().levels:
        count["places at levels"] += level.in_flight
    return +count


# --- what must hold ------------------------------------------------------------------------------


def no_answer_is_lost_or_doubled(storm: Storm) -> None:
    """Each caller who stayed has one outcome, and what was answered is the answer to what was asked."""
    assert len(storm.outcomes) == storm.calls
    for outcome in storm.outcomes:
        kinds = [outcome.answer, outcome.error, outcome.chunks]
        told = sum(kind is not None for kind in kinds)
        broke = outcome.chunks is not None and outcome.error is not None
        assert told == 1 or outcome.left or broke
        if outcome.answer is not None:
            expected = NOT_NOW if outcome.answer.level == "not now" else text_of(outcome.number)
            assert outcome.answer.value == expected


def every_failure_is_understood(storm: Storm) -> None:
    """The ladder raises only what is the request's own; a stream, the library's errors or the provider's."""
    for outcome in storm.outcomes:
        if outcome.error is not None and outcome.chunks is None:
            assert isinstance(outcome.error, (LLMPatternsError, TimeoutError))
        if isinstance(outcome.error, StreamInterrupted):
            assert outcome.chunks
        if isinstance(outcome.error, InvalidRequest):
            assert outcome.answer is None


def streams_show_nothing_twice(storm: Storm) -> None:
    """What may be shown since the last restart is a beginning of the answer, all of it if the stream ended well."""
    for outcome in storm.outcomes:
        if outcome.chunks is None:
            continue
        shown = ""
        for chunk in outcome.chunks:
            if isinstance(chunk, StreamSwitched) and chunk.restarted:
                shown = ""
            shown += chunk.text
            assert text_of(outcome.number).startswith(shown)
        if outcome.chunks and outcome.chunks[-1].finish_reason == "stop":
            assert shown == text_of(outcome.number)


def deadlines_hold(storm: Storm) -> None:
    """No whole answer takes longer than the deadline, whatever hung, queued or was tried again."""
    for outcome in storm.outcomes:
        if outcome.answer is not None:
            assert outcome.seconds <= storm.deadline + EPSILON


def attempts_are_bounded(storm: Storm) -> None:
    """A call asks each target once; providers see no more than that and the retries that budgets granted."""
    sent = sum(len(each.ledger) for each in storm.providers)
    granted = sum(vars(retry)["_retries"] for retry in storm.retries)
    assert sent <= len(storm.asked) + granted
    asked = Counter((caller, name) for _, name, caller in storm.asked)
    assert max(asked.values(), default=0) <= 1, "a call asks no target twice"


def open_circuits_are_left_alone(storm: Storm) -> None:
    """While a circuit is open, its target is not asked; it is opened, tested and closed in that order."""
    may_follow = {
        BreakerOpened: {BreakerHalfOpened},
        BreakerHalfOpened: {BreakerOpened, BreakerClosed},
        BreakerClosed: {BreakerOpened},
        None: {BreakerOpened},
    }
    for each in storm.targets:
        asked = [at for at, name, _ in storm.asked if name == each.name]
        last = None
        for at, event in storm.circuits:
            if event.__class__ in may_follow and event.key == each.name:
                assert event.__class__ in may_follow[last]
                last = event.__class__
                closed_again = at + getattr(event, "open_for", 0.0) - EPSILON
                assert not [t for t in asked if at < t < closed_again]


def nothing_is_left_behind(storm: Storm) -> None:
    """Every place, permit and probe was given back."""
    assert not storm.leftovers, dict(storm.leftovers)


INVARIANTS: tuple[Callable[[Storm], None], ...] = (
    no_answer_is_lost_or_doubled,
    every_failure_is_understood,
    streams_show_nothing_twice,
    deadlines_hold,
    attempts_are_bounded,
    open_circuits_are_left_alone,
    nothing_is_left_behind,
)


def check(seed: int) -> Storm:
    """Run one storm and hold it to every invariant; a failure names the seed and how to see it again."""
    try:
        storm = run(seed)
        for holds in INVARIANTS:
            holds(storm)
    except Exception as error:
        error.add_note(f"storm {seed} again: python -m tests.guides.storm {seed}")
        raise
    return storm


def told(storm: Storm) -> str:
    """What happened, in a line for each call."""
    lines = [f"storm {storm.seed}: deadline {storm.deadline:.1f} s, {storm.calls} calls"]
    lines += [f"  {each.name}: {vars(each)['_schedule'].faults}" for each in storm.providers]
    lines += [f"  {at:7.3f} {event}" for at, event in storm.circuits]
    for each in storm.outcomes:
        what = (
            each.answer.level if each.answer else each.error or f"{len(each.chunks or [])} chunks"
        )
        lines.append(
            f"  call {each.number:2} {each.seconds:6.2f} s {'left' if each.left else what}"
        )
    return "\n".join(lines)


Ask = Callable[[Storm, ChatRequest, Outcome, Random], Awaitable[None]]

if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(told(check(int(argument))))  # noqa: T201
