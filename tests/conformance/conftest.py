"""Two ways to reach the simulated provider: a real server over loopback, and in process in virtual time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import httpx
import httpx2
import pytest
import uvicorn

from llm_patterns.simulation import SimulatedProvider, simulate
from llm_patterns.simulation.transport import SimulatedTransport
from llm_patterns.simulation.wire import AsgiApp, WireApp

T = TypeVar("T")


@dataclass
class Connection:
    """Where the provider is, and HTTP clients that reach it: ours is httpx, the SDKs' httpx2."""

    address: str
    transport: SimulatedTransport | None = None
    peers: set[object] = field(default_factory=set)
    """The addresses of the connections that the server has seen."""

    def httpx(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=self.transport)

    def httpx2(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=self.transport)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what the server does in its own time."""
        async with asyncio.timeout(5):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.001)


class Loopback:
    """A server on a free port, in the test's own loop."""

    virtual = False

    def run(
        self,
        provider: SimulatedProvider,
        use: Callable[[Connection], Awaitable[T]],
        **options: object,
    ) -> T:
        async def main() -> T:
            async with served(WireApp(provider, **options)) as connection:
                return await use(connection)

        return asyncio.run(main())


class Virtual:
    """The same application behind a transport; no socket, no waiting."""

    virtual = True

    def run(
        self,
        provider: SimulatedProvider,
        use: Callable[[Connection], Awaitable[T]],
        **options: object,
    ) -> T:
        transport = SimulatedTransport(provider, **options)
        return simulate(lambda: use(Connection("http://simulated", transport)))


@asynccontextmanager
async def served(app: WireApp) -> AsyncIterator[Connection]:
    """Serve *app* and yield the way to it."""
    peers, serve = set(), AsgiApp(app)

    async def counted(scope, receive, send) -> None:
        peers.add(scope.get("client"))
        await serve(scope, receive, send)

    config = uvicorn.Config(counted, port=0, log_config=None, timeout_graceful_shutdown=1)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()  # not serve(), whose loop would look for its end ten times a second
    peers.clear()  # the server asked for its own start
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Connection(f"http://127.0.0.1:{port}", peers=peers)
    finally:
        await asyncio.sleep(0.001)  # what the clients closed is seen closed
        await server.shutdown()


@pytest.fixture(params=[Loopback, Virtual], ids=["loopback", "virtual"])
def world(request: pytest.FixtureRequest) -> Loopback | Virtual:
    """Each of the two."""
    return request.param()
