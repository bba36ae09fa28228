"""A cell's figures and lever panels as HTML, which the page's script brings to life."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes  # type: ignore[import-untyped]

from course.figures import MIME as FIGURE
from course.levers import MIME as LEVERS

if TYPE_CHECKING:
    from myst_nb.core.render import (  # type: ignore[import-untyped]
        MimeData,
        NbElementRenderer,
    )
    from pydantic import JsonValue

__all__ = ["MimeRenderer", "figure_html", "levers_html"]


class MimeRenderer:
    """What myst-nb calls for an output of one of the course's formats."""

    mime_priority_overrides: ClassVar[Sequence[tuple[str, str, int | None]]] = (
        ("html", LEVERS, 1),
        ("html", FIGURE, 2),
    )

    @staticmethod
    def handle_mime(
        renderer: NbElementRenderer, data: MimeData, inline: bool
    ) -> list[nodes.Element] | None:
        """The output's node, or `None` if it is for another."""
        render = {FIGURE: figure_html, LEVERS: levers_html}.get(data.mime_type)
        if render is None or inline:
            return None
        return [nodes.raw("", render(data.content), format="html")]


def figure_html(figure: Mapping[str, Any]) -> str:
    """A figure: its title as a caption, its alternative text, a place to draw, and what to draw."""
    meta = figure["layout"]["meta"]
    alt = html.escape(meta["alt"])
    return (
        f'<figure class="course-figure"><figcaption>{html.escape(meta["title"])}</figcaption>'
        f'<div class="course-plot" role="img" aria-label="{alt}" '
        f'style="height:{figure["layout"]["height"]}px"></div>'
        f"<noscript><p>{alt}</p></noscript>{_data(figure)}</figure>"
    )


def levers_html(panel: Mapping[str, Any]) -> str:
    """A lever panel: its controls, its numbers and its figure, at the default."""
    key = hashlib.sha256(json.dumps(panel, sort_keys=True).encode()).hexdigest()[:8]
    controls = "".join(
        _control(lever, f"lever-{key}-{at}") for at, lever in enumerate(panel["levers"])
    )
    title, state = html.escape(panel["title"]), panel["state"]
    return (
        f'<section class="course-levers" aria-label="{title}"><p class="course-levers-title">{title}</p>'
        f'<form class="course-controls">{controls}<button type="reset">Reset</button></form>'
        f'<dl class="course-numbers" aria-live="polite">{_numbers(state["numbers"])}</dl>'
        f"<noscript><p>The levers need JavaScript; shown is where they stand at first.</p></noscript>"
        f"{figure_html(state['figure'])}{_data(panel, 'course-states')}</section>"
    )


def _control(lever: Mapping[str, Any], key: str) -> str:
    label = html.escape(lever["label"])
    values, default = [html.escape(value) for value in lever["values"]], lever["default"]
    if lever["kind"] == "choice":
        options = "".join(
            f'<label><input type="radio" name="{key}" value="{at}"'
            f"{' checked' if at == default else ''}><span>{value}</span></label>"
            for at, value in enumerate(values)
        )
        return f'<fieldset class="course-lever"><legend>{label}</legend>{options}</fieldset>'
    return (
        f'<div class="course-lever"><label for="{key}">{label}</label>'
        f'<output for="{key}">{values[default]}</output>'
        f'<input type="range" id="{key}" min="0" max="{len(values) - 1}" step="1" '
        f'value="{default}" aria-valuetext="{values[default]}"></div>'
    )


def _numbers(numbers: Mapping[str, str]) -> str:
    return "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in numbers.items()
    )


def _data(value: JsonValue | Mapping[str, Any], kind: str = "course-data") -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
    return f'<script type="application/json" class="{kind}">{text}</script>'
