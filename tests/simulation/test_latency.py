"""Latency profiles: close to what was published, and sampled so that runs can be compared."""

import math
from random import Random
from statistics import median, pstdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llm_patterns.chat import Usage
from llm_patterns.errors import ConfigurationError
from llm_patterns.simulation.latency import (
    HOSTED_2023,
    HOSTED_2026,
    LLAMA2_70B_A100,
    LLAMA2_70B_H100,
    Latency,
    LatencyProfile,
)

# Medians of Splitwise's published runs (splitwise-sim, data/perf_model.csv): eight GPUs, milliseconds.
READING = {
    "a100": {128: 65.3, 512: 93.0, 1024: 154.5, 2048: 274.2, 4096: 661.2, 8192: 1549.8},
    "h100": {128: 58.2, 512: 53.9, 1024: 77.9, 2048: 136.8, 4096: 390.3, 8192: 844.9},
}
WRITING = {
    "a100": {1: 45.0, 4: 45.8, 16: 50.4, 32: 53.0, 64: 71.6},
    "h100": {1: 30.4, 4: 31.8, 16: 34.2, 32: 38.6, 64: 50.2},
}
MACHINES = [("a100", LLAMA2_70B_A100, 1.24, 1.05), ("h100", LLAMA2_70B_H100, 1.375, 1.03)]
PROFILES = [LLAMA2_70B_A100, LLAMA2_70B_H100, HOSTED_2023, HOSTED_2026]


def steady(profile: LatencyProfile) -> LatencyProfile:
    """The profile without its spread."""
    return profile.model_copy(update={"first_token_sigma": 0.0, "token_sigma": 0.0})


@pytest.mark.parametrize(("name", "profile", "reading", "writing"), MACHINES)
def test_machine_profiles_meet_the_published_medians(
    name: str, profile: LatencyProfile, reading: float, writing: float
) -> None:
    """Both times are within the factor that the profile's description states, at every published size."""
    for tokens, milliseconds in READING[name].items():
        seen = steady(profile).sample(Usage(input_tokens=tokens), in_flight=1, rng=Random(0))
        ratio = 1000 * seen.time_to_first_token / milliseconds
        assert 1 / reading < ratio < reading
    for batch, milliseconds in WRITING[name].items():
        seen = steady(profile).sample(Usage(), in_flight=batch, rng=Random(0))
        assert 1 / writing < 1000 * seen.seconds_per_token / milliseconds < writing


def test_hosted_profile_gives_the_measured_time_to_first_token() -> None:
    """550 tokens in, as in the measurement, take 0.45 s to the first token, in the middle of the providers."""
    usage = Usage(input_tokens=550)
    assert steady(HOSTED_2023).sample(
        usage, in_flight=1, rng=Random(0)
    ).time_to_first_token == pytest.approx(0.452, abs=0.005)


@pytest.mark.parametrize("profile", PROFILES)
def test_samples_spread_about_the_median_as_stated(profile: LatencyProfile) -> None:
    """The median of many samples is the profile's, and the logarithms spread by its sigmas."""
    rng = Random(1)
    usage = Usage(input_tokens=1000)
    samples = [profile.sample(usage, in_flight=8, rng=rng) for _ in range(20_000)]
    middle = steady(profile).sample(usage, in_flight=8, rng=rng)
    for index, sigma in enumerate((profile.first_token_sigma, profile.token_sigma)):
        values = [sample[index] for sample in samples]
        assert median(values) == pytest.approx(middle[index], rel=0.01)
        assert pstdev(map(math.log, values)) == pytest.approx(sigma, rel=0.03)


@given(
    seed=st.integers(),
    tokens=st.integers(0, 1_000_000),
    load=st.integers(1, 1000),
    profile=st.sampled_from(PROFILES),
)
def test_more_load_or_more_input_is_never_faster(
    seed: int, tokens: int, load: int, profile: LatencyProfile
) -> None:
    """For the same chance, one more request slows the tokens, and one more token the first."""
    pace = profile.sample(Usage(input_tokens=tokens), in_flight=load, rng=Random(seed))
    busier = profile.sample(Usage(input_tokens=tokens), in_flight=load + 1, rng=Random(seed))
    longer = profile.sample(Usage(input_tokens=tokens + 1), in_flight=load, rng=Random(seed))
    assert busier.seconds_per_token > pace.seconds_per_token > 0
    assert busier.time_to_first_token == pace.time_to_first_token
    assert longer.time_to_first_token > pace.time_to_first_token
    assert longer.seconds_per_token == pace.seconds_per_token


def test_cached_input_is_not_read_again() -> None:
    """A prompt that is in the cache reaches its first token as soon as an empty one."""
    cached = Usage(cached_input_tokens=100_000)
    assert HOSTED_2023.sample(cached, in_flight=1, rng=Random(2)) == HOSTED_2023.sample(
        Usage(), in_flight=1, rng=Random(2)
    )


def test_load_does_not_change_how_much_chance_a_sample_takes() -> None:
    """After a sample under any load the source of chance is in the same state."""
    states = []
    for load in (1, 500):
        rng = Random(3)
        HOSTED_2026.sample(Usage(input_tokens=load), in_flight=load, rng=rng)
        states.append(rng.getstate())
    assert states[0] == states[1]


def test_duration_is_the_first_token_and_a_step_for_each_further_one() -> None:
    """Without output tokens an answer still takes its time to the first token."""
    assert Latency(0.5, 0.25).duration(3) == 1.0
    assert Latency(0.5, 0.25).duration(0) == 0.5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("time_to_first_token", -0.1),
        ("input_tokens_per_second", 0),
        ("output_tokens_per_second", math.inf),
        ("decode_slowdown", 1),
        ("token_sigma", 3),
        ("speed", 1),
    ],
)
def test_impossible_profiles_are_refused_by_field(field: str, value: Any) -> None:
    """The error names the field."""
    with pytest.raises(ValidationError, match=field):
        LatencyProfile.model_validate(HOSTED_2023.model_dump() | {field: value})


def test_a_request_is_itself_in_flight() -> None:
    """Nobody in flight cannot be: the request is."""
    with pytest.raises(ConfigurationError, match="at least 1, the request itself, not 0"):
        HOSTED_2023.sample(Usage(), in_flight=0, rng=Random(0))
