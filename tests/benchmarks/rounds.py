"""Measuring several things so that they can be compared: in turns, and by medians.

What slows the machine for a second then slows all of them alike.
"""

import gc
from collections.abc import Callable, Mapping
from statistics import median, quantiles

Samples = Mapping[str, list[float]]


def interleaved(subjects: Mapping[str, Callable[[], float]], *, rounds: int) -> Samples:
    """Call each of *subjects* once a round, after a round that does not count, and return what they measured."""
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds + 1):
        for name, measure in subjects.items():
            gc.collect()
            gc.disable()
            try:
                sample = measure()
            finally:
                gc.enable()
            if number:
                samples[name].append(sample)
    return samples


def ratio(samples: Samples, name: str, to: str) -> float:
    """Return the median over the rounds of *name*'s sample over that of *to*."""
    return significant(median(a / b for a, b in zip(samples[name], samples[to], strict=True)))


def middle(values: list[float]) -> dict[str, float]:
    """Return the median of *values* and the quartiles around it, as columns."""
    low, mid, high = map(significant, quantiles(values, n=4))
    return {"Median": mid, "Lower quartile": low, "Upper quartile": high}


def significant(value: float) -> float:
    """Return *value* to three digits: timings have no more."""
    return float(f"{value:.3g}")
