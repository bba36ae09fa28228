"""The book's Sphinx extension: figures, levers, diagrams, mathematics and launch buttons, all from its own files.

A page it makes asks nothing of another origin and, with all its scripts, stays under one megabyte compressed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from course.site import assets, citations, diagrams, mathml, repository
from course.site.outputs import MimeRenderer

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

__all__ = ["MimeRenderer", "setup"]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Called by Sphinx."""
    assets.setup(app)
    citations.setup(app)
    diagrams.setup(app)
    mathml.setup(app)
    repository.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
