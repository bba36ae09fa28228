"""Can spans be written to a disk that is slow, full or gone, and no call ever notice?

`put` only appends to a bounded queue. A thread of its own encodes what waits there and writes it in batches; while the
disk takes nothing the queue fills, and then spans are dropped, counted, and announced in the file itself as soon as it
takes lines again. A write that stops half-way is taken up where it stopped.

Invariants, whatever the disk does:

1. `put` does no I/O, waits for none, and raises nothing.
2. At no time are there more than `max_queue` spans in the sink, the batch being written included.
3. Each span put in is written, dropped or still queued: written + dropped + queued = received.
4. Every line with an end is a span or a count of dropped ones, but for one that a crash or a lost file cut short; after
   such a one the next line begins at its own beginning.
5. No file grows beyond `max_file_size_bytes` unless a single line does, and there are never more than `max_files`.

>>> from io import BytesIO
>>> from llm_patterns.simulation import simulate
>>> stream = BytesIO()
>>> async def main():
...     JsonLinesSink(stream).put(FinishedSpan("retrieve", 1, 2, None, 1767571200.0, 0.25))
>>> simulate(main)
>>> [span.name for span in read_lines([stream.getvalue()]).spans]
['retrieve']

In virtual time there is no thread: what is put is written at once, and a stream that is not ready (it raises
`BlockingIOError`) is tried again after `retry_delay`.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Condition, RLock, Thread
from typing import Final, Literal
from weakref import WeakSet

from pydantic import BaseModel, ConfigDict, Field

from llm_patterns import clock
from llm_patterns.clock import World
from llm_patterns.toolkit.log_files import BinaryStream, log_file
from llm_patterns.toolkit.spans import FinishedSpan, line_of, read_lines

__all__ = ["JsonLinesPolicy", "JsonLinesSink", "SinkStatistics", "read_lines"]


class JsonLinesPolicy(BaseModel):
    """How much may wait for the disk, and how much may lie on it.

    >>> JsonLinesPolicy(max_queue=256).overflow
    'oldest'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_queue: int = Field(
        default=2_048,
        ge=1,
        le=1_000_000,
        description="Spans that may wait for the disk: about a megabyte. A stalled disk fills any queue; a longer "
        "one only begins to drop later.",
    )
    overflow: Literal["oldest", "newest"] = Field(
        default="oldest",
        description="Which span a full queue drops. A request's outermost span comes last, so `oldest` loses "
        "details before it loses requests.",
    )
    flush_interval: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="Seconds that a span may wait for company: what a crash can lose.",
    )
    max_batch: int = Field(
        default=64,
        ge=1,
        le=4_096,
        description="Spans encoded for one write. Encoding holds the interpreter's lock, so a large batch delays the "
        "event loop: 64 take it for about half a millisecond.",
    )
    retry_delay: float = Field(
        default=0.1,
        gt=0,
        le=60,
        description="Seconds until a disk that took nothing is tried again.",
    )
    max_file_size_bytes: int = Field(
        default=100_000_000,
        ge=1_000,
        description="A file that would grow beyond this is renamed, and a new one begun.",
    )
    max_files: int = Field(
        default=5, ge=1, le=1_000, description="Files kept, the current one included."
    )
    exit_timeout: float = Field(
        default=2.0,
        ge=0,
        le=60,
        description="Seconds that the program's end may wait for the disk.",
    )


@dataclass(frozen=True, slots=True)
class SinkStatistics:
    """What became of the spans put in: `received` is the sum of the next three.

    `errors` counts the writes that failed; `last_error` says how the last of them did.
    """

    received: int
    written: int
    dropped: int
    queued: int
    errors: int
    last_error: str | None


class JsonLinesSink:
    """Writes each span as one line of JSON to *target*: a path, or a binary stream such as `sys.stdout.buffer`.

    A path belongs to one process. The writer opens it, since even that may block. Read it with `read_lines`.
    """

    def __init__(
        self, target: str | os.PathLike[str] | BinaryStream, policy: JsonLinesPolicy | None = None
    ) -> None:
        self.policy = policy or JsonLinesPolicy()
        self._file = log_file(
            target,
            max_file_size_bytes=self.policy.max_file_size_bytes,
            max_files=self.policy.max_files,
        )
        self._reset()
        _SINKS.add(self)
        atexit.register(self._at_exit)

    def put(self, span: FinishedSpan) -> None:
        """Queue *span*; where the queue is full, drop one."""
        with self._changed:
            self._received += 1
            self._waiting.append(span)
            self._trim()
            if self._thread is not None:
                if len(self._waiting) >= self.policy.max_batch:
                    self._changed.notify_all()
                return
        self._start()

    def flush(self, timeout: float) -> bool:
        """Return whether all that was put before is written or dropped, waiting at most *timeout* seconds for it.

        This blocks its thread; in a coroutine, `await asyncio.to_thread(sink.flush, timeout)`.
        """
        with self._changed:
            goal = self._received

            def settled() -> bool:
                return self._written + self._dropped >= goal and self._announced == self._dropped

            if self._thread is None:
                self._pump()
                return settled()
            self._flushing += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(settled, timeout)
            finally:
                self._flushing -= 1

    def close(self, timeout: float) -> bool:
        """Write what waits for at most *timeout* seconds, take no more, and return whether all of it is out.

        A writer that hangs in the disk is left behind: it does not keep the program from its end.
        """
        atexit.unregister(self._at_exit)
        done = self.flush(timeout)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._thread is None:
                self._file.close()
        return done

    def statistics(self) -> SinkStatistics:
        """Return the counts of this moment."""
        with self._changed:
            queued = len(self._waiting) + self._in_flight
            counts = (self._received, self._written, self._dropped, queued)
            return SinkStatistics(*counts, errors=self._errors, last_error=self._last_error)

    def _reset(self) -> None:
        # Reentrant, since the garbage collector may end an abandoned span in the middle of a put.
        self._changed = Condition(RLock())
        self._waiting: deque[FinishedSpan] = deque()
        self._received = self._written = self._dropped = 0
        self._errors = 0
        self._last_error: str | None = None
        # The batch being written: its spans, those that have no JSON, and the loss that it announces.
        self._in_flight = self._unencodable = self._announcing = 0
        self._announced = 0
        self._lines: deque[bytes] = deque()
        self._block, self._offset = b"", 0
        self._flushing = 0
        self._closed = False
        self._thread: Thread | None = None
        self._retries_in: asyncio.AbstractEventLoop | None = None

    def _trim(self) -> None:
        room = 0 if self._closed else max(0, self.policy.max_queue - self._in_flight)
        while len(self._waiting) > room:
            if self.policy.overflow == "oldest":
                self._waiting.popleft()
            else:
                self._waiting.pop()
            self._dropped += 1

    def _start(self) -> None:
        """Start the writer, at the first span; where there is none to be had, write here and now."""
        if isinstance(asyncio._get_running_loop(), World):
            self._pump()
            return
        with self._changed:
            if self._thread is not None or self._closed:
                return
            self._thread = Thread(target=self._run, name="trace writer", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # Python in a browser has no threads
            self._thread = None
            self._pump()

    def _run(self) -> None:
        closed = False
        while not closed:
            with self._changed:
                self._changed.wait_for(self._due, self.policy.flush_interval)
                closed = self._closed
            delay = self._write()
            with self._changed:
                self._changed.notify_all()
                if delay is not None:
                    self._changed.wait_for(lambda: self._closed, delay)
        self._file.close()

    def _due(self) -> bool:
        return self._closed or self._flushing > 0 or len(self._waiting) >= self.policy.max_batch

    def _pump(self) -> None:
        loop = asyncio._get_running_loop()
        if self._closed or (loop is not None and self._retries_in is loop):
            return
        delay = self._write()
        if delay is not None and loop is not None:
            self._retries_in = loop
            loop.call_later(delay, self._retry)

    def _retry(self) -> None:
        self._retries_in = None
        self._pump()

    def _write(self) -> float | None:
        """Write all there is; return None, or the seconds to wait where the disk took no more."""
        try:
            while self._block or self._load():
                self._offset += self._file.write(self._block[self._offset :])
                if self._offset == len(self._block):
                    self._block, self._offset = b"", 0
                    self._settle()
        except BlockingIOError:
            return self.policy.retry_delay
        except (
            Exception
        ) as error:  # ValueError from a stream that was closed; anything from a stream of one's own
            self._errors += 1
            self._last_error = f"{type(error).__name__}: {error}"
            if self._file.reopens_after(error):
                # A line that was cut short stays behind in the old file, and is written again as a whole.
                self._offset = self._block.rfind(b"\n", 0, self._offset) + 1
            return self.policy.retry_delay
        return None

    def _load(self) -> bool:
        """Make the next block of whole lines that fit into the file; return False if there are none."""
        while not self._lines:
            if not self._take():
                return False
        if not self._file.fits(len(self._lines[0])):
            self._file.rotate()
        block = [self._lines.popleft()]
        size = len(block[0])
        while self._lines and self._file.fits(size + len(self._lines[0])):
            block.append(self._lines.popleft())
            size += len(block[-1])
        self._block = b"".join(block)
        return True

    def _take(self) -> bool:
        """Encode a batch of what waits, with a line before it on what was dropped since the last."""
        with self._changed:
            count = min(self.policy.max_batch, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            self._in_flight = count
            self._announcing = self._dropped - self._announced
        if self._announcing:
            self._lines.append(_loss(self._announcing))
        for span in batch:
            try:
                self._lines.append(line_of(span))
            except Exception:  # a value that has no JSON costs its span, never the writer
                self._unencodable += 1
        if not self._lines:
            self._settle()
        return bool(batch) or bool(self._lines)

    def _settle(self) -> None:
        """Count the batch, once the last of it is out."""
        with self._changed:
            if not self._lines:
                self._written += self._in_flight - self._unencodable
                self._dropped += self._unencodable
                self._announced += self._announcing
                self._in_flight = self._unencodable = self._announcing = 0

    def _at_exit(self) -> None:
        self.close(self.policy.exit_timeout)


def _loss(count: int) -> bytes:
    moment = datetime.fromtimestamp(clock.now(), UTC).isoformat(timespec="microseconds")
    return json.dumps({"dropped": count, "time": moment}, separators=(",", ":")).encode() + b"\n"


_SINKS: Final[WeakSet[JsonLinesSink]] = WeakSet()


def _after_fork() -> None:
    """Begin anew in a forked worker: its parent has the spans, and the thread that writes them."""
    for sink in list(_SINKS):
        sink._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
