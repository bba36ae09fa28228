"""Figures: one dictionary each, in one style, which the page and a live notebook draw alike.

>>> figure = lines(
...     {"Naive": ([0, 1, 2], [1.0, 3.0, 9.0]), "Budget": ([0, 1, 2], [1.0, 1.1, 1.0])},
...     roles={"Naive": "naive", "Budget": "pattern"},
...     limits={"Capacity": 5},
...     title="Naive retries pass the capacity within 2 s",
...     x="Time (s)",
...     y="Requests per second",
...     alt="Line chart of offered load; naive retries climb to 9, the budget stays near 1.",
... )
>>> figure.title
'Naive retries pass the capacity within 2 s'

The title states the finding; `alt` says chart, data and finding for a reader who does not see it. A role fixes
the colour, dash and marker: `naive`, `pattern`, `provider`, `limit`, `other1` to `other4`.
"""

from __future__ import annotations

import html
import math
import sys
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, SupportsFloat, runtime_checkable

from pydantic import JsonValue

from course.display import figures_of, significant
from course.theme import COLOURS, FONT, LINES, roles_for

__all__ = ["MIME", "Figure", "Series", "bars", "heatmap", "lines"]

MIME = "application/vnd.plotly.v1+json"
MAX_POINTS = 2_000
HEIGHT = 380
LABEL_GAP = 0.062  # of the plot's height: a label's line height at the default size
LABEL_LIMIT = 24  # characters; longer names would take the plot's room, and go to the legend


@runtime_checkable
class Items(Protocol):
    """Pairs of x and y: a dict or a pandas Series."""

    def items(self) -> Iterable[tuple[Any, Any]]: ...


Series = Items | tuple[Iterable[Any], Iterable[Any]]
"""What is drawn under one name: x and y, or anything with `items()`, such as a pandas Series."""


@dataclass(frozen=True)
class Figure:
    """One drawn figure: plotly's data and layout, and the words for those who do not see it."""

    title: str
    alt: str
    data: list[dict[str, JsonValue]] = field(repr=False)
    layout: dict[str, JsonValue] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.title.strip() or len(self.alt.split()) < 5:
            raise ValueError(
                f"A figure needs a title that states its finding (got {self.title!r}) and alt text "
                f"that says chart, data and finding (got {self.alt!r})."
            )
        points = sum(_points(trace) for trace in self.data)
        if points > MAX_POINTS:
            raise ValueError(
                f"{self.title!r} has {points:,} points, more than {MAX_POINTS:,}: "
                "aggregate first, for example to one mean a second."
            )

    def to_dict(self) -> dict[str, JsonValue]:
        """Plotly's JSON, as it is stored: title and alt text are in `layout.meta`."""
        lines_of_title = textwrap.wrap(self.title, 76)
        text = "<br>".join(html.escape(line, quote=False) for line in lines_of_title)
        margin = {"t": 34 + 22 * len(lines_of_title)}
        return {
            "data": list(self.data),
            "layout": {
                **self.layout,
                "title": _title(text),
                "margin": {**_mapping(self.layout.get("margin")), **margin},
                "meta": {"title": self.title, "alt": self.alt},
            },
            "config": {"displayModeBar": False, "responsive": True},
        }

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> Mapping[str, JsonValue]:
        figure = self.to_dict()
        shown: dict[str, JsonValue] = {MIME: figure, "text/plain": f"{self.title}\n{self.alt}"}
        return shown | _for_colab(figure) if "google.colab" in sys.modules else shown


def lines(
    series: Mapping[str, Series],
    *,
    title: str,
    x: str,
    y: str,
    alt: str,
    roles: Mapping[str, str] | None = None,
    limits: Mapping[str, float] | None = None,
    spans: Mapping[str, tuple[float, float]] | None = None,
    marks: Mapping[str, float] | None = None,
    points: Collection[str] = (),
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    step: bool = False,
    log_x: bool = False,
    log_y: bool = False,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    height: int = HEIGHT,
) -> Figure:
    """Lines over a common axis.

    Args:
        series: x and y by name.
        title: the finding, as a sentence without a full stop.
        x: the horizontal axis, with its unit.
        y: the vertical axis, with its unit.
        alt: chart, data and finding in words.
        roles: a role by name; other names take the next free colour.
        limits: horizontal lines, by label.
        spans: shaded windows on the x axis (from, to), by label: a fault, a deployment.
        marks: vertical lines, by label.
        points: the names drawn as markers only (measured, beside a formula's line).
        bands: low and high around the line of that name.
        step: hold each value until the next.
        log_x: a logarithmic horizontal axis.
        log_y: a logarithmic vertical axis.
        x_range: the horizontal range; by default that of the data.
        y_range: the vertical range; by default from zero, or around the data if some is negative.
        height: in pixels.

    Raises:
        ValueError: if a series' x and y differ in length, or there are more than 2,000 points.
    """
    drawn = {name: _xy(name, values) for name, values in series.items()}
    role = roles_for(list(drawn), dict(roles or {}))
    band = {name: ([*map(significant, low)], [*map(significant, high)])
            for name, (low, high) in (bands or {}).items()}  # fmt: skip
    traces = [_band(drawn[name][0], *edges, role[name]) for name, edges in band.items()]
    traces += [
        _line(name, xs, ys, role[name], step=step, only_points=name in points)
        for name, (xs, ys) in drawn.items()
    ]
    limits = dict(limits or {})
    seen = [value for _, ys in drawn.values() for value in ys] + list(limits.values())
    seen += [value for edges in band.values() for edge in edges for value in edge]
    bottom_top = y_range or _range(seen, log=log_y)
    left_right = x_range or (None if points else _extent(drawn))
    middle = math.fsum(left_right or _extent(drawn) or (0, math.inf)) / 2
    shapes = [*_spans(spans or {}), *_marks(marks or {}, middle), *_limits(limits)]
    labels, right = _end_labels(drawn, role, bottom_top, log=log_y, x_range=x_range)
    layout = _layout(x, y, height)
    layout["xaxis"] = {
        **_axis(x, log=log_x),
        **_span_of(left_right, log=log_x),
        "showgrid": False,
    }
    layout["yaxis"] = {**_axis(y, log=log_y), **_span_of(bottom_top, log=log_y)}
    layout.update(hovermode="x unified", shapes=shapes, annotations=labels)
    layout.update(showlegend=len(drawn) > 1 and not labels, margin=_margin(right))
    return Figure(title, alt, traces, layout)


def bars(
    series: Mapping[str, float] | Mapping[str, Mapping[str, float]],
    *,
    title: str,
    x: str,
    y: str,
    alt: str,
    roles: Mapping[str, str] | None = None,
    limits: Mapping[str, float] | None = None,
    stacked: bool = False,
    horizontal: bool = False,
    log_y: bool = False,
    y_range: tuple[float, float] | None = None,
    height: int = HEIGHT,
) -> Figure:
    """Bars, with their values written on them.

    >>> bars({"Naive": 812, "Budget": 31}, title="The budget wastes 26 times fewer attempts",
    ...      x="Strategy", y="Wasted attempts", roles={"Naive": "naive", "Budget": "pattern"},
    ...      alt="Bar chart of wasted attempts: naive 812, budget 31.").data[0]["type"]
    'bar'

    Args:
        series: a value by category, or by name and category for groups of bars. A role belongs to a
            category in the first form, to a name in the second.
        title: the finding.
        x: what the categories are.
        y: the value, with its unit.
        alt: chart, data and finding in words.
        roles: a role by category or name.
        limits: lines at a value, by label.
        stacked: stack the groups instead of setting them beside each other.
        horizontal: bars from left to right, for long category names.
        log_y: a logarithmic value axis.
        y_range: the range of values.
        height: in pixels.
    """
    shape = {"horizontal": horizontal, "stacked": stacked}
    groups = {name: dict(each) for name, each in series.items() if isinstance(each, Mapping)}
    given = dict(roles or {})
    if groups:
        role = roles_for(list(groups), given)
        traces = [_bar(name, each, role[name], **shape) for name, each in groups.items()]
    else:
        flat = {name: value for name, value in series.items() if not isinstance(value, Mapping)}
        role = roles_for(list(flat), given) if given else dict.fromkeys(flat, "pattern")
        traces = [_bar(name, {name: value}, role[name], **shape) for name, value in flat.items()]
    layout = _layout(x, y, height)
    value_axis = {**_axis(y, log=log_y), **_span_of(y_range, log=log_y)}
    if horizontal:
        names = {**_axis(""), "autorange": "reversed", "showgrid": False}
        layout["xaxis"], layout["yaxis"] = value_axis, names
    else:
        layout["xaxis"], layout["yaxis"] = {**_axis(x), "showgrid": False}, value_axis
    layout.update(
        barmode="stack" if stacked or not groups else "group",
        bargap=0.3,
        shapes=_limits(dict(limits or {}), upright=horizontal),
        showlegend=len(groups) > 1,
        margin=_margin(48 if horizontal else 16),
    )
    return Figure(title, alt, traces, layout)


def heatmap(
    values: Sequence[Sequence[float]],
    *,
    x_values: Sequence[object],
    y_values: Sequence[object],
    title: str,
    x: str,
    y: str,
    z: str,
    alt: str,
    center: float | None = None,
    z_range: tuple[float, float] | None = None,
    height: int = HEIGHT,
) -> Figure:
    """A value for each pair of settings, written in its cell.

    Args:
        values: one row for each of `y_values`, one value in it for each of `x_values`.
        x_values: the columns' settings.
        y_values: the rows' settings, from below.
        title: the finding.
        x: what the columns are, with the unit.
        y: what the rows are, with the unit.
        z: the value, with its unit.
        alt: chart, data and finding in words.
        center: the value that divides good from bad, if there is one.
        z_range: the range of colours; by default that of the values.
        height: in pixels.

    Raises:
        ValueError: if the rows do not fit the settings.
    """
    if [len(row) for row in values] != [len(x_values)] * len(y_values):
        raise ValueError(
            f"Expected {len(y_values)} rows of {len(x_values)} values, "
            f"got rows of {[len(row) for row in values]}."
        )
    grid = [[significant(value) for value in row] for row in values]
    flat = [value for row in grid for value in row if value is not None]
    low, high = z_range or (min(flat), max(flat))
    if center is not None:
        reach = max(high - center, center - low)
        low, high = center - reach, center + reach
    scale = ["scale0", "scale1", "scale2", "scale3", "scale4"]
    if center is not None:
        scale = ["below0", "below1", "scale0", "scale2", "scale4"]
    trace: dict[str, JsonValue] = {
        "type": "heatmap",
        "x": [figures_of(value) for value in x_values],
        "y": [figures_of(value) for value in y_values],
        "z": grid,  # type: ignore[dict-item]
        "zmin": low,
        "zmax": high,
        "colorscale": [[at / 4, COLOURS[name].light] for at, name in enumerate(scale)],
        "colorbar": {"title": {"text": z, "side": "right"}, "thickness": 12, "outlinewidth": 0},
        "xgap": 2,
        "ygap": 2,
        "hovertemplate": f"{x}: %{{x}}<br>{y}: %{{y}}<br>{z}: %{{z}}<extra></extra>",
    }
    if len(flat) <= 80:
        trace |= {"texttemplate": "%{text}", "text": [[figures_of(v) for v in row] for row in grid]}
    layout = _layout(x, y, height)
    layout.update(
        xaxis={**_axis(x), "type": "category", "showgrid": False},
        yaxis={**_axis(y), "type": "category", "showgrid": False},
        showlegend=False,
        margin=_margin(8),
    )
    return Figure(title, alt, [trace], layout)


def _xy(name: str, values: Series) -> tuple[list[JsonValue], list[float | int | None]]:
    pairs = list(values.items()) if isinstance(values, Items) else None
    xs, ys = zip(*pairs, strict=True) if pairs else map(list, values)  # type: ignore[arg-type]
    if len(xs) != len(ys):
        raise ValueError(f"{name!r} has {len(xs)} x values and {len(ys)} y values.")
    return [_coordinate(value) for value in xs], [significant(value) for value in ys]


def _coordinate(value: object) -> JsonValue:
    # Six digits keep neighbours apart on a day's axis in seconds.
    return significant(value, 6) if isinstance(value, SupportsFloat) else str(value)


def _points(trace: Mapping[str, JsonValue]) -> int:
    cells = trace.get("z", trace.get("y"))
    rows = cells if isinstance(cells, list) else []
    return sum(len(row) if isinstance(row, list) else 1 for row in rows)


def _line(
    name: str,
    xs: list[JsonValue],
    ys: list[float | int | None],
    role: str,
    *,
    step: bool,
    only_points: bool,
) -> dict[str, JsonValue]:
    look = LINES[role]
    trace: dict[str, JsonValue] = {"type": "scatter", "name": name, "x": xs, "y": list(ys)}
    marker: dict[str, JsonValue] = {"symbol": look.symbol, "color": look.colour, "size": 8}
    if only_points:
        return trace | {"mode": "markers", "marker": marker}
    line: dict[str, JsonValue] = {"color": look.colour, "dash": look.dash, "width": look.width}
    if step:
        line["shape"] = "hv"
    marker |= {"size": 7, "maxdisplayed": 6}
    trace["cliponaxis"] = False
    return trace | {"mode": "lines+markers", "line": line, "marker": marker}


def _band(
    xs: list[JsonValue],
    low: list[float | int | None],
    high: list[float | int | None],
    role: str,
) -> dict[str, JsonValue]:
    if not len(xs) == len(low) == len(high):
        raise ValueError(f"A band needs {len(xs)} values, got {len(low)} and {len(high)}.")
    return {
        "type": "scatter",
        "x": xs + xs[::-1],
        "y": [*high, *low[::-1]],
        "fill": "toself",
        "fillcolor": LINES[role].colour,
        "opacity": 0.18,
        "line": {"width": 0},
        "mode": "lines",
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _bar(
    name: str, values: Mapping[str, float], role: str, *, horizontal: bool, stacked: bool
) -> dict[str, JsonValue]:
    heights: list[JsonValue] = [significant(value) for value in values.values()]
    names: list[JsonValue] = list(values)
    trace: dict[str, JsonValue] = {
        "type": "bar",
        "name": name,
        "x": heights if horizontal else names,
        "y": names if horizontal else heights,
        "text": [figures_of(value) for value in heights],
        "textposition": "inside" if stacked else "outside",
        "cliponaxis": False,
        "marker": {
            "color": LINES[role].colour,
            "pattern": {
                "shape": LINES[role].hatch,
                "fillmode": "overlay",
                "fgcolor": COLOURS["surface"].light,
                "fgopacity": 0.35,
                "size": 7,
            },
        },
    }
    return trace | ({"orientation": "h"} if horizontal else {})


def _range(values: Sequence[JsonValue], *, log: bool) -> tuple[float, float]:
    finite = [float(value) for value in values if isinstance(value, (int, float))]
    if log:
        positive = [value for value in finite if value > 0]
        if not positive:
            raise ValueError("A logarithmic axis needs at least one value above zero.")
        return min(positive) / 1.3, max(positive) * 1.3
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    reach = (high - min(low, 0.0)) or 1.0
    return (low - 0.05 * reach if low < 0 else 0.0), high + 0.08 * reach


def _extent(
    drawn: Mapping[str, tuple[list[JsonValue], list[float | int | None]]],
) -> tuple[float, float] | None:
    """The ends of a numeric axis; the data's own ends, since a line needs no room beside it."""
    numbers = [at for xs, _ in drawn.values() for at in xs if isinstance(at, (int, float))]
    if any(isinstance(at, str) for xs, _ in drawn.values() for at in xs) or len(set(numbers)) < 2:
        return None
    return min(numbers), max(numbers)


def _span_of(limits: tuple[float, float] | None, *, log: bool) -> dict[str, JsonValue]:
    if limits is None:
        return {}
    ends = [math.log10(end) if log else end for end in limits]
    return {"range": [significant(end, 5) for end in ends]}


def _end_labels(
    drawn: Mapping[str, tuple[list[JsonValue], list[float | int | None]]],
    role: Mapping[str, str],
    bottom_top: tuple[float, float],
    *,
    log: bool,
    x_range: tuple[float, float] | None,
) -> tuple[list[JsonValue], int]:
    """Labels at the lines' ends, and the margin they need; none where a legend reads better."""
    if len(drawn) < 2 or max(map(len, drawn)) > LABEL_LIMIT or x_range is not None:
        return [], 16
    ends = {name: _end(xs, ys) for name, (xs, ys) in drawn.items()}
    lasts = [end[0] for end in ends.values() if end]
    if len(lasts) < len(ends) or any(last != lasts[0] for last in lasts) or len(ends) > 8:
        return [], 16
    low, high = (math.log10(end) if log else end for end in bottom_top)
    heights = {}
    for name, end in ends.items():
        value = float(end[1]) if end else low
        value = math.log10(max(value, 1e-300)) if log else value
        heights[name] = min(max((value - low) / (high - low), 0.0), 1.0)
    labels = [
        _annotation(f"{LINES[role[name]].glyph} {name}", at, LINES[role[name]].colour)
        for name, at in _spread(heights).items()
    ]
    return labels, 28 + round(7.6 * max(map(len, drawn)))


def _end(xs: list[JsonValue], ys: list[float | int | None]) -> tuple[JsonValue, float] | None:
    finite = [(at, value) for at, value in zip(xs, ys, strict=True) if value is not None]
    return finite[-1] if finite and finite[-1][0] == xs[-1] else None


def _spread(heights: Mapping[str, float]) -> dict[str, float]:
    """The heights, moved apart until no two labels overlap, in the same order.

    >>> _spread({"a": 0.5, "b": 0.5})
    {'a': 0.469, 'b': 0.531}
    """
    order = sorted(heights, key=lambda name: heights[name])
    placed = [heights[name] for name in order]
    for at in range(1, len(placed)):
        placed[at] = max(placed[at], placed[at - 1] + LABEL_GAP)
    moved = math.fsum(placed) - math.fsum(heights.values())
    shift = min(max(moved / len(placed), placed[-1] - 1.0), max(placed[0], placed[-1] - 1.0))
    return {name: round(at - shift, 4) for name, at in zip(order, placed, strict=True)}


def _annotation(text: str, at: float, colour: str) -> JsonValue:
    return {
        "name": "series",
        "text": html.escape(text, quote=False),
        "xref": "paper",
        "yref": "paper",
        "x": 1.01,
        "y": at,
        "xanchor": "left",
        "yanchor": "middle",
        "showarrow": False,
        "font": {"color": colour, "size": 13},
    }


def _limits(limits: Mapping[str, float], *, upright: bool = False) -> list[JsonValue]:
    across, along = ("x", "y") if upright else ("y", "x")
    place: dict[str, JsonValue] = (
        {"textposition": "end", "textangle": 0, "xanchor": "center", "yanchor": "bottom"}
        if upright
        else {"textposition": "start", "yanchor": "bottom"}
    )
    return [
        {
            "type": "line",
            f"{along}ref": "paper",
            f"{along}0": 0,
            f"{along}1": 1,
            f"{across}0": significant(value),
            f"{across}1": significant(value),
            "line": {"color": LINES["limit"].colour, "width": 1.5, "dash": LINES["limit"].dash},
            "label": _shape_label(name, "limit", **place),
        }
        for name, value in limits.items()
    ]


def _marks(marks: Mapping[str, float], middle: float) -> list[JsonValue]:
    """Upright lines; each label on the side that has room."""
    return [
        {
            "type": "line",
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "x0": significant(value, 6),
            "x1": significant(value, 6),
            "line": {"color": LINES["limit"].colour, "width": 1, "dash": "dot"},
            "label": _shape_label(
                name,
                "muted",
                textposition="end",
                textangle=0,
                xanchor="left" if value <= middle else "right",
                yanchor="top",
            ),
        }
        for name, value in marks.items()
    ]


def _spans(spans: Mapping[str, tuple[float, float]]) -> list[JsonValue]:
    return [
        {
            "type": "rect",
            "layer": "below",
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "x0": significant(start, 6),
            "x1": significant(end, 6),
            "line": {"width": 0},
            "fillcolor": COLOURS["span"].light,
            "label": _shape_label(name, "naive", textposition="top center"),
        }
        for name, (start, end) in spans.items()
    ]


def _shape_label(text: str, colour: str, **placed: JsonValue) -> JsonValue:
    return {
        "text": html.escape(text, quote=False),
        "font": {"size": 12, "color": COLOURS[colour].light},
        "padding": 4,
        **placed,
    }


def _axis(label: str, *, log: bool = False) -> dict[str, JsonValue]:
    axis: dict[str, JsonValue] = {
        "title": {"text": html.escape(label, quote=False), "standoff": 10, "font": {"size": 13}},
        "automargin": True,
        "gridcolor": COLOURS["rule"].light,
        "linecolor": COLOURS["rule"].light,
        "zerolinecolor": COLOURS["rule"].light,
        "tickcolor": COLOURS["rule"].light,
        "separatethousands": True,
    }
    return axis | ({"type": "log", "dtick": 1} if log else {})


def _layout(x: str, y: str, height: int) -> dict[str, JsonValue]:
    if not x.strip() or not y.strip():
        raise ValueError(f"Both axes need a label with a unit, got x={x!r} and y={y!r}.")
    muted, text, surface = (COLOURS[name].light for name in ("muted", "text", "surface"))
    return {
        "height": height,
        "font": {"family": FONT, "size": 13, "color": muted},
        "paper_bgcolor": surface,
        "plot_bgcolor": surface,
        "hoverlabel": {"bgcolor": surface, "font": {"color": text}},
        "legend": {
            "orientation": "h",
            "x": 0,
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "font": {"color": text},
            "itemwidth": 44,
        },
    }


def _title(text: str) -> JsonValue:
    return {
        "text": text,
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "yref": "container",
        "y": 1,
        "yanchor": "top",
        "pad": {"t": 12},
        "font": {"size": 16, "color": COLOURS["text"].light},
    }


def _margin(right: int) -> dict[str, JsonValue]:
    return {"l": 56, "r": right, "b": 56}


def _mapping(value: JsonValue) -> dict[str, JsonValue]:
    return dict(value) if isinstance(value, dict) else {}


def _for_colab(figure: dict[str, JsonValue]) -> dict[str, JsonValue]:
    # Colab draws no plotly JSON by itself; plotly's own renderer for it brings the page it needs.
    import plotly.io  # type: ignore[import-untyped]  # noqa: PLC0415

    return dict(plotly.io.renderers["colab"].to_mimebundle(figure))
