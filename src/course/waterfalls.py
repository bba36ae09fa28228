"""One trace as a waterfall: a bar for each step, under the step that it belongs to.

>>> from llm_patterns.toolkit import FinishedSpan
>>> spans = [FinishedSpan("generate", 1, 3, 2, 100.5, 1.0, kind="client"),
...          FinishedSpan("answer", 1, 2, None, 100.0, 2.0)]
>>> waterfall(spans, title="Generating takes half the time", alt="Two bars, one within the other.").title
'Generating takes half the time'
"""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterable, Iterator

from pydantic import JsonValue

from course.display import significant
from course.figures import Figure, _axis, _layout, _margin
from course.theme import COLOURS, LINES
from llm_patterns.toolkit import FinishedSpan

__all__ = ["waterfall"]

INDENT = "\N{EM SPACE}"
ROLES = {"Step": "pattern", "Model call": "provider", "Cancelled": "other2", "Failed": "naive"}
EVENT = "Event"


def waterfall(spans: Iterable[FinishedSpan], *, title: str, alt: str) -> Figure:
    """The steps of one trace over its seconds, in the order of their beginnings, with their events.

    Args:
        spans: of one trace, in any order; a span whose parent is not among them is drawn as an outermost one.
        title: the finding.
        alt: chart, data and finding in words.

    Raises:
        ValueError: if there are no spans, or those of several traces.
    """
    rows = list(_rows(list(spans)))
    if len({span.trace_id for _, span in rows}) != 1:
        raise ValueError("A waterfall shows the spans of exactly one trace.")
    begin = min(span.start_time for _, span in rows)
    traces = [
        _bars(kind, rows, begin) for kind in ROLES if any(_kind(span) == kind for _, span in rows)
    ]
    traces += _events(rows, begin)
    layout = _layout("Seconds since the request came", "Step", 110 + 26 * len(rows))
    names = [INDENT * depth + span.name for depth, span in rows]
    width = 8 * max(map(len, names))
    layout["xaxis"] = {**_axis("Seconds since the request came"), "rangemode": "tozero"}
    layout["yaxis"] = {
        **_axis(""),
        "range": [len(rows) - 0.5, -0.5],
        "showticklabels": False,
        "showgrid": False,
        "zeroline": False,
    }
    layout.update(
        barmode="overlay",
        showlegend=len(traces) > 1,
        annotations=[_name(name, row, width) for row, name in enumerate(names)],
        margin={**_margin(16), "l": width + 8},
    )
    return Figure(title, alt, traces, layout)


def _name(text: str, row: int, width: int) -> JsonValue:
    # An axis sets its labels flush right, which hides how deep they are.
    return {
        "text": html.escape(text, quote=False),
        "xref": "paper",
        "x": 0,
        "xshift": -width,
        "xanchor": "left",
        "yref": "y",
        "y": row,
        "showarrow": False,
        "font": {"size": 13, "color": COLOURS["text"].light},
    }


def _rows(spans: list[FinishedSpan]) -> Iterator[tuple[int, FinishedSpan]]:
    """Yield the spans with their depths, each after its parent, siblings by their beginnings."""
    known = {span.span_id for span in spans}
    children: dict[int | None, list[FinishedSpan]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: span.start_time):
        children[span.parent_id if span.parent_id in known else None].append(span)

    def below(parent: int | None, depth: int) -> Iterator[tuple[int, FinishedSpan]]:
        for span in children[parent]:
            yield depth, span
            yield from below(span.span_id, depth + 1)

    return below(None, 0)


def _kind(span: FinishedSpan) -> str:
    if span.status != "ok":
        return {"error": "Failed", "cancelled": "Cancelled"}[span.status]
    return "Model call" if span.kind == "client" else "Step"


def _bars(kind: str, rows: list[tuple[int, FinishedSpan]], begin: float) -> dict[str, JsonValue]:
    look = LINES[ROLES[kind]]
    drawn = [(row, span) for row, (_, span) in enumerate(rows) if _kind(span) == kind]
    return {
        "type": "bar",
        "orientation": "h",
        "name": kind,
        "y": [row for row, _ in drawn],
        "base": [significant(span.start_time - begin, 6) for _, span in drawn],
        "x": [significant(span.duration) for _, span in drawn],
        "width": 0.6,
        "marker": {
            "color": look.colour,
            "line": {"width": 1, "color": look.colour},
            "pattern": {
                "shape": look.hatch,
                "fillmode": "overlay",
                "fgcolor": COLOURS["surface"].light,
                "fgopacity": 0.35,
                "size": 7,
            },
        },
        "hovertemplate": "%{x:.3~f} s, from second %{base:.3~f}<extra></extra>",
    }


def _events(rows: list[tuple[int, FinishedSpan]], begin: float) -> list[dict[str, JsonValue]]:
    found = [
        (row, span.start_time - begin + event.after, event.name)
        for row, (_, span) in enumerate(rows)
        for event in span.events
    ]
    if not found:
        return []
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": EVENT,
            "x": [significant(at, 6) for _, at, _ in found],
            "y": [row for row, _, _ in found],
            "text": [name for _, _, name in found],
            "marker": {"symbol": "diamond", "size": 8, "color": COLOURS["text"].light,
                       "line": {"width": 1.5, "color": COLOURS["surface"].light}},
            "hovertemplate": "%{text}, second %{x:.3~f}<extra></extra>",
        }
    ]  # fmt: skip
