"""Derive `course.data`'s count of the minutes in which two providers' APIs had an incident.

    python tests/benchmarks/derive_incidents.py INCIDENTS_CSV

The file is the cleaned incident reports that Chu et al. (ICPE 2025, arXiv:2501.12469) collected from the providers'
status pages, and published on zenodo.org/records/14018219.
"""

from __future__ import annotations

import csv
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import course.data

SOURCE = (
    "Minutes from 2023-08-03 to 2024-08-29 in which each provider's status page had an open incident of impact minor "
    "or worse on its API, and in which both had. Derived from the incident reports collected by Chu et al. (ICPE 2025, "
    "arXiv:2501.12469; zenodo.org/records/14018219)."
)
FIRST, LAST = datetime(2023, 8, 3, tzinfo=UTC), datetime(2024, 8, 29, tzinfo=UTC)
"""From the first report on Anthropic's API to the day after the last report of either."""
APIS = {"openai": "API", "anthropic": "api.anthropic.com"}


def main(reports: Path) -> None:
    """Write `incidents.json` from the incident reports."""
    with reports.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    bad = {provider: minutes_of(rows, provider) for provider in APIS}
    table = {
        "source": SOURCE,
        "minutes": minute_of(LAST) - minute_of(FIRST),
        **{provider: len(minutes) for provider, minutes in bad.items()},
        "both": len(bad["openai"] & bad["anthropic"]),
    }
    target = Path(course.data.__file__).with_name("incidents.json")
    target.write_text(json.dumps(table, indent=1) + "\n", "utf-8")


def minutes_of(rows: list[dict[str, str]], provider: str) -> set[int]:
    """Return the minutes in which a provider's API had an incident."""
    return {
        minute
        for row in rows
        if row["provider"] == provider and row[APIS[provider]] == "1"
        if int(row["incident_impact_level"]) >= 1
        for minute in range(*(minute_of(at) for at in span(row)))
        if minute_of(FIRST) <= minute < minute_of(LAST)
    }


def span(row: dict[str, str]) -> tuple[datetime, datetime]:
    """Return when an incident was opened and closed."""
    opened, closed = (
        datetime.fromisoformat(row[f"{name}_timestamp"]) for name in ("start", "close")
    )
    return opened, closed


def minute_of(at: datetime) -> int:
    """Return the minute's number."""
    return int(at.timestamp() // 60)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
