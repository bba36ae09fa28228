"""The invariants of shared breakers, as checks on random fleets: several processes, one store, delays, losses.

Each process is a `BreakerSharing` with one breaker of the same key; the store is `MemoryVerdicts` that takes its time,
and may be away. The checks read what the provider and the callers saw.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Any

from llm_patterns.errors import ServerError, StoreUnavailable
from llm_patterns.resilience import (
    BreakerPolicy,
    BreakerState,
    CircuitBreaker,
    CircuitOpen,
    SharingPolicy,
    StreakDetector,
)
from llm_patterns.simulation import simulate
from llm_patterns.stores import MemoryVerdicts, Verdict

EPSILON = 1e-6
POLICY = BreakerPolicy(open_time=5, max_open_time=8, ramp=2, probes_to_close=2, slow_after=3)
SHARING = SharingPolicy(poll_interval=0.5, timeout=0.3)
CALL_TAKES = 0.4


class Store(MemoryVerdicts):
    """Verdicts that can be out of reach, for a while or from the beginning, or be forgotten."""

    def __init__(self, *, round_trip: float) -> None:
        super().__init__(round_trip=round_trip)
        self.away = False

    async def read(self, keys: Sequence[str]) -> Mapping[str, Verdict]:
        """Return them, if it can be reached when they are sent."""
        verdicts = await super().read(keys)
        self._check()
        return verdicts

    async def claim(self, key: str, *, known: int, by: str, lease: float) -> bool:
        """Grant it, if it can be reached."""
        self._check()
        return await super().claim(key, known=known, by=by, lease=lease)

    async def open(self, key: str, *, known: int, open_for: float, by: str) -> Verdict:
        """Open, if it can be reached."""
        self._check()
        return await super().open(key, known=known, open_for=open_for, by=by)

    async def close(self, key: str, *, known: int, by: str) -> Verdict:
        """Close, if it can be reached."""
        self._check()
        return await super().close(key, known=known, by=by)

    def forget(self) -> None:
        """Lose everything, as a server that was started anew."""
        self._records.clear()

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("the store", "it is away")


@dataclass
class Fleet:
    """Some processes with a breaker each, in front of one provider."""

    store: Store
    sharings: list[Any]
    breakers: list[CircuitBreaker]
    sick: bool = False
    probing: dict[int, int] = field(default_factory=dict)
    """Probes in flight by process."""
    most_processes_probing: int = 0
    waits: list[float] = field(default_factory=list)
    """What each admitted call took beyond the provider's own time."""

    async def call(self, process: int) -> None:
        """Make one call from that process."""
        breaker, began = self.breakers[process], _now()
        guarded = breaker(lambda: self._provider(process))
        try:
            await guarded()
        except CircuitOpen:
            self.waits.append(_now() - began)
        except ServerError:
            self.waits.append(_now() - began - CALL_TAKES)
        else:
            self.waits.append(_now() - began - CALL_TAKES)

    async def _provider(self, process: int) -> None:
        probe = self.breakers[process].statistics().state is BreakerState.HALF_OPEN
        self.probing[process] = self.probing.get(process, 0) + probe
        self.most_processes_probing = max(
            self.most_processes_probing, sum(count > 0 for count in self.probing.values())
        )
        try:
            await asyncio.sleep(CALL_TAKES)
        finally:
            self.probing[process] -= probe
        if self.sick:
            raise ServerError("sick")

    def states(self) -> list[BreakerState]:
        """The state of each."""
        return [each.statistics().state for each in self.breakers]


async def fleet(module: Any, stack: AsyncExitStack, *, size: int, round_trip: float) -> Fleet:
    """A fleet whose sharing has begun, each process at a moment of its own."""
    store = Store(round_trip=round_trip)
    sharings = [module.BreakerSharing(store, SHARING) for _ in range(size)]
    breakers = []
    for number, sharing in enumerate(sharings):
        await asyncio.sleep(SHARING.poll_interval / size)
        await stack.enter_async_context(sharing)
        detector = StreakDetector(bad_calls=3)
        breakers.append(
            CircuitBreaker(POLICY, key="k", detector=detector, sharing=sharing, rng=Random(number))
        )
    await asyncio.sleep(1)
    return Fleet(store, sharings, breakers)


def open_one(breaker: CircuitBreaker) -> None:
    """Let it open by itself."""
    for permit in [breaker.acquire() for _ in range(3)]:
        breaker.release(permit, succeeded=False)


def what_one_decides_all_adopt_in_time(module: Any, seed: int) -> None:
    """Invariant 1: within the poll interval and two round trips, an opening and a closing."""
    rng = Random(seed)
    round_trip = rng.choice([0.0, 0.05, 0.2])

    async def main() -> None:
        async with AsyncExitStack() as stack:
            group = await fleet(module, stack, size=rng.randint(2, 5), round_trip=round_trip)
            await asyncio.sleep(rng.random() * 3)
            one = rng.choice(group.breakers)
            open_one(one)
            bound = SHARING.poll_interval + 2 * round_trip + EPSILON
            await asyncio.sleep(bound)
            assert set(group.states()) == {BreakerState.OPEN}
            await asyncio.sleep(POLICY.open_time)
            assert not one.available()  # it asks for the lease
            await asyncio.sleep(rng.random() + bound)
            for _ in range(POLICY.probes_to_close):
                one.release(one.acquire(), succeeded=True)
            await asyncio.sleep(bound)
            assert set(group.states()) <= {BreakerState.RAMPING, BreakerState.CLOSED}

    simulate(main, seed=seed)


def one_process_probes(module: Any, seed: int) -> None:
    """Invariant 3: however many have traffic, and however often the provider changes."""
    rng = Random(seed)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            size = rng.randint(2, 5)
            group = await fleet(module, stack, size=size, round_trip=rng.choice([0.0, 0.05, 0.2]))
            async with asyncio.TaskGroup() as tasks:
                for _ in range(rng.randint(100, 400)):
                    tasks.create_task(group.call(rng.randrange(size)))
                    await asyncio.sleep(rng.choice([0.01, 0.1, 0.3]))
                    if rng.random() < 0.02:
                        group.sick = not group.sick
            assert group.most_processes_probing <= 1
            no_call_waits(group)

    simulate(main, seed=seed)


def the_fleet_recovers(module: Any, seed: int) -> None:
    """Whatever the store does: where the provider is well and calls come, all circuits close again."""
    rng = Random(seed)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            size = rng.randint(1, 4)
            group = await fleet(module, stack, size=size, round_trip=rng.choice([0.0, 0.05, 0.2]))
            async with asyncio.TaskGroup() as tasks:
                for step in range(700):
                    tasks.create_task(group.call(rng.randrange(size)))
                    await asyncio.sleep(0.1)
                    group.sick = step < 300 and (group.sick != (rng.random() < 0.02))
                    group.store.away = step < 400 and (group.store.away != (rng.random() < 0.05))
                    if rng.random() < 0.005:
                        group.store.forget()
            assert set(group.states()) == {BreakerState.CLOSED}
            no_call_waits(group)

    simulate(main, seed=seed)


def one_verdict_holds(module: Any, seed: int) -> None:
    """Invariant 2: of openings at one time, one is written, and nobody opens twice for it."""
    rng = Random(seed)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            group = await fleet(module, stack, size=4, round_trip=0.1)
            await asyncio.sleep(rng.random())
            for each in group.breakers:
                open_one(each)
                await asyncio.sleep(rng.choice([0.0, 0.01]))
            await asyncio.sleep(2)
            verdict = (await group.store.read(["k"]))["k"]
            assert verdict.generation == 1
            seen = [each.statistics() for each in group.breakers]
            assert [(each.opened, each.bad_probes) for each in seen] == [(1, 0)] * 4

    simulate(main, seed=seed)


def without_the_store_each_decides_alone(module: Any, seed: int) -> None:
    """Invariant 4: from the beginning, or when it is lost; an opening is told when it is back."""
    rng = Random(seed)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            group = await fleet(module, stack, size=3, round_trip=0.1)
            group.store.away = True
            await asyncio.sleep(2)
            first, *others = group.breakers
            open_one(first)
            await asyncio.sleep(3 + rng.random())
            assert group.states() == [BreakerState.OPEN, *[BreakerState.CLOSED] * 2]
            assert not any(each.connected for each in group.sharings)
            if rng.random() < 0.5:
                group.store.away = False
                await asyncio.sleep(2 * SHARING.poll_interval + 0.2)
                assert set(group.states()) == {BreakerState.OPEN}
                return
            await asyncio.sleep(POLICY.open_time)
            assert first.available()
            for _ in range(POLICY.probes_to_close):
                first.release(first.acquire(), succeeded=True)
            assert all(each.available() for each in others)

    simulate(main, seed=seed)


def no_call_waits(group: Fleet) -> None:
    """Invariant 4: a call takes what the provider takes, and a refusal nothing."""
    assert max(map(abs, group.waits)) < EPSILON


def _now() -> float:
    return asyncio.get_running_loop().time()


INVARIANTS = [
    what_one_decides_all_adopt_in_time,
    one_process_probes,
    the_fleet_recovers,
    one_verdict_holds,
    without_the_store_each_decides_alone,
]
