"""The ledger: nothing waits for it, nothing is lost by it, and periods are whole."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from llm_patterns.chat import Usage
from llm_patterns.errors import ConfigurationError, StoreUnavailable
from llm_patterns.simulation import simulate
from llm_patterns.toolkit import (
    Cost,
    CostLedger,
    CostPolicy,
    CostsNotWritten,
    CostTracker,
    LabelsDropped,
    LedgerPolicy,
    LedgerWriteFailed,
    LedgerWritten,
    MemoryCostStore,
    ModelPrice,
)
from llm_patterns.toolkit.costs import OVERFLOW
from tests.toolkit.cost_invariants import Unreliable

PRICES = {
    "house": ModelPrice(input_usd_per_mtok=Decimal("0.3"), output_usd_per_mtok=Decimal("1.1"))
}
USED = Usage(input_tokens=500, output_tokens=200)
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def tracker(ledger: CostLedger) -> CostTracker:
    """A tracker that writes into *ledger*."""
    return CostTracker(CostPolicy(prices=PRICES), ledger=ledger)


def test_what_a_tracker_counts_is_in_the_ledger_to_the_last_digit() -> None:
    """By every label, priced and unpriced, exact and estimated."""

    async def main() -> None:
        async with CostLedger(MemoryCostStore()) as ledger:
            costs = tracker(ledger)
            for number in range(100):
                with costs.labels(tenant=f"tenant {number % 7}", feature=f"feature {number % 3}"):
                    costs.record(USED, "house", estimated=number % 5 == 0)
            await costs.layer(model="unknown-zzz")(unpriced)()
            await ledger.flush()
            assert await ledger.read() == costs.statistics()
            for label in ("tenant", "feature", "model", "outcome", "nonsense"):
                assert await ledger.total(by=label) == costs.statistics().by(label)

    async def unpriced() -> dict[str, object]:
        return {"usage": {"input_tokens": 7, "output_tokens": 1}}

    simulate(main)


def test_a_period_has_what_was_recorded_in_it() -> None:
    """Of the day that the call was made on, whatever the zone in which one asks."""

    async def main() -> None:
        async with CostLedger(MemoryCostStore()) as ledger:
            costs = tracker(ledger)
            costs.record(USED, "house")  # now: 13:59:59 and a half
            await asyncio.sleep(0.5)
            costs.record(USED, "house")
            costs.record(USED, "house", at=NOON - timedelta(days=1))
            await ledger.flush()

            async def calls(since: datetime | None, until: datetime | None) -> int:
                return (await ledger.read(since=since, until=until)).total.calls

            two = NOON + timedelta(hours=2)
            assert await calls(two - timedelta(hours=1), two) == 1
            assert await calls(two, None) == 1
            assert await calls(None, NOON) == 1
            assert await calls(None, None) == 3
            oslo = timezone(timedelta(hours=1))
            assert await calls(datetime(2026, 11, 23, 15, tzinfo=oslo), None) == 1

    simulate(main, start=NOON + timedelta(hours=1, minutes=59, seconds=59.5))


@pytest.mark.parametrize(
    ("since", "wrong"),
    [
        (datetime(2026, 11, 23, 12), "has no time zone"),  # noqa: DTZ001
        (datetime(2026, 11, 23, 12, 30, tzinfo=UTC), "begins at 2026-11-23 12:00:00"),
        (datetime(2026, 11, 23, 12, tzinfo=timezone(timedelta(minutes=330))), "would divide a sum"),
    ],
)
def test_a_period_that_would_divide_a_sum_is_refused(since: datetime, wrong: str) -> None:
    """Rather than answered with more or less than was asked for."""

    async def main() -> None:
        async with CostLedger(MemoryCostStore()) as ledger:
            with pytest.raises(ValueError, match=wrong):
                await ledger.total(by="tenant", since=since)

    simulate(main)


def test_costs_are_written_behind() -> None:
    """Within a second, by the ledger's own task; a call waits for nothing."""
    told: list[Any] = []

    async def main() -> None:
        async with CostLedger(MemoryCostStore(), on_event=told.append) as ledger:
            costs = tracker(ledger)
            began = asyncio.get_running_loop().time()
            for tenant in ("acme", "acme", "zoo"):
                costs.record(USED, "house", labels={"tenant": tenant})
            assert asyncio.get_running_loop().time() == began
            seen = ledger.statistics()
            assert (seen.pending, seen.entries, seen.written) == (3, 2, 0)
            await asyncio.sleep(0.75)
            assert ledger.statistics().lag == 0.75
            await asyncio.sleep(0.75)
            assert (ledger.statistics().pending, ledger.statistics().lag) == (0, 0)
            assert (await ledger.read()).total.calls == 3

    simulate(main)
    assert told == [LedgerWritten(calls=3, entries=2)]


def test_an_outage_delays_and_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The store is away for an hour: calls go on, it is said once, and all is there afterwards."""
    told: list[Any] = []
    store = Unreliable(MemoryCostStore(), [])

    async def main() -> None:
        async with CostLedger(store, on_event=told.append) as ledger:
            costs = tracker(ledger)
            store.state = "away"
            await asyncio.sleep(0.5)
            for _ in range(3_600):
                costs.record(USED, "house", labels={"tenant": "acme"})
                await asyncio.sleep(1)
            seen = ledger.statistics()
            assert (seen.pending, seen.entries, seen.failures) == (3_600, 2, 3_600)
            assert seen.lag == 3_600
            with pytest.raises(StoreUnavailable):
                await ledger.flush()
            store.state = "there"
            await asyncio.sleep(2)
            assert ledger.statistics().failures == 0
            assert await ledger.read() == costs.statistics()

    with caplog.at_level(logging.WARNING):
        simulate(main)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "1 calls are pending" in caplog.text
    failed = [event for event in told if isinstance(event, LedgerWriteFailed)]
    assert (len(failed), failed[0].pending) == (3_601, 1)


def test_a_full_memory_costs_labels_and_no_dollars() -> None:
    """What does not fit is added up under one label, in its hour, and is told."""
    told: list[Any] = []
    store = Unreliable(MemoryCostStore(), [])

    async def main() -> None:
        policy = LedgerPolicy(max_pending=2)
        async with CostLedger(store, policy, on_event=told.append) as ledger:
            costs = tracker(ledger)
            store.state = "away"
            for tenant in ("a", "b", "c", "a", "d"):
                costs.record(USED, "house", labels={"tenant": tenant})
            store.state = "there"
            await ledger.flush()
            found = await ledger.total(by="tenant")
            assert {tenant: cost.calls for tenant, cost in found.items()} == {
                OVERFLOW: 2,
                "a": 2,
                "b": 1,
            }
            assert (await ledger.read()).total == costs.statistics().total
            assert ledger.statistics().unlabelled == 2

    simulate(main)
    dropped = [event for event in told if isinstance(event, LabelsDropped)]
    assert [dict(event.series)["tenant"] for event in dropped] == ["c", "d"]


def test_labels_that_no_index_takes_are_dropped_before_they_stop_the_others() -> None:
    """Two thousand bytes is enough for any name."""

    async def main() -> None:
        async with CostLedger(MemoryCostStore()) as ledger:
            costs = tracker(ledger)
            costs.record(USED, "house", labels={"tenant": "x" * 3_000})
            costs.record(USED, "house", labels={"tenant": "x" * 1_500})
            await ledger.flush()
            assert sorted(map(len, await ledger.total(by="tenant"))) == [len(OVERFLOW), 1_500]

    simulate(main)


def test_closing_writes_what_is_pending() -> None:
    """Also what came since the last write."""
    store = MemoryCostStore()

    async def main() -> Cost:
        async with CostLedger(store) as ledger:
            tracker(ledger).record(USED, "house")
        await ledger.close()
        async with CostLedger(store) as again:
            return (await again.read()).total

    assert simulate(main).calls == 1


@pytest.mark.parametrize("state", ["away", "hangs"])
def test_closing_ends_in_time_and_tells_what_is_missing(state: str) -> None:
    """With the store away, the error has the costs: for a log, a file, or another ledger."""
    store = Unreliable(MemoryCostStore(), [])

    async def main() -> float:
        ledger = CostLedger(store, LedgerPolicy(close_timeout=5, flush_interval=60))
        async with ledger:
            tracker(ledger).record(USED, "house", labels={"tenant": "acme"})
            store.state = state
            began = asyncio.get_running_loop().time()
            with pytest.raises(CostsNotWritten, match=r"1 calls of 0\.00037 dollars") as caught:
                await ledger.close()
            took = asyncio.get_running_loop().time() - began
            store.state = "there"
        [entry] = caught.value.entries
        assert dict(entry.series)["tenant"] == "acme"
        return took

    assert simulate(main) == (0 if state == "away" else 5)


def test_an_error_in_the_block_is_not_hidden_by_one_in_closing() -> None:
    """What could not be written is noted on it."""
    store = Unreliable(MemoryCostStore(), [])

    async def main() -> None:
        async with CostLedger(store) as ledger:
            tracker(ledger).record(USED, "house")
            store.state = "away"
            raise KeyError("the service's own")

    with pytest.raises(KeyError) as caught:
        simulate(main)
    assert "did not confirm 1 calls" in caught.value.__notes__[0]


def test_a_ledger_opens_while_its_store_is_away() -> None:
    """A service starts all the same."""
    store = Unreliable(MemoryCostStore(), [])
    store.state = "away"

    async def main() -> int:
        async with CostLedger(store) as ledger:
            tracker(ledger).record(USED, "house")
            await asyncio.sleep(10)
            store.state = "there"
            await asyncio.sleep(2)
            return (await ledger.read()).total.calls

    assert simulate(main) == 1


def test_a_ledger_keeps_the_resolution_it_was_begun_with() -> None:
    """Hours among minutes would not show where a period divides them."""
    store = MemoryCostStore()

    async def main() -> None:
        async with CostLedger(store, LedgerPolicy(resolution=60)):
            pass
        with pytest.raises(ConfigurationError, match=r"LedgerPolicy\(resolution=60\)"):
            async with CostLedger(store):
                pass

    simulate(main)


@pytest.mark.parametrize(
    "wrong",
    [
        {"resolution": 61},
        {"flush_interval": 0},
        {"flush_interval": 61},
        {"max_pending": 0},
        {"max_batch": 10_001},
        {"close_timeout": float("inf")},
        {"batch": 1},
    ],
)
def test_an_unusable_policy_is_refused(wrong: dict[str, Any]) -> None:
    """When it is made."""
    with pytest.raises(ValidationError):
        LedgerPolicy(**wrong)
