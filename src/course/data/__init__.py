"""What others measured, as small tables that chapters calculate with. Each names its source and licence.

>>> outcomes = mmlu_outcomes()
>>> len(outcomes), outcomes[0]
(14042, Outcome(subject='abstract_algebra', strong=True, weak=True))
>>> staleness()["fast-changing"]
Staleness(questions=155, changed=41, days=51)
>>> incident_minutes().both
489
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

__all__ = ["Incidents", "Outcome", "Staleness", "incident_minutes", "mmlu_outcomes", "staleness"]


class Outcome(NamedTuple):
    """Whether each of two models answered one question right."""

    subject: str
    strong: bool
    weak: bool


class Staleness(NamedTuple):
    """How many answers to common questions of one kind were no longer right after *days*."""

    questions: int
    changed: int
    days: int


class Incidents(NamedTuple):
    """Of *minutes*, those in which a provider said that its API had an incident."""

    minutes: int
    openai: int
    anthropic: int
    both: int


@cache
def incident_minutes() -> Incidents:
    """Return the minutes that two providers' status pages declared bad in 392 days, and how many of them coincide."""
    table = _table("incidents")
    return Incidents(*(table[name] for name in Incidents._fields))


@cache
def mmlu_outcomes() -> tuple[Outcome, ...]:
    """Return for each of MMLU's 14,042 test questions whether GPT-4 (1106) and Mixtral 8x7B were right.

    From the evaluations that RouteLLM's authors published (see `routellm.json`); the questions are not in it.
    """
    return tuple(
        Outcome(subject, strong=code in "23", weak=code in "13")
        for subject, codes in _table("routellm")["mmlu"].items()
        for code in codes
    )


@cache
def staleness() -> dict[str, Staleness]:
    """Return how quickly answers go out of date, by kind of question: two editions of FreshQA, 51 days apart."""
    table = _table("freshqa")
    return {
        kind: Staleness(questions, changed, table["days"])
        for kind, (questions, changed) in table["kinds"].items()
    }


def _table(name: str) -> Any:
    return json.loads(files(__name__).joinpath(f"{name}.json").read_text("utf-8"))
