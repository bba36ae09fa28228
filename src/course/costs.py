"""What a run costs at the scale of a service, from the price library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from course.display import Shown
from course.tables import table
from llm_patterns.chat import Usage
from llm_patterns.toolkit import price_of, price_source

__all__ = ["cost_table"]

Model = tuple[str, str]
"""Provider and model, as the price library names them: `("openai", "gpt-5-mini")`."""
PerRequest = Callable[[str, str], Decimal]
"""Dollars a request, from provider and model."""


def cost_table(
    scenarios: Mapping[str, Iterable[Usage] | PerRequest],
    *,
    requests: int | Mapping[str, int] = 1,
    models: Sequence[Model],
    at: datetime | None = None,
    volumes: Sequence[int] = (1_000, 10_000, 100_000),
    caption: str = "Dollars a day",
    highlight: str | Sequence[str] = (),
) -> Shown:
    """Dollars a day by model and scenario, at several volumes.

    Args:
        scenarios: by name, the usage of every billed attempt of a run, or a function from provider and model to
            the dollars that one request costs.
        requests: how many requests caused those attempts, in all scenarios or in each.
        models: provider and model.
        at: the day whose prices count. A stored table needs one, since prices change on announced days.
        volumes: requests a day.
        caption: what the table shows; the version of the prices is added.
        highlight: the models or scenarios to emphasise.
    """
    billed = {name: each if callable(each) else Counter(each) for name, each in scenarios.items()}
    rows = []
    for provider, model in models:
        for name, each in billed.items():
            count = requests if isinstance(requests, int) else requests[name]
            dollars = (
                each(provider, model) if callable(each) else _mean(each, provider, model, count, at)
            )
            rows.append(
                {"Model": model, "Scenario": name}
                | {f"{volume:,} requests a day": dollars * volume for volume in volumes}
            )
    money = {f"{volume:,} requests a day": "$,.2f" for volume in volumes}
    return table(
        rows,
        caption=f"{caption} (prices: {_edition(at)})",
        formats=dict.fromkeys(money, _dollars),
        highlight=highlight,
    )


def _mean(
    usages: Counter[Usage], provider: str, model: str, requests: int, at: datetime | None
) -> Decimal:
    total = sum(
        (
            price_of(usage, model, provider=provider, at=at) * count
            for usage, count in usages.items()
        ),
        Decimal(0),
    )
    return total / requests


def _edition(at: datetime | None) -> str:
    return price_source() + (f", for {at:%Y-%m-%d}" if at else "")


def _dollars(value: object) -> str:
    return f"${value:,.2f}"
