"""The invariants of prompt stores and of the registry's cache, as checks on random schedules.

Each is a function of the modules under test, or of what happened in them, so that it can be shown to fail on a copy
with a bug in it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from random import Random
from typing import Any, Protocol

from hypothesis import strategies as st

from llm_patterns import clock
from llm_patterns.errors import StoreUnavailable
from llm_patterns.toolkit import prompt_store
from llm_patterns.toolkit.prompt_store import Signature
from llm_patterns.toolkit.prompts import Prompt

NAME, LABELS = "answer", ("production", "canary")
PROMPTS = [Prompt(f"Answer {{{{question}}}} in {n} words", model="small") for n in range(5)]

# --- writers: random saves, moves and rollbacks, some of them cancelled -------------------------

WRITES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["save", "move", "move", "rollback"]),
        "start": st.floats(0, 2),
        "content": st.integers(0, 4),
        "label": st.sampled_from([*LABELS, LABELS[0]]),
        "to": st.integers(1, 3),
        "expected": st.none() | st.integers(0, 3),
        "cancelled": st.none() | st.floats(0, 0.5),
    }
)
SCHEDULES = st.lists(WRITES, min_size=5, max_size=16)
BEGINNING = [
    {"kind": "save", "start": 0.0, "content": content, "expected": None, "cancelled": None}
    for content in range(2)
]
"""There is something to move a label to."""


@dataclass
class Written:
    """A write as its writer saw it: `result` is what the store returned or raised, or None if it was cancelled."""

    plan: dict[str, Any]
    result: Any = None


@dataclass
class Books:
    """What was written, and what the store holds afterwards, the oldest first."""

    written: list[Written]
    versions: list[Any]
    history: list[Any]

    def moves(self, label: str) -> list[Any]:
        """The history of one label."""
        return [each for each in self.history if getattr(each, "label", None) == label]


class Store(Protocol):
    """As `prompt_store.PromptStore`, of any copy of the module."""

    save: Callable[..., Any]
    move: Callable[..., Any]
    version: Callable[..., Any]
    history: Callable[..., Any]


async def write_all(store: Store, schedule: list[dict[str, Any]]) -> Books:
    """Let all writers of *schedule* at the store, and read its books."""
    written = [Written(plan) for plan in [*BEGINNING, *schedule]]
    async with asyncio.TaskGroup() as group:
        for each in written:
            group.create_task(_write(store, each))
    return await books(store, written)


async def books(store: Store, written: list[Written]) -> Books:
    """Read all that a store holds."""
    history = list(reversed(await store.history(NAME, 10_000)))
    versions = []
    with suppress(LookupError):  # there is no more
        while True:
            versions.append(await store.version(NAME, len(versions) + 1))
    return Books(written, versions, history)


async def _write(store: Store, each: Written) -> None:
    plan = each.plan
    await asyncio.sleep(plan["start"])
    signature = Signature("ada", datetime.fromtimestamp(clock.now(), UTC), "because")
    try:
        async with asyncio.timeout(plan["cancelled"]) as limit:
            if plan["kind"] == "save":
                each.result = await store.save(NAME, PROMPTS[plan["content"]], signature)
            else:
                to = plan["to"] if plan["kind"] == "move" else None
                each.result = await store.move(
                    NAME, plan["label"], to, signature, expected=plan["expected"]
                )
    except Exception as error:
        each.result = None if limit.expired() else error


def nothing_broke(seen: Books) -> None:
    """A write succeeds, or says in the store's own words why not."""
    known = {"PromptNotFound", "LabelConflict", "NothingBefore"}
    errors = [each.result for each in seen.written if isinstance(each.result, Exception)]
    assert {type(error).__name__ for error in errors} <= known


def versions_are_numbered(seen: Books) -> None:
    """Invariant 1: without gaps, one number for each content."""
    numbers = {each.number for each in seen.history}
    assert numbers == {version.number for version in seen.versions}
    digests = [version.prompt.digest for version in seen.versions]
    assert len(set(digests)) == len(digests)


def nothing_confirmed_is_lost(seen: Books) -> None:
    """Invariant 2: each save has its version, and each save and move its place in the history."""
    assert [each.sequence for each in seen.history] == list(range(1, len(seen.history) + 1))
    for each in seen.written:
        if isinstance(each.result, Exception) or each.result is None:
            continue
        version, entry = each.result
        assert version in seen.versions
        assert entry in seen.history
        if each.plan["kind"] == "save":
            assert version.prompt == PROMPTS[each.plan["content"]]


def moves_form_a_chain(seen: Books) -> None:
    """Invariant 3: each starts where the one before it ended, and goes somewhere else."""
    for label in LABELS:
        moves = seen.moves(label)
        assert [move.previous for move in moves] == [None, *(move.number for move in moves)][
            :-1
        ] or not moves
        assert all(before.number != after.number for before, after in pairwise(moves))


def expectations_hold(seen: Books) -> None:
    """Invariant 4: a move that expected something found it; a conflict says what it found instead."""
    for each in seen.written:
        expected = each.plan["expected"]
        if each.plan["kind"] == "save" or expected is None or each.result is None:
            continue
        if type(each.result).__name__ == "LabelConflict":
            found = each.result.move.number if each.result.move else 0
            assert found != expected
        elif not isinstance(each.result, Exception):
            move = each.result[1]
            stayed = each.plan["kind"] == "move" and move.number == each.plan["to"] == expected
            assert stayed or (move.previous or 0) == expected


def rollbacks_go_back(seen: Books) -> None:
    """To where the label pointed before, and again further back."""
    for label in LABELS:
        trail: list[int] = []
        for move in seen.moves(label):
            if move.rollback:
                trail.pop()
                assert trail[-1:] == [move.number]
            else:
                trail.append(move.number)


WRITERS_PROMISES = [
    nothing_broke,
    versions_are_numbered,
    nothing_confirmed_is_lost,
    moves_form_a_chain,
    expectations_hold,
    rollbacks_go_back,
]


class Delayed:
    """A database, or a transaction of it, whose statements take their time: writers meet in the middle."""

    def __init__(self, inner: Any, rng: Random) -> None:
        self._inner = inner
        self._rng = rng

    async def create(self, *statements: str) -> None:
        """Make tables."""
        await self._inner.create(*statements)

    async def execute(self, statement: str, *values: Any) -> Any:
        """Carry a statement out, after a while."""
        await asyncio.sleep(self._rng.choice([0, 0.01, 0.1]))
        return await self._inner.execute(statement, *values)

    async def fetch(self, statement: str, *values: Any) -> Any:
        """Fetch rows, after a while."""
        await asyncio.sleep(self._rng.choice([0, 0.01, 0.1]))
        return await self._inner.fetch(statement, *values)

    @asynccontextmanager
    async def transaction(self, key: str) -> AsyncIterator[Any]:
        """Open a transaction."""
        async with self._inner.transaction(key) as transaction:
            yield Delayed(transaction, self._rng)


# --- readers: a cache before a store that is far away, refuses or hangs --------------------------

TIMES = st.integers(0, 60).map(float)

READINGS = st.fixed_dictionaries(
    {
        "policy": st.fixed_dictionaries(
            {
                "cache_ttl": st.sampled_from([0.0, 5.0, 20.0]),
                "timeout": st.sampled_from([0.5, 2.0]),
                "retry_interval": st.sampled_from([1.0, 6.0]),
                "max_staleness": st.sampled_from([30.0, 60.0, None]),
            }
        ),
        "reads": st.lists(TIMES, min_size=1, max_size=40),
        "moves": st.lists(st.tuples(TIMES, st.sampled_from(["mine", "theirs"])), max_size=6),
        "outages": st.lists(
            st.tuples(TIMES, TIMES, st.sampled_from(["refuses", "hangs"])),
            max_size=3,
        ),
        "cancelled": st.floats(0, 3),
    }
)


@dataclass
class Read:
    """A read as its reader saw it; `result` is None where it gave up."""

    began: float
    ended: float = float("inf")
    result: Any = None


class Distant(prompt_store.MemoryPromptStore):
    """A store that takes its time each way, and at times refuses or hangs. It knows what was true, and who asked."""

    def __init__(self, travel: tuple[float, ...] = (0.2,)) -> None:
        super().__init__()
        self.travel = travel
        self.outages: list[tuple[float, float, str]] = []
        self.asked: list[float] = []
        self.refused: list[float] = []
        self.pointed: list[tuple[float, int]] = []
        self.moved_as: dict[int, int] = {}

    async def labelled(self, name: str, label: str) -> Any:
        """Read a label, half-way through."""
        self.asked.append(_now())
        try:
            await self._travel()
        except StoreUnavailable:
            self.refused.append(_now())
            raise
        found = await super().labelled(name, label)
        await self._travel()
        return found

    async def move(self, name: str, label: str, *args: Any, **options: Any) -> Any:
        """Move a label, half-way through."""
        await self._travel()
        moved = await super().move(name, label, *args, **options)
        self.pointed.append((_now(), moved.version.number))
        self.moved_as[moved.move.sequence] = len(self.pointed) - 1
        await self._travel()
        return moved

    async def _travel(self) -> None:
        for start, duration, kind in self.outages:
            if start <= _now() < start + duration:
                if kind == "hangs":
                    await asyncio.sleep(start + duration - _now())
                raise StoreUnavailable("the test's store", kind)
        await asyncio.sleep(clock.rng().choice(self.travel))


@dataclass
class Reading:
    """What readers saw, and what was true."""

    policy: Any
    reads: list[Read]
    mine: list[tuple[float, int]]
    """When a move of this process's own was confirmed, and which of all moves it was."""
    store: Distant

    def true_within(self, number: int, start: float, end: float) -> bool:
        """Whether the label pointed to that version at some time from *start* to *end*."""
        pointed = self.store.pointed
        ends = [at for at, _ in pointed[1:]] + [float("inf")]
        return any(
            each == number and at <= end and until > start
            for (at, each), until in zip(pointed, ends, strict=True)
        )


async def read_all(module: Any, plan: dict[str, Any]) -> Reading:
    """Let readers and movers at one registry; others move the label behind its back."""
    store = Distant(travel=(0.05, 0.1, 0.24))
    for prompt in PROMPTS:
        await store.save(NAME, prompt, Signature("ada", datetime(2026, 1, 5, tzinfo=UTC)))
    registry = module.PromptRegistry(store, module.RegistryPolicy(**plan["policy"]))
    mine: list[tuple[float, int]] = []

    async def move_to(mover: Any, to: int) -> None:
        made = await mover.move(NAME, "production", to, by="ada", why="moved")
        if mover is registry:
            mine.append((_now(), store.moved_as[made.sequence]))

    await move_to(registry, 1)
    store.outages = plan["outages"]
    starts = [start for start, _ in plan["moves"]]  # reads that are under way, too
    reads = [Read(start) for start in sorted(plan["reads"] + starts)]

    async def read(each: Read, number: int) -> None:
        await asyncio.sleep(each.began)
        each.began = _now()
        try:
            async with asyncio.timeout(plan["cancelled"] if number % 5 == 4 else None):
                each.result = await registry.get(NAME)
        except TimeoutError:
            pass
        except StoreUnavailable as error:
            each.result = error
        each.ended = _now()

    async def move(start: float, whose: str, to: int) -> None:
        await asyncio.sleep(start)
        with suppress(StoreUnavailable):
            await move_to(registry if whose == "mine" else module.PromptRegistry(store), to)

    async with asyncio.TaskGroup() as group:
        for number, each in enumerate(reads):
            group.create_task(read(each, number))
        for number, (start, whose) in enumerate(plan["moves"]):
            group.create_task(move(start, whose, 2 + number % 4))
    return Reading(registry.policy, reads, mine, store)


def fresh_is_fresh(seen: Reading) -> None:
    """Invariant 1: what is not marked stale was true within `cache_ttl` and `timeout`."""
    limit = seen.policy.cache_ttl + seen.policy.timeout
    for read in _served(seen):
        if not read.result.stale:
            number = read.result.version.number
            assert seen.true_within(number, read.ended - limit, read.ended)


def nothing_is_too_old(seen: Reading) -> None:
    """Invariant 2: what is served was true within `max_staleness`."""
    if seen.policy.max_staleness is not None:
        for read in _served(seen):
            number = read.result.version.number
            start = read.ended - seen.policy.max_staleness
            assert seen.true_within(number, start, read.ended)


def ages_are_honest(seen: Reading) -> None:
    """What is served was true at some time since its age began."""
    for read in _served(seen):
        number = read.result.version.number
        assert seen.true_within(number, read.ended - read.result.age, read.ended)


def waits_are_bounded(seen: Reading) -> None:
    """Invariant 3: by `timeout`."""
    for read in seen.reads:
        assert read.ended - read.began <= seen.policy.timeout + 1e-6


def nobody_asks_after_a_failure(seen: Reading) -> None:
    """Invariant 3: not for `retry_interval`, if no move of one's own has told that the store is back."""
    hung = [read.ended for read in seen.reads if read.ended > read.began and _failed(read)]
    for failed in [*seen.store.refused, *hung]:
        until = failed + seen.policy.retry_interval - 1e-6
        if not any(failed <= confirmed < until for confirmed, _ in seen.mine):
            assert not any(failed < asked < until for asked in seen.store.asked)


def own_moves_are_read(seen: Reading) -> None:
    """Invariant 4: after a move of one's own, nothing that was there before it is read."""
    for read in _served(seen):
        done = [which for confirmed, which in seen.mine if confirmed < read.began]
        since = seen.store.pointed[max(done, default=0) :]
        assert read.result.version.number in [number for at, number in since if at <= read.ended]


READERS_PROMISES = [
    fresh_is_fresh,
    nothing_is_too_old,
    ages_are_honest,
    waits_are_bounded,
    nobody_asks_after_a_failure,
    own_moves_are_read,
]


def _served(seen: Reading) -> list[Read]:
    return [read for read in seen.reads if hasattr(read.result, "version")]


def _failed(read: Read) -> bool:
    return isinstance(read.result, StoreUnavailable) or getattr(read.result, "stale", False)


def _now() -> float:
    return asyncio.get_running_loop().time()
