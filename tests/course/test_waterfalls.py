"""Waterfalls: each step under its own, at its time."""

import json
import re

import pytest

from course.theme import COLOURS
from course.waterfalls import INDENT, waterfall
from llm_patterns.toolkit import FinishedSpan, SpanEvent

WORDS = {"title": "A finding", "alt": "A chart of five words."}
SPANS = [
    FinishedSpan("late", 1, 5, 2, 101.5, 0.25, "cancelled"),
    FinishedSpan(
        "<call>", 1, 4, 3, 100.75, 0.5, kind="client", events=(SpanEvent("retried", 0.25, {}),)
    ),
    FinishedSpan("search", 1, 3, 2, 100.5, 1.0),
    FinishedSpan("answer", 1, 2, 99, 100.0, 2.0, "error"),
]


def test_steps_are_under_their_parents_in_the_order_of_their_beginnings() -> None:
    """Whatever the order in which they ended; names are text, not markup."""
    labels = [each["text"] for each in waterfall(SPANS, **WORDS).layout["annotations"]]
    assert labels == ["answer", f"{INDENT}search", f"{INDENT * 2}&lt;call&gt;", f"{INDENT}late"]


def test_bars_lie_where_the_steps_were() -> None:
    """In seconds since the first one, each in the colour of its kind; events are marked."""
    traces = {trace["name"]: trace for trace in waterfall(SPANS, **WORDS).data}
    assert list(traces) == ["Step", "Model call", "Cancelled", "Failed", "Event"]
    call, event = traces["Model call"], traces["Event"]
    assert (call["y"], call["base"], call["x"]) == ([2], [0.75], [0.5])
    assert (event["y"], event["x"], event["text"]) == ([2], [1], ["retried"])


def test_every_colour_is_in_the_palette() -> None:
    """What is not in the palette would not turn dark."""
    used = set(re.findall(r"#[0-9a-f]{6}", json.dumps(waterfall(SPANS, **WORDS).to_dict())))
    assert used <= {colour.light for colour in COLOURS.values()}


def test_a_waterfall_is_of_one_trace() -> None:
    """Not of none, not of two."""
    for wrong in ([], [SPANS[0], SPANS[1]._replace(trace_id=2)]):
        with pytest.raises(ValueError, match="exactly one trace"):
            waterfall(wrong, **WORDS)
