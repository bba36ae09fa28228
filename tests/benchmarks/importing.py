"""What a service pays at start: the import of a pattern, as a multiple of importing pydantic."""

import subprocess
import sys
from statistics import median

PEERS = ("pydantic",)
ROUNDS = 15
TIMED = "from time import perf_counter as now; start = now(); import {}; print(now() - start)"


def seconds(module: str) -> float:
    """Import a module in a new interpreter and return how long that took."""
    command = [sys.executable, "-c", TIMED.format(module)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure() -> dict[str, float]:
    """Alternate the imports, so that what slows the machine slows all; compare the medians."""
    modules = ("pydantic.main", "llm_patterns.catalog", "llm_patterns.resilience")
    rounds = [[seconds(module) for module in modules] for _ in range(ROUNDS)]
    pydantic, *ours = (median(times) for times in zip(*rounds, strict=True))
    return {module: each / pydantic for module, each in zip(modules[1:], ours, strict=True)}
