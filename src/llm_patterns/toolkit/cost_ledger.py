"""What has it all cost, in every process and after every restart? Sums in a database, exact to the last digit.

A tracker hands each call to the ledger, which adds it to the sum of its labels and hour, in memory, and so never waits.
One task writes the sums behind, in numbered batches: a batch whose confirmation got lost is written again and counts
once. Sums instead of calls, because a call is worth a few bytes then, not a row: for single calls there are traces.

Invariants, held for any interleaving of calls, writes, failures and cancellations:

1. Recording neither waits nor raises. What was recorded is either written or still pending.
2. After `flush` returns, all that was recorded before it is in the store, once.
3. While the store is away nothing is dropped. There are at most `max_pending` sums, and one for each hour in which more
   would have been needed: what does not fit loses its labels, never its dollars.
4. Closing ends within `close_timeout`, and raises `CostsNotWritten` with what could not be written.

A process that is killed loses what it recorded since the last write: `flush_interval`, if the store is there.

>>> import asyncio
>>> from llm_patterns.chat import Usage
>>> from llm_patterns.toolkit import CostTracker, MemoryCostStore
>>> async def main():
...     async with CostLedger(MemoryCostStore()) as ledger:  # or "sqlite:///costs.db", or "postgresql://..."
...         costs = CostTracker(ledger=ledger)
...         with costs.labels(tenant="acme"):
...             costs.record(Usage(input_tokens=500, output_tokens=200), "gpt-4o")
...         await ledger.flush()
...         return await ledger.total(by="tenant")
>>> asyncio.run(main())["acme"].usd
Decimal('0.00325')
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import RLock
from types import TracebackType
from typing import Final, Literal, Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

from llm_patterns import clock
from llm_patterns.errors import LLMPatternsError, StoreUnavailable
from llm_patterns.events import EventHook, emit
from llm_patterns.stores.sql import Database, open_database
from llm_patterns.toolkit.cost_store import (
    CostStore,
    Entry,
    SQLCostStore,
    labels_text,
)
from llm_patterns.toolkit.costs import OVERFLOW_SERIES, Cost, CostStatistics, Series

__all__ = [
    "CostLedger",
    "CostsNotWritten",
    "LabelsDropped",
    "LedgerEvent",
    "LedgerPolicy",
    "LedgerStatistics",
    "LedgerWriteFailed",
    "LedgerWritten",
]

_LOG = logging.getLogger(__name__)

MAX_LABELS_SIZE: Final = 2_000
"""Bytes of a series' labels. PostgreSQL's index takes no longer key, and one that it refuses would stop all others."""


class CostsNotWritten(LLMPatternsError):
    """The ledger was closed before all of it was confirmed; `entries` are what is missing.

    The store may have up to `max_batch` of them all the same: those of a batch whose confirmation got lost.
    """

    def __init__(self, entries: tuple[Entry, ...]) -> None:
        self.entries = entries
        cost = sum((entry.cost for entry in entries), Cost())
        super().__init__(
            f"the ledger did not confirm {cost.calls} calls of {cost.usd} dollars; "
            "they are in this error's entries"
        )


class LedgerPolicy(BaseModel):
    """How a ledger is written."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    resolution: Literal[60, 3_600, 86_400] = Field(
        default=3_600,
        description="Seconds of one sum, which is also what a period is made of: a minute, an hour or a day (UTC). "
        "It belongs to the ledger, not to the process. A minute takes up to 60 times the room of an hour.",
    )
    flush_interval: float = Field(
        default=1.0,
        ge=0.01,
        le=60,
        description="Seconds between writes, and so what a process that is killed may lose.",
    )
    max_pending: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Sums kept in memory while the store is away, about a kilobyte each. "
        "Further calls are added up without their labels.",
    )
    max_batch: int = Field(
        default=500,
        ge=1,
        le=10_000,
        description="Sums in one transaction. Well below what the database writes within its time-out.",
    )
    close_timeout: float = Field(
        default=5.0,
        gt=0,
        le=300,
        description="Seconds that closing may take to write what is pending. Below what a deployment leaves a "
        "process to end.",
    )


@dataclass(frozen=True, slots=True)
class LedgerWritten:
    """The store has confirmed `calls` calls in `entries` sums."""

    calls: int
    entries: int


@dataclass(frozen=True, slots=True)
class LedgerWriteFailed:
    """A write failed with `error`; `pending` calls wait for the next one."""

    error: Exception
    pending: int


@dataclass(frozen=True, slots=True)
class LabelsDropped:
    """There was no room to keep `series` apart, or its labels are too long: `cost` is in the series "(other)"."""

    series: Series
    cost: Cost


LedgerEvent = LedgerWritten | LedgerWriteFailed | LabelsDropped
"""What `on_event` hears."""


@dataclass(frozen=True, slots=True)
class LedgerStatistics:
    """Calls since this ledger was opened: `recorded` is always `written` and `pending` together.

    `entries` is how many sums the pending ones make, `lag` the seconds since the oldest of them was recorded,
    `unlabelled` the calls that lost their labels, and `failures` the writes that failed since the last good one.
    """

    recorded: int
    written: int
    pending: int
    entries: int
    lag: float
    unlabelled: int
    failures: int


class CostLedger:
    """Writes down what a `CostTracker` counts, and reads the sums of all processes.

    *store* is the URL of a database (`sqlite:///costs.db`, `postgresql://...`), a `Database`, or another store. What is
    no URL is closed by who made it. Use it as a context manager, opened in the process that records.
    """

    def __init__(
        self,
        store: str | Database | CostStore = "sqlite:///costs.db",
        policy: LedgerPolicy | None = None,
        *,
        on_event: EventHook[LedgerEvent] | None = None,
    ) -> None:
        self.policy = policy or LedgerPolicy()
        opened = open_database(store) if isinstance(store, str) else store
        self._own = opened if isinstance(store, str) and isinstance(opened, Database) else None
        self._store = SQLCostStore(opened) if isinstance(opened, Database) else opened
        self._on_event = on_event
        # From the system, not from `clock.rng()`: processes that are forked from one would draw the same.
        self._writer = uuid4().hex
        self._batch = 0
        self._batches: deque[tuple[Entry, ...]] = deque()
        self._pending: dict[tuple[int, Series], Cost] = {}
        self._pending_since: float | None = None
        self._taken_since: float | None = None
        self._lock = RLock()  # recording may come from any thread, and from a finalizer
        self._writing = asyncio.Lock()
        self._prepared = False
        self._task: asyncio.Task[None] | None = None
        self._recorded = self._written = self._unlabelled = self._failures = 0

    def record(self, series: Series, cost: Cost, *, at: float) -> None:
        """Add *cost* to the sum of *series* in the bucket of that second since the epoch."""
        bucket = int(at // self.policy.resolution) * self.policy.resolution
        with self._lock:
            kept = series if self._has_room(bucket, series) else OVERFLOW_SERIES
            self._pending[bucket, kept] = self._pending.get((bucket, kept), Cost()) + cost
            self._pending_since = self._pending_since or clock.now()
            self._recorded += cost.calls
            self._unlabelled += cost.calls if kept != series else 0
        if kept != series:
            emit(self._on_event, LabelsDropped(series, cost))

    async def flush(self) -> None:
        """Return when all that was recorded before is in the store; raises `StoreUnavailable` if that fails now.

        What was not written then stays pending. It may be called from any task, and cancelled.
        """
        try:
            async with self._writing:
                await self._prepare()
                await self._write()
                self._take()
                await self._write()
        except Exception as error:
            self._note(error)
            raise
        self._failures = 0

    async def read(
        self, *, since: datetime | None = None, until: datetime | None = None
    ) -> CostStatistics:
        """Return what is in the store, of all processes: from *since* on, before *until*.

        Both must be whole buckets. What this process has recorded since its last flush is not in it. Raises
        `StoreUnavailable`.
        """
        start, end = self._bucket(since, -(2**62)), self._bucket(until, 2**62)
        await self._prepare()
        return CostStatistics(await self._store.sums(start, end))

    async def total(
        self, *, by: str, since: datetime | None = None, until: datetime | None = None
    ) -> dict[str, Cost]:
        """Return the costs in the store by value of the label *by*, such as `tenant` or `model`; see `read`."""
        return (await self.read(since=since, until=until)).by(by)

    async def close(self) -> None:
        """Write what is pending, and end. Raises `CostsNotWritten` if that could not be done in time."""
        failure: Exception | None = None
        try:
            async with asyncio.timeout(self.policy.close_timeout):
                await self._stop()
                await self.flush()
        except Exception as error:
            failure = error
        finally:
            await self._release()
        self._take()
        if self._batches:
            raise CostsNotWritten(
                tuple(each for batch in self._batches for each in batch)
            ) from failure

    def statistics(self) -> LedgerStatistics:
        """Return the counts so far, and what is pending now."""
        with self._lock:
            since = self._taken_since or self._pending_since
            return LedgerStatistics(
                recorded=self._recorded,
                written=self._written,
                pending=self._recorded - self._written,
                entries=len(self._pending) + sum(map(len, self._batches)),
                lag=0.0 if since is None else clock.now() - since,
                unlabelled=self._unlabelled,
                failures=self._failures,
            )

    async def __aenter__(self) -> Self:
        try:
            with suppress(StoreUnavailable):  # it may come; calls are recorded meanwhile
                await self._prepare()
        except BaseException:
            await self._release()
            raise
        self._task = asyncio.create_task(self._write_behind(), name="cost ledger")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except CostsNotWritten as lost:
            if error is None:
                raise
            error.add_note(f"{lost!r}")

    async def _write_behind(self) -> None:
        while True:
            await asyncio.sleep(self.policy.flush_interval)
            with suppress(Exception):  # told by `flush`; the calls are pending still
                await self.flush()

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _release(self) -> None:
        if self._own is not None:
            await self._own.close()

    async def _prepare(self) -> None:
        if not self._prepared:
            await self._store.prepare(self.policy.resolution)
            self._prepared = True

    def _take(self) -> None:
        """Make batches of what is pending. From now on they stay as they are: their numbers stand for them."""
        with self._lock:
            pending, self._pending = self._pending, {}
            self._taken_since = self._taken_since or self._pending_since
            self._pending_since = None
            entries = [Entry(bucket, series, cost) for (bucket, series), cost in pending.items()]
            for start in range(0, len(entries), self.policy.max_batch):
                self._batches.append(tuple(entries[start : start + self.policy.max_batch]))

    async def _write(self) -> None:
        while self._batches:
            batch = self._batches[0]
            await self._store.add(self._writer, self._batch + 1, batch)
            self._confirmed(batch)

    def _confirmed(self, batch: tuple[Entry, ...]) -> None:
        calls = sum(entry.cost.calls for entry in batch)
        with self._lock:
            self._batch += 1
            self._batches.popleft()
            self._written += calls
            if not self._batches:
                self._taken_since = None
        emit(self._on_event, LedgerWritten(calls, len(batch)))

    def _note(self, error: Exception) -> None:
        self._failures += 1
        pending = self.statistics().pending
        if pending and self._failures == 1:
            _LOG.warning("costs are not being written; %d calls are pending: %r", pending, error)
        emit(self._on_event, LedgerWriteFailed(error, pending))

    def _has_room(self, bucket: int, series: Series) -> bool:
        if (bucket, series) in self._pending:
            return True
        waiting = len(self._pending) + sum(map(len, self._batches))
        return waiting < self.policy.max_pending and len(labels_text(series)) <= MAX_LABELS_SIZE

    def _bucket(self, at: datetime | None, otherwise: int) -> int:
        if at is None:
            return otherwise
        if at.tzinfo is None:
            raise ValueError(
                f"{at} has no time zone: a period of a ledger is in UTC or says otherwise"
            )
        seconds = at.timestamp()
        if seconds % self.policy.resolution:
            whole = datetime.fromtimestamp(
                seconds // self.policy.resolution * self.policy.resolution, UTC
            )
            raise ValueError(
                f"{at} would divide a sum of {self.policy.resolution} seconds; the one it is in begins at {whole}"
            )
        return int(seconds)
