"""Every attempt that reached the provider: when, who, how it ended, what it used and what it cost.

The provider's books, not the client's: an attempt whose caller gave up is here too, with the tokens
it burned.

>>> ledger = Ledger()
>>> attempt = ledger.open("replica 1", "small", 0.5)
>>> ledger.started_per_second(until=2)
[1, 0]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import overload

from llm_patterns.chat import Usage
from llm_patterns.errors import ErrorKind

__all__ = ["Attempt", "Ledger", "per_second"]


class Attempt:
    """One attempt, filled in as it proceeds. Times are loop times in seconds, None until they come.

    `status_code` is None while no answer was sent: the attempt is still running, hangs, or lost its
    connection. `abandoned` says that the caller left before the end; `usage` is what the provider
    bills, abandoned or not.
    """

    __slots__ = (
        *("abandoned", "caller", "error", "finished_at", "first_token_at"),
        *("model", "started_at", "status_code", "usage"),
    )

    def __init__(self, caller: str, model: str, started_at: float) -> None:
        self.caller = caller
        self.model = model
        self.started_at = started_at
        self.first_token_at: float | None = None
        self.finished_at: float | None = None
        self.status_code: int | None = None
        self.error: ErrorKind | None = None
        self.abandoned = False
        self.usage: Usage | None = None

    @property
    def latency(self) -> float | None:
        """Return the seconds from request to end, or None while it runs."""
        return None if self.finished_at is None else self.finished_at - self.started_at

    @property
    def wasted(self) -> bool:
        """Return whether the provider did the whole work for a caller who had gone."""
        return self.abandoned and self.status_code == 200

    def __repr__(self) -> str:
        ending = self.error or self.status_code or "running"
        return f"<Attempt {self.caller} {self.model} at {self.started_at:g} s: {ending}>"


class Ledger(Sequence[Attempt]):
    """The attempts in the order in which they began."""

    def __init__(self) -> None:
        self._attempts: list[Attempt] = []

    def open(self, caller: str, model: str, started_at: float) -> Attempt:
        """Begin a row."""
        attempt = Attempt(caller, model, started_at)
        self._attempts.append(attempt)
        return attempt

    def __len__(self) -> int:
        return len(self._attempts)

    @overload
    def __getitem__(self, index: int) -> Attempt: ...

    @overload
    def __getitem__(self, index: slice) -> list[Attempt]: ...

    def __getitem__(self, index: int | slice) -> Attempt | list[Attempt]:
        return self._attempts[index]

    def __iter__(self) -> Iterator[Attempt]:
        return iter(self._attempts)

    def cost_usd(self, price: Callable[[Usage, str], Decimal]) -> Decimal:
        """Return the bill: *price* of each billed attempt's usage and model, such as `cost_tracker.price_of`."""
        counted: dict[tuple[Usage, str], int] = {}
        for attempt in self._attempts:
            if attempt.usage is not None:
                key = (attempt.usage, attempt.model)
                counted[key] = counted.get(key, 0) + 1
        return sum((price(*key) * times for key, times in counted.items()), Decimal(0))

    def started_per_second(self, *, until: int) -> list[int]:
        """Return how many attempts began in each second: the load that the provider was offered."""
        return per_second((attempt.started_at for attempt in self._attempts), until=until)

    def rows(self) -> list[dict[str, object]]:
        """Return the attempts as dictionaries, for a data frame."""
        return [
            {name: getattr(attempt, name) for name in (*Attempt.__slots__, "latency", "wasted")}
            for attempt in self._attempts
        ]


def per_second(times: Iterable[float], *, until: int) -> list[int]:
    """Return how many of *times* fall into each of the seconds 0 to *until* - 1.

    >>> per_second([0.1, 0.9, 2.0], until=3)
    [2, 0, 1]
    """
    counts = [0] * until
    for time in times:
        if 0 <= time < until:
            counts[int(time)] += 1
    return counts
