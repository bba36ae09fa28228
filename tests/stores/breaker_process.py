"""One process of a fleet, for the tests: it shares a breaker over Valkey and prints what becomes of it, line by line.

One that `finds out` opens its breaker when it is told to go, probes when it may, and closes it; one that `is told` has
only healthy calls, and says when its breaker follows.
"""

import asyncio
import json
import sys
import time

from llm_patterns.resilience import (
    BreakerPolicy,
    BreakerSharing,
    BreakerState,
    CircuitBreaker,
    CircuitOpen,
    SharingPolicy,
)
from llm_patterns.stores import ValkeyVerdicts


def say(**what: object) -> None:
    """Print a line for the test to read."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def turns(breaker: CircuitBreaker, state: BreakerState) -> None:
    """Call, and look, until the breaker has that state; say when it was."""
    while breaker.statistics().state is not state:
        try:
            permit = breaker.acquire()
        except CircuitOpen:
            pass
        else:
            breaker.release(permit, succeeded=True)
        await asyncio.sleep(0.005)
    say(state=state.value, at=time.time())


async def main(url: str, role: str, policy: SharingPolicy) -> None:
    """Play the role."""
    async with (
        ValkeyVerdicts(url, prefix="pair:") as store,
        BreakerSharing(store, policy) as sharing,
    ):
        breaker = CircuitBreaker(
            BreakerPolicy(open_time=3, max_open_time=3, ramp=60), key="k", sharing=sharing
        )
        while not sharing.connected:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        say(state="connected")
        if role == "finds out":
            await asyncio.to_thread(sys.stdin.readline)
            at = time.time()
            for permit in [breaker.acquire() for _ in range(6)]:
                breaker.release(permit, succeeded=False)
            say(state="open", at=at)
            await turns(breaker, BreakerState.RAMPING)
            await asyncio.sleep(60)
        await turns(breaker, BreakerState.OPEN)
        while breaker.statistics().state is BreakerState.OPEN:  # noqa: ASYNC110 - it does not probe
            await asyncio.sleep(0.005)
        say(state=breaker.statistics().state.value, at=time.time())
        say(failed=breaker.statistics().failed, opened=breaker.statistics().opened)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], SharingPolicy.model_validate_json(sys.argv[3])))
