"""Each check of the invariants of costs fails on a copy of the library with a bug in it."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, given, settings

from llm_patterns.toolkit import cost_ledger, cost_store, stream_usage
from tests.mutants import mutant
from tests.toolkit import cost_invariants as invariants
from tests.toolkit.cost_invariants import PLANS, STREAMS, Run, play_in_memory

LEDGER_BUGS: dict[str, tuple[str, str, Callable[[Run], None]]] = {
    "a batch's number is used again": (
        "self._batch += 1",
        "self._batch += 0",
        invariants.nothing_is_lost,
    ),
    "each attempt has a number of its own": (
        "await self._store.add(self._writer, self._batch + 1, batch)",
        "self._batch += 1; await self._store.add(self._writer, self._batch, batch)",
        invariants.nothing_counts_twice,
    ),
    "processes share a number": (
        "uuid4().hex",
        '"the same"',
        invariants.nothing_is_lost,
    ),
    "a batch goes before it is confirmed": (
        "            batch = self._batches[0]\n",
        "            batch = self._batches[0]; self._batches[0] = ()\n",
        invariants.nothing_is_lost,
    ),
    "two write at once": (
        "async with self._writing:",
        "if True:",
        invariants.nothing_is_lost,
    ),
    "a batch changes under way": (
        "            self._batches.popleft()\n",
        "            self._batches.clear()\n",
        invariants.nothing_is_lost,
    ),
    "the next call replaces the sum": (
        "self._pending.get((bucket, kept), Cost()) + cost",
        "cost",
        invariants.nothing_is_lost,
    ),
    "what has no room is dropped": (
        "else OVERFLOW_SERIES\n",
        "else None\n            if kept is None: return\n",
        invariants.nothing_is_lost,
    ),
    "hours are mixed up": (
        "int(at // self.policy.resolution) * self.policy.resolution",
        "1_800_000_000 // 3_600 * 3_600",
        invariants.nothing_is_lost,
    ),
    "a flush writes only what was left over": (
        "                self._take()\n                await self._write()\n        except",
        "                self._take()\n        except",
        invariants.a_flush_confirms,
    ),
    "a flush swallows its failure": (
        "            self._note(error)\n            raise",
        "            self._note(error)",
        invariants.a_flush_confirms,
    ),
    "there is always room": (
        "return waiting < self.policy.max_pending and",
        "return",
        invariants.memory_is_bounded,
    ),
    "there is never room": (
        "return waiting < self.policy.max_pending and",
        "return waiting < 3 and",
        invariants.labels_are_kept,
    ),
    "lost labels are not told": (
        "cost.calls if kept != series else 0",
        "0",
        invariants.labels_are_kept,
    ),
    "batches are of any size": (
        "[start : start + self.policy.max_batch]",
        "[start:]",
        invariants.memory_is_bounded,
    ),
    "closing does not tell what is missing": (
        "        if self._batches:\n            raise",
        "        if False:\n            raise",
        invariants.nothing_is_lost,
    ),
    "closing tells only what was under way": (
        "        self._take()\n        if self._batches:",
        "        if self._batches:",
        invariants.nothing_is_lost,
    ),
    "closing waits for ever": (
        "asyncio.timeout(self.policy.close_timeout)",
        "asyncio.timeout(None)",
        invariants.calls_are_written_or_pending,
    ),
    "what is written is not counted": (
        "self._written += calls",
        "self._written += 0",
        invariants.calls_are_written_or_pending,
    ),
}


@pytest.mark.parametrize("bug", LEDGER_BUGS)
def test_the_ledgers_check_finds(bug: str) -> None:
    """A ledger with this bug breaks that promise on some schedule."""
    old, new, holds = LEDGER_BUGS[bug]

    with mutant(cost_ledger, old, new) as broken:

        @settings(max_examples=2_000, phases=[Phase.generate], report_multiple_bugs=False)
        @given(PLANS)
        def check(plan: dict[str, Any]) -> None:
            holds(play_in_memory(plan, ledgers=broken))

        with pytest.raises(AssertionError):
            check()


def test_the_ledgers_check_finds_a_store_that_adds_a_batch_twice() -> None:
    """The confirmation got lost, and the batch comes again."""
    with mutant(cost_store, ">= batch:", "> batch:") as broken:

        @settings(max_examples=2_000, phases=[Phase.generate], report_multiple_bugs=False)
        @given(PLANS)
        def check(plan: dict[str, Any]) -> None:
            invariants.nothing_counts_twice(play_in_memory(plan, stores=broken))

        with pytest.raises(AssertionError, match="counted twice"):
            check()


STREAM_BUGS = {
    "its end is told again": ("settle, self._settle = self._settle, None", "settle = self._settle"),
    "closing tells nothing": (
        '        """Hang up, as the client\'s own stream does."""\n        self._end()',
        '        """Hang up, as the client\'s own stream does."""\n        self._settle = None',
    ),
    "a break tells nothing": (
        "        except BaseException:\n            self._end()\n",
        "        except BaseException:\n            self._settle = None\n",
    ),
    "the end tells nothing": (
        "            self._seen.end()\n            self._end()\n",
        "            self._seen.end()\n            self._settle = None\n",
    ),
    "what is dropped is forgotten": (
        "self._loop.call_soon_threadsafe(settle)",
        "pass",
    ),
    "chunks are not looked at": ("        self._seen.add(chunk)\n", ""),
}


@pytest.mark.parametrize("bug", STREAM_BUGS)
def test_the_streams_check_finds(bug: str) -> None:
    """A stream with this bug is told twice, never, or wrongly."""
    with mutant(stream_usage, *STREAM_BUGS[bug]) as broken:

        @settings(max_examples=500, phases=[Phase.generate], report_multiple_bugs=False)
        @given(STREAMS)
        def check(plans: list[tuple[str, int, int]]) -> None:
            invariants.streams_are_told_once(plans, broken)

        with pytest.raises(AssertionError):
            check()
