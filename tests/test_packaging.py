"""What is installed: the wheel, what it brings with it, and the locks."""

import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(name: str) -> set[tuple[str, str]]:
    """Read a lock: the name and version of each distribution."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return set(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


def requirements(wheel: Path) -> list[Requirement]:
    """Read what a wheel says that it needs."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return [
            Requirement(each)
            for each in message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])
        ]


def test_a_service_gets_three_dependencies(wheel: Path) -> None:
    """Without an extra, the wheel brings pydantic, httpx and the price table, and no more."""
    needed = {each.name for each in requirements(wheel) if not each.marker}
    assert needed == {"pydantic", "httpx", "genai-prices"}


def test_the_wheel_carries_every_file_of_both_packages(wheel: Path) -> None:
    """Data files, types and the book's static files are in the wheel, byte for byte."""
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    with zipfile.ZipFile(wheel) as archive:
        for name in tracked:
            if (ROOT / name).exists():
                assert archive.read(name.removeprefix("src/")) == (ROOT / name).read_bytes()


def test_the_command_line_is_declared() -> None:
    """`llm-patterns` starts something that exists."""
    module, _, function = PROJECT["scripts"]["llm-patterns"].partition(":")
    program = f"import {module}; assert callable({module}.{function})"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("subset", ["lab", "pyodide"])
def test_the_locks_agree(subset: str) -> None:
    """A reader and a browser get the versions that the tests ran with."""
    assert pins(subset)
    assert pins(subset) <= pins("dev")


def test_the_lock_names_no_place_to_download_from() -> None:
    """Every reader's own index serves the pins: the hash says what, never where."""
    for lock in (ROOT / "requirements").glob("*.txt"):
        assert "://" not in lock.read_text()
        assert "--index" not in lock.read_text()
    for lock in [*ROOT.glob("src/**/package-lock.json"), *ROOT.glob("tests/**/package-lock.json")]:
        assert '"resolved"' not in lock.read_text()


def test_every_dependency_has_a_reason() -> None:
    """Each line that declares a dependency says in a comment what it is for."""
    text = (ROOT / "pyproject.toml").read_text()
    lines = [line for line in text.splitlines() if re.match(r'    "[a-z0-9-]+[>=]', line)]
    in_pyodide = {'    "hypothesis>=6.150",', '    "pytest>=9",'}
    assert lines
    assert not [line for line in lines if "#" not in line and line not in in_pyodide]
