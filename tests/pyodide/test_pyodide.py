"""The library runs in a browser's Python: CPython 3.14 as WebAssembly, no thread, no socket."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOME = ROOT / "_build/pyodide"

TESTS = ["chat", "clock", "deadlines", "errors", "layers", "quotas"]
TESTS += ["simulation", "providers", "resilience", "toolkit"]


def paths() -> list[str]:
    """The doctests and tests of the parts that a page could run."""
    source = [f"src/llm_patterns/{part}" for part in TESTS]
    tests = [f"tests/{part}" for part in TESTS] + [f"tests/test_{part}" for part in TESTS]
    candidates = [name + suffix for name in source + tests for suffix in ("", ".py")]
    return [each for each in candidates if (ROOT / each).exists()]


@pytest.mark.timeout(600)
def test_the_librarys_own_tests_pass_in_a_browsers_python() -> None:
    """Same seeds, same results, on an interpreter that has only one thread."""
    node = shutil.which("node", path=str(Path(sys.executable).parent))
    assert node, "the environment has no node: make setup"
    assert (HOME / ".ready").exists(), "the interpreter is not there: make test fetches it"
    options = ["-c", "/dev/null", "--rootdir", "/repository", "-p", "no:cacheprovider", "-q"]
    options += ["--import-mode=importlib", "--doctest-modules", "-W", "error"]
    run = subprocess.run(
        [
            node,
            "--experimental-wasm-jspi",
            ROOT / "tests/pyodide/run.mjs",
            HOME,
            ROOT,
            *options,
            *paths(),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    passed = re.search(r"^(\d+) passed", run.stdout, re.MULTILINE)
    assert run.returncode == 0, f"{run.stdout[-8000:]}\n{run.stderr[-2000:]}"
    assert passed
    assert int(passed[1]) > 100
