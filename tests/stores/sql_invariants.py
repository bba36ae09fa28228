"""The invariants of databases, as checks on random schedules of transactions.

Each is a function of the module under test, so that it can be shown to fail on a copy with a bug in it.
"""

import asyncio
import sys
from types import ModuleType
from typing import Any

from hypothesis import strategies as st

PLANS = st.lists(
    st.fixed_dictionaries(
        {
            "start": st.floats(0, 2),
            "reads_for": st.floats(0, 1),
            "writes_for": st.floats(0, 1),
            "ends": st.sampled_from(["well", "well", "in an error", "cancelled"]),
            "cancelled": st.floats(0, 4),
        }
    ),
    min_size=2,
    max_size=8,
)
TABLES = (
    "CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS entries (id BIGINT PRIMARY KEY)",
    "INSERT INTO counters VALUES ('calls', 0) ON CONFLICT DO NOTHING",
)


class Unwanted(Exception):
    """What a writer raises in the middle of its transaction."""


async def count_one(database: Any, entry: int, plan: dict[str, Any]) -> str:
    """Read a counter, decide, and write it back beside a row of one's own; say how it ended."""
    await asyncio.sleep(plan["start"])
    limit = plan["cancelled"] if plan["ends"] == "cancelled" else None
    try:
        async with asyncio.timeout(limit), database.transaction("calls") as transaction:
            [row] = await transaction.fetch("SELECT value FROM counters WHERE name = $1", "calls")
            await asyncio.sleep(plan["reads_for"])
            await transaction.execute("INSERT INTO entries VALUES ($1)", entry)
            await transaction.execute("UPDATE counters SET value = $1", row["value"] + 1)
            await asyncio.sleep(plan["writes_for"])
            if plan["ends"] == "in an error":
                _fail()
    except Unwanted:
        return "undone"
    except TimeoutError:
        return "cancelled"
    return "done"


def _fail() -> None:
    raise Unwanted


async def check_counter(databases: list[Any], plans: list[dict[str, Any]]) -> None:
    """Let writers count through *databases* in turn: each that was confirmed counts once, and no other does.

    Where a writer was cancelled, its row says whether it was in time.
    """
    await databases[0].create(*TABLES)
    writers = [
        count_one(databases[entry % len(databases)], entry, plan)
        for entry, plan in enumerate(plans)
    ]
    ends = await asyncio.gather(*writers, return_exceptions=True)
    errors = [end for end in ends if isinstance(end, BaseException)]
    assert not errors, "a writer's statement came at a wrong time"
    entries = {row["id"] for row in await databases[0].fetch("SELECT id FROM entries")}
    [row] = await databases[0].fetch("SELECT value FROM counters")
    assert {entry for entry, end in enumerate(ends) if end == "done"} <= entries
    assert not {entry for entry, end in enumerate(ends) if end == "undone"} & entries
    assert row["value"] == len(entries), "an update was lost, or half a transaction happened"


async def check_in_memory(module: ModuleType, plans: list[dict[str, Any]]) -> None:
    """One database in memory, on whatever loop."""
    async with module.open_database(
        "sqlite:///:memory:", module.DatabasePolicy(timeout=60)
    ) as database:
        await check_counter([database], plans)


async def check_shared(module: ModuleType, url: str, writers: int = 12) -> None:
    """Two handles on one database, as two processes would have them, on the real loop."""
    plans = [
        {"start": 0, "reads_for": 0.002 * (n % 3), "writes_for": 0.001, "ends": "well"}
        for n in range(writers)
    ]
    async with module.open_database(url) as one, module.open_database(url) as other:
        await check_counter([one, other], plans)


COUNTING = """
import asyncio, sys
from llm_patterns.stores import open_database
from tests.stores.sql_invariants import TABLES

async def main(url, times):
    async with open_database(url) as database:
        await database.create(*TABLES)
        for _ in range(int(times)):
            async with database.transaction("calls") as transaction:
                [row] = await transaction.fetch("SELECT value FROM counters")
                await transaction.execute("UPDATE counters SET value = $1", row["value"] + 1)

asyncio.run(main(*sys.argv[1:]))
"""


async def count_in_processes(url: str, *, processes: int, times: int) -> None:
    """Count in real processes that start at once, and make the tables at once."""
    running = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", COUNTING, url, str(times))
        for _ in range(processes)
    ]
    assert [await process.wait() for process in running] == [0] * processes
