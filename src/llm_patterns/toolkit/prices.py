"""What one request costs: exact dollars from the price library, or from a table of your own.

A price is looked up for each request, since it can depend on the request: many models charge all of
a request's tokens at a higher rate once its input passes a threshold, so a month's tokens priced in
one go give a wrong bill. It also depends on the day: announced changes are in the price library. And
it depends on the tier: a batch is half price for plain tokens at most vendors, but not for cached
ones, and not everywhere; so a model's batch price is known or it is an error, never guessed.

>>> usage = Usage(input_tokens=500, cached_input_tokens=1_500, output_tokens=200)
>>> price_of(usage, "gpt-4o", provider="openai")
Decimal('0.005125')
>>> price_of(usage, "gpt-4o", provider="openai", tier="batch")  # cached tokens have no discount of their own there
Decimal('0.0035')

Source of the prices and of the rule for thresholds: github.com/pydantic/genai-prices. Every model
that it prices by the token is held to its own calculation by the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Context, Decimal, localcontext
from difflib import get_close_matches
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

from llm_patterns import clock
from llm_patterns.chat import Usage
from llm_patterns.errors import LLMPatternsError
from llm_patterns.toolkit.usage import STANDARD

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelPrice as Rates
    from genai_prices.types import PriceVariant, TieredPrices

__all__ = [
    "EXACT",
    "ModelPrice",
    "UnknownModel",
    "UnknownTier",
    "model_price",
    "price_of",
    "price_source",
]

EXACT: Final = Context(prec=60)
"""Arithmetic of money: a trillion dollars to forty places, so that no sum here is ever rounded."""


class UnknownModel(LLMPatternsError, LookupError):
    """No price is known for `model` of `provider` (or None); `near` has the nearest known ids."""

    def __init__(self, model: str, provider: str | None, near: tuple[str, ...]) -> None:
        self.model = model
        self.provider = provider
        self.near = near
        super().__init__(self._message())

    def _message(self) -> str:
        whose = f" of provider {self.provider!r}" if self.provider else ""
        hint = f" (did you mean {', '.join(self.near)}?)" if self.near else ""
        return (
            f"no token price is known for model {self.model!r}{whose}{hint}; "
            f"to set one, pass prices={{{self.model!r}: ModelPrice(...)}}"
        )


class UnknownTier(UnknownModel):
    """The model's price is known, but not at `tier`, or not on the day of the request."""

    def __init__(self, model: str, provider: str | None, tier: str) -> None:
        self.tier = tier
        super().__init__(model, provider, ())

    def _message(self) -> str:
        told = f"no price is known for model {self.model!r} at tier {self.tier!r} on that day"
        if self.tier == BATCH:
            own = f"{{{self.model!r}: ModelPrice(..., batch_ratio=...)}}"
            return f"{told}; to set one, pass prices={own}"
        return f"{told}; record it as a model of its own, with prices={{'...': ModelPrice(...)}}"


BATCH: Final = "batch"

_RATE_DIGITS: Final = 18
"""Decimal places of a rate. Those of the price library's own arithmetic leave up to 18."""


class ModelPrice(BaseModel):
    """What a model charges, in dollars a million tokens.

    Amounts are decimals, integers or text. A float is refused: 0.1 as a float is not a tenth.

    >>> price = ModelPrice(input_usd_per_mtok=Decimal("0.15"), output_usd_per_mtok=Decimal("0.60"))
    >>> price.price(Usage(input_tokens=1))
    Decimal('1.5E-7')
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input_usd_per_mtok: Decimal = Field(ge=0, decimal_places=_RATE_DIGITS)
    cached_input_usd_per_mtok: Decimal | None = Field(
        default=None,
        ge=0,
        decimal_places=_RATE_DIGITS,
        description="None: input read from the cache costs as any other.",
    )
    cache_write_usd_per_mtok: Decimal | None = Field(
        default=None,
        ge=0,
        decimal_places=_RATE_DIGITS,
        description="None: input written to the cache costs as any other.",
    )
    cache_write_1h_usd_per_mtok: Decimal | None = Field(
        default=None,
        ge=0,
        decimal_places=_RATE_DIGITS,
        description="None: input to be kept an hour costs as what is kept the shorter time.",
    )
    output_usd_per_mtok: Decimal = Field(ge=0, decimal_places=_RATE_DIGITS)
    usd_per_request: Decimal = Field(default=Decimal(0), ge=0, decimal_places=_RATE_DIGITS)
    batch_ratio: Decimal | None = Field(
        default=None,
        gt=0,
        le=1,
        decimal_places=3,
        description="What a batch pays of these prices: 0.5 is half. None: not known, and so a batch is an error.",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_floats(cls, value: object) -> object:
        if isinstance(value, float):
            message = f"a price must be exact: write '{value}' as text, or a Decimal"
            raise ValueError(message)  # noqa: TRY004 - what pydantic turns into its own error
        return value

    def price(self, usage: Usage) -> Decimal:
        """Return the exact dollars for *usage*."""
        plain = self.input_usd_per_mtok
        written = _or(self.cache_write_usd_per_mtok, plain)
        with localcontext(EXACT):
            per_mtok = (
                plain * usage.input_tokens
                + _or(self.cached_input_usd_per_mtok, plain) * usage.cached_input_tokens
                + written * usage.cache_write_tokens
                + _or(self.cache_write_1h_usd_per_mtok, written) * usage.cache_write_1h_tokens
                + self.output_usd_per_mtok * usage.output_tokens
            )
            return per_mtok.scaleb(-6).normalize() + self.usd_per_request


def price_of(
    usage: Usage,
    model: str,
    *,
    provider: str | None = None,
    tier: str = STANDARD,
    prices: Mapping[str, ModelPrice] | None = None,
    at: datetime | None = None,
) -> Decimal:
    """Return the exact dollars that one request with *usage* costs.

    >>> price_of(Usage(input_tokens=500, output_tokens=200), "gpt-4o", provider="openai")
    Decimal('0.00325')

    *tier* is `standard`, `batch`, or the vendor's word for another (`flex`, `priority`). *prices*
    come before the price library's. *at* is when the request was made (default: now), since prices
    change. Never pass the sum of many requests: thresholds apply to each. Raises `UnknownModel`,
    whose subclass `UnknownTier` says that only the tier's price is not known.
    """
    own = (prices or {}).get(model)
    if own is not None:
        return _at_tier(own.price(usage), own, model, tier)
    read = usage.total_input_tokens
    return model_price(model, provider=provider, tier=tier, input_tokens=read, at=at).price(usage)


def model_price(
    model: str,
    *,
    provider: str | None = None,
    tier: str = STANDARD,
    input_tokens: int = 0,
    at: datetime | None = None,
) -> ModelPrice:
    """Return the price library's rates for a request that reads *input_tokens*, those of the cache
    included.

    >>> model_price("gpt-4o", provider="openai").output_usd_per_mtok
    Decimal('10')

    Raises `UnknownModel`, also for a model that the library knows but not by the token, and
    `UnknownTier`.
    """
    rates = _rates(model, provider, tier, at)
    written = _rate(rates.output_mtok, input_tokens)
    read = _rate(rates.input_mtok, input_tokens)
    if read is None:
        raise UnknownModel(model, provider, ())
    requests = _rate(rates.requests_kcount, input_tokens) or Decimal(0)
    return ModelPrice(
        input_usd_per_mtok=read,
        cached_input_usd_per_mtok=_rate(rates.cache_read_mtok, input_tokens),
        cache_write_usd_per_mtok=_rate(rates.cache_write_mtok, input_tokens),
        cache_write_1h_usd_per_mtok=_rate(rates.cache_write_1h_mtok, input_tokens),
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


def _at_tier(usd: Decimal, own: ModelPrice, model: str, tier: str) -> Decimal:
    if tier == STANDARD:
        return usd
    if tier != BATCH or own.batch_ratio is None:
        raise UnknownTier(model, None, tier)
    with localcontext(EXACT):
        return usd * own.batch_ratio


def _rates(model: str, provider: str | None, tier: str, at: datetime | None) -> Rates:
    try:
        _, info = _snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        raise UnknownModel(model, provider, _near(model, provider)) from None
    at = at or datetime.fromtimestamp(clock.now(), UTC)
    if tier == STANDARD:
        return info.get_prices(at)
    # Without a variant for it, the library would answer with the standard price.
    context = {"processing" if tier == BATCH else "service_tier": tier}
    if not any(each.when == context and _holds(each, at) for each in info.price_variants or ()):
        raise UnknownTier(model, provider, tier)
    return info.get_prices(at, context)


def _holds(variant: PriceVariant, at: datetime) -> bool:
    return variant.constraint is None or variant.constraint.active(at)


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


def _or(rate: Decimal | None, otherwise: Decimal) -> Decimal:
    return otherwise if rate is None else rate
