"""How much room a call takes in the ledger: a day of a hundred thousand calls, in SQLite, in virtual time."""

import asyncio
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from course.benchmarks import Row
from llm_patterns.chat import Usage
from llm_patterns.simulation import simulate
from llm_patterns.toolkit import CostLedger, CostTracker, LedgerPolicy

PEERS = ()
ROUNDS = 1
DAY = 86_400
CALLS = 100_000
START = datetime(2026, 11, 23, tzinfo=UTC)
USAGE = Usage(input_tokens=500, cached_input_tokens=1_500, output_tokens=200)


def traffic() -> list[tuple[float, dict[str, str]]]:
    """A day's calls: 40 tenants, the largest with 23% of them, five features, and a prompt that changes at noon."""
    rng = Random(7)
    tenants = rng.choices(range(40), [1 / (rank + 1) for rank in range(40)], k=CALLS)
    times = sorted(rng.random() * DAY for _ in range(CALLS))
    return [
        (
            time,
            {
                "tenant": f"tenant-{tenant:02}",
                "feature": f"feature-{rng.randrange(5)}",
                "prompt_version": "v7" if time < DAY / 2 else "v8",
                "outcome": "answered",
            },
        )
        for time, tenant in zip(times, tenants, strict=True)
    ]


def of_the_ledger(path: Path, resolution: Any) -> int:
    """Return the sums that a day's traffic makes."""

    async def main() -> None:
        policy = LedgerPolicy(resolution=resolution, flush_interval=60)
        async with CostLedger(f"sqlite:///{path}", policy) as ledger:
            costs = CostTracker(ledger=ledger)
            now = 0.0
            for time, labels in traffic():
                await asyncio.sleep(time - now)
                now = time
                costs.record(USAGE, "gpt-4o", labels=labels)

    simulate(main, start=START)
    [sums] = sqlite3.connect(path).execute("SELECT count(*) FROM llm_costs").fetchone()
    return int(sums)


def of_single_rows(path: Path) -> int:
    """Return the rows where each call is one, with its id, time, labels and text of dollars."""
    rows: Sequence[Any] = [
        (f"{number:032x}", time, *labels.values(), "gpt-4o", 500, 1_500, 0, 200, "0.005125")
        for number, (time, labels) in enumerate(traffic())
    ]
    database = sqlite3.connect(path)
    database.execute(
        "CREATE TABLE calls (id TEXT PRIMARY KEY, at REAL, tenant TEXT, feature TEXT, prompt TEXT, outcome TEXT, "
        "model TEXT, input INT, cached INT, written INT, output INT, usd TEXT)"
    )
    with database:
        database.executemany(f"INSERT INTO calls VALUES ({', '.join('?' * 12)})", rows)
    database.close()
    return len(rows)


def measure() -> list[Row]:
    """Return the rows and the bytes that the same day takes."""
    kinds = {
        "A sum of each hour": lambda path: of_the_ledger(path, 3_600),
        "A sum of each minute": lambda path: of_the_ledger(path, 60),
        "A row for each call": of_single_rows,
    }
    measured: list[Row] = []
    with TemporaryDirectory() as folder:
        for number, (name, fill) in enumerate(kinds.items()):
            path = Path(folder) / f"{number}.db"
            rows = fill(path)
            size = path.stat().st_size
            measured.append(
                {
                    "Kept": name,
                    "Rows a day": rows,
                    "Bytes a call": round(size / CALLS, 2),
                    "Megabytes a year": round(size * 365 / 1e6, 1),
                }
            )
    return measured
