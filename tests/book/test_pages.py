"""The built pages in a real browser: nothing foreign, nothing broken, readable by everybody."""

import json
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, Locator

from course.figures import MIME as FIGURE
from course.levers import MIME as LEVERS
from course.levers import unpack
from tests.book.browser import ROOT, SITE, Visit, visit

CHAPTERS = sorted(
    path.relative_to(ROOT).with_suffix("") for path in (ROOT / "book").rglob("*.ipynb")
)
NAMES = [path.as_posix() for path in CHAPTERS]
PAGES = ["book/index", *NAMES]
VIEWS = [(theme, width) for theme in ("light", "dark") for width in (1280, 390)]

MAX_TRANSFER = 1_000_000
MAX_HTML = 600_000
AXE = ROOT / "_build" / "npm" / "node_modules" / "axe-core" / "axe.min.js"

pytestmark = pytest.mark.timeout(180)

Open = Callable[..., Visit]


@pytest.fixture
def open_page(browser: Browser, origin: str) -> Iterator[Open]:
    """Opens a page by name, and closes it after the test."""
    opened: list[Visit] = []

    def opener(name: str, *, theme: str = "light", width: int = 1280) -> Visit:
        opened.append(visit(browser, f"{origin}/{name}.html", theme=theme, width=width))
        return opened[-1]

    yield opener
    for each in opened:
        each.page.context.close()


def outputs(name: str, mime: str) -> list[Any]:
    """What a chapter's cells stored in a format."""
    notebook = nbformat.read(ROOT / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    shown = [
        output.get("data", {})
        for cell in notebook.cells
        if cell.cell_type == "code" and "remove-cell" not in cell.metadata.get("tags", ())
        for output in cell.outputs
    ]
    # A panel carries its figure as well; as a figure of its own it is not drawn.
    return [data[mime] for data in shown if mime in data]


def plotted(figure: Locator) -> list[dict[str, Any]]:
    """What plotly.js holds of a drawn figure: its traces' values."""
    read = """(figure) => figure.querySelector('.course-plot').data.map(
        ({name, x, y, z}) => ({name, x, y, z}))"""
    traces: list[dict[str, Any]] = figure.evaluate(read)
    return [{key: value for key, value in trace.items() if value is not None} for trace in traces]


def expected(state: Any) -> list[dict[str, Any]]:
    """The same of a stored figure."""
    traces = state["figure"]["data"]
    return [{key: each[key] for key in ("name", "x", "y", "z") if key in each} for each in traces]


def test_the_book_has_chapters() -> None:
    """Without a chapter the other tests would have nothing to look at."""
    assert NAMES


@pytest.mark.parametrize(("theme", "width"), VIEWS)
@pytest.mark.parametrize("name", PAGES)
def test_page_asks_nothing_of_another_origin_and_logs_no_error(
    open_page: Open, name: str, theme: str, width: int
) -> None:
    """The page works with the network cut, and the console stays empty."""
    seen = open_page(name, theme=theme, width=width)
    seen.show_all()
    assert seen.foreign() == []
    assert seen.complaints == []


@pytest.mark.parametrize(("theme", "width"), VIEWS)
@pytest.mark.parametrize("name", PAGES)
def test_page_does_not_scroll_sideways(open_page: Open, name: str, theme: str, width: int) -> None:
    """Wide things scroll inside themselves."""
    seen = open_page(name, theme=theme, width=width)
    seen.show_all()
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("name", NAMES)
def test_every_stored_figure_is_drawn_with_its_words(open_page: Open, name: str) -> None:
    """Each figure of the notebook is on the page with its caption and alternative text."""
    seen = open_page(name)
    seen.show_all()
    stored = [figure["layout"]["meta"] for figure in outputs(name, FIGURE)]
    stored += [panel["state"]["figure"]["layout"]["meta"] for panel in outputs(name, LEVERS)]
    shown = [
        {
            "title": figure.locator("figcaption").text_content(),
            "alt": figure.locator(".course-plot").get_attribute("aria-label"),
        }
        for figure in seen.page.locator(".course-figure").all()
    ]
    order = json.dumps
    assert sorted(shown, key=lambda each: order(each, sort_keys=True)) == sorted(
        stored, key=lambda each: order(each, sort_keys=True)
    )
    assert stored
    assert seen.page.locator(".course-figure .course-plot svg.main-svg").count() >= len(stored)


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_drawn_when_they_come_near(open_page: Open, name: str) -> None:
    """The last figure waits until the reader scrolls to it."""
    seen = open_page(name)
    last = seen.page.locator(".course-figure:visible").last
    assert last.get_attribute("data-drawn") is None
    last.scroll_into_view_if_needed()
    seen.page.wait_for_function("(figure) => figure.dataset.drawn", arg=last.element_handle())


@pytest.mark.parametrize("name", NAMES)
def test_figures_change_their_colours_with_the_theme(open_page: Open, name: str) -> None:
    """A switch of the theme recolours what is drawn, without a reload."""
    seen = open_page(name, theme="light")
    seen.show_all()
    read = "document.querySelector('.course-plot').layout.paper_bgcolor"
    light = seen.page.evaluate(read)
    seen.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    seen.page.wait_for_function(f"{read} !== {light!r}")
    assert seen.page.evaluate(read) == seen.page.evaluate(
        "getComputedStyle(document.documentElement).getPropertyValue('--course-surface').trim()"
    )


@pytest.mark.parametrize("name", NAMES)
def test_levers_move_by_keyboard_to_what_python_computed(open_page: Open, name: str) -> None:
    """At sampled combinations the figure, its words and the numbers equal the stored ones."""
    seen = open_page(name)
    seen.show_all()
    for packed, section in zip(
        outputs(name, LEVERS), seen.page.locator(".course-levers").all(), strict=True
    ):
        for choices in samples(packed):
            for control, value in zip(section.locator(".course-lever").all(), choices, strict=True):
                press(control, value)
            assert_shows(section, packed, position(packed, choices))


@pytest.mark.parametrize("name", NAMES)
def test_levers_move_by_mouse_and_reset(open_page: Open, name: str) -> None:
    """A click on a lever's last value moves it there; Reset brings all back."""
    seen = open_page(name, width=390)
    seen.show_all()
    for packed, section in zip(
        outputs(name, LEVERS), seen.page.locator(".course-levers").all(), strict=True
    ):
        for control in section.locator(".course-lever").all():
            click_last(control)
        last = [len(lever["values"]) - 1 for lever in packed["levers"]]
        assert_shows(section, packed, position(packed, last))
        section.get_by_role("button", name="Reset").click()
        first = [lever["default"] for lever in packed["levers"]]
        assert_shows(section, packed, position(packed, first))


@pytest.mark.parametrize("name", NAMES)
def test_every_lever_changes_the_figure_or_its_numbers(name: str) -> None:
    """No lever is for show: at some setting of the others, each makes a difference."""
    for packed in outputs(name, LEVERS):
        counts = [range(len(lever["values"])) for lever in packed["levers"]]
        states = {choices: unpack(packed, place) for place, choices in enumerate(product(*counts))}
        for at, lever in enumerate(packed["levers"]):
            assert any(
                state != states[(*choices[:at], 0, *choices[at + 1 :])]
                for choices, state in states.items()
            ), lever["label"]


@pytest.mark.parametrize("name", PAGES)
def test_page_with_its_scripts_stays_light(open_page: Open, name: str) -> None:
    """A cold load, every figure drawn, is under a megabyte compressed."""
    seen = open_page(name)
    seen.show_all()
    sizes = seen.compressed()
    assert sum(sizes.values()) < MAX_TRANSFER, sizes
    assert (SITE / f"{name}.html").stat().st_size <= MAX_HTML


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_page_has_no_serious_barrier(open_page: Open, name: str, theme: str) -> None:
    """axe finds nothing serious or critical: contrast, names, roles, order."""
    seen = open_page(name, theme=theme)
    seen.show_all()
    seen.page.add_script_tag(path=AXE)
    found = seen.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    serious = [
        (each["id"], [node["html"][:160] for node in each["nodes"]])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.parametrize("name", NAMES)
def test_page_reads_without_its_script(browser: Browser, origin: str, name: str) -> None:
    """Without JavaScript every figure's alternative text is in the page."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{origin}/{name}.html")
    read = page.locator(".course-figure noscript").all_text_contents()
    assert {figure["layout"]["meta"]["alt"] for figure in outputs(name, FIGURE)} <= set(read)
    context.close()


def samples(packed: Any) -> list[list[int]]:
    """A few combinations: all at the first, all at the last, and one between."""
    counts = [len(lever["values"]) for lever in packed["levers"]]
    return [[0] * len(counts), [count - 1 for count in counts], [count // 2 for count in counts]]


def position(packed: Any, choices: list[int]) -> int:
    """A combination's place in the grid, the last lever fastest."""
    place = 0
    for lever, choice in zip(packed["levers"], choices, strict=True):
        place = place * len(lever["values"]) + choice
    return place


def press(control: Locator, value: int) -> None:
    """Move a lever to a value with the keyboard alone."""
    slider = control.locator("input[type=range]")
    if slider.count():
        slider.focus()
        slider.press("Home")
        for _ in range(value):
            slider.press("ArrowRight")
        return
    control.locator("input:checked").focus()
    options = control.locator("input").count()
    at = int(control.locator("input:checked").input_value())
    for _ in range((value - at) % options):
        control.locator("input:checked").press("ArrowRight")


def click_last(control: Locator) -> None:
    """Move a lever to its last value with the mouse alone."""
    slider = control.locator("input[type=range]")
    if slider.count():
        box = slider.bounding_box()
        assert box is not None
        slider.click(position={"x": box["width"] - 2, "y": box["height"] / 2})
    else:
        control.locator("span").last.click()


def assert_shows(section: Locator, packed: Any, place: int) -> None:
    """The panel shows the combination at this place: levers, figure, words, numbers."""
    state: Any = unpack(packed, place)
    section.page.wait_for_function(
        "([section, place]) => section.dataset.position === String(place)",
        arg=[section.element_handle(), place],
    )
    cells = section.locator(".course-numbers dd").all_text_contents()
    assert cells == list(state["numbers"].values())
    figure = section.locator(".course-figure")
    meta = state["figure"]["layout"]["meta"]
    assert figure.locator("figcaption").text_content() == meta["title"]
    assert figure.locator(".course-plot").get_attribute("aria-label") == meta["alt"]
    section.page.wait_for_function(
        "([figure, y]) => JSON.stringify(figure.querySelector('.course-plot').data[0].y) === y",
        arg=[
            figure.element_handle(),
            json.dumps(expected(state)[0]["y"], separators=(",", ":")),
        ],
    )
    assert plotted(figure) == expected(state)
