"""Ten minutes of trouble at the primary, and a spare with 40% of the quota that the load needs.

Three calls a second, answers of a second, callers who wait 30 s. From minute 1 to minute 11 the primary answers 503, or
takes requests and never answers, or is twenty times slower, or refuses all with a 429 that asks for 20 s. The spare is
well, and grants 72 requests a minute; refused ones count too, as OpenAI documents. Clients are as `failover_peers` sets
them up. Virtual time does not reach the Router, so its rows take the thirteen minutes, all at once in one process.
"""

import asyncio
import logging
import random
from functools import partial
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
from tests.benchmarks.resilience.failover_peers import (
    IN_REAL_TIME,
    IN_VIRTUAL_TIME,
    PATIENCE,
    Client,
)

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


async def row(name: str, trouble: str, client: Client) -> Row:
    """Send the traffic through one trouble and return what became of the calls."""
    began = asyncio.get_running_loop().time()
    start, end, horizon = (began + at for at in (START, END, HORIZON))
    primary = provider(host("primary", trouble, name), FAULTS[trouble])
    spare = provider(host("spare", trouble, name), limits=RateLimits(requests_per_minute=QUOTA))
    ask = client({"primary": primary, "spare": spare}, QUOTA)

    async def patient(_: int) -> None:
        async with asyncio.timeout(PATIENCE):
            await ask()

    trial = Trial(primary.ledger)
    await open_loop(trial.record(patient), poisson(LOAD, duration=HORIZON, rng=random.Random(SEED)))
    during = [call for call in trial.calls if start <= call.began < end]
    answered = [call.ended - call.began for call in during if call.succeeded]
    asked = [attempt for attempt in trial.ledger if start <= attempt.started_at < end]
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
        "Answered after": round(trial.availability(end, horizon), 4),
    }


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


def host(*parts: str) -> str:
    """Return a host's name."""
    return "-".join("".join(filter(str.isalnum, part)).lower() for part in parts)


async def in_real_time() -> list[Row]:
    """Return the Router's rows, once the time has passed."""
    logging.getLogger("LiteLLM Router").setLevel(logging.CRITICAL)
    return await asyncio.gather(
        *(row(name, trouble, it) for trouble in FAULTS for name, it in IN_REAL_TIME.items())
    )


def measure() -> list[Row]:
    """Return a row for each client and trouble."""
    rows = [
        simulate(partial(row, name, trouble, client), seed=SEED)
        for trouble in FAULTS
        for name, client in IN_VIRTUAL_TIME.items()
    ]
    rows += asyncio.run(in_real_time())
    troubles = list(FAULTS)
    return sorted(rows, key=lambda each: troubles.index(str(each["Trouble"])))
