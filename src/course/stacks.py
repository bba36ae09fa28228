"""Five guards of one call in any order, and the weather that an order is run through.

An order is written from the outside in, a letter for each guard: `DFRBT` is degradation around failover around, for
each provider, retries around a breaker around a time-out. What stands outside F guards the call, what stands inside it
each provider's own.

>>> met = pass_through("DFRBT", "outage", until=40)
>>> met.full > 0.9, met.failed
(True, 0.0)
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from random import Random
from statistics import fmean
from typing import Final

from course.benchmarks import Row
from llm_patterns.chat import ChatRequest, ChatResponse, Message, Usage
from llm_patterns.layers import Timeout
from llm_patterns.resilience import (
    BreakerPolicy,
    CircuitBreaker,
    DegradationPolicy,
    FailoverPolicy,
    GracefulDegradation,
    Level,
    LevelPolicy,
    MultiProviderFailover,
    RetryPolicy,
    RetryWithBudget,
    Target,
    TargetLimits,
)
from llm_patterns.simulation import (
    CapacityLoss,
    ConstantLatency,
    ErrorRate,
    Fault,
    FifoServer,
    Hang,
    Outage,
    SimulatedProvider,
    fixed,
    open_loop,
    poisson,
    simulate,
)

__all__ = [
    "GUARDS",
    "ORDERS",
    "WEATHER",
    "Met",
    "built",
    "keeps_the_rule",
    "pass_through",
    "worse_than",
]

GUARDS: Final[Mapping[str, str]] = {
    "D": "degradation",
    "F": "failover",
    "R": "retry",
    "B": "breaker",
    "T": "time-out",
}

ORDERS: Final = tuple(map("".join, permutations(GUARDS)))
"""All 120."""

PATIENCE: Final = 10.0
"""Seconds for which a user waits."""

WEATHER: Final[Mapping[str, tuple[Sequence[Fault], Sequence[Fault]]]] = {
    "blips": (
        [ErrorRate(start=10, duration=100, probability=0.1)],
        [ErrorRate(start=10, duration=100, probability=0.1)],
    ),
    "outage": ([Outage(start=20, duration=60)], []),
    "hang": ([Hang(start=20, duration=60)], []),
    "overload": ([CapacityLoss(start=20, duration=20, remaining=0.2)], []),
    "both down": ([Outage(start=20, duration=40)], [Outage(start=20, duration=40)]),
}
"""What strikes the primary, and what strikes the spare."""

Ask = Callable[[ChatRequest], Awaitable[ChatResponse]]

_REQUEST: Final = ChatRequest(model="any", messages=(Message.user("Summarise this ticket."),))
_USAGE: Final = Usage(input_tokens=500, output_tokens=200)
_NOT_NOW: Final = ChatResponse(id="0", model="none", text="Not now.")


@dataclass(frozen=True, slots=True)
class Met:
    """What the callers met, and what it took.

    `full`, `lesser` and `failed` are shares of the calls: answered by a provider, answered by the fallback, ended in an
    error. `seconds` is the mean time of a call, `attempts` what the two providers saw of each, `billed` what they bill.
    """

    full: float
    lesser: float
    failed: float
    seconds: float
    attempts: float
    wasted: int
    calls: int
    billed: tuple[Usage, ...]


def keeps_the_rule(order: str) -> bool:
    """Return whether degradation is outside failover, failover outside breaker and retry, breaker outside time-out.

    >>> [order for order in ORDERS if keeps_the_rule(order)]
    ['DFRBT', 'DFBRT', 'DFBTR']
    """
    at = order.index
    return at("D") < at("F") < min(at("B"), at("R")) and at("B") < at("T")


def worse_than(reference: str, order: str, rows: Mapping[tuple[str, str], Row]) -> list[str]:
    """Return in which weather *order* is worse than *reference*, and in what, by rows of the stored run.

    Worse is: any call that fails; 0.5 points fewer full answers, or a tenth more seconds a call, while a provider is
    up; a tenth more attempts, at any time.
    """
    found = []
    for weather in WEATHER:
        ours, theirs = rows[order, weather], rows[reference, weather]
        up = weather != "both down"
        worse = {
            "failed": _number(ours, "Failed") > 0,
            "full": up and _number(ours, "Full") < _number(theirs, "Full") - 0.005,
            "seconds": up and _number(ours, "Seconds") > 1.1 * _number(theirs, "Seconds"),
            "attempts": _number(ours, "Attempts") > 1.1 * _number(theirs, "Attempts"),
        }
        found += [f"{weather}: {what}" for what, is_worse in worse.items() if is_worse]
    return found


def _number(row: Row, name: str) -> float:
    return float(row[name] or 0)


def built(order: str, primary: Ask, spare: Ask, *, max_in_flight: int | None = 20) -> Ask:
    """Return the two as one call, behind the guards of *order*; any of the five may be missing.

    *max_in_flight* bounds what failover sends to one of them at a time: two answers for each slot, which is what it can
    give within the time-out.
    """
    calls = [primary, spare]
    for letter in reversed(order):
        guard = _GUARDS.get(letter)  # none for F, which makes one call of both
        calls = [guard()(each) for each in calls] if guard else [_failover(calls, max_in_flight)]
    return calls[0]


def pass_through(
    order: str,
    weather: str,
    *,
    seed: int = 3,
    until: float = 120,
    slots: int = 10,
    max_in_flight: int | None = 20,
) -> Met:
    """Run *order* through *weather*: 6 calls a second, two providers of *slots* slots, 1.1 seconds an answer."""
    arrivals = poisson(6, duration=until, rng=Random(seed))
    ends: list[tuple[str, float]] = []

    async def main() -> tuple[SimulatedProvider, ...]:
        primary, spare = (
            SimulatedProvider(
                server=FifoServer(slots),
                latency=ConstantLatency(0.3, 0.004),
                responder=fixed("full", usage=_USAGE),
                faults=faults,
                seed=number,
            )
            for number, faults in enumerate(WEATHER[weather], start=1)
        )
        call = built(order, primary.complete, spare.complete, max_in_flight=max_in_flight)
        time = get_running_loop().time

        async def user(number: int) -> None:
            began = time()
            try:
                answer = await call(_REQUEST)
            except Exception:
                ends.append(("failed", time() - began))
            else:
                ends.append(("lesser" if answer is _NOT_NOW else "full", time() - began))

        await open_loop(user, arrivals)
        return primary, spare

    ledgers = [provider.ledger for provider in simulate(main, seed=seed)]
    attempts = [attempt for ledger in ledgers for attempt in ledger]
    shares = {how: fmean(end == how for end, _ in ends) for how in ("full", "lesser", "failed")}
    return Met(
        **shares,
        seconds=fmean(seconds for _, seconds in ends),
        attempts=len(attempts) / len(ends),
        wasted=sum(attempt.wasted for attempt in attempts),
        calls=len(ends),
        billed=tuple(attempt.usage for attempt in attempts if attempt.usage is not None),
    )


def _failover(calls: Sequence[Ask], max_in_flight: int | None) -> Ask:
    """Failover over *calls*, whose breakers are guards of their own here: the targets' are held closed."""
    limits = TargetLimits(max_in_flight=max_in_flight)
    targets = []
    for name in ("primary", "spare"):
        breaker = CircuitBreaker(BreakerPolicy(), key=name)
        breaker.force("closed")
        targets.append(Target(name, breaker=breaker, limits=limits))
    failover = MultiProviderFailover(FailoverPolicy(deadline=PATIENCE), targets)
    return failover.over({target.name: call for target, call in zip(targets, calls, strict=True)})


def _degradation(call: Ask) -> Ask:
    ladder = GracefulDegradation(
        DegradationPolicy(deadline=PATIENCE),
        [Level("full", call, LevelPolicy(quality=0.8, reserve=1))],
        not_now=_NOT_NOW,
    )

    async def degraded(request: ChatRequest) -> ChatResponse:
        return (await ladder.call(request)).value

    return degraded


_GUARDS: Final[Mapping[str, Callable[[], Callable[[Ask], Ask]]]] = {
    "D": lambda: _degradation,
    "R": lambda: RetryWithBudget(RetryPolicy(deadline=PATIENCE)),
    "B": lambda: CircuitBreaker(BreakerPolicy(open_time=10, ramp=10)),
    "T": lambda: Timeout(3),
}
