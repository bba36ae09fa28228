"""Real providers over HTTP, as `ChatModel`s.

They do one thing: send a request, and turn what comes back into this library's words. No retries, no
fallbacks, no budgets: those are layers around them.

```python
async with OpenAICompatibleChat("https://api.openai.com/v1", api_key=key, timeout=30) as model:
    answer = await model.complete(ChatRequest(model="gpt-5-mini", messages=(Message.user("Hi"),)))
```
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol, Self

import httpx

from llm_patterns.chat import ChatChunk, ChatRequest, ChatResponse, ChatStream
from llm_patterns.errors import (
    ConfigurationError,
    ConnectionFailed,
    ProviderError,
    RequestTimeout,
    ServerError,
)
from llm_patterns.providers import anthropic_format, openai_format
from llm_patterns.providers.sse import Decoder, Event
from llm_patterns.quotas import quotas_of

__all__ = ["AnthropicMessages", "HttpChat", "OpenAICompatibleChat", "Reader"]

_LIMITS: Final = httpx.Limits(max_connections=1000, max_keepalive_connections=100)
"""The pool of one client: the vendors' own SDKs allow as many."""

_DRAIN_TIMEOUT: Final = 1.0
"""Seconds to wait for the end of a body whose last event has come, so that the connection can be used again."""


class Reader(Protocol):
    """Turns the events of one stream into chunks; each format has its own."""

    finished: bool

    def read(self, event: Event) -> Iterable[ChatChunk]:
        """Return the chunks in *event*; raises `ProviderError` for an error sent mid-stream."""

    def end(self) -> Iterable[ChatChunk]:
        """Return the chunks that were held back until the end."""


class HttpChat(ABC):
    """A `ChatModel` over HTTP; its subclasses know a format.

    *timeout* is in seconds: for a whole answer, for a stream to open, and then between two of its
    chunks. *client* brings your own pool, proxy or transport, and stays yours to close; without it
    one is made, and closed by `aclose()` or `async with`.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        timeout: float,
        client: httpx.AsyncClient | None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError(f"base_url must begin with http:// or https://, not {url!r}")
        if not 0 < timeout < float("inf"):
            raise ConfigurationError(f"timeout is {timeout!r}; it must be above 0 and finite")
        self._url = url
        self._headers = {"content-type": "application/json", **headers}
        self._timeout = timeout
        self._client = client or httpx.AsyncClient(limits=_LIMITS)
        self._owns_client = client is None

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """Return the whole answer; raises `ProviderError`."""
        sent = self._request(self._encode(request, stream=False))
        async with _in_time(self._timeout, self._url):
            response = await self._client.send(sent)
        if not response.is_success:
            raise self._error(response)
        try:
            answer = self._decode(response.content)
        except ValueError as error:
            raise _unreadable(response, error) from error
        return answer.model_copy(update={"quotas": quotas_of(response)})

    async def stream(self, request: ChatRequest) -> ChatStream:
        """Return the answer as a stream, once its first chunk is there; raises `ProviderError`."""
        sent = self._request(self._encode(request, stream=True))
        async with _in_time(self._timeout, self._url):
            response = await self._client.send(sent, stream=True)
            try:
                return await self._open(response)
            except BaseException:
                await response.aclose()
                raise

    async def aclose(self) -> None:
        """Close the connections, if they are this object's own."""
        if self._owns_client:
            await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _request(self, body: bytes) -> httpx.Request:
        # One deadline governs all phases, so httpx's own time-outs, one for each phase, are off.
        return self._client.build_request(
            "POST", self._url, content=body, headers=self._headers, timeout=None
        )

    async def _open(self, response: httpx.Response) -> ChatStream:
        if not response.is_success:
            await response.aread()
            raise self._error(response)
        stream = _Stream(response, self._reader(), self._timeout)
        await stream.open()
        return stream

    @abstractmethod
    def _encode(self, request: ChatRequest, *, stream: bool) -> bytes: ...

    @abstractmethod
    def _decode(self, body: bytes) -> ChatResponse: ...

    @abstractmethod
    def _reader(self) -> Reader: ...

    @abstractmethod
    def _error(self, response: httpx.Response) -> ProviderError: ...


class OpenAICompatibleChat(HttpChat):
    """A `ChatModel` that speaks OpenAI's chat completions, as most other servers do too.

    *base_url* is what the vendor documents, such as `https://api.openai.com/v1`. Set *old_limit*
    for servers that know the limit of an answer only as `max_tokens`, its first name.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout: float = 60.0,
        old_limit: bool = False,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        super().__init__(
            f"{base_url.rstrip('/')}/chat/completions",
            {"authorization": f"Bearer {api_key}"},
            timeout=timeout,
            client=client,
        )
        self._old_limit = old_limit

    def _encode(self, request: ChatRequest, *, stream: bool) -> bytes:
        body = openai_format.RequestBody.of(request, stream=stream, old_limit=self._old_limit)
        return body.model_dump_json(exclude_none=True).encode()

    def _decode(self, body: bytes) -> ChatResponse:
        return openai_format.ResponseBody.model_validate_json(body).chat_response()

    def _reader(self) -> Reader:
        return openai_format.ChunkReader()

    def _error(self, response: httpx.Response) -> ProviderError:
        return openai_format.error_from(response.status_code, response.content, response.headers)


class AnthropicMessages(HttpChat):
    """A `ChatModel` that speaks Anthropic's Messages API.

    That API demands a limit for each answer: a request without `max_tokens` is sent with 4,096. A
    request with a temperature needs *version* "2023-06-01": the newer one refuses it.
    """

    def __init__(
        self,
        base_url: str = "https://api.anthropic.com",
        *,
        api_key: str,
        timeout: float = 60.0,
        version: anthropic_format.Version = anthropic_format.DEFAULT_VERSION,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        super().__init__(
            f"{base_url.rstrip('/')}/v1/messages",
            {"authorization": f"Bearer {api_key}", "anthropic-version": version},
            timeout=timeout,
            client=client,
        )
        self._version = version

    def _encode(self, request: ChatRequest, *, stream: bool) -> bytes:
        body = anthropic_format.RequestBody.of(request, stream=stream, version=self._version)
        return body.model_dump_json(exclude_none=True).encode()

    def _decode(self, body: bytes) -> ChatResponse:
        return anthropic_format.ResponseBody.model_validate_json(body).chat_response()

    def _reader(self) -> Reader:
        return anthropic_format.ChunkReader()

    def _error(self, response: httpx.Response) -> ProviderError:
        return anthropic_format.error_from(response.status_code, response.content, response.headers)


class _Stream:
    """The chunks of one answer, read from the body as they come. `quotas` is what its headers said."""

    def __init__(self, response: httpx.Response, reader: Reader, timeout: float) -> None:
        self.quotas = quotas_of(response)
        self._response = response
        self._body = response.aiter_bytes()
        self._reader = reader
        self._timeout = timeout
        self._decoder = Decoder()
        self._chunks: deque[ChatChunk] = deque()
        self._failure: ProviderError | None = None
        self._closed = False

    async def open(self) -> None:
        """Wait for the first chunk."""
        while not self._chunks and not self._reader.finished:
            if self._failure is not None:
                raise self._failure
            await self._read()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatChunk:
        if not self._chunks and not self._closed:
            await self._next()
        if not self._chunks:
            raise StopAsyncIteration
        return self._chunks.popleft()

    async def aclose(self) -> None:
        """Stop reading and free the connection."""
        self._closed = True
        self._chunks.clear()
        await self._response.aclose()

    async def _next(self) -> None:
        if self._reader.finished:
            await self._drain()
            return
        try:
            async with _in_time(self._timeout, str(self._response.url)):
                await self.open()
        except BaseException:
            await self.aclose()
            raise

    async def _read(self) -> None:
        piece = await anext(self._body, None)
        try:
            if piece is None:
                self._end()
            for event in self._decoder.feed(piece or b""):
                self._chunks.extend(self._reader.read(event))
        except ProviderError as error:
            self._failure = error  # told after the chunks that came before it
        except ValueError as error:
            self._failure = _unreadable(self._response, error)

    def _end(self) -> None:
        self._chunks.extend(self._reader.end())
        if not self._reader.finished:
            raise ConnectionFailed("the stream ended before the answer was whole")

    async def _drain(self) -> None:
        with suppress(TimeoutError, httpx.RequestError):
            async with asyncio.timeout(_DRAIN_TIMEOUT):
                async for _ in self._body:
                    pass
        await self.aclose()


@asynccontextmanager
async def _in_time(seconds: float, url: str) -> AsyncIterator[None]:
    """Bound what happens inside, and name its failures in this library's words."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except ProviderError:
        raise
    except (TimeoutError, httpx.TimeoutException) as error:
        raise RequestTimeout(f"no answer from {url} within {seconds:g} s") from error
    except httpx.RequestError as error:
        reason = str(error) or type(error).__name__
        raise ConnectionFailed(f"the connection to {url} failed: {reason}") from error


def _unreadable(response: httpx.Response, error: ValueError) -> ProviderError:
    return ServerError(
        f"{response.url} sent an answer that cannot be read: {error}",
        status_code=response.status_code,
        headers=response.headers,
    )
