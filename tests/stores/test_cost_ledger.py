"""The ledger on real databases: SQLite and PostgreSQL, through crashes of either side."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from decimal import Decimal, localcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import Phase, given, settings

from llm_patterns.chat import Usage
from llm_patterns.errors import ConfigurationError, StoreUnavailable
from llm_patterns.simulation import simulate
from llm_patterns.stores import open_database
from llm_patterns.toolkit import (
    Cost,
    CostLedger,
    CostPolicy,
    CostTracker,
    LedgerEvent,
    LedgerPolicy,
    LedgerWriteFailed,
    ModelPrice,
    SQLCostStore,
    cost_ledger,
    cost_store,
)
from llm_patterns.toolkit.prices import EXACT
from tests.mutants import mutant
from tests.stores.conftest import PostgreSQL
from tests.toolkit import cost_invariants as invariants
from tests.toolkit.cost_invariants import LEDGER_CHECKS, PLANS, Run

USED = Usage(input_tokens=500, cached_input_tokens=3, cache_write_tokens=2, output_tokens=201)
ODD = ModelPrice(
    input_usd_per_mtok=Decimal("0.18000000000000002"),  # the price library has such rates
    output_usd_per_mtok=Decimal("0.041666666666666664"),
    batch_ratio=Decimal("0.333"),
)
QUICK = LedgerPolicy(flush_interval=0.02)


def tracker(ledger: CostLedger) -> CostTracker:
    """A tracker that writes into *ledger*."""
    return CostTracker(CostPolicy(prices={"house": ODD}, max_series=100_000), ledger=ledger)


def read(url: str, label: str = "call") -> dict[str, Cost]:
    """What a new process finds."""

    async def main() -> dict[str, Cost]:
        async with CostLedger(url) as ledger:
            return await ledger.total(by=label)

    return asyncio.run(main())


def test_what_a_tracker_counts_is_in_the_ledger_to_the_last_digit(url: str) -> None:
    """Tokens, dollars and any label, as it went in; and it adds up over several writes."""

    async def main() -> None:
        async with CostLedger(url) as ledger:
            costs = tracker(ledger)
            for number in range(300):
                with costs.labels(tenant=f'Zoë "{number % 7}"\0\ud800\';--', feature="x"):
                    tier = "batch" if number % 2 else "standard"
                    costs.record(USED, "house", tier=tier, estimated=number % 5 == 0)
                if number % 50 == 0:
                    await ledger.flush()
            await ledger.flush()
            found = await ledger.read()
            assert found == costs.statistics()
            assert found.total.usd.as_tuple().exponent == -27

    asyncio.run(main())


def test_sums_past_what_a_column_holds_of_the_finest_part(url: str) -> None:
    """Ten billion dollars are no overflow, and their last digit is there."""
    usd = Decimal("1234567890.999999999999999999999999999")

    async def main() -> Decimal:
        async with open_database(url) as database:
            store = SQLCostStore(database)
            await store.prepare(3_600)
            for number in range(1, 8):
                entry = cost_store.Entry(0, (("model", "m"),), Cost(1, USED, usd))
                await store.add("writer", number, [entry])
            [cost] = (await store.sums(0, 1)).values()
            return cost.usd

    with localcontext(EXACT):
        assert asyncio.run(main()) == usd * 7


def test_a_batch_that_comes_again_counts_once(url: str) -> None:
    """Of this writer; another's with the same number is another."""

    async def main() -> int:
        async with open_database(url) as database:
            store = SQLCostStore(database)
            await store.prepare(3_600)
            entries = [cost_store.Entry(0, (("model", "m"),), Cost(1, USED))]
            for writer, number in (("a", 1), ("a", 1), ("b", 1), ("a", 2), ("a", 1)):
                await store.add(writer, number, entries)
            [cost] = (await store.sums(0, 1)).values()
            return cost.calls

    assert asyncio.run(main()) == 3


def test_the_tables_know_their_version(url: str) -> None:
    """A later one is left alone, and a ledger of other buckets too."""

    async def main() -> None:
        async with open_database(url) as database:
            for _ in range(2):
                async with CostLedger(database):
                    pass
            assert len(await database.fetch("SELECT * FROM llm_costs_schema")) == 1
            with pytest.raises(ConfigurationError, match="sums of 3600 seconds, not of 60"):
                await CostLedger(database, LedgerPolicy(resolution=60)).__aenter__()
            await database.execute("UPDATE llm_costs_schema SET version = 99")
            with pytest.raises(ConfigurationError, match="version 99"):
                await CostLedger(database).__aenter__()

    asyncio.run(main())


def test_a_ledger_that_is_refused_leaves_no_thread(tmp_path: Path) -> None:
    """Its own database is closed again."""
    url = f"sqlite:///{tmp_path}/costs.db"

    async def main() -> None:
        async with CostLedger(url):
            pass
        before = threading.active_count()
        with pytest.raises(ConfigurationError):
            await CostLedger(url, LedgerPolicy(resolution=60)).__aenter__()
        assert threading.active_count() == before

    asyncio.run(main())


def test_threads_record_into_one_ledger(url: str) -> None:
    """While its own task writes."""

    async def main() -> None:
        async with CostLedger(url, QUICK) as ledger:
            costs = tracker(ledger)

            def work() -> None:
                for number in range(400):
                    costs.record(USED, "house", labels={"tenant": str(number % 3)})

            await asyncio.gather(*(asyncio.to_thread(work) for _ in range(4)))
            await ledger.flush()
            assert (await ledger.read()) == costs.statistics()
            assert costs.statistics().total.calls == 1_600

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        asyncio.run(main())
    finally:
        sys.setswitchinterval(before)


PROCESS = """
import asyncio, sys
from llm_patterns.chat import Usage
from llm_patterns.toolkit import CostLedger, CostPolicy, CostTracker, LedgerPolicy

async def main(url, name, calls, flush_each):
    async with CostLedger(url, LedgerPolicy(flush_interval=0.02)) as ledger:
        costs = CostTracker(CostPolicy(max_series=100_000), ledger=ledger)
        for number in range(int(calls)):
            costs.record(Usage(input_tokens=1), "gpt-4o", labels={"call": str(number), "process": name})
            await asyncio.sleep(0)
            if int(flush_each) and (number + 1) % int(flush_each) == 0:
                await ledger.flush()
                print(number + 1, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def process(url: str, name: str, *, calls: int, flush_each: int = 0) -> subprocess.Popen[str]:
    """Start one that records so many calls, each under a label of its own, and says what was confirmed."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROCESS, url, name, str(calls), str(flush_each)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_several_processes_write_one_ledger(shared_url: str) -> None:
    """The same labels and hours at once: no call is lost, and none waits for another in a circle."""
    started = [process(shared_url, str(name), calls=400, flush_each=100) for name in range(3)]
    assert [each.wait(50) for each in started] == [0, 0, 0]
    for each in started:
        assert each.stdout is not None
        each.stdout.close()
    assert {name: cost.calls for name, cost in read(shared_url, "process").items()} == {
        "0": 400,
        "1": 400,
        "2": 400,
    }
    assert {cost.calls for cost in read(shared_url).values()} == {3}


def test_a_killed_process_leaves_what_was_confirmed(shared_url: str) -> None:
    """Every call before the last `flush` that returned, once; of those after it, at most the batch under way."""
    killed = process(shared_url, "killed", calls=100_000, flush_each=50)
    assert killed.stdout is not None
    for _ in range(6):
        killed.stdout.readline()
    killed.kill()
    confirmed = max(map(int, killed.stdout.read().split()), default=300)
    killed.stdout.close()
    assert killed.wait(10) == -9
    found = read(shared_url)
    assert {cost.calls for cost in found.values()} == {1}
    assert set(found) >= {str(number) for number in range(confirmed)}
    assert len(found) <= confirmed + 50


def test_what_a_killed_process_wrote_behind_is_there_in_order(shared_url: str) -> None:
    """Without any flush: what is missing is only the end."""
    killed = process(shared_url, "killed", calls=10_000_000)
    while len(found := read_if_there(shared_url)) < 100:
        pass
    killed.kill()
    killed.wait(10)
    assert killed.stdout is not None
    killed.stdout.close()
    found = read(shared_url)
    assert {cost.calls for cost in found.values()} == {1}
    assert set(found) == {str(number) for number in range(len(found))}


def read_if_there(url: str) -> dict[str, Cost]:
    """What is there while another process is busy."""
    try:
        return read(url)
    except StoreUnavailable:
        return {}


def test_a_servers_crash_loses_and_doubles_no_call(postgres: PostgreSQL) -> None:
    """Killed twice in the middle of writes, started again: calls go on meanwhile, and all are there at the end."""

    failed = asyncio.Event()

    def hear(event: LedgerEvent) -> None:
        if isinstance(event, LedgerWriteFailed):
            failed.set()

    async def main() -> None:
        async with CostLedger(postgres.url, QUICK, on_event=hear) as ledger:
            costs = tracker(ledger)
            for number in range(1_200):
                costs.record(USED, "house", labels={"tenant": str(number % 50)})
                await asyncio.sleep(0.001)
                if number in (300, 700):
                    failed.clear()
                    await asyncio.to_thread(postgres.crash)
                if number in (500, 900):
                    await failed.wait()
                    await asyncio.to_thread(postgres.start)
            await ledger.flush()
            assert await ledger.read() == costs.statistics()

    asyncio.run(main())


def play_in_sqlite(
    plan: dict[str, Any], stores: ModuleType = cost_store, ledgers: ModuleType = cost_ledger
) -> Run:
    """The plan over SQLite, in virtual time."""

    async def main() -> Run:
        async with open_database("sqlite:///:memory:") as database:
            store = stores.SQLCostStore(database)
            await store.prepare(3_600)
            return await invariants.play(plan, store, ledgers)

    return simulate(main)


@pytest.mark.parametrize("holds", LEDGER_CHECKS, ids=lambda holds: str(holds.__name__))
def test_whatever_happens_to_the_database(holds: Callable[[Run], None]) -> None:
    """Each promise of the ledger on random schedules, in SQLite."""

    @settings(max_examples=60)
    @given(PLANS)
    def check(plan: dict[str, Any]) -> None:
        holds(play_in_sqlite(plan))

    check()


SQL_BUGS = {
    "a batch that comes again is added again": (
        "WHERE llm_costs_writers.batch < excluded.batch",
        "",
        invariants.nothing_counts_twice,
    ),
    "a batch is added before it is known": (
        "            if await transaction.execute(_NEXT, writer, batch):\n                ",
        "            if True:\n                ",
        invariants.nothing_counts_twice,
    ),
    "a number is noted without its batch": (
        "                await transaction.execute_many(_ADD, rows)",
        "                pass",
        invariants.nothing_is_lost,
    ),
    "the next sum replaces the last": (
        "calls = llm_costs.calls + excluded.calls",
        "calls = excluded.calls",
        invariants.nothing_is_lost,
    ),
    "the last digits are not added": (
        "usd_e27 = llm_costs.usd_e27 + excluded.usd_e27",
        "usd_e27 = llm_costs.usd_e27",
        invariants.nothing_is_lost,
    ),
    "a period has its end in it": (
        "bucket < $2",
        "bucket <= $2 + 3600",
        invariants.nothing_counts_twice,
    ),
}


@pytest.mark.parametrize("bug", SQL_BUGS)
def test_the_check_of_the_tables_finds(bug: str) -> None:
    """Tables with this bug break that promise on some schedule."""
    old, new, holds = SQL_BUGS[bug]
    with mutant(cost_store, old, new) as broken:

        @settings(max_examples=300, phases=[Phase.generate], report_multiple_bugs=False)
        @given(PLANS)
        def check(plan: dict[str, Any]) -> None:
            holds(play_in_sqlite(plan, broken))

        with pytest.raises(AssertionError):
            check()
