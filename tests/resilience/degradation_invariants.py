"""The invariants of ladders, dimmers and stale caches, as checks on random histories.

Each is a function of the module under test, or of what happened in it, so that it can be shown to fail on a copy with a
bug in it.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, cycle
from random import Random
from types import ModuleType
from typing import Any, NamedTuple

from llm_patterns.errors import InvalidRequest, error_for_status
from llm_patterns.resilience import (
    Answer,
    BreakerPolicy,
    CircuitBreaker,
    DegradationPolicy,
    Dimmer,
    DimmerPolicy,
    Level,
    LevelPolicy,
    Permit,
    SkipReason,
    StaleCachePolicy,
    StreakDetector,
    graceful_degradation,
    load_shedding,
    stale_cache,
)
from llm_patterns.simulation import simulate
from llm_patterns.toolkit import deadline

EPSILON = 1e-6
CLASSES = ("critical", "normal", "background")
OUTCOMES = ("ok", "ok", "ok", "cut short", "503", "400", "hang", "time-out")


# --- dimmers and limits: random traffic -----------------------------------------------------------


def dimmer_policy(rng: Random) -> dict[str, float]:
    """Random settings."""
    return {
        "target": 1.0,
        "slow_share": rng.choice([0.01, 0.05, 0.3]),
        "rise": rng.choice([20.0, 60.0]),
        "fall": rng.choice([1.0, 20.0]),
        "period": rng.choice([0.5, 1.0, 5.0]),
    }


def check_dimmer(module: ModuleType = load_shedding, *, runs: int) -> None:
    """A dimmer stays between 0 and 1, at its rates, and moves the right way."""
    for seed in range(runs):
        rng = Random(seed)
        policy = module.DimmerPolicy(**dimmer_policy(rng))
        dimmer, now = module.Dimmer(policy), 0.0
        longest = max(policy.period, policy.target)  # that one answer may speak for
        for _ in range(60):
            slow = rng.choice([True, False, None])
            before, began, told = dimmer.level(now), now, 0
            for _ in range(rng.randrange(1, 30)):
                now += rng.choice([0, 0.05, 0.3, 20])
                if slow is not None:
                    dimmer.record(2.0 if slow else 0.5, now)
                    told += 1
            moved, after = dimmer.level(now) - before, dimmer.level(now)
            assert 0 <= after <= 1, "a dimmer stays between 0 and 1"
            spoken_for = min(now - began, told * longest) + 2 * longest
            assert moved <= spoken_for / policy.rise + EPSILON, "it rose too quickly"
            assert moved >= -spoken_for / policy.fall - EPSILON, "it fell too quickly"


def check_dimming(module: ModuleType = load_shedding) -> None:
    """It is dark once all is slow for long enough, full again once nothing is, and holds at the share allowed."""
    policy = module.DimmerPolicy(target=1, rise=60, fall=20)
    dimmer = module.Dimmer(policy)

    def tell(seconds: float, start: int, end: int) -> float:
        for second in range(start, end):
            dimmer.record(seconds, second)
        level: float = dimmer.level(end)
        return level

    assert tell(2.0, 0, 22) == 0, "all slow for longer than the fall"
    assert dimmer.level(1_000) == 0, "silence is no light"
    assert abs(tell(0.5, 1_000, 1_030) - 0.5) < EPSILON, "half the rise later"
    assert tell(0.5, 1_030, 1_062) == 1, "and full again"
    for second in range(1_062, 1_162):
        for number in range(20):
            dimmer.record(2.0 if number == 7 else 0.5, second)
    assert dimmer.level(1_162) > 1 - 1 / policy.rise, "a twentieth may be slow"


def check_limits(module: ModuleType = load_shedding, *, runs: int) -> None:
    """A limit is from 1 to the cap, and no lower for a higher priority or a brighter level."""
    for seed in range(runs):
        rng = Random(seed)
        cap, level, headroom = rng.randrange(1, 200), rng.random(), rng.random() / 2
        limits = [module.in_flight_limit(cap, level, rank, headroom) for rank in range(4)]
        assert limits == sorted(limits, reverse=True), "a lower priority may more"
        assert limits[0] <= max(1, cap * level), "more than the level bears"
        assert min(limits) >= 1, "nothing finds out whether it is well"
        assert limits[0] <= module.in_flight_limit(cap, min(1, level + 0.1), 0, headroom)


def check_cache(module: Any = stale_cache, *, runs: int) -> None:
    """It holds no more than it may, and lets go what was used least recently."""
    for seed in range(runs):
        rng = Random(seed)
        policy = module.StaleCachePolicy(fresh=0, stale=50, max_entries=rng.randrange(1, 5))
        cache = module.StaleCache(policy, key=lambda request: request)
        used: list[int] = []
        for at in range(40):
            key = rng.randrange(8)
            held = (
                cache.get(key, float(at)) if rng.random() < 0.5 else cache.put(key, at, float(at))
            )
            put = held is None and vars(cache)["_entries"].get(key, (None,))[0] == at
            if held is not None or put:
                used = [each for each in used if each != key] + [key]
            entries = list(vars(cache)["_entries"])
            assert len(entries) <= policy.max_entries, "more entries than it may"
            assert entries == used[-len(entries) :], "the wrong one had to go"


# --- whole ladders: random levels, calls, faults, priorities and cancellations -------------------


class Value(NamedTuple):
    """What a level answered: by whom, whether it is whole, when it was begun and for which key."""

    depth: int
    whole: bool
    born: float
    key: int


@dataclass
class Plan:
    """One call: the request is the plan itself, so that the levels see whose they work on."""

    number: int
    start: float
    key: int
    priority: str
    need: float
    ambient: float | None
    cancelled: float | None
    order: int = 0
    result: object = None
    ended: float = 0.0


@dataclass
class History:
    """Everything random about a run."""

    policy: dict[str, Any]
    levels: list[dict[str, Any]]
    cache: dict[str, float] | None
    scores: list[tuple[int, float]]
    plans: list[Plan]
    drills: list[float]


@dataclass
class Run:
    """What a history led to."""

    history: History
    ladder: Any
    levels: list["Worker"]
    breakers: list["CountingBreaker"]
    entries: dict[Any, Any] = field(default_factory=dict)
    flights: dict[Any, Any] = field(default_factory=dict)
    statistics: Any = None

    def answers(self) -> list[tuple[Plan, Answer[Value]]]:
        """The calls that got an answer."""
        return [
            (plan, plan.result) for plan in self.history.plans if isinstance(plan.result, Answer)
        ]


class CountingBreaker(CircuitBreaker):
    """A breaker that counts the permits that are out."""

    out = 0

    def acquire(self) -> Permit:
        """Count one more."""
        permit = super().acquire()
        self.out += 1
        return permit

    def release(
        self, permit: Permit, *, succeeded: bool | None, duration: float | None = None
    ) -> None:
        """Count one less."""
        super().release(permit, succeeded=succeeded, duration=duration)
        self.out -= 1


@dataclass
class Worker:
    """The call of one level, and what was seen of it."""

    depth: int
    outcomes: Any
    running: int = 0
    most: int = 0
    ended: list[float] = field(default_factory=list)

    async def __call__(self, plan: Plan) -> Value:
        """Do what comes next."""
        outcome, takes = next(self.outcomes)
        born = now()
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(10_000 if outcome == "hang" else takes)
        finally:
            self.running -= 1
            self.ended.append(now())
        if outcome == "time-out":
            raise TimeoutError
        if outcome in ("503", "400"):
            raise error_for_status(int(outcome), outcome)
        return Value(self.depth, outcome == "ok", born, plan.key)


def now() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


def random_level(rng: Random) -> dict[str, Any]:
    """One level's settings and behaviour."""
    reserve = rng.choice([0.0, 0.25, 0.5, 1.0])
    return {
        "policy": {
            "quality": rng.choice([0.2, 0.5, 0.8]),
            "reserve": reserve,
            "timeout": rng.choice([None, None, reserve + 0.5, reserve + 2.0]),
            "quality_floor": rng.choice([0.0, 0.0, 0.4]),
            "max_in_flight": rng.choice([1, 2, 3, 10]),
            "safe_for_actions": rng.random() < 0.3,
        },
        "outcomes": [
            (rng.choice(OUTCOMES), rng.choice([0.0, 0.2, 1.0, 3.0]))
            for _ in range(rng.randrange(1, 6))
        ],
        "breaker": rng.random() < 0.3,
        "dimmer": rng.random() < 0.3,
    }


def random_plan(rng: Random, number: int) -> Plan:
    """One call."""
    return Plan(
        number=number,
        start=rng.choice([0.0, 0.0, 0.3, 1.0, 1.0, 2.0, 5.0, 9.0]),
        key=rng.randrange(2),
        priority=rng.choice(CLASSES),
        need=rng.choice([0.0, 0.0, 0.0, 0.3, 0.6]),
        ambient=rng.choice([None, None, 0.7, 2.0]),
        cancelled=rng.choice([None, None, None, 0.1, 1.5]),
    )


def random_history(rng: Random) -> History:
    """Some levels and calls."""
    levels = [random_level(rng) for _ in range(rng.randrange(1, 4))]
    stale = rng.choice([2.0, 6.0])
    return History(
        policy={"deadline": rng.choice([3.0, 4.0, 8.0]), "headroom": rng.choice([0.0, 0.3])},
        levels=levels,
        cache=rng.choice([None, {"fresh": 0.0, "stale": stale}, {"fresh": 1.5, "stale": stale}]),
        scores=[(rng.randrange(len(levels)), rng.random()) for _ in range(rng.choice([0, 0, 30]))],
        plans=[random_plan(rng, number) for number in range(rng.randrange(1, 9))],
        drills=[rng.choice([0.1, 4.0])] if rng.random() < 0.3 else [],
    )


def run_history(
    history: History,
    ladders: Any = graceful_degradation,
    caches: Any = stale_cache,
) -> Run:
    """Make the calls of *history* through a ladder of the module *ladders*, in virtual time."""

    async def main() -> Run:
        cache = None
        if history.cache is not None:
            policy = StaleCachePolicy(**history.cache, max_entries=10)
            cache = caches.StaleCache(policy, key=lambda plan: plan.key)
        workers = [
            Worker(depth, cycle(each["outcomes"])) for depth, each in enumerate(history.levels)
        ]
        breakers: list[CountingBreaker] = []
        levels = [level_of(worker, history.levels[worker.depth], breakers) for worker in workers]
        if cache is not None:
            recalled = LevelPolicy(quality=0.5, reserve=0.0)
            levels.append(Level("recalled", cache.recall, recalled))
        ladder = ladders.GracefulDegradation(
            DegradationPolicy(**history.policy),
            levels,
            not_now=None,
            accept=lambda value: value.whole,
            cache=cache,
            rng=Random(1),
        )
        run = Run(history, ladder, workers, breakers)
        for depth, score in history.scores:
            ladder.record(levels[depth].name, score)
        order = count()
        async with asyncio.TaskGroup() as group:
            for plan in history.plans:
                group.create_task(caller(ladder, plan, order))
            for at in history.drills:
                group.create_task(driller(ladder, at))
        if cache is not None:
            run.entries, run.flights = vars(cache)["_entries"], vars(cache)["_flights"]
        run.statistics = ladder.statistics()
        return run

    return simulate(main)


def level_of(
    worker: Worker, plan: dict[str, Any], breakers: list[CountingBreaker]
) -> Level[Any, Any]:
    """The level that a worker answers for."""
    breaker = dimmer = None
    if plan["breaker"]:
        policy = BreakerPolicy(open_time=1, ramp=1)
        breaker = CountingBreaker(policy, detector=StreakDetector(bad_calls=2), rng=Random(2))
        breakers.append(breaker)
    if plan["dimmer"]:
        dimmer = Dimmer(DimmerPolicy(target=0.4, rise=5, fall=1, period=0.5))
    return Level(f"level {worker.depth}", worker, LevelPolicy(**plan["policy"]), breaker, dimmer)


async def caller(ladder: Any, plan: Plan, order: Iterator[int]) -> None:
    """Make one call as planned, and cancel it where the plan says so."""
    await asyncio.sleep(plan.start)
    plan.order = next(order)
    limit = 1_000.0 if plan.cancelled is None else plan.cancelled
    try:
        async with asyncio.timeout(limit) as cancel:
            with deadline(plan.ambient):
                plan.result = await ladder.call(plan, priority=plan.priority, need=plan.need)
    except Exception as error:
        plan.result = "cancelled" if cancel.expired() else error
    plan.ended = now()


async def driller(ladder: Any, at: float) -> None:
    """Drill once."""
    await asyncio.sleep(at)
    await ladder.drill(Plan(-1, at, 0, "background", 0.0, None, None))


# --- the checks -----------------------------------------------------------------------------------


def every_call_is_answered(run: Run) -> None:
    """Invariant 1: by a level or by "not now"; only what is the request's own is raised, and as it came."""
    for plan in run.history.plans:
        limit = 1_000 if plan.cancelled is None else plan.cancelled
        assert plan.ended <= plan.start + limit + EPSILON, "a cancelled call went on"
        if plan.result == "cancelled" or isinstance(plan.result, InvalidRequest):
            continue
        assert isinstance(plan.result, Answer), f"{plan.result!r} is no answer"
        reached = len(plan.result.skipped)
        assert plan.result.depth in (0, reached), "a level was neither asked nor skipped"


def time_is_kept(run: Run) -> None:
    """Invariant 2: calls end by the deadline, and reserves are there for those that they are kept for."""
    reserves = [each["policy"]["reserve"] for each in run.history.levels]
    for plan, answer in run.answers():
        limit = min(run.history.policy["deadline"], plan.ambient or 1_000)
        assert plan.ended - plan.start <= limit + EPSILON, "it took longer than the deadline"
        for depth, skipped in enumerate(answer.skipped[: len(reserves)]):
            if skipped.reason is SkipReason.NO_TIME and reserves[depth]:
                assert limit < sum(reserves[depth:]) + EPSILON, "its reserve was used up"


def quality_is_kept(run: Run) -> None:
    """Invariant 3: no answer below what the call needs, or below the level's own floor."""
    for plan, answer in run.answers():
        if answer.level == "not now":
            assert answer.quality == 0
            continue
        assert answer.quality >= plan.need, "a lower quality than was needed"
        if answer.depth < len(run.history.levels) and answer.age is None:
            floor = run.history.levels[answer.depth]["policy"]["quality_floor"]
            assert answer.quality >= floor, "a lower quality than the floor"


def the_cache_is_clean(run: Run) -> None:
    """Invariant 4: whole answers of the first level only, no older than they say, within the bound."""
    for key, (value, _) in run.entries.items():
        assert value.depth == 0, "a degraded answer was cached"
        assert value.whole, "an answer that was not accepted was cached"
        assert value.key == key, "an answer is held under another's key"
    for plan, answer in run.answers():
        assert answer.value is None or answer.value.whole, "an answer that is none"
        if answer.age is not None:
            assert run.history.cache is not None
            assert answer.value.key == plan.key, "another's answer"
            age = plan.ended - answer.value.born
            assert abs(answer.age - age) < EPSILON, "it is older than it says"
            bound = "stale" if answer.depth else "fresh"
            assert age <= run.history.cache[bound] + EPSILON, "too old an answer"


def the_books_balance(run: Run) -> None:
    """Invariant 5: the levels' answers are the calls' answers, and the shares add up."""
    seen = run.statistics
    counted = Counter(answer.level for _, answer in run.answers())
    for level in seen.levels:
        assert level.answers == counted[level.name], "an answer was counted wrongly"
    assert seen.not_now == counted["not now"]
    assert seen.answers == sum(counted.values())
    assert not seen.answers or abs(sum(seen.shares.values()) - 1) < EPSILON
    results = [plan.result for plan in run.history.plans]
    assert seen.cancelled == results.count("cancelled"), "a cancelled call was not counted"
    assert seen.raised == sum(isinstance(each, Exception) for each in results)
    spent = seen.not_now_seconds + sum(level.seconds for level in seen.levels)
    first = min((plan.ended for plan, _ in run.answers()), default=None)
    if first is not None:
        ended = max(plan.ended for plan in run.history.plans)
        assert spent >= ended - first - EPSILON, "time at the levels was lost"


def caps_hold(run: Run) -> None:
    """A level never has more in flight than its cap."""
    for worker in run.levels:
        cap = run.history.levels[worker.depth]["policy"]["max_in_flight"]
        assert worker.most <= cap, "more in flight than the cap"


def the_lowest_is_shed_first(run: Run) -> None:
    """At one moment, with nothing ending, none that is admitted to the first level is below one just shed there."""
    if run.history.cache is not None:
        return  # those who wait for another's call leave their place unseen
    ended, calls = run.levels[0].ended, sorted(run.answers(), key=lambda each: each[0].order)
    for shed, answer in calls:
        if not answer.skipped or answer.skipped[0].reason is not SkipReason.SHED:
            continue
        for plan, other in calls:
            after = plan.start == shed.start not in ended and plan.order > shed.order
            if after and asked_first_level(other):
                assert CLASSES.index(plan.priority) <= CLASSES.index(shed.priority), (
                    "a lower priority was served instead"
                )


def asked_first_level(answer: Answer[Value]) -> bool:
    """Whether the first level was admitted to, not only looked at."""
    reasons = {SkipReason.FAILED, SkipReason.REJECTED, SkipReason.TOO_SLOW}
    return answer.skipped[0].reason in reasons if answer.skipped else answer.age is None


def nothing_is_left_behind(run: Run) -> None:
    """Every place and permit is given back, those of cancelled calls too, and no flight goes on."""
    assert all(level.in_flight == 0 for level in run.statistics.levels), "a place was kept"
    assert all(worker.running == 0 for worker in run.levels)
    assert all(breaker.out == 0 for breaker in run.breakers), "a permit was kept"
    assert not run.flights, "a flight was forgotten"


def actions_are_guarded(run: Run) -> None:
    """Only an answer of the first level, newly made, may be acted on, or one of a level declared safe."""
    for _, answer in run.answers():
        safe = (
            answer.depth < len(run.history.levels)
            and (run.history.levels[answer.depth]["policy"]["safe_for_actions"])
        )
        assert answer.may_act == (safe or (answer.depth == 0 and answer.age is None))


INVARIANTS: list[Callable[[Run], None]] = [
    *(every_call_is_answered, time_is_kept, quality_is_kept, the_cache_is_clean),
    *(the_books_balance, caps_hold, the_lowest_is_shed_first, nothing_is_left_behind),
    actions_are_guarded,
]
