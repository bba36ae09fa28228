"""What an experiment keeps: how each call went for its caller, beside the provider's books.

>>> from llm_patterns.simulation import Ledger
>>> trial = Trial(Ledger())
>>> trial.calls += [Call(0.0, 1.0, True), Call(0.5, 5.5, False)]
>>> trial.availability(0, 10)
0.5
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from llm_patterns.chat import Usage
from llm_patterns.simulation import Ledger, per_second

__all__ = ["Call", "Trial"]


class Call(NamedTuple):
    """One call as its caller saw it. Times are seconds of virtual time."""

    began: float
    ended: float
    succeeded: bool


class Trial:
    """One run: the callers' view in `calls`, the provider's in `ledger`."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.calls: list[Call] = []

    def record(self, call: Callable[[int], Awaitable[object]]) -> Callable[[int], Awaitable[None]]:
        """Return *call* with its outcome kept; an `Exception` is an outcome, not the end of the run."""
        loop_time = asyncio.get_running_loop().time

        async def recorded(number: int) -> None:
            began = loop_time()
            try:
                await call(number)
            except Exception:
                self.calls.append(Call(began, loop_time(), succeeded=False))
            else:
                self.calls.append(Call(began, loop_time(), succeeded=True))

        return recorded

    @property
    def billed(self) -> list[Usage]:
        """Return the usage of every attempt that the provider bills."""
        return [attempt.usage for attempt in self.ledger if attempt.usage is not None]

    @property
    def amplification(self) -> float:
        """Return the attempts that the provider saw for each call."""
        return len(self.ledger) / len(self.calls)

    @property
    def wasted(self) -> int:
        """Return the attempts that were served in full to callers who had gone."""
        return sum(attempt.wasted for attempt in self.ledger)

    def availability(self, start: float, end: float) -> float:
        """Return the share of the calls begun from *start* to *end* that succeeded."""
        outcomes = [call.succeeded for call in self.calls if start <= call.began < end]
        return sum(outcomes) / len(outcomes)

    def load(self, *, until: int, step: int = 2) -> tuple[list[float], list[float]]:
        """Return the attempts a second that the provider was offered, at the middle of each *step* seconds."""
        return _binned(self.ledger.started_per_second(until=until), step)

    def goodput(self, *, until: int, step: int = 2) -> tuple[list[float], list[float]]:
        """Return the calls a second that succeeded, at the middle of each *step* seconds."""
        ended = (call.ended for call in self.calls if call.succeeded)
        return _binned(per_second(ended, until=until), step)

    def recovery(
        self, *, after: int, until: int, share: float = 0.99, hold: int = 10
    ) -> int | None:
        """Return the seconds from *after* to the first *hold* seconds whose calls succeed to *share*, or None.

        Calls count when they begin: a success that waited in the queue is the outage's, not the recovery's.
        """
        begun = per_second((call.began for call in self.calls), until=until)
        good = per_second((call.began for call in self.calls if call.succeeded), until=until)
        for second in range(after, until - hold + 1):
            if sum(good[second : second + hold]) >= share * sum(begun[second : second + hold]):
                return second - after
        return None

    def peak_amplification(self, *, until: int, over: int = 10) -> float:
        """Return the most attempts for each call begun in any *over* seconds."""
        attempts = self.ledger.started_per_second(until=until)
        begun = per_second((call.began for call in self.calls), until=until)
        return max(
            sum(attempts[second : second + over]) / max(1, sum(begun[second : second + over]))
            for second in range(until - over + 1)
        )


def _binned(counts: list[int], step: int) -> tuple[list[float], list[float]]:
    starts = range(0, len(counts) - step + 1, step)
    return [start + step / 2 for start in starts], [
        sum(counts[start : start + step]) / step for start in starts
    ]
