"""A file for whole lines: one that never grows without end, and knows what of a write it took.

Python's own buffered files do neither: after an error nobody can say which bytes are on the disk. These write straight
to the system and return its count, so that a write that was cut short is taken up at the very byte.

>>> from io import BytesIO
>>> stream = BytesIO()
>>> log_file(stream, max_file_size_bytes=1_000, max_files=2).write(b"a line\\n")
7
"""

from __future__ import annotations

import errno
import math
import os
import stat
from contextlib import suppress
from io import BufferedWriter, TextIOBase
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol

from llm_patterns.errors import ConfigurationError

__all__ = ["BinaryStream", "LogFile", "RotatingFile", "UnbufferedStream", "log_file"]

_PASSING: Final = frozenset({errno.EAGAIN, errno.EINTR, errno.ENOSPC, errno.EDQUOT})
"""Errors after which the same open file may take the rest; after any other it is opened anew."""


class BinaryStream(Protocol):
    """What is needed of an open file: it may write less than all, and say so."""

    def write(self, data: bytes, /) -> int | None:
        """Write *data* or its beginning, and return how many bytes; None or `BlockingIOError` if not now."""


class LogFile(Protocol):
    """What a writer of lines needs. All of it may block, and raise `OSError`."""

    def write(self, data: bytes) -> int:
        """Write *data* or its beginning, and return how many bytes that is."""

    def fits(self, size_bytes: int) -> bool:
        """Return whether so much more fits into the file."""

    def rotate(self) -> None:
        """Begin a new file, unless this one is empty."""

    def reopens_after(self, error: Exception) -> bool:
        """Return whether the next write after *error* will be to a file opened anew."""

    def close(self) -> None:
        """Close what was opened here."""


def log_file(
    target: str | os.PathLike[str] | BinaryStream, *, max_file_size_bytes: int, max_files: int
) -> LogFile:
    """Return a file for a path, or a stream as it is; the bounds are the path's.

    Raises:
        ConfigurationError: if the path's folder does not exist, or the stream is one of text.
    """
    if isinstance(target, str | os.PathLike):
        return RotatingFile(
            Path(target), max_file_size_bytes=max_file_size_bytes, max_files=max_files
        )
    return UnbufferedStream(target)


class UnbufferedStream:
    """A stream that somebody else opened, and will close."""

    def __init__(self, stream: BinaryStream) -> None:
        if isinstance(stream, TextIOBase):
            raise ConfigurationError(
                f"{stream!r} is a stream of text; give its bytes: stream.buffer"
            )
        # A buffer does not say how much of its content reached the disk before an error, so it is passed by.
        self._buffer = stream if isinstance(stream, BufferedWriter) else None
        self._stream = stream if self._buffer is None else self._buffer.raw

    def write(self, data: bytes) -> int:
        """Write *data* or its beginning."""
        if self._buffer is not None:
            self._buffer.flush()
        written = self._stream.write(data)
        if written is None:
            raise BlockingIOError(errno.EAGAIN, "the stream takes nothing now")
        return written

    def fits(self, size_bytes: int) -> bool:
        """Return True: a stream has no end."""
        return True

    def rotate(self) -> None:
        """Do nothing."""

    def reopens_after(self, error: Exception) -> bool:
        """Return False: it is not ours to open."""
        return False

    def close(self) -> None:
        """Do nothing."""


class RotatingFile:
    """A file that grows to a size and is then renamed: `traces.jsonl` to `traces.jsonl.1`, that to `.2`."""

    def __init__(self, path: Path, *, max_file_size_bytes: int, max_files: int) -> None:
        if not path.parent.is_dir() or path.is_dir():
            raise ConfigurationError(f"{path} can't be a file; give one in a folder that exists")
        self._path = path
        self._max_size_bytes = max_file_size_bytes
        self._max_files = max_files
        self._descriptor: int | None = None
        self._size = 0.0
        self._torn = False

    def write(self, data: bytes) -> int:
        """Write *data* or its beginning."""
        descriptor = self._open()
        if self._torn:  # by a writer before us, who was stopped within a line
            self._size += os.write(descriptor, b"\n")
            self._torn = False
        written = os.write(descriptor, data)
        self._size += written
        return written

    def fits(self, size_bytes: int) -> bool:
        """Return whether so much more fits."""
        self._open()
        return self._size + size_bytes <= self._max_size_bytes

    def rotate(self) -> None:
        """Rename the files, each to the next number; the last is gone."""
        if self._size == 0:
            return
        self.close()
        numbers = ["", *(f".{number}" for number in range(1, self._max_files))]
        names = [self._path.with_name(self._path.name + number) for number in numbers]
        names[-1].unlink(missing_ok=True)
        for newer, older in reversed(list(pairwise(names))):
            if newer.exists():
                newer.replace(older)

    def reopens_after(self, error: Exception) -> bool:
        """Close the file, unless *error* passes and the file may take the rest."""
        if getattr(error, "errno", None) in _PASSING:
            return False
        self.close()
        return True

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):  # the last write's error, told again
                os.close(descriptor)

    def _open(self) -> int:
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._descriptor = os.open(self._path, flags, 0o640)
            found = os.fstat(self._descriptor)
            # What is no regular file, such as a pipe, can't be renamed, and has no size.
            self._size = float(found.st_size) if stat.S_ISREG(found.st_mode) else -math.inf
            self._torn = self._size > 0 and not self._ends_whole()
        return self._descriptor

    def _ends_whole(self) -> bool:
        with suppress(OSError), self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
        return False
