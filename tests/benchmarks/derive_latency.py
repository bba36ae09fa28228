"""Derive the profiles of `llm_patterns.simulation.latency` from what others measured.

    python tests/benchmarks/derive_latency.py PERF_MODEL_CSV LLMPERF_FOLDER

PERF_MODEL_CSV is `data/perf_model.csv` of github.com/Mutinifni/splitwise-sim; LLMPERF_FOLDER is
`raw_data/individual` of github.com/ray-project/llmperf-leaderboard. The results are printed.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median, pstdev
from typing import Any

Run = dict[str, str]
GPUS = "8"


def main(perf_model: Path, llmperf: Path) -> None:
    """Print the machine profiles, then the middle of the hosted ones."""
    with perf_model.open(encoding="utf-8") as file:
        runs = [run for run in csv.DictReader(file) if run["tensor_parallel"] == GPUS]
    profiles = {
        hardware: machine(
            [r for r in runs if r["model"] == "llama2-70b" and r["hardware"] == hardware]
        )
        for hardware in ("a100-80gb", "h100-80gb")
    }
    hosted = [provider(json.loads(path.read_text())) for path in sorted(llmperf.glob("*_70b.json"))]
    middle = {name: round(median(it[name] for it in hosted), 3) for name in hosted[0]}
    middle["answers"] = sum(it["answers"] for it in hosted)
    json.dump(profiles | {"hosted": middle}, sys.stdout, indent=2)


def machine(runs: list[Run]) -> dict[str, float]:
    """Return the profile of one machine: the least largest relative error over the medians."""
    alone = [run for run in runs if run["batch_size"] == "1"]
    reading = medians(alone, by="prompt_size", of="prompt_time")
    writing = medians(runs, by="batch_size", of="token_time")
    prefill = best(
        reading,
        ((base, rate) for base in range(5, 61) for rate in range(2_000, 20_000, 50)),
        lambda base, rate, tokens: base + 1_000 * tokens / rate,
    )
    decode = best(
        writing,
        ((step / 10, slow / 10_000) for step in range(250, 520) for slow in range(10, 300)),
        lambda step, slow, batch: step * (1 + slow * (batch - 1)),
    )
    return {
        "time_to_first_token": prefill[1] / 1_000,
        "input_tokens_per_second": prefill[2],
        "reading_error": math.expm1(prefill[0]),
        "output_tokens_per_second": 1_000 / decode[1],
        "decode_slowdown": decode[2],
        "writing_error": math.expm1(decode[0]),
        "first_token_sigma": spread(runs, "prompt_time"),
        "token_sigma": spread(runs, "token_time"),
    }


def medians(runs: Iterable[Run], *, by: str, of: str) -> dict[float, float]:
    """Return the median of column *of* for each value of column *by*."""
    groups = defaultdict(list)
    for run in runs:
        groups[float(run[by])].append(float(run[of]))
    return {key: median(values) for key, values in groups.items()}


def best(
    seen: dict[float, float],
    candidates: Iterable[tuple[float, float]],
    model: Callable[[float, float, float], float],
) -> tuple[float, float, float]:
    """Return the candidate with the smallest largest error (of logarithms), the error first."""

    def error(a: float, b: float) -> float:
        return max(abs(math.log(model(a, b, x) / y)) for x, y in seen.items())

    return min((error(a, b), a, b) for a, b in candidates)


def spread(runs: Iterable[Run], column: str) -> float:
    """Return the standard deviation of logarithms between runs of the same setting."""
    groups = defaultdict(list)
    for run in runs:
        setting = (run["prompt_size"], run["batch_size"], run["token_size"])
        groups[setting].append(float(run[column]))
    return pstdev(math.log(it / median(group)) for group in groups.values() for it in group)


def provider(answers: list[dict[str, Any]]) -> dict[str, float]:
    """Return what a client saw of one provider."""
    good = [it for it in answers if it["error_code"] is None]
    first = [it["ttft_s"] for it in good]
    step = [
        (it["end_to_end_latency_s"] - it["ttft_s"]) / (it["number_output_tokens"] - 1)
        for it in good
    ]
    return {
        "answers": len(good),
        "time_to_first_token": median(first),
        "output_tokens_per_second": 1 / median(step),
        "first_token_sigma": pstdev(map(math.log, first)),
        "token_sigma": pstdev(map(math.log, step)),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
