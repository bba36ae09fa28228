"""The lever panel in a notebook with a kernel: ipywidgets that call the function as a lever moves."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING

import ipywidgets as widgets  # type: ignore[import-untyped]
from pydantic import JsonValue

from course.display import figures_of
from course.figures import MIME

if TYPE_CHECKING:
    from course.levers import Levers

__all__ = ["live"]


def live(panel: Levers, state: JsonValue) -> dict[str, JsonValue]:
    """The panel's widget, as the front end shows it; it starts from `state`."""
    controls = {name: _control(panel, name) for name in panel.levers}
    numbers, figure = widgets.HTML(), widgets.Output()
    reset = widgets.Button(description="Reset")

    def show(state: JsonValue) -> None:
        assert isinstance(state, dict)
        numbers.value = _numbers(state["numbers"])
        # Set, not displayed: an output that is displayed into is recorded twice.
        figure.outputs = (
            {"output_type": "display_data", "data": {MIME: state["figure"]}, "metadata": {}},
        )

    def move(_: object) -> None:
        show(panel.at(**{name: control.value for name, control in controls.items()}))

    def start(_: object) -> None:
        for name, control in controls.items():
            control.value = panel.default[name]

    for control in controls.values():
        control.observe(move, names="value")
    reset.on_click(start)
    show(state)
    heading = widgets.HTML(f"<strong>{html.escape(panel.title)}</strong>")
    box = widgets.VBox([heading, *controls.values(), reset, numbers, figure])
    shown: Mapping[str, JsonValue] = box._repr_mimebundle_()
    return {mime: value for mime, value in shown.items() if "widget" in mime}


def _control(panel: Levers, name: str) -> widgets.SelectionSlider | widgets.ToggleButtons:
    values = panel.levers[name]
    numeric = isinstance(values[0], (int, float))
    kind = widgets.SelectionSlider if numeric else widgets.ToggleButtons
    return kind(
        options=[(figures_of(value), value) for value in values],
        value=panel.default[name],
        description=panel.labels[name],
        style={"description_width": "14em"},
        layout={"width": "32em"} if numeric else {},
    )


def _numbers(numbers: JsonValue) -> str:
    assert isinstance(numbers, dict)
    return " &nbsp; ".join(
        f"{html.escape(name)} <strong>{html.escape(str(value))}</strong>"
        for name, value in numbers.items()
    )
