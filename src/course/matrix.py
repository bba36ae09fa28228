"""The navigation matrix: every pattern, its question and who needs it, from the catalog.

`python -m course.matrix README.md` writes it between the two markers of a Markdown file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from llm_patterns.catalog import Category, Pattern, patterns

__all__ = ["matrix", "with_matrix"]

_START, _END = "<!-- matrix -->", "<!-- /matrix -->"
_HEADINGS = ("Pattern", "The question", "RAG", "Agents", "Streaming", "Batch")


def matrix() -> str:
    """Return the matrix as one Markdown table per category; a published pattern links to its chapter."""
    return "\n\n".join(
        f"**{category.label}**\n\n{_table(patterns(category))}" for category in Category
    )


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


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _title(each: Pattern) -> str:
    return f"[{each.title}](book/{each.path}.ipynb)" if each.published else each.title


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(with_matrix(Path(name).read_text()))
