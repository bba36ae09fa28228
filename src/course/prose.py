"""Sentences with the run's numbers, a chapter's first lines, and the code itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from types import FunctionType

from course.display import Shown
from llm_patterns.catalog import Companion, Pattern, Priority, chapter

__all__ = ["head", "related", "say", "source"]

SYSTEMS = {"rag": "RAG", "agents": "Agents", "streaming": "Streaming", "batch": "Batch"}


def say(text: str) -> Shown:
    """Markdown from a cell: a sentence that cannot go stale, since its numbers come from the run.

    >>> say(f"The load reaches **{2.7:.1f} times** the capacity.")
    The load reaches 2.7 times the capacity.

    A dollar before a figure is money, and never the beginning of a formula.
    """
    money = re.sub(r"(?<!\\)\$(?=\d)", r"\\$", text)
    return Shown(text.replace("**", "").replace("`", ""), markdown=money)


def head(slug: str, *, minutes: int, know_first: Sequence[str], you_will: Sequence[str]) -> Shown:
    """A chapter's first lines, from the catalog: category, priorities, reading time, what one will be able to do.

    Args:
        slug: the chapter's name in the catalog.
        minutes: to read.
        know_first: what to know before, in Markdown.
        you_will: three things the reader will be able to do, in Markdown, each continuing "you will".

    Raises:
        UnknownPattern: if the catalog has no such chapter.
        ValueError: if there are not three things.
    """
    if len(you_will) != 3:
        raise ValueError(f"A chapter promises three things, got {len(you_will)}.")
    entry = chapter(slug)
    group = entry.category.label if isinstance(entry, Pattern) else entry.section.label
    priorities = _priorities(entry)
    chips = "".join(
        f'<span class="course-chip" data-priority="{value.name.lower()}">'
        f"{system} <strong>{value.value}</strong></span> "
        for system, value in priorities.items()
    )
    listed = "\n".join(f"- {each}" for each in you_will)
    text = (
        f'<div class="course-head"><span class="course-category">{group}</span> '
        f"{chips}</div>\n\n"
        f"**{minutes} minutes.** Know first: {', '.join(know_first)}.\n\n"
        f"After this chapter you will\n\n{listed}\n"
    )
    plain = ", ".join(f"{system}: {value.value}" for system, value in priorities.items())
    facts = [group, plain, f"{minutes} minutes"]
    return Shown(f"{'. '.join(filter(None, facts))}.", markdown=text)


def _priorities(entry: Pattern | Companion) -> dict[str, Priority]:
    """What each type of system needs; a companion is for whoever uses the patterns."""
    if isinstance(entry, Companion):
        return {}
    return {SYSTEMS[name]: value for name, value in entry.priorities._asdict().items()}


def related(slug: str) -> Shown:
    """The neighbours of a chapter, from the catalog: each with the clause that says why.

    A chapter that is there is linked; one that is not is named as coming.

    Raises:
        UnknownPattern: if the catalog has no such chapter.
    """
    lines = []
    for neighbour in chapter(slug).related:
        other = chapter(neighbour.slug)
        name = (
            f"[{other.title}](../{other.path}.ipynb)" if other.published else f"**{other.title}**"
        )
        coming = "" if other.published else " (coming)"
        lines.append(f"- {name}{coming} {neighbour.why}.")
    text = "\n".join(lines)
    return Shown(text.replace("**", ""), markdown=text)


def source(obj: type | FunctionType, *, max_lines: int = 60) -> Shown:
    """The code of an installed function or class, as it is, with its file and lines.

    Raises:
        ValueError: if it is longer than `max_lines`: show a part of it.
    """
    lines, first = inspect.getsourcelines(obj)
    if len(lines) > max_lines:
        raise ValueError(
            f"{obj.__qualname__} has {len(lines)} lines, more than {max_lines}: show a part of it."
        )
    path = Path(*obj.__module__.split(".")).as_posix() + ".py"
    span = f"lines {first} to {first + len(lines) - 1}"
    code = inspect.cleandoc("\n" + "".join(lines))
    return Shown(
        f"{path}, {span}\n\n{code}", markdown=f"```python\n{code}\n```\n\n*`{path}`, {span}*"
    )
