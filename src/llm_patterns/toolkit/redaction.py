"""May this text be stored, and what if the code that cleans it fails, or never comes back?

Every text goes through a hook before it is stored: a function from text to text. It runs in a thread of its own, since
a pattern that backtracks without end would stop the event loop; after `timeout` nobody waits for it any longer.

Invariants:

1. The outcome is what the hook returned for every text, or a reason and nothing of the texts: not one of them raw.
2. The outcome is told exactly once, and telling it never raises into the caller that began.
3. At most `max_pending` outcomes are waited for; beyond that the outcome is a reason, at once.

>>> clean({"role": "user", "parts": [{"type": "text", "content": "call 555-0199"}]},
...       lambda text: text.replace("555-0199", "[phone]"), max_chars=100)
{'role': 'user', 'parts': [{'type': 'text', 'content': 'call [phone]'}]}

In virtual time the hook runs at once, and takes no time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, ParamSpec, TypeVar

from pydantic import JsonValue

__all__ = ["Cleaned", "Redact", "Redactor", "clean", "shortened"]

P = ParamSpec("P")
T = TypeVar("T")

Redact = Callable[[str], str]
"""Takes a text and returns what may be stored of it. It is called from a thread of its own."""

Content = Mapping[str, JsonValue]
Cleaned = Content | str
"""The texts as they may be stored, or why there are none: an error's class, `timeout`, `busy`."""

_LABELS: Final = {
    "role": frozenset({"assistant", "developer", "system", "tool", "user"}),
    "type": frozenset({"text", "tool_call", "tool_call_response"}),
}
"""Words of the conventions, which no hook has to see."""


def clean(value: JsonValue, redact: Redact, *, max_chars: int) -> JsonValue:
    """Return *value* with each text in it as *redact* returns it, and *max_chars* of them in all.

    The hook sees every text before it is cut: what it looks for must not be cut in two. Names, roles and numbers are no
    texts.

    Raises:
        TypeError: if the hook returned something else than text; and whatever the hook raises.
    """
    left = max_chars

    def cleaned(value: JsonValue) -> JsonValue:
        nonlocal left
        if isinstance(value, str):
            text = redact(value)
            if not isinstance(text, str):
                raise TypeError(f"the hook returned {type(text).__name__}, not text")
            text = text[:left]
            left -= len(text)
            return text
        if isinstance(value, list):
            return [cleaned(each) for each in value]
        if isinstance(value, dict):
            return {
                name: each if _is_label(name, each) else cleaned(each)
                for name, each in value.items()
            }
        return value

    return cleaned(value)


def shortened(value: JsonValue, *, max_chars: int) -> JsonValue:
    """Return a copy of *value* with the first *max_chars* of its texts, for what has to wait for the hook.

    >>> shortened({"a": ["abc", "def"], "b": 1}, max_chars=4)
    {'a': ['abc', 'd'], 'b': 1}
    """
    left = max_chars

    def cut(value: JsonValue) -> JsonValue:
        nonlocal left
        if isinstance(value, str):
            left -= len(text := value[:left])
            return text
        if isinstance(value, list):
            return [cut(each) for each in value]
        if isinstance(value, dict):
            return {
                name: each if _is_label(name, each) else cut(each) for name, each in value.items()
            }
        return value

    return cut(value)


class Redactor:
    """Applies a hook where it can hurt nobody.

    *timeout* is in seconds; *max_pending* bounds the outcomes that are waited for, those of a hook that never comes
    back included.
    """

    def __init__(self, redact: Redact, *, timeout: float, max_pending: int, max_chars: int) -> None:
        self._redact = redact
        self._timeout = timeout
        self._max_pending = max_pending
        self._max_chars = max_chars
        self._executor = _DaemonThread()
        self._running = 0
        self._untold: set[asyncio.Future[None]] = set()

    def start(self, content: Content, tell: Callable[[Cleaned], None]) -> None:
        """Clean *content* and *tell* the outcome: now if there is no loop to hold up, else when it is there."""
        loop = asyncio._get_running_loop()
        if loop is None:
            tell(self._clean(content))
        elif self._running >= self._max_pending:
            tell("busy")
        else:
            self._submit(content, tell, loop)

    async def flush(self, *, limit: float) -> bool:
        """Return whether all outcomes are told, waiting at most *limit* seconds for them."""
        if self._untold:
            await asyncio.wait(self._untold, timeout=limit)
        return not self._untold

    def _submit(
        self,
        content: Content,
        tell: Callable[[Cleaned], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        try:
            future = loop.run_in_executor(self._executor, self._clean, content)
        except RuntimeError as error:  # no thread is to be had
            tell(type(error).__name__)
        else:
            if future.done():  # in virtual time
                tell(future.result())
            else:
                self._wait(future, tell, loop)

    def _wait(
        self,
        future: asyncio.Future[Cleaned],
        tell: Callable[[Cleaned], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        untold = loop.create_future()

        def told(outcome: Cleaned) -> None:
            if not untold.done():
                untold.set_result(None)
                self._untold.discard(untold)
                tell(outcome)

        def done(future: asyncio.Future[Cleaned]) -> None:
            self._running -= 1
            timer.cancel()
            told("cancelled" if future.cancelled() or future.exception() else future.result())

        self._running += 1
        self._untold.add(untold)
        timer = loop.call_later(self._timeout, told, "timeout")
        future.add_done_callback(done)

    def _clean(self, content: Content) -> Cleaned:
        try:
            return {
                name: clean(value, self._redact, max_chars=self._max_chars)
                for name, value in content.items()
            }
        except Exception as error:  # its message may quote the text
            return type(error).__name__


class _DaemonThread(Executor):
    """One thread, which a hook that never comes back may keep: the program ends without it."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._thread: Thread | None = None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        self._jobs.put((future, partial(fn, *args, **kwargs)))
        if self._thread is None or not self._thread.is_alive():  # as after a fork
            self._thread = Thread(target=self._run, name="redaction", daemon=True)
            self._thread.start()
        return future

    def _run(self) -> None:
        while True:
            future, job = self._jobs.get()
            try:
                future.set_result(job())
            except BaseException as error:
                future.set_exception(error)


def _is_label(name: str, value: JsonValue) -> bool:
    return isinstance(value, str) and value in _LABELS.get(name, ())
