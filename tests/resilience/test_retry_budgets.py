"""What each budget grants, refuses, earns and gives back, told step by step."""

from collections.abc import Callable

import pytest

from llm_patterns.errors import ConfigurationError, ErrorKind, Failure
from llm_patterns.resilience import (
    BudgetStatistics,
    EarnedBudget,
    InFlightBudget,
    QuotaBucket,
    RetryBudget,
    ThrottleBucket,
    Unlimited,
    WindowBudget,
)

SERVER, TIMEOUT = Failure(ErrorKind.SERVER), Failure(ErrorKind.TIMEOUT)


def acquire(budget: RetryBudget, *, now: float = 0.0, failure: Failure = SERVER) -> float:
    """One retry that must be granted: its permit."""
    permit = budget.acquire(failure, now)
    assert permit is not None
    return permit


def grants(budget: RetryBudget, *, now: float = 0.0, failure: Failure = SERVER) -> int:
    """How many retries it grants, one after the other, until it refuses (or a thousand)."""
    return next((n for n in range(1_000) if budget.acquire(failure, now) is None), 1_000)


def level(budget: RetryBudget, *, now: float = 0.0) -> float:
    """What it holds."""
    return budget.statistics(now).level


def begin(budget: RetryBudget, calls: int, *, now: float = 0.0, succeed: bool = False) -> None:
    """Some calls begin, and succeed at the first attempt if told to."""
    for _ in range(calls):
        budget.begin(now)
        if succeed:
            budget.succeeded()


def test_granted_and_refused_retries_are_counted() -> None:
    """The statistics say how often it helped and how often it held back."""
    budget = EarnedBudget(floor=2)
    for _ in range(5):
        budget.acquire(SERVER, 0.0)
    assert budget.statistics(0.0) == BudgetStatistics(0.0, 2.0, granted=2, refused=3)
    assert budget.statistics(0.0).ratio == 0.0


@pytest.mark.parametrize(
    ("level", "capacity", "ratio"),
    [(1.0, 4.0, 0.25), (4.0, 4.0, 1.0), (0.0, 0.0, 1.0), (float("inf"), float("inf"), 1.0)],
)
def test_the_ratio_is_the_share_that_is_left(level: float, capacity: float, ratio: float) -> None:
    """A budget without an end, or without room, counts as full: there is nothing to alert on."""
    assert BudgetStatistics(level, capacity, granted=0, refused=0).ratio == ratio


def test_unlimited_never_refuses() -> None:
    """Not even after a thousand failures."""
    budget = Unlimited()
    assert grants(budget) == 1_000
    budget.release(1.0, succeeded=False)
    assert budget.statistics(0.0).ratio == 1.0


# --- EarnedBudget -----------------------------------------------------------------------------


def test_a_quiet_process_may_retry_a_lone_failure() -> None:
    """The floor is there before anything was earned, and is all there is."""
    assert grants(EarnedBudget(floor=2)) == 2


def test_successes_earn_retries() -> None:
    """A hundred of them earn ten at a tenth each."""
    budget = EarnedBudget(ratio=0.1, floor=0)
    begin(budget, 100, succeed=True)
    assert grants(budget) == 10


def test_failing_calls_earn_nothing() -> None:
    """Traffic makes room; only successes fill it."""
    budget = EarnedBudget(ratio=0.1, floor=1)
    begin(budget, 1_000)
    assert grants(budget) == 1


def test_the_room_is_what_recent_traffic_can_earn() -> None:
    """However many succeeded before: a good hour is no licence for a bad minute."""
    budget = EarnedBudget(ratio=0.1, floor=2, window=10)
    for second in range(3_600):
        begin(budget, 10, now=second, succeed=True)
    assert level(budget, now=3_600) <= 10.0


def test_credit_expires_with_the_window() -> None:
    """Back to the floor when the traffic is gone."""
    budget = EarnedBudget(ratio=0.1, floor=2, window=10)
    begin(budget, 100, succeed=True)
    assert (level(budget, now=8), level(budget, now=11)) == (10.0, 2.0)


@pytest.mark.parametrize(("succeeded", "left"), [(True, 2.0), (False, 1.0), (None, 2.0)])
def test_a_retry_costs_only_if_it_fails(succeeded: bool | None, left: float) -> None:
    """One that succeeds, or is never made, brings its cost back."""
    budget = EarnedBudget(floor=2)
    budget.release(acquire(budget), succeeded=succeeded)
    assert level(budget) == left


def test_a_fleet_that_fails_at_once_retries_its_floors_and_stops() -> None:
    """A hundred replicas with no success among them: `replicas * floor`, whatever their traffic."""
    fleet = [EarnedBudget(floor=2) for _ in range(100)]
    granted = 0
    for second in range(60):
        for budget in fleet:
            begin(budget, 10, now=second)
            granted += grants(budget, now=second)
    assert granted == 200


# --- WindowBudget -----------------------------------------------------------------------------


def test_calls_earn_retries_whatever_becomes_of_them() -> None:
    """A fifth of the window's traffic."""
    budget = WindowBudget(ratio=0.2, min_per_second=0)
    begin(budget, 50)
    assert grants(budget) == 10


def test_the_minimum_is_granted_without_traffic() -> None:
    """Ten a second for ten seconds, by Finagle's defaults."""
    assert grants(WindowBudget()) == 100


def test_calls_and_retries_leave_the_window() -> None:
    """After it nothing is owed and nothing is earned."""
    budget = WindowBudget(ratio=0.5, min_per_second=0.1, window=10)
    begin(budget, 4)
    assert grants(budget) == 3
    assert (grants(budget, now=9), grants(budget, now=20)) == (0, 1)


@pytest.mark.parametrize(("succeeded", "left"), [(True, 0.0), (False, 0.0), (None, 1.0)])
def test_a_window_s_retry_costs_if_it_was_made(succeeded: bool | None, left: float) -> None:
    """However it ended; only one that never began is taken back."""
    budget = WindowBudget(ratio=1, min_per_second=0)
    begin(budget, 1)
    budget.release(acquire(budget), succeeded=succeeded)
    assert level(budget) == left


def test_a_permit_that_outlived_the_window_is_worth_nothing() -> None:
    """Its slice counts other traffic now, and must not lose a retry to it."""
    budget = WindowBudget(ratio=0, min_per_second=0.2, window=10)
    old = acquire(budget, now=0)
    acquire(budget, now=10)
    budget.release(old, succeeded=None)
    assert level(budget, now=10) == 1.0


# --- InFlightBudget ---------------------------------------------------------------------------


def test_retries_are_a_share_of_what_is_in_flight() -> None:
    """A fifth of fifty calls; as calls end, the share shrinks."""
    budget = InFlightBudget(ratio=0.2, min_concurrency=0)
    begin(budget, 50)
    assert grants(budget) == 10
    for _ in range(25):
        budget.end()
    assert budget.statistics(0.0) == BudgetStatistics(0.0, 5.0, granted=10, refused=1)


def test_a_few_retries_may_always_run() -> None:
    """Three at once, by Envoy's defaults, even for one call."""
    budget = InFlightBudget()
    begin(budget, 1)
    assert grants(budget) == 3


@pytest.mark.parametrize("succeeded", [True, False, None])
def test_a_retry_that_is_over_makes_room(succeeded: bool | None) -> None:
    """However it ended: only concurrency counts."""
    budget = InFlightBudget(min_concurrency=1)
    budget.release(acquire(budget), succeeded=succeeded)
    assert grants(budget) == 1


# --- ThrottleBucket ---------------------------------------------------------------------------


def test_failures_drain_the_bucket_and_half_is_the_end() -> None:
    """Of ten tokens four failures leave six, the fifth leaves half: off."""
    budget = ThrottleBucket(max_tokens=10)
    granted = []
    for _ in range(5):
        budget.failed(SERVER)
        granted.append(budget.acquire(SERVER, 0.0) is not None)
    assert granted == [True, True, True, True, False]


def test_successes_open_it_again() -> None:
    """A tenth of a token each, and never above the maximum."""
    budget = ThrottleBucket(max_tokens=10, token_ratio=0.1)
    for _ in range(5):
        budget.failed(SERVER)
    budget.succeeded()
    assert budget.acquire(SERVER, 0.0) is not None
    for _ in range(100):
        budget.succeeded()
    assert level(budget) == 10.0


def test_it_never_holds_less_than_nothing() -> None:
    """An hour's outage takes no longer to forget than a minute's."""
    budget = ThrottleBucket(max_tokens=4)
    for _ in range(1_000):
        budget.failed(SERVER)
    assert level(budget) == 0.0


@pytest.mark.parametrize(("succeeded", "left"), [(True, 9.1), (False, 9.0), (None, 9.0)])
def test_a_retry_itself_takes_no_token(succeeded: bool | None, left: float) -> None:
    """Failures have drained the bucket already; a retry that succeeds refills as a call does."""
    budget = ThrottleBucket(max_tokens=10, token_ratio=0.1)
    budget.failed(SERVER)
    budget.release(acquire(budget), succeeded=succeeded)
    assert level(budget) == pytest.approx(left)


# --- QuotaBucket ------------------------------------------------------------------------------


@pytest.mark.parametrize(("failure", "granted"), [(SERVER, 100), (TIMEOUT, 50)])
def test_a_retry_after_a_time_out_costs_twice(failure: Failure, granted: int) -> None:
    """500 tokens, 5 for a retry and 10 after a time-out, by the SDKs' defaults."""
    assert grants(QuotaBucket(), failure=failure) == granted


@pytest.mark.parametrize("failure", [SERVER, TIMEOUT])
@pytest.mark.parametrize("succeeded", [True, None])
def test_a_retry_that_succeeds_returns_what_it_cost(
    failure: Failure, succeeded: bool | None
) -> None:
    """All of it, and so does one that was never made."""
    budget = QuotaBucket()
    budget.release(acquire(budget, failure=failure), succeeded=succeeded)
    assert level(budget) == 500.0


def test_first_attempts_refill_slowly() -> None:
    """One token for each success, five for the next retry."""
    budget = QuotaBucket(capacity=10)
    for _ in range(2):
        budget.release(acquire(budget), succeeded=False)
    for _ in range(4):
        budget.succeeded()
    assert (level(budget), grants(budget)) == (4.0, 0)
    budget.succeeded()
    assert grants(budget) == 1


def test_successes_do_not_fill_it_above_its_capacity() -> None:
    """A good week earns no more than a good minute."""
    budget = QuotaBucket()
    for _ in range(1_000):
        budget.succeeded()
    assert level(budget) == 500.0


# --- settings that cannot work ----------------------------------------------------------------

INFINITE, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: EarnedBudget(ratio=1.5), "ratio is 1.5"),
        (lambda: EarnedBudget(floor=-1), "floor is -1"),
        (lambda: EarnedBudget(floor=INFINITE), "a finite floor"),
        (lambda: EarnedBudget(window=0), "window is 0 s; it must be positive"),
        (lambda: WindowBudget(window=INFINITE), "window is inf s"),
        (lambda: WindowBudget(ratio=-0.1), "ratio is -0.1"),
        (lambda: WindowBudget(min_per_second=NAN), "min_per_second is nan"),
        (lambda: InFlightBudget(ratio=2), "ratio is 2"),
        (lambda: InFlightBudget(min_concurrency=-1), "min_concurrency is -1"),
        (lambda: ThrottleBucket(max_tokens=0), "max_tokens is 0"),
        (lambda: ThrottleBucket(max_tokens=1001), "up to 1000"),
        (lambda: ThrottleBucket(token_ratio=0), "a positive ratio"),
        (lambda: QuotaBucket(retry_cost=501), "retry_cost is 501 and capacity is 500"),
        (lambda: QuotaBucket(timeout_cost=0), "timeout_cost is 0"),
        (lambda: QuotaBucket(success_refund=-1), "success_refund is -1"),
    ],
)
def test_a_budget_that_cannot_work_is_refused_when_made(
    make: Callable[[], RetryBudget], said: str
) -> None:
    """The message names the value and what would do."""
    with pytest.raises(ConfigurationError, match=said):
        make()
