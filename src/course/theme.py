"""The one palette of the course: every colour, in the light and in the dark theme.

A figure is stored in its light colours. The page replaces each by its dark counterpart, so that a figure is
stored once and reads in both; the page's own style sheet takes its variables from the same table.

>>> COLOURS["pattern"].light == LINES["pattern"].colour
True
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COLOURS", "FONT", "LINES", "ROLES", "Colour", "Line", "role_of", "roles_for"]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


class Colour(NamedTuple):
    """One colour in each theme, as CSS writes it."""

    light: str
    dark: str


class Line(NamedTuple):
    """How a role is drawn: by colour, and without it by dash, marker and hatching."""

    colour: str
    dash: str
    symbol: str
    glyph: str
    """The marker as a character, for labels."""
    hatch: str
    width: float


COLOURS = {
    "surface": Colour("#ffffff", "#12161c"),
    "raised": Colour("#f5f7fa", "#1b2129"),
    "rule": Colour("#e1e5eb", "#2c343f"),
    "text": Colour("#1a202b", "#e4e9f0"),
    "muted": Colour("#525c6b", "#a7b1be"),
    "link": Colour("#0a58a3", "#79bbff"),
    "accent": Colour("#0b5fae", "#6cb6ff"),
    "good": Colour("#1b6e3c", "#6ccb8e"),
    "bad": Colour("#a8321b", "#ff9d85"),
    "naive": Colour("#b5400a", "#ff9466"),
    "pattern": Colour("#0b5fad", "#6db7ff"),
    "provider": Colour("#00706a", "#4accbb"),
    "limit": Colour("#414a58", "#b9c2ce"),
    "other1": Colour("#7445a0", "#cba6f3"),
    "other2": Colour("#776105", "#dcc04e"),
    "other3": Colour("#ab2c75", "#f593c7"),
    "other4": Colour("#5b5046", "#c0b1a2"),
    "span": Colour("rgba(181,64,10,0.09)", "rgba(255,148,102,0.13)"),
    "scale0": Colour("#eef4fb", "#19222d"),
    "scale1": Colour("#bcd7f0", "#1f4468"),
    "scale2": Colour("#6fa8d9", "#2f6ea8"),
    "scale3": Colour("#2871b3", "#63a7e6"),
    "scale4": Colour("#0a3d70", "#c2e0ff"),
    "below0": Colour("#8a2f06", "#ffb08c"),
    "below1": Colour("#e09a75", "#9a4a22"),
}

_DRAWN = (  # role, dash, marker, its character, hatching, width
    ("naive", "6px,3px", "square", "■", "/", 2.0),
    ("pattern", "solid", "circle", "●", "", 2.75),
    ("provider", "2px,3px", "diamond", "◆", ".", 2.0),
    ("limit", "8px,4px", "line-ew", "▬", "-", 1.5),
    ("other1", "10px,3px,2px,3px", "triangle-up", "▲", "\\", 2.0),
    ("other2", "12px,4px", "triangle-down", "▼", "x", 2.0),
    ("other3", "4px,2px", "cross", "✚", "+", 2.0),
    ("other4", "10px,3px,2px,3px,2px,3px", "star", "★", "|", 2.0),
)

LINES = {role: Line(COLOURS[role].light, *drawn) for role, *drawn in _DRAWN}  # type: ignore[arg-type]
ROLES = tuple(LINES)


def role_of(name: str) -> str:
    """`name` itself if it is a role.

    Raises:
        ValueError: if it is none; the message lists them.
    """
    if name in LINES:
        return name
    raise ValueError(f"There is no role {name!r}. The roles are: {', '.join(ROLES)}.")


def roles_for(names: list[str], given: dict[str, str]) -> dict[str, str]:
    """A role for each name: the one given, else the next of `other1`, `other2`, ...

    >>> roles_for(["Naive", "Fixed", "Jitter"], {"Naive": "naive"})
    {'Naive': 'naive', 'Fixed': 'other1', 'Jitter': 'other2'}

    Raises:
        ValueError: if a role is given to a name that is not drawn, or there are no roles left.
    """
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ValueError(f"A role is given to {unknown[0]!r}, which is not drawn; drawn: {names}.")
    taken = {role_of(role) for role in given.values()}
    spare = [role for role in ROLES if role.startswith("other") and role not in taken]
    rest = [name for name in names if name not in given]
    if len(rest) > len(spare):
        raise ValueError(
            f"{len(rest)} names have no role and {len(spare)} colours are left: give roles, "
            "or draw fewer in one figure."
        )
    return given | dict(zip(rest, spare, strict=False))
