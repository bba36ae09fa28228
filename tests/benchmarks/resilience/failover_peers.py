"""What a team would otherwise take: litellm's Router, pydantic-ai's FallbackModel, or ten lines of its own.

All of them, ours included, call the same two providers through the official OpenAI client over the wire format, in
process; where a client's own retries can be turned off they are, for they would only add to what is wasted. An attempt
may take 15 s, half of what the caller waits. The Router measures by the machine's clock: see `virtual_clock`.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import httpx
import httpx2
import openai

from llm_patterns.clock import World
from llm_patterns.resilience import FailoverPolicy, MultiProviderFailover, Target, TargetLimits
from llm_patterns.simulation import SimulatedProvider
from llm_patterns.simulation.transport import SimulatedTransport

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else its import asks the network

import litellm
from pydantic_ai.direct import model_request
from pydantic_ai.messages import ModelRequest
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

PATIENCE = 30.0
ATTEMPT = 15.0
MESSAGES: Any = [{"role": "user", "content": "Hello"}]

Ask = Callable[[], Awaitable[object]]
Providers = Mapping[str, SimulatedProvider]
Client = Callable[[Providers, float], Ask]
"""Makes a call from the providers `primary` and `spare`, and the spare's quota in requests a minute."""


class Hosts(httpx.AsyncBaseTransport):
    """One transport to several providers, each under its name as the host."""

    def __init__(self, providers: Providers) -> None:
        self._transports = {name: SimulatedTransport(each) for name, each in providers.items()}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Hand the request to whom it is for."""
        return await self._transports[request.url.host].handle_async_request(request)


def http_client(providers: Providers) -> httpx2.AsyncClient:
    """Return the HTTP client that the SDK takes."""
    transport: Any = Hosts(providers)  # of httpx by type; it serves httpx2 as well
    return httpx2.AsyncClient(transport=transport)


def sdks(providers: Providers) -> dict[str, openai.AsyncOpenAI]:
    """Return the OpenAI client of each provider, without retries of its own."""
    http = http_client(providers)
    return {
        name: openai.AsyncOpenAI(
            api_key="any",
            base_url=f"http://{name}/v1",
            http_client=http,
            timeout=ATTEMPT,
            max_retries=0,
        )
        for name in providers
    }


def with_failover(providers: Providers, quota: float) -> Ask:
    """Ours, with the spare's quota as its limit."""
    creates = {name: sdk.chat.completions.create for name, sdk in sdks(providers).items()}
    spare = Target("spare", limits=TargetLimits(requests_per_minute=quota))
    failover = MultiProviderFailover(FailoverPolicy(deadline=PATIENCE), [Target("primary"), spare])
    ask = failover.over(creates)
    return lambda: ask(model="small", messages=MESSAGES, max_tokens=200)


def with_try_except(providers: Providers, quota: float) -> Ask:
    """The second provider in an `except`."""
    clients = sdks(providers)

    async def ask() -> object:
        try:
            return await clients["primary"].chat.completions.create(
                model="small", messages=MESSAGES, max_tokens=200
            )
        except openai.OpenAIError:
            return await clients["spare"].chat.completions.create(
                model="small", messages=MESSAGES, max_tokens=200
            )

    return ask


def with_fallback_model(providers: Providers, quota: float) -> Ask:
    """pydantic-ai's, as its documentation shows it."""
    models = [
        OpenAIChatModel("small", provider=OpenAIProvider(openai_client=client))
        for client in sdks(providers).values()
    ]
    both = FallbackModel(*models)
    messages: Any = [ModelRequest.user_text_prompt("Hello")]
    return lambda: model_request(both, messages, model_settings={"max_tokens": 200})


def deployment(group: str, host: str, **params: Any) -> dict[str, Any]:
    """Return one of the Router's deployments."""
    address = {"model": "openai/small", "api_base": f"http://{host}/v1", "api_key": "any"}
    return {"model_name": group, "litellm_params": address | params}


def with_router(providers: Providers, quota: float, **settings: Any) -> Ask:
    """litellm's, with the settings given."""
    litellm.suppress_debug_info = True
    litellm.aclient_session = http_client(providers)  # type: ignore[assignment]
    router = litellm.Router(timeout=ATTEMPT, num_retries=0, **settings)
    return lambda: router.acompletion(model="chat", messages=MESSAGES, max_tokens=200)


def with_router_fallbacks(providers: Providers, quota: float) -> Ask:
    """Two groups, the second as the fallback of the first: the example of its documentation."""
    models = [deployment("chat", "primary"), deployment("spare", "spare")]
    return with_router(providers, quota, model_list=models, fallbacks=[{"chat": ["spare"]}])


def with_router_order(providers: Providers, quota: float) -> Ask:
    """One group of two deployments in order, so that the first is cooled down; the spare's quota is enforced."""
    models = [
        deployment("chat", "primary", order=1),
        deployment("chat", "spare", order=2, rpm=int(quota)),
    ]
    checks = ["enforce_model_rate_limits"]
    return with_router(
        providers,
        quota,
        model_list=models,
        enable_pre_call_checks=True,
        optional_pre_call_checks=checks,
    )


PEERS: dict[str, Client] = {
    "try and except": with_try_except,
    "pydantic-ai FallbackModel": with_fallback_model,
    "litellm Router, fallbacks": with_router_fallbacks,
    "litellm Router, order and rpm": with_router_order,
}


@contextmanager
def virtual_clock() -> Iterator[None]:
    """Let the Router see virtual time: its caches and cool-downs read `time.time`, wherever it is imported."""
    real = time.time

    def now() -> float:
        loop: object = asyncio._get_running_loop()
        return loop.wall_time() if isinstance(loop, World) else real()

    with patch("time.time", now):
        yield
