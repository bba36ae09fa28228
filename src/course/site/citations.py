"""Citations that each chapter lists for itself, though two chapters cite the same source.

    ... a dip that lasts {cite}`bronson2021metastable`.

    ## References

    ```{bibliography}
    ```

The keys are those of the bibliography; behind the page each carries the chapter's name, so that none is there twice.
A source has one label in the whole book, `Bro22b` say, whichever others of that author and year its chapter cites.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pybtex.database import parse_file  # type: ignore[import-untyped]
from pybtex.plugin import register_plugin  # type: ignore[import-untyped]
from pybtex.style.formatting.alpha import Style as AlphaStyle  # type: ignore[import-untyped]
from pybtex.style.labels.alpha import LabelStyle as AlphaLabels  # type: ignore[import-untyped]
from sphinxcontrib.bibtex.directives import BibliographyDirective
from sphinxcontrib.bibtex.roles import CiteRole

if TYPE_CHECKING:
    from docutils import nodes  # type: ignore[import-untyped]
    from pybtex.database import Entry
    from sphinx.application import Sphinx
    from sphinx.config import Config

__all__ = ["Bibliography", "Cite", "Labels", "Style", "setup"]


class Labels(AlphaLabels):  # type: ignore[misc]
    """Author and year, told apart over the whole book."""

    known: ClassVar[dict[str, str]] = {}

    @classmethod
    def read(cls, files: Iterable[Path]) -> None:
        """Give each entry of these bibliographies its label."""
        entries = [entry for file in files for entry in parse_file(str(file)).entries.values()]
        entries.sort(key=lambda entry: entry.key)
        cls.known = {
            entry.key: label
            for entry, label in zip(entries, super().format_labels(cls(), entries), strict=True)
        }

    def format_labels(self, sorted_entries: Iterable[Entry]) -> Iterator[str]:
        """Return the labels of some entries, in their order."""
        return (self.known[entry.key] for entry in sorted_entries)


class Style(AlphaStyle):  # type: ignore[misc]
    """The alphabetic style, with those labels."""

    default_label_style = Labels


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
        self.options.setdefault("style", "course")
        if "all" not in self.options:
            self.options["filter"] = "docname in docnames"
            self.options["keyprefix"] = _prefix(self.env.docname)
        return list(super().run())


def setup(app: Sphinx) -> None:
    """Put them in place of sphinxcontrib-bibtex's own."""
    app.setup_extension("sphinxcontrib.bibtex")
    register_plugin("pybtex.style.formatting", "course", Style)
    app.connect("config-inited", _read_labels)
    app.add_role("cite", Cite(), override=True)
    app.add_directive("bibliography", Bibliography, override=True)


def _read_labels(app: Sphinx, config: Config) -> None:
    Labels.read(Path(app.confdir, file) for file in config.bibtex_bibfiles)


def _prefix(docname: str) -> str:
    return docname.rpartition("/")[2] + ":"
