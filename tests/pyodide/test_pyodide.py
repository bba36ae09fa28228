"""The library runs in a browser's Python: CPython 3.14 as WebAssembly, no thread, no socket."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOME = ROOT / "_build/pyodide"

PARTS = ["chat", "clock", "deadlines", "errors", "layers", "quotas"]
PARTS += ["simulation", "providers", "toolkit", "resilience"]
AT_ONCE = 6
"""Files of tests that one process runs, so that two workers share the work."""


def groups() -> list[list[str]]:
    """The doctests and tests of the parts that a page could run, a few files for each process."""
    source = [f"src/llm_patterns/{part}{suffix}" for part in PARTS for suffix in ("", ".py")]
    tests = [ROOT / f"tests/test_{part}.py" for part in PARTS]
    tests += [path for part in PARTS for path in sorted((ROOT / "tests" / part).glob("test_*.py"))]
    names = [str(path.relative_to(ROOT)) for path in tests if path.exists()]
    chunks = [names[at : at + AT_ONCE] for at in range(0, len(names), AT_ONCE)]
    return [[each for each in source if (ROOT / each).exists()], *chunks]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("paths", groups(), ids=lambda paths: Path(paths[0]).stem)
def test_the_librarys_own_tests_pass_in_a_browsers_python(paths: list[str]) -> None:
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
            *paths,
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    passed = re.search(r"^(\d+) passed", run.stdout, re.MULTILINE)
    assert run.returncode == 0, f"{run.stdout[-8000:]}\n{run.stderr[-2000:]}"
    assert passed
    assert int(passed[1]) >= len(paths)
