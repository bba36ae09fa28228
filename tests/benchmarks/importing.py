"""What a service pays at start: the import of a pattern, as a multiple of importing pydantic.

Importing pydantic means `from pydantic import BaseModel, Field`: its top module alone loads almost nothing.
"""

import subprocess
import sys
from functools import partial

from course.benchmarks import Row
from tests.benchmarks.rounds import interleaved, middle, ratio

PEERS = ("pydantic",)
ROUNDS = 15
PYDANTIC = "from pydantic import BaseModel, Field"
OURS = ("llm_patterns.catalog", "llm_patterns.resilience")
TIMED = "from time import process_time as now; start = now(); {}; print(now() - start)"


def milliseconds(statement: str) -> float:
    """Run an import in a new interpreter and return the processor time that it took."""
    command = [sys.executable, "-c", TIMED.format(statement)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout) * 1_000


def measure() -> list[Row]:
    """Return the time of each import in milliseconds, beside pydantic's."""
    statements = {"pydantic": PYDANTIC} | {module: f"import {module}" for module in OURS}
    subjects = {name: partial(milliseconds, it) for name, it in statements.items()}
    samples = interleaved(subjects, rounds=ROUNDS)
    return [
        {
            "Import": name,
            "Times pydantic": ratio(samples, name, "pydantic"),
            **middle(samples[name]),
            "Unit": "ms",
        }
        for name in OURS
    ]
