"""The invariants of traces hold on random programs, disks and headers."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_patterns.toolkit import json_lines, redaction, spans, trace_logger
from tests.toolkit import trace_invariants as invariants

PROGRAM_INVARIANTS = [
    invariants.every_span_ends_once,
    invariants.parents_are_where_tasks_began,
    invariants.outcomes_are_told,
    invariants.spans_lie_within_their_parents,
    invariants.traces_are_kept_whole,
]


@pytest.mark.parametrize("holds", PROGRAM_INVARIANTS, ids=lambda holds: str(holds.__name__))
def test_whatever_the_program_does(holds: Callable[..., None]) -> None:
    """Tasks, streams, generators and threads, with errors and cancellations among them."""

    @settings(max_examples=250)
    @given(invariants.PROGRAMS, invariants.POLICIES, st.integers(0, 9))
    def check(roots: list[dict[str, Any]], policy: dict[str, Any], seed: int) -> None:
        invariants.check_program(trace_logger, holds, roots, policy, seed)

    check()


@settings(max_examples=300)
@given(invariants.PUTS, invariants.DISKS, invariants.OVERFLOW)
def test_whatever_the_disk_does(
    puts: list[tuple[float, int]], script: list[str], overflow: str
) -> None:
    """Spans are written, dropped and announced, or queued; lines are whole."""
    invariants.check_disk(json_lines, puts, script, overflow)


@settings(max_examples=300)
@given(invariants.CONTENT, st.integers(0, 20))
def test_of_every_text_only_what_the_hook_returned(content: Any, max_chars: int) -> None:
    """However deep it lies."""
    invariants.check_clean(redaction, content, max_chars)


@settings(max_examples=300)
@given(invariants.SPANS, st.floats(0, 0.999))
def test_a_line_is_a_span_or_nothing(finished: Any, cut: float) -> None:
    """Written and read back, and never half."""
    invariants.check_line(spans, finished, cut)


@given(st.integers(1, 2**128 - 1), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_rate_keeps_more(trace_id: int, low: float, high: float) -> None:
    """Whatever the id."""
    invariants.check_rates(spans, trace_id, low, high)


def test_a_rate_is_a_share() -> None:
    """Of random ids, by their last 56 bits."""
    invariants.check_shares(spans)


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_a_trace_crosses_to_the_next_service(trace_id: int, span_id: int, sampled: bool) -> None:
    """The header is read as it was written."""
    invariants.check_headers(spans, trace_id, span_id, sampled)
