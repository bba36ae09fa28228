"""What `make benchmarks` measured, stored beside this module for the chapters to read.

>>> importing = benchmark("importing")
>>> [row["Import"] for row in importing.rows]
['llm_patterns.catalog', 'llm_patterns.resilience']
>>> importing.row("llm_patterns.resilience")["Times pydantic"] > 0
True
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

__all__ = ["Benchmark", "Row", "benchmark", "store"]

Row = Mapping[str, str | float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One stored run: the rows of a table, with which versions, on which kind of machine.

    `table(run.rows, caption=run.conditions)` shows it. *rounds* is 1 for an experiment in virtual
    time, which gives the same on every machine and names none.
    """

    rows: tuple[Row, ...]
    """All with the same columns; the first is the name of what was measured."""
    rounds: int
    """How often each was measured; the numbers are medians of these."""
    versions: Mapping[str, str]
    """The version of each peer."""
    python: str
    machine: str | None = None
    """As `x86_64, 2 cores`."""
    measured_on: str | None = None
    """The day, as `2026-11-23`."""

    def row(self, name: str) -> Row:
        """Return the row of *name*, the value in the first column.

        Raises:
            KeyError: if there is none.
        """
        for row in self.rows:
            if next(iter(row.values())) == name:
                return row
        raise KeyError(name)

    @property
    def conditions(self) -> str:
        """Return how it was measured, in a line."""
        peers = ", ".join(f"{peer} {version}" for peer, version in self.versions.items())
        how = (
            "Virtual time, the same on every machine."
            if self.machine is None
            else f"Median of {self.rounds} interleaved rounds on {self.measured_on}: Python {self.python}, "
            f"{self.machine}."
        )
        return f"{how} {peers}." if peers else how


def benchmark(name: str) -> Benchmark:
    """Return the stored run of a benchmark, such as `resilience/retry_with_budget`.

    Raises:
        FileNotFoundError: if it was never stored; `make benchmarks` does so.
    """
    stored = files(__name__).joinpath(f"{name}.json")
    if not stored.is_file():
        raise FileNotFoundError(f"no benchmark {name!r} is stored; `make benchmarks` measures it")
    content = json.loads(stored.read_text("utf-8"))
    return Benchmark(**content | {"rows": tuple(content["rows"])})


def store(name: str, measured: Benchmark) -> Path:
    """Write a run to where `benchmark` finds it, and return the file."""
    path = Path(__file__).parent / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(measured), indent=2) + "\n", "utf-8")
    return path
