"""The provider as OpenAI's API: chat completions, embeddings, models, errors and headers."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncGenerator, Mapping, Sequence
from math import ceil
from typing import Final

from llm_patterns import clock
from llm_patterns.chat import ChatChunk
from llm_patterns.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    ErrorKind,
    ProviderError,
)
from llm_patterns.providers.openai_format import (
    DONE,
    ChunkBody,
    EmbeddingRequestBody,
    ErrorBody,
    RequestBody,
    ResponseBody,
)
from llm_patterns.providers.sse import encode
from llm_patterns.simulation.limits import RateLimitState
from llm_patterns.simulation.provider import SimulatedProvider, Stream
from llm_patterns.simulation.wire.dialect import Dialect, Handler, bearer_token, check_choice
from llm_patterns.simulation.wire.exchange import (
    BadRequest,
    StreamBody,
    WireRequest,
    WireResponse,
    parse,
)

__all__ = ["OpenAIDialect"]

DIMENSIONS: Final = 256
"""The length of an embedding, unless the request names one."""


class OpenAIDialect(Dialect):
    """What the API of OpenAI makes of a request."""

    def __init__(self, provider: SimulatedProvider) -> None:
        self._provider = provider

    @property
    def routes(self) -> Mapping[str, tuple[str, Handler]]:
        """Return the method and the handler of each path."""
        return {
            "/v1/chat/completions": ("POST", self._chat),
            "/v1/embeddings": ("POST", self._embeddings),
            "/v1/models": ("GET", self._models),
        }

    def check_key(self, headers: Mapping[str, str], api_key: str) -> None:
        """Raise `AuthenticationFailed` unless the bearer token is *api_key*."""
        given = bearer_token(headers)
        if not given:
            raise AuthenticationFailed(
                "no API key; send it as 'Authorization: Bearer KEY'", status_code=401
            )
        if given != api_key:
            raise AuthenticationFailed(
                f"incorrect API key: {_masked(given)}", status_code=401, code="invalid_api_key"
            )

    def refusal(self, error: ProviderError, request_id: str) -> tuple[int, bytes]:
        """Return the status and body of *error*."""
        param = error.param if isinstance(error, BadRequest) else None
        body = ErrorBody.of(error, param=param, kind=self._limit_hit(error))
        return error.status_code or 500, body.model_dump_json().encode()

    def headers(self, request_id: str, error: ProviderError | None) -> dict[str, str]:
        """Return what every answer carries."""
        headers = {"x-request-id": request_id, "openai-version": "2020-10-01"}
        state = self._provider.rate_limit_state()
        headers |= _limit_headers("requests", *_requests(state))
        headers |= _limit_headers("tokens", *_tokens(state))
        if error is not None and error.retry_after is not None:
            headers["retry-after"] = str(ceil(error.retry_after))
            headers["retry-after-ms"] = str(ceil(error.retry_after * 1000))
        return headers

    async def _chat(self, request: WireRequest) -> WireResponse:
        body = parse(RequestBody, request.body)
        asked = body.chat_request()
        check_choice(asked)
        if body.stream:
            stream = await self._provider.stream(asked, caller=asked.user or "")
            events = self._events(stream, asked.model, include_usage=body.include_usage)
            return WireResponse(200, _EVENTS, StreamBody(stream, events))
        response = await self._provider.complete(asked, caller=asked.user or "")
        answer = response.model_copy(update={"id": f"chatcmpl-{response.id}"})
        return _json(ResponseBody.of(answer, created=int(clock.now())).model_dump_json())

    async def _events(
        self, stream: Stream, model: str, *, include_usage: bool
    ) -> AsyncGenerator[bytes, None]:
        body = ChunkBody(id=f"chatcmpl-{stream.id}", created=int(clock.now()), model=model)
        try:
            yield encode(body.opening().to_json(include_usage=include_usage))
            chunk = ChatChunk()
            async for chunk in stream:
                yield encode(body.piece(chunk).to_json(include_usage=include_usage))
            if include_usage and chunk.usage is not None:
                yield encode(body.ending(chunk.usage).to_json(include_usage=True))
            yield encode(DONE)
        except ConnectionFailed:
            raise
        except ProviderError as error:
            yield encode(ErrorBody.of(error).model_dump_json())

    async def _embeddings(self, request: WireRequest) -> WireResponse:
        body = parse(EmbeddingRequestBody, request.body)
        vectors, usage = await self._provider.embed(
            body.model,
            body.texts,
            dimensions=body.dimensions or DIMENSIONS,
            caller=body.user or "",
        )
        packed = body.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _packed(v) if packed else v}
            for index, v in enumerate(vectors)
        ]
        count = usage.input_tokens
        counts = {"prompt_tokens": count, "total_tokens": count}
        answer = {"object": "list", "data": data, "model": body.model, "usage": counts}
        return _json(json.dumps(answer))

    async def _models(self, request: WireRequest) -> WireResponse:
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": self._provider.name}
            for name in self._provider.models or ()
        ]
        return _json(json.dumps({"object": "list", "data": models}))

    def _limit_hit(self, error: ProviderError) -> str | None:
        """Return which limit a 429 is about, `requests` or `tokens`."""
        state = self._provider.rate_limit_state()
        if error.kind is not ErrorKind.RATE_LIMITED:
            return None
        used_up = state.limit_requests is not None and state.remaining_requests < 1
        return "requests" if used_up or state.limit_tokens is None else "tokens"


_JSON: Final = {"content-type": "application/json"}
_EVENTS: Final = {"content-type": "text/event-stream; charset=utf-8"}


def _json(body: str) -> WireResponse:
    return WireResponse(200, _JSON, body.encode())


def _requests(state: RateLimitState) -> tuple[int | None, int, float]:
    return state.limit_requests, state.remaining_requests, state.reset_requests


def _tokens(state: RateLimitState) -> tuple[int | None, int, float]:
    return state.limit_tokens, state.remaining_tokens, state.reset_tokens


def _limit_headers(what: str, limit: int | None, remaining: int, reset: float) -> dict[str, str]:
    if limit is None:
        return {}
    return {
        f"x-ratelimit-limit-{what}": str(limit),
        f"x-ratelimit-remaining-{what}": str(remaining),
        f"x-ratelimit-reset-{what}": duration(reset),
    }


def duration(seconds: float) -> str:
    """Return *seconds* as this API writes them.

    >>> duration(0.0123), duration(1.5), duration(360), duration(3723)
    ('13ms', '1.5s', '6m0s', '1h2m3s')
    """
    if seconds < 1:
        return f"{ceil(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{f'{hours}h' if hours else ''}{f'{minutes}m' if hours or minutes else ''}{rest:g}s"


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _masked(key: str) -> str:
    return f"{key[:3]}...{key[-4:]}" if len(key) > 10 else "***"
