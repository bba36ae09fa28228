"""Each check of the invariants of latencies and deadlines fails on a copy of the library with a bug in it."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from llm_patterns import deadlines
from llm_patterns.toolkit import distributions, stopwatches
from tests.mutants import mutant
from tests.toolkit import latency_invariants as invariants

HEADERS = st.from_regex(r"-?[0-9]{1,8}[HMSmun]", fullmatch=True)
BINS = st.just(7)

Check = tuple[Callable[..., None], tuple[st.SearchStrategy[Any], ...]]

NESTED: Check = (invariants.nested_deadlines, (invariants.NESTED,))
RACED: Check = (invariants.raced_deadlines, (invariants.RACE,))
SENT: Check = (invariants.sent_deadlines, (invariants.JOURNEY,))
RECEIVED: Check = (invariants.received_deadlines, (HEADERS,))
QUANTILES: Check = (invariants.quantiles, (invariants.VALUES, invariants.ERRORS))
BOUNDED: Check = (invariants.bounded_bins, (invariants.VALUES, BINS))
SUMS: Check = (invariants.sums, (invariants.PARTS,))
WINDOWS: Check = (invariants.windows, (invariants.TIMES, st.sampled_from([1, 2, 4])))
STREAMS: Check = (invariants.timed_streams, (invariants.STREAMS,))

BUGS: dict[str, tuple[ModuleType, str, str, Check]] = {
    "an inner deadline buys time": (deadlines, "min(at, outer)", "at", NESTED),
    "a deadline stays after its block": (
        deadlines,
        "_AMBIENT.reset(self._token)",
        "pass",
        NESTED,
    ),
    "no deadline is a deadline now": (deadlines, "if self._seconds is None:", "if False:", NESTED),
    "any time-out is taken for the deadline": (
        deadlines,
        "if not cut.expired():",
        "if False:",
        RACED,
    ),
    "the deadline's time-out is nobody's": (deadlines, "if not cut.expired():", "if True:", RACED),
    "nothing is cut off": (
        deadlines,
        "asyncio.timeout_at(deadline_at())",
        "asyncio.timeout_at(None)",
        RACED,
    ),
    "cancellations become deadlines": (
        deadlines,
        "except TimeoutError as error:\n            if not cut.expired():",
        "except BaseException as error:\n            if False:",
        RACED,
    ),
    "the network takes no time": (deadlines, "(left - allowance) * 1000", "left * 1000", SENT),
    "what is left is rounded up": (
        deadlines,
        "int((left - allowance) * 1000)",
        "1 + int((left - allowance) * 1000)",
        SENT,
    ),
    "what is left is sent in seconds": (
        deadlines,
        '"{min(int((left - allowance) * 1000), _LONGEST_MS)}m"',
        '"{int(left - allowance)}S"',
        SENT,
    ),
    "calls are sent that have no time": (
        deadlines,
        "require_time(allowance + 1e-3)",
        "require_time(0)",
        SENT,
    ),
    "a caller may allow any time": (
        deadlines,
        "min(limit, int(digits)",
        "max(0, int(digits)",
        RECEIVED,
    ),
    "a sign is not read": (deadlines, "return 0.0 if sign else", "return", RECEIVED),
    "quantiles exceed the maximum": (
        distributions,
        "min(float(value), self.max)",
        "float(value)",
        QUANTILES,
    ),
    "the error is not the one asked for": (
        distributions,
        "LogCollapsingLowestDenseDDSketch(relative_error, max_bins)",
        "LogCollapsingLowestDenseDDSketch(0.3, max_bins)",
        QUANTILES,
    ),
    "zeros are lost": (
        distributions,
        "return [(0.0, int(zeros)), *filled] if zeros else filled",
        "return filled",
        BOUNDED,
    ),
    "bins grow without end": (
        distributions,
        "LogCollapsingLowestDenseDDSketch(relative_error, max_bins)",
        "LogCollapsingLowestDenseDDSketch(relative_error, 100_000)",
        BOUNDED,
    ),
    "adding changes a part": (distributions, "self._empty()._merge(self)", "self", SUMS),
    "a sum forgets the maximum": (
        distributions,
        "self.max = other.max if self.max is None else max(self.max, other.max)",
        "self.max = other.max",
        SUMS,
    ),
    "bins are numbered from zero": (distributions, "start=store.offset", "start=0", SUMS),
    "a sent count is one": (
        distributions,
        "made.record(value, count=count)",
        "made.record(value)",
        SUMS,
    ),
    "a window keeps one slice too many": (
        distributions,
        "if number > oldest:",
        "if number >= oldest:",
        WINDOWS,
    ),
    "a window never forgets": (distributions, "if number > oldest:", "if True:", WINDOWS),
    "a slice that leaves is lost": (
        distributions,
        "self._past._merge(self._parts[at])",
        "pass",
        WINDOWS,
    ),
    "a slice is never emptied": (
        distributions,
        "self._parts[at] = self._past._empty()",
        "pass",
        WINDOWS,
    ),
    "the first slice is not in the total": (
        distributions,
        "self._past + self._parts[0]",
        "self._past + self._past._empty()",
        WINDOWS,
    ),
    "an end is counted twice": (
        stopwatches,
        "        if self._ended is None:\n            self._ended =",
        "        if True:\n            self._ended =",
        STREAMS,
    ),
    "a pace is counted after hanging up": (
        stopwatches,
        "if not self._watch.running:",
        "if False:",
        STREAMS,
    ),
    "a broken stream is never counted": (
        stopwatches,
        "            self._watch.stop(error)\n            raise",
        "            raise",
        STREAMS,
    ),
    "hanging up is a success": (
        stopwatches,
        "self._watch.stop(GeneratorExit())",
        "self._watch.stop()",
        STREAMS,
    ),
    "a cancellation is a failure": (
        stopwatches,
        "isinstance(error, CancelledError)",
        "isinstance(error, KeyError)",
        STREAMS,
    ),
    "every chunk is the first": (stopwatches, "if self._first is None:", "if True:", STREAMS),
    "the pace counts the first token": (
        stopwatches,
        "(self._last - self._first) / (tokens - 1)",
        "(self._last - self._first) / tokens",
        STREAMS,
    ),
    "the pace includes the wait for the first": (
        stopwatches,
        "(self._last - self._first)",
        "self._last",
        STREAMS,
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_check_finds(bug: str) -> None:
    """Code with this bug breaks its invariant on some input."""
    module, old, new, (holds, inputs) = BUGS[bug]

    with mutant(module, old, new) as broken:

        @settings(max_examples=2_000, phases=[Phase.generate], report_multiple_bugs=False)
        @given(st.tuples(*inputs))
        def check(values) -> None:  # type: ignore[no-untyped-def]
            holds(*values, broken)

        run: Callable[[], None] = check
        with pytest.raises((AssertionError, TypeError, ValueError)):
            run()
