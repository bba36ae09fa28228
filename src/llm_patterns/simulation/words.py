"""Words to fill an answer with.

>>> words(5, Random(0))
'use these never how over'
"""

from __future__ import annotations

from random import Random
from typing import Final

__all__ = ["words"]

_TEXT: Final = (
    "about after all also and any back because both can come day even find first for from give good"
    " great hand have here how just keep know last like line long look make many may more most need"
    " never new next not now only open other our over own part place plan point right same say see"
    " set show side small some take than that the their then there these they thing this time turn"
    " two under use very want way well what when where which while will with work year you"
)
_COMMON: Final = tuple(_TEXT.split())
"""Common English words, which with the space after them have five characters on average."""


def words(count: int, rng: Random) -> str:
    """Return *count* words drawn from *rng*, with spaces between."""
    return " ".join(rng.choices(_COMMON, k=count))
