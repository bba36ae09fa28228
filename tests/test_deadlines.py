"""Deadlines: nested, carried to tasks, cut off, sent and received; and at home on one event loop only."""

import asyncio
from collections.abc import AsyncIterator
from contextvars import Context, copy_context
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_patterns import deadlines
from llm_patterns.deadlines import (
    DeadlineExceeded,
    deadline,
    deadline_at,
    deadline_headers,
    hard_deadline,
    require_time,
    time_allowed,
    time_left,
)
from llm_patterns.errors import ConfigurationError, ErrorKind, failure_of
from llm_patterns.simulation import simulate
from tests.toolkit import latency_invariants as invariants
from tests.toolkit.latency_invariants import JOURNEY, NESTED, RACE


def test_there_is_no_deadline_until_one_is_set() -> None:
    """Inside a loop and outside of any."""

    async def main() -> tuple[object, ...]:
        require_time(1e9)
        return deadline_at(), time_left(), deadline_headers()

    assert (deadline_at(), time_left()) == (None, None)
    assert simulate(main) == (None, None, {})


def test_what_is_left_shrinks_as_time_passes_and_never_below_zero() -> None:
    """The deadline itself stays where it is."""

    async def main() -> None:
        with deadline(3):
            await asyncio.sleep(2)
            assert (time_left(), deadline_at()) == (1, 3)
            await asyncio.sleep(2)
            assert (time_left(), deadline_at()) == (0, 3)
        assert time_left() is None

    simulate(main)


@given(NESTED)
def test_the_earliest_of_nested_deadlines_holds_and_each_is_restored(
    nested: list[float | None],
) -> None:
    """Invariant 1."""
    invariants.nested_deadlines(nested)


def test_a_deadline_is_restored_when_the_block_raises() -> None:
    """Whatever ends it."""

    async def main() -> None:
        with deadline(9):
            with pytest.raises(KeyError), deadline(1):
                raise KeyError
            assert deadline_at() == 9

    simulate(main)


def test_tasks_inherit_the_deadline_and_change_only_their_own() -> None:
    """The context variable is copied when a task begins."""

    async def child(seconds: float) -> float | None:
        with deadline(seconds):
            await asyncio.sleep(0.5)
            return deadline_at()

    async def main() -> None:
        with deadline(5):
            first, second = await asyncio.gather(child(1), child(9))
            assert (first, second, deadline_at()) == (1, 5, 5)

    simulate(main)


def test_a_deadline_of_one_simulation_is_none_in_the_next() -> None:
    """Invariant 2: even in a context in which it was never left."""

    async def leak() -> Context:
        deadline(1).__enter__()
        return copy_context()

    async def look() -> tuple[float | None, float | None]:
        before = time_left()
        with deadline(7):
            return before, deadline_at()

    context = simulate(leak)
    assert context[deadlines._AMBIENT] is not None
    assert context.run(time_left) is None
    assert context.run(simulate, look) == (None, 7)


def test_a_simulation_within_a_loop_does_not_see_its_deadline() -> None:
    """A notebook's cell, say; and the loop's own is there again after it."""

    async def inner() -> float | None:
        return time_left()

    async def main() -> None:
        with deadline(4):
            assert simulate(inner) is None
            assert time_left() == 4

    simulate(main)


def test_an_abandoned_generator_does_not_fail_to_leave_its_deadline() -> None:
    """The loop closes it in a context of its own, where the token is not valid."""

    async def chunks() -> AsyncIterator[int]:
        with deadline(4):
            yield 1

    async def main() -> None:
        stream = chunks()
        await anext(stream)
        await asyncio.create_task(stream.aclose())  # type: ignore[attr-defined]

    simulate(main)


def test_what_runs_past_a_hard_deadline_is_cut_off() -> None:
    """At the instant, as a time-out that another attempt may cure."""

    async def main() -> None:
        with pytest.raises(DeadlineExceeded, match="cut off") as caught:
            async with hard_deadline(2):
                await asyncio.sleep(9)
        assert asyncio.get_running_loop().time() == 2
        assert failure_of(caught.value).kind is ErrorKind.TIMEOUT
        assert isinstance(caught.value, TimeoutError)

    simulate(main)


def test_a_hard_deadline_alone_cuts_off_at_the_one_there_is() -> None:
    """And without any, it cuts off nothing."""

    async def main() -> float:
        async with hard_deadline():
            await asyncio.sleep(100)
        with deadline(3), pytest.raises(DeadlineExceeded):
            async with hard_deadline():
                await asyncio.sleep(100)
        return asyncio.get_running_loop().time()

    assert simulate(main) == 103


def test_a_step_in_time_returns_and_leaves_no_timer() -> None:
    """The loop ends when the work does."""

    async def main() -> float:
        async with hard_deadline(50):
            await asyncio.sleep(1)
        return asyncio.get_running_loop().time()

    assert simulate(main) == 1


@given(RACE)
def test_what_comes_first_ends_the_work_as_itself(race: tuple[int, ...]) -> None:
    """Invariant 4: a deadline, the one around it, a time-out within, a cancellation, or the end."""
    invariants.raced_deadlines(race)


def test_work_is_not_begun_that_cannot_be_done_in_time() -> None:
    """A refusal: nothing was sent, so nothing is retried or held against the provider."""

    async def main() -> None:
        with deadline(2):
            require_time(1.9)
            with pytest.raises(DeadlineExceeded, match=r"2\.000 s left") as caught:
                require_time(2)
            assert (caught.value.left, caught.value.needed) == (2, 2)
            assert failure_of(caught.value).kind is ErrorKind.REFUSED
        for over in (0, -3):
            with deadline(over), pytest.raises(DeadlineExceeded):
                require_time()

    simulate(main)


@given(JOURNEY)
def test_what_is_received_never_exceeds_what_was_left(journey: tuple[float, int, int]) -> None:
    """Invariant 3, over any number of services."""
    invariants.sent_deadlines(journey)


def test_a_call_that_would_arrive_too_late_is_not_sent() -> None:
    """The allowance for the network comes off first."""

    async def main() -> None:
        with deadline(0.05), pytest.raises(DeadlineExceeded) as caught:
            deadline_headers(allowance=0.05)
        assert failure_of(caught.value).kind is ErrorKind.REFUSED

    simulate(main)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *(("1H", 3600), ("2M", 120), ("3S", 3), ("4m", 0.004), ("5u", 5e-6), ("6n", 6e-9)),
        *((" 3S ", 3), ("0S", 0), ("-7S", 0), ("99999999H", 5000)),
        *(("123456789S", 5000), ("", 5000), ("S", 5000), ("3", 5000), ("3s", 5000)),
        *(("1.5S", 5000), ("1S, 2S", 5000), ("٣S", 5000), ("nan", 5000), ("3S\nx: y", 5000)),
    ],
)
def test_a_header_is_read_by_rule(value: str, seconds: float) -> None:
    """gRPC's grammar; zero and less are over, absurd is capped, and unreadable is no deadline."""
    assert time_allowed({"GRPC-Timeout": value}, limit=5000) == pytest.approx(seconds)


@given(st.text(max_size=12) | st.from_regex(r"-?[0-9]{1,9}[HMSmunx]", fullmatch=True))
def test_any_header_gives_a_time_within_the_limit(value: str) -> None:
    """Invariant 3, for callers that mean no good."""
    invariants.received_deadlines(value)


def test_without_a_header_the_limit_holds() -> None:
    """A caller that says nothing has no deadline, but the service has."""
    assert time_allowed({"content-type": "json"}, limit=30) == 30


@pytest.mark.parametrize("seconds", [nan, inf, -inf])
def test_a_deadline_that_cannot_be_is_refused_when_made(seconds: float) -> None:
    """The message names the value and the remedy."""
    with pytest.raises(ConfigurationError, match=f"{seconds} s can't be; give finite"):
        deadline(seconds)
