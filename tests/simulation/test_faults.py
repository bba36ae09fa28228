"""Faults: when they are on, and what holds where several overlap."""

import pytest
from pydantic import ValidationError

from llm_patterns.simulation import BrownOut, CapacityLoss, Disconnect, ErrorRate, Fault, Hang
from llm_patterns.simulation.faults import Schedule

DIP = CapacityLoss(start=10, duration=10, remaining=0.5)
DEEPER = CapacityLoss(start=15, duration=10, remaining=0.2)


def test_a_fault_begins_with_its_start_and_is_over_at_its_end() -> None:
    """The start belongs to it, the end does not."""
    fault = Fault(start=10, duration=5)
    assert [fault.active(at) for at in (9.999, 10, 14.999, 15)] == [False, True, True, False]


def test_a_fault_without_a_duration_never_ends() -> None:
    """And without a start is there from the first."""
    assert Hang().active(0)
    assert Hang().active(1e9)


def test_of_overlapping_losses_the_worst_holds() -> None:
    """They do not multiply."""
    schedule = Schedule((DIP, DEEPER))
    assert [schedule.capacity(at) for at in (5, 12, 17, 22, 25)] == [1, 0.5, 0.2, 0.2, 1]


def test_of_overlapping_brown_outs_the_slowest_holds() -> None:
    """Whichever comes first."""
    slow, slower = BrownOut(start=0, duration=20, slowdown=2), BrownOut(start=10, slowdown=5)
    assert [Schedule((slower, slow)).slowdown(at) for at in (5, 15, 25)] == [2, 5, 5]


def test_capacity_changes_at_the_edges_of_losses_only() -> None:
    """In order, each once, and an end that never comes is none."""
    forever = CapacityLoss(start=20, remaining=0)
    schedule = Schedule((DEEPER, forever, DIP, Hang(start=3), BrownOut(start=4, slowdown=2)))
    assert schedule.edges() == [10, 15, 20, 25]


def test_no_faults_change_nothing() -> None:
    """Full capacity at full speed, and nothing to ask at each request."""
    schedule = Schedule(())
    assert not schedule
    assert (schedule.capacity(0), schedule.slowdown(0), schedule.edges()) == (1, 1, [])


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Fault, {"start": -1}),
        (Fault, {"duration": 0}),
        (Hang, {"probability": 0}),
        (Hang, {"probability": 1.1}),
        (ErrorRate, {"status_code": 200}),
        (ErrorRate, {"retry_after": -1}),
        (CapacityLoss, {"remaining": 1}),
        (BrownOut, {"slowdown": 1}),
        (Disconnect, {"after": 1}),
        (Disconnect, {"chance": 0.5}),
    ],
)
def test_a_fault_that_cannot_be_is_refused(kind: type[Fault], wrong: dict[str, float]) -> None:
    """When it is made, by the name of the setting."""
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        kind.model_validate(wrong)
