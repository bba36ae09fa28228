"""Layers wrap any async callable, the first outermost."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import pytest

from llm_patterns.chat import ChatModel, ChatRequest, Message
from llm_patterns.errors import ConfigurationError, ErrorKind, failure_of
from llm_patterns.layers import LayeredModel, Timeout, compose
from llm_patterns.resilience import RetryPolicy, RetryWithBudget
from llm_patterns.simulation import ErrorRate, Hang, SimulatedProvider, simulate

P = ParamSpec("P")
R = TypeVar("R")
REQUEST = ChatRequest(model="any", messages=(Message.user("Hello"),))


class Noting:
    """A layer that notes when it is entered and left."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    def __call__(self, call: Callable[P, Awaitable[R]], /) -> Callable[P, Coroutine[Any, Any, R]]:
        """Return *call*, noted."""

        async def noted(*args: P.args, **kwargs: P.kwargs) -> R:
            self.notes.append(f"into {self.name}")
            try:
                return await call(*args, **kwargs)
            finally:
                self.notes.append(f"out of {self.name}")

        return noted


def test_the_first_layer_is_outermost() -> None:
    """It sees the call first and the result last."""
    notes: list[str] = []

    async def double(number: int) -> int:
        return 2 * number

    guarded = compose(Noting("a", notes), compose(Noting("b", notes)))(double)
    assert asyncio.run(guarded(21)) == 42
    assert notes == ["into a", "into b", "out of b", "out of a"]


def test_no_layers_change_nothing() -> None:
    """The empty composition passes the call on, under its own name."""

    async def answer() -> int:
        return 42

    guarded = compose()(answer)
    assert asyncio.run(guarded()) == 42
    assert guarded.__name__ == "answer"


def test_a_composition_tells_its_layers() -> None:
    """For a log or a debugger."""
    assert repr(compose(abs)) == "compose(<built-in function abs>)"  # type: ignore[arg-type]


def test_a_model_is_guarded_in_both_its_ways() -> None:
    """Whole answers, and the opening of streams."""

    async def main() -> tuple[str, str, int]:
        fault = ErrorRate(duration=0.2)
        provider = SimulatedProvider(faults=[fault])
        policy = RetryPolicy(deadline=60, initial_delay=1, jitter="none")
        model = LayeredModel(provider, RetryWithBudget(policy))
        assert isinstance(model, ChatModel)
        whole = await model.complete(REQUEST)
        streamed = [chunk.text async for chunk in await model.stream(REQUEST)]
        return whole.text, "".join(streamed), len(provider.ledger)

    assert simulate(main) == ("OK", "OK", 3)


def test_a_timeout_cuts_off_what_hangs() -> None:
    """After its seconds, as a time-out that any layer understands; the provider sees the caller go."""

    async def main() -> tuple[float, ErrorKind, bool]:
        provider = SimulatedProvider(faults=[Hang()])
        try:
            await Timeout(3)(provider.complete)(REQUEST)
        except TimeoutError as error:
            kind = failure_of(error).kind
        now = asyncio.get_running_loop().time()
        return now, kind, provider.ledger[0].abandoned

    assert simulate(main) == (3.0, ErrorKind.TIMEOUT, True)


def test_a_timeout_leaves_a_quick_call_alone() -> None:
    """The answer comes as it is, and so does an error."""

    async def main() -> str:
        provider = SimulatedProvider(faults=[ErrorRate(start=1, status_code=400)])
        bounded = Timeout(3)(provider.complete)
        answer = await bounded(REQUEST)
        await asyncio.sleep(1)
        with pytest.raises(Exception, match="simulated failure"):
            await bounded(REQUEST)
        return answer.text

    assert simulate(main) == "OK"


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_timeout_without_an_end_is_refused(seconds: float) -> None:
    """No time-out is no layer."""
    with pytest.raises(ConfigurationError, match="positive and finite"):
        Timeout(seconds)
