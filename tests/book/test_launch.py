"""Every way into a chapter works: Binder's environment, Colab's install cell, each launch link."""

import ast
import json
import os
import re
import subprocess
import sys
import venv
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "book").rglob("*.ipynb"))
JUPYTER_BOOK = Path(sys.executable).with_name("jupyter-book")
REPOSITORY = "https://github.com/somebody/some-book"


def cells(path: Path) -> list[dict[str, object]]:
    """The code cells of a notebook."""
    found = json.loads(path.read_text())["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


def source(cell: dict[str, object]) -> str:
    """The text of a cell."""
    text = cell["source"]
    return text if isinstance(text, str) else "".join(text)  # type: ignore[attr-defined]


def imports(text: str) -> str:
    """The import statements of a cell, magics left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("%", "!"))]
    statements = ast.parse("\n".join(lines) or "pass").body
    return "\n".join(
        ast.unparse(each) for each in statements if isinstance(each, ast.Import | ast.ImportFrom)
    )


def test_binder_installs_the_readers_lock() -> None:
    """Binder gets the pins of `requirements/lab.txt`, a supported Python and this project."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == ["python=3.11", "pip"]
    assert pip == {"pip": ["-r requirements/lab.txt", "-e .[book,server]"]}
    assert "jupyterlab==" in (ROOT / "requirements/lab.txt").read_text()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_starts_with_the_hidden_install_cell(path: Path) -> None:
    """The first code cell installs the package where it is missing, and no page shows it."""
    first = cells(path)[0]
    assert "remove-cell" in first["metadata"]["tags"]  # type: ignore[index]
    assert 'find_spec("llm_patterns")' in source(first)
    assert source(first) == source(cells(NOTEBOOKS[0])[0])


@pytest.mark.timeout(600)
def test_the_install_cell_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """Run as in a bare kernel, where the built wheel is what is served, it makes imports work."""
    cell = source(cells(NOTEBOOKS[0])[0])
    served = f"production-llm-patterns[book] @ {wheel.as_uri()}"
    cell, replaced = re.subn(r"production-llm-patterns\[book\](?: @ [^\"']+)?", served, cell)
    assert replaced == 1, "the cell installs the package by one requirement"
    venv.create(tmp_path / "bare", with_pip=True)
    python = tmp_path / "bare/bin/python"
    (tmp_path / "cell.ipy").write_text(cell)
    lock = ROOT / "requirements/lab.txt"
    environment = {**os.environ, "PIP_CONSTRAINT": str(lock), "PIP_ONLY_BINARY": ":all:"}

    def run(*command: str) -> None:
        subprocess.run([python, *command], check=True, cwd=tmp_path, env=environment)

    run("-m", "pip", "install", "-q", "-q", "ipython")
    run("-m", "IPython", "--no-banner", "cell.ipy")
    for path in NOTEBOOKS:
        run("-W", "error", "-c", "\n".join(imports(source(each)) for each in cells(path)[1:]))


class Links(HTMLParser):
    """Collect the addresses that a page links to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.page = page
        self.found: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the address of an anchor."""
        address = dict(attrs).get("href")
        if tag == "a" and address:
            self.found.append(address)


def build(repository: str, folder: Path) -> dict[str, list[str]]:
    """Build the book as for this repository; the links of each chapter's page."""
    command = [JUPYTER_BOOK, "build", ".", "-W", "-n", "--keep-going"]
    run = subprocess.run(
        [*command, "--path-output", folder],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "BOOK_REPOSITORY_URL": repository},
    )
    assert run.returncode == 0, f"the book does not build:\n{run.stderr[-4000:]}"
    html = folder / "_build/html"
    pages = [html / path.relative_to(ROOT).with_suffix(".html") for path in NOTEBOOKS]
    return {str(page.relative_to(html)): Links(page).found for page in pages}


@pytest.mark.timeout(300)
def test_every_launch_link_leads_to_a_file_of_the_repository(tmp_path: Path) -> None:
    """Binder, Colab and source buttons name this repository and the chapter's own file."""
    for page, links in build(REPOSITORY, tmp_path).items():
        notebook = str(Path(page).with_suffix(".ipynb"))
        binder = [parse_qs(urlsplit(each).query) for each in links if "mybinder.org" in each]
        assert [each["urlpath"] for each in binder] == [[f"lab/tree/{notebook}"]]
        named = [each for each in links if "somebody/some-book" in each]
        kinds = {urlsplit(each).netloc for each in named}
        assert kinds == {"mybinder.org", "colab.research.google.com", "github.com"}
        paths = [urlsplit(each).path for each in named]
        files = [each.partition("/main/")[2] for each in paths if "/main/" in each]
        assert notebook in files
        assert [each for each in files if not (ROOT / each).is_file()] == []


@pytest.mark.timeout(300)
def test_without_a_public_repository_only_the_download_is_offered(tmp_path: Path) -> None:
    """A book that nobody can reach offers no button that would fail, only the chapter itself."""
    for page, links in build("/srv/some-book.git", tmp_path).items():
        outside = {urlsplit(each).netloc for each in links}
        assert not outside & {"mybinder.org", "colab.research.google.com"}
        downloads = [each for each in links if each.endswith(".ipynb")]
        assert downloads
        served = (tmp_path / "_build/html" / page).parent
        for each in downloads:
            assert (served / each).read_bytes() == (ROOT / page).with_suffix(".ipynb").read_bytes()
