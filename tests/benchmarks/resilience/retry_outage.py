"""The chapter's outage for the peers: ten seconds without capacity, and how each brings its callers through.

A thousand users, 40 calls a second, a provider of 50 slots of a second each that works on requests nobody awaits any
more; callers wait 5 s for an attempt. From second 60 to 70 it serves nobody. Every peer is as `retry_peers` sets it up,
in one process and in a hundred with a budget each; where there is no budget the number of processes changes nothing.
The vendors' SDKs are the real clients with the retries they have by default, over the wire formats in process.

What a budget costs in fair weather is measured too: the same traffic with one connection in a hundred lost, no outage.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anthropic
import httpx2
import openai

from course.benchmarks import Row
from course.experiments import Trial
from llm_patterns.chat import ChatRequest, Message, Usage
from llm_patterns.resilience import RetryWithBudget
from llm_patterns.simulation import (
    CapacityLoss,
    ConstantLatency,
    Disconnect,
    Fault,
    FifoServer,
    SimulatedProvider,
    fixed,
    open_loop,
    poisson,
    simulate,
)
from llm_patterns.simulation.transport import SimulatedTransport
from tests.benchmarks.resilience import retry_peers

PEERS = ("tenacity", "stamina", "backoff", "nopanic", "redress", "openai", "anthropic")
ROUNDS = 1
SEED = 1
ATTEMPT_TIMEOUT = 5.0
OUTAGE = CapacityLoss(start=60, duration=10, remaining=0.0)
FAIR_WEATHER = Disconnect(probability=0.01)
HORIZON = 240
REQUEST = ChatRequest(model="small", messages=(Message.user("Hello"),), max_tokens=200)
USAGE = Usage(input_tokens=500, output_tokens=200)

Ask = Callable[[], Awaitable[object]]
Client = Callable[[SimulatedProvider], list[Ask]]
"""Makes the calls of a fleet, one for each process."""


def trial(client: Client, fault: Fault) -> Trial:
    """Run the traffic through *fault* and return what the callers and the provider saw."""

    async def main() -> Trial:
        provider = SimulatedProvider(
            server=FifoServer(50),
            latency=ConstantLatency(0.2, 0.004),
            faults=[fault],
            responder=fixed(usage=USAGE),
        )
        fleet = client(provider)
        run = Trial(provider.ledger)
        await open_loop(run.record(lambda number: fleet[number % len(fleet)]()), arrivals)
        return run

    arrivals = list(poisson(40, duration=HORIZON, rng=random.Random(SEED)))
    random.seed(SEED)  # where the peers take their jitter from
    with retry_peers.virtual_clock():
        return simulate(main, seed=SEED)


def layered(layer: Callable[[], Any], processes: int = 1) -> Client:
    """Return the client whose attempts end at the time-out, behind a layer for each process."""

    def fleet(provider: SimulatedProvider) -> list[Ask]:
        async def attempt() -> object:
            async with asyncio.timeout(ATTEMPT_TIMEOUT):
                return await provider.complete(REQUEST)

        return [layer()(attempt) for _ in range(processes)]

    return fleet


def in_process(provider: SimulatedProvider) -> httpx2.AsyncClient:
    """Return the HTTP client of the SDKs, with *provider* at its other end."""
    transport: Any = SimulatedTransport(provider)  # of httpx by type; it serves httpx2 as well
    return httpx2.AsyncClient(transport=transport)


def openai_sdk(provider: SimulatedProvider) -> list[Ask]:
    """Return OpenAI's client as it retries by itself."""
    http = in_process(provider)
    client = openai.AsyncOpenAI(api_key="any", http_client=http, timeout=ATTEMPT_TIMEOUT)
    messages: Any = [{"role": "user", "content": "Hello"}]
    return [
        partial(client.chat.completions.create, model="small", messages=messages, max_tokens=200)
    ]


def anthropic_sdk(provider: SimulatedProvider) -> list[Ask]:
    """Return Anthropic's client as it retries by itself."""
    http = in_process(provider)
    client = anthropic.AsyncAnthropic(api_key="any", http_client=http, timeout=ATTEMPT_TIMEOUT)
    messages: Any = [{"role": "user", "content": "Hello"}]
    return [partial(client.messages.create, model="small", messages=messages, max_tokens=200)]


def row(name: str, processes: int | None, client: Client) -> Row:
    """Run both for one client and return what became of its calls."""
    run, fair = trial(client, OUTAGE), trial(client, FAIR_WEATHER)
    end = int(OUTAGE.end)
    return {
        "Client": name,
        "Processes": processes,
        "Availability in the outage": round(run.availability(OUTAGE.start, end), 4),
        "Availability after": round(run.availability(end, HORIZON), 4),
        "Seconds to recover": run.recovery(after=end, until=HORIZON),
        "Attempts a call": round(run.amplification, 3),
        "Attempts a call, worst ten seconds": round(run.peak_amplification(until=HORIZON), 2),
        "Wasted attempts": run.wasted,
        "Availability in fair weather": round(fair.availability(0, HORIZON), 4),
    }


def measure() -> list[Row]:
    """Return a row for each client; `Processes` is None where their number changes nothing."""
    budgets: dict[str, Callable[[], Any]] = {
        "RetryWithBudget": partial(RetryWithBudget, retry_peers.POLICY),
        "nopanic with its budget": partial(retry_peers.with_nopanic_budget, retry_peers.loop_time),
        "redress with its budget": retry_peers.with_redress_budget,
    }
    without = {name: it for name, it in retry_peers.PEERS.items() if name not in budgets}
    return [
        row("no retry", None, layered(lambda: lambda attempt: attempt)),
        *(row(name, many, layered(it, many)) for name, it in budgets.items() for many in (1, 100)),
        *(row(name, None, layered(it)) for name, it in without.items()),
        row("openai SDK", None, openai_sdk),
        row("anthropic SDK", None, anthropic_sdk),
    ]
