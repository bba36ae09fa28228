"""Mermaid diagrams, drawn when the book is built: the page carries an SVG in its own colours, and no script.

    ```mermaid
    %% alt: A call that fails asks the budget before it is tried again.
    flowchart LR
      call --> failed{failed?}
    ```

JupyterLab and GitHub draw the same fence.
"""

from __future__ import annotations

import hashlib
import html
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes  # type: ignore[import-untyped]
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from course.site.assets import modules

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["Mermaid", "setup"]

SHRINK = 0.7

_ALT = re.compile(r"^\s*%%\s*alt:\s*(?P<alt>.+?)\s*$", re.MULTILINE)
_STYLE = re.compile(r"<style>.*?</style>", re.DOTALL)
_WIDTH = re.compile(r'width="([\d.]+)" height="[\d.]+" style="[^"]*"')
_DRAW = Path(__file__).with_name("draw.mjs")


class Mermaid(SphinxDirective):
    """A diagram; its first comment, `%% alt: ...`, says it in words."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Draw it."""
        code = "\n".join(self.content)
        alt = _ALT.search(code)
        if alt is None:
            raise self.warning("A diagram needs alt text: begin it with `%% alt: ...`.")
        svg = _svg(code, modules(Path(self.env.app.srcdir)))
        label = html.escape(alt["alt"])
        text = (
            f'<figure class="course-diagram" role="img" aria-label="{label}" tabindex="0">'
            f"{svg}</figure>"
        )
        return [nodes.raw("", text, format="html")]


def setup(app: Sphinx) -> None:
    """Add the directive."""
    app.add_directive("mermaid", Mermaid, override=True)


def _svg(code: str, packages: Path) -> str:
    name = hashlib.sha256(code.encode() + _DRAW.read_bytes()).hexdigest()[:12]
    drawn = packages.parent / "diagrams" / f"{name}.svg"
    if not drawn.exists():
        drawn.parent.mkdir(exist_ok=True)
        drawn.write_text(_drawn(code, packages), encoding="utf-8")
    # The style sheet of the page colours it; ids must not meet those of another diagram.
    bare = _STYLE.sub("", drawn.read_text(encoding="utf-8"))
    apart = re.sub(r'(id="|url\(#)', rf"\g<1>{name}-", bare)
    # A diagram shrinks to the page as long as its text is read; after that it scrolls.
    return _WIDTH.sub(
        lambda width: f'width="{width[1]}" style="min-width:{float(width[1]) * SHRINK:.0f}px"',
        apart,
        1,
    )


def _drawn(code: str, packages: Path) -> str:
    beside = Path(sys.executable).with_name("node")
    node = str(beside) if beside.exists() else shutil.which("node")
    if node is None:
        raise ExtensionError("Diagrams need node; `make setup` installs it into the environment.")
    made = subprocess.run(  # noqa: S603
        [node, str(_DRAW), str(packages)], input=code, capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise ExtensionError(f"This diagram cannot be drawn: {made.stderr.strip()}\n{code}")
    return made.stdout
