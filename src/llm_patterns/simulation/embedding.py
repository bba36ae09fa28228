"""Vectors for texts, without a model: similar spelling, near vectors.

The text is lower-cased, its words and their character trigrams are counted, and each is added to
the component that its hash names, with the sign that its hash names: feature hashing (Weinberger et
al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009) of the subword units of
fastText (Bojanowski et al., TACL 2017). It knows nothing of meaning, only of letters, and gives the
same on every machine.

>>> near = similarity(embed("reset my password"), embed("resetting the password"))
>>> far = similarity(embed("reset my password"), embed("what is the weather"))
>>> near > 0.5 > far
True
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import fsum, sqrt
from zlib import crc32

from llm_patterns.errors import ConfigurationError

__all__ = ["embed", "similarity"]


def embed(text: str, *, dimensions: int = 256) -> list[float]:
    """Return the vector of *text*, of length 1.

    >>> [round(each, 2) for each in embed("hello", dimensions=4)]
    [0.41, 0.41, 0.0, -0.82]
    """
    if dimensions < 1:
        raise ConfigurationError(f"dimensions is {dimensions}; it must be at least 1")
    vector = [0.0] * dimensions
    for unit in _units(text):
        code = crc32(unit.encode("utf-8", "surrogatepass"))
        vector[(code >> 1) % dimensions] += 1.0 if code & 1 else -1.0
    norm = sqrt(fsum(each * each for each in vector))
    # Signs may cancel in few dimensions; any fixed direction will do then.
    return [each / norm for each in vector] if norm else [1.0, *vector[1:]]


def similarity(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the cosine of two vectors of length 1."""
    return fsum(a * b for a, b in zip(left, right, strict=True))


def _units(text: str) -> Iterator[str]:
    for word in re.findall(r"\w+|[^\w\s]", text.lower()):
        marked = f"<{word}>"
        yield marked
        yield from (marked[at : at + 3] for at in range(len(marked) - 2))
