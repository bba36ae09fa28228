"""The normal form of a stored notebook."""

from pathlib import Path

import nbformat
import pytest

from course.notebooks import main, normalised

ROOT = Path(__file__).parents[2]


def notebook(source: str) -> nbformat.NotebookNode:
    """A notebook of one code cell, with all that varies from run to run."""
    cell = nbformat.v4.new_code_cell(  # type: ignore[no-untyped-call]
        source,
        id="kept",
        execution_count=17,
        metadata={"tags": ["remove-input"], "execution": {"iopub.execute_input": "now"}},
        outputs=[
            nbformat.v4.new_output(  # type: ignore[no-untyped-call]
                "execute_result",
                {"text/plain": "1", "application/vnd.jupyter.widget-view+json": {"model_id": "x"}},
                execution_count=17,
                metadata={"seen": True},
            )
        ],
    )
    made: nbformat.NotebookNode = nbformat.v4.new_notebook(  # type: ignore[no-untyped-call]
        cells=[cell],
        metadata={"widgets": {"state": {}}, "kernelspec": {"name": "mine", "display_name": "Mine"}},
    )
    return made


def test_what_varies_is_dropped_and_what_reads_is_kept() -> None:
    """Counts restart, widget state and timings go; ids, tags, text and outputs stay."""
    normal = normalised(notebook("1"))
    cell = normal.cells[0]
    assert (cell.id, cell.source, cell.execution_count) == ("kept", "1", 1)
    assert cell.metadata == {"tags": ["remove-input"]}
    assert cell.outputs[0].data == {"text/plain": "1"}
    assert set(normal.metadata) == {"kernelspec", "language_info"}
    assert normal.metadata.kernelspec.name == "python3"


def test_the_normal_form_is_stable() -> None:
    """Normalising twice changes nothing more."""
    once = normalised(notebook("1"))
    assert normalised(once) == once


def test_check_finds_what_is_not_normal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command fails, names the file and says what to run."""
    path = tmp_path / "chapter.ipynb"
    nbformat.write(notebook("1"), path)  # type: ignore[no-untyped-call]
    assert main(["check", str(path)]) == 1
    assert f"{path}: not in the normal form; `make notebooks`" in capsys.readouterr().out


def test_the_books_notebooks_are_in_the_normal_form() -> None:
    """What is committed is what the command writes."""
    assert main(["check", str(ROOT / "book")]) == 0
