"""Server-sent events, the framing of streamed answers: text to events and back.

The format is the HTML standard's ("Server-sent events", section 9.2.6). Lines end in CR, LF or
CRLF and nothing else: `str.splitlines`, and with it httpx's `aiter_lines`, would also cut at U+2028
and its kin, which JSON may contain as they are.

>>> decoder = Decoder()
>>> decoder.feed(b"data: {}\\r"), decoder.feed(b"\\n\\r\\n")
([], [Event(data='{}', name='')])
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = ["Decoder", "Event", "encode"]

_LINE_END: Final = re.compile(rb"\r\n|\n|\r(?!\Z)")  # a last CR may be half of a CRLF


class Event(NamedTuple):
    """One event: its data, and the name of its kind (empty for the default kind)."""

    data: str
    name: str = ""


def encode(data: str, name: str = "") -> bytes:
    """Return one event as bytes; *data* is one line, as JSON is.

    >>> encode("{}", "ping")
    b'event: ping\\ndata: {}\\n\\n'
    """
    kind = f"event: {name}\n" if name else ""
    return f"{kind}data: {data}\n\n".encode()


class Decoder:
    """Turns the bytes of a stream into events, however they were cut on the way."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that *chunk* completes."""
        *lines, self._rest = _LINE_END.split(self._rest + chunk)
        return [event for line in lines for event in self._line(line.decode("utf-8", "replace"))]

    def _line(self, line: str) -> Iterator[Event]:
        if not line:
            if self._data:
                yield Event("\n".join(self._data), self._name)
            self._data, self._name = [], ""
        field, _, value = line.partition(":")
        if field == "data":
            self._data.append(value.removeprefix(" "))
        elif field == "event":
            self._name = value.removeprefix(" ")
