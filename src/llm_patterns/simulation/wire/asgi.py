"""The application for a real web server, by ASGI, the interface that Python's servers share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import cast

from llm_patterns.errors import ConnectionFailed
from llm_patterns.simulation.wire.app import WireApp
from llm_patterns.simulation.wire.exchange import WireRequest, WireResponse

__all__ = ["AsgiApp"]

Event = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


class AsgiApp:
    """*app* as ASGI servers want it (https://asgi.readthedocs.io/en/latest/specs/www.html).

    A client that hangs up cancels its request in the provider. Where the provider breaks the
    connection, the answer stays incomplete, at which the server closes it.
    """

    def __init__(self, app: WireApp) -> None:
        self._app = app

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the server's start and stop."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Event, receive: Receive, send: Send) -> None:
        body = await self._body(receive)
        if body is None:
            return
        answering = asyncio.create_task(self._answer(_request(scope, body), send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            answering.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)
        if not answering.cancelled():
            answering.result()

    async def _answer(self, request: WireRequest, send: Send) -> None:
        response = await self._app(request)
        await send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": _headers(response),
            }
        )
        if isinstance(response.body, bytes):
            await send({"type": "http.response.body", "body": response.body})
            return
        try:
            async for piece in response.body:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body"})
        except ConnectionFailed:
            return
        finally:
            await response.body.aclose()

    async def _body(self, receive: Receive) -> bytes | None:
        """Return the body, cut one byte after what is allowed, or None if the client left."""
        body = b""
        while len(body) <= self._app.max_body_bytes:
            event = await receive()
            if event["type"] == "http.disconnect":
                return None
            body += cast(bytes, event.get("body", b""))
            if not event.get("more_body", False):
                break
        return body[: self._app.max_body_bytes + 1]


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def _request(scope: Mapping[str, object], body: bytes) -> WireRequest:
    headers = cast(Iterable[tuple[bytes, bytes]], scope["headers"])
    return WireRequest(
        method=cast(str, scope["method"]),
        path=cast(str, scope["path"]),
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in headers},
        body=body,
    )


def _headers(response: WireResponse) -> list[tuple[bytes, bytes]]:
    headers = dict(response.headers)
    if isinstance(response.body, bytes):
        headers["content-length"] = str(len(response.body))
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
