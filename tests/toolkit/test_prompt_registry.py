"""The registry: what every store does, on the one in memory; and what readers get while a store is away."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from llm_patterns.errors import ConfigurationError, StoreUnavailable
from llm_patterns.simulation import simulate
from llm_patterns.toolkit import (
    LabelMove,
    MemoryPromptStore,
    Prompt,
    PromptNotFound,
    PromptRegistry,
    PromptSave,
    RegistryEvent,
    RegistryPolicy,
    ServedPrompt,
    StaleServed,
    prompt_registry,
)
from tests.toolkit.prompt_cases import CASES, FIRST, saved
from tests.toolkit.prompt_invariants import (
    READERS_PROMISES,
    READINGS,
    SCHEDULES,
    WRITERS_PROMISES,
    Distant,
    read_all,
    write_all,
)


def name_of(promise: Callable[..., Any]) -> str:
    """As pytest shows it."""
    return str(promise.__name__)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_in_memory(case: Callable[[PromptRegistry], Awaitable[None]]) -> None:
    """What every store does."""
    simulate(lambda: case(PromptRegistry(MemoryPromptStore())))  # type: ignore[arg-type, return-value]


@settings(max_examples=300)
@given(SCHEDULES)
def test_a_store_keeps_its_promises_whatever_writers_do(schedule: list[dict[str, Any]]) -> None:
    """On random saves, moves and rollbacks."""
    seen = simulate(lambda: write_all(MemoryPromptStore(), schedule))
    for holds in WRITERS_PROMISES:
        holds(seen)


@settings(max_examples=300)
@given(READINGS)
def test_readers_get_what_is_promised_whatever_the_store_does(plan: dict[str, Any]) -> None:
    """On random reads, moves, outages and cancellations."""
    seen = simulate(lambda: read_all(prompt_registry, plan))
    for holds in READERS_PROMISES:
        holds(seen)


# --- by example ----------------------------------------------------------------------------------

POLICY = RegistryPolicy(cache_ttl=30, timeout=2, retry_interval=5, max_staleness=600)


def distant(main: Callable[[PromptRegistry, Distant], Awaitable[Any]], *, policy: RegistryPolicy = POLICY,
            on_event: Callable[[RegistryEvent], object] | None = None) -> Any:  # fmt: skip
    """Run *main* on a registry whose store is 0.2 s away, with three versions in it."""

    async def run() -> Any:
        store = Distant()
        registry = PromptRegistry(store, policy, on_event=on_event)
        await saved(registry)
        registry._labels.clear()  # as another process finds it
        return await main(registry, store)

    return simulate(run)


def test_a_label_is_read_without_asking_until_it_may_be_old() -> None:
    """A thousand reads in thirty seconds ask once."""

    async def main(registry: PromptRegistry, store: Distant) -> None:
        for _ in range(1_000):
            await registry.get("answer")
            await asyncio.sleep(0.029)
        assert len(store.asked) == 1
        await asyncio.sleep(2)
        await registry.get("answer")
        assert len(store.asked) == 2
        seen = registry.statistics()
        assert (seen.cached, seen.asked, seen.stale, seen.refused) == (999, 2, 0, 0)

    distant(main)


def test_readers_who_come_together_ask_once() -> None:
    """The first asks for all; later on, one asks and the others are served at once."""

    async def main(registry: PromptRegistry, store: Distant) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(registry.get("answer"))
        assert len(store.asked) == 1
        await asyncio.sleep(30)
        refreshing = asyncio.create_task(registry.get("answer"))
        await asyncio.sleep(0.1)
        began = asyncio.get_running_loop().time()
        assert not (await registry.get("answer")).stale
        assert asyncio.get_running_loop().time() == began
        await refreshing
        assert len(store.asked) == 2

    distant(main)


def test_a_reader_who_leaves_lets_another_ask() -> None:
    """A client that hangs up takes nobody with it."""

    async def main(registry: PromptRegistry, store: Distant) -> None:
        readers = [asyncio.create_task(registry.get("answer")) for _ in range(3)]
        await asyncio.sleep(0.1)
        readers[0].cancel()
        served = [await reader for reader in readers[1:]]
        assert [each.version.number for each in served] == [2, 2]
        assert len(store.asked) == 2

    distant(main)


def test_a_store_that_is_away_serves_the_last_known_marked_with_its_age() -> None:
    """And an event says so for each; when the store is back, so is what is new."""
    events: list[RegistryEvent] = []

    async def main(registry: PromptRegistry, store: Distant) -> tuple[ServedPrompt, ServedPrompt]:
        await registry.get("answer")
        store.outages = [(0, 100, "refuses")]
        await asyncio.sleep(60)
        stale = await registry.get("answer")
        await asyncio.sleep(60)
        return stale, await registry.get("answer")

    stale, fresh = distant(main, on_event=events.append)
    assert (stale.version.number, stale.stale, stale.age) == (2, True, pytest.approx(60.4))
    assert (fresh.stale, fresh.age) == (False, pytest.approx(0.4))
    [told] = [event for event in events if isinstance(event, StaleServed)]
    assert (told.name, told.label, told.number, told.age) == ("answer", "production", 2, stale.age)
    assert "refuses" in str(told.error)


def test_what_is_too_old_is_not_served() -> None:
    """After `max_staleness` reading fails; without one it never does."""

    async def main(registry: PromptRegistry, store: Distant) -> Any:
        await registry.get("answer")
        store.outages = [(0, 10**9, "refuses")]
        await asyncio.sleep(599)
        assert (await registry.get("answer")).stale
        await asyncio.sleep(10**6)
        return await registry.get("answer")

    with pytest.raises(StoreUnavailable, match="refuses"):
        distant(main)
    unlimited = POLICY.model_copy(update={"max_staleness": None})
    assert distant(main, policy=unlimited).age > 10**6


def test_while_the_store_hangs_one_reader_waits_now_and_then() -> None:
    """For `timeout`, every `retry_interval`; all others are served at once."""

    async def main(registry: PromptRegistry, store: Distant) -> list[float]:
        await registry.get("answer")
        store.outages = [(0, 1_000, "hangs")]
        await asyncio.sleep(60)
        waits = []

        async def read() -> None:
            began = asyncio.get_running_loop().time()
            assert (await registry.get("answer")).stale
            waits.append(asyncio.get_running_loop().time() - began)

        async with asyncio.TaskGroup() as group:
            for _ in range(700):  # 70 s, and a retry every 5 + 2 s
                group.create_task(read())
                await asyncio.sleep(0.1)
        return [wait for wait in waits if wait > 0]

    waits = distant(main)
    # The first to find the store hanging does not know it yet, and neither do those who come in its two seconds.
    assert len(waits) == 20 + 9
    assert max(waits) == pytest.approx(2)


def test_a_process_that_starts_in_an_outage_says_so() -> None:
    """There is nothing to serve; and a thousand readers do not wait one after the other."""

    async def main(registry: PromptRegistry, store: Distant) -> float:
        store.outages = [(0, 1_000, "hangs")]
        began = asyncio.get_running_loop().time()
        reads = [registry.get("answer") for _ in range(1_000)]
        ends = await asyncio.gather(*reads, return_exceptions=True)
        assert {type(end) for end in ends} == {StoreUnavailable}
        return asyncio.get_running_loop().time() - began

    assert distant(main) == pytest.approx(2)


def test_a_label_that_is_not_there_is_not_asked_for_again_and_again() -> None:
    """Not for `retry_interval`; and whoever makes it here has it at once."""

    async def main(registry: PromptRegistry, store: Distant) -> None:
        for _ in range(100):
            with pytest.raises(PromptNotFound):
                await registry.get("answer", "canary")
        assert len(store.asked) == 1
        await registry.move("answer", "canary", 3, by="ada", why="try it")
        assert (await registry.get("answer", "canary")).version.number == 3

    distant(main)


def test_whoever_moves_a_label_reads_it_moved() -> None:
    """Even where a read was under way; other processes follow when their copy is old."""

    async def main(registry: PromptRegistry, store: Distant) -> None:
        other = PromptRegistry(store, POLICY)
        assert (await other.get("answer")).version.number == 2
        reading = asyncio.create_task(registry.get("answer"))
        await asyncio.sleep(0.1)
        await registry.move("answer", "production", 3, by="ada", why="better")
        await reading
        assert (await registry.get("answer")).version.number == 3
        assert (await other.get("answer")).version.number == 2
        await asyncio.sleep(30)
        assert (await other.get("answer")).version.number == 3

    distant(main)


def test_events_are_what_the_history_has() -> None:
    """Saves and moves of this process, as they were made."""
    events: list[RegistryEvent] = []

    async def main(registry: PromptRegistry, store: Distant) -> list[PromptSave | LabelMove]:
        await registry.rollback("answer", by="eve", why="no", expected=2)
        return await registry.history("answer")

    with pytest.raises(Exception, match="nothing before version 2"):
        distant(main, on_event=events.append)
    assert [type(event) for event in events] == [PromptSave] * 3 + [LabelMove]
    assert [event.number for event in events] == [1, 2, 3, 2]


def test_a_version_is_asked_for_once() -> None:
    """It cannot change: by number or by digest it comes from memory, whatever happens to the store."""

    async def main(registry: PromptRegistry, store: Distant) -> None:
        other = PromptRegistry(store, POLICY)
        first = await other.version("answer", 1)
        store._versions.clear()
        assert await other.version("answer", 1) is first
        assert await other.version("answer", FIRST.digest) is first

    distant(main)


def test_memory_is_bounded() -> None:
    """What was unread for longest goes first."""
    policy = POLICY.model_copy(update={"max_cached": 3})

    async def main(registry: PromptRegistry, store: Distant) -> None:
        for label in "abcd":
            await registry.move("answer", label, 1, by="ada", why="many")
        for label in "bcdb":
            await registry.get("answer", label)
        assert len(store.asked) == 0
        await registry.get("answer", "a")
        await registry.get("answer", "b")
        assert len(store.asked) == 1
        await registry.get("answer", "c")
        assert len(store.asked) == 2
        assert len(registry._labels) == len(registry._versions) == 3

    distant(main, policy=policy)


def test_two_versions_are_compared_by_number_or_digest() -> None:
    """The diff names both."""

    async def main(registry: PromptRegistry, store: Distant) -> str:
        assert await registry.diff("answer", FIRST.digest, 1) == ""
        return await registry.diff("answer", 1, 2)

    lines = distant(main).splitlines()
    assert lines[:2] == ["--- answer version 1", "+++ answer version 2"]
    assert lines[-2:] == ["-  Answer {{question}}", "+  Answer {{question}} in a sentence"]


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 201])
def test_a_name_that_cannot_be_read_is_refused(name: str) -> None:
    """Of a prompt, and of a label."""

    async def main(registry: PromptRegistry, store: Distant) -> None:
        with pytest.raises(ConfigurationError, match="printable characters"):
            await registry.save(name, FIRST, by="ada")
        with pytest.raises(ConfigurationError, match="printable characters"):
            await registry.move("answer", name, 1, by="ada", why="")

    distant(main)


def test_somebody_signs() -> None:
    """A history without names is none."""

    async def main(registry: PromptRegistry, store: Distant) -> None:
        with pytest.raises(ConfigurationError, match="who does this"):
            await registry.save("answer", FIRST, by=" ")

    distant(main)


def test_a_prompt_that_is_too_large_is_refused() -> None:
    """With its size and the remedy."""

    async def main(registry: PromptRegistry, store: Distant) -> None:
        with pytest.raises(ConfigurationError, match=r"1,0\d\d bytes, more than 1,000"):
            await registry.save("answer", Prompt("x" * 1_000, model="m"), by="ada")

    distant(main, policy=POLICY.model_copy(update={"max_size_bytes": 1_000}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cache_ttl": -1}, "greater than or equal to 0"),
        ({"timeout": 0}, "greater than 0"),
        ({"retry_interval": 0}, "greater than or equal to 0.1"),
        ({"max_staleness": 31, "cache_ttl": 30, "timeout": 2}, "raise it, or lower cache_ttl"),
        ({"max_staleness": float("inf")}, "finite number"),
        ({"ttl": 2}, "Extra inputs"),
    ],
)
def test_a_policy_that_cannot_work_is_refused_when_made(
    options: dict[str, float], said: str
) -> None:
    """The message names the value or the remedy."""
    with pytest.raises(ValidationError, match=said):
        RegistryPolicy.model_validate(options)
