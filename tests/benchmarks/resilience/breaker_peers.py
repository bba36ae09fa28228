"""The circuit breakers that a team would otherwise take, each with the settings it ships with.

Only the open time is set, to the same for all. fluxgate takes part twice: as it comes, and with the settings of its own
example, since by default it wants a hundred calls before it decides anything. pybreaker has nothing for asyncio, so it
takes part in the overhead alone.

All read the machine's clocks; `virtual_clock` shows them the loop's instead.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, tzinfo
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import aiobreaker
import circuitbreaker
import fluxgate
import purgatory
from fluxgate.retries import Cooldown
from fluxgate.trippers import FailureRate, MinRequests, SlowRate
from fluxgate.windows import CountWindow
from hyx.circuitbreaker import consecutive_breaker

OPEN_TIME = 30.0

Layer = Callable[[Callable[..., Any]], Callable[..., Any]]


def with_aiobreaker() -> Layer:
    """Five failures in a row."""
    return aiobreaker.CircuitBreaker(timeout_duration=timedelta(seconds=OPEN_TIME))


def with_purgatory() -> Layer:
    """Five failures in a row."""
    layer: Layer = purgatory.AsyncCircuitBreakerFactory(default_ttl=OPEN_TIME)("provider")
    return layer


def with_hyx() -> Layer:
    """Five failures in a row, three successes to close."""
    return consecutive_breaker(recovery_time_secs=OPEN_TIME)


def with_circuitbreaker() -> Layer:
    """Five failures in a row."""
    layer: Layer = circuitbreaker.CircuitBreaker(recovery_timeout=OPEN_TIME)
    return layer


def with_fluxgate() -> Layer:
    """Half of the last hundred calls, a hundred at least, and a ramp of a minute while half open."""
    layer: Layer = fluxgate.AsyncCircuitBreaker(retry=Cooldown(OPEN_TIME))
    return layer


def with_fluxgate_tuned() -> Layer:
    """Half of the last hundred calls, ten at least, or three tenths of them slow: its docstring's example."""
    layer: Layer = fluxgate.AsyncCircuitBreaker(
        window=CountWindow(100),
        tripper=MinRequests(10) & (FailureRate(0.5) | SlowRate(0.3, threshold=10.0)),
        retry=Cooldown(OPEN_TIME),
    )
    return layer


PEERS: dict[str, Callable[[], Layer]] = {
    "aiobreaker": with_aiobreaker,
    "purgatory": with_purgatory,
    "hyx": with_hyx,
    "circuitbreaker": with_circuitbreaker,
    "fluxgate": with_fluxgate,
    "fluxgate, tuned": with_fluxgate_tuned,
}


class _LoopDatetime(datetime):
    """A `datetime` whose present is the loop's time after a fixed day."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "_LoopDatetime":
        return cls(2026, 1, 1, tzinfo=tz) + timedelta(seconds=_loop_time())

    @classmethod
    def utcnow(cls) -> "_LoopDatetime":
        return cls.now()


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


@contextmanager
def virtual_clock() -> Iterator[None]:
    """Let the peers see virtual time, each in the module where it reads a clock."""
    seconds = SimpleNamespace(time=_loop_time, monotonic=_loop_time, perf_counter=_loop_time)
    clocks: dict[str, Any] = {
        "aiobreaker.circuitbreaker.datetime": _LoopDatetime,
        "aiobreaker.state.datetime": _LoopDatetime,
        "purgatory.domain.model.time": seconds,
        "hyx.circuitbreaker.states.datetime": _LoopDatetime,
        "circuitbreaker.monotonic": _loop_time,
        "fluxgate.circuitbreaker.time": seconds,
        "fluxgate.permits.time": _loop_time,
        "fluxgate.retries.time": seconds,
    }
    with ExitStack() as stack:
        for place, clock in clocks.items():
            stack.enter_context(patch(place, clock))
        yield
