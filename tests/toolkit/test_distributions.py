"""Distributions: the error that is stated, the bound on bins, sums, and windows that turn by whole slices."""

import sys
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_patterns.errors import ConfigurationError
from llm_patterns.toolkit.distributions import Distribution, WindowedDistribution
from tests.toolkit import latency_invariants as invariants
from tests.toolkit.latency_invariants import ERRORS, PARTS, TIMES, VALUES


@given(VALUES, ERRORS)
def test_a_quantile_is_within_the_stated_error(values: list[float], error: float) -> None:
    """Invariant 1, against the exact value of the same rank."""
    invariants.quantiles(values, error)


@given(VALUES, st.sampled_from([1, 7, 130, 300]))
def test_there_are_never_more_bins_than_the_bound(values: list[float], max_bins: int) -> None:
    """Invariant 2: memory does not grow, the slow end keeps its error, and nothing is lost."""
    invariants.bounded_bins(values, max_bins)


@given(PARTS)
def test_parts_add_up_to_the_whole(parts: list[list[float]]) -> None:
    """Invariant 3, also after a journey as bins, and without a change to the parts."""
    invariants.sums(parts)


@given(TIMES, st.sampled_from([1, 2, 4]))
def test_a_window_turns_by_whole_slices(times: list[tuple[float, int]], slices: int) -> None:
    """Invariant 4: exact at the granularity of a slice, for any times between records."""
    invariants.windows(times, slices)


def test_a_million_values_fit_into_a_few_hundred_bins() -> None:
    """A millisecond to a minute, at one percent."""
    seen = Distribution()
    for step in range(100_000):
        seen.record(0.001 * 60_000 ** (step / 100_000), count=10)
    assert seen.count == 1_000_000
    assert 500 < len(seen.bins()) < 600


def test_what_is_empty_has_no_latency() -> None:
    """Zero would look perfect."""
    empty = Distribution()
    assert (empty.count, empty.bins()) == (0, [])
    assert (empty.mean, empty.max, empty.p50, empty.p90, empty.p99) == (None,) * 5
    assert empty.share_over(1) is None


def test_the_named_quantiles_are_those() -> None:
    """To within the error."""
    seen = Distribution()
    for value in range(1, 101):
        seen.record(value)
    assert [seen.p50, seen.p90, seen.p99] == pytest.approx([50, 90, 99], rel=0.01)
    assert (seen.mean, seen.max) == (50.5, 100)


def test_a_share_over_a_threshold() -> None:
    """Counted by bins, so a threshold is as sharp as the error."""
    seen = Distribution()
    for value in range(1, 101):
        seen.record(value)
    assert seen.share_over(80.5) == pytest.approx(0.2, abs=0.01)
    assert (seen.share_over(0), seen.share_over(1000)) == (1, 0)


def test_zero_is_a_value() -> None:
    """It has no logarithm, and a bin of its own."""
    seen = Distribution()
    seen.record(0, count=3)
    seen.record(1)
    assert (seen.p50, seen.bins()[0], seen.share_over(0)) == (0, (0, 3), 0.25)


@pytest.mark.parametrize("value", [-1, inf, nan])
def test_what_is_no_duration_is_refused(value: float) -> None:
    """And not counted."""
    seen = Distribution()
    with pytest.raises(ValueError, match="can't be"):
        seen.record(value)
    assert seen.count == 0


@pytest.mark.parametrize("q", [-0.1, 1.1, 99])
def test_a_quantile_is_a_share(q: float) -> None:
    """99 is not 0.99."""
    with pytest.raises(ValueError, match="a share from 0 to 1"):
        Distribution().quantile(q)


def test_distributions_of_different_errors_do_not_add_up() -> None:
    """Their bins are not the same."""
    with pytest.raises(ConfigurationError, match=r"0\.01 and 0\.02"):
        Distribution() + Distribution(relative_error=0.02)


@pytest.mark.parametrize("options", [{"relative_error": 0}, {"relative_error": 1}, {"max_bins": 0}])
def test_settings_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    """When made."""
    with pytest.raises(ConfigurationError, match="relative_error is"):
        Distribution(**options)


@pytest.mark.parametrize("options", [{"window": 0}, {"window": inf}, {"slices": 0}])
def test_windows_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    """When made."""
    with pytest.raises(ConfigurationError, match="window is"):
        WindowedDistribution(**options)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the first distribution is made, and not when the module is imported."""
    monkeypatch.setitem(sys.modules, "ddsketch.ddsketch", None)
    with pytest.raises(ConfigurationError, match=r"production-llm-patterns\[latency\]"):
        Distribution()
