"""How long an answer takes: time to first token, then time per token, from published measurements.

>>> from random import Random
>>> from llm_patterns.chat import Usage
>>> usage = Usage(input_tokens=1_000, output_tokens=200)
>>> steady = LLAMA2_70B_H100.model_copy(update={"first_token_sigma": 0.0, "token_sigma": 0.0})
>>> alone = steady.sample(usage, in_flight=1, rng=Random(1))
>>> crowded = steady.sample(usage, in_flight=32, rng=Random(1))
>>> f"{alone.time_to_first_token:.3f} s, then {1 / alone.seconds_per_token:.0f} tokens a second"
'0.105 s, then 33 tokens a second'
>>> f"{crowded.seconds_per_token / alone.seconds_per_token:.2f} times as long a token"
'1.31 times as long a token'

The model is the one that serving papers share: reading the prompt is bound by compute and takes
time in proportion to its tokens; writing is bound by memory and takes one step a token, a step that
grows with the requests that share it (continuous batching). Waiting for a free place is not part of
it: that is the provider's queue.

Two kinds of profile are given. Those of a machine are fits to the medians of the runs that Splitwise's
authors published (`data/perf_model.csv` of github.com/Mutinifni/splitwise-sim, MIT; Patel et al., ISCA
2024). Those of a hosted API are what a client saw, its network included: 1,014 answers of eight
providers on one day of December 2023 (github.com/ray-project/llmperf-leaderboard, Apache-2.0), and
the writing speed of 19 models recorded in 2026 (`recording_rates.json` of the package agentic-bench
0.2.0, Apache-2.0). `tests/benchmarks/derive_latency.py` derives them; each says what in it is
measured and what is not.
"""

from __future__ import annotations

from random import Random
from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from llm_patterns.chat import Usage
from llm_patterns.errors import ConfigurationError

__all__ = [
    "HOSTED_2023",
    "HOSTED_2026",
    "LLAMA2_70B_A100",
    "LLAMA2_70B_H100",
    "Latency",
    "LatencyProfile",
]


class Latency(NamedTuple):
    """The pace of one answer: seconds to its first token, and from each token to the next."""

    time_to_first_token: float
    seconds_per_token: float

    def duration(self, output_tokens: int) -> float:
        """Return the seconds until the last of *output_tokens* is out.

        >>> Latency(0.5, 0.1).duration(11)
        1.5
        """
        return self.time_to_first_token + self.seconds_per_token * max(0, output_tokens - 1)


class LatencyProfile(BaseModel):
    """The pace of one replica of a model, and how it spreads."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    time_to_first_token: float = Field(
        ge=0, description="Seconds to the first token at no load, before any input token is read."
    )
    input_tokens_per_second: float = Field(gt=0, description="Speed of reading a prompt, alone.")
    output_tokens_per_second: float = Field(gt=0, description="Speed of writing, alone.")
    decode_slowdown: float = Field(
        ge=0, lt=1, description="What each further request in flight adds to the time per token."
    )
    first_token_sigma: float = Field(
        ge=0, le=2, description="Standard deviation of the logarithm of the time to first token."
    )
    token_sigma: float = Field(
        ge=0, le=2, description="The same of the time per token, from one answer to the next."
    )

    def sample(self, usage: Usage, *, in_flight: int, rng: Random) -> Latency:
        """Return the pace of one answer, with *in_flight* requests on the replica, itself included.

        Both times are log-normal about the profile's, which are medians. Cached input tokens are
        not read again and take no time. Takes as many draws from *rng* whatever the load, so that
        two runs stay comparable.
        """
        if in_flight < 1:
            raise ConfigurationError(
                f"in_flight must be at least 1, the request itself, not {in_flight!r}"
            )
        fresh = usage.total_input_tokens - usage.cached_input_tokens
        reading = fresh / self.input_tokens_per_second
        step = (1 + self.decode_slowdown * (in_flight - 1)) / self.output_tokens_per_second
        return Latency(
            (self.time_to_first_token + reading) * rng.lognormvariate(0, self.first_token_sigma),
            step * rng.lognormvariate(0, self.token_sigma),
        )


LLAMA2_70B_A100: Final = LatencyProfile(
    time_to_first_token=0.034,
    input_tokens_per_second=6_700,
    output_tokens_per_second=23.3,
    decode_slowdown=0.0094,
    first_token_sigma=0.034,
    token_sigma=0.007,
)
"""Llama 2 70B on eight A100 80 GB. Fit to medians of 128 to 8,192 input tokens within 24%, and of
batches of 1 to 64 within 5%. The spread is that between repeated runs on an idle machine: no
traffic, no network."""

LLAMA2_70B_H100: Final = LatencyProfile(
    time_to_first_token=0.034,
    input_tokens_per_second=14_050,
    output_tokens_per_second=33.1,
    decode_slowdown=0.0099,
    first_token_sigma=0.065,
    token_sigma=0.011,
)
"""Llama 2 70B on eight H100 80 GB. As above, within 37% for reading (it grows faster than the
prompt) and 3% for writing."""

HOSTED_2023: Final = LatencyProfile(
    time_to_first_token=0.41,
    input_tokens_per_second=14_050,
    output_tokens_per_second=43.8,
    decode_slowdown=0.0099,
    first_token_sigma=0.22,
    token_sigma=0.08,
)
"""The middle of eight hosted APIs of Llama 2 70B, 550 tokens in and 150 out, seen by a client.
Measured: the total time to first token, the writing speed, both spreads (each the median over the
eight). Taken from `LLAMA2_70B_H100`: the speed of reading, whose share is taken off the time to
first token, and the slowdown."""

HOSTED_2026: Final = HOSTED_2023.model_copy(update={"output_tokens_per_second": 140.0})
"""`HOSTED_2023` at the writing speed of 2026: 140 tokens a second, pooled over 1.7 million steps of
19 models. That is the fastest twentieth of steps, so nearer a ceiling than a median; the models
range from 59 to 293."""
