"""What does a pattern's event say, in a trace that must not quote anyone?

Events are flat: their numbers, truth values, enumerations and names are told, and what the values in them say, by
dotted names. Text is told if it looks like a name: letters, digits and `._:/-`, no spaces. Of an error nothing is told
but its class, its numbers and its enumerations, since its message may be a single word of the prompt.

>>> from dataclasses import dataclass
>>> @dataclass
... class RetryScheduled:
...     delay: float
...     question: str
...     error: Exception
>>> event = RetryScheduled(0.5, "why me?", TimeoutError("while answering why me?"))
>>> event_name(event), event_attributes(event)
('retry_scheduled', {'delay': 0.5, 'error.type': 'TimeoutError'})
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Final

__all__ = ["event_attributes", "event_name"]

_NAME: Final = re.compile(r"[\w.:/-]{1,64}", re.ASCII)
_WORD: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_DEPTH: Final = 3


def event_name(event: object) -> str:
    """Return the name of the event's class as attributes are written: `RetryScheduled` is `retry_scheduled`."""
    return _WORD.sub("_", type(event).__name__).lower()


def event_attributes(event: object) -> dict[str, str | int | float]:
    """Return what *event* says."""
    return dict(_told(event, _DEPTH))


def _told(event: object, depth: int) -> Iterator[tuple[str, str | int | float]]:
    for name, part in _parts(event):
        value = part.value if isinstance(part, Enum) else part
        if isinstance(value, int | float) or (isinstance(value, str) and _NAME.fullmatch(value)):
            yield name, value
        elif depth > 1:
            yield from ((f"{name}.{inner}", told) for inner, told in _told(value, depth - 1))


def _parts(event: object) -> Iterator[tuple[str, object]]:
    if isinstance(event, BaseException):
        yield "type", type(event).__name__
        yield from ((name, value) for name, value in vars(event).items() if not _quotes(value))
    elif is_dataclass(event):
        yield from ((field.name, getattr(event, field.name)) for field in fields(event))


def _quotes(value: object) -> bool:
    return isinstance(value, str) and not isinstance(value, Enum)
