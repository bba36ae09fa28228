"""The rule of the resilience stack: which orders of the five guards come through, and what each wrong one costs."""

import asyncio

import pytest

from course.benchmarks import benchmark
from course.stacks import ORDERS, WEATHER, Met, keeps_the_rule, pass_through, worse_than
from llm_patterns.chat import ChatRequest, Message
from llm_patterns.layers import LayeredModel, Timeout
from llm_patterns.resilience import (
    BreakerPolicy,
    CircuitBreaker,
    FailoverPolicy,
    MultiProviderFailover,
    Target,
)
from llm_patterns.simulation import Outage, SimulatedProvider, simulate
from tests.benchmarks.guides.resilience_orders import row

ROWS = {
    (each["Order"], each["Weather"]): each for each in benchmark("guides/resilience_orders").rows
}
REQUEST = ChatRequest(model="any", messages=(Message.user("Hello"),))


def test_the_orders_that_come_through_are_those_of_the_rule() -> None:
    """Of 120, the three that are nowhere worse than one of them; each of the others is worse at something."""
    assert len(ROWS) == len(ORDERS) * len(WEATHER) == 600
    best = [order for order in ORDERS if not worse_than("DFRBT", order, ROWS)]
    assert (
        best == [order for order in ORDERS if keeps_the_rule(order)] == ["DFRBT", "DFBRT", "DFBTR"]
    )


@pytest.mark.parametrize("order", ["DFRBT", "FDRBT", "DFRTB", "TBRFD", "RDFBT"])
@pytest.mark.parametrize("weather", WEATHER)
def test_the_stored_run_is_a_run_of_today(order: str, weather: str) -> None:
    """What the chapter reads is what the library does now."""
    assert row(order, weather) == ROWS[order, weather]


def met(order: str, weather: str) -> Met:
    """What callers meet, in a shorter run."""
    return pass_through(order, weather, until=60)


def test_a_fallback_inside_failover_hides_the_spare() -> None:
    """Its answers look like successes, so nobody is asked for a better one."""
    right, wrong = met("DFRBT", "outage"), met("FDRBT", "outage")
    assert right.full > 0.99
    assert wrong.full < 0.7
    assert wrong.lesser > 0.3


@pytest.mark.parametrize("order", ["DFRTB", "DBFRT", "DFRT"])
def test_a_breaker_that_sees_no_time_out_is_worth_none(order: str) -> None:
    """Inside the time-out, or outside failover, it opens as little as one that is not there."""
    right, wrong = met("DFRBT", "hang"), met(order, "hang")
    assert wrong.seconds > 1.5 * right.seconds
    assert wrong.attempts > 1.2 * right.attempts


@pytest.mark.parametrize("order", ["TDFRB", "DTFRB"])
def test_one_time_out_around_failover_leaves_none_for_the_spare(order: str) -> None:
    """The primary hangs until the time of both is over."""
    assert met(order, "hang").full < 0.6
    assert (met(order, "hang").failed > 0.3) == (order[0] == "T")


def test_a_retry_around_failover_does_not_retry() -> None:
    """Failover says that there is no more to try; inside it, a blip of both providers passes."""
    assert met("DFRBT", "blips").lesser < met("DRFBT", "blips").lesser
    assert met("DRFBT", "blips").attempts == met("DFBT", "blips").attempts


def test_without_degradation_somebody_gets_an_error() -> None:
    """It alone has an answer when both are down."""
    assert met("DFRBT", "both down").failed == 0
    assert met("FRBT", "both down").failed > 0.5


@pytest.mark.parametrize("twice", [True, False])
def test_a_breaker_in_two_places_never_closes(twice: bool) -> None:
    """Failover takes its only probe, and the same breaker inside refuses the call that was to use it."""

    async def main() -> int:
        primary = SimulatedProvider(faults=[Outage(duration=30)])
        breaker = CircuitBreaker(BreakerPolicy(open_time=5))
        inner = [breaker, Timeout(3)] if twice else [Timeout(3)]
        failover = MultiProviderFailover(
            FailoverPolicy(deadline=10),
            [
                Target("primary", LayeredModel(primary, *inner), breaker=breaker),
                Target("spare", SimulatedProvider()),
            ],
        )
        for _ in range(300):
            await failover.complete(REQUEST)
            await asyncio.sleep(1)
        return sum(attempt.status_code == 200 for attempt in primary.ledger)

    served = simulate(main)
    assert served == 0 if twice else served > 100
