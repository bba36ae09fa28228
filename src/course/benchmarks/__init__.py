"""What `make benchmarks` measured, stored beside this module for the chapters to read.

>>> importing = benchmark("importing")
>>> sorted(importing.versions)
['pydantic']
>>> importing.results["llm_patterns.resilience"] > 0
True
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

__all__ = ["Benchmark", "benchmark", "store"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One stored run: what was measured, with which versions, on which kind of machine."""

    measured_on: str
    """The day, as `2026-11-23`."""
    python: str
    machine: str
    """As `x86_64, 2 cores`."""
    versions: Mapping[str, str]
    """The version of each peer."""
    results: Mapping[str, float]
    """Ratios and counts, named by the benchmark."""


def benchmark(name: str) -> Benchmark:
    """Return the stored run of a benchmark, such as `resilience/retry_with_budget`.

    Raises:
        FileNotFoundError: if it was never stored; `make benchmarks` does so.
    """
    stored = files(__name__).joinpath(f"{name}.json")
    if not stored.is_file():
        raise FileNotFoundError(f"no benchmark {name!r} is stored; `make benchmarks` measures it")
    return Benchmark(**json.loads(stored.read_text()))


def store(name: str, measured: Benchmark) -> Path:
    """Write a run to where `benchmark` finds it, and return the file."""
    path = Path(__file__).parent / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(measured), indent=2) + "\n")
    return path
