"""Tables: of results, of a policy's parameters, of what to do at three in the morning.

>>> table([{"Strategy": "Naive", "Wasted": 812}, {"Strategy": "Budget", "Wasted": 31}],
...       caption="Wasted attempts in the outage")
Wasted attempts in the outage
Strategy  Wasted
Naive        812
Budget        31
"""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum
from numbers import Real
from typing import Literal, Protocol, get_args, get_origin, runtime_checkable

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from course.display import NOTHING, Shown, figures_of, inline

__all__ = ["policy_table", "runbook", "table"]

Row = Mapping[str, object]
Format = str | Callable[[object], str]


@runtime_checkable
class Frame(Protocol):
    """What is used of a pandas DataFrame."""

    def to_dict(self, orient: Literal["records"]) -> list[dict[str, object]]: ...


WORDY = 60
"""Characters from which a cell is prose: on a phone such a table's rows are stacked."""


def table(
    rows: Iterable[Row] | Frame,
    *,
    caption: str,
    formats: Mapping[str, Format] | None = None,
    highlight: str | Collection[str] = (),
) -> Shown:
    """Rows as a table, numbers to the right; on a phone it scrolls inside itself.

    Args:
        rows: mappings with the same keys, or a DataFrame (its index is not shown: `reset_index()` first).
        caption: what the table holds, or its finding.
        formats: by column, a format such as `".1%"` or `",.0f"`, or a function from value to text.
        highlight: the rows to emphasise, by their first cell.

    Raises:
        ValueError: if there are no rows, their keys differ, or a format or highlight names nothing.
    """
    records = rows.to_dict("records") if isinstance(rows, Frame) else [dict(row) for row in rows]
    if not records or any(list(row) != list(records[0]) for row in records):
        raise ValueError(f"{caption!r} needs one or more rows, all with the same columns in order.")
    columns = [str(name) for name in records[0]]
    marked = {highlight} if isinstance(highlight, str) else set(highlight)
    firsts = {str(row[columns[0]]) for row in records}
    for kind, names, known in (
        ("format", set(formats or {}), set(columns)),
        ("highlight", marked, firsts),
    ):
        for name in sorted(names - known):
            raise ValueError(f"The {kind} {name!r} is none of {sorted(known)}.")
    cells = [[_text(row[name], (formats or {}).get(name)) for name in columns] for row in records]
    right = [all(_numeric(row[name]) for row in records) for name in columns]
    emphasised = [row[0] in marked or str(record[columns[0]]) in marked
                  for row, record in zip(cells, records, strict=True)]  # fmt: skip
    return Shown(
        _plain(caption, columns, cells, right),
        html=_html(caption, columns, cells, right, emphasised),
    )


def policy_table(policy: type[BaseModel], *, caption: str | None = None) -> Shown:
    """The parameters of a policy, read from its code: default, allowed values, meaning.

    >>> from pydantic import Field
    >>> class Policy(BaseModel):
    ...     max_attempts: int = Field(3, ge=1, le=10, description="Calls in all.")
    >>> policy_table(Policy)
    Parameters of Policy
    Parameter     Default  Allowed  Meaning
    max_attempts  3        1 to 10  Calls in all.
    """
    rows = [
        {
            "Parameter": f"`{name}`",
            "Default": _default(field),
            "Allowed": _allowed(field),
            "Meaning": field.description or "",
        }
        for name, field in policy.model_fields.items()
    ]
    return table(rows, caption=caption or f"Parameters of {policy.__name__}")


def runbook(title: str, entries: Sequence[Mapping[str, str]]) -> Shown:
    """What to do when, as a table and as a Markdown file to download.

    Args:
        title: names the table and the file.
        entries: one mapping for each situation, all with the same keys, for example `Alert`, `Check`, `Do`.
    """
    shown = table(entries, caption=title)
    text = _markdown(title, entries)
    data = b64encode(text.encode()).decode("ascii")
    name = "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split()) + ".md"
    link = (
        f'<p><a class="course-download" download="{name}" '
        f'href="data:text/markdown;charset=utf-8;base64,{data}">Download as {name}</a></p>'
    )
    return Shown(shown.text, html=f"{shown.html}{link}")


def _text(value: object, form: Format | None) -> str:
    if callable(form):
        return form(value)
    if form is not None and _numeric(value) and value is not None:
        return format(value, form)
    return figures_of(value)


def _numeric(value: object) -> bool:
    return value is None or (isinstance(value, (Real, _Money)) and not isinstance(value, bool))


@runtime_checkable
class _Money(Protocol):
    def quantize(self, exp: object) -> object: ...


def _html(
    caption: str,
    columns: list[str],
    cells: list[list[str]],
    right: list[bool],
    emphasised: list[bool],
) -> str:
    side = [' style="text-align:right"' if each else ' style="text-align:left"' for each in right]
    head = "".join(
        f'<th scope="col"{align}>{inline(name)}</th>'
        for name, align in zip(columns, side, strict=True)
    )
    body = "".join(
        ('<tr class="course-highlight">' if strong else "<tr>")
        + "".join(_cell(columns[at], at, text, side[at], strong) for at, text in enumerate(row))
        + "</tr>"
        for row, strong in zip(cells, emphasised, strict=True)
    )
    wordy = " course-wordy" if any(len(text) > WORDY for row in cells for text in row) else ""
    return (
        f'<div class="course-table{wordy}" role="group" aria-label="{html.escape(caption)}" tabindex="0">'
        f"<table><caption>{inline(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(column: str, at: int, text: str, align: str, strong: bool) -> str:
    shown = f"<strong>{inline(text)}</strong>" if strong else inline(text)
    if at == 0:
        return f'<th scope="row"{align}>{shown}</th>'
    return f'<td{align} data-column="{html.escape(column)}">{shown}</td>'


def _plain(caption: str, columns: list[str], cells: list[list[str]], right: list[bool]) -> str:
    grid = [[text.replace("`", "").replace("**", "") for text in row] for row in [columns, *cells]]
    widths = [max(len(row[at]) for row in grid) for at in range(len(columns))]
    rows = [
        "  ".join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in grid
    ]
    return "\n".join([caption, *rows])


def _markdown(title: str, entries: Sequence[Mapping[str, str]]) -> str:
    parts = [f"# {title}"]
    for entry in entries:
        (_, heading), *rest = entry.items()
        parts += [f"## {heading}", *(f"**{name}.** {text}" for name, text in rest)]
    return "\n\n".join(parts) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "none: decide"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, (frozenset, set)):
        return ", ".join(sorted(map(_option, value)))
    if isinstance(value, BaseModel):
        return f"`{type(value).__name__}`"
    return _option(value)


def _option(value: object) -> str:
    return str(value.value) if isinstance(value, Enum) else figures_of(value)


def _allowed(field: FieldInfo) -> str:
    choices = _choices(field.annotation)
    if choices:
        return ", ".join(choices)
    bounds = {
        name: figures_of(getattr(each, name))
        for each in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if getattr(each, name, None) is not None
    }
    if {"ge", "le"} <= set(bounds):
        return f"{bounds['ge']} to {bounds['le']}"
    words = {"gt": "above", "ge": "from", "lt": "below", "le": "up to"}
    return ", ".join(f"{words[name]} {bounds[name]}" for name in words if name in bounds) or NOTHING


def _choices(annotation: object) -> list[str]:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [_option(each) for each in annotation]
    if get_origin(annotation) is Literal:
        return [_option(each) for each in get_args(annotation)]
    return []
