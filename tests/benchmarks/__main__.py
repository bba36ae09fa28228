"""Measure, and store what the chapters read: `make benchmarks`.

Each module here that has a function `measure` is a benchmark. It returns the rows of a table, all from one run, and
names its peers in `PEERS` and its repeats in `ROUNDS`: 1 is an experiment in virtual time, which is the same on every
machine. `python -m tests.benchmarks importing` runs one alone.
"""

import os
import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from course.benchmarks import Benchmark, store

HERE = Path(__file__).parent


def names() -> Iterator[str]:
    """Every benchmark: `importing`, `resilience/retry_with_budget`."""
    for path in sorted(HERE.rglob("*.py")):
        if "def measure(" in path.read_text("utf-8") and path != Path(__file__):
            yield path.relative_to(HERE).with_suffix("").as_posix()


def run(name: str) -> Benchmark:
    """Run one benchmark and note what it ran with."""
    module = import_module(f"tests.benchmarks.{name.replace('/', '.')}")
    timed = module.ROUNDS > 1
    return Benchmark(
        rows=tuple(module.measure()),
        rounds=module.ROUNDS,
        versions={peer: version(peer) for peer in module.PEERS},
        python=platform.python_version(),
        machine=f"{platform.machine()}, {os.cpu_count()} cores" if timed else None,
        measured_on=datetime.now(UTC).date().isoformat() if timed else None,
    )


if __name__ == "__main__":
    for name in sys.argv[1:] or list(names()):
        measured = run(name)
        print(f"{name} ({measured.conditions})")  # noqa: T201
        for row in measured.rows:
            print("  ", *(f"{column}: {value}" for column, value in row.items()), sep="  ")  # noqa: T201
        print(f"   {store(name, measured)}")  # noqa: T201
