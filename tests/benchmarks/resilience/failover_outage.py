"""Ten minutes of trouble at the primary, and a spare with 40% of the quota that the load needs.

Three calls a second, answers of a second, callers who wait 30 s. From minute 1 to minute 11 the primary answers 503, or
takes requests and never answers, or is twenty times slower, or refuses all with a 429 that asks for 20 s. The spare is
well, and grants 72 requests a minute; refused ones count too, as OpenAI documents. Clients are as `failover_peers` sets
them up; that they were asked through the wire format and the official SDK changes nothing in virtual time.
"""

import asyncio
import random
from statistics import quantiles

from course.benchmarks import Row
from course.experiments import Trial
from llm_patterns.chat import Usage
from llm_patterns.simulation import (
    BrownOut,
    ConstantLatency,
    ErrorRate,
    Fault,
    FifoServer,
    Hang,
    Outage,
    RateLimits,
    SimulatedProvider,
    fixed,
    open_loop,
    poisson,
    simulate,
)
from tests.benchmarks.resilience import failover_peers
from tests.benchmarks.resilience.failover_peers import PATIENCE, Client

PEERS = ("litellm", "pydantic-ai-slim", "openai")
ROUNDS = 1
SEED = 1
LOAD = 3.0
QUOTA = 72
START, END, HORIZON = 60, 660, 780
USAGE = Usage(input_tokens=500, output_tokens=200)
WINDOW = {"start": START, "duration": END - START}
FAULTS: dict[str, Fault] = {
    "outage": Outage(**WINDOW),
    "hang": Hang(**WINDOW),
    "brown-out": BrownOut(slowdown=20, **WINDOW),
    "quota clamp": ErrorRate(status_code=429, retry_after=20, **WINDOW),
}


def trials(client: Client, fault: Fault) -> tuple[Trial, SimulatedProvider]:
    """Run the traffic through *fault*; return what the callers and the primary saw, and the spare."""

    async def main() -> tuple[Trial, SimulatedProvider]:
        primary = provider("primary", fault)
        spare = provider("spare", limits=RateLimits(requests_per_minute=QUOTA))
        ask = client({"primary": primary, "spare": spare}, QUOTA)

        async def patient(_: int) -> None:
            async with asyncio.timeout(PATIENCE):
                await ask()

        trial = Trial(primary.ledger)
        await open_loop(trial.record(patient), arrivals)
        return trial, spare

    arrivals = list(poisson(LOAD, duration=HORIZON, rng=random.Random(SEED)))
    random.seed(SEED)
    with failover_peers.virtual_clock():
        return simulate(main, seed=SEED, leftover="cancel")  # the Router leaves its log's worker


def provider(name: str, *faults: Fault, limits: RateLimits | None = None) -> SimulatedProvider:
    """Return a provider that answers in a second."""
    return SimulatedProvider(
        name=name,
        server=FifoServer(1_000),
        latency=ConstantLatency(0.2, 0.004),
        limits=limits,
        faults=faults,
        responder=fixed(usage=USAGE),
    )


def row(name: str, trouble: str, client: Client) -> Row:
    """Run one client through one trouble and return what became of its calls."""
    trial, spare = trials(client, FAULTS[trouble])
    during = [call for call in trial.calls if START <= call.began < END]
    answered = [call.ended - call.began for call in during if call.succeeded]
    asked = [attempt for attempt in trial.ledger if START <= attempt.started_at < END]
    useless = [
        attempt
        for attempt in [*asked, *spare.ledger]
        if attempt.error is not None or attempt.abandoned
    ]
    return {
        "Client": name,
        "Trouble": trouble,
        "Answered in it": round(len(answered) / len(during), 4),
        "Of the spare's quota": round(len(answered) / ((END - START) / 60 * QUOTA), 3),
        "Requests to the primary in it": len(asked),
        "Wasted requests": len(useless),
        "99th percentile (s)": round(quantiles(answered, n=100)[-1], 2)
        if len(answered) > 1
        else None,
        "Answered after": round(trial.availability(END, HORIZON), 4),
    }


def measure() -> list[Row]:
    """Return a row for each client and trouble."""
    clients: dict[str, Client] = {
        "MultiProviderFailover": failover_peers.with_failover,
        **failover_peers.PEERS,
    }
    return [row(name, trouble, it) for trouble in FAULTS for name, it in clients.items()]
