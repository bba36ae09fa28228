"""How does a test meet an outage, a rate limit or a slow stream in milliseconds, the same way each time?

What the pytest plugin (`llm_patterns.pytest_plugin`) hands out, usable without pytest too: a workload whose outcomes
can be asserted on, the provider served on a port, and the check that nothing was left running.

>>> from llm_patterns.chat import ChatRequest, Message
>>> from llm_patterns.simulation import Outage, SimulatedProvider, simulate
>>> async def main():
...     provider = SimulatedProvider(faults=[Outage(start=20, duration=10)])
...     request = ChatRequest(model="any", messages=(Message.user("Hello"),))
...     return await workload(lambda number: provider.complete(request), rate_per_second=5, duration=60)
>>> outcomes = simulate(main)
>>> outcomes.availability(0, 20), outcomes.availability(20, 30), outcomes.availability(30, 60)
(1.0, 0.0, 1.0)
>>> outcomes.errors
{'overloaded': 49}
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from socket import create_server
from threading import Thread
from typing import Final, Literal, NamedTuple

from llm_patterns import clock
from llm_patterns.errors import ConfigurationError, LLMPatternsError, failure_of
from llm_patterns.simulation import (
    Attempt,
    ConstantLatency,
    SimulatedProvider,
    bursts,
    diurnal,
    open_loop,
    poisson,
)

__all__ = [
    "Call",
    "Outcomes",
    "ServedProvider",
    "Unfinished",
    "check_finished",
    "served",
    "workload",
]

Shape = Literal["poisson", "bursts", "diurnal"]

_SHAPES: Final = {"poisson": poisson, "bursts": bursts, "diurnal": diurnal}
QUICK: Final = ConstantLatency(time_to_first_token=0.002, seconds_per_token=0.0001)
"""Latencies of a provider on a real port, where waiting is real."""


class Unfinished(LLMPatternsError, AssertionError):
    """A test ended while the provider was still at work for it; `attempts` are those."""

    def __init__(self, attempts: Sequence[Attempt]) -> None:
        self.attempts = tuple(attempts)
        super().__init__(
            f"{len(self.attempts)} attempts were still running when the test ended, the first {self.attempts[0]!r}: "
            "read each stream to its end or close it, and await each task"
        )


class Call(NamedTuple):
    """One call as its caller saw it. Times are seconds since the workload began; `error` is None for a success."""

    began: float
    ended: float
    error: Exception | None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How all calls of a workload went, in the order in which they ended."""

    calls: tuple[Call, ...]

    def availability(self, start: float = 0.0, end: float = float("inf")) -> float:
        """Return the share of the calls begun from *start* to *end* that succeeded."""
        seen = [call.error is None for call in self.calls if start <= call.began < end]
        if not seen:
            raise ValueError(f"no call began from {start} to {end} s: nothing is said of them")
        return sum(seen) / len(seen)

    def quantile(self, q: float) -> float:
        """Return the seconds within which a share *q* of the calls was over, however they ended."""
        if not 0 <= q <= 1 or not self.calls:
            raise ValueError(
                f"no quantile {q} of {len(self.calls)} calls; a share from 0 to 1 is needed"
            )
        took = sorted(call.ended - call.began for call in self.calls)
        return took[int(q * (len(took) - 1))]

    @property
    def errors(self) -> dict[str, int]:
        """Return how often each kind of error came (see `llm_patterns.errors`), the most frequent first."""
        kinds = Counter(
            failure_of(call.error).kind.value for call in self.calls if call.error is not None
        )
        return dict(kinds.most_common())


async def workload(
    call: Callable[[int], Awaitable[object]],
    *,
    rate_per_second: float = 10.0,
    duration: float = 60.0,
    shape: Shape = "poisson",
    max_in_flight: int = 10_000,
) -> Outcomes:
    """Start `call(number)` at random times for *duration* seconds, and return how the calls went.

    It is an open loop: no call waits for another. The times are drawn before the first call from the run's source of
    chance, so the same seed is the same load, whatever the code under test does. An `Exception` is an outcome.
    """
    now = asyncio.get_running_loop().time
    start, calls = now(), list[Call]()

    async def kept(number: int) -> None:
        began, error = now() - start, None
        try:
            await call(number)
        except Exception as raised:
            error = raised
        calls.append(Call(began, now() - start, error))

    rng = Random(clock.rng().getrandbits(64))
    arrivals = _SHAPES[shape](rate_per_second, duration=duration, rng=rng)
    await open_loop(kept, arrivals, max_in_flight=max_in_flight)
    return Outcomes(tuple(calls))


def check_finished(provider: SimulatedProvider) -> None:
    """Raise `Unfinished` if an attempt is still running whose caller has not gone: a stream left half-read, say."""
    running = [each for each in provider.ledger if each.finished_at is None and not each.abandoned]
    if running:
        raise Unfinished(running)


@dataclass(frozen=True, slots=True)
class ServedProvider:
    """A provider on a port of this machine. Any key is accepted, unless it was served with one."""

    provider: SimulatedProvider
    port: int

    @property
    def anthropic_url(self) -> str:
        """Return the base URL for clients of Anthropic's format."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def openai_url(self) -> str:
        """Return the base URL for clients of OpenAI's format."""
        return f"{self.anthropic_url}/v1"


@contextmanager
def served(
    provider: SimulatedProvider | None = None, *, api_key: str | None = None
) -> Iterator[ServedProvider]:
    """Serve *provider*, or a quick one, on a free port while the block runs, in a thread with a loop of its own.

    Time is real here: give the provider short latencies. For virtual time put it behind the client in process, with
    `llm_patterns.simulation.transport.SimulatedTransport`.
    """
    try:
        import uvicorn  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise ConfigurationError(
            "uvicorn is not installed; pip install 'production-llm-patterns[server]'"
        ) from error
    from llm_patterns.simulation.wire import AsgiApp, WireApp  # noqa: PLC0415

    provider = provider or SimulatedProvider(latency=QUICK)
    # The socket listens before the server runs, so the first client need not wait for it.
    with create_server(("127.0.0.1", 0)) as listening:
        app = AsgiApp(WireApp(provider, api_key=api_key))
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                timeout_graceful_shutdown=1,
            )
        )
        thread = Thread(target=partial(server.run, sockets=[listening]), daemon=True)
        thread.start()
        try:
            yield ServedProvider(provider, listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()
