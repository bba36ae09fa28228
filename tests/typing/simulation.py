"""The types a reader of simulations relies on; checked by mypy, never run."""

from collections.abc import Iterable
from decimal import Decimal
from random import Random
from typing import assert_type

from llm_patterns.chat import ChatModel, ChatRequest, ChatResponse, ChatStream, Usage
from llm_patterns.simulation import (
    Attempt,
    ConstantLatency,
    FifoServer,
    LatencyModel,
    Ledger,
    Outage,
    ProcessorSharingServer,
    RateLimitState,
    Reply,
    Responder,
    Server,
    SimulatedProvider,
    fixed,
    scripted,
    simulate,
)
from llm_patterns.simulation.provider import Stream


async def answer() -> int:
    """Return a number."""
    return 42


async def needs(number: int) -> int:
    """Return the same."""
    return number


def a_simulation_returns_what_main_does() -> None:
    """Given as a function, as a coroutine, or as what needs arguments first."""
    assert_type(simulate(answer), int)
    assert_type(simulate(answer(), seed=1), int)
    assert_type(simulate(lambda: needs(3)), int)
    simulate(needs)  # type: ignore[arg-type]
    simulate(answer, leftover="ignore")  # type: ignore[arg-type]


async def a_provider_is_a_model(provider: SimulatedProvider, request: ChatRequest) -> None:
    """Itself, and as each of its callers sees it."""
    models: list[ChatModel] = [provider, provider.client("me")]
    del models
    assert_type(await provider.complete(request), ChatResponse)
    assert_type(await provider.stream(request), Stream)
    stream: ChatStream = await provider.client("me").stream(request)
    await stream.aclose()
    assert_type(provider.rate_limit_state(), RateLimitState)


def the_books_are_typed(ledger: Ledger) -> None:
    """A row, some rows, the bill."""

    def price(usage: Usage, model: str) -> Decimal:
        return Decimal(usage.total_tokens)

    assert_type(ledger[0], Attempt)
    assert_type(ledger[1:], list[Attempt])
    assert_type(ledger[0].usage, Usage | None)
    assert_type(ledger.cost_usd(price), Decimal)
    assert_type(ledger.started_per_second(until=5), list[int])


def its_parts_are_interchangeable(outages: Iterable[Outage]) -> None:
    """Either server, any latency, any responder, one's own too."""

    def echo(request: ChatRequest, rng: Random) -> Reply:
        return Reply(request.messages[-1].content)

    servers: list[Server] = [FifoServer(4), ProcessorSharingServer(2.5)]
    latency: LatencyModel = ConstantLatency()
    responders: list[Responder] = [fixed("OK"), scripted("one", Reply("two")), echo]
    for server, responder in zip(servers, responders, strict=False):
        SimulatedProvider(server=server, latency=latency, responder=responder, faults=outages)
    FifoServer(4, abandoned="keep")  # type: ignore[arg-type]
