"""How much time has this request left, whichever step, task or service is asking?

The edge sets one deadline. A context variable carries it, in the event loop's time, to every step and task below;
between services it travels as the time that is *left*, since two machines' clocks do not agree.

Invariants:

1. A deadline set within another never ends later, and leaving it brings the outer one back.
2. A deadline belongs to its event loop: to another loop, such as the next simulation, it does not exist.
3. What is sent is never more than what is left, and what is received is never more than the receiver's own limit.
4. `hard_deadline` raises `DeadlineExceeded` for its own deadline only: any other time-out, and any cancellation, passes
   as it came.

>>> import asyncio
>>> async def handle(headers):
...     async with hard_deadline(time_allowed(headers, limit=30)):
...         with deadline(60):
...             return deadline_headers(allowance=0.5)
>>> from llm_patterns.simulation import simulate
>>> simulate(handle({"grpc-timeout": "2S"}))
{'grpc-timeout': '1500m'}

The header is gRPC's (protocol over HTTP/2): its grammar is specified, has a bound, and carries its unit. Envoy's
`x-envoy-expected-rq-timeout-ms` means the same, but Envoy sets it anew at each hop, so it would not arrive.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar, Token
from typing import Final

from llm_patterns.errors import ConfigurationError, ErrorKind, LLMPatternsError

__all__ = [
    "DeadlineExceeded",
    "deadline",
    "deadline_at",
    "deadline_headers",
    "hard_deadline",
    "require_time",
    "time_allowed",
    "time_left",
]

HEADER: Final = "grpc-timeout"

_AMBIENT: ContextVar[tuple[asyncio.AbstractEventLoop, float] | None] = ContextVar(
    "llm_patterns_deadline", default=None
)
_TIMEOUT: Final = re.compile(r"(-?)(\d{1,8})([HMSmun])", re.ASCII)
_PER_SECOND: Final = {"H": 1 / 3600, "M": 1 / 60, "S": 1.0, "m": 1e3, "u": 1e6, "n": 1e9}
_LONGEST_MS: Final = 99_999_999  # eight digits, which is 27 hours


class DeadlineExceeded(LLMPatternsError, TimeoutError):
    """The time is up: the work was cut off (a time-out), or never begun since too little was left (a refusal).

    `left` is the seconds that were left, `needed` those that it would have taken, or None for work that was cut off.
    """

    kind = ErrorKind.TIMEOUT

    def __init__(self, left: float = 0.0, *, needed: float | None = None) -> None:
        self.left = left
        self.needed = needed
        if needed is None:
            super().__init__("cut off at the deadline")
        else:
            self.kind = ErrorKind.REFUSED
            super().__init__(
                f"not begun: {left:.3f} s left before the deadline, more than {needed:.3f} s needed"
            )


def deadline_at() -> float | None:
    """Return the loop time at which the time is up, or None if there is no deadline.

    A thread that was given the context (`asyncio.to_thread`) sees the deadline of the loop that started it.
    """
    ambient = _ambient()
    return None if ambient is None else ambient[1]


def time_left() -> float | None:
    """Return the seconds until the deadline, 0 once it is over, or None if there is none."""
    ambient = _ambient()
    return None if ambient is None else max(0.0, ambient[1] - ambient[0].time())


def require_time(seconds: float = 0.0) -> None:
    """Raise `DeadlineExceeded` unless more than *seconds* are left: ask before work that nobody may wait for."""
    left = time_left()
    if left is not None and left <= seconds:
        raise DeadlineExceeded(left, needed=seconds)


class _Scope:
    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not math.isfinite(seconds):
            raise ConfigurationError(
                f"a deadline in {seconds} s can't be; give finite seconds, or None to keep the deadline there is"
            )
        self._seconds = seconds
        self._token: Token[tuple[asyncio.AbstractEventLoop, float] | None] | None = None

    def __enter__(self) -> None:
        if self._seconds is None:
            return
        loop = asyncio.get_running_loop()
        at, outer = loop.time() + self._seconds, deadline_at()
        self._token = _AMBIENT.set((loop, at if outer is None else min(at, outer)))

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            # An abandoned generator is closed in another context, which this deadline never reached.
            with suppress(ValueError):
                _AMBIENT.reset(self._token)
            self._token = None


def deadline(seconds: float | None) -> _Scope:
    """Set the deadline of a `with` block, and of each task begun in it, to *seconds* from now or the one there is.

    It tells, and stops nothing: use `hard_deadline` at the edge. *seconds* of 0 or less are over at once, None keeps
    what there is. Do not yield within it: a generator's context is its caller's.
    """
    return _Scope(seconds)


@asynccontextmanager
async def hard_deadline(seconds: float | None = None) -> AsyncIterator[None]:
    """Set the deadline of an `async with` block as `deadline` does, and cut off what runs past it.

    None cuts off at the deadline there is. Raises `DeadlineExceeded` when it did.
    """
    with deadline(seconds):
        cut = asyncio.timeout_at(deadline_at())
        try:
            async with cut:
                yield
        except TimeoutError as error:
            if not cut.expired():
                raise
            raise DeadlineExceeded from error


def deadline_headers(*, allowance: float = 0.05) -> dict[str, str]:
    """Return the header that tells the next service how long it has, or none if there is no deadline.

    *allowance* is the seconds that the network takes there and back: the answer must be here in time, not leave there
    in time. Raises `DeadlineExceeded` if less than a millisecond would be left: such a call is not worth sending.
    """
    left = time_left()
    if left is None:
        return {}
    require_time(allowance + 1e-3)
    return {HEADER: f"{min(int((left - allowance) * 1000), _LONGEST_MS)}m"}


def time_allowed(headers: Mapping[str, str], *, limit: float) -> float:
    """Return the seconds that a received request may take: what its *headers* allow, and never more than *limit*.

    A value that is zero or negative is a deadline that is over. One that can't be read is none: the limit holds.

    >>> [time_allowed({"Grpc-Timeout": value}, limit=30) for value in ("250m", "99999999H", "-1S", "soon")]
    [0.25, 30, 0.0, 30]
    """
    value = next((value for name, value in headers.items() if name.lower() == HEADER), "")
    read = _TIMEOUT.fullmatch(value.strip())
    if read is None:
        return limit
    sign, digits, unit = read.groups()
    return 0.0 if sign else min(limit, int(digits) / _PER_SECOND[unit])


def _ambient() -> tuple[asyncio.AbstractEventLoop, float] | None:
    ambient = _AMBIENT.get()
    if ambient is None:
        return None
    running = asyncio._get_running_loop()
    here = ambient[0].is_running() if running is None else running is ambient[0]
    return ambient if here else None
