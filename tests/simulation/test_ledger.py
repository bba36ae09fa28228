"""The provider's books."""

from decimal import Decimal

from llm_patterns.chat import Usage
from llm_patterns.errors import ErrorKind
from llm_patterns.simulation import Ledger, per_second


def test_rows_stand_in_the_order_in_which_attempts_began() -> None:
    """And are the same objects that the provider fills in."""
    ledger = Ledger()
    opened = [ledger.open("me", "small", at) for at in (0.5, 1.5, 2.5)]
    assert list(ledger) == opened
    assert ledger[-1] is opened[2]
    assert ledger[1:] == opened[1:]


def test_a_running_attempt_has_no_latency_yet() -> None:
    """Neither status, nor error, nor bill."""
    attempt = Ledger().open("me", "small", 2.0)
    assert repr(attempt) == "<Attempt me small at 2 s: running>"
    assert (attempt.latency, attempt.status_code, attempt.usage) == (None, None, None)
    attempt.finished_at = 5.5
    assert attempt.latency == 3.5


def test_only_whole_work_for_nobody_is_wasted() -> None:
    """An abandoned attempt that failed, or one that was awaited, is not."""
    attempt = Ledger().open("me", "small", 0)
    seen = []
    for attempt.abandoned in (False, True):
        for attempt.status_code in (None, 200, 503):
            seen.append(attempt.wasted)
    assert seen == [False, False, False, False, True, False]


def test_the_bill_is_the_exact_sum_over_what_was_used() -> None:
    """By model; who used nothing pays nothing."""
    ledger = Ledger()
    for model, tokens in (("small", 1), ("large", 1), ("small", 1), ("small", 2), ("small", None)):
        usage = None if tokens is None else Usage(output_tokens=tokens)
        ledger.open("me", model, 0).usage = usage
    price = {"small": Decimal("0.1"), "large": Decimal("0.7")}
    assert ledger.cost_usd(lambda usage, model: usage.output_tokens * price[model]) == Decimal(
        "1.1"
    )
    assert Ledger().cost_usd(lambda usage, model: Decimal(1)) == 0


def test_seconds_are_counted_from_their_beginning() -> None:
    """What lies outside is not counted."""
    assert per_second([-0.1, 0.0, 0.999, 1.0, 3.0, 5.0], until=3) == [2, 1, 0]


def test_rows_are_dictionaries_for_a_data_frame() -> None:
    """With all that an attempt knows, the derived columns too."""
    ledger = Ledger()
    attempt = ledger.open("me", "small", 1.0)
    attempt.finished_at, attempt.error = 3.0, ErrorKind.SERVER
    (row,) = ledger.rows()
    assert {
        "caller": "me",
        "started_at": 1.0,
        "latency": 2.0,
        "wasted": False,
    }.items() <= row.items()
    assert row["error"] is ErrorKind.SERVER
