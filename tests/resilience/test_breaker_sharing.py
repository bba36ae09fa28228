"""Breakers that share their verdicts agree in time, and do without the store, in virtual time."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import ModuleType

import pytest

from llm_patterns.errors import ConfigurationError
from llm_patterns.resilience import (
    BreakerOpened,
    BreakerPolicy,
    BreakerSharing,
    BreakerState,
    CircuitBreaker,
    CircuitBreakers,
    SharingLost,
    SharingRestored,
    StreakDetector,
    breaker_sharing,
)
from llm_patterns.simulation import simulate
from llm_patterns.stores import MemoryVerdicts
from tests.mutants import mutant
from tests.resilience import sharing_invariants
from tests.resilience.sharing_invariants import (
    INVARIANTS,
    POLICY,
    SHARING,
    Store,
    fleet,
    open_one,
)


@pytest.mark.parametrize("holds", INVARIANTS, ids=lambda holds: str(holds.__name__))
def test_whatever_happens(holds: Callable[[ModuleType, int], None]) -> None:
    """Each promise, for thirty fleets."""
    for seed in range(30):
        holds(breaker_sharing, seed)


BUGS = {
    "nobody is woken by a decision": (
        "            link.lease_until = -math.inf\n            self._wake.set()\n",
        "            link.lease_until = -math.inf\n",
        sharing_invariants.what_one_decides_all_adopt_in_time,
    ),
    "looks are too far apart": (
        "asyncio.timeout_at(began + self.policy.poll_interval)",
        "asyncio.timeout_at(began + 2 * self.policy.poll_interval)",
        sharing_invariants.what_one_decides_all_adopt_in_time,
    ),
    "what others decide is not adopted": (
        "            breaker.adopt(verdict.open_for)\n",
        "            pass\n",
        sharing_invariants.what_one_decides_all_adopt_in_time,
    ),
    "everybody may probe": (
        "or now < link.lease_until:\n            return 0.0",
        "or True:\n            return 0.0",
        sharing_invariants.one_process_probes,
    ),
    "leases are taken for granted": (
        "        if not granted:\n",
        "        if False:\n",
        sharing_invariants.one_process_probes,
    ),
    "leases are not asked for": (
        "        link.wants_lease = True\n",
        "",
        sharing_invariants.the_fleet_recovers,
    ),
    "what the store forgot is waited for": (
        "if verdict.generation < link.known and link.wants_lease:",
        "if False:",
        sharing_invariants.the_fleet_recovers,
    ),
    "an error ends the sharing": (
        "            except Exception as error:",
        "            except KeyError as error:",
        sharing_invariants.without_the_store_each_decides_alone,
    ),
    "without the store nobody probes": (
        "not self.connected or now",
        "now",
        sharing_invariants.without_the_store_each_decides_alone,
    ),
    "what was not told is forgotten": (
        "    def _note_lost(self, error: Exception) -> None:\n",
        "    def _note_lost(self, error: Exception) -> None:\n        vars(self)['_links'].clear()\n",
        sharing_invariants.without_the_store_each_decides_alone,
    ),
    "two openings are two verdicts": (
        "        store, known = self._store, link.known\n",
        "        store, known = self._store, 99\n",
        sharing_invariants.one_verdict_holds,
    ),
    "an opening is adopted by one who is open": (
        "        if not opened:\n            breaker",
        "        if True:\n            breaker",
        sharing_invariants.one_verdict_holds,
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_check_finds(bug: str) -> None:
    """A copy with this bug breaks that promise in some fleet."""
    old, new, holds = BUGS[bug]

    def check(broken: ModuleType) -> None:
        for seed in range(200):
            holds(broken, seed)

    with mutant(breaker_sharing, old, new) as broken, pytest.raises(AssertionError):
        check(broken)


def test_a_process_that_dies_while_probing_leaves_the_probe_to_another() -> None:
    """When its lease has run out."""

    async def main() -> None:
        async with AsyncExitStack() as stack, AsyncExitStack() as dies:
            group = await fleet(breaker_sharing, stack, size=2, round_trip=0.1)
            doomed = BreakerSharing(group.store, SHARING)
            await dies.enter_async_context(doomed)
            victim = CircuitBreaker(POLICY, key="k", sharing=doomed)
            await asyncio.sleep(1)
            open_one(group.breakers[0])
            await asyncio.sleep(POLICY.open_time + 1)
            assert not victim.available()
            await asyncio.sleep(1)
            victim.acquire()  # never released: the process dies here
            await dies.aclose()
            other = group.breakers[1]
            looks = 0
            for looks in range(200):  # noqa: B007 - how many it took is the result
                if other.available():
                    break
                await asyncio.sleep(0.1)
            lease = 10 * (SHARING.poll_interval + SHARING.timeout)
            assert 0 < looks * 0.1 <= lease + 2 * SHARING.poll_interval

    simulate(main)


def test_who_only_watches_asks_for_no_lease() -> None:
    """A dashboard that reads statistics keeps nobody from probing."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            group = await fleet(breaker_sharing, stack, size=2, round_trip=0.1)
            watched, other = group.breakers
            open_one(watched)
            for _ in range(80):
                await asyncio.sleep(0.1)
                assert watched.statistics().state is BreakerState.OPEN
            assert not other.available()
            await asyncio.sleep(0.5)
            assert other.available()

    simulate(main)


def test_an_opening_survives_the_news_of_an_older_closing() -> None:
    """A process that opens before it hears that the others closed tells them of its own."""

    async def main() -> None:
        store = MemoryVerdicts()
        async with BreakerSharing(store, SHARING) as sharing:
            detector = StreakDetector(bad_calls=3)
            breaker = CircuitBreaker(POLICY, key="k", detector=detector, sharing=sharing)
            await asyncio.sleep(0.7)
            opened = await store.open("k", known=0, open_for=0, by="another")
            await store.close("k", known=opened.generation, by="another")
            open_one(breaker)
            await asyncio.sleep(2)
            verdict = (await store.read(["k"]))["k"]
            assert breaker.statistics().state is BreakerState.OPEN
            assert verdict.generation == 3
            assert verdict.open_for is not None

    simulate(main)


def test_events_tell_of_a_store_that_is_lost_and_found() -> None:
    """Once each, with the reason and the time between."""
    heard: list[object] = []

    async def main() -> None:
        store = Store(round_trip=0.0)
        async with BreakerSharing(store, SHARING, on_event=heard.append) as sharing:
            CircuitBreaker(POLICY, key="k", sharing=sharing)
            await asyncio.sleep(2.1)
            store.away = True
            await asyncio.sleep(10)
            store.away = False
            await asyncio.sleep(2)
            assert sharing.connected

    simulate(main)
    assert heard == [
        SharingLost("the store is not available: it is away"),
        SharingRestored(pytest.approx(10.0, abs=0.5)),  # type: ignore[arg-type]
    ]


def test_a_store_that_does_not_answer_is_away() -> None:
    """After `timeout`; and no call waits for it meanwhile."""
    heard: list[object] = []

    async def main() -> None:
        async with BreakerSharing(
            MemoryVerdicts(round_trip=60), SHARING, on_event=heard.append
        ) as sharing:
            breaker = CircuitBreaker(POLICY, key="k", sharing=sharing)
            await asyncio.sleep(1)
            open_one(breaker)
            await asyncio.sleep(POLICY.open_time)
            assert breaker.available()

    simulate(main)
    assert heard == [SharingLost("TimeoutError")]


def test_an_adopted_opening_says_that_it_is_another_s() -> None:
    """It has no evidence of this process, and its time is what was left."""
    heard: list[object] = []

    async def main() -> None:
        store = MemoryVerdicts()
        async with BreakerSharing(store, SHARING) as sharing:
            CircuitBreaker(POLICY, key="k", sharing=sharing, on_event=heard.append)
            await store.open("k", known=0, open_for=30, by="another")
            await asyncio.sleep(1)

    simulate(main)
    assert heard == [BreakerOpened("k", pytest.approx(29.5, abs=0.5), 0, None)]  # type: ignore[arg-type]


def test_forced_circuits_adopt_nothing() -> None:
    """What a person said holds."""

    async def main() -> None:
        store = MemoryVerdicts()
        async with BreakerSharing(store, SHARING) as sharing:
            breaker = CircuitBreaker(POLICY, key="k", sharing=sharing)
            breaker.force("closed")
            await store.open("k", known=0, open_for=30, by="another")
            await asyncio.sleep(1)
            assert breaker.available()

    simulate(main)


def test_outside_its_context_each_breaker_decides_alone() -> None:
    """Before it was entered, and after it was left."""

    async def main() -> None:
        sharing = BreakerSharing(MemoryVerdicts(), SHARING)
        breaker = CircuitBreaker(POLICY, key="k", sharing=sharing)
        async with sharing:
            await asyncio.sleep(1)
        open_one(breaker)
        await asyncio.sleep(POLICY.open_time)
        assert breaker.available()
        assert not sharing.connected

    simulate(main)


def test_a_context_is_entered_once() -> None:
    """Two tasks would tell everything twice."""

    async def main() -> None:
        async with BreakerSharing(MemoryVerdicts()) as sharing:
            with pytest.raises(RuntimeError, match="entered already"):
                await sharing.__aenter__()

    simulate(main)


def test_a_shared_breaker_needs_a_key() -> None:
    """Or it would share with every other that has none."""
    with pytest.raises(ConfigurationError, match="needs a key"):
        CircuitBreaker(POLICY, sharing=BreakerSharing(MemoryVerdicts()))


def test_a_breaker_that_made_room_is_not_shared_any_longer() -> None:
    """What is kept for sharing is bounded by the keys."""

    async def main() -> None:
        store = MemoryVerdicts()
        async with BreakerSharing(store, SHARING) as sharing:
            breakers = CircuitBreakers(BreakerPolicy(), sharing=sharing, max_keys=1)
            first = breakers.of("a")
            breakers.of("b")
            await store.open("a", known=0, open_for=30, by="another")
            await asyncio.sleep(1)
            assert first.available()

    simulate(main)
