"""Which answer given before is still good enough to give again, and how old may it be?

Two bounds, as in HTTP: up to `fresh` an answer is as good as new; up to `stale` it is better than none; after that it
is gone. Of calls that ask the same at once, one goes to the provider and the others wait for it.

Invariants, for any interleaving of calls, failures and cancellations:

1. No answer is given that is older than `stale`, nor as fresh one that is older than `fresh`.
2. It never holds more than `max_entries`; the least recently used go first.
3. Of the calls that fill one key, at most one is in flight; it is cancelled when nobody waits for it any more.

The key is the caller's: everything that the answer depends on belongs into it, tenant and prompt version included.

>>> cache = StaleCache(StaleCachePolicy(fresh=60, stale=3600), key=lambda question: ("tenant", "v3", question))
>>> cache.put("why?", "because", now=0.0)
>>> cache.get("why?", now=100.0)
Cached(value='because', age=100.0)
>>> cache.get("why?", now=3601.0) is None
True

Source: Nottingham, "HTTP Cache-Control Extensions for Stale Content" (RFC 5861, 2010).
"""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llm_patterns.errors import ErrorKind, LLMPatternsError

__all__ = ["CacheMiss", "Cached", "StaleCache", "StaleCachePolicy", "StaleCacheStatistics"]

Q = TypeVar("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class CacheMiss(LLMPatternsError):
    """No answer to this is held, or none that is young enough. The kind is `REFUSED`: nothing was asked."""

    kind = ErrorKind.REFUSED

    def __init__(self, stale: float) -> None:
        self.stale = stale
        super().__init__(f"no answer of the last {stale:g} s is held")


class StaleCachePolicy(BaseModel):
    """How old an answer may be, and how many are kept.

    >>> StaleCachePolicy(fresh=60, stale=3600).max_entries
    10000
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    fresh: float = Field(
        ge=0,
        le=86_400,
        description="Seconds for which an answer is as good as a new one, and given instead. 0 asks each time. "
        "No default: a price changes in minutes, a definition in years.",
    )
    stale: float = Field(
        gt=0,
        le=604_800,
        description="Seconds after which an answer is gone, whatever else is down. No default: ask who is answerable "
        "for a wrong one. Above a week it is an archive.",
    )
    max_entries: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Answers kept in memory. 10,000 of two kilobytes are 20 MB.",
    )

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if self.fresh > self.stale:
            raise ValueError(
                f"fresh is {self.fresh} s and stale {self.stale} s: an answer can't be fresh when it is gone"
            )
        return self


@dataclass(frozen=True, slots=True)
class Cached(Generic[R_co]):
    """An answer given before, and its age in seconds."""

    value: R_co
    age: float


@dataclass(frozen=True, slots=True)
class StaleCacheStatistics:
    """Counts since the beginning, and the entries now. `joined` calls waited for another's answer."""

    entries: int
    fresh_hits: int
    stale_hits: int
    misses: int
    evicted: int
    joined: int


class _Flight(Generic[R]):
    """A call that several may wait for."""

    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[R]) -> None:
        self.task = task
        self.waiting = 0


class StaleCache(Generic[Q, R]):
    """Answers with their age, in memory. It belongs to one event loop; only `fill` and `recall` are awaited.

    *key* makes of a request what its answer depends on. A ladder asks it for fresh answers and fills it; `recall` is
    the call of a level that gives stale ones.
    """

    def __init__(self, policy: StaleCachePolicy, *, key: Callable[[Q], Hashable]) -> None:
        self.policy = policy
        self._key = key
        self._entries: OrderedDict[Hashable, tuple[R, float]] = OrderedDict()
        self._flights: dict[Hashable, _Flight[R | Cached[R]]] = {}
        self._fresh_hits = self._stale_hits = self._misses = self._evicted = self._joined = 0

    def get(self, request: Q, now: float) -> Cached[R] | None:
        """Return the answer to *request*, if one is held that is not too old."""
        key = self._key(request)
        entry = self._entries.get(key)
        if entry is None:
            return None
        age = now - entry[1]
        if age > self.policy.stale:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return Cached(entry[0], age)

    def fresh(self, request: Q, now: float) -> Cached[R] | None:
        """Return the answer to *request*, if one is held that is as good as new."""
        if not self.policy.fresh:
            return None
        held = self.get(request, now)
        if held is None or held.age > self.policy.fresh:
            return None
        self._fresh_hits += 1
        return held

    async def recall(self, request: Q) -> R | Cached[R]:
        """Return the answer to *request* with its age, fresh or stale; raises `CacheMiss`. The call of a level."""
        held = self.get(request, get_running_loop().time())
        if held is None:
            self._misses += 1
            raise CacheMiss(self.policy.stale)
        self._stale_hits += 1
        return held

    def put(self, request: Q, value: R, now: float) -> None:
        """Hold *value* as the answer to *request*, of this moment."""
        key = self._key(request)
        self._entries[key] = (value, now)
        self._entries.move_to_end(key)
        if len(self._entries) > self.policy.max_entries:
            self._entries.popitem(last=False)
            self._evicted += 1

    async def fill(
        self,
        request: Q,
        call: Callable[[Q], Awaitable[R | Cached[R]]],
        *,
        accept: Callable[[R], bool] | None = None,
    ) -> R | Cached[R]:
        """Return what `call(request)` returns, made once for all who ask the same meanwhile; hold it if accepted."""
        key = self._key(request)
        flight = self._flights.get(key)
        if flight is None:
            flight = _Flight(asyncio.ensure_future(self._fetch(request, call, accept)))
            self._flights[key] = flight
        else:
            self._joined += 1
        flight.waiting += 1
        try:
            await asyncio.wait(
                [flight.task]
            )  # one waiter's time-out must not end what the others wait for
            return flight.task.result()
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                flight.task.cancel()
                if self._flights.get(key) is flight:
                    del self._flights[key]

    def statistics(self) -> StaleCacheStatistics:
        """Return the counts so far."""
        return StaleCacheStatistics(
            entries=len(self._entries),
            fresh_hits=self._fresh_hits,
            stale_hits=self._stale_hits,
            misses=self._misses,
            evicted=self._evicted,
            joined=self._joined,
        )

    async def _fetch(
        self,
        request: Q,
        call: Callable[[Q], Awaitable[R | Cached[R]]],
        accept: Callable[[R], bool] | None,
    ) -> R | Cached[R]:
        began = get_running_loop().time()  # an answer is as old as what it was made of
        answer = await call(request)
        if not isinstance(answer, Cached) and (accept is None or accept(answer)):
            self.put(request, answer, began)
        return answer
