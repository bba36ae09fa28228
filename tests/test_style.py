"""The house style: lint, format, types and spelling are clean."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECKS = {
    "lint": ["ruff", "check"],
    "format": ["ruff", "format", "--check"],
    "notebooks": [
        *("ruff", "format", "--check", "--line-length=79"),
        *("--config=format.exclude=[]", "book"),
    ],
    "types": ["mypy"],
    "spelling": ["codespell_lib"],
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("check", CHECKS)
def test_the_tree_is_clean(check: str) -> None:
    """A tool of the house finds nothing to complain of."""
    run = subprocess.run(
        [sys.executable, "-m", *CHECKS[check]],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, f"\n{run.stdout}{run.stderr}"
