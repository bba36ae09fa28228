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
    UnknownTier,
    model_price,
    price_of,
    price_source,
)

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUSE = ModelPrice(
    input_usd_per_mtok=Decimal("0.3"),
    cached_input_usd_per_mtok=Decimal("0.07"),
    cache_write_usd_per_mtok=Decimal("0.4"),
    cache_write_1h_usd_per_mtok=Decimal("0.6"),
    output_usd_per_mtok=Decimal("1.1"),
)
PRICED = [
    (provider.id, model)
    for provider in get_snapshot().providers
    for model in provider.models
    if model.get_prices(AT).input_mtok is not None and provider.find_model(model.id) is model
]
PLAIN = Usage(input_tokens=1_234, output_tokens=567)
LONG = Usage(
    input_tokens=300_001,
    cached_input_tokens=1_700_000,
    cache_write_tokens=7_001,
    cache_write_1h_tokens=70_001,
    output_tokens=89,
)
TIERS = ("standard", "batch")
BATCHED = [
    (provider, model)
    for provider, model in PRICED
    if any(each.when == {"processing": "batch"} for each in model.price_variants or ())
]
tokens = st.integers(0, 2_000_000)
usages = st.builds(
    Usage,
    input_tokens=tokens,
    cached_input_tokens=tokens,
    cache_write_tokens=tokens,
    cache_write_1h_tokens=tokens,
    output_tokens=tokens,
)


def library_price(
    usage: Usage, model: str, provider: str | None, context: dict[str, str] | None = None
) -> Decimal:
    """What the price library itself charges; its input tokens include those of the cache."""
    theirs = genai_prices.Usage(
        input_tokens=usage.total_input_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens + usage.cache_write_1h_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_tokens=usage.output_tokens,
    )
    return genai_prices.calc_price(
        theirs,
        model,
        provider_id=provider,
        genai_request_timestamp=AT,
        price_context=context,
    ).total_price


@pytest.mark.parametrize(
    ("model", "provider"),
    [("gpt-6-sol", "openai"), ("claude-sonnet-5-5", "anthropic"), ("gemini-4-argon", "google")],
)
@given(usage=usages)
def test_current_models_cost_what_the_price_library_charges(
    model: str, provider: str, usage: Usage
) -> None:
    """Of three vendors' current models, at both tiers, for any mix of plain, cached and written tokens."""
    assert price_of(usage, model, provider=provider, at=AT) == library_price(usage, model, provider)
    batch = price_of(usage, model, provider=provider, tier="batch", at=AT)
    assert batch == library_price(usage, model, provider, {"processing": "batch"})


def test_every_model_priced_by_the_token_costs_what_the_price_library_charges() -> None:
    """Below and above every threshold, with and without tokens of a cache."""
    assert len(PRICED) > 1_000
    for provider, model in PRICED:
        for usage in (PLAIN, LONG):
            theirs = library_price(usage, model.id, provider)
            assert price_of(usage, model.id, provider=provider, at=AT) == theirs, model.id


def test_every_models_batch_costs_what_the_price_library_charges() -> None:
    """Half for plain tokens nearly everywhere; what cached ones cost is each model's own."""
    assert {provider for provider, _ in BATCHED} >= {"anthropic", "openai", "google", "x-ai"}
    ratios = set()
    for provider, model in BATCHED:
        for usage in (PLAIN, LONG):
            theirs = library_price(usage, model.id, provider, {"processing": "batch"})
            ours = price_of(usage, model.id, provider=provider, tier="batch", at=AT)
            assert ours == theirs, model.id
        cached = Usage(cached_input_tokens=1_000_000)
        usd = [price_of(cached, model.id, provider=provider, tier=t, at=AT) for t in TIERS]
        ratios.add(usd[1] / usd[0] if usd[0] else None)
    assert ratios > {Decimal("0.5"), Decimal(1)}


def test_other_tiers_cost_what_the_price_library_charges() -> None:
    """Under the vendor's own word for them."""
    for tier in ("flex", "priority"):
        theirs = library_price(LONG, "gpt-6-luna", "openai", {"service_tier": tier})
        assert price_of(LONG, "gpt-6-luna", provider="openai", tier=tier, at=AT) == theirs


@pytest.mark.parametrize(
    ("model", "provider", "tier", "at"),
    [
        ("deepseek-chat", "deepseek", "batch", AT),
        ("claude-sonnet-5-5", "anthropic", "batch", datetime(2026, 10, 13, tzinfo=UTC)),
        ("claude-sonnet-5-5", "anthropic", "priority", AT),
        ("gpt-6-luna", "openai", "bacth", AT),
    ],
    ids=["no batch price", "not on that day", "committed spend", "a typo"],
)
def test_a_price_of_a_tier_is_never_guessed(
    model: str, provider: str, tier: str, at: datetime
) -> None:
    """The price library itself would answer with the standard one."""
    with pytest.raises(UnknownTier, match=f"at tier '{tier}' on that day") as caught:
        price_of(PLAIN, model, provider=provider, tier=tier, at=at)
    assert ("batch_ratio" in str(caught.value)) == (tier == "batch")
    assert caught.value.tier == tier
    assert price_of(PLAIN, model, provider=provider, at=at) > 0


def test_an_own_price_has_the_batch_ratio_that_one_gives_it() -> None:
    """And without one, or for another tier, none."""
    usage = Usage(input_tokens=1_000_000)
    half = {"house": HOUSE.model_copy(update={"batch_ratio": Decimal("0.5")})}
    assert price_of(usage, "house", tier="batch", prices=half) == Decimal("0.15")
    for tier, prices in (("batch", {"house": HOUSE}), ("flex", half)):
        with pytest.raises(UnknownTier):
            price_of(usage, "house", tier=tier, prices=prices)


def test_tokens_written_to_a_cache_are_dearer_and_those_kept_an_hour_more_so() -> None:
    """At Anthropic, by a quarter and by as much again; at OpenAI since GPT-5.6 by a quarter, before that by nothing."""
    million = 1_000_000
    used = [Usage(input_tokens=million), Usage(cache_write_tokens=million)]
    used.append(Usage(cache_write_1h_tokens=million))
    usd = [price_of(each, "claude-sonnet-5-5", provider="anthropic", at=AT) for each in used]
    assert [each / usd[0] for each in usd] == [1, Decimal("1.25"), 2]
    for model, times in (("gpt-6-luna", Decimal("1.25")), ("gpt-5.5", Decimal(1))):
        plain, written = (
            price_of(Usage(**{name: 9_000}), model, provider="openai", at=AT)
            for name in ("input_tokens", "cache_write_tokens")
        )
        assert written / plain == times


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
    """No discount is assumed, nor a surcharge."""
    price = ModelPrice(input_usd_per_mtok=Decimal(3), output_usd_per_mtok=Decimal(0))
    for name in ("cached_input_tokens", "cache_write_tokens", "cache_write_1h_tokens"):
        assert price.price(Usage(**{name: 1_000_000})) == 3
    price = price.model_copy(update={"cache_write_usd_per_mtok": Decimal(4)})
    assert price.price(Usage(cache_write_1h_tokens=1_000_000)) == 4


@given(usage=usages)
def test_prices_are_exact(usage: Usage) -> None:
    """A price equals the rational number, whatever decimal precision the caller works with."""
    with localcontext() as context:
        context.prec = 3
        usd = HOUSE.price(usage)
    exact = (
        Fraction("0.3") * usage.input_tokens
        + Fraction("0.07") * usage.cached_input_tokens
        + Fraction("0.4") * usage.cache_write_tokens
        + Fraction("0.6") * usage.cache_write_1h_tokens
        + Fraction("1.1") * usage.output_tokens
    ) / 1_000_000
    assert Fraction(usd) == exact


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.1, "must be exact: write '0.1' as text"),
        ("-1", "greater than or equal to 0"),
        ("NaN", "finite"),
        ("1e-19", "no more than 18 decimal places"),
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
