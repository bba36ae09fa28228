"""What one request costs: exact dollars from the price library, or from a table of your own.

A price is looked up for each request, since it can depend on the request: many models charge all of
a request's tokens at a higher rate once its input passes a threshold, so a month's tokens priced in
one go give a wrong bill. It also depends on the day: announced changes are in the price library.

>>> usage = Usage(input_tokens=500, cached_input_tokens=1_500, output_tokens=200)
>>> price_of(usage, "gpt-4o", provider="openai")
Decimal('0.005125')

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

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelPrice as Rates
    from genai_prices.types import TieredPrices

__all__ = ["EXACT", "ModelPrice", "UnknownModel", "model_price", "price_of", "price_source"]

EXACT: Final = Context(prec=60)
"""Arithmetic of money: a trillion dollars to forty places, so that no sum here is ever rounded."""


class UnknownModel(LLMPatternsError, LookupError):
    """No price is known for `model` of `provider` (or None); `near` has the nearest known ids."""

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

    >>> price = ModelPrice(input_usd_per_mtok=Decimal("0.15"), output_usd_per_mtok=Decimal("0.60"))
    >>> price.price(Usage(input_tokens=1))
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
        with localcontext(EXACT):
            per_mtok = (
                self.input_usd_per_mtok * usage.input_tokens
                + (self.input_usd_per_mtok if cached is None else cached)
                * usage.cached_input_tokens
                + self.output_usd_per_mtok * usage.output_tokens
            )
            return per_mtok.scaleb(-6).normalize() + self.usd_per_request


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
