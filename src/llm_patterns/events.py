"""What happens inside a pattern, told to whoever listens: one hook for every pattern.

A pattern's events are frozen values, one type for each thing that can happen. A hook is any callable that takes them;
tracers, counters and tests are hooks.

>>> seen = []
>>> emit(seen.append, "retry scheduled")
>>> seen
['retry scheduled']
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

__all__ = ["EventHook", "emit"]

E = TypeVar("E")
_LOG = logging.getLogger(__name__)

EventHook = Callable[[E], object]
"""Called with each event, at once and in order. It must not block; its result is ignored."""


def emit(hook: EventHook[E] | None, event: E) -> None:
    """Tell *hook* of *event*.

    A hook that raises does not break the call it watches: the error is logged, under the name of this module.
    """
    if hook is None:
        return
    try:
        hook(event)
    except Exception:
        _LOG.exception("event hook %r failed on %r", hook, event)
