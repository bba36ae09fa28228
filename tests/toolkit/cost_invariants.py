"""The invariants of the cost ledger, of its stores and of recorded streams, as checks on random schedules.

Each is a function of what happened in the module under test, so that it can be shown to fail on a copy with a bug.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from types import ModuleType
from typing import Any

from hypothesis import strategies as st

from llm_patterns import clock
from llm_patterns.chat import Usage
from llm_patterns.errors import StoreUnavailable
from llm_patterns.simulation import simulate
from llm_patterns.toolkit import cost_ledger, cost_store, stream_usage
from llm_patterns.toolkit.cost_store import Entry
from llm_patterns.toolkit.costs import OVERFLOW_SERIES, Cost, Series

# --- the ledger: calls, writes, failures and cancellations at random ----------------------------

FAULTS = ("none", "none", "before", "after", "slow before", "slow after")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.integers(0, 5), st.integers(0, 2)),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 2.0, 9.0]), st.none()),
        st.tuples(st.just("flush"), st.sampled_from([0.5, 60.0]), st.none()),
        st.tuples(st.just("flush twice"), st.none(), st.none()),
    ),
    max_size=25,
)
PLANS = st.fixed_dictionaries(
    {
        "processes": st.lists(STEPS, min_size=1, max_size=2),
        "faults": st.lists(st.sampled_from(FAULTS), max_size=12),
        "in the end": st.sampled_from(["there", "away", "hangs"]),
        "policy": st.fixed_dictionaries(
            {"max_pending": st.sampled_from([3, 10_000]), "max_batch": st.sampled_from([1, 2, 500])}
        ),
    }
)

Sums = Counter[tuple[int, Series]]


class Unreliable:
    """A store that fails, or is slow, before or after it has done what it was asked."""

    def __init__(self, store: Any, faults: Sequence[str]) -> None:
        self.store = store
        self.faults = list(faults)
        self.state = "there"
        self.largest = 0

    async def prepare(self, resolution: int) -> None:
        """Pass it on."""
        await self._during(lambda: self.store.prepare(resolution))

    async def add(self, writer: str, batch: int, entries: Sequence[Entry]) -> None:
        """Pass it on."""
        self.largest = max(self.largest, len(entries))
        await self._during(lambda: self.store.add(writer, batch, entries))

    async def sums(self, since: int, until: int) -> dict[Series, Cost]:
        """Pass it on, always."""
        found: dict[Series, Cost] = await self.store.sums(since, until)
        return found

    async def _during(self, ask: Callable[[], Any]) -> None:
        fault = self.faults.pop(0) if self.faults else "none"
        fault = {"away": "before", "hangs": "hangs"}.get(self.state, fault)
        if fault == "slow before":
            await asyncio.sleep(3)
        if fault == "hangs":
            await asyncio.sleep(1_000)
        if fault in ("before", "hangs"):
            raise StoreUnavailable("the store", "away")
        await ask()
        if fault == "slow after":
            await asyncio.sleep(3)
        if fault == "after":
            raise StoreUnavailable("the store", "the confirmation got lost")


@dataclass
class Process:
    """One process's ledger, and what it recorded, by bucket and series."""

    ledger: Any
    recorded: Sums = field(default_factory=Counter)
    statistics: list[Any] = field(default_factory=list)
    unwritten: Sums = field(default_factory=Counter)
    closed_after: float = 0.0


@dataclass
class Run:
    """What a plan led to. `confirmed` pairs what had been recorded before a flush with what was there after it."""

    processes: list[Process]
    kept: Sums
    seen: list[tuple[Sums, Sums]]
    confirmed: list[tuple[Sums, Sums]]
    max_pending: int
    largest_batch: int
    max_batch: int


START = 1_800_000_000 // 3_600 * 3_600
ONE = Cost(1, Usage(input_tokens=1), Decimal("1e-27"))
"""The smallest amount that is kept: a sum that loses a digit loses a call."""


async def kept_in(store: Any) -> Sums:
    """Everything in a store, in calls; their tokens and dollars must agree."""
    found: Sums = Counter()
    for hour in range(3):
        bucket = START + hour * 3_600
        for series, cost in (await store.sums(bucket, bucket + 1)).items():
            assert cost.usage.input_tokens == cost.calls == cost.usd.scaleb(27)
            found[bucket, series] = cost.calls
    return found


async def play(plan: dict[str, Any], store: Any, module: ModuleType) -> Run:
    """Let the processes of *plan* record into one *store*, with ledgers of *module*."""
    unreliable = Unreliable(store, plan["faults"])
    policy = module.LedgerPolicy(flush_interval=1, close_timeout=20, **plan["policy"])
    run = Run([], Counter(), [], [], policy.max_pending, 0, policy.max_batch)
    everything: Sums = Counter()

    async def flush(process: Process, limit: float | None) -> None:
        before = process.recorded.copy()
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(limit):
                await process.ledger.flush()
            run.confirmed.append((before, await kept_in(store)))

    async def live(steps: list[Any]) -> None:
        process = Process(module.CostLedger(unreliable, policy))
        run.processes.append(process)
        await process.ledger.__aenter__()
        for kind, value, hour in steps:
            if kind == "record":
                at, series = START + hour * 3_600, (("tenant", str(value)),)
                process.recorded[at, series] += 1
                everything[at, series] += 1
                process.ledger.record(series, ONE, at=at + 7)
            elif kind == "wait":
                await asyncio.sleep(value)
            elif kind == "flush":
                await flush(process, value)
            else:
                await asyncio.gather(flush(process, None), flush(process, None))
            run.seen.append((everything.copy(), await kept_in(store)))
            process.statistics.append(process.ledger.statistics())
        unreliable.state = plan["in the end"]
        began = clock.now()
        try:
            await process.ledger.__aexit__(None, None, None)
        except module.CostsNotWritten as lost:
            for bucket, series, cost in lost.entries:
                process.unwritten[bucket, series] += cost.calls
        process.closed_after = clock.now() - began

    try:
        await asyncio.gather(*map(live, plan["processes"]))
    except Exception as error:
        raise AssertionError("the ledger does not work at all") from error
    run.kept = await kept_in(store)
    run.largest_batch = unreliable.largest
    return run


def recorded(run: Run) -> Sums:
    """What all processes recorded."""
    return sum((process.recorded for process in run.processes), Counter())


def by_hour(sums: Sums) -> Counter[int]:
    """The calls of each hour, whatever their labels."""
    hours: Counter[int] = Counter()
    for (bucket, _), calls in sums.items():
        hours[bucket] += calls
    return hours


def nothing_is_lost(run: Run) -> None:
    """All that was recorded is in the store, or in the error that closing raised, in its own hour."""
    unwritten = sum((process.unwritten for process in run.processes), Counter())
    missing = by_hour(recorded(run)) - by_hour(run.kept + unwritten)
    assert not missing, f"lost: {missing}"


def nothing_counts_twice(run: Run) -> None:
    """The store never holds more of an hour than was recorded, at any moment."""
    for before, found in [*run.seen, (recorded(run), run.kept)]:
        assert not by_hour(found) - by_hour(before), "counted twice"


def a_flush_confirms(run: Run) -> None:
    """After it has returned, all that its process recorded before it is in the store."""
    for before, found in run.confirmed:
        assert not by_hour(before) - by_hour(found), "a flush has confirmed what is not there"


def labels_are_kept(run: Run) -> None:
    """While there is room, each call stays under its labels; those of calls without room are told."""
    strayed = run.kept - recorded(run)
    assert all(series == OVERFLOW_SERIES for _, series in strayed)
    assert run.max_pending == 3 or not strayed
    if not any(process.unwritten for process in run.processes):
        unlabelled = sum(each.ledger.statistics().unlabelled for each in run.processes)
        assert sum(strayed.values()) == unlabelled


def memory_is_bounded(run: Run) -> None:
    """By `max_pending` sums and one for each hour; a batch by `max_batch`."""
    for process in run.processes:
        for seen in process.statistics:
            assert seen.entries <= run.max_pending + 3
    assert run.largest_batch <= run.max_batch


def calls_are_written_or_pending(run: Run) -> None:
    """The statistics add up, and closing ends in time with nothing pending that it does not tell."""
    for process in run.processes:
        for seen in process.statistics:
            assert seen.recorded == seen.written + seen.pending
            assert (seen.entries > 0) == (seen.pending > 0)
            assert seen.pending or not seen.lag
        last = process.ledger.statistics()
        assert last.pending == sum(process.unwritten.values())
        assert process.closed_after <= 20


LEDGER_CHECKS = [
    nothing_is_lost,
    nothing_counts_twice,
    a_flush_confirms,
    labels_are_kept,
    memory_is_bounded,
    calls_are_written_or_pending,
]


def play_in_memory(
    plan: dict[str, Any], ledgers: ModuleType = cost_ledger, stores: ModuleType = cost_store
) -> Run:
    """The plan over a store in memory, in virtual time."""
    return simulate(lambda: play(plan, stores.MemoryCostStore(), ledgers))


# --- recorded streams: every way to end one -----------------------------------------------------

ENDINGS = ("read out", "breaks", "closed", "closed twice", "cancelled", "dropped")
STREAMS = st.lists(
    st.tuples(st.sampled_from(ENDINGS), st.integers(0, 5), st.integers(0, 3)), max_size=6
)


async def chunks(count: int, *, breaks: bool) -> AsyncIterator[dict[str, Any]]:
    """So many pieces of text, one each second, and then the end or a broken connection."""
    for _ in range(count):
        await asyncio.sleep(1)
        yield {"choices": [{"delta": {"content": "x"}}]}
    if breaks:
        raise ConnectionError


async def read_so_far(stream: Any, ending: str, taken: int) -> int:
    """Read the stream, end it as planned, and return how many chunks came."""
    got = 0
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(taken + 0.5 if ending == "cancelled" else None):
            async for _ in stream:
                got += 1
                if got >= taken and ending in ("closed", "closed twice", "dropped"):
                    break
    for _ in range({"closed": 1, "closed twice": 2}.get(ending, 0)):
        await stream.aclose()
    return got


def streams_are_told_once(
    plans: list[tuple[str, int, int]], module: ModuleType = stream_usage
) -> None:
    """Each, however it ended, with as much as was read of it."""
    told: list[tuple[int, int]] = []

    async def live(number: int, ending: str, count: int, taken: int) -> int:
        def settle(seen: Any) -> None:
            told.append((number, len(vars(seen)["_pieces"])))

        opened = chunks(count, breaks=ending == "breaks")
        return await read_so_far(module.RecordedStream(opened, settle), ending, taken)

    async def main() -> list[int]:
        lives = [live(number, *plan) for number, plan in enumerate(plans)]
        got = await asyncio.gather(*lives)
        await asyncio.sleep(1)
        return got

    got = simulate(main, leftover="cancel")
    assert sorted(told) == list(enumerate(got))
