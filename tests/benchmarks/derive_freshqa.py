"""Derive `course.data`'s table of how quickly answers go out of date.

    python tests/benchmarks/derive_freshqa.py OLDER_CSV NEWER_CSV

The two are editions of FreshQA (Vu et al., arXiv:2310.03214), of 2024-10-28 and 2024-12-18, as the package
inspect-evals 0.26.0 holds them. An answer has changed if none of the older edition's is among the newer one's.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from pathlib import Path

import course.data

SOURCE = (
    "Questions common to the editions of 2024-10-28 and 2024-12-18 of FreshQA (Vu et al., arXiv:2310.03214), and how "
    "many of them had another answer, by kind of question."
)
DAYS = 51


def main(older: Path, newer: Path) -> None:
    """Write `freshqa.json` from two editions."""
    before, after = edition(older), edition(newer)
    common = [question for question in before if question in after]
    kinds = Counter(after[question]["fact_type"] for question in common)
    changed = Counter(
        after[question]["fact_type"]
        for question in common
        if not answers(before[question]) & answers(after[question])
    )
    table = {kind: [kinds[kind], changed[kind]] for kind in sorted(kinds)}
    target = Path(course.data.__file__).with_name("freshqa.json")
    target.write_text(
        json.dumps({"source": SOURCE, "days": DAYS, "kinds": table}, indent=1) + "\n", "utf-8"
    )


def edition(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of an edition by question; a few lines of notes come before its header."""
    lines = path.read_text("utf-8").splitlines(keepends=True)
    header = next(at for at, line in enumerate(lines) if line.startswith("id,"))
    return {row["question"]: row for row in csv.DictReader(lines[header:])}


def answers(row: dict[str, str]) -> set[str]:
    """Return what a row holds for right."""
    return {row[f"answer_{at}"].strip() for at in range(10) if row[f"answer_{at}"]}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
