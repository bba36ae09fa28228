"""What a ladder gives: a value that says which level it is from, how old it is, and whether it may be acted on.

>>> answer = Answer("42", "rules", 3, quality=0.4, seconds=0.1, age=None, skipped=(), may_act=False)
>>> answer.degraded
True
>>> answer.for_action()
Traceback (most recent call last):
llm_patterns.resilience.degraded_answers.NotSafeToActOn: an answer of level 'rules' may be shown, not acted on; ...
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from llm_patterns.errors import ErrorKind, LLMPatternsError
from llm_patterns.resilience.degradation_levels import SkipReason

__all__ = ["Answer", "NotSafeToActOn", "Skipped"]

R = TypeVar("R")


class NotSafeToActOn(LLMPatternsError):
    """An answer was about to cause side effects, and comes from a level that may not, or from the cache."""

    kind = ErrorKind.REFUSED

    def __init__(self, level: str) -> None:
        self.level = level
        super().__init__(
            f"an answer of level {level!r} may be shown, not acted on; "
            "wait for the first level, or declare the level safe_for_actions"
        )


class Skipped(NamedTuple):
    """A level that was passed over: why, and its error if it was asked."""

    level: str
    reason: SkipReason
    error: Exception | None


class Answer(NamedTuple, Generic[R]):
    """A value with its origin. `depth` counts levels from 0, and `level` is "not now" below the last.

    `quality` is what an answer of the level is worth, by its scores so far; `age` the seconds since a cached answer was
    new, None for others; `retry_after` the seconds after which to come back, where there is no answer.
    """

    value: R
    level: str
    depth: int
    quality: float
    seconds: float
    age: float | None
    skipped: tuple[Skipped, ...]
    may_act: bool
    retry_after: float | None = None

    @property
    def answered(self) -> bool:
        """Return whether there is an answer at all; else the value is the ladder's `not_now`."""
        return self.retry_after is None

    @property
    def degraded(self) -> bool:
        """Return whether a better level was passed over."""
        return self.depth > 0

    @property
    def reason(self) -> SkipReason | None:
        """Return why the level above did not answer, None for the first."""
        return self.skipped[-1].reason if self.skipped else None

    def for_action(self) -> R:
        """Return the value to act on: run its tool calls, send it, store it. Raises `NotSafeToActOn`."""
        if not self.may_act:
            raise NotSafeToActOn(self.level)
        return self.value
