"""Databases: the same behaviour of SQLite and of a real PostgreSQL."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings

from llm_patterns.errors import ConfigurationError, StoreUnavailable
from llm_patterns.simulation import simulate
from llm_patterns.stores import Database, DatabasePolicy, open_database, sql
from tests.mutants import mutant
from tests.stores.conftest import PostgreSQL
from tests.stores.sql_invariants import PLANS, check_in_memory, check_shared, count_in_processes

NOTES = (
    "CREATE TABLE IF NOT EXISTS notes (id BIGINT PRIMARY KEY, text TEXT, share DOUBLE PRECISION)"
)
ADD = "INSERT INTO notes VALUES ($1, $2, $3)"
SHORT = DatabasePolicy(timeout=0.3)


def use(
    url: str, main: Callable[[Database], Awaitable[Any]], policy: DatabasePolicy | None = None
) -> Any:
    """Run *main* on a database with one table."""

    async def run() -> Any:
        async with open_database(url, policy) as database:
            await database.create(NOTES)
            return await main(database)

    return asyncio.run(run())


async def ids(database: Any) -> list[Any]:
    """What is in the table."""
    return [row["id"] for row in await database.fetch("SELECT id FROM notes ORDER BY id")]


def test_values_come_back_as_they_went_in(url: str) -> None:
    """Whole numbers of 64 bits, floats to the last bit, any text, and nothing."""
    rows = [(-(2**63), "ä\n'$1'; --", 0.1), (2**63 - 1, "", 1e300), (0, None, None)]

    async def main(database: Database) -> None:
        for row in rows:
            assert await database.execute(ADD, *row) == 1
        found = await database.fetch("SELECT * FROM notes WHERE id <> $1 OR id = $1", 7)
        assert sorted(tuple(row.values()) for row in found) == sorted(rows)

    use(url, main)


def test_a_statement_says_how_many_rows_it_changed(url: str) -> None:
    """Which is how a writer sees that a row was there already."""

    async def main(database: Database) -> None:
        await database.execute_many(ADD, [(1, "a", None), (2, "b", None), (3, "c", None)])
        assert await database.execute(f"{ADD} ON CONFLICT DO NOTHING", 3, "again", None) == 0
        assert await database.execute("UPDATE notes SET text = $1 WHERE id > $2", "x", 1) == 2
        assert await database.execute("CREATE TABLE others (id BIGINT)") == 0

    use(url, main)


def test_an_error_undoes_the_whole_transaction(url: str) -> None:
    """The caller's own, and a broken rule of the database's."""

    async def main(database: Database) -> None:
        async def broken() -> None:
            async with database.transaction() as transaction:
                await transaction.execute(ADD, 1, "gone", None)
                raise LookupError

        with pytest.raises(LookupError):
            await broken()
        with pytest.raises(Exception, match=r"(?i)unique"):
            await database.execute_many(ADD, [(1, "gone", None), (1, "twice", None)])
        await database.execute(ADD, 2, "stays", None)
        assert await ids(database) == [2]

    use(url, main)


def test_an_error_that_was_caught_still_undoes_the_transaction(url: str) -> None:
    """PostgreSQL would undo it silently, and SQLite commit the rest: both say so instead."""

    async def main(database: Database) -> None:
        async def careless() -> None:
            async with database.transaction() as transaction:
                await transaction.execute(ADD, 1, "gone", None)
                with suppress(Exception):
                    await transaction.execute(ADD, 1, "twice", None)

        with pytest.raises(RuntimeError, match="ON CONFLICT"):
            await careless()
        assert await ids(database) == []

    use(url, main)


def test_a_mistake_in_a_statement_is_not_an_outage(url: str) -> None:
    """It is raised as the driver has it, and the database goes on."""

    async def main(database: Database) -> None:
        for statement in ("SELEC 1", "SELECT * FROM nothing", "SELECT $1 || $2"):
            with pytest.raises(
                Exception, match=r"(?i)syntax|no such|not exist|supply|expects"
            ) as error:
                await database.fetch(statement, "only one")
            assert not isinstance(error.value, StoreUnavailable)
        assert await ids(database) == []

    use(url, main)


def test_references_are_held(url: str) -> None:
    """SQLite does so only when it is told to."""

    async def main(database: Database) -> None:
        await database.create("CREATE TABLE replies (note BIGINT REFERENCES notes (id))")
        with pytest.raises(Exception, match=r"(?i)foreign key"):
            await database.execute("INSERT INTO replies VALUES (1)")

    use(url, main)


def test_a_transaction_that_takes_too_long_is_undone(url: str) -> None:
    """The next one does not wait for it."""

    async def main(database: Database) -> None:
        async def slow() -> None:
            async with database.transaction("notes") as transaction:
                await transaction.execute(ADD, 1, "gone", None)
                await asyncio.sleep(50)

        with pytest.raises(StoreUnavailable, match=r"not done within 0\.3 s"):
            await slow()
        async with database.transaction("notes") as transaction:
            assert await ids(transaction) == []

    use(url, main, SHORT)


def test_the_caller_s_own_time_out_stays_the_caller_s(url: str) -> None:
    """Only the database's own limit is the database's failure."""

    async def main(database: Database) -> None:
        async def impatient() -> None:
            async with database.transaction() as transaction:
                await transaction.execute(ADD, 1, "gone", None)
                raise TimeoutError

        with pytest.raises(TimeoutError):
            await impatient()
        assert await ids(database) == []

    use(url, main)


@pytest.mark.parametrize("turns", [0, 1, 30])
def test_a_cancelled_transaction_is_undone(url: str, turns: int) -> None:
    """Before its first statement, with one under way, and while it waits for its turn."""

    async def main(database: Database) -> None:
        async def add(number: int) -> None:
            async with database.transaction("notes") as transaction:
                await transaction.execute(ADD, number, "gone", None)
                await asyncio.sleep(50)

        tasks = [asyncio.create_task(add(number)) for number in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends)
        assert await ids(database) == []
        await database.execute(ADD, 7, "goes on", None)

    use(url, main)


def test_two_handles_take_turns(shared_url: str) -> None:
    """What one reads under a key, no other changes before it is over."""
    asyncio.run(check_shared(sql, shared_url))


def test_processes_take_turns_and_start_at_once(shared_url: str) -> None:
    """Three real processes make the same tables, and none loses another's count."""

    async def main() -> Any:
        await count_in_processes(shared_url, processes=3, times=40)
        async with open_database(shared_url) as database:
            return await database.fetch("SELECT value FROM counters")

    assert asyncio.run(main()) == [{"value": 120}]


@settings(max_examples=300)
@given(PLANS)
def test_confirmed_transactions_count_once_and_others_not(plans: list[dict[str, Any]]) -> None:
    """Whatever fails or is cancelled, wherever."""
    simulate(lambda: check_in_memory(sql, plans))


def test_closing_leaves_nothing_behind(url: str) -> None:
    """No thread, no task; and what is closed says so."""

    async def main() -> Database:
        async with open_database(url) as database:
            await asyncio.gather(*(database.fetch("SELECT 1") for _ in range(5)))
        await database.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        with pytest.raises(RuntimeError, match="closed"):
            await database.fetch("SELECT 1")
        return database

    threads = set(threading.enumerate())
    asyncio.run(main())
    assert set(threading.enumerate()) == threads


def test_closing_waits_for_what_is_running(url: str) -> None:
    """A transaction that is open is finished."""

    async def main(database: Database) -> None:
        async with database.transaction() as transaction:
            closing = asyncio.create_task(database.close())
            await asyncio.sleep(0.01)
            await transaction.execute(ADD, 1, "kept", None)
        await closing

    use(url, main)


def test_a_database_that_is_never_used_is_never_made(tmp_path: Path) -> None:
    """It connects at the first use, so a service starts while its database is away."""

    async def main() -> None:
        async with open_database(f"sqlite:///{tmp_path}/never.db"):
            pass
        async with open_database("postgresql://localhost:1/nowhere"):
            pass

    asyncio.run(main())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["mysql://host/db", "prompts.db", "sqlite://", "sqlite:///", "postgresql://", ""]
)
def test_an_unknown_address_is_refused_when_it_is_given(url: str) -> None:
    """And the message has no more of it than its kind: addresses hold passwords."""
    with pytest.raises(ConfigurationError, match=r"known are sqlite:///file\.db"):
        open_database(url)


def test_a_password_is_in_no_message() -> None:
    """Neither of the database nor of its errors."""
    with pytest.raises(ConfigurationError) as refused:
        open_database("mysql://ada:secret@host/db")
    assert "secret" not in str(refused.value)

    async def main() -> None:
        async with open_database("postgresql://ada:secret@localhost:1/db") as database:
            with pytest.raises(StoreUnavailable) as away:
                await database.fetch("SELECT 1")
            assert "secret" not in f"{away.value}{database!r}"

    asyncio.run(main())


def test_a_missing_driver_names_the_extra() -> None:
    """When the database is opened, not at the first call."""
    program = """
import sys
sys.modules["asyncpg"] = None
from llm_patterns.stores import open_database
try:
    open_database("postgresql://localhost/db")
except ValueError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert "pip install 'production-llm-patterns[postgres]'" in run.stdout


# --- SQLite -------------------------------------------------------------------------------------


def test_a_file_is_written_ahead(tmp_path: Path) -> None:
    """Readers of other processes do not wait for a writer."""
    url = f"sqlite:///{tmp_path}/test.db"

    async def main(database: Database) -> None:
        assert await database.fetch("PRAGMA journal_mode") == [{"journal_mode": "wal"}]
        async with database.transaction() as transaction, open_database(url, SHORT) as other:
            await transaction.execute(ADD, 1, "unseen", None)
            assert await ids(other) == []
            with pytest.raises(StoreUnavailable, match=r"locked|not done within"):
                await other.execute(ADD, 2, "refused", None)

    use(url, main)


def test_a_folder_that_comes_back_is_used(tmp_path: Path) -> None:
    """The first use after it is there connects."""

    async def main() -> None:
        async with open_database(f"sqlite:///{tmp_path}/mount/test.db") as database:
            with pytest.raises(StoreUnavailable, match="unable to open"):
                await database.create(NOTES)
            (tmp_path / "mount").mkdir()
            await database.create(NOTES)

    asyncio.run(main())


def test_a_file_of_another_kind_is_not_available(tmp_path: Path) -> None:
    """It was overwritten: that is not the statement's fault."""
    (tmp_path / "test.db").write_bytes(b"a report, not a database" * 100)

    async def main() -> None:
        async with open_database(f"sqlite:///{tmp_path}/test.db") as database:
            with pytest.raises(StoreUnavailable, match="not a database"):
                await database.fetch("SELECT 1 FROM notes")

    asyncio.run(main())


def test_a_query_without_end_is_interrupted() -> None:
    """The one thread is free again for the next."""
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"

    async def main(database: Database) -> None:
        with pytest.raises(StoreUnavailable):
            await database.fetch(endless)
        assert await ids(database) == []

    use("sqlite:///:memory:", main, SHORT)


# --- PostgreSQL ---------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [("postgres:", "nobody:"), ("/postgres?", "/nothing?")])
def test_a_server_that_refuses_us_is_not_available(
    shared_postgres: PostgreSQL, change: tuple[str, str]
) -> None:
    """A role or a database that is not there: what was known before can still be served."""

    async def main() -> None:
        async with open_database(shared_postgres.url.replace(*change, 1)) as database:
            with pytest.raises(StoreUnavailable, match="does not exist"):
                await database.fetch("SELECT 1")

    assert change[0] in shared_postgres.url
    asyncio.run(main())


def test_a_server_that_was_killed_is_used_again(postgres: PostgreSQL) -> None:
    """What was in the middle is undone, what was confirmed is there, and nobody opens anything anew."""

    async def main(database: Database) -> None:
        async def interrupted() -> None:
            async with database.transaction("notes") as transaction:
                await transaction.execute(ADD, 2, "unfinished", None)
                await asyncio.to_thread(postgres.crash)
                await transaction.execute(ADD, 3, "unfinished", None)

        await database.execute(ADD, 1, "confirmed", None)
        with pytest.raises(StoreUnavailable):
            await interrupted()
        with pytest.raises(StoreUnavailable):
            await ids(database)
        await asyncio.to_thread(postgres.start)
        assert await ids(database) == [1]

    use(postgres.url, main)


def test_a_server_that_hangs_holds_nobody(postgres: PostgreSQL) -> None:
    """Neither a statement nor a transaction, nor the end."""

    async def main(database: Database) -> None:
        async with database.transaction() as transaction:
            await transaction.execute(ADD, 1, "confirmed", None)
        postgres.pause()
        try:
            with pytest.raises(StoreUnavailable):
                await ids(database)
            with pytest.raises(StoreUnavailable):
                async with database.transaction("notes") as transaction:
                    await transaction.execute(ADD, 2, "unfinished", None)
        finally:
            postgres.resume()
        assert await ids(database) == [1]

    use(postgres.url, main, DatabasePolicy(timeout=1))


def test_connections_are_bounded(shared_postgres: PostgreSQL) -> None:
    """Further tasks wait for one."""
    mine = "SELECT count(*) AS mine FROM pg_stat_activity WHERE datname = current_database()"

    async def main(database: Database) -> None:
        await asyncio.gather(*(database.fetch("SELECT pg_sleep(0.01)") for _ in range(10)))
        assert await database.fetch(mine) == [{"mine": 2}]

    use(shared_postgres.database(), main, DatabasePolicy(max_connections=2))


# --- each check fails on a copy with a bug in it ------------------------------------------------

BUGS = {
    "tasks come between": (
        "        async with self._lock:\n            try:",
        "        if True:\n            try:",
    ),
    "nothing is undone": ("self.submit(self._undo)", "pass"),
    "nothing is committed": ("            await session.commit()\n", ""),
    "what failed is kept": (
        'self.connection.execute("ROLLBACK")',
        'self.connection.execute("COMMIT")',
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_check_in_memory_finds(bug: str) -> None:
    """A database with this bug loses a transaction, or half of one."""
    with mutant(sql, *BUGS[bug]) as broken:

        @settings(max_examples=1_000, phases=[Phase.generate], report_multiple_bugs=False)
        @given(PLANS)
        def check(plans: list[dict[str, Any]]) -> None:
            simulate(lambda: check_in_memory(broken, plans))

        with pytest.raises(AssertionError):
            check()


SHARED_BUGS = {
    "the lock is taken too late": ("file", '"BEGIN IMMEDIATE"', '"BEGIN"'),
    "writers take no turns": ("postgresql", "if key is not None:", "if False:"),
}


@pytest.mark.parametrize("bug", SHARED_BUGS)
def test_the_check_of_two_handles_finds(
    bug: str, tmp_path: Path, shared_postgres: PostgreSQL
) -> None:
    """Two processes would lose each other's updates."""
    kind, old, new = SHARED_BUGS[bug]
    url = shared_postgres.database() if kind == "postgresql" else f"sqlite:///{tmp_path}/test.db"
    with mutant(sql, old, new) as broken, pytest.raises(AssertionError):
        asyncio.run(check_shared(broken, url))
