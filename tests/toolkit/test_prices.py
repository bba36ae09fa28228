"""Prices: exact dollars, the vendors' own rules, and no model that silently costs nothing."""

from datetime import UTC, datetime
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import genai_prices
import pytest
from genai_prices.data_snapshot import DataSnapshot, get_snapshot, set_custom_snapshot
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llm_patterns.chat import Usage
from llm_patterns.simulation.loop import simulate
from llm_patterns.toolkit.prices import (
    ModelPrice,
    UnknownModel,
    model_price,
    price_of,
    price_source,
)

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUSE = ModelPrice(
    input_usd_per_mtok=Decimal("0.3"),
    cached_input_usd_per_mtok=Decimal("0.07"),
    output_usd_per_mtok=Decimal("1.1"),
)
PRICED = [
    (provider.id, model)
    for provider in get_snapshot().providers
    for model in provider.models
    if model.get_prices(AT).input_mtok is not None and provider.find_model(model.id) is model
]
tokens = st.integers(0, 2_000_000)
usages = st.builds(Usage, input_tokens=tokens, cached_input_tokens=tokens, output_tokens=tokens)


def library_price(usage: Usage, model: str, provider: str | None) -> Decimal:
    """What the price library itself charges; its input tokens include the cached ones."""
    theirs = genai_prices.Usage(
        input_tokens=usage.input_tokens + usage.cached_input_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
    )
    return genai_prices.calc_price(
        theirs, model, provider_id=provider, genai_request_timestamp=AT
    ).total_price


@pytest.mark.parametrize(
    ("model", "provider"),
    [("gpt-6-sol", "openai"), ("claude-sonnet-5-5", "anthropic"), ("gemini-4-argon", "google")],
)
@given(usage=usages)
def test_current_models_cost_what_the_price_library_charges(
    model: str, provider: str, usage: Usage
) -> None:
    """Of three vendors' current models, for any mix of plain, cached and written tokens."""
    assert price_of(usage, model, provider=provider, at=AT) == library_price(usage, model, provider)


def test_every_model_priced_by_the_token_costs_what_the_price_library_charges() -> None:
    """Below and above every threshold, with and without cached tokens."""
    plain = Usage(input_tokens=1_234, output_tokens=567)
    long = Usage(input_tokens=300_001, cached_input_tokens=1_700_000, output_tokens=89)
    assert len(PRICED) > 1_000
    for provider, model in PRICED:
        for usage in (plain, long):
            theirs = library_price(usage, model.id, provider)
            assert price_of(usage, model.id, provider=provider, at=AT) == theirs, model.id


def test_past_a_threshold_all_tokens_cost_more() -> None:
    """One token past 272,000 of input, every token is at the higher rate, cached ones counted in."""
    below = Usage(input_tokens=172_000, cached_input_tokens=100_000)
    above = Usage(input_tokens=172_001, cached_input_tokens=100_000)
    at_base = model_price("gpt-6-sol", provider="openai", input_tokens=272_000, at=AT)
    assert price_of(below, "gpt-6-sol", provider="openai", at=AT) == at_base.price(below)
    assert price_of(above, "gpt-6-sol", provider="openai", at=AT) > at_base.price(above) * Decimal(
        "1.9"
    )


def test_a_price_is_that_of_the_day_of_the_request() -> None:
    """A change announced for 2027 holds from its day on."""
    usage = Usage(input_tokens=1_000_000)
    before, after = (
        price_of(usage, "gemini-4-argon", provider="google", at=datetime(year, 1, 1, tzinfo=UTC))
        for year in (2026, 2027)
    )
    assert before != after


def test_a_simulations_prices_are_those_of_its_own_day() -> None:
    """Without a date, a price is that of the clock, which a simulation owns."""
    usage = Usage(input_tokens=1_000_000)

    async def main() -> Decimal:
        return price_of(usage, "gemini-4-argon", provider="google")

    for year in (2026, 2027):
        day = datetime(year, 1, 5, tzinfo=UTC)
        priced = price_of(usage, "gemini-4-argon", provider="google", at=day)
        assert simulate(main, start=day) == priced


def test_own_prices_come_before_the_librarys() -> None:
    """A contract's price overrides the list's."""
    usage = Usage(input_tokens=1_000_000, cached_input_tokens=1_000_000, output_tokens=1_000_000)
    assert price_of(usage, "gpt-4o", prices={"gpt-4o": HOUSE}) == Decimal("1.47")


def test_cached_tokens_without_a_price_of_their_own_cost_as_any_other() -> None:
    """No discount is assumed."""
    price = ModelPrice(input_usd_per_mtok=Decimal(3), output_usd_per_mtok=Decimal(0))
    assert price.price(Usage(cached_input_tokens=1_000_000)) == 3


@given(usage=usages)
def test_prices_are_exact(usage: Usage) -> None:
    """A price equals the rational number, whatever decimal precision the caller works with."""
    with localcontext() as context:
        context.prec = 3
        usd = HOUSE.price(usage)
    exact = (
        Fraction("0.3") * usage.input_tokens
        + Fraction("0.07") * usage.cached_input_tokens
        + Fraction("1.1") * usage.output_tokens
    ) / 1_000_000
    assert Fraction(usd) == exact


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.1, "must be exact: write '0.1' as text"),
        ("-1", "greater than or equal to 0"),
        ("NaN", "finite"),
        ("cheap", "valid decimal"),
    ],
)
def test_prices_that_are_not_exact_amounts_are_refused(value: Any, message: str) -> None:
    """Floats, negative and unreadable amounts fail when the price is built."""
    with pytest.raises(ValidationError, match=message):
        ModelPrice(input_usd_per_mtok=value, output_usd_per_mtok=Decimal(1))


@pytest.mark.parametrize("provider", ["openai", None])
def test_an_unknown_model_is_an_error_that_names_near_ones_and_the_remedy(
    provider: str | None,
) -> None:
    """A typo is answered with the right id and with how to set a price."""
    with pytest.raises(UnknownModel) as caught:
        price_of(Usage(input_tokens=1), "gpt-6-soll", provider=provider)
    assert caught.value.near[0] == "gpt-6-sol"
    assert "did you mean gpt-6-sol" in str(caught.value)
    assert "prices={'gpt-6-soll': ModelPrice(...)}" in str(caught.value)


def test_a_model_like_no_other_is_an_error_without_guesses() -> None:
    """Nothing near, nothing guessed; an unknown provider is named."""
    with pytest.raises(UnknownModel, match=r"'zzz' of provider 'nobody'; to set one") as caught:
        model_price("zzz", provider="nobody")
    assert (caught.value.near, caught.value.provider) == ((), "nobody")


def test_a_model_without_token_prices_is_unknown() -> None:
    """A model priced by the hour would otherwise silently cost nothing."""
    with pytest.raises(UnknownModel, match="no token price is known for model 'whisper-1'"):
        price_of(Usage(input_tokens=1), "whisper-1", provider="openai")


def test_the_price_source_names_edition_and_update() -> None:
    """A table's foot says whose prices these are, and since when if they were updated while running."""
    assert price_source() == f"genai-prices {genai_prices.__version__}"
    bundled = get_snapshot()
    set_custom_snapshot(DataSnapshot(bundled.providers, from_auto_update=True, timestamp=AT))
    try:
        assert price_source() == f"genai-prices {genai_prices.__version__}, updated 2026-11-23"
    finally:
        set_custom_snapshot(None)
