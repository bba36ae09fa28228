"""The fallback libraries that a team would otherwise take, each over the same levels with the same time-outs.

Each is as its documentation shows it: hyx with its own time-outs, pyresilience with its time-out, bulkhead and breaker,
pydantic-ai's `FallbackModel` over function models with a `request_timeout` each. None has one deadline for all; where
the time-outs add up to less than the users' patience, as here, that does not show.

pyresilience hands its fallback the error and not the arguments, so the question reaches it by a context variable; and
its breaker reads the machine's clock (see `virtual_clock`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple
from unittest.mock import patch

from hyx.fallback import fallback
from hyx.timeout import timeout
from pydantic_ai.direct import model_request
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.settings import ModelSettings
from pyresilience import (
    BulkheadConfig,
    CircuitBreakerConfig,
    FallbackConfig,
    TimeoutConfig,
    resilient,
)

from llm_patterns.resilience import (
    BreakerPolicy,
    CircuitBreaker,
    DegradationPolicy,
    Dimmer,
    DimmerPolicy,
    GracefulDegradation,
    Level,
    LevelPolicy,
)

Ask = Callable[[int], Awaitable[str]]
DEADLINE = 12.0


class Step(NamedTuple):
    """A level for all of them: its call, the seconds that it may take, and the calls at once that it can bear."""

    name: str
    call: Ask
    timeout: float = 5.0
    max_in_flight: int = 100


Ladder = Callable[[Sequence[Step]], Ask]
"""Makes one call of several steps."""


def loop_time() -> float:
    """Return the running loop's time."""
    return asyncio.get_running_loop().time()


def ours(steps: Sequence[Step]) -> Ask:
    """`GracefulDegradation`: a breaker on each model, and a dimmer on the first."""
    *models, last = steps
    levels: list[Level[int, str]] = [
        Level(
            step.name,
            step.call,
            _policy(step),
            CircuitBreaker(BreakerPolicy(open_time=10, max_open_time=30)),
            Dimmer(DimmerPolicy(target=0.75 * step.timeout)) if step is steps[0] else None,
        )
        for step in models
    ]
    levels.append(Level(last.name, last.call, _policy(last)))
    ladder = GracefulDegradation(DegradationPolicy(deadline=DEADLINE), levels, not_now="not now")

    async def ask(question: int) -> str:
        return (await ladder.call(question)).value

    return ask


def _policy(step: Step) -> LevelPolicy:
    return LevelPolicy(
        quality=0.5,
        reserve=step.timeout / 2,
        timeout=step.timeout,
        max_in_flight=step.max_in_flight,
    )


def with_hyx(steps: Sequence[Step]) -> Ask:
    """`@fallback` around `@timeout`, one step within the other's fallback."""
    (_, call, seconds, _), *rest = steps
    guarded: Any = timeout(seconds)(call)
    if not rest:
        return guarded
    below = with_hyx(rest)

    async def handler(error: object, question: int) -> str:
        return await below(question)

    return fallback(handler)(guarded)


def with_pyresilience(steps: Sequence[Step]) -> Ask:
    """`@resilient` with time-out, bulkhead, circuit breaker and fallback, one step within the other's fallback."""
    asked: ContextVar[int] = ContextVar("asked")

    def guarded(steps: Sequence[Step]) -> Callable[[], Awaitable[str]]:
        (_, call, seconds, cap), *rest = steps

        async def ask() -> str:
            return await call(asked.get())

        if not rest:
            return ask
        below = guarded(rest)

        async def handler(error: Exception) -> str:
            return await below()

        options: dict[str, Any] = {
            "timeout": TimeoutConfig(seconds=seconds),
            "circuit_breaker": CircuitBreakerConfig(),
            "bulkhead": BulkheadConfig(max_concurrent=cap),
            "fallback": FallbackConfig(handler=handler),
        }
        return resilient(**options)(ask)

    first = guarded(steps)

    async def ask(question: int) -> str:
        asked.set(question)
        return await first()

    return ask


def with_pydantic_ai(steps: Sequence[Step]) -> Ask:
    """`FallbackModel` over a function model for each step, asked directly."""
    model = FallbackModel(*map(_function_model, steps), fallback_on=(Exception,))

    async def ask(question: int) -> str:
        request = ModelRequest.user_text_prompt(str(question))
        response = await model_request(model, [request])
        (part,) = response.parts
        assert isinstance(part, TextPart)
        return part.content

    return ask


def _function_model(step: Step) -> FunctionModel:
    async def function(messages: list[ModelMessage], info: object) -> ModelResponse:
        (request,) = messages
        (part,) = request.parts
        return ModelResponse(parts=[TextPart(await step.call(int(str(part.content))))])

    settings = ModelSettings(request_timeout=step.timeout)
    return FunctionModel(function, model_name=step.name, settings=settings)


def alone(steps: Sequence[Step]) -> Ask:
    """The first step and nothing else."""
    return steps[0].call


def capped(steps: Sequence[Step], *, cap: int = 20) -> Ask:
    """The first step, or nothing where *cap* calls are in flight: load shedding that knows the capacity."""
    free = cap

    async def ask(question: int) -> str:
        nonlocal free
        if not free:
            raise ConnectionRefusedError
        free -= 1
        try:
            return await steps[0].call(question)
        finally:
            free += 1

    return ask


LADDERS: dict[str, Ladder] = {
    "GracefulDegradation": ours,
    "hyx": with_hyx,
    "pyresilience": with_pyresilience,
    "pydantic-ai": with_pydantic_ai,
    "no fallback": alone,
    "no fallback, load shedding": capped,
}


@contextmanager
def virtual_clock() -> Iterator[None]:
    """Let pyresilience's breaker see virtual time: it reads `time.monotonic` and has no seam for another clock."""
    with patch("pyresilience._circuit_breaker._monotonic", loop_time):
        yield
