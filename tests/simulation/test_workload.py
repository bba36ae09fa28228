"""Workloads: arrivals and lengths are those of the traces, and the loops send when they should."""

import asyncio
import gzip
import inspect
import json
import math
from importlib.resources import files
from pathlib import Path
from random import Random
from statistics import fmean, median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llm_patterns.chat import Usage
from llm_patterns.errors import ConfigurationError
from llm_patterns.simulation import workload
from llm_patterns.simulation.loop import simulate
from llm_patterns.simulation.workload import (
    TokenLengths,
    TooManyInFlight,
    TraceRequest,
    bursts,
    closed_loop,
    diurnal,
    index_of_dispersion,
    open_loop,
    poisson,
    replay,
)

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
TRACE = [
    HEADER,
    "2023-11-16 18:17:03.9799600,4808,10",
    "2023-11-16 18:17:04.0319600,3180,8",
    "2023-11-16 18:17:07.9799600,110,27",
]
SERVICES: dict[str, Any] = json.loads(
    files("llm_patterns.simulation").joinpath("azure_2023.json").read_text("utf-8")
)["services"]


def rank_correlation(pairs: list[tuple[int, int]]) -> float:
    """Spearman's, with ties broken by order: near enough over thousands of pairs."""
    ranks = [
        {
            index: rank
            for rank, index in enumerate(sorted(range(len(pairs)), key=lambda i: pairs[i][side]))
        }
        for side in (0, 1)
    ]
    middle = (len(pairs) - 1) / 2
    products = ((ranks[0][i] - middle) * (ranks[1][i] - middle) for i in range(len(pairs)))
    return math.fsum(products) * 12 / len(pairs) ** 3


@given(seed=st.integers(), rate=st.floats(0.01, 50), duration=st.floats(0.1, 100))
def test_arrivals_are_in_order_and_within_the_duration(
    seed: int, rate: float, duration: float
) -> None:
    """Every generator yields rising times from 0 up to the duration."""
    for arrivals in (
        poisson(rate, duration=duration, rng=Random(seed)),
        bursts(rate, duration=duration, rng=Random(seed)),
        diurnal(rate, duration=duration, rng=Random(seed)),
    ):
        assert arrivals == sorted(arrivals)
        assert all(0 <= at < duration for at in arrivals)


@pytest.mark.parametrize("generate", [poisson, bursts, diurnal])
def test_arrivals_have_the_mean_rate_that_was_asked_for(generate: Any) -> None:
    """Over ten whole days the mean rate is within 3%."""
    arrivals = generate(1.0, duration=864_000, rng=Random(1))
    assert len(arrivals) == pytest.approx(864_000, rel=0.03)


@pytest.mark.parametrize("generate", [poisson, bursts, diurnal])
def test_the_same_seed_gives_the_same_arrivals(generate: Any) -> None:
    """Arrivals follow from the seed, and another seed gives others."""
    runs = [generate(2.0, duration=600, rng=Random(seed)) for seed in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]


def test_poisson_arrivals_are_as_dispersed_in_every_window() -> None:
    """The index of dispersion of a Poisson process is 1."""
    arrivals = poisson(5.0, duration=40_000, rng=Random(1))
    for window in (0.1, 1, 10):
        assert index_of_dispersion(arrivals, window=window) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("window", ["0.1", "1.0", "10.0", "60.0"])
def test_bursts_are_as_bursty_as_the_code_trace(window: str) -> None:
    """With the defaults, counts disperse as in the trace, within a quarter, over a minute too."""
    code = SERVICES["code"]
    arrivals = bursts(code["rate_per_second"], duration=200_000, rng=Random(1))
    measured = index_of_dispersion(arrivals, window=float(window))
    assert measured == pytest.approx(code["index_of_dispersion"][window], rel=0.25)


def test_default_bursts_are_the_fitted_ones() -> None:
    """The defaults in the signature are the numbers that the derivation wrote."""
    fitted = SERVICES["code"]["bursts"]
    parameters = inspect.signature(bursts).parameters
    for name in ("active_fraction", "mean_burst"):
        assert parameters[name].default == fitted[name]


def test_diurnal_arrivals_peak_at_the_peak_hour() -> None:
    """The busiest hour is the peak's, three times as busy as the quietest, twelve hours away."""
    arrivals = diurnal(2.0, duration=20 * 86_400, rng=Random(1), peak_hour=15.5)
    hours = [0] * 24
    for at in arrivals:
        hours[int(at % 86_400 // 3600)] += 1
    assert hours.index(max(hours)) in (14, 15, 16)
    assert hours[15] / hours[3] == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("service", ["code", "conversation"])
def test_token_lengths_have_the_traces_means(service: Any) -> None:
    """Mean input and output lengths are within 3% of the trace's."""
    rng = Random(2)
    usages = [TokenLengths.azure(service).sample(rng) for _ in range(50_000)]
    fit = SERVICES[service]["fit"]
    for side in ("input_tokens", "output_tokens"):
        mean = fmean(getattr(usage, side) for usage in usages)
        assert mean == pytest.approx(fit[side]["mean_seen"], rel=0.03)


@pytest.mark.parametrize("service", ["code", "conversation"])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_token_lengths_have_the_traces_quantiles(service: Any, probability: float) -> None:
    """The share of inputs at or below a quantile is the quantile's probability."""
    lengths = TokenLengths.azure(service)
    quantile = lengths.input_quantiles[lengths.input_grid.index(probability)]
    rng = Random(2)
    below = sum(lengths.sample(rng).input_tokens <= quantile for _ in range(20_000))
    assert below / 20_000 == pytest.approx(probability, abs=0.02)


def test_outputs_depend_on_inputs_as_in_the_conversation_trace() -> None:
    """Inputs near 1,100 tokens get seven times the output of the longest; ranks say little."""
    rng = Random(3)
    lengths = TokenLengths.azure("conversation")
    pairs = [
        (u.input_tokens, u.output_tokens) for u in (lengths.sample(rng) for _ in range(20_000))
    ]
    usual = median(output for length, output in pairs if 1071 <= length <= 1130)
    longest = median(output for length, output in pairs if length >= 2734)
    assert usual == pytest.approx(407, abs=10)
    assert longest == pytest.approx(58, abs=5)
    assert rank_correlation(pairs) == pytest.approx(0.073, abs=0.03)


@pytest.mark.parametrize("service", ["code", "conversation"])
def test_samplers_were_close_to_the_traces_when_derived(service: str) -> None:
    """The recorded Kolmogorov-Smirnov distances are those that the docstring states, and small."""
    for side in ("input_tokens", "output_tokens"):
        distance = SERVICES[service]["fit"][side]["kolmogorov_smirnov"]
        assert f"{distance:.3f}" in (TokenLengths.__doc__ or "")
        assert distance < 0.035


def test_token_lengths_of_your_own_trace_reproduce_it() -> None:
    """Lengths taken from a trace have its range and its median."""
    rng = Random(5)
    own = [
        TraceRequest(float(n), Usage(input_tokens=n, output_tokens=2 * n)) for n in range(1, 1001)
    ]
    lengths = TokenLengths.from_trace(own)
    usages = [lengths.sample(rng) for _ in range(5_000)]
    assert min(usage.input_tokens for usage in usages) >= 1
    assert max(usage.output_tokens for usage in usages) <= 2000
    assert median(usage.input_tokens for usage in usages) == pytest.approx(500, rel=0.05)
    assert all(usage.output_tokens < 2 * usage.input_tokens + 210 for usage in usages)


def test_a_short_trace_gives_no_token_lengths() -> None:
    """A tail cannot be read from a few requests."""
    with pytest.raises(ConfigurationError, match="at least 100"):
        TokenLengths.from_trace([TraceRequest(0.0, Usage(input_tokens=1, output_tokens=1))] * 99)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_quantiles": (3.0, 2.0)}, "must not fall"),
        ({"input_grid": (0.1, 1.0)}, "rise from 0 to 1"),
        (
            {"input_grid": (0.0, 0.5, 0.5, 1.0), "input_quantiles": (1.0, 2.0, 3.0, 4.0)},
            "rise from 0 to 1",
        ),
        ({"output_quantiles": ((1.0, 2.0, 3.0),)}, "3 values for 2"),
        ({"input_quantiles": (0.0, 2.0)}, "greater than 0"),
    ],
)
def test_inconsistent_token_tables_are_refused(change: dict[str, Any], message: str) -> None:
    """A table that is not a distribution fails when built."""
    good = {
        "input_grid": (0.0, 1.0),
        "input_quantiles": (1.0, 9.0),
        "output_grid": (0.0, 1.0),
        "output_quantiles": ((1.0, 9.0),),
    }
    with pytest.raises((ValidationError, ConfigurationError), match=message):
        TokenLengths.model_validate(good | change)


def test_an_unknown_azure_service_is_named_with_the_known_ones() -> None:
    """The error lists what there is."""
    service: Any = "chat"
    with pytest.raises(ConfigurationError, match="'chat'; there are code, conversation"):
        TokenLengths.azure(service)


def test_replay_reads_times_and_tokens() -> None:
    """Times count from the first request; tokens are input and output."""
    requests = replay(TRACE)
    assert [request.at for request in requests] == pytest.approx([0.0, 0.052, 4.0])
    assert requests[0].usage == Usage(input_tokens=4808, output_tokens=10)


def test_replay_at_twice_the_speed_takes_half_the_time() -> None:
    """Speed divides the times and leaves the tokens."""
    assert replay(TRACE, speed=2)[-1] == TraceRequest(
        2.0, Usage(input_tokens=110, output_tokens=27)
    )


@pytest.mark.parametrize("name", ["trace.csv", "trace.csv.gz"])
def test_replay_reads_files_and_compressed_files(tmp_path: Path, name: str) -> None:
    """A path, as text or not, gives what its lines give."""
    path = tmp_path / name
    data = "\n".join(TRACE).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert replay(path) == replay(str(path)) == replay(TRACE)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "lacks TIMESTAMP, ContextTokens, GeneratedTokens.*names nothing"),
        (["TIMESTAMP,ContextTokens"], "lacks GeneratedTokens"),
        ([HEADER], "no requests"),
        ([*TRACE, TRACE[1]], r"line 5 of the trace is 4 s before .*sort the trace"),
        ([*TRACE, "yesterday,1,2"], "line 5 of the trace cannot be read.*yesterday"),
        ([*TRACE, "2023-11-16 18:17:09,1"], "line 5 of the trace cannot be read"),
        ([*TRACE, "2023-11-16 18:17:09,-1,2"], "line 5 of the trace cannot be read"),
    ],
)
def test_a_broken_trace_is_refused_by_name(lines: list[str], message: str) -> None:
    """The error names the line or the column, and the remedy."""
    with pytest.raises(ConfigurationError, match=message):
        replay(lines)


@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf])
@pytest.mark.parametrize("generate", [poisson, bursts, diurnal])
def test_an_impossible_rate_is_refused_at_once(generate: Any, rate: float) -> None:
    """The error names the value before any arrival is drawn."""
    with pytest.raises(ConfigurationError, match=rf"rate_per_second .* not {rate!r}"):
        generate(rate, duration=1, rng=Random(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: bursts(1, duration=1, rng=Random(0), active_fraction=1),
        lambda: bursts(1, duration=1, rng=Random(0), mean_burst=0),
        lambda: diurnal(1, duration=1, rng=Random(0), amplitude=1.5),
        lambda: diurnal(1, duration=1, rng=Random(0), peak_hour=24),
        lambda: poisson(1, duration=0, rng=Random(0)),
        lambda: replay(TRACE, speed=0),
        lambda: index_of_dispersion([0.0, 1.0], window=1.0),
        lambda: index_of_dispersion([], window=1.0),
    ],
)
def test_impossible_settings_are_refused(make: Any) -> None:
    """Each bad setting fails with a ConfigurationError."""
    with pytest.raises(ConfigurationError):
        make()


def test_an_open_loop_starts_calls_at_their_times_and_waits_for_none() -> None:
    """Calls that take ten seconds start at 0, 1 and 1; the loop ends with the last of them."""
    started: list[tuple[int, float]] = []

    async def main() -> float:
        loop = asyncio.get_running_loop()

        async def call(number: int) -> None:
            started.append((number, loop.time()))
            await asyncio.sleep(10)

        await open_loop(call, [0.0, 1.0, 1.0])
        return loop.time()

    assert simulate(main) == 11.0
    assert started == [(0, 0.0), (1, 1.0), (2, 1.0)]


def test_an_open_loop_counts_arrivals_from_its_own_start() -> None:
    """Arrivals are relative: a loop begun at 100 s sends its first at 101 s."""

    async def main() -> float:
        await asyncio.sleep(100)
        await open_loop(lambda number: asyncio.sleep(0), [1.0])
        return asyncio.get_running_loop().time()

    assert simulate(main) == 101.0


def test_an_open_loop_refuses_to_pile_up_without_end() -> None:
    """The arrival that would exceed max_in_flight raises, and the calls in flight are cancelled."""
    cancelled: list[int] = []

    async def call(number: int) -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    with pytest.raises(ExceptionGroup) as caught:
        simulate(lambda: open_loop(call, [0.0, 1.0, 2.0], max_in_flight=2))
    (error,) = caught.value.exceptions
    assert isinstance(error, TooManyInFlight)
    assert (error.limit, error.at, cancelled) == (2, 2.0, [0, 1])


def test_an_open_loop_forgets_calls_that_have_ended() -> None:
    """A limit of one call in flight lets a hundred run one after another."""
    ended: list[int] = []

    async def call(number: int) -> None:
        await asyncio.sleep(0.5)
        ended.append(number)

    simulate(lambda: open_loop(call, [float(n) for n in range(100)], max_in_flight=1))
    assert ended == list(range(100))


def test_a_closed_loop_never_has_more_calls_than_clients() -> None:
    """Each client waits for its answer, so a slow provider slows the load."""
    in_flight: list[int] = []
    calls: list[int] = []

    async def call(client: int) -> None:
        in_flight.append(client)
        calls.append(len(in_flight))
        assert in_flight.count(client) == 1
        await asyncio.sleep(5)
        in_flight.remove(client)

    rng = Random(1)
    simulate(lambda: closed_loop(call, clients=3, duration=10_000, think_time=1, rng=rng))
    assert max(calls) == 3
    assert len(calls) == pytest.approx(3 * 10_000 / 6, rel=0.05)


def test_one_clients_thinking_does_not_depend_on_anothers_answers() -> None:
    """Slowing one client's calls leaves the others' call times alone."""

    def call_times(delay: float) -> list[float]:
        times: list[float] = []

        async def call(client: int) -> None:
            if client == 1:
                times.append(asyncio.get_running_loop().time())
            await asyncio.sleep(delay if client == 0 else 1)

        simulate(lambda: closed_loop(call, clients=2, duration=100, think_time=2, rng=Random(1)))
        return times

    assert call_times(1) == call_times(50)


def test_a_closed_loop_needs_clients() -> None:
    """No clients, no load: refused when called."""
    with pytest.raises(ConfigurationError, match="clients must be above 0"):
        simulate(
            lambda: closed_loop(asyncio.sleep, clients=0, duration=1, think_time=1, rng=Random())
        )


def test_the_public_names_exist() -> None:
    """`__all__` names what the module offers."""
    assert all(hasattr(workload, name) for name in workload.__all__)
