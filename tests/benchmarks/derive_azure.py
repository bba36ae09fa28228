"""Derive what `llm_patterns.simulation.workload` knows of the Azure traces of 2023.

    python tests/benchmarks/derive_azure.py FOLDER

FOLDER holds `azure_llm_2023_code.csv.gz` and `azure_llm_2023_conv.csv.gz`: the two files of
AzureLLMInferenceDataset2023 in the Azure Public Dataset (CC-BY 4.0), compressed. The result is
written beside the module.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev

from llm_patterns.simulation import workload
from llm_patterns.simulation.workload import TokenLengths, TraceRequest, index_of_dispersion

SOURCE = (
    "Derived from AzureLLMInferenceDataset2023, Azure Public Dataset (Microsoft, CC-BY 4.0); "
    "Patel et al., Splitwise, ISCA 2024."
)
WINDOWS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
DRAWS = 100_000


def main(folder: Path) -> None:
    """Write `azure_2023.json` from the traces in *folder*."""
    names = {"code": "code", "conversation": "conv"}
    services = {
        service: derive(workload.replay(folder / f"azure_llm_2023_{name}.csv.gz"))
        for service, name in names.items()
    }
    target = Path(workload.__file__).with_name("azure_2023.json")
    target.write_text(_compact({"source": SOURCE, "services": services}), "utf-8")


def derive(trace: Sequence[TraceRequest]) -> dict[str, object]:
    """Return what is known of *trace*: lengths, burstiness, and how well the samplers fit."""
    arrivals = [request.at for request in trace]
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    rate = len(trace) / arrivals[-1]
    dispersion = {window: index_of_dispersion(arrivals, window=window) for window in WINDOWS}
    lengths = TokenLengths.from_trace(trace)
    return {
        "requests": len(trace),
        "rate_per_second": round(rate, 3),
        "gap_coefficient_of_variation": round(pstdev(gaps) / fmean(gaps), 2),
        "index_of_dispersion": {str(window): round(it, 2) for window, it in dispersion.items()},
        "bursts": fit_bursts(rate, dispersion),
        "fit": fit_of(lengths, trace),
        "lengths": lengths.model_dump(),
    }


def fit_bursts(rate: float, dispersion: dict[float, float]) -> dict[str, float]:
    """Return the interrupted Poisson process of the nearest dispersion (least squares of logs)."""

    def error(active_fraction: float, mean_burst: float) -> float:
        expected = interrupted_poisson(rate, active_fraction, mean_burst)
        return math.fsum(math.log(expected(w) / it) ** 2 for w, it in dispersion.items())

    fractions = [step / 1000 for step in range(20, 980, 2)]
    seconds = [0.5 * 1.01**step for step in range(900)]
    _, fraction, burst = min((error(f, s), f, s) for f in fractions for s in seconds)
    expected = interrupted_poisson(rate, fraction, burst)
    worst = max(abs(expected(window) / it - 1) for window, it in dispersion.items())
    return {
        "active_fraction": fraction,
        "mean_burst": round(burst, 2),
        "largest_relative_error": round(worst, 2),
    }


def interrupted_poisson(
    rate: float, active_fraction: float, mean_burst: float
) -> Callable[[float], float]:
    """Return the index of dispersion, by window, of Poisson arrivals switched on and off.

    From the variance of counts in W. Fischer and K. Meier-Hellstern, "The Markov-modulated Poisson
    process (MMPP) cookbook", Performance Evaluation 18 (1993), with one of two rates at zero.
    """
    memory = mean_burst * (1 - active_fraction)
    scale = 2 * rate * (1 - active_fraction) / active_fraction * memory

    def at(window: float) -> float:
        ratio = window / memory
        return 1 + scale * (1 - (1 - math.exp(-ratio)) / ratio)

    return at


def fit_of(lengths: TokenLengths, trace: Sequence[TraceRequest]) -> dict[str, dict[str, float]]:
    """Return how far what the sampler draws is from *trace*, and both means."""
    rng = random.Random(0)
    drawn = [lengths.sample(rng) for _ in range(DRAWS)]
    seen = [request.usage for request in trace]
    return {
        "input_tokens": _fit([u.input_tokens for u in drawn], [u.input_tokens for u in seen]),
        "output_tokens": _fit([u.output_tokens for u in drawn], [u.output_tokens for u in seen]),
    }


def _fit(drawn: list[int], seen: list[int]) -> dict[str, float]:
    return {
        "kolmogorov_smirnov": round(kolmogorov_smirnov(drawn, seen), 3),
        "mean_drawn": round(fmean(drawn), 1),
        "mean_seen": round(fmean(seen), 1),
    }


def kolmogorov_smirnov(left: Sequence[int], right: Sequence[int]) -> float:
    """Return the largest distance between the two samples' distribution functions."""
    left, right = sorted(left), sorted(right)
    i = j = 0
    largest = 0.0
    for value in sorted({*left, *right}):
        while i < len(left) and left[i] <= value:
            i += 1
        while j < len(right) and right[j] <= value:
            j += 1
        largest = max(largest, abs(i / len(left) - j / len(right)))
    return largest


def _compact(value: object, depth: int = 0) -> str:
    """Return JSON with one list a line."""
    if not isinstance(value, dict):
        return json.dumps(value)
    pad = " " * (depth + 1)
    items = [f"{pad}{json.dumps(key)}: {_compact(it, depth + 1)}" for key, it in value.items()]
    return "{\n" + ",\n".join(items) + "\n" + " " * depth + "}" + ("\n" if depth == 0 else "")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
