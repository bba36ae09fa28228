"""What the test fixtures hand out: workloads whose outcomes can be asserted on, and the check that nothing is left."""

import asyncio
from random import Random

import pytest

from llm_patterns.chat import ChatRequest, Message
from llm_patterns.errors import RateLimited, ServerError
from llm_patterns.simulation import (
    ErrorRate,
    FifoServer,
    Hang,
    SimulatedProvider,
    TooManyInFlight,
    fixed,
    simulate,
)
from llm_patterns.toolkit.fixtures import Call, Outcomes, Unfinished, check_finished, workload

REQUEST = ChatRequest(model="any", messages=(Message.user("Hello"),))
LONG = fixed("word " * 50)


async def slow(number: int) -> None:
    """A call of a tenth of a second; every tenth fails, every twentieth is refused."""
    await asyncio.sleep(0.1)
    if number % 20 == 0:
        raise RateLimited("slow down", status_code=429)
    if number % 10 == 0:
        raise ServerError("broke", status_code=500)


def test_every_call_of_a_workload_is_an_outcome() -> None:
    """With when it began and ended, and its error."""
    outcomes = simulate(lambda: workload(slow, rate_per_second=10, duration=20))
    assert 150 < len(outcomes.calls) < 250
    assert all(call.ended - call.began == pytest.approx(0.1) for call in outcomes.calls)
    assert outcomes.availability() == pytest.approx(0.9, abs=0.01)
    assert outcomes.quantile(0.99) == pytest.approx(0.1)
    failed = [call for call in outcomes.calls if call.error is not None]
    assert sum(outcomes.errors.values()) == len(failed)
    assert set(outcomes.errors) == {"rate_limited", "server"}


def test_the_same_seed_is_the_same_load_whatever_the_code_does() -> None:
    """Calls that draw chance do not shift the arrivals; another seed does."""

    def begun(seed: int, draws: int) -> list[float]:
        async def call(number: int) -> None:
            loop = asyncio.get_running_loop()
            for _ in range(draws):
                vars(loop)["rng"].random()

        outcomes = simulate(lambda: workload(call, duration=20), seed=seed)
        return [call.began for call in outcomes.calls]

    assert begun(1, draws=0) == begun(1, draws=3) != begun(2, draws=0)


def test_a_workload_begins_now() -> None:
    """Its times are its own, wherever the clock stands."""

    async def main() -> Outcomes:
        await asyncio.sleep(1_000)
        return await workload(slow, duration=5)

    assert max(call.ended for call in simulate(main).calls) < 6


def test_calls_do_not_wait_for_each_other() -> None:
    """An open loop: a full provider builds a queue."""

    async def main() -> Outcomes:
        provider = SimulatedProvider(server=FifoServer(slots=1))
        return await workload(lambda _: provider.complete(REQUEST), rate_per_second=20, duration=10)

    assert simulate(main).quantile(1) > 10


@pytest.mark.parametrize("shape", ["poisson", "bursts", "diurnal"])
def test_a_workload_has_the_shape_that_is_asked_for(shape: str) -> None:
    """Each at about its rate."""

    async def main() -> Outcomes:
        return await workload(slow, rate_per_second=2, duration=2_000, shape=shape)  # type: ignore[arg-type]

    assert len(simulate(main, seed=3).calls) == pytest.approx(4_000, rel=0.5)


def test_a_workload_without_an_end_is_bounded() -> None:
    """Calls that never return are an error, not a hanging test."""

    async def never(number: int) -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(ExceptionGroup) as caught:
        simulate(lambda: workload(never, max_in_flight=50))
    assert caught.group_contains(TooManyInFlight)


def test_nothing_is_said_of_calls_that_were_not_made() -> None:
    """An assertion over an empty window would hold whatever the code does."""
    outcomes = Outcomes((Call(1.0, 2.0, None),))
    assert outcomes.availability(0, 5) == outcomes.quantile(0.5) == 1
    assert outcomes.errors == {}
    with pytest.raises(ValueError, match="no call began from 5 to 9 s"):
        outcomes.availability(5, 9)
    with pytest.raises(ValueError, match="of 0 calls"):
        Outcomes(()).quantile(0.5)
    with pytest.raises(ValueError, match="a share from 0 to 1"):
        outcomes.quantile(99)


def test_the_availability_is_of_the_window() -> None:
    """Calls count where they begin."""
    calls = [Call(at, at + 5.0, ServerError("a") if at == 3 else None) for at in range(10)]
    Random(1).shuffle(calls)
    outcomes = Outcomes(tuple(calls))
    assert (outcomes.availability(3, 4), outcomes.availability(4), outcomes.availability(2, 4)) == (
        0,
        1,
        0.5,
    )


def test_a_half_read_stream_is_found() -> None:
    """The attempt is named."""
    provider = SimulatedProvider(responder=LONG)

    async def main() -> None:
        await anext(await provider.stream(REQUEST))

    simulate(main)
    with pytest.raises(Unfinished, match="1 attempts were still running") as caught:
        check_finished(provider)
    assert caught.value.attempts == tuple(provider.ledger)


def test_what_has_ended_is_not_unfinished() -> None:
    """Answered, failed, closed, or given up by its caller."""
    provider = SimulatedProvider(
        responder=LONG,
        faults=[
            ErrorRate(start=5, duration=5),
            Hang(start=10, duration=5),
        ],
    )

    async def main() -> None:
        await provider.complete(REQUEST)
        await (await provider.stream(REQUEST)).aclose()
        await asyncio.sleep(5)
        with pytest.raises(ServerError):
            await provider.complete(REQUEST)
        await asyncio.sleep(5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await provider.complete(REQUEST)

    simulate(main)
    assert len(provider.ledger) == 4
    check_finished(provider)
