"""Measure, and store what the chapters read: `make benchmarks`.

Each module here that has a function `measure` is a benchmark. It returns ratios and counts by name, all from one run,
and names its peers in `PEERS`. `python -m tests.benchmarks importing` runs one alone.
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
        if "def measure(" in path.read_text() and path != Path(__file__):
            yield path.relative_to(HERE).with_suffix("").as_posix()


def run(name: str) -> Benchmark:
    """Run one benchmark and note what it ran with."""
    module = import_module(f"tests.benchmarks.{name.replace('/', '.')}")
    return Benchmark(
        measured_on=datetime.now(UTC).date().isoformat(),
        python=platform.python_version(),
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        versions={peer: version(peer) for peer in module.PEERS},
        results={key: float(f"{value:.3g}") for key, value in module.measure().items()},
    )


if __name__ == "__main__":
    for name in sys.argv[1:] or list(names()):
        measured = run(name)
        store(name, measured)
        print(f"{name}: {dict(measured.results)}")  # noqa: T201
