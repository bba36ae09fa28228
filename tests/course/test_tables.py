"""Tables, parameters, runbooks and exercises."""

import re
from base64 import b64decode
from enum import StrEnum
from typing import Literal

import pandas as pd
import pytest
from pydantic import BaseModel, Field

from course import check, head, policy_table, related, runbook, say, source, table
from llm_patterns.catalog import UnknownPattern, patterns

ROWS = [{"Strategy": "Naive", "Share": 0.4125}, {"Strategy": "Budget", "Share": 0.998}]


def test_a_frame_and_its_rows_give_the_same_table() -> None:
    """A DataFrame is its records."""
    assert table(pd.DataFrame(ROWS), caption="Shares").html == table(ROWS, caption="Shares").html


def test_a_table_says_what_its_cells_are() -> None:
    """Caption, column heads and row heads are marked as such for a screen reader."""
    html = table(ROWS, caption="Shares", formats={"Share": ".1%"}, highlight="Budget").html or ""
    assert "<caption>Shares</caption>" in html
    assert html.count('scope="col"') == 2
    assert html.count('scope="row"') == 2
    assert '<td style="text-align:right" data-column="Share">41.2%</td>' in html
    assert '<tr class="course-highlight">' in html


def test_cells_are_escaped() -> None:
    """A value cannot write HTML."""
    assert "<script>" not in (table([{"a": "<script>"}], caption="<script>").html or "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": []}, "one or more rows"),
        ({"rows": [{"a": 1}, {"b": 1}]}, "same columns"),
        ({"rows": ROWS, "formats": {"Shares": ".1%"}}, "format 'Shares' is none of"),
        ({"rows": ROWS, "highlight": "Bucket"}, "highlight 'Bucket' is none of"),
    ],
)
def test_a_table_that_says_nothing_is_refused(options: dict[str, object], message: str) -> None:
    """Names that match nothing are errors, not silence."""
    with pytest.raises(ValueError, match=message):
        table(caption="Shares", **options)  # type: ignore[arg-type]


class Jitter(StrEnum):
    """A choice."""

    FULL = "full"
    NONE = "none"


class Policy(BaseModel):
    """A policy with a field of each kind."""

    attempts: int = Field(default=3, ge=1, le=10, description="Calls in all.")
    delay: float = Field(default=0.5, gt=0, description="Seconds.")
    jitter: Jitter = Jitter.FULL
    mode: Literal["a", "b"] = "a"
    codes: frozenset[int] = frozenset({503, 429})
    deadline: float


def test_parameters_come_from_the_code() -> None:
    """Default, bounds, choices and meaning are read from the model."""
    text = policy_table(Policy).text
    rows = [re.split(r"\s{2,}", line) for line in text.splitlines()[2:]]
    assert rows[0] == ["attempts", "3", "1 to 10", "Calls in all."]
    assert rows[1] == ["delay", "0.5", "above 0", "Seconds."]
    assert rows[2][:3] == ["jitter", "full", "full, none"]
    assert rows[3][:3] == ["mode", "a", "a, b"]
    assert rows[4][:2] == ["codes", "429, 503"]
    assert rows[5][:2] == ["deadline", "none: decide"]


def test_the_runbook_is_also_a_file() -> None:
    """The link carries the whole text, so it works on a page without a server."""
    shown = runbook("Retry storm", [{"Alert": "Storm", "Do": "Lower the `ratio`."}])
    link = re.search(r'download="(.+?)" href="data:text/markdown;charset=utf-8;base64,(.+?)"',
                     shown.html or "")  # fmt: skip
    assert link is not None
    assert link[1] == "retry-storm.md"
    assert b64decode(link[2]).decode() == (
        "# Retry storm\n\n## Storm\n\n**Do.** Lower the `ratio`.\n"
    )


def score(ratio: float) -> dict[str, float]:
    """More ratio, less availability."""
    return {"Availability": 1 - ratio / 10}


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (None, "not answered yet. To pass: Availability >= 0.985"),
        (0.1, "passed"),
        (0.5, "not yet"),
        ("x", "did not run: TypeError"),
    ],
)
def test_an_answer_gets_its_verdict(answer: float | None, verdict: str) -> None:
    """Open, right, short of the bar or broken: the reader is told, and nothing raises."""
    shown = check(
        answer, score=score, book=0.05, passes={"Availability": ">= 0.985"}, title="Choose"
    )
    assert shown.text.startswith(f"Choose: {verdict}") or verdict in shown.text.splitlines()[0]


def test_a_bar_that_cannot_be_read_is_refused() -> None:
    """The exercise's author is told at once, before there is an answer."""
    with pytest.raises(ValueError, match=r"comparison with a number.*'high'"):
        check(None, score=score, book=0.1, passes={"Availability": "high"}, title="Choose")


def test_a_bar_for_nothing_is_refused() -> None:
    """A bar on a number that is not scored could never be passed."""
    with pytest.raises(ValueError, match="bar 'Cost' is none of"):
        check(0.1, score=score, book=0.1, passes={"Cost": "< 1"}, title="Choose")


def test_the_head_is_the_catalogs() -> None:
    """Category and priorities are those of the catalog, for every pattern."""
    for each in patterns():
        shown = head(each.slug, minutes=5, know_first=["asyncio"], you_will=["a", "b", "c"])
        assert each.category.label in shown.text
        assert all(priority.value in shown.text for priority in each.priorities)


def test_a_companion_has_a_head_without_priorities() -> None:
    """A utility or a recipe says where it belongs, and its neighbours are chapters of any kind."""
    shown = head("resilience_stack", minutes=9, know_first=["asyncio"], you_will=["a", "b", "c"])
    assert shown.text == "Recipe. 9 minutes."
    assert "course-chip" not in str(shown.markdown)
    assert "Test Fixtures" in related("resilience_stack").text


def test_an_unknown_chapter_has_no_head() -> None:
    """A misspelt slug is an error that names the near one."""
    with pytest.raises(UnknownPattern, match="retry_with_budget"):
        head("retry_with_budgets", minutes=5, know_first=[], you_will=["a", "b", "c"])


def test_two_prices_in_a_sentence_are_no_formula() -> None:
    """A dollar before a figure is escaped where Markdown is read, and only there."""
    shown = say("It costs $3.02 or $3.18, by $a+b$.")
    assert shown.markdown == r"It costs \$3.02 or \$3.18, by $a+b$."
    assert shown.text == "It costs $3.02 or $3.18, by $a+b$."


def test_source_shows_the_code_and_its_place() -> None:
    """The excerpt is the module's own text, with file and lines."""
    shown = source(say)
    assert "def say(text: str)" in shown.text
    assert re.search(r"course/prose\.py, lines \d+ to \d+", shown.text)


def test_a_long_source_is_refused() -> None:
    """What does not fit a screen is not shown."""
    with pytest.raises(ValueError, match="more than 3: show a part"):
        source(say, max_lines=3)
