"""The palette: readable in both themes, and told apart without colour."""

import math
import re

import pytest

from course.theme import COLOURS, LINES, ROLES, roles_for

TEXT = 4.5  # WCAG 2.2, contrast (minimum), level AA
GRAPHICS = 3.0  # WCAG 2.2, non-text contrast, level AA
WORDS = ["text", "muted", "link", "accent", "good", "bad", *ROLES]


def luminance(colour: str) -> float:
    """Relative luminance as WCAG defines it."""
    parts = [int(part, 16) / 255 for part in re.findall("[0-9a-f]{2}", colour.lstrip("#"))]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return math.fsum(w * each for w, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("surface", ["surface", "raised"])
@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("name", WORDS)
def test_words_and_lines_stand_out(name: str, theme: int, surface: str) -> None:
    """Every colour of text, and so of labelled lines, has contrast AA on what it is drawn on."""
    assert contrast(COLOURS[name][theme], COLOURS[surface][theme]) >= TEXT


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_ends_of_a_scale_are_told_apart(theme: int) -> None:
    """The extremes of the heat map differ as graphics must."""
    assert contrast(COLOURS["scale0"][theme], COLOURS["scale4"][theme]) >= GRAPHICS


def test_each_light_colour_has_one_dark_counterpart() -> None:
    """The page swaps colours by their text, so no light colour may stand for two things."""
    light = [colour.light for colour in COLOURS.values()]
    assert len(set(light)) == len(light)


def test_roles_differ_without_colour() -> None:
    """In greyscale dash, marker and hatching tell the roles apart."""
    looks = list(LINES.values())
    for attribute in ("dash", "symbol", "glyph", "hatch"):
        assert len({getattr(look, attribute) for look in looks}) == len(looks)


def test_names_without_a_role_take_free_colours() -> None:
    """A role that is given is not handed out again."""
    assert roles_for(["a", "b"], {"b": "other1"}) == {"b": "other1", "a": "other2"}


def test_an_unknown_role_is_named_with_the_remedy() -> None:
    """The error lists what there is."""
    with pytest.raises(ValueError, match=r"no role 'hero'.*naive, pattern, provider"):
        roles_for(["a"], {"a": "hero"})


def test_a_role_for_nothing_drawn_is_an_error() -> None:
    """A misspelt name does not lose its colour silently."""
    with pytest.raises(ValueError, match="'naive retry', which is not drawn"):
        roles_for(["Naive retry"], {"naive retry": "naive"})
