"""Each check of the invariants of traces fails on a copy of the library with a bug in it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from llm_patterns.toolkit import (
    json_lines,
    open_spans,
    redaction,
    spans,
    trace_logger,
    trace_sampling,
    traced_streams,
)
from tests.mutants import mutant
from tests.toolkit import trace_invariants as invariants

PARENTS = invariants.parents_are_where_tasks_began
ENDS = invariants.every_span_ends_once
WITHIN = invariants.spans_lie_within_their_parents
STATUS = invariants.outcomes_are_told
WHOLE = invariants.traces_are_kept_whole

PROGRAM_BUGS: dict[str, tuple[ModuleType, str, str, Callable[..., None]]] = {
    "a span ends twice": (
        trace_logger,
        "            if span.ended:\n                return\n",
        "",
        ENDS,
    ),
    "what was not recorded is not counted": (
        trace_logger,
        "self._unrecorded += 1",
        "self._unrecorded += 0",
        ENDS,
    ),
    "a dropped stream's span stays open": (
        traced_streams,
        "self._loop.call_soon_threadsafe(self._abandon)",
        "pass",
        ENDS,
    ),
    "a closed stream's span stays open": (
        traced_streams,
        "        finally:\n            self._abandon()",
        "        finally:\n            self._span = None",
        ENDS,
    ),
    "evicted spans are forgotten": (
        trace_sampling,
        "self.evicted += gone",
        "self.evicted += 0",
        ENDS,
    ),
    "a block that is left stays current": (open_spans, "_CURRENT.set(outer)", "pass", PARENTS),
    "leaving goes by the variable alone": (
        open_spans,
        "    while span is not None and span._displaced:",
        "    while False:",
        PARENTS,
    ),
    "whoever leaves was the one who entered": (
        open_spans,
        "self._displaced = _task() is not self._entered_by",
        "self._displaced = False",
        PARENTS,
    ),
    "a stream is current while it is read": (
        traced_streams,
        "            with self._span.current():\n",
        "            self._span.current().__enter__()\n            if True:\n",
        PARENTS,
    ),
    "a stream is never current": (
        traced_streams,
        "with self._span.current():",
        "if True:",
        PARENTS,
    ),
    "the outermost span is everyone's parent": (
        trace_logger,
        "above = parent if local is None else local.context",
        "above = parent if local is None else (local.parent or local).context",
        PARENTS,
    ),
    "late children keep it to themselves": (
        open_spans,
        "self.parent is not None and self.parent.ended",
        "False",
        WITHIN,
    ),
    "each span has a clock of its own": (
        open_spans,
        "self.time.start_time + self._began",
        "self.time.start_time",
        WITHIN,
    ),
    "a failure is a success": (open_spans, 'self._status = "error"', "pass", STATUS),
    "a cancellation is a failure": (
        open_spans,
        "isinstance(error, CancelledError | GeneratorExit)",
        "False",
        STATUS,
    ),
    "the buffer has no end": (
        trace_sampling,
        "self.buffered > self._max_buffered_spans",
        "False",
        WHOLE,
    ),
    "failures are not kept": (
        trace_sampling,
        "if failed and self._keep_errors:",
        "if False:",
        WHOLE,
    ),
    "what came before the failure is lost": (
        trace_sampling,
        "taken, trace.waiting = trace.waiting, []",
        "taken, trace.waiting = trace.waiting[-1:], []",
        WHOLE,
    ),
    "slow is what is quick": (
        trace_sampling,
        "duration >= self._keep_slower_than",
        "duration < self._keep_slower_than",
        WHOLE,
    ),
    "any trace is drawn": (
        trace_logger,
        "keeps(trace_id, self.policy.sample_rate)",
        "True",
        WHOLE,
    ),
}


def patched(stack: ExitStack, module: ModuleType, old: str, new: str) -> ModuleType:
    """The logger with a bug in *module*: its own copy, and for another module a copy that imports the copy."""
    copy = stack.enter_context(mutant(module, old, new))
    if module is trace_logger:
        return copy
    name = module.__name__
    return stack.enter_context(
        mutant(trace_logger, f"from {name} import", f"from {name}_mutant import")
    )


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is undone at the end of a test."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("bug", PROGRAM_BUGS)
def test_the_programs_check_finds(bug: str, stack: ExitStack) -> None:
    """A tracer with this bug breaks that promise in some program."""
    module, old, new, holds = PROGRAM_BUGS[bug]
    broken = patched(stack, module, old, new)

    @settings(max_examples=800, phases=[Phase.generate], report_multiple_bugs=False)
    @given(invariants.PROGRAMS, invariants.POLICIES, st.integers(0, 9))
    def check(roots: list[dict[str, Any]], policy: dict[str, Any], seed: int) -> None:
        invariants.check_program(broken, holds, roots, policy, seed)

    with pytest.raises(AssertionError):
        check()


DISK_BUGS = {
    "the queue has no end": ("while len(self._waiting) > room:", "while False:"),
    "the batch is not counted": (
        "max(0, self.policy.max_queue - self._in_flight)",
        "self.policy.max_queue",
    ),
    "drops are not counted": ("self._dropped += 1", "self._dropped += 0"),
    "drops are not announced": ("        if self._announcing:\n", "        if False:\n"),
    "drops are announced twice": (
        "self._announced += self._announcing",
        "self._announced += 0",
    ),
    "a short write is taken for a whole one": (
        "self._offset += self._file.write(self._block[self._offset :])",
        "self._file.write(self._block[self._offset :])\n                self._offset = len(self._block)",
    ),
    "what was cut short is written again": (
        "self._file.write(self._block[self._offset :])",
        "self._file.write(self._block)",
    ),
    "a busy disk is given up": (
        "loop.call_later(delay, self._retry)",
        "None",
    ),
    "an error loses the batch": (
        "            self._errors += 1\n",
        '            self._errors += 1\n            self._block = b""\n',
    ),
    "the newest is kept and the oldest too": (
        "                self._waiting.pop()\n",
        "                self._waiting.rotate(1)\n                self._waiting.pop()\n",
    ),
}


@pytest.mark.parametrize("bug", DISK_BUGS)
def test_the_disks_check_finds(bug: str, stack: ExitStack) -> None:
    """A sink with this bug breaks a promise on some disk."""
    broken = stack.enter_context(mutant(json_lines, *DISK_BUGS[bug]))

    @settings(max_examples=800, phases=[Phase.generate], report_multiple_bugs=False)
    @given(invariants.PUTS, invariants.DISKS, invariants.OVERFLOW)
    def check(puts: list[tuple[float, int]], script: list[str], overflow: str) -> None:
        invariants.check_disk(broken, puts, script, overflow)

    with pytest.raises((AssertionError, IndexError)):
        check()


Check = tuple[Callable[..., None], st.SearchStrategy[tuple[Any, ...]]]

LINE: Check = (invariants.check_line, st.tuples(invariants.SPANS, st.floats(0, 0.999)))
RATES: Check = (
    invariants.check_rates,
    st.tuples(st.integers(1, 2**128 - 1), st.floats(0, 1), st.floats(0, 1)),
)
HEADERS: Check = (
    invariants.check_headers,
    st.tuples(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans()),
)
SHARES: Check = (invariants.check_shares, st.just(()))
CLEAN: Check = (invariants.check_clean, st.tuples(invariants.CONTENT, st.integers(0, 20)))

REDACTION_BUGS: dict[str, tuple[str, str, Check]] = {
    "the hook's answer is thrown away": (
        "text = redact(value)",
        "text = redact(value) and value",
        CLEAN,
    ),
    "lists are passed by": ("return [cleaned(each) for each in value]", "return value", CLEAN),
    "whatever has a role is passed by": (
        "_is_label(name, each)",
        "name in _LABELS",
        CLEAN,
    ),
    "content has no end": ("text = text[:left]", "text = text[:]", CLEAN),
    "what waits has no end": ("value[:left]", "value", CLEAN),
}
SPAN_BUGS: dict[str, tuple[str, str, Check]] = {
    "a torn line is read": ('if not line.endswith(b"\\n"):', "if False:", LINE),
    "times are whole seconds": ("round(span.duration, 6)", "round(span.duration)", LINE),
    "a status is left out": ('"status", "kind",', '"kind",', LINE),
    "the first bits decide": ("trace_id % (1 << _RANDOM_BITS)", "trace_id >> 72", SHARES),
    "rates are turned round": (">= (1 << _RANDOM_BITS)", "< (1 << _RANDOM_BITS)", RATES),
    "flags are not looked at": ("bool(int(parts[4], 16) & 1)", "True", HEADERS),
    "ids of zeros are ids": ("(?!0{16})", "", HEADERS),
    "anything may follow": ('(parts[1] == "00" and parts[5])', "False", HEADERS),
}


@pytest.mark.parametrize("bug", SPAN_BUGS | REDACTION_BUGS)
def test_the_values_check_finds(bug: str, stack: ExitStack) -> None:
    """A line, a rate, a header or a text with this bug breaks its promise."""
    old, new, (holds, values) = (SPAN_BUGS | REDACTION_BUGS)[bug]
    module = spans if bug in SPAN_BUGS else redaction
    broken = stack.enter_context(mutant(module, old, new))

    @settings(max_examples=800, phases=[Phase.generate], report_multiple_bugs=False)
    @given(values)
    def check(drawn: tuple[Any, ...]) -> None:
        holds(broken, *drawn)

    with pytest.raises(AssertionError):
        check()
