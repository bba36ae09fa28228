"""Time and chance, taken from the running event loop.

Durations come from `asyncio`'s loop time. Two things remain that a loop does not give: what the
time of day is, and where chance comes from. Both are asked here, so that code behaves the same in
production and in a simulation, whose loop answers both (see `llm_patterns.simulation`).

>>> from datetime import UTC, datetime
>>> datetime.fromtimestamp(now(), UTC).year >= 2026
True
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from abc import ABC, abstractmethod

__all__ = ["World", "now", "rng"]

_RNG = random.Random()
if hasattr(os, "register_at_fork"):  # or all workers of a server would draw the same numbers
    os.register_at_fork(after_in_child=_RNG.seed)


class World(ABC):
    """What an event loop also is if it owns the time of day and the source of chance."""

    rng: random.Random

    @abstractmethod
    def wall_time(self) -> float:
        """Return the time of day in seconds since the epoch."""


def now() -> float:
    """Return the time of day in seconds since the epoch (UTC)."""
    loop = _world()
    return time.time() if loop is None else loop.wall_time()


def rng() -> random.Random:
    """Return the running simulation's seeded source of chance, or the process's own.

    Patterns take an `rng` argument and fall back to this at each use, so that a run repeats exactly
    even where nobody passed one.
    """
    loop = _world()
    return _RNG if loop is None else loop.rng


def _world() -> World | None:
    loop: object = asyncio._get_running_loop()
    return loop if isinstance(loop, World) else None
