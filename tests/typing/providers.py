"""The public types of the providers' clients and of the wire, as a reader's type checker sees them."""

from typing import assert_type

import httpx

from llm_patterns.chat import ChatModel, ChatRequest, ChatResponse, ChatStream, Usage
from llm_patterns.providers import AnthropicMessages, OpenAICompatibleChat
from llm_patterns.simulation import SimulatedProvider, improvised
from llm_patterns.simulation.provider import Stream
from llm_patterns.simulation.transport import SimulatedTransport
from llm_patterns.simulation.wire import AsgiApp, WireApp, WireRequest, WireResponse


async def use(request: ChatRequest) -> None:
    """Both clients are models, over a client of the caller's or one of their own."""
    provider = SimulatedProvider(responder=improvised(output_tokens=9))
    async with httpx.AsyncClient(transport=SimulatedTransport(provider)) as http:
        models: list[ChatModel] = [
            OpenAICompatibleChat("http://simulated/v1", "key", timeout=5, client=http),
            AnthropicMessages(api_key="key", version="2023-06-01", client=http),
            provider,
        ]
        for model in models:
            assert_type(await model.complete(request), ChatResponse)
            assert_type(await model.stream(request), ChatStream)
    async with OpenAICompatibleChat("http://simulated/v1", "key") as own:
        assert_type(own, OpenAICompatibleChat)
    assert_type(await provider.stream(request), Stream)
    assert_type(await provider.embed("small", ["text"]), tuple[list[list[float]], Usage])


async def serve(provider: SimulatedProvider, request: WireRequest) -> None:
    """The application is a function of a request, and fits ASGI servers."""
    app = WireApp(provider, api_key="key", max_body_bytes=1000)
    assert_type(await app(request), WireResponse)
    assert_type(AsgiApp(app), AsgiApp)
