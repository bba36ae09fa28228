"""What does each call cost, and who caused it? Exact dollars, by label.

Each request is priced by itself (see `llm_patterns.toolkit.prices`), and the costs add up as
decimals, in one series for each combination of labels: tenant, feature, outcome. There may only be
so many series, since one for each user would grow without end.

Invariants:

1. Every recorded call is in exactly one series: the series add up to the total, exactly.
2. The order of calls does not matter.
3. There are never more than `max_series` series and one for the overflow; nothing is lost to it.
4. A call that a layer cannot price is counted as such, and its answer passes all the same.

>>> price = ModelPrice(input_usd_per_mtok=Decimal(2), output_usd_per_mtok=Decimal(10))
>>> costs = CostTracker(CostPolicy(prices={"house-model": price}))
>>> usage = Usage(input_tokens=500, output_tokens=200)
>>> costs.record(usage, "house-model", labels={"feature": "search", "outcome": "answer"})
Decimal('0.003')
>>> costs.record(usage, "house-model", labels={"feature": "search", "outcome": "retry"})
Decimal('0.003')
>>> {outcome: str(cost.usd) for outcome, cost in costs.statistics().by("outcome").items()}
{'answer': '0.003', 'retry': '0.003'}
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from functools import reduce
from operator import add
from threading import Lock
from typing import Any, Final, ParamSpec, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from llm_patterns.chat import Usage
from llm_patterns.events import EventHook, emit
from llm_patterns.layers import Layer
from llm_patterns.toolkit.prices import EXACT, ModelPrice, UnknownModel, price_of

__all__ = [
    "Cost",
    "CostPolicy",
    "CostRecorded",
    "CostStatistics",
    "CostTracker",
    "price_of",
    "usage_of",
]

P = ParamSpec("P")
R = TypeVar("R")

OVERFLOW: Final = "(other)"
"""The value of every label in the series that takes what the bound on series keeps out."""

_NOTHING: Final[Mapping[str, str]] = {}


class CostPolicy(BaseModel):
    """How costs are counted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prices: Mapping[str, ModelPrice] = Field(
        default_factory=dict,
        description="Prices of your own by model id, before the price library's: contracts, own machines.",
    )
    max_series: int = Field(
        default=1_000,
        ge=1,
        le=100_000,
        description="Combinations of labels kept apart; later ones share one series. A label with "
        "a value for each user or request would otherwise grow without end.",
    )


@dataclass(frozen=True, slots=True)
class Cost:
    """What some calls used and cost."""

    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    usd: Decimal = Decimal(0)

    def __add__(self, other: Self) -> Cost:
        with localcontext(EXACT):
            return Cost(self.calls + other.calls, self.usage + other.usage, self.usd + other.usd)


@dataclass(frozen=True, slots=True)
class CostRecorded:
    """A call was counted. `usd` is None where it could not be priced."""

    model: str | None
    usage: Usage | None
    usd: Decimal | None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CostStatistics:
    """A snapshot: the cost of each series, and how many calls could not be priced."""

    series: Mapping[tuple[tuple[str, str], ...], Cost]
    unpriced: int

    @property
    def total(self) -> Cost:
        """Return the cost of all calls."""
        return reduce(add, self.series.values(), Cost())

    def by(self, label: str) -> dict[str, Cost]:
        """Return the costs by value of *label* (`model` is one), sorted; calls without it are under ""."""
        groups: dict[str, Cost] = defaultdict(Cost)
        for labels, cost in self.series.items():
            value = OVERFLOW if labels == _OVERFLOW_KEY else dict(labels).get(label, "")
            groups[value] += cost
        return dict(sorted(groups.items()))


_OVERFLOW_KEY: Final = (("model", OVERFLOW),)


def usage_of(response: object) -> Usage | None:
    """Return the usage that any client's *response* reports, by its shape, or None.

    Understands this library's, OpenAI's (chat completions, responses, embeddings) and Anthropic's,
    as objects or as decoded JSON. Input tokens that Anthropic writes to its cache count as plain
    input, which understates their price by the vendor's surcharge (a quarter, or double for an
    hour's cache, in 2026).

    >>> usage_of({"usage": {"prompt_tokens": 100, "completion_tokens": 5,
    ...                     "prompt_tokens_details": {"cached_tokens": 80}}})
    Usage(input_tokens=20, cached_input_tokens=80, output_tokens=5)
    """
    usage = _get(response, "usage")
    if isinstance(usage, Usage) or usage is None:
        return usage
    if _get(usage, "prompt_tokens") is not None:
        return _openai_usage(usage, "prompt_tokens", "completion_tokens")
    if _get(usage, "input_tokens_details") is not None:
        return _openai_usage(usage, "input_tokens", "output_tokens")
    if _get(usage, "input_tokens") is not None:
        return _anthropic_usage(usage)
    return None


class CostTracker:
    """Counts what calls cost, by label. Safe to share between tasks and threads.

    Use `record` where you have the usage, or put it on a call with `layer`.
    """

    def __init__(
        self,
        policy: CostPolicy | None = None,
        *,
        on_event: EventHook[CostRecorded] | None = None,
    ) -> None:
        self._policy = policy or CostPolicy()
        self._on_event = on_event
        self._series: dict[tuple[tuple[str, str], ...], Cost] = {}
        self._unpriced = 0
        self._lock = Lock()

    def record(
        self,
        usage: Usage,
        model: str,
        *,
        provider: str | None = None,
        labels: Mapping[str, str] = _NOTHING,
    ) -> Decimal:
        """Count one request and return its dollars. Raises `UnknownModel`, and then counts nothing.

        *labels* are whatever you want to ask by later: tenant, feature, outcome. `model` is one of
        them by itself.
        """
        usd = price_of(usage, model, provider=provider, prices=self._policy.prices)
        labels = {**labels, "model": model}
        with self._lock:
            key = self._key(tuple(sorted(labels.items())))
            self._series[key] = self._series.get(key, Cost()) + Cost(1, usage, usd)
        emit(self._on_event, CostRecorded(model, usage, usd, labels))
        return usd

    def layer(
        self,
        *,
        model: str | None = None,
        provider: str | None = None,
        labels: Mapping[str, str] = _NOTHING,
    ) -> Layer:
        """Return a layer that records what each answer reports of its usage.

        The model is the answer's own, else *model*. An answer without usage (a stream's opening,
        say) or of a model without a price passes all the same, and counts as unpriced. Put the
        layer inside a retry to count every attempt, outside to count what was delivered.
        """

        def wrap(call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
            async def recording(*args: P.args, **kwargs: P.kwargs) -> R:
                response = await call(*args, **kwargs)
                name = _get(response, "model")
                self._record_answer(
                    usage_of(response), name if isinstance(name, str) else model, provider, labels
                )
                return response

            return recording

        return wrap

    def statistics(self) -> CostStatistics:
        """Return a snapshot."""
        with self._lock:
            return CostStatistics(dict(self._series), self._unpriced)

    def _record_answer(
        self,
        usage: Usage | None,
        model: str | None,
        provider: str | None,
        labels: Mapping[str, str],
    ) -> None:
        if usage is not None and model is not None:
            with suppress(UnknownModel):  # An answer is worth more than its price.
                self.record(usage, model, provider=provider, labels=labels)
                return
        with self._lock:
            self._unpriced += 1
        emit(self._on_event, CostRecorded(model, usage, None, labels))

    def _key(self, key: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        room = len(self._series) < self._policy.max_series
        return key if room or key in self._series else _OVERFLOW_KEY


def _get(holder: object, name: str) -> object:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)


def _count(holder: object, name: str) -> int:
    value = _get(holder, name)
    return value if isinstance(value, int) else 0


def _openai_usage(usage: object, read: str, written: str) -> Usage:
    cached = _count(_get(usage, f"{read}_details"), "cached_tokens")
    return Usage(
        input_tokens=max(0, _count(usage, read) - cached),
        cached_input_tokens=cached,
        output_tokens=_count(usage, written),
    )


def _anthropic_usage(usage: object) -> Usage:
    return Usage(
        input_tokens=_count(usage, "input_tokens") + _count(usage, "cache_creation_input_tokens"),
        cached_input_tokens=_count(usage, "cache_read_input_tokens"),
        output_tokens=_count(usage, "output_tokens"),
    )
