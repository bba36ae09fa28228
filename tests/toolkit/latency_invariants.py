"""The invariants of deadlines, distributions, stopwatches and timed streams, as checks on random input.

Each is a function of the module under test, so that it can be shown to fail on a copy with a bug in it.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import reduce
from math import floor, inf
from operator import add
from random import Random
from typing import Any

import pytest
from hypothesis import strategies as st

from llm_patterns import deadlines
from llm_patterns.errors import ServerError
from llm_patterns.simulation import simulate
from llm_patterns.toolkit import distributions, stopwatches

EPSILON = 1e-9

# --- deadlines ----------------------------------------------------------------------------------

SECONDS = st.none() | st.floats(-5, 200_000)
NESTED = st.lists(SECONDS, min_size=1, max_size=5)
RACE = st.tuples(*(st.integers(1, 9) for _ in range(4)), st.integers(0, 12))
JOURNEY = st.tuples(
    st.floats(0.001, 0.1) | st.floats(0.1, 1e6), st.integers(1, 6), st.integers(0, 99)
)


def nested_deadlines(nested: list[float | None], module: Any = deadlines) -> None:
    """The earliest of those set so far holds, and leaving each brings the one around it back."""

    async def enter(rest: list[float | None]) -> None:
        before = module.deadline_at()
        if rest:
            with module.deadline(rest[0]):
                known = [each for each in (before, rest[0]) if each is not None]
                assert module.deadline_at() == min(known, default=None)
                await enter(rest[1:])
        assert module.deadline_at() == before

    simulate(lambda: enter(nested))


def raced_deadlines(race: tuple[int, ...], module: Any = deadlines) -> None:
    """Of two deadlines, a time-out, a cancellation and the work itself, the first to come ends it, as itself."""
    outer, inner, own, takes, cancelled = race

    async def work() -> str:
        try:
            async with module.hard_deadline(outer):
                try:
                    async with module.hard_deadline(inner):
                        async with asyncio.timeout(own):
                            await asyncio.sleep(takes)
                except module.DeadlineExceeded:
                    return "inner"
        except module.DeadlineExceeded:
            return "outer"
        except TimeoutError:
            return "own"
        return "work"

    async def main() -> tuple[str, float]:
        task = asyncio.create_task(work())
        asyncio.get_running_loop().call_later(cancelled or 99, task.cancel)
        try:
            how = await task
        except asyncio.CancelledError:
            how = "cancelled"
        return how, asyncio.get_running_loop().time()

    how, at = simulate(main)
    times = {"outer": outer, "inner": inner, "own": own, "work": takes}
    times["cancelled"] = cancelled or 99
    assert times[how] == at == min(times.values())
    assert how != "inner" or inner < outer


def sent_deadlines(journey: tuple[float, int, int], module: Any = deadlines) -> None:
    """No service has more than its caller had left; and only allowances and milliseconds are lost on the way."""
    left, hops, seed = journey
    rng = Random(seed)

    async def main() -> None:
        seconds, lost = left, 0.0
        for _ in range(hops):
            allowance = rng.choice([0, 0.01])
            with module.deadline(seconds):
                try:
                    headers = module.deadline_headers(allowance=allowance)
                except module.DeadlineExceeded:
                    assert seconds <= allowance + 1e-3 + EPSILON
                    return
            received = module.time_allowed(headers, limit=1e9)
            assert 0 < received <= seconds - allowance + EPSILON
            lost += allowance + 1e-3 + EPSILON
            seconds = received
        assert seconds >= min(left, 99_999.999) - lost

    simulate(main)


def received_deadlines(value: str, module: Any = deadlines) -> None:
    """Nothing that a caller sends raises, or buys more time than the limit."""
    allowed = module.time_allowed({"grpc-timeout": value}, limit=30)
    assert 0 <= allowed <= 30
    assert allowed == 0 or not re.fullmatch("-[0-9]{1,8}[HMSmun]", value)


# --- distributions ------------------------------------------------------------------------------

VALUES = st.lists(st.floats(0, 1e5) | st.sampled_from([0.0, 1.0, 1e-12]), max_size=200)
ERRORS = st.sampled_from([0.001, 0.01, 0.1])
PARTS = st.lists(VALUES, min_size=1, max_size=5)
TIMES = st.lists(
    st.tuples(st.integers(0, 240).map(lambda eighths: eighths / 8), st.integers(1, 1000)),
    max_size=60,
)


def quantiles(values: list[float], error: float, module: Any = distributions) -> None:
    """Within the error of the exact value of that rank, and never above the greatest."""
    seen = module.Distribution(relative_error=error, max_bins=100_000)
    for value in values:
        seen.record(value)
    ordered = sorted(values)
    for q in (0, 0.1, 0.5, 0.9, 0.99, 1):
        if not ordered:
            assert seen.quantile(q) is None
            continue
        exact = ordered[floor(q * (len(ordered) - 1))]
        assert abs(seen.quantile(q) - exact) <= error * exact + EPSILON
        assert seen.quantile(q) <= ordered[-1]


def bounded_bins(values: list[float], max_bins: int, module: Any = distributions) -> None:
    """Never more bins than the bound, and what falls out of them is counted all the same; the top keeps its error."""
    seen = module.Distribution(relative_error=0.01, max_bins=max_bins)
    for value in values:
        seen.record(value)
        assert len(seen.bins()) <= max_bins + 1  # one for zero, which has no logarithm
        assert len(seen._sketch._store.bins) <= max_bins
    assert seen.count == sum(count for _, count in seen.bins()) == len(values)
    if values:
        assert seen.quantile(1) == pytest.approx(max(values), rel=0.01)


def sums(parts: list[list[float]], module: Any = distributions) -> None:
    """Parts add up to what one would have seen of all their values, sent through `bins` or not."""
    some = [_distribution(values, module) for values in parts]
    whole = _distribution([value for values in parts for value in values], module)
    added = reduce(add, some)
    received = module.Distribution.of(added.bins())
    assert added.bins() == whole.bins() == received.bins()
    assert (added.count, added.max) == (whole.count, whole.max)
    assert added.mean == (whole.mean if whole.mean is None else pytest.approx(whole.mean))
    assert [part.count for part in some] == [*map(len, parts)], "adding changed a part"


def _distribution(values: list[float], module: Any) -> Any:
    made = module.Distribution()
    for value in values:
        made.record(value)
    return made


def windows(times: list[tuple[float, int]], slices: int, module: Any = distributions) -> None:
    """At each moment exactly the slices that began less than a window ago; and all values ever in the total."""
    window, width = 8.0, 8.0 / slices
    seen = module.WindowedDistribution(window=window, slices=slices)
    recorded: list[tuple[float, int]] = []
    for now, value in sorted(times):
        seen.record(value, now)
        recorded.append((now, value))
        for later in (now, now + window / 4):
            inside = [each for at, each in recorded if later - at // width * width < window]
            recent = seen.recent(later)
            assert (recent.count, recent.max) == (len(inside), max(inside, default=None))
    values = [value for _, value in recorded]
    assert (seen.total().count, seen.total().max) == (len(values), max(values, default=None))


# --- stopwatches and streams --------------------------------------------------------------------

ENDINGS = {"ends": "completed", "breaks": "failed", "stalls": "cancelled", "is left": "cancelled"}
STREAMS = st.tuples(st.lists(st.integers(1, 5), max_size=6), st.sampled_from([*ENDINGS]))


def timed_streams(stream: tuple[list[int], str], module: Any = stopwatches) -> None:
    """The chunks pass as they came, and the end is counted once, as what it was."""
    waits, ending = stream
    seen: list[tuple[str, float]] = []

    def record(seconds: float, timing: Any) -> None:
        seen.append((timing.value, seconds))

    async def main() -> None:
        timed = module.TimedStream(_chunks(waits, ending), module.Stopwatch(record).start(), record)
        task = asyncio.create_task(_read(timed, len(waits) if ending == "is left" else inf))
        asyncio.get_running_loop().call_later(100, task.cancel)
        with suppress(ServerError, asyncio.CancelledError):
            assert await task == list(range(len(waits)))
            assert ending in ("ends", "is left")
        await timed.aclose()
        await timed.aclose()
        assert [each async for each in timed] == []

    simulate(main)
    ends: list[tuple[str, float]] = []
    parts: list[tuple[str, float]] = []
    for timing, seconds in seen:
        (parts if timing.startswith("time_") else ends).append((timing, seconds))
    took = 100 if ending == "stalls" else sum(waits)
    assert ends == [(ENDINGS[ending], took)]
    first = [("time_to_first_token", waits[0])] if waits else []
    each = sum(waits[1:]) / max(1, len(waits) - 1)
    whole = ending == "ends" and len(waits) > 1
    assert parts == [*first, *([("time_per_token", pytest.approx(each))] if whole else [])]


async def _chunks(waits: list[int], ending: str) -> AsyncIterator[int]:
    for number, wait in enumerate(waits):
        await asyncio.sleep(wait)
        yield number
    if ending == "breaks":
        raise ServerError("broke")
    if ending != "ends":
        await asyncio.sleep(1_000)


async def _read(timed: Any, most: float) -> list[int]:
    received: list[int] = []
    while len(received) < most:
        try:
            received.append(await anext(timed))
        except StopAsyncIteration:
            break
    return received
