"""Which prompt is in production, who put it there, and can what was there before be put back without a deployment?

Prompts are saved as immutable versions, identified by the SHA-256 of their content and numbered for each name. Labels
such as `production` point to versions, and are moved, conditionally if asked, with a history of who, when and why.
A call reads its prompt by label from a cache that asks the store once in a while; while the store is away, it goes on
with the last version known, says so, and says how old that knowledge is.

Invariants, held for any interleaving of readers, writers, cancellations and losses of the store (those of the
versions and labels themselves are in `prompt_store`):

1. What is served without the mark `stale` was in the store within the last `cache_ttl` plus `timeout` seconds.
2. What is served at all was in the store within the last `max_staleness` seconds.
3. No reader waits for the store longer than `timeout`, and within `retry_interval` of a failure none waits at all.
4. Who has moved a label reads it moved.

>>> import asyncio
>>> from llm_patterns.toolkit.prompt_store import MemoryPromptStore
>>> async def main():
...     async with PromptRegistry(MemoryPromptStore()) as registry:
...         version = await registry.save("answer", Prompt("Answer {{question}}", model="small"), by="ada")
...         await registry.move("answer", "production", version.number, by="ada", why="first")
...         served = await registry.get("answer")
...         return served.version.number, served.prompt.render(question="why?")[0].content
>>> asyncio.run(main())
(1, 'Answer why?')
"""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llm_patterns import clock
from llm_patterns.errors import ConfigurationError, StoreUnavailable
from llm_patterns.events import EventHook, emit
from llm_patterns.stores import open_database
from llm_patterns.toolkit.prompt_store import (
    Labelled,
    LabelMove,
    PromptNotFound,
    PromptSave,
    PromptStore,
    PromptVersion,
    Signature,
)
from llm_patterns.toolkit.prompt_tables import SQLPromptStore
from llm_patterns.toolkit.prompts import Prompt, prompt_diff

__all__ = [
    "PromptRegistry",
    "RegistryEvent",
    "RegistryPolicy",
    "RegistryStatistics",
    "ServedPrompt",
    "StaleServed",
]

K = TypeVar("K")
V = TypeVar("V")


class RegistryPolicy(BaseModel):
    """How long readers may go without asking the store, and how long without an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    cache_ttl: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="Seconds that a label is served without asking. A moved label takes this long to reach every "
        "process, a rollback too. 0 asks each time, which makes the store's outage one of every call.",
    )
    timeout: float = Field(
        default=2.0,
        gt=0,
        le=60,
        description="Seconds that a reader waits for the store: one of them, while the others are served.",
    )
    retry_interval: float = Field(
        default=5.0,
        ge=0.1,
        le=3600,
        description="Seconds after a failure until a reader tries the store again. Above `timeout`, or readers of a "
        "store that hangs do little but wait.",
    )
    max_staleness: float | None = Field(
        default=3600.0,
        ge=0,
        description="Seconds since the store last said so that a version is served while the store is away. Then "
        "reading fails. None serves it for ever.",
    )
    max_cached: int = Field(
        default=1_000,
        ge=1,
        le=100_000,
        description="Labels, and versions by number, kept in memory; those unread for longest go first.",
    )
    max_size_bytes: int = Field(
        default=1_000_000,
        ge=1,
        le=10_000_000,
        description="Size of a prompt. One of a megabyte is a document that was pasted by mistake.",
    )

    @model_validator(mode="after")
    def _what_is_fresh_is_not_too_old(self) -> Self:
        longest = self.cache_ttl + self.timeout
        if self.max_staleness is not None and self.max_staleness < longest:
            raise ValueError(
                f"max_staleness is {self.max_staleness:g} s, and a label may be {longest:g} s old before the store has "
                "not answered: raise it, or lower cache_ttl or timeout"
            )
        return self


@dataclass(frozen=True, slots=True)
class ServedPrompt:
    """A version, the move that put its label there, and how well that is known.

    The store said so `age` seconds ago; it is `stale` if the store was asked since and gave no answer.
    """

    version: PromptVersion
    move: LabelMove
    age: float
    stale: bool

    @property
    def prompt(self) -> Prompt:
        """Return the version's content."""
        return self.version.prompt


@dataclass(frozen=True, slots=True)
class StaleServed:
    """The store is away, and a reader got version `number`, which it last confirmed `age` seconds ago."""

    name: str
    label: str
    number: int
    age: float
    error: StoreUnavailable


RegistryEvent = StaleServed | PromptSave | LabelMove
"""What `on_event` hears: a stale read; and each save and move that this process made, as the history has it."""


@dataclass(frozen=True, slots=True)
class RegistryStatistics:
    """Counts of reads since the beginning: served from the cache, asked of the store, stale, and refused."""

    cached: int
    asked: int
    stale: int
    refused: int


class Step(Enum):
    """What to do with a read."""

    CACHED = auto()
    ASK = auto()
    STALE = auto()
    REFUSE = auto()


def next_step(
    age: float | None, since_failure: float | None, policy: RegistryPolicy, *, asking: bool
) -> Step:
    """Return what to do with a read of what the store confirmed *age* seconds ago (None: never).

    *since_failure* is the seconds since the store gave no answer, or None if the last time it did; *asking* says that
    another reader is asking it now.
    """
    if since_failure is not None:
        if since_failure >= policy.retry_interval and not (asking and age is not None):
            return Step.ASK
        within = policy.max_staleness is None or (age or 0.0) <= policy.max_staleness
        return Step.STALE if age is not None and within else Step.REFUSE
    patience = policy.timeout if asking else 0.0
    return Step.CACHED if age is not None and age < policy.cache_ttl + patience else Step.ASK


@dataclass(slots=True)
class _Entry:
    """What is known of one label."""

    known: Labelled | None = None
    confirmed_at: float = 0.0
    failure: StoreUnavailable | PromptNotFound | None = None
    failed_at: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def next_step(self, now: float, policy: RegistryPolicy, *, asking: bool) -> Step:
        age = None if self.known is None else now - self.confirmed_at
        since_failure = None if self.failure is None else now - self.failed_at
        return next_step(age, since_failure, policy, asking=asking)


class PromptRegistry:
    """Prompts by name: versions, labels, and a cache for those who read by label.

    *store* is the URL of a database (see `llm_patterns.stores.open_database`), which this opens and closes, or a store.
    One registry serves one event loop; as a context manager it is closed at the end.
    """

    def __init__(
        self,
        store: PromptStore | str = "sqlite:///prompts.db",
        policy: RegistryPolicy | None = None,
        *,
        on_event: EventHook[RegistryEvent] | None = None,
    ) -> None:
        self.policy = policy or RegistryPolicy()
        self._store: PromptStore = (
            SQLPromptStore(open_database(store), owned=True) if isinstance(store, str) else store
        )
        self._on_event = on_event
        self._labels: dict[tuple[str, str], _Entry] = {}
        self._versions: dict[tuple[str, int | str], PromptVersion] = {}
        self._reads = dict.fromkeys(Step, 0)

    async def get(self, name: str, label: str = "production") -> ServedPrompt:
        """Return the version that *label* points to, as the store said within the policy's limits.

        Raises `PromptNotFound` where there is no such label, and `StoreUnavailable` where the store is away and
        nothing is known, or nothing recent enough.
        """
        entry = _recent(self._labels, (name, label), self.policy.max_cached, _Entry)
        step = entry.next_step(get_running_loop().time(), self.policy, asking=entry.lock.locked())
        if step is Step.ASK:
            step = await self._ask(name, label, entry)
        self._reads[step] += 1
        if entry.known is None or step is Step.REFUSE:
            assert entry.failure is not None
            raise entry.failure.with_traceback(None)
        return self._served(entry.known, entry, stale=step is Step.STALE)

    async def version(self, name: str, which: int | str) -> PromptVersion:
        """Return the version of *name* with this number or digest, which a trace has: from memory if it is there."""
        found = self._versions.get((name, which))
        return found or self._keep(await self._store.version(name, which))

    async def save(self, name: str, prompt: Prompt, *, by: str, why: str = "") -> PromptVersion:
        """Return the version of *name* with this content: a new one, or the one that was saved before.

        After `StoreUnavailable` it may or may not be saved; saving it again does no harm.
        """
        size_bytes = len(prompt.canonical.encode())
        if size_bytes > self.policy.max_size_bytes:
            raise ConfigurationError(
                f"the prompt has {size_bytes:,} bytes, more than {self.policy.max_size_bytes:,}; "
                "put documents into variables, or raise max_size_bytes"
            )
        version, save = await self._store.save(_named("name", name), prompt, _signed(by, why))
        emit(self._on_event, save)
        return self._keep(version)

    async def move(
        self, name: str, label: str, to: int, *, by: str, why: str, expected: int | None = None
    ) -> LabelMove:
        """Point *label* to version *to*; where it does already, nothing happens and its last move is returned.

        With *expected*, only if it points to that version (0: if it does not exist yet); else `LabelConflict`. Other
        processes follow within `cache_ttl`. After `StoreUnavailable` it may or may not have moved; with *expected*,
        trying again does no harm.
        """
        return await self._move(name, _named("label", label), to, _signed(by, why), expected)

    async def rollback(
        self,
        name: str,
        label: str = "production",
        *,
        by: str,
        why: str,
        expected: int | None = None,
    ) -> LabelMove:
        """Point *label* to where it pointed before.

        Once more goes further back, and never forward to what was rolled back from. So that two people who press
        the button, or one who tries again after `StoreUnavailable`, go back once, say in *expected* which version is
        bad: the second time is a `LabelConflict`.
        """
        return await self._move(name, label, None, _signed(by, why), expected)

    async def diff(self, name: str, before: int | str, after: int | str) -> str:
        """Return what differs between two versions (numbers or digests), as a unified diff."""
        versions = [await self.version(name, which) for which in (before, after)]
        first, second = (f"{name} version {version.number}" for version in versions)
        return prompt_diff(versions[0].prompt, versions[1].prompt, names=(first, second))

    async def labels(self, name: str) -> dict[str, int]:
        """Return the version that each label of *name* points to, from the store."""
        return await self._store.labels(name)

    async def history(self, name: str, *, limit: int = 100) -> list[PromptSave | LabelMove]:
        """Return the last *limit* saves and moves of *name*, the newest first, from the store."""
        return await self._store.history(name, limit)

    async def names(self) -> list[str]:
        """Return all names, from the store."""
        return await self._store.names()

    def statistics(self) -> RegistryStatistics:
        """Return a snapshot."""
        return RegistryStatistics(*(self._reads[step] for step in Step))

    async def close(self) -> None:
        """Let go of the database that this opened."""
        await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _ask(self, name: str, label: str, entry: _Entry) -> Step:
        """Ask the store, unless another reader does: then take what it gets."""
        others = entry.lock.locked()
        limit = asyncio.timeout(self.policy.timeout)
        try:
            async with limit, entry.lock:
                now = get_running_loop().time()
                step = entry.next_step(now, self.policy, asking=others)
                if step is Step.ASK:
                    entry.known = await self._store.labelled(name, label)
                    # The answer may be as old as the question.
                    entry.confirmed_at, entry.failure = now, None
                return step
        except PromptNotFound as error:
            entry.known, entry.failure = None, error
        except StoreUnavailable as error:
            entry.failure = error
        except TimeoutError:
            if not limit.expired():
                raise
            entry.failure = StoreUnavailable(
                "the store of prompts", f"no answer within {self.policy.timeout:g} s"
            )
        entry.failed_at = get_running_loop().time()
        return entry.next_step(entry.failed_at, self.policy, asking=False)

    def _served(self, known: Labelled, entry: _Entry, *, stale: bool) -> ServedPrompt:
        version, move = known
        age = get_running_loop().time() - entry.confirmed_at
        if stale and isinstance(entry.failure, StoreUnavailable):
            told = StaleServed(move.name, move.label, version.number, age, entry.failure)
            emit(self._on_event, told)
        return ServedPrompt(version, move, age, stale)

    async def _move(
        self, name: str, label: str, to: int | None, signature: Signature, expected: int | None
    ) -> LabelMove:
        began = get_running_loop().time()
        moved = await self._store.move(name, label, to, signature, expected=expected)
        self._point(moved, began)
        self._keep(moved.version)
        emit(self._on_event, moved.move)
        return moved.move

    def _point(self, moved: Labelled, began: float) -> None:
        """Remember where a label is now, in a new entry: a read that began before the move fills the old one."""
        key = (moved.move.name, moved.move.label)
        entry = self._labels.get(key)
        if entry and entry.known and entry.known.move.sequence > moved.move.sequence:
            return  # A later move was confirmed sooner.
        self._labels.pop(key, None)
        _recent(self._labels, key, self.policy.max_cached, lambda: _Entry(moved, began))

    def _keep(self, version: PromptVersion) -> PromptVersion:
        for which in (version.number, version.digest):
            key = (version.name, which)
            _recent(self._versions, key, self.policy.max_cached, lambda: version)
        return version


_LONGEST: Final = 200


def _recent(kept: dict[K, V], key: K, most: int, made: Callable[[], V]) -> V:
    """Return what is kept at *key*, made if need be; of more than *most*, the one unread for longest goes."""
    value = kept[key] = kept.pop(key, None) or made()
    if len(kept) > most:
        del kept[next(iter(kept))]
    return value


def _signed(by: str, why: str) -> Signature:
    if not by.strip() or "\0" in by + why:
        raise ConfigurationError(f"who does this? by={by!r} must name a person or a program")
    return Signature(by, datetime.fromtimestamp(clock.now(), UTC), why)


def _named(what: str, value: str) -> str:
    if not value.isprintable() or not value.strip() or len(value) > _LONGEST:
        raise ConfigurationError(
            f"{what} is {value!r}; it must be 1 to {_LONGEST} printable characters"
        )
    return value
