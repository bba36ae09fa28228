"""Exercises: the reader's answer scored beside the book's, on the same seeded scenario.

>>> check(0.2, score=lambda ratio: {"Availability": 1 - ratio / 10}, book=0.1,
...       passes={"Availability": ">= 0.985"}, title="Choose the ratio")
Choose the ratio: not yet
Metric        Your answer  The book's  Bar
Availability         0.98        0.99  >= 0.985
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from course.display import NOTHING, Shown, inline
from course.tables import table

__all__ = ["check"]

Answer = TypeVar("Answer")
Scores = Mapping[str, float]

_COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}
_BAR = re.compile(r"\s*(>=|<=|>|<|==)\s*(-?[\d.]+(?:e-?\d+)?)\s*")


def check(
    answer: Answer | None,
    *,
    score: Callable[[Answer], Scores],
    book: Answer,
    passes: Mapping[str, str],
    title: str,
) -> Shown:
    """Score an answer beside the book's.

    Args:
        answer: the reader's, or `None` as long as there is none: then only the bar is shown.
        score: runs the scenario with an answer and returns numbers by name.
        book: the book's answer, scored the same way.
        passes: the bar for each number that counts, such as `{"Availability": ">= 0.99"}`.
        title: the exercise.

    A wrong answer never raises: the verdict says what is missing. One that does not run says why.

    Raises:
        ValueError: if a bar cannot be read, or names a number that `score` does not return.
    """
    for bar in passes.values():
        _parse(bar)
    if answer is None:
        bars = ", ".join(f"{name} {bar}" for name, bar in passes.items())
        return _verdict(title, "open", f"not answered yet. To pass: {bars}.")
    expected = dict(score(book))
    missing = [name for name in passes if name not in expected]
    if missing:
        raise ValueError(f"The bar {missing[0]!r} is none of the numbers {sorted(expected)}.")
    try:
        reached = dict(score(answer))
    except Exception as error:
        return _verdict(
            title, "broken", f"your answer did not run: {type(error).__name__}: {error}"
        )
    passed = all(_holds(reached.get(name), bar) for name, bar in passes.items())
    rows = [
        {
            "Metric": name,
            "Your answer": reached.get(name),
            "The book's": value,
            "Bar": passes.get(name, NOTHING),
        }
        for name, value in expected.items()
    ]
    verdict = _verdict(title, "passed", "passed") if passed else _verdict(title, "short", "not yet")
    shown = table(rows, caption=title)
    plain = shown.text.replace(title, verdict.text, 1)
    return Shown(plain, html=f"{verdict.html}{shown.html}")


def _parse(bar: str) -> tuple[Callable[[float, float], bool], float]:
    match = _BAR.fullmatch(bar)
    if match is None:
        raise ValueError(f"A bar is a comparison with a number, such as '>= 0.99'; got {bar!r}.")
    return _COMPARE[match[1]], float(match[2])


def _holds(value: float | None, bar: str) -> bool:
    compare, against = _parse(bar)
    return value is not None and compare(value, against)


def _verdict(title: str, state: str, text: str) -> Shown:
    return Shown(
        f"{title}: {text}",
        html=f'<p class="course-verdict" data-state="{state}"><strong>{inline(title)}:</strong> '
        f"{inline(text)}</p>",
    )
