"""What a team would otherwise take: litellm's Router, pydantic-ai's FallbackModel, or ten lines of its own.

All of them, ours included, call the same two providers through the official OpenAI client over the wire format, in
process; where a client's own retries can be turned off they are, for they would only add to what is wasted. An attempt
may take 15 s, half of what the caller waits. The Router's cool-downs are compiled, and read the machine's clock, which
virtual time does not reach: it has to be measured as time passes.
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx
import httpx2
import openai

from llm_patterns.resilience import (
    BreakerPolicy,
    CircuitBreaker,
    FailoverPolicy,
    MultiProviderFailover,
    Target,
    TargetLimits,
)
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
    """One transport to several providers, each under its own name as the host."""

    def __init__(self) -> None:
        self._transports: dict[str, SimulatedTransport] = {}

    def add(self, providers: Providers) -> None:
        """Let it reach these too."""
        for each in providers.values():
            self._transports[each.name] = SimulatedTransport(each)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Hand the request to whom it is for."""
        return await self._transports[request.url.host].handle_async_request(request)


def http_client(hosts: Hosts) -> httpx2.AsyncClient:
    """Return the HTTP client that the SDK takes."""
    transport: Any = hosts  # of httpx by type; it serves httpx2 as well
    return httpx2.AsyncClient(transport=transport)


ROUTED = Hosts()
"""What the Routers reach: their HTTP client is one for the whole process."""


def sdks(providers: Providers) -> dict[str, openai.AsyncOpenAI]:
    """Return the OpenAI client of each provider, without retries of its own."""
    hosts = Hosts()
    hosts.add(providers)
    http = http_client(hosts)
    return {
        name: openai.AsyncOpenAI(
            api_key="any",
            base_url=f"http://{provider.name}/v1",
            http_client=http,
            timeout=ATTEMPT,
            max_retries=0,
        )
        for name, provider in providers.items()
    }


def with_failover(providers: Providers, quota: float) -> Ask:
    """Ours, with the spare's quota as its limit."""
    limits = TargetLimits(requests_per_minute=quota)
    return over(providers, [Target("primary"), Target("spare", limits=limits)])


def with_hasty_failover(providers: Providers, quota: float) -> Ask:
    """Ours, if it probes and ramps as soon as the Router cools down, and may use a minute's quota at once."""
    soon = CircuitBreaker(BreakerPolicy(open_time=5, max_open_time=5, ramp=5))
    limits = TargetLimits(requests_per_minute=quota, burst=60)
    return over(providers, [Target("primary", breaker=soon), Target("spare", limits=limits)])


def over(providers: Providers, targets: list[Target]) -> Ask:
    """A failover over the SDK's method at each provider."""
    creates = {name: sdk.chat.completions.create for name, sdk in sdks(providers).items()}
    ask = MultiProviderFailover(FailoverPolicy(deadline=PATIENCE), targets).over(creates)
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


def deployment(group: str, provider: SimulatedProvider, **params: Any) -> dict[str, Any]:
    """Return one of the Router's deployments."""
    url = f"http://{provider.name}/v1"
    address = {"model": "openai/small", "api_base": url, "api_key": "any"}
    return {"model_name": group, "litellm_params": address | params}


def with_router(providers: Providers, quota: float, **settings: Any) -> Ask:
    """litellm's, with the settings given."""
    litellm.suppress_debug_info = True
    ROUTED.add(providers)
    litellm.aclient_session = litellm.aclient_session or http_client(ROUTED)
    router = litellm.Router(timeout=ATTEMPT, num_retries=0, **settings)
    return lambda: router.acompletion(model="chat", messages=MESSAGES, max_tokens=200)


def with_router_fallbacks(providers: Providers, quota: float) -> Ask:
    """Two groups, the second as the fallback of the first: the example of its documentation."""
    models = [deployment("chat", providers["primary"]), deployment("spare", providers["spare"])]
    return with_router(providers, quota, model_list=models, fallbacks=[{"chat": ["spare"]}])


def with_router_order(providers: Providers, quota: float) -> Ask:
    """One group of two deployments in order, so that the first is cooled down; the spare's quota is enforced."""
    models = [
        deployment("chat", providers["primary"], order=1),
        deployment("chat", providers["spare"], order=2, rpm=int(quota)),
    ]
    checks = ["enforce_model_rate_limits"]
    return with_router(
        providers,
        quota,
        model_list=models,
        enable_pre_call_checks=True,
        optional_pre_call_checks=checks,
    )


IN_VIRTUAL_TIME: dict[str, Client] = {
    "MultiProviderFailover": with_failover,
    "MultiProviderFailover, hasty": with_hasty_failover,
    "try and except": with_try_except,
    "pydantic-ai FallbackModel": with_fallback_model,
}
IN_REAL_TIME: dict[str, Client] = {
    "litellm Router, fallbacks": with_router_fallbacks,
    "litellm Router, order and rpm": with_router_order,
}
