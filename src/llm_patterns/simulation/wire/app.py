"""The simulated provider as a web application without a web server: a request in, an answer out.

`SimulatedTransport` puts it behind an HTTP client in the same process, in virtual time; `AsgiApp`
behind a real server. It speaks OpenAI's format and Anthropic's at once, each at its own paths.
"""

from __future__ import annotations

from itertools import count
from typing import Final

from llm_patterns.errors import ConfigurationError, ConnectionFailed, InvalidRequest, ProviderError
from llm_patterns.simulation.provider import SimulatedProvider
from llm_patterns.simulation.wire.anthropic import AnthropicDialect
from llm_patterns.simulation.wire.dialect import Dialect, Handler
from llm_patterns.simulation.wire.exchange import BrokenBody, WireRequest, WireResponse
from llm_patterns.simulation.wire.openai import OpenAIDialect

__all__ = ["WireApp"]

MAX_BODY_BYTES: Final = 32 * 2**20
"""The largest request: 32 MB, as Anthropic documents for its Messages API."""


class WireApp:
    """*provider* on the wire. With an *api_key*, requests must bring it.

    The attempts stand in the provider's ledger under the name of the request's `user`
    (`metadata.user_id` in Anthropic's format).
    """

    def __init__(
        self,
        provider: SimulatedProvider,
        *,
        api_key: str | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        if max_body_bytes < 1:
            raise ConfigurationError(f"max_body_bytes is {max_body_bytes}; it must be at least 1")
        self.max_body_bytes = max_body_bytes
        self._api_key = api_key
        self._openai = OpenAIDialect(provider)
        self._anthropic = AnthropicDialect(provider)
        self._ids = count(1)

    async def __call__(self, request: WireRequest) -> WireResponse:
        """Return the answer to *request*; whatever is wrong with it is an answer too."""
        dialect = self._dialect(request)
        request_id = f"req_{next(self._ids)}"
        try:
            handler = self._route(dialect, request)
            self._check_size(request)
            if self._api_key is not None:
                dialect.check_key(request.headers, self._api_key)
            response = await handler(request)
        except ConnectionFailed:
            headers = {"content-length": "1", **dialect.headers(request_id, None)}
            return WireResponse(200, headers, BrokenBody())
        except ProviderError as error:
            status, body = dialect.refusal(error, request_id)
            headers = {"content-type": "application/json", **dialect.headers(request_id, error)}
            return WireResponse(status, headers, body)
        headers = {**response.headers, **dialect.headers(request_id, None)}
        return WireResponse(response.status_code, headers, response.body)

    def _dialect(self, request: WireRequest) -> Dialect:
        theirs = "anthropic-version" in request.headers or request.path in self._anthropic.routes
        return self._anthropic if theirs else self._openai

    def _route(self, dialect: Dialect, request: WireRequest) -> Handler:
        if request.path not in dialect.routes:
            raise InvalidRequest(f"there is no {request.path}", status_code=404)
        method, handler = dialect.routes[request.path]
        if request.method != method:
            raise InvalidRequest(
                f"{request.path} does not take {request.method}; use {method}", status_code=405
            )
        return handler

    def _check_size(self, request: WireRequest) -> None:
        if len(request.body) > self.max_body_bytes:
            raise InvalidRequest(
                f"the request is larger than {self.max_body_bytes} bytes",
                status_code=413,
                code="request_too_large",
            )
