"""What a service pays at start: the import of a pattern, as a multiple of importing pydantic.

Importing pydantic means `from pydantic import BaseModel, Field`: its top module alone loads almost nothing.
"""

import subprocess
import sys

PEERS = ("pydantic",)
ROUNDS = 15
PYDANTIC = "from pydantic import BaseModel, Field"
OURS = ("llm_patterns.catalog", "llm_patterns.resilience")
TIMED = "from time import process_time as now; start = now(); {}; print(now() - start)"


def seconds(statement: str) -> float:
    """Run an import in a new interpreter and return the processor time that it took."""
    command = [sys.executable, "-c", TIMED.format(statement)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure() -> dict[str, float]:
    """Alternate the imports, so that what slows the machine slows all; compare the fastest."""
    statements = (PYDANTIC, *(f"import {module}" for module in OURS))
    rounds = [[seconds(each) for each in statements] for _ in range(ROUNDS)]
    pydantic, *ours = (min(times) for times in zip(*rounds, strict=True))
    return {module: each / pydantic for module, each in zip(OURS, ours, strict=True)}
