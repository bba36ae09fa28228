"""Rate limits: two buckets that refill without pause."""

import pytest
from pydantic import ValidationError

from llm_patterns.simulation import RateLimits
from llm_patterns.simulation.limits import Gate


def gate(requests: int | None = None, tokens: int | None = None, **options: bool) -> Gate:
    """A gate of so many a minute."""
    return Gate(RateLimits(requests_per_minute=requests, tokens_per_minute=tokens, **options))


def test_without_limits_everything_is_admitted() -> None:
    """And the headers name none."""
    free = gate()
    assert [free.admit(10**9, 0.0) for _ in range(3)] == [0, 0, 0]
    state = free.state(0.0)
    assert (state.limit_requests, state.limit_tokens) == (None, None)
    assert (state.reset_requests, state.reset_tokens) == (0, 0)


def test_a_minute_s_quota_may_come_at_once() -> None:
    """Then one more for each sixtieth of it."""
    one_a_second = gate(requests=60, failures_count=False)
    assert [one_a_second.admit(0, 0.0) for _ in range(61)] == [0.0] * 60 + [1.0]
    assert [one_a_second.admit(0, 1.0) for _ in range(2)] == [0.0, 1.0]


def test_an_idle_hour_does_not_fill_more_than_the_bucket() -> None:
    """What is not used in a minute is lost."""
    idle = gate(requests=2, failures_count=False)
    assert [idle.admit(0, 3600.0) > 0 for _ in range(3)] == [False, False, True]


def test_the_scarcer_of_the_two_decides() -> None:
    """Here 30 tokens at one a second, though requests are plenty."""
    assert gate(requests=1000, tokens=60).admit(60, 0.0) == 0
    both = gate(requests=1000, tokens=60)
    both.admit(60, 0.0)
    assert both.admit(30, 0.0) == pytest.approx(30)


def test_a_refused_request_takes_no_tokens() -> None:
    """A smaller one still fits."""
    small = gate(tokens=100)
    assert small.admit(80, 0.0) == 0
    assert small.admit(30, 0.0) > 0
    assert small.admit(20, 0.0) == 0


def test_who_never_waits_is_never_served_where_failures_count() -> None:
    """Each refusal takes what had come back: hammering keeps the bucket empty."""
    counting, lenient = gate(requests=60), gate(requests=60, failures_count=False)
    for gate_ in (counting, lenient):
        for _ in range(60):
            gate_.admit(0, 0.0)
    tries = [second / 4 for second in range(1, 241)]
    assert sum(counting.admit(0, at) == 0 for at in tries) == 0
    assert sum(lenient.admit(0, at) == 0 for at in tries) == 60


def test_what_no_bucket_can_hold_waits_for_ever() -> None:
    """Infinity, so that no caller is told to come back."""
    assert gate(tokens=100).admit(101, 0.0) == float("inf")


@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute"])
def test_a_limit_of_nothing_is_refused(name: str) -> None:
    """None is no limit; 0 would be no provider."""
    with pytest.raises(ValidationError, match=name):
        RateLimits.model_validate({name: 0})
