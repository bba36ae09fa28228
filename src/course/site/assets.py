"""The page's files: plotly.js from its npm package, the palette from `course.theme`, own styles and script."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.errors import ExtensionError

from course.theme import COLOURS, FONT

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

__all__ = ["modules", "palette_css", "palette_js", "setup"]

HERE = Path(__file__).parent
BARRIERS = (  # what the engine writes, and what a screen reader needs
    ('<summary aria-label="Toggle hidden content">', "<summary>"),
    ('<div role="list" class="citation-list">', '<div class="citation-list">'),
    (' role="doc-biblioentry"', ""),
)
PLOTLY = Path("plotly.js-cartesian-dist-min", "plotly-cartesian.min.js")


def modules(root: Path) -> Path:
    """The folder of the npm packages that `make book` installs.

    Raises:
        ExtensionError: if it is not there.
    """
    packages = root / "_build" / "npm" / "node_modules"
    if not packages.is_dir():
        raise ExtensionError(f"{packages} is missing: `make book` installs the page's packages.")
    return packages


def palette_css() -> str:
    """The palette as CSS variables, for each theme."""
    light = "".join(f"--course-{name}:{each.light};" for name, each in COLOURS.items())
    dark = "".join(f"--course-{name}:{each.dark};" for name, each in COLOURS.items())
    return f':root{{--course-font:{FONT};{light}}}html[data-theme="dark"]{{{dark}}}\n'


def palette_js() -> str:
    """Each light colour's dark counterpart, for figures, which are stored in light."""
    return f"window.coursePalette = {json.dumps(dict(COLOURS.values()))}\n"


def setup(app: Sphinx) -> None:
    """Add the files to the site and take the theme's heavy ones out."""
    app.connect("config-inited", _add)
    app.connect("config-inited", _without_thebe, priority=1)
    app.connect("html-page-context", _without_barriers)
    for name in ("course-palette.css", "course.css"):
        app.add_css_file(name, priority=900)
    for name in ("course-palette.js", "course.js"):
        app.add_js_file(name, loading_method="defer")


def _add(app: Sphinx, config: Config) -> None:
    made = Path(app.srcdir) / "_build" / "site"
    made.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(modules(Path(app.srcdir)) / PLOTLY, made / PLOTLY.name)
    (made / "course-palette.css").write_text(palette_css(), encoding="utf-8")
    (made / "course-palette.js").write_text(palette_js(), encoding="utf-8")
    config.html_static_path += [str(HERE / "static"), str(made)]
    config.templates_path += [str(HERE / "templates")]
    config.html_favicon = str(HERE / "static" / "mark.svg")
    config.html_theme_options["logo"] = {
        "image_light": "_static/mark.svg",
        "image_dark": "_static/mark.svg",
        "text": config.html_title,
        "alt_text": "",
    }


def _without_thebe(app: Sphinx, _: Config) -> None:
    # The engine adds thebe to every page, twice: a console error, and scripts of another origin.
    for listeners in app.events.listeners.values():
        listeners[:] = [each for each in listeners if "thebe" not in each.handler.__module__]
    registry = app.registry
    registry.css_files[:] = [each for each in registry.css_files if "thebe" not in each[0]]
    registry.js_files[:] = [each for each in registry.js_files if "thebe" not in (each[0] or "")]


def _without_barriers(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    for written, needed in BARRIERS:
        context["body"] = context.get("body", "").replace(written, needed)
