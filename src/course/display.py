"""What a cell shows: one value in several formats, of which each front end takes the best it knows."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import SupportsFloat

from pydantic import JsonValue

__all__ = ["NOTHING", "Shown", "figures_of", "inline", "significant"]

NOTHING = "\N{EN DASH}"
"""What a table shows where there is no value."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A cell's output. `text` is what a terminal shows; the other formats are richer forms of it.

    >>> Shown("3 calls", markdown="**3** calls")
    3 calls
    """

    text: str
    html: str | None = None
    markdown: str | None = None

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> Mapping[str, JsonValue]:
        formats = {
            "text/html": self.html,
            "text/markdown": self.markdown,
            "text/plain": self.text,
        }
        return {mime: value for mime, value in formats.items() if value is not None}


def significant(value: SupportsFloat | None, digits: int = 4) -> float | int | None:
    """`value` to so many significant digits; what is not finite is left out.

    >>> significant(1234567.8), significant(0.000123456), significant(float("nan"))
    (1235000, 0.0001235, None)
    """
    if value is None:
        return None
    rounded = float(f"{float(value):.{digits}g}")
    if not math.isfinite(rounded):
        return None
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def figures_of(value: object) -> str:
    """A value as a reader wants it: numbers to four significant digits, with thousands separated.

    >>> figures_of(12345.678), figures_of(0.98765), figures_of(True), figures_of("full")
    ('12,346', '0.9877', 'yes', 'full')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return NOTHING
    if not isinstance(value, Real):
        return str(value)
    number = float(value)
    if not math.isfinite(number):
        return NOTHING
    if number.is_integer() or abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.4g}"


_INLINE = (
    (re.compile(r"`([^`]+)`"), r"<code>\1</code>"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"\[([^\]]+)\]\((https?://[^)\s]+|#[^)\s]*)\)"), r'<a href="\2">\1</a>'),
)


def inline(text: str) -> str:
    """Markdown's `code`, **strong** and [links](https://...) as HTML, the rest escaped.

    >>> inline("set `max_retries` < 1")
    'set <code>max_retries</code> &lt; 1'
    """
    shown = html.escape(text)
    for pattern, replacement in _INLINE:
        shown = pattern.sub(replacement, shown)
    return shown
