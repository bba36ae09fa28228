"""What a ladder does with failures, time, load and quality, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any, TypeVar

import pytest
from pydantic import ValidationError

from llm_patterns.chat import ChatRequest, ChatStream, Message
from llm_patterns.errors import (
    ConfigurationError,
    ContentFiltered,
    InvalidRequest,
    Overloaded,
    RateLimited,
    ServerError,
)
from llm_patterns.resilience import (
    Answer,
    AnswerRejected,
    BreakerPolicy,
    BreakerState,
    Cached,
    CacheMiss,
    CircuitBreaker,
    DegradationEvent,
    DegradationPolicy,
    DegradationStatistics,
    Degraded,
    DegradedShareRose,
    Dimmer,
    DimmerPolicy,
    GracefulDegradation,
    Level,
    LevelDrilled,
    LevelPolicy,
    NotSafeToActOn,
    SkipReason,
    StaleCache,
    StaleCachePolicy,
    StreakDetector,
)
from llm_patterns.simulation import Outage, SimulatedProvider, fixed, open_loop, simulate
from llm_patterns.toolkit import deadline

T = TypeVar("T")
POLICY = DegradationPolicy(deadline=8)
Call = Callable[[str], Awaitable[str | Cached[str]]]


class Script:
    """A call that gives each of *outcomes* in turn, the last one again and again; `times` is when it was called."""

    def __init__(self, *outcomes: object, takes: float = 0.0) -> None:
        self.outcomes = list(outcomes)
        self.takes = takes
        self.times: list[float] = []

    async def __call__(self, request: str) -> str:
        """Give the next outcome."""
        self.times.append(now())
        await asyncio.sleep(self.takes)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return str(outcome)


def now() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


def level(name: str, call: Call, **options: Any) -> Level[str, str]:
    """A level of quality 0.8 that needs a second, but for what *options* say."""
    watched = {key: options.pop(key) for key in ("breaker", "dimmer") if key in options}
    settings = {"quality": 0.8, "reserve": 1.0} | options
    return Level(name, call, LevelPolicy.model_validate(settings), **watched)


def ladder(*levels: Level[str, str], **options: Any) -> GracefulDegradation[str, str]:
    """A ladder over *levels*, with a deadline of 8 s."""
    policy = options.pop("policy", POLICY)
    return GracefulDegradation(policy, levels, not_now="not now", **options)


def asked(ladder: GracefulDegradation[str, str], **options: Any) -> Answer[str]:
    """The answer to one call in virtual time."""

    async def main() -> Answer[str]:
        return await ladder.call("why?", **options)

    return simulate(main)


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run *main* in virtual time."""
    return simulate(main)


# --- which level answers ---------------------------------------------------------------------------


def test_the_first_level_that_works_answers() -> None:
    """At once, with nothing skipped, and nobody below is asked."""
    small = Script("small")
    answer = asked(ladder(level("full", Script("full", takes=2)), level("small", small)))
    assert answer == Answer("full", "full", 0, 0.8, 2.0, None, (), may_act=True)
    assert (answer.answered, answer.degraded, answer.reason) == (True, False, None)
    assert not small.times


def test_an_answer_says_why_not_the_level_above() -> None:
    """With the error that it raised."""
    broken = ServerError("down")
    answer = asked(ladder(level("full", Script(broken)), level("small", Script("small"))))
    assert (answer.level, answer.depth, answer.degraded) == ("small", 1, True)
    assert answer.skipped == (("full", SkipReason.FAILED, broken),)
    assert answer.reason is SkipReason.FAILED


def test_below_the_last_level_is_not_now() -> None:
    """A value, not an error, that promises nothing."""
    broken = Script(ServerError("down"))
    answer = asked(ladder(level("full", broken), level("small", broken), rng=Random(1)))
    assert (answer.value, answer.level, answer.depth, answer.quality) == (
        "not now",
        "not now",
        2,
        0,
    )
    assert not answer.answered
    assert answer.retry_after == 30 * (1 + Random(1).random() / 2)


@pytest.mark.parametrize(
    ("told", "soonest"),
    [
        ((RateLimited("slow down", retry_after=7), ServerError("down")), 7),
        ((RateLimited("slow down", retry_after=7), Overloaded("busy", retry_after=4)), 4),
    ],
)
def test_when_to_come_back_is_the_earliest_that_a_provider_says(
    told: tuple[Exception, ...], soonest: float
) -> None:
    """Spread over half as much again, so that they do not all come back at once."""
    answer = asked(ladder(*(level(str(error), Script(error)) for error in told)))
    assert answer.retry_after is not None
    assert soonest <= answer.retry_after <= 1.5 * soonest


def test_what_is_the_request_s_own_is_raised() -> None:
    """A lesser model must not answer what a better one would not."""
    small = Script("small")
    for own in (InvalidRequest("too long"), ContentFiltered("no")):
        refusing = ladder(level("full", Script(own)), level("small", small))
        with pytest.raises(type(own)) as caught:
            asked(refusing)
        assert caught.value is own
    assert not small.times


def test_an_answer_that_is_not_accepted_is_none() -> None:
    """It is the level's failure, with a reason of its own."""
    short = ladder(
        level("full", Script("cut sho")),
        level("small", Script("whole.")),
        accept=lambda text: text.endswith("."),
    )
    answer = asked(short)
    assert (answer.value, answer.reason) == ("whole.", SkipReason.REJECTED)
    assert isinstance(answer.skipped[0].error, AnswerRejected)


def test_a_level_s_own_refusal_is_told_apart() -> None:
    """A full bulkhead or an empty cache is neither a failure nor slow."""
    answer = asked(ladder(level("cache", Script(CacheMiss(9))), level("small", Script("small"))))
    assert answer.reason is SkipReason.REFUSED


# --- time ------------------------------------------------------------------------------------------


def test_a_level_is_cut_at_its_own_time_out() -> None:
    """The next one starts in that moment."""
    small = Script("small")
    answer = asked(
        ladder(level("full", Script("late", takes=60), timeout=3), level("small", small))
    )
    assert (answer.level, answer.reason, answer.seconds) == ("small", SkipReason.TOO_SLOW, 3.0)
    assert isinstance(answer.skipped[0].error, TimeoutError)


def test_without_a_time_out_a_level_has_what_the_others_do_not_need() -> None:
    """The last is asked in time for its reserve, however slow the ones before."""
    late = Script("late", takes=60)
    answer = asked(
        ladder(
            level("full", late, reserve=2),
            level("small", late, reserve=1.5),
            level("rules", Script("rules", takes=0.25), reserve=0.5),
        )
    )
    assert (answer.level, answer.seconds) == ("rules", 7.75)
    assert late.times == [0.0, 6.0]


def test_an_ambient_deadline_shortens_the_whole() -> None:
    """A level that needs more than is left is not begun."""
    full, small = Script("full", takes=1.5), Script("small", takes=0.2)
    both = ladder(level("full", full, reserve=2), level("small", small, reserve=0.5))

    async def main() -> tuple[Answer[str], Answer[str]]:
        with deadline(2.6):
            first = await both.call("why?")
        with deadline(2.4):
            return first, await both.call("why?")

    enough, too_little = run(main)
    assert (enough.level, too_little.level) == ("full", "small")
    assert too_little.reason is SkipReason.NO_TIME
    assert len(full.times) == 1


def test_a_level_does_not_start_with_less_than_it_needs() -> None:
    """It would only use up what the next one has."""
    hopeless = Script("full")
    short = ladder(level("full", hopeless, reserve=2), level("small", Script("small")))

    async def main() -> Answer[str]:
        with deadline(2.9):
            return await short.call("why?")

    assert run(main).skipped[0].reason is SkipReason.NO_TIME
    assert not hopeless.times


def test_a_call_that_is_cancelled_is_cancelled() -> None:
    """No other level is asked, and the place is free again."""
    small = Script("small")
    both = ladder(level("full", Script("late", takes=60)), level("small", small))

    async def main() -> DegradationStatistics:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await both.call("why?")
        return both.statistics()

    seen = run(main)
    assert not small.times
    assert (seen.cancelled, seen.answers, seen.levels[0].in_flight) == (1, 0, 0)


def test_a_cancellation_in_the_moment_of_the_cut_stays_one() -> None:
    """The caller's wins over the level's."""
    both = ladder(level("full", Script("late", takes=60), timeout=3), level("s", Script("small")))

    async def main() -> None:
        task = asyncio.create_task(both.call("why?"))
        asyncio.get_running_loop().call_at(3.0, task.cancel)
        await asyncio.wait([task])
        assert task.cancelled()

    run(main)


# --- health ----------------------------------------------------------------------------------------


def breaker(**options: Any) -> CircuitBreaker:
    """A breaker that opens after two bad calls."""
    policy = BreakerPolicy.model_validate({"open_time": 10, "open_jitter": 0, "ramp": 0} | options)
    return CircuitBreaker(policy, key="full", detector=StreakDetector(bad_calls=2), rng=Random(1))


def test_an_open_circuit_takes_no_time() -> None:
    """Time-outs open it, though they come from outside of the call; then the level is skipped at once."""
    guard = breaker()
    both = ladder(
        level("full", Script("late", takes=60), timeout=3, breaker=guard),
        level("small", Script("small")),
    )

    async def main() -> list[Answer[str]]:
        return [await both.call("why?") for _ in range(3)]

    answers = run(main)
    assert [answer.reason for answer in answers] == ["too_slow", "too_slow", "open"]
    assert [answer.seconds for answer in answers] == [3.0, 3.0, 0.0]


def test_a_cancelled_call_is_no_vote() -> None:
    """The breaker learns nothing of it."""
    guard = breaker()
    one = ladder(level("full", Script("late", takes=60), breaker=guard))

    async def main() -> BreakerState:
        for _ in range(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await one.call("why?")
        assert guard.statistics().no_vote == 5
        return guard.statistics().state

    assert run(main) is BreakerState.CLOSED


def test_an_answer_that_is_not_accepted_is_a_healthy_provider_s() -> None:
    """Bad content opens no circuit."""
    guard = breaker()
    one = ladder(level("full", Script("bad"), breaker=guard), accept=lambda text: text == "good")

    async def main() -> BreakerState:
        for _ in range(5):
            await one.call("why?")
        return guard.statistics().state

    assert run(main) is BreakerState.CLOSED


def test_an_open_circuit_says_when_to_come_back() -> None:
    """Where nothing else can answer."""
    guard = breaker()
    one = ladder(level("full", Script(ServerError("down")), breaker=guard))

    async def main() -> Answer[str]:
        for _ in range(2):
            await one.call("why?")
        await asyncio.sleep(4)
        return await one.call("why?")

    answer = run(main)
    assert answer.reason is SkipReason.OPEN
    assert answer.retry_after is not None
    assert 6 <= answer.retry_after <= 9


# --- load ------------------------------------------------------------------------------------------


def test_the_lowest_priority_is_shed_first() -> None:
    """Each class leaves room for those above."""
    full = Script("full", takes=1)
    both = ladder(level("full", full, max_in_flight=10), level("small", Script("small")))

    async def main() -> dict[str, int]:
        served = {}
        for name in ("background", "normal", "critical"):
            answers = await asyncio.gather(*(both.call("why?", priority=name) for _ in range(20)))
            served[name] = sum(not answer.degraded for answer in answers)
            shed = [answer.reason for answer in answers if answer.degraded]
            assert set(shed) == {SkipReason.SHED}
        return served

    assert run(main) == {"background": 8, "normal": 9, "critical": 10}


def test_who_names_no_priority_is_of_the_highest() -> None:
    """And an unknown one is refused with the list."""
    one = ladder(level("full", Script("full", takes=1), max_in_flight=10))

    async def main() -> int:
        answers = await asyncio.gather(*(one.call("why?") for _ in range(20)))
        return sum(not answer.degraded for answer in answers)

    assert run(main) == 10
    with pytest.raises(ConfigurationError, match="'urgent'; the policy has critical, normal"):
        asked(one, priority="urgent")


def test_a_dimmer_turns_a_slow_level_down_and_slowly_up_again() -> None:
    """Its share of the cap follows the share of slow answers."""
    full = Script("full", takes=6)
    dimmer = Dimmer(DimmerPolicy(target=5, rise=60, fall=20))
    both = ladder(
        level("full", full, max_in_flight=20, dimmer=dimmer), level("small", Script("small"))
    )

    async def main() -> tuple[float, float, float]:
        async def call(number: int) -> object:
            return await both.call("why?")

        await open_loop(call, [step / 4 for step in range(120)])
        slow = both.statistics().levels[0].dimmed_to
        full.takes = 1
        await open_loop(call, [step / 4 for step in range(120)])
        half = both.statistics().levels[0].dimmed_to
        await open_loop(call, [step / 4 for step in range(180)])
        return slow, half, both.statistics().levels[0].dimmed_to

    slow, half, full_again = run(main)
    assert slow < 0.1
    assert 0.4 < half < 0.6
    assert full_again == 1


def test_neither_quick_failures_nor_cached_answers_are_quick_answers() -> None:
    """They say nothing of how the level bears its load."""

    async def cached(request: str) -> str | Cached[str]:
        return Cached("old", 60.0)

    for call in (Script(ServerError("down")), cached):
        dimmer = Dimmer(DimmerPolicy(target=5))
        asked(ladder(level("full", call, dimmer=dimmer)))
        assert vars(dimmer)["_answers"] == 0


def test_calls_that_hang_dim_a_level_too() -> None:
    """They are cut off all at once, with silence between; that is no quiet time."""
    hanging = level(
        "full",
        Script("late", takes=60),
        timeout=6,
        max_in_flight=20,
        dimmer=Dimmer(DimmerPolicy(target=5)),
    )
    both = ladder(hanging, level("small", Script("small")))

    async def main() -> float:
        async def call(number: int) -> object:
            return await both.call("why?")

        await open_loop(call, [step / 10 for step in range(400)])
        return both.statistics().levels[0].dimmed_to

    assert run(main) < 0.1


# --- quality ---------------------------------------------------------------------------------------


def test_a_call_that_needs_more_gets_no_less() -> None:
    """Rather nothing than something that is not good enough."""
    broken = level("full", Script(ServerError("down")))
    poor = ladder(broken, level("small", Script("small"), quality=0.5))
    assert asked(poor, need=0.4).level == "small"
    answer = asked(poor, need=0.6)
    assert (answer.level, answer.reason) == ("not now", SkipReason.BELOW_FLOOR)


def test_scores_correct_the_declared_quality() -> None:
    """It counts for twenty of them; below its floor a level is not asked."""
    both = ladder(
        level("full", Script("full"), quality=0.9, quality_floor=0.7),
        level("small", Script("small"), quality=0.6),
    )
    for _ in range(5):
        both.record("full", 0.4)
    assert asked(both).quality == pytest.approx((20 * 0.9 + 5 * 0.4) / 25)
    for _ in range(15):
        both.record("full", 0.4)
    answer = asked(both)
    assert (answer.level, answer.reason) == ("small", SkipReason.BELOW_FLOOR)


def test_old_scores_fade() -> None:
    """A level that has become better is good again."""
    one = ladder(level("full", Script("full"), quality=0.5))
    for score, count in ((0.0, 2_000), (1.0, 2_000)):
        for _ in range(count):
            one.record("full", score)
    assert asked(one).quality > 0.95


def test_a_score_is_from_0_to_1_and_for_a_level_there_is() -> None:
    """The message names what was expected."""
    one = ladder(level("full", Script("full")))
    with pytest.raises(ConfigurationError, match="score is 80"):
        one.record("full", 80)
    with pytest.raises(ConfigurationError, match="no level 'fall'; the ladder has full"):
        one.record("fall", 0.8)


def test_a_lesser_answer_is_not_acted_on() -> None:
    """Unless its level says that it may; a cached one never as of the first level."""
    broken = level("full", Script(ServerError("down")))
    with pytest.raises(NotSafeToActOn, match="level 'small' may be shown, not acted on"):
        asked(ladder(broken, level("small", Script("small")))).for_action()
    safe = level("small", Script("small"), safe_for_actions=True)
    assert asked(ladder(broken, safe)).for_action() == "small"


# --- the cache -------------------------------------------------------------------------------------


def cached_ladder(
    full: Call, *, fresh: float = 60, stale: float = 600
) -> tuple[GracefulDegradation[str, str], StaleCache[str, str]]:
    """A full level, a stale cache and a smaller model."""
    cache: StaleCache[str, str] = StaleCache(
        StaleCachePolicy(fresh=fresh, stale=stale), key=lambda question: ("tenant", question)
    )
    levels = [
        level("full", full),
        Level("cached", cache.recall, LevelPolicy(quality=0.7, reserve=0)),
        level("small", Script("small"), quality=0.5),
    ]
    return GracefulDegradation(POLICY, levels, not_now="not now", cache=cache), cache


def test_a_fresh_answer_is_the_first_level_s() -> None:
    """The provider is not asked, be it up or down, and the answer says its age."""
    full = Script("full", takes=1)
    both, cache = cached_ladder(full)

    async def main() -> Answer[str]:
        await both.call("why?")
        await asyncio.sleep(30)
        return await both.call("why?")

    answer = run(main)
    assert (answer.level, answer.age, answer.degraded, len(full.times)) == ("full", 31.0, False, 1)
    assert not answer.may_act
    assert cache.statistics().fresh_hits == 1


def test_a_stale_answer_is_given_when_the_first_level_fails_and_not_past_its_bound() -> None:
    """Then the level below is asked."""
    both, cache = cached_ladder(Script("full", ServerError("down")))

    async def main() -> list[Answer[str]]:
        answers = [await both.call("why?")]
        for pause in (300, 299.9, 0.2):
            await asyncio.sleep(pause)
            answers.append(await both.call("why?"))
        return answers

    answers = run(main)
    assert [answer.level for answer in answers] == ["full", "cached", "cached", "small"]
    assert [answer.age for answer in answers] == [None, 300.0, pytest.approx(599.9), None]
    assert answers[3].reason is SkipReason.REFUSED
    assert cache.statistics().misses == 1


def test_a_lesser_answer_does_not_enter_the_cache() -> None:
    """It would be replayed when nobody remembers what it was."""
    both, cache = cached_ladder(Script(ServerError("down")))

    async def main() -> list[str]:
        return [(await both.call("why?")).level for _ in range(3)]

    assert run(main) == ["small"] * 3
    assert cache.statistics().entries == 0


def test_of_those_who_ask_the_same_one_goes_to_the_provider() -> None:
    """The others wait for it, and have its answer."""
    full = Script("full", takes=2)
    both, cache = cached_ladder(full)

    async def main() -> list[Answer[str]]:
        return await asyncio.gather(*(both.call("why?") for _ in range(10)))

    assert {answer.value for answer in run(main)} == {"full"}
    assert (len(full.times), cache.statistics().joined) == (1, 9)


def test_one_that_gives_up_does_not_end_what_others_wait_for() -> None:
    """The last one that does, ends it."""
    full = Script("full", takes=2)
    both, cache = cached_ladder(full)

    async def impatient(seconds: float) -> str:
        async with asyncio.timeout(seconds):
            return (await both.call("why?")).value

    async def main() -> list[object]:
        both_of_them = await asyncio.gather(impatient(1), impatient(9), return_exceptions=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await cache.fill("how?", full)
        return list(both_of_them)

    gone, stayed = run(main)
    assert isinstance(gone, TimeoutError)
    assert stayed == "full"
    assert cache.statistics().entries == 1


def test_a_failed_flight_fails_for_all_and_is_not_kept() -> None:
    """The next one asks anew."""
    full = Script(ServerError("down"), "full", takes=1)
    both, _ = cached_ladder(full)

    async def main() -> list[str]:
        first = await asyncio.gather(*(both.call("why?") for _ in range(3)))
        return [answer.level for answer in (*first, await both.call("why?"))]

    assert run(main) == ["small", "small", "small", "full"]


def test_a_key_keeps_tenants_apart() -> None:
    """It is all that the answer depends on."""
    cache: StaleCache[tuple[str, str], str] = StaleCache(
        StaleCachePolicy(fresh=60, stale=60), key=lambda request: request
    )
    cache.put(("one", "why?"), "because", now=0)
    assert cache.get(("one", "why?"), now=1) == Cached("because", 1)
    assert cache.get(("two", "why?"), now=1) is None


# --- who notices -----------------------------------------------------------------------------------


def test_events_tell_of_degraded_answers_only() -> None:
    """A hook that raises breaks no call."""
    heard: list[DegradationEvent] = []
    full = Script("full", ServerError("down"))
    both = ladder(level("full", full), level("small", Script("small")), on_event=heard.append)

    async def main() -> None:
        for _ in range(2):
            await both.call("why?")

    run(main)
    (event,) = heard
    assert isinstance(event, Degraded)
    assert (event.level, event.skipped[0].level) == ("small", "full")


def test_statistics_tell_shares_and_minutes() -> None:
    """What each level answered, why it was skipped, and how long it carried the service."""
    provider = SimulatedProvider(faults=[Outage(start=100, duration=50)], responder=fixed("full"))
    request = ChatRequest(model="any", messages=(Message.user("why?"),))

    async def full(question: str) -> str:
        return (await provider.complete(request)).text

    both = ladder(level("full", full), level("small", Script("small")))

    async def main() -> DegradationStatistics:
        async def call(number: int) -> object:
            return await both.call("why?")

        await open_loop(call, range(200))
        return both.statistics()

    seen = run(main)
    assert seen.shares == {"full": 0.75, "small": 0.25, "not now": 0.0}
    assert (seen.answers, seen.degraded_share) == (200, 0.25)
    assert seen.levels[0].skipped == {SkipReason.FAILED: 50}
    assert [round(level.seconds) for level in seen.levels] == [149, 50]
    assert seen.levels[0].attempts == 200


def test_an_outage_raises_one_alarm_an_hour() -> None:
    """Not one for each degraded answer."""
    heard: list[DegradationEvent] = []

    async def down(request: str) -> str:
        raise ServerError(
            "down"
        )  # a new one each time: one raised again and again grows its traceback

    both = ladder(
        level("full", down),
        level("small", Script("small")),
        on_event=heard.append,
    )

    async def main() -> None:
        async def call(number: int) -> object:
            return await both.call("why?")

        await open_loop(call, range(2 * 3600))

    run(main)
    assert sum(isinstance(event, DegradedShareRose) for event in heard) == 2


@pytest.mark.parametrize("usual", [0.02, 0.05, 0.1])
def test_a_share_that_creeps_up_is_found_before_it_doubles(usual: float) -> None:
    """A two-hundredth of a percent a call, and none is raised while it stays."""

    def first_alarm(share: Callable[[int], float], calls: int) -> float | None:
        chance, heard = Random(3), []

        async def full(request: str) -> str:
            if chance.random() < share(number):
                raise ServerError("down")
            return "full"

        both = ladder(
            level("full", full),
            level("small", Script("small")),
            policy=POLICY.model_copy(update={"usual_degraded_share": usual}),
            on_event=lambda event: (
                heard.append(event) if isinstance(event, DegradedShareRose) else 0
            ),
        )
        number = 0

        async def main() -> float | None:
            nonlocal number
            for number in range(calls):
                await both.call("why?")
                if heard:
                    return share(number) / usual
            return None

        return run(main)

    assert first_alarm(lambda number: usual, 20_000) is None
    found = first_alarm(lambda number: usual * (1 + number / 40_000), 60_000)
    assert found is not None
    assert 1.1 < found < 2


def test_a_drill_finds_the_path_that_has_rotted() -> None:
    """Before the day on which it is needed; no user sees it, and it counts in no share."""
    heard: list[DegradationEvent] = []
    rotten = Script(KeyError("OLD_SETTING"))
    both = ladder(level("full", Script("full")), level("small", rotten), on_event=heard.append)

    async def main() -> DegradationStatistics:
        await both.call("why?")
        await both.drill("ping")
        return both.statistics()

    seen = run(main)
    full, small = [event for event in heard if isinstance(event, LevelDrilled)]
    assert (full.reason, small.reason) == (None, SkipReason.FAILED)
    assert isinstance(small.error, KeyError)
    assert (seen.answers, seen.levels[0].answers, seen.degraded_share) == (1, 1, 0)
    assert (seen.levels[0].exercised_at, seen.levels[1].exercised_at) == (0, None)


def test_a_drill_waits_for_no_one_and_overrules_nothing() -> None:
    """It comes after all priorities, and an open circuit stays shut."""
    guard = breaker()
    guard_and_full = ladder(
        level("open", Script("x"), breaker=guard),
        level("busy", Script("busy", takes=5), max_in_flight=2),
    )

    async def main() -> list[SkipReason | None]:
        guard.force("open")
        users = [asyncio.create_task(guard_and_full.call("why?")) for _ in range(2)]
        await asyncio.sleep(1)
        drilled = await guard_and_full.drill("ping")
        await asyncio.gather(*users)
        return [each.reason for each in drilled]

    assert run(main) == [SkipReason.OPEN, SkipReason.SHED]


def test_a_drill_s_scores_bring_a_level_back() -> None:
    """Below its floor no user's call can."""
    one = ladder(level("full", Script("full"), quality=0.8, quality_floor=0.7))

    async def main() -> list[str]:
        for _ in range(40):
            one.record("full", 0.2)
        before = (await one.call("why?")).level
        for _ in range(200):
            await one.drill("ping", score=lambda text: 1.0)
        return [before, (await one.call("why?")).level]

    assert run(main) == ["not now", "full"]


def test_drills_go_on_until_they_are_cancelled() -> None:
    """An interval apart on average, never in step."""
    full = Script("full")
    one = ladder(level("full", full), rng=Random(4))

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10_000):
                await one.keep_drilling("ping", interval=100)

    run(main)
    assert 80 < len(full.times) < 120
    assert len({round(time % 100) for time in full.times}) > 30


# --- building it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ([], "one or more with names"),
        ([("a", {}), ("a", {})], "names of their own"),
        ([("not now", {})], "'not now' is taken"),
        ([("a", {"reserve": 5}), ("b", {"reserve": 4})], "reserve 9 s and the deadline is 8 s"),
        (
            [("a", {"depends_on": {"eu", "x"}}), ("b", {"depends_on": {"x"}})],
            "'a' and 'b' both depend on x and fail together",
        ),
    ],
)
def test_a_ladder_that_cannot_work_is_refused_when_built(
    levels: list[tuple[str, dict[str, Any]]], said: str
) -> None:
    """The message names the value and the remedy."""
    policy = POLICY.model_copy(update={"require_disjoint": True})
    with pytest.raises(ConfigurationError, match=said):
        ladder(*(level(name, Script("x"), **options) for name, options in levels), policy=policy)


def test_a_dimmer_must_see_slowness_before_it_is_cut_off() -> None:
    """Else a crowd looks like an outage, and the breaker opens."""
    dimmer = Dimmer(DimmerPolicy(target=6))
    with pytest.raises(
        ConfigurationError, match="timeout of 6 s and a dimmer with a target of 6 s"
    ):
        ladder(level("full", Script("x"), timeout=6, dimmer=dimmer))


@pytest.mark.parametrize(
    ("policy", "options", "said"),
    [
        (LevelPolicy, {"quality": 0.8}, "reserve"),
        (LevelPolicy, {"reserve": 1}, "quality"),
        (LevelPolicy, {"quality": 80, "reserve": 1}, "less than or equal to 1"),
        (LevelPolicy, {"quality": 0.8, "reserve": 3, "timeout": 2}, "more than it may take"),
        (DegradationPolicy, {}, "deadline"),
        (DegradationPolicy, {"deadline": 8, "priorities": ()}, "at least 1"),
        (DimmerPolicy, {"target": 5, "rise": 5, "fall": 9}, "longer rise"),
        (StaleCachePolicy, {"fresh": 60, "stale": 30}, "can't be fresh when it is gone"),
        (StaleCachePolicy, {"fresh": 60, "stale": 10**6}, "less than or equal to 604800"),
    ],
)
def test_a_policy_that_cannot_work_is_refused_when_made(
    policy: type[LevelPolicy], options: dict[str, Any], said: str
) -> None:
    """Where every default would be wrong there is none."""
    with pytest.raises(ValidationError, match=said):
        policy.model_validate(options)


def test_a_level_may_open_a_stream() -> None:
    """The ladder ends with the opening."""
    down = SimulatedProvider(faults=[Outage()])
    up = SimulatedProvider(responder=fixed("small"))
    request = ChatRequest(model="any", messages=(Message.user("why?"),))
    streams: GracefulDegradation[ChatRequest, ChatStream | None] = GracefulDegradation(
        POLICY,
        [
            Level("full", down.stream, LevelPolicy(quality=0.8, reserve=1)),
            Level("small", up.stream, LevelPolicy(quality=0.6, reserve=1)),
        ],
        not_now=None,
    )

    async def main() -> tuple[str, str]:
        answer = await streams.call(request)
        assert answer.value is not None
        return answer.level, "".join([chunk.text async for chunk in answer.value])

    assert run(main) == ("small", "small")
