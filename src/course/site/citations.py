"""Citations that each chapter lists for itself, though two chapters cite the same source.

    ... a dip that lasts {cite}`bronson2021metastable`.

    ## References

    ```{bibliography}
    ```

The keys are those of the bibliography; behind the page each carries the chapter's name, so that none is there twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sphinxcontrib.bibtex.directives import BibliographyDirective
from sphinxcontrib.bibtex.roles import CiteRole

if TYPE_CHECKING:
    from docutils import nodes  # type: ignore[import-untyped]
    from sphinx.application import Sphinx

__all__ = ["Bibliography", "Cite", "setup"]


class Cite(CiteRole):
    """`cite`, to the list of the same page."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Point to this page's entry."""
        self.target = ",".join(
            _prefix(self.env.docname) + key.strip() for key in self.target.split(",")
        )
        return super().run()


class Bibliography(BibliographyDirective):
    """What this page cites, by author; with `:all:` every entry."""

    def run(self) -> list[nodes.Node]:
        """List it."""
        self.options.setdefault("style", "alpha")
        if "all" not in self.options:
            self.options["filter"] = "docname in docnames"
            self.options["keyprefix"] = _prefix(self.env.docname)
        return list(super().run())


def setup(app: Sphinx) -> None:
    """Put them in place of sphinxcontrib-bibtex's own."""
    app.setup_extension("sphinxcontrib.bibtex")
    app.add_role("cite", Cite(), override=True)
    app.add_directive("bibliography", Bibliography, override=True)


def _prefix(docname: str) -> str:
    return docname.rpartition("/")[2] + ":"
