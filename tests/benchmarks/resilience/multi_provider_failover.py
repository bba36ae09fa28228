"""What a call costs whose first choice answers at once: an awaited function that does nothing, beside the peers'.

Of the peers only pydantic-ai's FallbackModel can be asked without a wire: over two of its own models that do nothing.
The Router always makes an HTTP request, so its cost is that of the client's whole stack; it is measured over httpx's
own answering transport, and so is the SDK without it, to subtract.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any

import httpx2
import openai
from pydantic_ai.direct import model_request
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import FunctionModel

from course.benchmarks import Row
from llm_patterns.chat import ChatRequest, ChatResponse, ChatStream, Message
from llm_patterns.resilience import (
    BreakerPolicy,
    CircuitBreaker,
    FailoverPolicy,
    MultiProviderFailover,
    Target,
)
from tests.benchmarks.resilience.failover_peers import MESSAGES, litellm
from tests.benchmarks.rounds import interleaved, middle, ratio

PEERS = ("litellm", "pydantic-ai-slim", "openai")
ROUNDS = 15
CALLS = 5_000
SLOW_CALLS = 50
OURS = "MultiProviderFailover, any callable"
REQUEST = ChatRequest(model="small", messages=(Message.user("Hello"),))
RESPONSE = ChatResponse(id="1", model="small", text="OK")
COMPLETION = {
    "id": "1",
    "object": "chat.completion",
    "created": 0,
    "model": "small",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "OK"}}
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}

Call = Callable[[], Awaitable[object]]


class Nothing:
    """A model that answers at once."""

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """Return the same answer each time."""
        return RESPONSE

    async def stream(self, request: ChatRequest) -> ChatStream:
        """Not measured."""
        raise NotImplementedError


async def nothing() -> None:
    """Do nothing."""


async def timed() -> None:
    """Do nothing, under the time limit that every attempt needs."""
    async with asyncio.timeout(30):
        await nothing()


def layers() -> dict[str, Call]:
    """Return `nothing`, bare and behind each layer, and a model that answers at once, likewise."""
    policy = FailoverPolicy(deadline=30)
    over = MultiProviderFailover(policy, [Target("a"), Target("b")])
    models = MultiProviderFailover(policy, [Target("a", Nothing()), Target("b", Nothing())])
    renamed = [Target(name, Nothing(), model_name=name) for name in "ab"]

    async def answer(messages: Any, info: Any) -> ModelResponse:
        return ModelResponse(parts=[TextPart("OK")])

    one, two = FunctionModel(answer), FunctionModel(answer)
    hello: Any = [ModelRequest.user_text_prompt("Hello")]
    return {
        "no layer": nothing,
        "asyncio.timeout": timed,
        "CircuitBreaker": CircuitBreaker(BreakerPolicy())(nothing),
        OURS: over.over({"a": nothing, "b": nothing}),
        "MultiProviderFailover, chat model": partial(models.complete, REQUEST),
        "MultiProviderFailover, chat model renamed": partial(
            MultiProviderFailover(policy, renamed).complete, REQUEST
        ),
        "pydantic-ai model": partial(model_request, one, hello),
        "pydantic-ai FallbackModel": partial(model_request, FallbackModel(one, two), hello),
    }


def stacks() -> dict[str, Call]:
    """Return the SDK's call over a transport that answers at once, and the Router's."""
    http = httpx2.AsyncClient(
        transport=httpx2.MockTransport(lambda request: httpx2.Response(200, json=COMPLETION))
    )
    sdk = openai.AsyncOpenAI(api_key="any", base_url="http://any/v1", http_client=http)
    litellm.aclient_session = http  # type: ignore[assignment]
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    params = {"model": "openai/small", "api_base": "http://any/v1", "api_key": "any"}
    models = [{"model_name": name, "litellm_params": params} for name in ("chat", "spare")]
    router = litellm.Router(model_list=models, fallbacks=[{"chat": ["spare"]}])
    return {
        "openai SDK": partial(sdk.chat.completions.create, model="small", messages=MESSAGES),
        "litellm Router": partial(router.acompletion, model="chat", messages=MESSAGES),
    }


async def microseconds(call: Call, calls: int) -> float:
    """Return the time of one call, averaged over many."""
    start = perf_counter()
    for _ in range(calls):
        await call()
    return (perf_counter() - start) / calls * 1e6


def measure() -> list[Row]:
    """Return the microseconds of a call behind each layer, and how many times ours that is."""
    with asyncio.Runner() as runner:
        subjects = {
            name: partial(lambda call, many: runner.run(microseconds(call, many)), call, many)
            for calls, many in ((layers(), CALLS), (stacks(), SLOW_CALLS))
            for name, call in calls.items()
        }
        samples = interleaved(subjects, rounds=ROUNDS)
    return [
        {
            "Layer": name,
            "Times ours": ratio(samples, name, OURS),
            **middle(samples[name]),
            "Unit": "µs a call",
        }
        for name in samples
    ]
