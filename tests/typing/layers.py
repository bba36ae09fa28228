"""The types of layers that others write; checked by mypy, never run."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, assert_type

from llm_patterns.chat import ChatModel, ChatRequest, ChatResponse, ChatStream
from llm_patterns.layers import Layer, LayeredModel, Timeout, compose

P = ParamSpec("P")
R = TypeVar("R")


def quietly(call: Callable[P, Awaitable[R]], /) -> Callable[P, Coroutine[Any, Any, R]]:
    """A function is a layer where it keeps the call's signature."""

    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        return await call(*args, **kwargs)

    return guarded


def forgetful(call: Callable[P, Awaitable[R]], /) -> Callable[P, Coroutine[Any, Any, None]]:
    """A function that loses the result is none."""

    async def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        await call(*args, **kwargs)

    return guarded


async def ask(question: str, *, times: int = 1) -> bytes:
    """Answer in bytes."""
    return question.encode() * times


async def signatures_pass_through(model: ChatModel, request: ChatRequest) -> None:
    """However many layers there are."""
    layer: Layer = quietly
    guarded = compose(layer, compose(quietly))(ask)
    assert_type(await guarded("why", times=2), bytes)
    await guarded(3)  # type: ignore[arg-type]
    assert_type(await compose(Timeout(3))(ask)("why"), bytes)
    compose(forgetful)  # type: ignore[arg-type]
    layered: ChatModel = LayeredModel(model, quietly)
    assert_type(await layered.complete(request), ChatResponse)
    assert_type(await layered.stream(request), ChatStream)
    LayeredModel(ask, quietly)  # type: ignore[arg-type]
