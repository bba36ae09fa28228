"""How patterns compose: a layer takes an async callable and returns one of the same signature.

The idea is that of Finagle's filters (Eriksen, "Your Server as a Function", PLOS 2013) and Tower's
layers. Because the unit is any async callable, a pattern guards a vendor SDK's method exactly as it
guards a `ChatModel`:

>>> import asyncio
>>> def shout(call):
...     async def shouting(text):
...         return (await call(text)).upper()
...     return shouting
>>> async def greet(name):
...     return f"hello {name}"
>>> asyncio.run(compose(shout)(greet)("reader"))
'HELLO READER'
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

from llm_patterns.chat import ChatModel, ChatRequest, ChatResponse, ChatStream
from llm_patterns.errors import ConfigurationError

__all__ = ["Layer", "LayeredModel", "Timeout", "compose"]

P = ParamSpec("P")
R = TypeVar("R")


class Layer(Protocol):
    """Something that wraps an async callable and keeps its signature."""

    def __call__(self, call: Callable[P, Awaitable[R]], /) -> Callable[P, Coroutine[Any, Any, R]]:
        """Return *call*, guarded."""


class _Composed:
    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self._layers = layers

    def __call__(self, call: Callable[P, Awaitable[R]], /) -> Callable[P, Coroutine[Any, Any, R]]:
        @wraps(call)
        async def innermost(*args: P.args, **kwargs: P.kwargs) -> R:
            return await call(*args, **kwargs)

        guarded: Callable[P, Coroutine[Any, Any, R]] = innermost
        for layer in reversed(self._layers):
            guarded = layer(guarded)
        return guarded

    def __repr__(self) -> str:
        return f"compose({', '.join(map(repr, self._layers))})"


def compose(*layers: Layer) -> Layer:
    """Return one layer made of *layers*; the first is outermost and sees the call first."""
    return _Composed(layers)


class Timeout:
    """A layer that cuts a call off after *seconds*, with a `TimeoutError`.

    Innermost, it bounds one attempt; outermost, everything inside it. What a provider does of the answer by then may
    be billed all the same.
    """

    def __init__(self, seconds: float) -> None:
        if not 0 < seconds < float("inf"):
            raise ConfigurationError(
                f"the time-out is {seconds} s; it must be positive and finite, or the layer left out"
            )
        self.seconds = seconds

    def __call__(self, call: Callable[P, Awaitable[R]], /) -> Callable[P, Coroutine[Any, Any, R]]:
        """Return *call*, bounded."""

        @wraps(call)
        async def bounded(*args: P.args, **kwargs: P.kwargs) -> R:
            async with asyncio.timeout(self.seconds):
                return await call(*args, **kwargs)

        return bounded

    def __repr__(self) -> str:
        return f"Timeout({self.seconds:g})"


class LayeredModel:
    """A `ChatModel` whose calls, and whose streams' openings, pass through the same layers.

    What happens after a stream's first chunk is not the layers' business.
    """

    def __init__(self, model: ChatModel, *layers: Layer) -> None:
        layer = compose(*layers)
        self._complete = layer(model.complete)
        self._stream = layer(model.stream)

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """Return the whole answer to *request*."""
        return await self._complete(request)

    async def stream(self, request: ChatRequest) -> ChatStream:
        """Return the answer as a stream, once its first chunk is there."""
        return await self._stream(request)
