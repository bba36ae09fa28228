"""The navigation matrix: every pattern, its question and who needs it, and what stands beside them, from the catalog.

`python -m course.matrix README.md` writes it between the two markers of a Markdown file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from llm_patterns.catalog import (
    Category,
    Companion,
    Pattern,
    Section,
    companions,
    patterns,
)

__all__ = ["matrix", "with_matrix"]

_START, _END = "<!-- matrix -->", "<!-- /matrix -->"
_HEADINGS = ("Pattern", "The question", "RAG", "Agents", "Streaming", "Batch")
_SECTIONS = {Section.GUIDES: "Recipes", Section.TOOLKIT: "Toolkit"}


def matrix() -> str:
    """Return the matrix as one Markdown table per category or section; what is published links to its chapter."""
    tables = {category.label: _table(patterns(category)) for category in Category}
    tables |= {label: _companions(companions(section)) for section, label in _SECTIONS.items()}
    return "\n\n".join(f"**{label}**\n\n{table}" for label, table in tables.items())


def with_matrix(text: str) -> str:
    """Return a Markdown text with the matrix between its markers renewed.

    Raises:
        ValueError: if the text lacks a marker.
    """
    if _START not in text or _END not in text:
        raise ValueError(f"the text needs the markers {_START} and {_END}")
    before, _, rest = text.partition(_START)
    _, _, after = rest.partition(_END)
    return f"{before}{_START}\n{matrix()}\n{_END}{after}"


def _table(rows: tuple[Pattern, ...]) -> str:
    lines = [_line(_HEADINGS), _line(("---",) * len(_HEADINGS))]
    lines += [_line((_title(each), each.question, *each.priorities)) for each in rows]
    return "\n".join(lines)


def _companions(rows: tuple[Companion, ...]) -> str:
    lines = [_line(("Chapter", "The question")), _line(("---", "---"))]
    lines += [_line((_title(each), each.question)) for each in rows]
    return "\n".join(lines)


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _title(each: Pattern | Companion) -> str:
    return f"[{each.title}](book/{each.path}.ipynb)" if each.published else each.title


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(with_matrix(Path(name).read_text()))
