"""The simulated provider behind an HTTP client, in the same process and in virtual time.

```python
client = httpx.AsyncClient(transport=SimulatedTransport(provider))
model = OpenAICompatibleChat("http://simulated/v1", api_key="any", client=client)
```

The vendors' own SDKs take such a client too (`http_client=`), so that code which calls them is run
as it is: the bytes are those of the wire, and an hour of them takes a second.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

import httpx

from llm_patterns.errors import ConnectionFailed
from llm_patterns.simulation.provider import SimulatedProvider
from llm_patterns.simulation.wire.app import MAX_BODY_BYTES, WireApp
from llm_patterns.simulation.wire.exchange import Body, WireRequest, WireResponse

__all__ = ["SimulatedTransport"]


class SimulatedTransport(httpx.AsyncBaseTransport):
    """A transport whose other end is *provider*, whatever the host of the address.

    It serves clients of httpx and of httpx2, its continuation, on which the SDKs of OpenAI and
    Anthropic build. The client's read time-out holds, in the loop's time; the other time-outs have
    nothing to wait for here.
    """

    def __init__(
        self,
        provider: SimulatedProvider,
        *,
        api_key: str | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._app = WireApp(provider, api_key=api_key, max_body_bytes=max_body_bytes)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the provider's answer, once its headers are there."""
        library = _library(type(request))
        read_timeout = request.extensions.get("timeout", {}).get("read")
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = WireRequest(request.method, request.url.path, headers, await request.aread())
        try:
            async with asyncio.timeout(read_timeout):
                answer = await self._app(asked)
        except TimeoutError as error:
            raise library.ReadTimeout("no answer in time", request=request) from error
        return _response(library, request, answer, read_timeout)


def _response(
    library: Any, request: httpx.Request, answer: WireResponse, read_timeout: float | None
) -> httpx.Response:
    if isinstance(answer.body, bytes):
        response = library.Response(answer.status_code, headers=answer.headers, content=answer.body)
    else:
        stream = _stream_class(library)(library, request, answer.body, read_timeout)
        response = library.Response(answer.status_code, headers=answer.headers, stream=stream)
    return response  # type: ignore[no-any-return]


class _BodyStream:
    """A body as the client reads it, in the client's own errors."""

    def __init__(
        self, library: Any, request: httpx.Request, body: Body, read_timeout: float | None
    ) -> None:
        self._library = library
        self._request = request
        self._body = body
        self._read_timeout = read_timeout

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while (piece := await self._next()) is not None:
                yield piece
        except TimeoutError as error:
            raise self._library.ReadTimeout("no more in time", request=self._request) from error
        except ConnectionFailed as error:
            raise self._library.RemoteProtocolError(str(error), request=self._request) from error

    async def aclose(self) -> None:
        await self._body.aclose()

    async def _next(self) -> bytes | None:
        async with asyncio.timeout(self._read_timeout):
            return await anext(self._body, None)


def _library(kind: type[object]) -> Any:
    """Return the client library that *kind* belongs to."""
    return importlib.import_module(kind.__module__.partition(".")[0])


@cache
def _stream_class(library: Any) -> type[_BodyStream]:
    return type("_LibraryStream", (_BodyStream, library.AsyncByteStream), {})
