"""The README tells the truth: its table is the catalog's, its links lead somewhere."""

import re
from pathlib import Path

import pytest

from course.matrix import with_matrix
from llm_patterns.catalog import patterns

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_is_the_catalogs() -> None:
    """The README shows every pattern as the catalog has it; `make readme` renews it."""
    assert with_matrix(README) == README
    assert all(each.question in README for each in patterns())


def test_a_text_without_markers_is_refused() -> None:
    """The table is written only where a file asks for it."""
    with pytest.raises(ValueError, match="needs the markers"):
        with_matrix("# A page")


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_every_link_into_the_tree_leads_to_a_file(name: str) -> None:
    """A relative link names a file that exists."""
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text())
    assert links
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_every_command_in_the_readme_is_a_target() -> None:
    """Each `make` command that the README names exists."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))
    assert {"book", "test", "help"} <= commands <= targets
