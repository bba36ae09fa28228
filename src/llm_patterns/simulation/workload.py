"""Who asks, when, and for how much: arrival times, token lengths, and the loops that drive a call
with them.

Arrivals are plain lists of seconds from 0, drawn before the run. Two runs on the same seed
therefore meet the same load whatever the code under test does, and a difference between them is the
code's.

>>> import random
>>> arrivals = poisson(2.0, duration=3600, rng=random.Random(1))
>>> len(arrivals), arrivals == poisson(2.0, duration=3600, rng=random.Random(1))
(7151, True)
>>> TokenLengths.azure("conversation").sample(random.Random(1))
Usage(input_tokens=310, output_tokens=132)

An *open loop* sends at those times whatever happens: the world outside does not wait for your
provider, which is why an outage builds a queue. A *closed loop* is a fixed number of clients who
wait for each answer, so it slows down with the provider and hides overload (Schroeder, Wierman and
Harchol-Balter, "Open Versus Closed: A Cautionary Tale", NSDI 2006). Use the open one unless your
callers really are a fixed pool.

Token lengths and burstiness are calibrated on about an hour of production traffic of each of two
services, one for code and one for conversation: Azure Public Dataset, AzureLLMInferenceDataset2023
(CC-BY 4.0), described in Patel et al., "Splitwise: Efficient Generative LLM Inference Using Phase
Splitting", ISCA 2024. `azure_2023.json` holds what was derived; `tests/benchmarks/derive_azure.py`
derives it.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import json
import math
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llm_patterns.chat import Usage
from llm_patterns.errors import ConfigurationError, LLMPatternsError

__all__ = [
    "TokenLengths",
    "TooManyInFlight",
    "TraceRequest",
    "bursts",
    "closed_loop",
    "diurnal",
    "index_of_dispersion",
    "open_loop",
    "poisson",
    "replay",
]

Quantiles = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=2)]
Grid = Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=2)]

_HOUR: Final = 3600.0
_COLUMNS: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
# Denser towards the upper end, where the few long requests are that fill a provider.
_INPUT_GRID: Final = (0.0, 0.01, *(step / 20 for step in range(1, 20)), 0.99, 1.0)
_OUTPUT_GRID: Final = (0.0, 0.05, *(step / 10 for step in range(1, 10)), 0.95, 0.98, 0.995, 1.0)
_BANDS: Final = 10


class TooManyInFlight(LLMPatternsError):
    """An open loop's calls are piling up: nothing answers, and nothing gives up either."""

    def __init__(self, limit: int, at: float) -> None:
        self.limit = limit
        self.at = at
        super().__init__(
            f"{limit} calls are in flight after {at:g} s; give the call a timeout, "
            "lower the arrival rate, or raise max_in_flight"
        )


class TraceRequest(NamedTuple):
    """One request of a trace: seconds from its first one, and what was read and written."""

    at: float
    usage: Usage


def poisson(rate_per_second: float, *, duration: float, rng: Random) -> list[float]:
    """Return arrivals of many independent callers: gaps are exponential, the past says nothing.

    >>> [round(at, 2) for at in poisson(1.0, duration=3, rng=Random(4))]
    [0.27, 0.38, 0.88, 1.05, 1.12, 1.63]

    The conversation trace is nearly of this kind over seconds: its gaps have a coefficient of
    variation of 1.09.
    """
    _check_positive(rate_per_second=rate_per_second, duration=duration)
    return list(_poisson(rate_per_second, 0.0, duration, rng))


def bursts(
    rate_per_second: float,
    *,
    duration: float,
    rng: Random,
    active_fraction: float = 0.168,
    mean_burst: float = 7.72,
) -> list[float]:
    """Return arrivals that come in bursts with silence between them, *rate_per_second* on average.

    Bursts and silences have exponential lengths (an interrupted Poisson process): within a burst of
    *mean_burst* seconds on average the rate is `rate_per_second / active_fraction`. The defaults
    are the fit to the code trace's index of dispersion over windows of 0.1 s to a minute, which it
    meets within 14% (see `azure_2023.json`): six times the mean rate for eight seconds, then 38
    seconds of nothing.
    """
    _check_positive(rate_per_second=rate_per_second, duration=duration, mean_burst=mean_burst)
    if not 0 < active_fraction < 1:
        raise ConfigurationError(
            f"active_fraction must be above 0 and below 1, not {active_fraction!r}; "
            "for arrivals without silences use poisson(...)"
        )
    mean_silence = mean_burst * (1 - active_fraction) / active_fraction
    arrivals: list[float] = []
    active = rng.random() < active_fraction
    start = 0.0
    while start < duration:
        end = start + rng.expovariate(1 / (mean_burst if active else mean_silence))
        if active:
            arrivals += _poisson(rate_per_second / active_fraction, start, min(end, duration), rng)
        start, active = end, not active
    return arrivals


def diurnal(
    rate_per_second: float,
    *,
    duration: float,
    rng: Random,
    amplitude: float = 0.5,
    peak_hour: float = 14.0,
) -> list[float]:
    """Return arrivals whose rate follows the hour of the day; second 0 is midnight, as where
    simulations begin.

    The rate is `rate_per_second * (1 + amplitude * cos(2 * pi * (hour - peak_hour) / 24))`, drawn
    by thinning (Lewis and Shedler, "Simulation of Nonhomogeneous Poisson Processes by Thinning",
    1979). The default amplitude, a peak of three times the trough, is a judgement: take yours from
    your own traffic.
    """
    _check_positive(rate_per_second=rate_per_second, duration=duration)
    if not 0 <= amplitude <= 1:
        raise ConfigurationError(
            f"amplitude must be from 0 (flat) to 1 (silent at the trough), not {amplitude!r}"
        )
    if not 0 <= peak_hour < 24:
        raise ConfigurationError(f"peak_hour must be from 0 up to 24, not {peak_hour!r}")

    def share_of_peak(at: float) -> float:
        phase = 2 * math.pi * (at / _HOUR - peak_hour) / 24
        return (1 + amplitude * math.cos(phase)) / (1 + amplitude)

    peak = rate_per_second * (1 + amplitude)
    return [at for at in _poisson(peak, 0.0, duration, rng) if rng.random() < share_of_peak(at)]


def replay(source: str | Path | Iterable[str], *, speed: float = 1.0) -> list[TraceRequest]:
    """Return the requests of a trace: a CSV file (also `.gz`), or its lines.

    The columns are the Azure traces': `TIMESTAMP` (ISO 8601, in order), `ContextTokens`,
    `GeneratedTokens`; others are ignored. *speed* 2 plays two hours in one.

    >>> lines = ["TIMESTAMP,ContextTokens,GeneratedTokens",
    ...          "2023-11-16 18:17:03.9799600,4808,10", "2023-11-16 18:17:04.9799600,3180,8"]
    >>> [request.at for request in replay(lines, speed=2)]
    [0.0, 0.5]

    Raises `ConfigurationError`, naming the line, for a missing column, an unreadable value, or time
    running backwards.
    """
    _check_positive(speed=speed)
    with _lines(source) as lines:
        rows = csv.DictReader(lines)
        missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise ConfigurationError(
                f"the trace lacks {', '.join(missing)}; its first line must name "
                f"{', '.join(_COLUMNS)}, and names {', '.join(rows.fieldnames or ()) or 'nothing'}"
            )
        requests = [_timed_usage(row, line) for line, row in enumerate(rows, start=2)]
    if not requests:
        raise ConfigurationError("the trace has no requests below its first line")
    _check_order([time for time, _ in requests])
    start = requests[0][0]
    return [TraceRequest((time - start).total_seconds() / speed, usage) for time, usage in requests]


class TokenLengths(BaseModel):
    """Input and output tokens of a request, drawn together from quantile tables.

    The output's table depends on which tenth of the inputs the request belongs to. A rank
    correlation would not do: in the conversation trace it is only 0.07, yet the median output is 58
    tokens for the longest tenth of the inputs and 407 for those of about 1,100. Between quantiles
    the logarithm is interpolated, since lengths are skewed.

    >>> lengths = TokenLengths.azure("code")
    >>> usages = [lengths.sample(Random(seed)) for seed in range(5)]
    >>> [usage.output_tokens for usage in usages]
    [25, 45, 85, 16, 7]

    Against the trace itself the sampler's Kolmogorov-Smirnov distance is 0.030 for inputs and 0.020
    for outputs (code), 0.032 and 0.014 (conversation), over 100,000 draws, measured by
    `tests/benchmarks/derive_azure.py`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_grid: Grid = Field(description="Probabilities of `input_quantiles`, from 0 to 1.")
    input_quantiles: Quantiles = Field(description="Input tokens at those probabilities.")
    output_grid: Grid = Field(description="Probabilities of each row of `output_quantiles`.")
    output_quantiles: tuple[Quantiles, ...] = Field(
        min_length=1,
        description="Output tokens at those probabilities; a row for each equal share of inputs.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_table("input_quantiles", self.input_grid, self.input_quantiles)
        for row in self.output_quantiles:
            _check_table("output_quantiles", self.output_grid, row)
        return self

    @classmethod
    def azure(cls, service: Literal["code", "conversation"]) -> TokenLengths:
        """Return the lengths of one of the two Azure services."""
        return _azure(service)

    @classmethod
    def from_trace(cls, requests: Sequence[TraceRequest]) -> TokenLengths:
        """Return the lengths of your own traffic, of at least 100 requests."""
        if len(requests) < 100:
            raise ConfigurationError(
                f"a trace of {len(requests)} requests says too little; use at least 100"
            )
        pairs = sorted((_input(request.usage), request.usage.output_tokens) for request in requests)
        cuts = [round(band * len(pairs) / _BANDS) for band in range(_BANDS + 1)]
        return cls(
            input_grid=_INPUT_GRID,
            input_quantiles=_quantiles([length for length, _ in pairs], _INPUT_GRID),
            output_grid=_OUTPUT_GRID,
            output_quantiles=tuple(
                _quantiles([length for _, length in pairs[low:high]], _OUTPUT_GRID)
                for low, high in pairwise(cuts)
            ),
        )

    def sample(self, rng: Random) -> Usage:
        """Return one request's usage, at least a token each way; takes two draws from *rng*."""
        rank = rng.random()
        row = self.output_quantiles[int(rank * len(self.output_quantiles))]
        return Usage(
            input_tokens=_interpolate(self.input_grid, self.input_quantiles, rank),
            output_tokens=_interpolate(self.output_grid, row, rng.random()),
        )


def index_of_dispersion(arrivals: Sequence[float], *, window: float) -> float:
    """Return how bursty sorted *arrivals* are: variance over mean of the counts in windows of
    *window* seconds.

    1 is Poisson; more is burstier, and by which window it grows tells how long the bursts last.
    Measure your own traffic with it before you choose a workload. The last, incomplete window does
    not count.

    >>> index_of_dispersion([0.0, 0.1, 0.2, 2.0], window=1.0)
    1.5
    """
    _check_positive(window=window)
    windows = int((arrivals[-1] - arrivals[0]) / window) if arrivals else 0
    if windows < 2:
        raise ConfigurationError(
            f"{len(arrivals)} arrivals do not span two windows of {window:g} s; shorten it"
        )
    counts = [0] * (windows + 1)
    for at in arrivals:
        counts[min(windows, int((at - arrivals[0]) / window))] += 1
    mean = sum(counts[:-1]) / windows
    return math.fsum((count - mean) ** 2 for count in counts[:-1]) / windows / mean


async def open_loop(
    call: Callable[[int], Awaitable[object]],
    arrivals: Iterable[float],
    *,
    max_in_flight: int = 100_000,
) -> None:
    """Start `call(number)` at each of *arrivals*, seconds from now, and return when all have ended.

    Nothing waits for an earlier call, so only *max_in_flight* bounds how many run at once;
    `TooManyInFlight` is raised at the arrival that would exceed it. An exception that leaves *call*
    ends the run (as an `ExceptionGroup`) and cancels the others: failures that are part of the
    experiment belong to *call*, which also keeps its own record.
    """
    loop = asyncio.get_running_loop()
    start = loop.time()
    in_flight = 0

    async def run(number: int) -> None:
        nonlocal in_flight
        try:
            await call(number)
        finally:
            in_flight -= 1

    async with asyncio.TaskGroup() as group:
        for number, at in enumerate(arrivals):
            await asyncio.sleep(max(0.0, start + at - loop.time()))
            if in_flight >= max_in_flight:
                raise TooManyInFlight(max_in_flight, at)
            in_flight += 1
            group.create_task(run(number))


async def closed_loop(
    call: Callable[[int], Awaitable[object]],
    *,
    clients: int,
    duration: float,
    think_time: float,
    rng: Random,
) -> None:
    """Run *clients* that each think, then await `call(client)`, again and again for *duration*
    seconds.

    Thinking takes exponential time of *think_time* seconds on average, drawn from a source of each
    client's own, so that one client's answers do not change when another one asks. A call in flight
    at the end is awaited.
    """
    _check_positive(clients=clients, duration=duration, think_time=think_time)
    loop = asyncio.get_running_loop()
    end = loop.time() + duration

    async def run(client: int, own: Random) -> None:
        while True:
            pause = own.expovariate(1 / think_time)
            if loop.time() + pause >= end:
                return
            await asyncio.sleep(pause)
            await call(client)

    async with asyncio.TaskGroup() as group:
        for client in range(clients):
            group.create_task(run(client, Random(rng.getrandbits(64))))


def _poisson(rate_per_second: float, start: float, end: float, rng: Random) -> Iterator[float]:
    at = start + rng.expovariate(rate_per_second)
    while at < end:
        yield at
        at += rng.expovariate(rate_per_second)


@contextmanager
def _lines(source: str | Path | Iterable[str]) -> Iterator[Iterable[str]]:
    if not isinstance(source, str | Path):
        yield source
        return
    path = Path(source)
    open_text = gzip.open if path.suffix == ".gz" else open
    with open_text(path, "rt", encoding="utf-8", newline="") as file:
        yield file


def _timed_usage(row: dict[str, str], line: int) -> tuple[datetime, Usage]:
    try:
        time = datetime.fromisoformat(row["TIMESTAMP"])
        read, written = int(row["ContextTokens"]), int(row["GeneratedTokens"])
        return time, Usage(input_tokens=read, output_tokens=written)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"line {line} of the trace cannot be read: {row!r}") from error


def _check_order(times: Sequence[datetime]) -> None:
    for line, (earlier, later) in enumerate(pairwise(times), start=3):
        if later < earlier:
            raise ConfigurationError(
                f"line {line} of the trace is {(earlier - later).total_seconds():g} s before "
                "the line above it; sort the trace by TIMESTAMP"
            )


@cache
def _azure(service: str) -> TokenLengths:
    derived = json.loads(files(__package__).joinpath("azure_2023.json").read_text("utf-8"))
    if service not in derived["services"]:
        raise ConfigurationError(
            f"no service {service!r}; there are {', '.join(derived['services'])}"
        )
    return TokenLengths.model_validate(derived["services"][service]["lengths"])


def _input(usage: Usage) -> int:
    return usage.total_input_tokens


def _quantiles(lengths: Sequence[int], grid: Sequence[float]) -> tuple[float, ...]:
    """Return the quantiles of *lengths*, interpolated (type 7 of Hyndman and Fan, 1996)."""
    ordered = sorted(lengths)
    positions = [probability * (len(ordered) - 1) for probability in grid]
    return tuple(round(_between(ordered, position), 1) for position in positions)


def _between(ordered: Sequence[int], position: float) -> float:
    below = min(int(position), len(ordered) - 2)
    return ordered[below] + (ordered[below + 1] - ordered[below]) * (position - below)


def _interpolate(grid: Sequence[float], quantiles: Sequence[float], probability: float) -> int:
    above = bisect_right(grid, probability)
    low, high = quantiles[above - 1], quantiles[above]
    share = (probability - grid[above - 1]) / (grid[above] - grid[above - 1])
    return max(1, round(low * math.exp(share * math.log(high / low))))


def _check_table(name: str, grid: Sequence[float], quantiles: Sequence[float]) -> None:
    if len(grid) != len(quantiles):
        raise ConfigurationError(
            f"{name} has {len(quantiles)} values for {len(grid)} probabilities"
        )
    if grid[0] != 0 or grid[-1] != 1 or any(low >= high for low, high in pairwise(grid)):
        raise ConfigurationError(f"the probabilities of {name} must rise from 0 to 1, not {grid}")
    if any(low > high for low, high in pairwise(quantiles)):
        raise ConfigurationError(f"{name} must not fall, as in {quantiles}")


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ConfigurationError(f"{name} must be above 0 and finite, not {value!r}")
