"""Where do a ledger's sums live, so that a batch that is written twice counts once, in SQLite as in PostgreSQL?

A row holds the sum of a bucket of time and a series of labels, and a batch adds to it. Each writer numbers its batches;
the number of its last one is changed in the same transaction, so that a batch whose confirmation got lost is known when
it comes again. Dollars are three integers (of 1e-9, 1e-18 and 1e-27), which any database adds up exactly: a float would
not, and `NUMERIC` would in PostgreSQL only.

Invariants:

1. A batch counts once, however often it is added; or not at all.
2. What is read is the sum of all batches, to the last digit.
3. Writers never wait for each other in a circle: rows come sorted.

>>> import asyncio
>>> acme = (("tenant", "acme"),)
>>> async def main():
...     store = MemoryCostStore()
...     for _ in range(2):
...         await store.add("writer 1", 1, [Entry(0, acme, Cost(calls=1, usd=Decimal("0.1")))])
...     return await store.sums(0, 1)
>>> asyncio.run(main())[acme].usd
Decimal('0.1')
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Any, Final, NamedTuple, Protocol, cast

from llm_patterns.chat import Usage
from llm_patterns.errors import ConfigurationError
from llm_patterns.stores.sql import Database, Row
from llm_patterns.toolkit.costs import Cost, Series
from llm_patterns.toolkit.prices import EXACT

__all__ = ["CostStore", "Entry", "MemoryCostStore", "SQLCostStore", "labels_text"]


class Entry(NamedTuple):
    """What some calls of one series cost in one bucket, which begins at that second since the epoch."""

    bucket: int
    series: Series
    cost: Cost


class CostStore(Protocol):
    """What a ledger needs of where it writes. All may raise `StoreUnavailable`."""

    async def prepare(self, resolution: int) -> None:
        """Make what is missing. Raises `ConfigurationError` if it was made for other buckets or by another version."""

    async def add(self, writer: str, batch: int, entries: Sequence[Entry]) -> None:
        """Add *entries*, all or none, unless this or a later batch of *writer* has been added before."""

    async def sums(self, since: int, until: int) -> dict[Series, Cost]:
        """Return what is in the buckets that begin from *since* on and before *until*."""


class MemoryCostStore:
    """A store in this process, for tests and where nothing has to last."""

    def __init__(self) -> None:
        self._resolution: int | None = None
        self._batches: dict[str, int] = {}
        self._sums: dict[tuple[int, Series], Cost] = {}

    async def prepare(self, resolution: int) -> None:
        """Remember the size of the buckets."""
        self._resolution = self._resolution or resolution
        _check(VERSION, self._resolution, resolution)

    async def add(self, writer: str, batch: int, entries: Sequence[Entry]) -> None:
        """Add *entries* once."""
        if self._batches.get(writer, 0) >= batch:
            return
        self._batches[writer] = batch
        for bucket, series, cost in entries:
            key = (bucket, series)
            self._sums[key] = self._sums.get(key, Cost()) + cost

    async def sums(self, since: int, until: int) -> dict[Series, Cost]:
        """Return the sums by series."""
        found: dict[Series, Cost] = {}
        for (bucket, series), cost in sorted(self._sums.items()):
            if since <= bucket < until:
                found[series] = found.get(series, Cost()) + cost
        return found


class SQLCostStore:
    """A store in SQLite or PostgreSQL, which many processes may share."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prepare(self, resolution: int) -> None:
        """Make the tables, and write down or check what they are for."""
        await self._database.create(*_TABLES)
        async with self._database.transaction("llm_costs") as transaction:
            rows = await transaction.fetch("SELECT version, resolution FROM llm_costs_schema")
            if not rows:
                insert = "INSERT INTO llm_costs_schema (version, resolution) VALUES ($1, $2)"
                await transaction.execute(insert, VERSION, resolution)
        for row in rows:
            _check(_integer(row, "version"), _integer(row, "resolution"), resolution)

    async def add(self, writer: str, batch: int, entries: Sequence[Entry]) -> None:
        """Add *entries* once, in one transaction."""
        rows = sorted(map(_row, entries))
        async with self._database.transaction() as transaction:
            if await transaction.execute(_NEXT, writer, batch):
                await transaction.execute_many(_ADD, rows)

    async def sums(self, since: int, until: int) -> dict[Series, Cost]:
        """Return the sums by series."""
        rows = await self._database.fetch(_SUMS, since, until)
        return {_series(row): _cost(row) for row in rows}


VERSION: Final = 1
"""Of the tables below. A change of them is a new number, and a way from the old one."""

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS llm_costs_schema (version BIGINT NOT NULL, resolution BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS llm_costs_writers (writer TEXT PRIMARY KEY, batch BIGINT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS llm_costs (
        bucket BIGINT NOT NULL,
        labels TEXT NOT NULL,
        calls BIGINT NOT NULL,
        estimated BIGINT NOT NULL,
        unpriced BIGINT NOT NULL,
        input_tokens BIGINT NOT NULL,
        cached_input_tokens BIGINT NOT NULL,
        cache_write_tokens BIGINT NOT NULL,
        cache_write_1h_tokens BIGINT NOT NULL,
        output_tokens BIGINT NOT NULL,
        usd_e9 BIGINT NOT NULL,
        usd_e18 BIGINT NOT NULL,
        usd_e27 BIGINT NOT NULL,
        PRIMARY KEY (bucket, labels)
    )""",
)
_NEXT: Final = """
    INSERT INTO llm_costs_writers (writer, batch) VALUES ($1, $2)
    ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch
    WHERE llm_costs_writers.batch < excluded.batch"""
_ADD: Final = """
    INSERT INTO llm_costs VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
    ON CONFLICT (bucket, labels) DO UPDATE SET
        calls = llm_costs.calls + excluded.calls,
        estimated = llm_costs.estimated + excluded.estimated,
        unpriced = llm_costs.unpriced + excluded.unpriced,
        input_tokens = llm_costs.input_tokens + excluded.input_tokens,
        cached_input_tokens = llm_costs.cached_input_tokens + excluded.cached_input_tokens,
        cache_write_tokens = llm_costs.cache_write_tokens + excluded.cache_write_tokens,
        cache_write_1h_tokens = llm_costs.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
        output_tokens = llm_costs.output_tokens + excluded.output_tokens,
        usd_e9 = llm_costs.usd_e9 + excluded.usd_e9,
        usd_e18 = llm_costs.usd_e18 + excluded.usd_e18,
        usd_e27 = llm_costs.usd_e27 + excluded.usd_e27"""
_SUMS: Final = """
    SELECT labels, sum(calls) AS calls, sum(estimated) AS estimated, sum(unpriced) AS unpriced,
        sum(input_tokens) AS input_tokens, sum(cached_input_tokens) AS cached_input_tokens,
        sum(cache_write_tokens) AS cache_write_tokens, sum(cache_write_1h_tokens) AS cache_write_1h_tokens,
        sum(output_tokens) AS output_tokens,
        sum(usd_e9) AS usd_e9, sum(usd_e18) AS usd_e18, sum(usd_e27) AS usd_e27
    FROM llm_costs WHERE bucket >= $1 AND bucket < $2 GROUP BY labels ORDER BY labels"""

_BILLION: Final = 10**9


def labels_text(series: Series) -> str:
    """Return *series* as a database keeps it: JSON in ASCII, which any text column takes.

    >>> labels_text((("model", "small"), ("tenant", "Zoë")))
    '{"model":"small","tenant":"Zo\\\\u00eb"}'
    """
    return json.dumps(dict(series), separators=(",", ":"))


def _check(version: int, found: int, resolution: int) -> None:
    if version != VERSION:
        raise ConfigurationError(
            f"this ledger's tables are of version {version}, and this library writes version {VERSION}"
        )
    if found != resolution:
        raise ConfigurationError(
            f"this ledger keeps sums of {found} seconds, not of {resolution}: "
            f"pass LedgerPolicy(resolution={found}), or begin another"
        )


def _row(entry: Entry) -> tuple[Any, ...]:
    bucket, series, cost = entry
    usage = cost.usage
    return (
        *(bucket, labels_text(series), cost.calls, cost.estimated, cost.unpriced),
        *(usage.input_tokens, usage.cached_input_tokens),
        *(usage.cache_write_tokens, usage.cache_write_1h_tokens, usage.output_tokens),
        *_parts(cost.usd),
    )


def _parts(usd: Decimal) -> tuple[int, int, int]:
    """Return *usd* as multiples of 1e-9, 1e-18 and 1e-27 dollars. No price has more digits (see `ModelPrice`)."""
    with localcontext(EXACT):
        billionths, finest = divmod(int(usd.scaleb(27)), _BILLION**2)
    return (billionths, *divmod(finest, _BILLION))


def _series(row: Row) -> Series:
    return tuple(json.loads(cast(str, row["labels"])).items())


def _cost(row: Row) -> Cost:
    parts = [_integer(row, f"usd_e{digits}") * 10 ** (27 - digits) for digits in (9, 18, 27)]
    counts: Mapping[str, int] = {name: _integer(row, name) for name in Usage.model_fields}
    with localcontext(EXACT):
        usd = Decimal(sum(parts)).scaleb(-27).normalize()
    return Cost(
        calls=_integer(row, "calls"),
        usage=Usage(**counts),
        usd=usd,
        estimated=_integer(row, "estimated"),
        unpriced=_integer(row, "unpriced"),
    )


def _integer(row: Row, name: str) -> int:
    return int(cast(int, row[name]))
