"""Patterns tell a hook what happens, and survive it."""

import asyncio

import pytest

from llm_patterns.events import emit
from llm_patterns.simulation import simulate


def fail(event: str) -> None:
    """A hook with a bug."""
    raise ValueError("hook")


def test_no_hook_hears_nothing() -> None:
    """Events are free where nobody listens."""
    emit(None, "event")


def test_a_hook_hears_events_at_once_and_in_order() -> None:
    """Before `emit` returns; what it returns is ignored."""
    heard: list[str] = []
    for number, event in enumerate(("first", "second"), start=1):
        emit(heard.append, event)
        assert len(heard) == number
    assert heard == ["first", "second"]


async def watched() -> None:
    """A call whose hook fails."""
    emit(fail, "the event")


@pytest.mark.parametrize(
    "run",
    [lambda: emit(fail, "the event"), lambda: asyncio.run(watched()), lambda: simulate(watched)],
    ids=["no loop", "real loop", "virtual loop"],
)
def test_a_failing_hook_is_logged_and_breaks_nothing(run, caplog) -> None:  # type: ignore[no-untyped-def]
    """The log names the hook and the event, and has the error's trace."""
    run()
    (record,) = caplog.records
    assert record.name == "llm_patterns.events"
    assert "fail" in record.getMessage()
    assert "the event" in record.getMessage()
    assert record.exc_info[0] is ValueError


def test_an_interrupt_in_a_hook_is_not_swallowed() -> None:
    """Ctrl-C ends the program wherever it lands."""

    def interrupted(event: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        emit(interrupted, "event")
