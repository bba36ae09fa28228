"""When one process has found a dependency sick, must each of the others find out for itself?

A `BreakerSharing` tells the breakers of a fleet each other's verdicts through a store: open until, of which generation,
and who may probe. Counts stay where they are, so the processes need not agree on anything else. One task in each
process writes what its breakers decided and reads what others did; a call never waits for it.

Invariants, held for any interleaving of decisions, delays and losses of the store:

1. What one process decides, every other has adopted within `poll_interval` and two round trips, while the store
   answers: one to finish what was under way and write, one to read.
2. Of verdicts written at one time, one holds everywhere. What is older than what a process knows changes nothing there.
3. While the store answers, at most one process probes; it holds a lease, which runs out if the process dies.
4. Without the store, each breaker decides as if it were alone, at once: no call is refused or delayed for its absence.

>>> import asyncio
>>> from llm_patterns.resilience import BreakerPolicy, CircuitBreakers
>>> from llm_patterns.stores import MemoryVerdicts
>>> async def main():
...     async with BreakerSharing(MemoryVerdicts()) as sharing:  # ValkeyVerdicts("redis://...") in a service
...         return CircuitBreakers(BreakerPolicy(), sharing=sharing).of("openai", "gpt-6").available()
>>> asyncio.run(main())
True
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from llm_patterns import clock
from llm_patterns.errors import ConfigurationError
from llm_patterns.events import EventHook, emit
from llm_patterns.resilience.circuit_breaker import CircuitBreaker
from llm_patterns.stores.verdicts import Verdict, VerdictStore

__all__ = ["BreakerSharing", "SharingLost", "SharingPolicy", "SharingRestored"]

R = TypeVar("R")
_LEASE: Final = 10
"""A lease outlives so many exchanges: time for the few probes of a quiet process, and short beside an open time."""


class SharingPolicy(BaseModel):
    """How closely processes agree, and how long the store may take.

    >>> SharingPolicy().poll_interval
    1.0
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    poll_interval: float = Field(
        default=1.0,
        ge=0.05,
        le=60,
        description="Seconds between looks at the store; with two round trips, how long processes disagree at most. "
        "Below 0.05 the looks are a load; 1 is a small part of any open time.",
    )
    timeout: float = Field(
        default=0.5,
        gt=0,
        le=10,
        description="Seconds in which the store must answer, or it counts as away until it does. No call waits for it.",
    )


@dataclass(frozen=True, slots=True)
class SharingLost:
    """The store does not answer: from now on each breaker decides alone."""

    reason: str


@dataclass(frozen=True, slots=True)
class SharingRestored:
    """The store answers again, after `away` seconds."""

    away: float


SharingEvent = SharingLost | SharingRestored


class BreakerSharing:
    """Lets the breakers that are given it agree with those of other processes that use the same *store* and keys.

    Use it as a context: inside, its task exchanges verdicts with the store; outside, each breaker decides alone.
    """

    def __init__(
        self,
        store: VerdictStore,
        policy: SharingPolicy | None = None,
        *,
        on_event: EventHook[SharingEvent] | None = None,
    ) -> None:
        self.policy = policy or SharingPolicy()
        self._store = store
        self._on_event = on_event
        self._links: dict[CircuitBreaker, _Link] = {}
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._me = ""
        self._away_since: float | None = None
        self._lost = False

    @property
    def connected(self) -> bool:
        """Whether verdicts are shared: the task runs, and the store answered it last."""
        return self._task is not None and self._away_since is None

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError(
                "this BreakerSharing is entered already: one context serves a process"
            )
        self._me = f"{clock.rng().getrandbits(64):016x}"
        self._away_since = asyncio.get_running_loop().time()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *error: object) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def join(self, breaker: CircuitBreaker) -> None:
        """Share the verdicts of *breaker*, under its key."""
        if not breaker.key:
            raise ConfigurationError(
                "a breaker that is shared needs a key, the same in each process"
            )
        self._links[breaker] = _Link()

    def forget(self, breaker: CircuitBreaker) -> None:
        """Share them no longer."""
        self._links.pop(breaker, None)

    def opened(self, breaker: CircuitBreaker, open_for: float) -> None:
        """Note that it opened; the task tells the others."""
        self._note(breaker, asyncio.get_running_loop().time() + open_for)

    def closed(self, breaker: CircuitBreaker) -> None:
        """Note that it closed."""
        self._note(breaker, None)

    def wait_to_probe(self, breaker: CircuitBreaker) -> float:
        """Return the seconds until it may probe; if it has no lease, one is asked for in the meantime."""
        link, now = self._links.get(breaker), asyncio.get_running_loop().time()
        if link is None or not self.connected or now < link.lease_until:
            return 0.0
        if not link.wants_lease and now >= link.denied_until:
            self._wake.set()
        link.wants_lease = True
        return self.policy.poll_interval

    def _note(self, breaker: CircuitBreaker, until: float | None) -> None:
        link = self._links.get(breaker)
        if link is not None:
            link.untold = _Decision(until)
            link.lease_until = -math.inf
            self._wake.set()

    async def _run(self) -> None:
        time = asyncio.get_running_loop().time
        while True:
            began = time()
            self._wake.clear()
            try:
                await self._exchange()
            except Exception as error:  # whatever it is, calls go on without the store
                self._note_lost(error)
            else:
                self._note_restored()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(began + self.policy.poll_interval):
                    await self._wake.wait()

    async def _exchange(self) -> None:
        async with asyncio.TaskGroup() as group:
            for breaker, link in self._links.items():
                if link.untold is not None:
                    group.create_task(self._tell(breaker, link, link.untold))
        verdicts = await self._asked(self._store.read([each.key for each in self._links]))
        for breaker, link in list(self._links.items()):
            if breaker.key in verdicts:
                self._hear(breaker, link, verdicts[breaker.key])
        async with asyncio.TaskGroup() as group:
            for breaker, link in self._links.items():
                if link.wants_lease or self._is_probing(breaker, link):
                    group.create_task(self._claim(breaker, link))

    async def _tell(self, breaker: CircuitBreaker, link: _Link, decision: _Decision) -> None:
        store, known = self._store, link.known
        if decision.until is None:
            verdict = await self._asked(store.close(breaker.key, known=known, by=self._me))
        else:
            left = max(0.0, decision.until - asyncio.get_running_loop().time())
            verdict = await self._asked(
                store.open(breaker.key, known=known, open_for=left, by=self._me)
            )
        if verdict.by == self._me and link.untold is decision:
            link.untold = None
        self._hear(breaker, link, verdict)

    def _hear(self, breaker: CircuitBreaker, link: _Link, verdict: Verdict) -> None:
        if verdict.generation < link.known and link.wants_lease:
            # The store has forgotten it, so there is nothing to claim: decide anew that a probe is due.
            self._note(breaker, asyncio.get_running_loop().time())
        if verdict.generation <= link.known:
            return
        link.known = verdict.generation
        if verdict.by == self._me:
            return
        opened = link.untold is not None and link.untold.until is not None
        if opened and verdict.open_for is None:
            return  # the others closed before they could hear of this opening: it is told next
        link.untold, link.lease_until = None, -math.inf
        if not opened:
            breaker.adopt(verdict.open_for)

    async def _claim(self, breaker: CircuitBreaker, link: _Link) -> None:
        now = asyncio.get_running_loop().time()
        lease = _LEASE * (self.policy.poll_interval + self.policy.timeout)
        known = link.known
        link.wants_lease = False
        granted = await self._asked(
            self._store.claim(breaker.key, known=known, by=self._me, lease=lease)
        )
        if not granted:
            link.denied_until = now + self.policy.poll_interval
        elif link.known == known and link.untold is None:
            link.lease_until = now + lease

    def _is_probing(self, breaker: CircuitBreaker, link: _Link) -> bool:
        held = asyncio.get_running_loop().time() < link.lease_until
        return held and breaker.statistics().probes_in_flight > 0

    async def _asked(self, answer: Awaitable[R]) -> R:
        async with asyncio.timeout(self.policy.timeout):
            return await answer

    def _note_lost(self, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = asyncio.get_running_loop().time()
        if not self._lost:
            self._lost = True
            emit(self._on_event, SharingLost(_reason(error)))

    def _note_restored(self) -> None:
        now = asyncio.get_running_loop().time()
        away = now - (now if self._away_since is None else self._away_since)
        self._away_since = None
        if self._lost:
            self._lost = False
            emit(self._on_event, SharingRestored(away))


@dataclass(frozen=True, slots=True, eq=False)
class _Decision:
    """What a breaker decided: open until a loop time, or closed."""

    until: float | None


class _Link:
    """What is known of one key, and not told yet."""

    __slots__ = ("denied_until", "known", "lease_until", "untold", "wants_lease")

    def __init__(self) -> None:
        self.known = 0
        self.untold: _Decision | None = None
        self.wants_lease = False
        self.lease_until = -math.inf
        self.denied_until = -math.inf


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
