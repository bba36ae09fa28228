"""Small multiples: several figures on the same axes, side by side."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from course.figures import Figure

__all__ = ["panels"]

GAP = (0.08, 0.18)  # of the width and of the height, between two panels


def panels(
    figures: Mapping[str, Figure],
    *,
    title: str,
    alt: str,
    columns: int = 2,
    height: int | None = None,
) -> Figure:
    """Several figures of the same axes in one, each under its name.

    Args:
        figures: figures by name, made by `lines` or `bars`; axis titles, ranges and roles are theirs. Their
            ranges must be equal, or the eye compares what is not comparable.
        title: the finding.
        alt: chart, data and finding in words.
        columns: panels in a row.
        height: in pixels; by default 210 for each row.

    Raises:
        ValueError: if the figures' vertical ranges differ.
    """
    ranges = {name: _axis(figure, "yaxis").get("range") for name, figure in figures.items()}
    if len({str(each) for each in ranges.values()}) > 1:
        raise ValueError(f"Panels need one vertical range; give y_range. Got {ranges}.")
    rows = -(-len(figures) // columns)
    first = next(iter(figures.values()))
    layout = {**first.layout, "height": height or 110 + 210 * rows, "hovermode": "x"}
    data: list[dict[str, JsonValue]] = []
    shapes: list[JsonValue] = []
    names: list[JsonValue] = []
    known: set[str] = set()
    for at, (name, figure) in enumerate(figures.items()):
        number = str(at + 1) if at else ""
        across, down = (
            _domain(at % columns, columns, GAP[0]),
            _domain(rows - 1 - at // columns, rows, GAP[1]),
        )
        layout[f"xaxis{number}"] = _axis(figure, "xaxis") | {
            "domain": across,
            "anchor": f"y{number}",
        }
        layout[f"yaxis{number}"] = _axis(figure, "yaxis") | {
            "domain": down,
            "anchor": f"x{number}",
        }
        if at // columns < rows - 1 and at + columns < len(figures):
            del layout[f"xaxis{number}"]["title"]  # type: ignore[union-attr, arg-type]
        if at % columns:
            del layout[f"yaxis{number}"]["title"]  # type: ignore[union-attr, arg-type]
        for trace in figure.data:
            label = str(trace.get("name", ""))
            placed = {"xaxis": f"x{number}", "yaxis": f"y{number}", "legendgroup": label}
            data.append(trace | placed | {"showlegend": bool(label) and label not in known})
            known.add(label)
        shapes += [_move(shape, number) for shape in _list(figure.layout.get("shapes"))]
        names.append(_name(name, number))
    layout.update(shapes=shapes, annotations=names, showlegend=len(known - {""}) > 1)
    layout["margin"] = {**_dict(layout.get("margin")), "r": 16}
    return Figure(title, alt, data, layout)


def _domain(at: int, of: int, gap: float) -> list[JsonValue]:
    size = (1 - gap * (of - 1)) / of
    return [round(at * (size + gap), 4), round(at * (size + gap) + size, 4)]


def _axis(figure: Figure, name: str) -> dict[str, JsonValue]:
    return _dict(figure.layout.get(name))


def _move(shape: JsonValue, number: str) -> JsonValue:
    moved = _dict(shape)
    for ref in ("x", "y"):
        paper = moved.get(f"{ref}ref") == "paper"
        moved[f"{ref}ref"] = f"{ref}{number} domain" if paper else f"{ref}{number}"
    return moved


def _name(text: str, number: str) -> JsonValue:
    return {
        "text": f"<b>{text}</b>",
        "xref": f"x{number} domain",
        "yref": f"y{number} domain",
        "x": 0,
        "y": 1,
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
    }


def _dict(value: JsonValue) -> dict[str, JsonValue]:
    return dict(value) if isinstance(value, dict) else {}


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []
