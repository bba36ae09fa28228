"""Every stored output is the one that a new run gives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "book").rglob("*.ipynb"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("hash_seed", ["1", "2"])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_gives_the_outputs_that_are_stored(path: Path, hash_seed: str) -> None:
    """Cell by cell and strictly, whatever the order in which sets are iterated."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", path, "--quiet", "-p", "no:cacheprovider"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )
    assert run.returncode == 0, f"\n{run.stdout[-8000:]}"
