"""The provider as Anthropic's Messages API: answers, streams, errors and headers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from math import ceil
from typing import Final, get_args

from llm_patterns import clock
from llm_patterns.errors import AuthenticationFailed, ConnectionFailed, ProviderError
from llm_patterns.providers.anthropic_format import (
    WITH_TEMPERATURE,
    ChunkWriter,
    ErrorBody,
    RequestBody,
    ResponseBody,
    Version,
    status_of,
)
from llm_patterns.providers.sse import encode
from llm_patterns.simulation.provider import SimulatedProvider, Stream
from llm_patterns.simulation.wire.dialect import Dialect, Handler, bearer_token, check_choice
from llm_patterns.simulation.wire.exchange import (
    BadRequest,
    StreamBody,
    WireRequest,
    WireResponse,
    parse,
)

__all__ = ["AnthropicDialect"]

RETRIED: Final = frozenset({408, 409, 429})
"""Statuses below 500 at which this API tells clients to try again."""


class AnthropicDialect(Dialect):
    """What the API of Anthropic makes of a request."""

    def __init__(self, provider: SimulatedProvider) -> None:
        self._provider = provider

    @property
    def routes(self) -> Mapping[str, tuple[str, Handler]]:
        """Return the method and the handler of each path."""
        return {"/v1/messages": ("POST", self._messages)}

    def check_key(self, headers: Mapping[str, str], api_key: str) -> None:
        """Raise `AuthenticationFailed` unless `x-api-key`, or else the bearer token, is *api_key*."""
        given = headers.get("x-api-key") or bearer_token(headers)
        if not given:
            message = "no API key; send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"
            raise AuthenticationFailed(message, status_code=401)
        if given != api_key:
            raise AuthenticationFailed("invalid API key", status_code=401)

    def refusal(self, error: ProviderError, request_id: str) -> tuple[int, bytes]:
        """Return the status and body of *error*."""
        body = ErrorBody.of(error, request_id=request_id)
        return status_of(error), body.model_dump_json(exclude_none=True).encode()

    def headers(self, request_id: str, error: ProviderError | None) -> dict[str, str]:
        """Return what every answer carries."""
        state = self._provider.rate_limit_state()
        headers = {"request-id": request_id}
        for what, limit, remaining, reset in (
            ("requests", state.limit_requests, state.remaining_requests, state.reset_requests),
            ("tokens", state.limit_tokens, state.remaining_tokens, state.reset_tokens),
        ):
            if limit is not None:
                headers[f"anthropic-ratelimit-{what}-limit"] = str(limit)
                headers[f"anthropic-ratelimit-{what}-remaining"] = str(remaining)
                headers[f"anthropic-ratelimit-{what}-reset"] = _time_in(reset)
        if error is not None:
            headers["x-should-retry"] = str(_is_retried(error)).lower()
            if error.retry_after is not None:
                headers["retry-after"] = str(ceil(error.retry_after))
        return headers

    async def _messages(self, request: WireRequest) -> WireResponse:
        version = request.headers.get("anthropic-version")
        if version not in get_args(Version):
            known = ", ".join(get_args(Version))
            raise BadRequest(f"anthropic-version: must be one of {known}, not {version}")
        body = parse(RequestBody, request.body)
        if body.temperature is not None and version != WITH_TEMPERATURE:
            raise BadRequest("temperature: extra inputs are not permitted", param="temperature")
        asked = body.chat_request()
        check_choice(asked)
        if body.stream:
            stream = await self._provider.stream(asked, caller=asked.user or "")
            events = self._events(stream, asked.model)
            return WireResponse(200, _EVENTS, StreamBody(stream, events))
        response = await self._provider.complete(asked, caller=asked.user or "")
        answer = ResponseBody.of(response.model_copy(update={"id": f"msg_{response.id}"}))
        return WireResponse(200, _JSON, answer.model_dump_json().encode())

    async def _events(self, stream: Stream, model: str) -> AsyncGenerator[bytes, None]:
        writer = ChunkWriter(f"msg_{stream.id}", model, stream.usage)
        try:
            yield writer.opening()
            async for chunk in stream:
                yield writer.piece(chunk)
        except ConnectionFailed:
            raise
        except ProviderError as error:
            yield encode(ErrorBody.of(error).model_dump_json(exclude_none=True), "error")


_JSON: Final = {"content-type": "application/json"}
_EVENTS: Final = {"content-type": "text/event-stream; charset=utf-8"}


def _time_in(seconds: float) -> str:
    """Return the time of day in *seconds*, as RFC 3339 has it."""
    at = datetime.fromtimestamp(ceil(clock.now() + seconds), UTC)
    return at.isoformat().replace("+00:00", "Z")


def _is_retried(error: ProviderError) -> bool:
    status = status_of(error)
    return status >= 500 or status in RETRIED
