"""Run the chapters and store their outputs in one normal form.

`python -m course.notebooks store` runs every notebook of the book and writes what it shows; `check` says which
stored ones are not in the normal form. Both take paths; without any, all of `book/`.

The normal form keeps what a reader sees and drops what differs from run to run: times, widgets' state, the
kernel's details. Cells are counted from the top, and keep their ids or get them from their position.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

__all__ = ["TIME_LIMIT", "main", "normalised", "stored"]

TIME_LIMIT = 20.0
"""Seconds that a chapter's cells may take on two cores."""

_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
_LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}


def normalised(notebook: NotebookNode) -> NotebookNode:
    """The notebook in its normal form, as a new one."""
    count = itertools.count(1)
    cells = [_cell(cell, at, count) for at, cell in enumerate(notebook.cells)]
    metadata = {"kernelspec": _KERNEL, "language_info": _LANGUAGE}
    kept = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    normal: NotebookNode = nbformat.from_dict(kept)  # type: ignore[no-untyped-call]
    return normal


def stored(path: Path) -> float:
    """Run a notebook, store it, and return the seconds it took.

    Raises:
        CellExecutionError: if a cell fails; nothing is stored then.
    """
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    # nbclient needs the widgets' state to follow an Output; the normal form drops it again.
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    )
    seconds = asyncio.run(_timed(client))
    path.write_text(_text(notebook), encoding="utf-8")
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command line; the number returned is the exit code."""
    parser = argparse.ArgumentParser(prog="python -m course.notebooks", description=__doc__)
    parser.add_argument("command", choices=["store", "check"])
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks or folders (default: book)")
    options = parser.parse_args(arguments)
    command: Callable[[Path], bool] = _store if options.command == "store" else _check
    found = list(_notebooks(options.paths or [Path("book")]))
    done = [command(path) for path in found]
    return 0 if all(done) else 1


async def _timed(client: NotebookClient) -> float:
    clock = asyncio.get_running_loop().time
    async with client.async_setup_kernel():
        start = clock()
        for at, cell in enumerate(client.nb.cells):
            await client.async_execute_cell(cell, at)
        seconds = clock() - start
        client.set_widgets_metadata()
    return seconds


def _store(path: Path) -> bool:
    seconds = stored(path)
    within = seconds <= TIME_LIMIT
    verdict = "" if within else f", more than the {TIME_LIMIT:.0f} s a chapter may take"
    _say(f"{path}: {seconds:.1f} s, {path.stat().st_size / 1000:,.0f} kB{verdict}")
    return within


def _check(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    normal = text == _text(notebook)
    if not normal:
        _say(f"{path}: not in the normal form; `make notebooks` stores it so.")
    return normal


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _notebooks(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        found = sorted(path.rglob("*.ipynb")) if path.is_dir() else [path]
        yield from (each for each in found if ".ipynb_checkpoints" not in each.parts)


def _text(notebook: NotebookNode) -> str:
    text: str = nbformat.writes(normalised(notebook))  # type: ignore[no-untyped-call]
    return text.rstrip("\n") + "\n"


def _cell(cell: NotebookNode, at: int, count: Iterator[int]) -> dict[str, object]:
    metadata = {name: cell.metadata[name] for name in ("mystnb", "tags") if cell.metadata.get(name)}
    kept = {
        "cell_type": cell.cell_type,
        "id": cell.get("id", f"cell-{at:02}"),
        "metadata": metadata,
        "source": cell.source,
    }
    if cell.cell_type != "code":
        return kept
    number = next(count)
    outputs = [_output(each, number) for each in cell.outputs]
    return kept | {"execution_count": number, "outputs": outputs}


def _output(output: NotebookNode, number: int) -> dict[str, object]:
    kept = dict(output)
    if "execution_count" in kept:
        kept["execution_count"] = number
    if "data" in kept:
        kept["data"] = {
            mime: value for mime, value in kept["data"].items() if "widget-view" not in mime
        }
        kept["metadata"] = {}
    return kept


if __name__ == "__main__":
    sys.exit(main())
