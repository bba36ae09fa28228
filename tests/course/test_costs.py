"""Dollars a day at a service's scale."""

import re
from datetime import UTC, datetime
from decimal import Decimal

from course import cost_table
from llm_patterns.chat import Usage
from llm_patterns.toolkit import price_of, price_source

DAY = datetime(2026, 11, 23, tzinfo=UTC)
MODEL = ("openai", "gpt-4o")


def test_every_billed_attempt_counts_towards_its_request() -> None:
    """Three attempts for two requests cost one and a half times the price, at each volume."""
    usage = Usage(input_tokens=500, output_tokens=200)
    each = price_of(usage, "gpt-4o", provider="openai", at=DAY)
    shown = cost_table({"Naive": [usage] * 3}, requests=2, models=[MODEL], at=DAY).text
    dollars = [Decimal(text.replace(",", "")) for text in re.findall(r"\$([\d,.]+)", shown)]
    expected = [each * 3 / 2 * volume for volume in (1_000, 10_000, 100_000)]
    assert dollars == [amount.quantize(Decimal("0.01")) for amount in expected]


def test_a_function_prices_what_a_run_cannot() -> None:
    """Dollars a request may come from anywhere."""
    shown = cost_table({"Flat": lambda provider, model: Decimal("0.5")}, models=[MODEL]).text
    assert "$500.00" in shown


def test_the_prices_say_where_and_when_they_are_from() -> None:
    """The caption names the edition and the day."""
    shown = cost_table({"Flat": lambda provider, model: Decimal(1)}, models=[MODEL], at=DAY)
    assert f"(prices: {price_source()}, for 2026-11-23)" in shown.text
