"""Prompts in SQLite and in a real PostgreSQL: the suite of the store in memory, real processes, and a killed server."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import Phase, given, settings

from llm_patterns.simulation import simulate
from llm_patterns.stores import DatabasePolicy, open_database
from llm_patterns.toolkit import (
    ContentChanged,
    PromptRegistry,
    PromptSave,
    RegistryEvent,
    RegistryPolicy,
    ServedPrompt,
    SQLPromptStore,
    StaleServed,
    prompt_tables,
)
from tests.mutants import mutant
from tests.stores.conftest import PostgreSQL
from tests.toolkit.prompt_cases import CASES, FIRST, saved
from tests.toolkit.prompt_invariants import (
    SCHEDULES,
    WRITERS_PROMISES,
    Delayed,
    books,
    moves_form_a_chain,
    nothing_confirmed_is_lost,
    rollbacks_go_back,
    versions_are_numbered,
    write_all,
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.__name__))
def test_in_a_database(case: Callable[[PromptRegistry], Awaitable[None]], url: str) -> None:
    """What every store does."""

    async def main() -> None:
        async with PromptRegistry(url) as registry:
            await case(registry)

    asyncio.run(main())


async def write_to_sqlite(module: ModuleType, schedule: list[dict[str, Any]]) -> Any:
    """Let writers at a database whose statements take their time, so that they meet."""
    patient = DatabasePolicy(timeout=60)
    async with open_database("sqlite:///:memory:", patient) as database:
        return await write_all(module.SQLPromptStore(Delayed(database, Random(1))), schedule)


@settings(max_examples=200)
@given(SCHEDULES)
def test_a_database_keeps_its_promises_whatever_writers_do(schedule: list[dict[str, Any]]) -> None:
    """On random saves, moves, rollbacks and cancellations, with others between any two statements."""
    seen = simulate(lambda: write_to_sqlite(prompt_tables, schedule))
    for holds in WRITERS_PROMISES:
        holds(seen)


BUGS = {
    "numbers are not looked up": (
        '1 + await _last(transaction, "number", "prompt_versions", name)',
        "1",
    ),
    "a content is saved twice": ("if version is None:\n                number", "if True:\n                number"),
    "a save is not noted": ("            await _add_entry(transaction, save)\n", ""),
    "a move is not noted": ("await _add_entry(transaction, move)", "pass"),
    "labels share a history": ("AND label = $2 ", "AND (label = $2 OR $2 <> '') "),
    "writers come between each other": (
        "async with database.transaction(_turn(name)) as transaction:",
        "if transaction := database:",
    ),
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
def test_the_check_of_databases_finds(bug: str) -> None:
    """A store with this bug breaks a promise on some schedule."""
    with mutant(prompt_tables, *BUGS[bug]) as broken:

        @settings(max_examples=1_000, phases=[Phase.generate], report_multiple_bugs=False)
        @given(SCHEDULES)
        def check(schedule: list[dict[str, Any]]) -> None:
            seen = simulate(lambda: write_to_sqlite(broken, schedule))
            for holds in WRITERS_PROMISES:
                holds(seen)

        with pytest.raises(AssertionError):
            check()


def test_what_was_changed_behind_its_back_is_not_handed_out(url: str) -> None:
    """A version is its content: an edited row has the wrong digest."""

    async def main() -> None:
        async with open_database(url) as database:
            registry = PromptRegistry(SQLPromptStore(database))
            await saved(registry)
            await database.execute(
                "UPDATE prompt_versions SET content = replace(content, 'Answer', 'Ignore')"
            )
            stranger = PromptRegistry(SQLPromptStore(database))
            with pytest.raises(ContentChanged, match="version 2 of prompt 'answer' was changed"):
                await stranger.get("answer")

    asyncio.run(main())


def test_a_number_cannot_be_given_twice(url: str) -> None:
    """The database itself refuses, whoever writes."""

    async def main() -> None:
        async with open_database(url) as database:
            await saved(PromptRegistry(SQLPromptStore(database)))
            copied = (
                "SELECT name, number, 'other', content, author, saved_at, why FROM prompt_versions"
            )
            with pytest.raises(Exception, match=r"(?i)unique"):
                await database.execute(f"INSERT INTO prompt_versions {copied}")

    asyncio.run(main())


def test_a_registry_closes_what_it_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default a file in the working directory; a database that it was given stays open."""
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with PromptRegistry() as registry:
            await registry.save("answer", FIRST, by="ada")
        with pytest.raises(RuntimeError, match="closed"):
            await registry.labels("answer")
        async with open_database("sqlite:///prompts.db") as database:
            async with PromptRegistry(SQLPromptStore(database)) as other:
                assert await other.names() == ["answer"]
            assert await database.fetch("SELECT number FROM prompt_versions") == [{"number": 1}]

    asyncio.run(main())


# --- real processes ------------------------------------------------------------------------------

WRITER = """
import asyncio, json, random, sys
from llm_patterns.errors import StoreUnavailable
from llm_patterns.toolkit import LabelConflict, NothingBefore, Prompt, PromptRegistry

retries = 0

async def confirmed(call):
    global retries
    while True:
        try:
            return await call()
        except StoreUnavailable:
            retries += 1
            await asyncio.sleep(0.05)

async def main(url, who, times):
    rng, numbers, conflicts = random.Random(who), {}, 0
    async with PromptRegistry(url) as registry:
        for n in range(int(times)):
            # Every third content is one that the other process saves, too.
            content = f"shared {n}" if n % 3 == 0 else f"{who} {n}"
            prompt = Prompt(content, model="small")
            version = await confirmed(lambda: registry.save("answer", prompt, by=who))
            numbers[prompt.digest] = version.number
            at = (await confirmed(lambda: registry.labels("answer"))).get("production", 0)
            try:
                if rng.random() < 0.2 and at:
                    await confirmed(lambda: registry.rollback("answer", by=who, why="bad", expected=at))
                else:
                    await confirmed(lambda: registry.move(
                        "answer", "production", version.number, by=who, why="good", expected=at))
            except (LabelConflict, NothingBefore):
                conflicts += 1
            print(n, file=sys.stderr, flush=True)
    print(json.dumps({"numbers": numbers, "conflicts": conflicts, "retries": retries}))

asyncio.run(main(*sys.argv[1:]))
"""


async def start_writer(url: str, who: str, times: int) -> asyncio.subprocess.Process:
    """A process that saves and promotes, and tries again whatever was not confirmed."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, url, who, str(times), stdout=pipe, stderr=pipe
    )


async def check_books(url: str, writers: list[asyncio.subprocess.Process]) -> list[dict[str, Any]]:
    """Every version that a process had confirmed is there under its number; return what they told."""
    outputs = [await writer.communicate() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * len(writers), outputs
    told = [json.loads(output) for output, _ in outputs]
    async with open_database(url) as database:
        seen = await books(SQLPromptStore(database), [])
    for holds in (
        versions_are_numbered,
        nothing_confirmed_is_lost,
        moves_form_a_chain,
        rollbacks_go_back,
    ):
        holds(seen)
    ours, theirs = (each["numbers"] for each in told)
    assert {version.digest: version.number for version in seen.versions} == ours | theirs
    assert ours | theirs == theirs | ours
    return told


def test_two_processes_lose_no_version(shared_url: str) -> None:
    """Hundreds of saves and moves; the losers of a race are told, and nobody else."""

    async def main() -> None:
        writers = [await start_writer(shared_url, who, 150) for who in ("ada", "bob")]
        await check_books(shared_url, writers)
        async with open_database(shared_url) as database:
            history = await SQLPromptStore(database).history("answer", 1_000)
        assert sum(isinstance(each, PromptSave) for each in history) == 300

    asyncio.run(main())


def test_a_killed_server_loses_no_version_and_no_reader(postgres: PostgreSQL) -> None:
    """Readers go on with the last known version, marked, with its age; writers try again, and nothing is lost."""
    events: list[RegistryEvent] = []
    served: list[ServedPrompt] = []
    policy = RegistryPolicy(cache_ttl=0.05, timeout=0.5, retry_interval=0.1)

    async def read_on(registry: PromptRegistry) -> None:
        while True:
            served.append(await registry.get("greeting"))
            await asyncio.sleep(0.005)

    async def main() -> None:
        async with PromptRegistry(postgres.url, policy, on_event=events.append) as registry:
            await registry.save("greeting", FIRST, by="ada")
            await registry.move("greeting", "production", 1, by="ada", why="first")
            reader = asyncio.create_task(read_on(registry))
            writers = [await start_writer(postgres.url, who, 60) for who in ("ada", "bob")]
            for writer in writers:
                assert writer.stderr
                assert await writer.stderr.readline() == b"0\n"
            await asyncio.to_thread(postgres.crash)
            await asyncio.sleep(0.5)
            assert served[-1].stale
            await asyncio.to_thread(postgres.start)
            told = await check_books(postgres.url, writers)
            assert all(each["retries"] for each in told)
            await registry.labels("greeting")
            await asyncio.sleep(0.5)
            assert not reader.done(), reader.exception()
            reader.cancel()

    asyncio.run(main())
    assert {each.version.number for each in served} == {1}
    ages = [each.age for each in served if each.stale]
    assert max(ages) > 0.4
    assert not served[-1].stale
    assert sum(isinstance(each, StaleServed) for each in events) == len(ages)
