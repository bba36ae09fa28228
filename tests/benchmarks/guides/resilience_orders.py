"""All 120 orders of the five guards through the five kinds of weather of `course.stacks`, two seeds each."""

from statistics import fmean

from course.benchmarks import Row
from course.stacks import ORDERS, WEATHER, pass_through

PEERS = ()
ROUNDS = 1
SEEDS = (3, 4)


def row(order: str, weather: str) -> Row:
    """Return what callers met, as means over the seeds."""
    met = [pass_through(order, weather, seed=seed) for seed in SEEDS]
    return {
        "Order": order,
        "Weather": weather,
        "Full": round(fmean(each.full for each in met), 4),
        "Failed": round(fmean(each.failed for each in met), 4),
        "Seconds": round(fmean(each.seconds for each in met), 3),
        "Attempts": round(fmean(each.attempts for each in met), 3),
        "Wasted": round(fmean(each.wasted for each in met), 1),
    }


def measure() -> list[Row]:
    """Return a row for each order and weather."""
    return [row(order, weather) for order in ORDERS for weather in WEATHER]
