"""What does each call cost, and who caused it? Exact dollars, by label.

A price is looked up for each request, since it can depend on the request: many models charge all of
a request's tokens at a higher rate once its input passes a threshold, so a month's tokens priced in
one go give a wrong bill. Prices come from the price library (`genai-prices`) or from a table of
your own. Costs add up as decimals, in one series for each combination of labels, of which there may
only be so many.

Invariants:

1. Every recorded call is in exactly one series: the series add up to the total, exactly.
2. The order of calls does not matter.
3. There are never more than `max_series` series and one for the overflow; nothing is lost to the
bound. 4. A call that cannot be priced is counted as such and never fails the call it belongs to.

>>> price = ModelPrice(input_usd_per_mtok="2", output_usd_per_mtok="10")
>>> costs = CostTracker(CostPolicy(prices={"house-model": price}))
>>> usage = Usage(input_tokens=500, output_tokens=200)
>>> costs.record(usage, "house-model", labels={"feature": "search", "outcome": "answer"})
Decimal('0.003')
>>> costs.record(usage, "house-model", labels={"feature": "search", "outcome": "retry"})
Decimal('0.003')
>>> {outcome: str(cost.usd) for outcome, cost in costs.statistics().by("outcome").items()}
{'answer': '0.003', 'retry': '0.003'}

Source of the prices and of the rule for thresholds: github.com/pydantic/genai-prices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Context, Decimal, localcontext
from difflib import get_close_matches
from functools import reduce
from importlib.metadata import version
from operator import add
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from llm_patterns import clock
from llm_patterns.chat import Usage
from llm_patterns.errors import LLMPatternsError
from llm_patterns.events import EventHook, emit
from llm_patterns.layers import Layer

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelPrice as Rates
    from genai_prices.types import TieredPrices

__all__ = [
    "Cost",
    "CostPolicy",
    "CostRecorded",
    "CostStatistics",
    "CostTracker",
    "ModelPrice",
    "UnknownModel",
    "model_price",
    "price_of",
    "price_source",
    "usage_of",
]

P = ParamSpec("P")
R = TypeVar("R")

OVERFLOW: Final = "(other)"
"""The value of every label in the series that takes what the bound on series keeps out."""

_EXACT: Final = Context(prec=60)  # A trillion dollars to forty places: no sum here is ever rounded.
_NOTHING: Final[Mapping[str, str]] = {}


class UnknownModel(LLMPatternsError, LookupError):
    """No price is known for a model: `model`, `provider` (or None), and the nearest known ids in `near`."""

    def __init__(self, model: str, provider: str | None, near: tuple[str, ...]) -> None:
        self.model = model
        self.provider = provider
        self.near = near
        whose = f" of provider {provider!r}" if provider else ""
        hint = f" (did you mean {', '.join(near)}?)" if near else ""
        super().__init__(
            f"no token price is known for model {model!r}{whose}{hint}; "
            f"to set one, pass prices={{{model!r}: ModelPrice(...)}}"
        )


class ModelPrice(BaseModel):
    """What a model charges, in dollars a million tokens.

    Amounts are decimals, integers or text. A float is refused: 0.1 as a float is not a tenth.

    >>> ModelPrice(input_usd_per_mtok="0.15", output_usd_per_mtok="0.60").price(Usage(input_tokens=1))
    Decimal('1.5E-7')
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_usd_per_mtok: Decimal = Field(ge=0, allow_inf_nan=False)
    cached_input_usd_per_mtok: Decimal | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="None: cached input costs as any other.",
    )
    output_usd_per_mtok: Decimal = Field(ge=0, allow_inf_nan=False)
    usd_per_request: Decimal = Field(default=Decimal(0), ge=0, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_floats(cls, value: object) -> object:
        if isinstance(value, float):
            message = f"a price must be exact: write '{value}' as text, or a Decimal"
            raise ValueError(message)  # noqa: TRY004 - what pydantic turns into its own error
        return value

    def price(self, usage: Usage) -> Decimal:
        """Return the exact dollars for *usage*."""
        cached = self.cached_input_usd_per_mtok
        with localcontext(_EXACT):
            per_mtok = (
                self.input_usd_per_mtok * usage.input_tokens
                + (self.input_usd_per_mtok if cached is None else cached)
                * usage.cached_input_tokens
                + self.output_usd_per_mtok * usage.output_tokens
            )
            return per_mtok.scaleb(-6).normalize() + self.usd_per_request


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
        with localcontext(_EXACT):
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


def price_of(
    usage: Usage,
    model: str,
    *,
    provider: str | None = None,
    prices: Mapping[str, ModelPrice] | None = None,
    at: datetime | None = None,
) -> Decimal:
    """Return the exact dollars that one request with *usage* costs.

    >>> price_of(Usage(input_tokens=500, output_tokens=200), "gpt-4o", provider="openai")
    Decimal('0.00325')

    *prices* come before the price library's. *at* is when the request was made (default: now),
    since prices change. Never pass the sum of many requests: thresholds apply to each. Raises
    `UnknownModel`.
    """
    if prices and model in prices:
        return prices[model].price(usage)
    read = usage.input_tokens + usage.cached_input_tokens
    return model_price(model, provider=provider, input_tokens=read, at=at).price(usage)


def model_price(
    model: str,
    *,
    provider: str | None = None,
    input_tokens: int = 0,
    at: datetime | None = None,
) -> ModelPrice:
    """Return the price library's rates for a request that reads *input_tokens*, cached ones
    included.

    >>> model_price("gpt-4o", provider="openai").output_usd_per_mtok
    Decimal('10')

    Raises `UnknownModel`, also for a model that the library knows but not by the token.
    """
    rates = _rates(model, provider, at)
    written = _rate(rates.output_mtok, input_tokens)
    read = _rate(rates.input_mtok, input_tokens)
    if read is None:
        raise UnknownModel(model, provider, ())
    requests = _rate(rates.requests_kcount, input_tokens) or Decimal(0)
    return ModelPrice(
        input_usd_per_mtok=read,
        cached_input_usd_per_mtok=_rate(rates.cache_read_mtok, input_tokens),
        output_usd_per_mtok=written or Decimal(0),
        usd_per_request=requests.scaleb(-3),
    )


def price_source() -> str:
    """Return which edition of the price library speaks, for the foot of a table.

    >>> price_source().startswith("genai-prices ")
    True
    """
    snapshot = _snapshot()
    updated = f", updated {snapshot.timestamp:%Y-%m-%d}" if snapshot.from_auto_update else ""
    return f"genai-prices {version('genai-prices')}{updated}"


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


def _rates(model: str, provider: str | None, at: datetime | None) -> Rates:
    try:
        _, info = _snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        raise UnknownModel(model, provider, _near(model, provider)) from None
    return info.get_prices(at or datetime.fromtimestamp(clock.now(), UTC))


def _near(model: str, provider: str | None) -> tuple[str, ...]:
    snapshot = _snapshot()
    try:
        providers = [snapshot.find_provider(None, provider, None)]
    except LookupError:
        providers = snapshot.providers
    known = {info.id: None for it in providers for info in it.models}
    return tuple(get_close_matches(model.lower(), known, n=3, cutoff=0.6))


def _snapshot() -> DataSnapshot:
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 - it takes 0.2 s

    return get_snapshot()


def _rate(rate: Decimal | TieredPrices | None, input_tokens: int) -> Decimal | None:
    """Return the rate of a request of *input_tokens*: past a threshold, it holds for all of them."""
    if rate is None or isinstance(rate, Decimal):
        return rate
    passed = [tier.price for tier in rate.tiers if input_tokens > tier.start]
    return passed[-1] if passed else rate.base


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
