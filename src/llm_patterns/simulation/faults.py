"""What goes wrong, and when: faults on a schedule.

A fault is active from `start` for `duration` seconds (of the simulation, or since the provider's
first request on a real loop). Those with a `probability` strike each request by itself, on the
provider's own seeded chance.

>>> dip = CapacityLoss(start=60, duration=10, remaining=0.2)
>>> dip.active(59.9), dip.active(60), dip.active(70)
(False, True, False)
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "BrownOut",
    "CapacityLoss",
    "Disconnect",
    "ErrorRate",
    "Fault",
    "Hang",
    "MalformedOutput",
    "Outage",
    "TruncatedOutput",
]


class Fault(BaseModel):
    """A window of time in which something is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: float = Field(default=0.0, ge=0, description="When it begins, in seconds.")
    duration: float = Field(
        default=float("inf"), gt=0, description="How long it lasts, in seconds."
    )

    @property
    def end(self) -> float:
        """Return when it is over, in seconds."""
        return self.start + self.duration

    def active(self, at: float) -> bool:
        """Return whether the fault is on at second *at*."""
        return self.start <= at < self.end


class _Chance(Fault):
    probability: float = Field(
        default=1.0, gt=0, le=1, description="The share of requests it strikes."
    )


class ErrorRate(_Chance):
    """Requests are answered with an error, after `latency` seconds and without using capacity."""

    status_code: int = Field(
        default=500, ge=400, le=599, description="The HTTP status of the answer."
    )
    retry_after: float | None = Field(
        default=None, ge=0, description="The wait asked for, in seconds."
    )
    latency: float = Field(default=0.05, ge=0, description="Seconds until the error comes.")


class Outage(ErrorRate):
    """Every request is answered with 503."""

    status_code: int = Field(
        default=503, ge=400, le=599, description="The HTTP status of the answer."
    )


class CapacityLoss(Fault):
    """Only a part of the capacity is left: replicas died, or other customers took it. Overload follows by itself."""

    remaining: float = Field(ge=0, lt=1, description="The share of the capacity that is left.")


class BrownOut(Fault):
    """Everything still works, several times slower."""

    slowdown: float = Field(gt=1, description="How many times longer the work takes.")


class Hang(_Chance):
    """Requests are taken and never answered: only the caller's time-out ends them."""


class Disconnect(_Chance):
    """The answer breaks off after a share of it; what was written is billed.

    The connection is closed, or with a `status_code` an error comes in mid-stream.
    """

    after: float = Field(
        default=0.5, ge=0, lt=1, description="The share of the answer that still arrives."
    )
    status_code: int | None = Field(
        default=None,
        ge=400,
        le=599,
        description="The error that is sent instead of hanging up, such as 529 in mid-stream.",
    )


class TruncatedOutput(_Chance):
    """The answer ends early, and says so (`finish_reason` is `length`)."""

    keep: float = Field(default=0.5, ge=0, lt=1, description="The share of the text that is left.")


class MalformedOutput(TruncatedOutput):
    """The answer ends early, and claims to be whole."""


class Schedule:
    """The faults of one provider, asked at each request.

    Where several overlap, the first that strikes refuses; of losses and slowdowns the worst holds.
    """

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.faults = faults

    def __bool__(self) -> bool:
        return bool(self.faults)

    def capacity(self, at: float) -> float:
        """Return the share of the capacity that is left at second *at*."""
        losses = (fault for fault in self.faults if isinstance(fault, CapacityLoss))
        return min((fault.remaining for fault in losses if fault.active(at)), default=1.0)

    def slowdown(self, at: float) -> float:
        """Return how many times longer work takes at second *at*."""
        brown_outs = (fault for fault in self.faults if isinstance(fault, BrownOut))
        return max((fault.slowdown for fault in brown_outs if fault.active(at)), default=1.0)

    def edges(self) -> list[float]:
        """Return the seconds at which the capacity changes, in order."""
        losses = [fault for fault in self.faults if isinstance(fault, CapacityLoss)]
        times = {second for fault in losses for second in (fault.start, fault.end)}
        return sorted(second for second in times if second != float("inf"))
