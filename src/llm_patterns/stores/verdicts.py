"""Which circuits are open, as all processes agree: one small record for each key, and the rule of what may replace it.

A verdict has a generation, and only one who has seen the latest may write the next: of two processes that decide at the
same time, one is first and the other learns so. Open times are counted by the store's own clock, so that no two clocks
are compared. When an open time is over, one process at a time may claim the right to probe.

>>> import asyncio
>>> async def main():
...     store = MemoryVerdicts()
...     opened = await store.open("openai", known=0, open_for=30, by="a")
...     late = await store.close("openai", known=0, by="b")
...     return late.by, await store.close("openai", known=opened.generation, by="b")
>>> asyncio.run(main())
('a', Verdict(generation=2, open_for=None, by='b'))
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

__all__ = ["MemoryVerdicts", "Verdict", "VerdictStore"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided last: open for `open_for` more seconds (0 when a probe is due), or closed (None).

    Where nothing ever was, the generation is 0.
    """

    generation: int
    open_for: float | None
    by: str = ""
    """Who decided."""


class VerdictStore(Protocol):
    """Where verdicts are kept. Each method is atomic; all but `read` return the verdict that then holds.

    Raises `StoreUnavailable` where the store cannot be reached.
    """

    async def read(self, keys: Sequence[str]) -> Mapping[str, Verdict]:
        """Return the verdict on each of *keys*."""

    async def open(self, key: str, *, known: int, open_for: float, by: str) -> Verdict:
        """Open for so many seconds, if no generation is newer than *known*."""

    async def close(self, key: str, *, known: int, by: str) -> Verdict:
        """Close, if no generation is newer than *known*."""

    async def claim(self, key: str, *, known: int, by: str, lease: float) -> bool:
        """Let *by* probe for *lease* seconds, if *known* is the latest and its open time is over.

        Only when that lease is over may another; who holds one prolongs it.
        """


class MemoryVerdicts:
    """Verdicts in this process, for simulations and tests; *round_trip* is the seconds that an answer takes."""

    def __init__(self, *, round_trip: float = 0.0) -> None:
        self.round_trip = round_trip
        self._records: dict[str, _Record] = {}

    async def read(self, keys: Sequence[str]) -> Mapping[str, Verdict]:
        """Return the verdict on each of *keys*."""
        await self._travel()
        verdicts = {key: self._verdict(key) for key in keys}
        await self._travel()
        return verdicts

    async def open(self, key: str, *, known: int, open_for: float, by: str) -> Verdict:
        """Open, if no generation is newer than *known*."""
        return await self._decide(key, known, open_for, by)

    async def close(self, key: str, *, known: int, by: str) -> Verdict:
        """Close, if no generation is newer than *known*."""
        return await self._decide(key, known, None, by)

    async def claim(self, key: str, *, known: int, by: str, lease: float) -> bool:
        """Let *by* probe, if nobody else does."""
        await self._travel()
        record = self._records.get(key, _UNDECIDED)
        now = asyncio.get_running_loop().time()
        free = record.until is not None and (by == record.prober or now >= record.until)
        granted = free and record.generation == known
        if granted:
            self._records[key] = replace(record, until=now + lease, prober=by)
        await self._travel()
        return granted

    async def _decide(self, key: str, known: int, open_for: float | None, by: str) -> Verdict:
        await self._travel()
        generation = self._verdict(key).generation
        if generation <= known:
            until = None if open_for is None else asyncio.get_running_loop().time() + open_for
            self._records[key] = _Record(generation + 1, until, by)
        verdict = self._verdict(key)
        await self._travel()
        return verdict

    def _verdict(self, key: str) -> Verdict:
        record = self._records.get(key, _UNDECIDED)
        if record.until is None:
            return Verdict(record.generation, None, record.by)
        left = record.until - asyncio.get_running_loop().time()
        return Verdict(record.generation, max(0.0, left), record.by)

    async def _travel(self) -> None:
        if self.round_trip:
            await asyncio.sleep(self.round_trip / 2)


@dataclass(frozen=True, slots=True)
class _Record:
    generation: int
    until: float | None
    by: str = ""
    prober: str = ""


_UNDECIDED = _Record(0, None)
