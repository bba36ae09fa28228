"""What did some calls use and cost, by tenant, feature, model or whatever else they were labelled with?

The values that a tracker counts and a ledger keeps, so that the one can be held against the other.

>>> acme, other = (("model", "small"), ("tenant", "acme")), (("model", "small"),)
>>> both = CostStatistics({acme: Cost(calls=2, usd=Decimal("0.3")), other: Cost(calls=1, usd=Decimal("0.1"))})
>>> both.total.usd, both.by("tenant")["acme"].calls
(Decimal('0.4'), 2)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from functools import reduce
from operator import add
from typing import Final, Protocol, Self

from llm_patterns.chat import Usage
from llm_patterns.toolkit.prices import EXACT

__all__ = ["OVERFLOW", "OVERFLOW_SERIES", "Cost", "CostBook", "CostStatistics", "Series"]

Series = tuple[tuple[str, str], ...]
"""One combination of labels, sorted by name."""

OVERFLOW: Final = "(other)"
"""The value of every label in the series that takes what a bound on series keeps out."""
OVERFLOW_SERIES: Final[Series] = (("model", OVERFLOW),)


@dataclass(frozen=True, slots=True)
class Cost:
    """What some calls used and cost.

    Of the `calls`, those `estimated` told their usage in part or not at all, and were counted by a rule. Those
    `unpriced` are not in `usd`: their model has no known price, or they ended without telling what they used.
    """

    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    usd: Decimal = Decimal(0)
    estimated: int = 0
    unpriced: int = 0

    def __add__(self, other: Self) -> Cost:
        with localcontext(EXACT):
            return Cost(
                self.calls + other.calls,
                self.usage + other.usage,
                self.usd + other.usd,
                self.estimated + other.estimated,
                self.unpriced + other.unpriced,
            )


@dataclass(frozen=True, slots=True)
class CostStatistics:
    """A snapshot: the cost of each series."""

    series: Mapping[Series, Cost]

    @property
    def total(self) -> Cost:
        """Return the cost of all calls."""
        return reduce(add, self.series.values(), Cost())

    def by(self, label: str) -> dict[str, Cost]:
        """Return the costs by value of *label* (`model` is one), sorted; calls without it are under ""."""
        groups: dict[str, Cost] = defaultdict(Cost)
        for labels, cost in self.series.items():
            value = OVERFLOW if labels == OVERFLOW_SERIES else dict(labels).get(label, "")
            groups[value] += cost
        return dict(sorted(groups.items()))


class CostBook(Protocol):
    """Where a tracker also writes what it counts, such as a `CostLedger`. It must neither wait nor raise."""

    def record(self, series: Series, cost: Cost, *, at: float) -> None:
        """Write *cost* down under *series*, at that second since the epoch."""
