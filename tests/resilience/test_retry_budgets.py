"""Each budget's own rule, by example; what holds for all of them is in the properties."""

from collections.abc import Callable

import pytest

from llm_patterns.errors import ConfigurationError, ErrorKind, Failure
from llm_patterns.resilience import (
    EarnedBudget,
    InFlightBudget,
    QuotaBucket,
    RetryBudget,
    ThrottleBucket,
    Unlimited,
    WindowBudget,
)

FAILURE, TIMEOUT = Failure(ErrorKind.SERVER), Failure(ErrorKind.TIMEOUT)
NAN, INFINITY = float("nan"), float("inf")


def granted(budget: RetryBudget, now: float = 0.0, *, most: int = 1_000) -> int:
    """How many retries it grants in a row, none of which succeeds."""
    count = 0
    while count < most and (permit := budget.acquire(FAILURE, now)) is not None:
        budget.release(permit, succeeded=False)
        count += 1
    return count


def calls(budget: RetryBudget, count: int, *, now: float = 0.0, succeed: bool = True) -> None:
    """Make *count* calls that are over at once."""
    for _ in range(count):
        budget.begin(now)
        if succeed:
            budget.succeeded()
        budget.end()


def test_a_quiet_process_has_its_floor() -> None:
    """A lone failure can be retried before anything was earned."""
    assert granted(EarnedBudget(floor=2)) == 2


def test_successes_earn_retries() -> None:
    """A tenth of a hundred, on a bucket that was empty."""
    budget = EarnedBudget(ratio=0.1, floor=2)
    granted(budget)
    calls(budget, 100)
    assert granted(budget) == 10


def test_failed_calls_earn_nothing() -> None:
    """They make room for what successes earn, and no more."""
    budget = EarnedBudget(ratio=0.1, floor=2)
    calls(budget, 100, succeed=False)
    assert granted(budget) == 2


def test_what_was_earned_expires_with_the_window() -> None:
    """Only the floor is left when the traffic that earned it is gone."""
    budget = EarnedBudget(ratio=0.1, floor=2, window=10)
    calls(budget, 100)
    assert budget.statistics(9).level == 10
    assert budget.statistics(10).level == 2


def test_a_retry_that_succeeds_is_free() -> None:
    """Brooker's bucket gives its cost back."""
    budget = EarnedBudget(floor=1)
    for _ in range(5):
        permit = budget.acquire(FAILURE, 0.0)
        assert permit is not None
        budget.release(permit, succeeded=True)
    assert granted(budget) == 1


def test_finagle_allows_a_share_of_recent_calls_and_a_minimum() -> None:
    """A fifth of fifty calls, and one a second for ten seconds."""
    budget = WindowBudget(ratio=0.2, min_per_second=1, window=10)
    calls(budget, 50)
    assert granted(budget) == 20
    assert granted(budget, now=10) == 10


def test_envoy_allows_a_share_of_what_is_in_flight() -> None:
    """A fifth of fifty, and again when one of them is over; the minimum without any."""
    budget = InFlightBudget(ratio=0.2, min_concurrency=3)
    assert granted(budget, most=5) == 5  # each is over before the next
    for _ in range(50):
        budget.begin(0.0)
    permits = [budget.acquire(FAILURE, 0.0) for _ in range(11)]
    assert permits.count(None) == 1
    budget.release(1.0, succeeded=False)
    assert budget.acquire(FAILURE, 0.0) is not None


def test_grpc_stops_at_half_and_returns_above_it() -> None:
    """Ten tokens: the fifth failure closes it, one success of a tenth opens it again."""
    budget = ThrottleBucket(max_tokens=10, token_ratio=0.1)
    allowed = []
    for _ in range(5):
        budget.failed(FAILURE)
        allowed.append(budget.acquire(FAILURE, 0.0) is not None)
    assert allowed == [True, True, True, True, False]
    budget.succeeded()
    assert budget.acquire(FAILURE, 0.0) is not None


def test_aws_charges_more_after_a_time_out() -> None:
    """500 tokens are a hundred retries, or fifty after time-outs."""
    assert granted(QuotaBucket()) == 100
    budget = QuotaBucket()
    assert sum(budget.acquire(TIMEOUT, 0.0) is not None for _ in range(100)) == 50


def test_aws_refunds_one_for_a_first_attempt_that_succeeds() -> None:
    """Five successes pay for one retry."""
    budget = QuotaBucket()
    granted(budget)
    calls(budget, 5)
    assert granted(budget) == 1


def test_without_a_budget_all_is_granted() -> None:
    """And it is always full."""
    budget = Unlimited()
    assert granted(budget, most=1_000) == 1_000
    assert budget.statistics(0).ratio == 1


def test_statistics_tell_level_and_decisions() -> None:
    """What a gauge and two counters show."""
    budget = EarnedBudget(floor=4)
    budget.acquire(FAILURE, 0.0)
    seen = budget.statistics(0.0)
    assert (seen.level, seen.capacity, seen.ratio, seen.granted, seen.refused) == (3, 4, 0.75, 1, 0)
    granted(budget)
    assert budget.statistics(0.0).refused == 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: EarnedBudget(ratio=1.5), "ratio is 1.5"),
        (lambda: EarnedBudget(ratio=NAN), "ratio is nan"),
        (lambda: EarnedBudget(floor=INFINITY), "floor is inf"),
        (lambda: EarnedBudget(window=0), "window is 0 s; it must be positive"),
        (lambda: WindowBudget(min_per_second=-1), "min_per_second is -1"),
        (lambda: InFlightBudget(min_concurrency=-1), "min_concurrency is -1"),
        (lambda: ThrottleBucket(max_tokens=1001), "max_tokens is 1001"),
        (lambda: ThrottleBucket(token_ratio=NAN), "token_ratio is nan"),
        (lambda: ThrottleBucket(token_ratio=0), "token_ratio is 0"),
        (lambda: QuotaBucket(capacity=4), "retry_cost is 5.0 and capacity is 4"),
        (lambda: QuotaBucket(timeout_cost=0), "timeout_cost is 0"),
        (lambda: QuotaBucket(success_refund=NAN), "success_refund is nan"),
    ],
)
def test_a_budget_that_cannot_work_is_refused_when_made(
    make: Callable[[], RetryBudget], said: str
) -> None:
    """The message names the value."""
    with pytest.raises(ConfigurationError, match=said):
        make()
