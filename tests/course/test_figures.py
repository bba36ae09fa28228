"""Figures: small, exact, complete in words, and in the palette's colours only."""

import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest

from course import Figure, bars, heatmap, lines, panels
from course.figures import MIME
from course.theme import COLOURS

WORDS = {"title": "A finding", "x": "Time (s)", "y": "Load (1/s)", "alt": "A chart of five words."}
COLOUR = re.compile(r"#[0-9a-f]{6}|rgba\([^)]*\)")


def everything() -> list[Figure]:
    """One figure of each kind, with each of its parts."""
    line = lines(
        {"Naive": ([0, 1, 2], [1.0, 9.0, 2.0]), "Budget": ([0, 1, 2], [1.0, 1.5, 1.0])},
        roles={"Naive": "naive", "Budget": "pattern"},
        limits={"Capacity": 5},
        spans={"Dip": (0.5, 1.5)},
        marks={"Deploy": 1},
        bands={"Budget": ([0.9, 1.4, 0.9], [1.1, 1.6, 1.1])},
        y_range=(0, 10),
        **WORDS,
    )
    cells = heatmap(
        [[0.1, 0.9], [0.5, 0.2]], x_values=[1, 2], y_values=["a", "b"], z="Share", **WORDS
    )
    split = heatmap([[0.5, 2.0]], x_values=[1, 2], y_values=["a"], z="Ratio", center=1.0, **WORDS)
    groups = bars({"Before": {"a": 1, "b": 2}, "After": {"a": 3, "b": 4}}, stacked=True, **WORDS)
    flat = bars({"Naive": 812, "Budget": 31}, roles={"Naive": "naive"}, limits={"Bar": 5}, **WORDS)
    both = panels({"One": line, "Two": line}, title="Two", alt="Two charts of five words.")
    return [line, cells, split, groups, flat, both]


@pytest.mark.parametrize("figure", everything(), ids=lambda figure: figure.data[0]["type"])
def test_every_colour_is_in_the_palette(figure: Figure) -> None:
    """What is not in the palette would not turn dark."""
    used = set(COLOUR.findall(json.dumps(figure.to_dict())))
    assert used
    assert used <= {colour.light for colour in COLOURS.values()}


@pytest.mark.parametrize("figure", everything(), ids=lambda figure: figure.data[0]["type"])
def test_figure_carries_its_words_and_plain_numbers(figure: Figure) -> None:
    """Title and alternative text travel with it, and no array is packed as base64."""
    shown = figure._repr_mimebundle_()
    assert shown[MIME]["layout"]["meta"] == {"title": figure.title, "alt": figure.alt}
    assert shown["text/plain"] == f"{figure.title}\n{figure.alt}"
    assert "bdata" not in json.dumps(shown)


def test_values_are_rounded_alike_from_every_kind_of_series() -> None:
    """A list, an array, a dict and a pandas Series give the same figure."""
    values = [1.23456789, 2.0, float("nan")]
    given = [
        ([0, 1, 2], values),
        (np.arange(3), np.array(values)),
        dict(enumerate(values)),
        pd.Series(values),
    ]
    drawn = [lines({"Load": series}, **WORDS).to_dict() for series in given]
    assert drawn[0]["data"][0]["y"] == [1.235, 2, None]
    assert all(each == drawn[0] for each in drawn)


def test_neighbours_on_a_long_axis_stay_apart() -> None:
    """Seconds of a day keep all their digits."""
    figure = lines({"Load": ([86_398, 86_399, 86_400], [1, 2, 3])}, **WORDS)
    assert figure.data[0]["x"] == [86_398, 86_399, 86_400]


def test_too_many_points_are_refused() -> None:
    """A figure carries what it needs; the error says to aggregate."""
    with pytest.raises(ValueError, match=r"2,001 points.*aggregate"):
        lines({"Load": (range(2001), range(2001))}, **WORDS)


@pytest.mark.parametrize("missing", ["title", "alt", "x", "y"])
def test_words_are_required(missing: str) -> None:
    """A figure without title, alternative text or axis labels is not made."""
    with pytest.raises(ValueError, match=r"needs? a (title|label)"):
        lines({"Load": ([0, 1], [1, 2])}, **{**WORDS, missing: ""})


def test_unequal_lengths_are_named() -> None:
    """The error says which series, and both lengths."""
    with pytest.raises(ValueError, match="'Load' has 2 x values and 1 y values"):
        lines({"Load": ([0, 1], [1])}, **WORDS)


def test_labels_at_the_ends_do_not_overlap() -> None:
    """Lines that end together are labelled one above the other, in their order."""
    series = {name: ([0, 1], [0, value]) for name, value in {"a": 1, "b": 1.01, "c": 1.02}.items()}
    labels = lines(series, **WORDS).layout["annotations"]
    heights = [label["y"] for label in labels]
    assert [label["text"][-1] for label in labels] == ["a", "b", "c"]
    assert all(upper - lower > 0.06 for lower, upper in itertools.pairwise(heights))
    assert max(heights) <= 1


def test_long_names_go_to_the_legend() -> None:
    """A label that would take the plot's room is not written at the line's end."""
    layout = lines({"a": ([0], [1]), "b" * 30: ([0], [1])}, **WORDS).layout
    assert layout["annotations"] == []
    assert layout["showlegend"] is True


def test_panels_need_one_range() -> None:
    """Panels on different scales would mislead the eye."""
    one = lines({"Load": ([0, 1], [1, 2])}, **WORDS)
    other = lines({"Load": ([0, 1], [1, 20])}, **WORDS)
    with pytest.raises(ValueError, match="one vertical range"):
        panels({"One": one, "Other": other}, title="Two", alt="Two charts of five words.")


def test_a_heat_map_needs_a_value_for_each_pair() -> None:
    """Rows that do not fit the settings are refused."""
    with pytest.raises(ValueError, match="Expected 2 rows of 1 values"):
        heatmap([[1.0]], x_values=[1], y_values=[1, 2], z="Share", **WORDS)
