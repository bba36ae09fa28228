"""The retry libraries that a team would otherwise take, each given three attempts.

Waits are those of each library's defaults, or of its own documentation where it has no default. All of them take
chance from the `random` module. All sleep with `asyncio.sleep`, so they run in virtual time as they are; but what they
measure by a clock, they measure by the machine's. With three attempts of five seconds no time limit of theirs is
reached, so that matters to the two budgets alone: nopanic's takes a clock, redress's does not (see `virtual_clock`).
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import backoff
import nopanic
import redress
import stamina
import tenacity

from llm_patterns.resilience import RetryPolicy

ATTEMPTS = 3
POLICY = RetryPolicy(deadline=60)


def loop_time() -> float:
    """Return the running loop's time."""
    return asyncio.get_running_loop().time()


def with_tenacity() -> Any:
    """Exponential backoff with full jitter, as in its README ("Waiting before retrying")."""
    return tenacity.retry(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=1, max=60),
    )


def with_stamina() -> Any:
    """Its defaults: from 0.1 s, doubled, with up to a second of jitter; without its log of each retry."""
    stamina.instrumentation.set_on_retry_hooks([])
    return stamina.retry(on=Exception, attempts=ATTEMPTS)


def with_backoff() -> Any:
    """Its defaults: from 1 s, doubled, with full jitter."""
    return backoff.on_exception(backoff.expo, Exception, max_tries=ATTEMPTS)


def with_nopanic() -> Any:
    """Its defaults: from 0.1 s, doubled, with full jitter."""
    return nopanic.retry(attempts=ATTEMPTS)


def with_nopanic_budget(clock: Callable[[], float] = time.monotonic) -> Any:
    """The budget of its README: a tenth of the calls, and one a second on top."""
    return nopanic.retry(attempts=ATTEMPTS, budget=nopanic.RetryBudget(ratio=0.1, clock=clock))


def with_redress() -> Any:
    """Its defaults: decorrelated jitter up to 5 s."""
    return redress.retry(max_attempts=ATTEMPTS)


def with_redress_budget() -> Any:
    """The budget of its README: twenty retries a minute."""
    return redress.retry(
        max_attempts=ATTEMPTS, budget=redress.Budget(max_retries=20, window_s=60.0)
    )


PEERS: dict[str, Callable[[], Any]] = {
    "tenacity": with_tenacity,
    "stamina": with_stamina,
    "backoff": with_backoff,
    "nopanic": with_nopanic,
    "nopanic with its budget": with_nopanic_budget,
    "redress": with_redress,
    "redress with its budget": with_redress_budget,
}


@contextmanager
def virtual_clock() -> Iterator[None]:
    """Let redress's budget see virtual time: it reads `time.monotonic` and has no seam for another clock."""
    with patch("redress.budget.time", SimpleNamespace(monotonic=loop_time)):
        yield
