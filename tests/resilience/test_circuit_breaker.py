"""What `CircuitBreaker` does with outcomes, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest
from pydantic import ValidationError

from llm_patterns.chat import ChatRequest, Message
from llm_patterns.errors import (
    ConfigurationError,
    ErrorKind,
    InvalidRequest,
    LLMPatternsError,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    RequestTimeout,
    ServerError,
    failure_of,
)
from llm_patterns.layers import LayeredModel
from llm_patterns.resilience import (
    BaselineExceeded,
    BreakerClosed,
    BreakerEvent,
    BreakerHalfOpened,
    BreakerOpened,
    BreakerPolicy,
    BreakerState,
    CircuitBreaker,
    CircuitBreakers,
    CircuitOpen,
    CusumDetector,
    Evidence,
    RateDetector,
    RetriesExhausted,
    RetryPolicy,
    RetryWithBudget,
    StreakDetector,
    vote_of,
)
from llm_patterns.simulation import ErrorRate, SimulatedProvider, simulate

POLICY = BreakerPolicy(open_time=10, open_jitter=0, ramp=0, slow_after=5)


class Provider:
    """A dependency that can be told how it is; it notes who reaches it, and how many at once."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.takes = 0.0
        self.times: list[float] = []
        self.in_flight = 0
        self.most_in_flight = 0

    async def __call__(self) -> str:
        """Answer, or raise the error."""
        self.times.append(now())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.takes)
            if self.error is not None:
                raise self.error
        finally:
            self.in_flight -= 1
        return "answer"


def now() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


async def outcome(call: Callable[[], Awaitable[object]]) -> object:
    """What a call returns or raises."""
    try:
        return await call()
    except Exception as error:
        return error


async def many(call: Callable[[], Awaitable[object]], count: int) -> list[object]:
    """The outcomes of so many calls at one moment."""
    return list(await asyncio.gather(*(outcome(call) for _ in range(count))))


def opened_by(bad_calls: int = 2, **options: object) -> CircuitBreaker:
    """A breaker that opens after a streak of so many bad calls."""
    policy = POLICY.model_copy(update=options)
    return CircuitBreaker(policy, key="k", detector=StreakDetector(bad_calls=bad_calls))


async def open_it(breaker: CircuitBreaker, bad_calls: int = 2) -> None:
    """Let it open."""
    for _ in range(bad_calls):
        breaker.release(breaker.acquire(), succeeded=False)
    assert breaker.statistics().state is BreakerState.OPEN


def test_successes_and_errors_pass_as_they_are() -> None:
    """A closed circuit is not seen."""
    failure = ServerError("no")

    async def main() -> None:
        provider = Provider()
        call = CircuitBreaker(POLICY)(provider)
        assert await call() == "answer"
        provider.error = failure
        assert await outcome(call) is failure

    simulate(main)


def test_an_outage_opens_after_six_calls_by_default() -> None:
    """The seventh does not reach the provider, and says why and until when."""

    async def main() -> None:
        provider = Provider()
        provider.error = ServerError("no")
        call = CircuitBreaker(POLICY, key="openai")(provider)
        outcomes = [await outcome(call) for _ in range(7)]
        assert outcomes[:6] == [provider.error] * 6
        refusal = outcomes[6]
        assert isinstance(refusal, CircuitOpen)
        assert (refusal.key, refusal.state) == ("openai", BreakerState.OPEN)
        assert refusal.retry_after == 10
        assert refusal.evidence == Evidence("cusum", 24, 23, 6)
        assert "circuit of openai is open (cusum 24 of 23 in 6 calls); ask again in 10 s" in str(
            refusal
        )
        assert len(provider.times) == 6

    simulate(main)


def test_a_refusal_is_nobody_s_failure() -> None:
    """No breaker counts it, and no retry layer tries again."""

    async def main() -> None:
        inner, outer = opened_by(2), opened_by(2)
        await open_it(inner)
        provider = Provider()
        retry = RetryWithBudget(RetryPolicy(deadline=60))
        for _ in range(20):
            refusal = await outcome(retry(outer(inner(provider))))
            assert isinstance(refusal, CircuitOpen)
            assert failure_of(refusal).kind is ErrorKind.REFUSED
        assert outer.statistics().state is BreakerState.CLOSED
        assert outer.statistics().no_vote == 20
        assert retry.statistics().retries == 0
        assert now() == 0

    simulate(main)


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (ServerError("500"), True),
        (Overloaded("529"), True),
        (RequestTimeout("late"), True),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (KeyError("of a client that is not known"), True),
        (RateLimited("429"), False),
        (QuotaExhausted("402"), False),
        (InvalidRequest("400"), False),
        (asyncio.CancelledError(), False),
    ],
)
def test_what_counts_is_the_dependency_s_failure(error: BaseException, counts: bool) -> None:
    """What the caller did wrong, or was told to slow down for, is no vote either way."""
    assert vote_of(error, POLICY) is (False if counts else None)

    async def main() -> None:
        breaker = opened_by(2)
        for _ in range(5):
            await outcome(breaker(failing(error)))
        assert (breaker.statistics().state is BreakerState.OPEN) == counts

    simulate(main)


def failing(error: BaseException) -> Callable[[], Awaitable[None]]:
    """A call that raises."""

    async def call() -> None:
        if isinstance(error, asyncio.CancelledError):
            raise InvalidRequest("a cancellation would end the test")
        raise error

    return call


def test_what_counts_can_be_chosen() -> None:
    """An account out of credit fails every call: a reason to go elsewhere."""
    policy = BreakerPolicy(open_on=BreakerPolicy().open_on | {ErrorKind.QUOTA_EXHAUSTED})
    assert vote_of(QuotaExhausted("402"), policy) is False


def test_ten_thousand_cancellations_open_nothing() -> None:
    """Users who leave say nothing about the provider."""

    async def main() -> None:
        provider = Provider()
        provider.takes = 3
        breaker = opened_by(2)
        call = breaker(provider)
        for _ in range(100):
            tasks = [asyncio.create_task(outcome(call)) for _ in range(100)]
            await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        seen = breaker.statistics()
        assert (seen.no_vote, seen.opened, seen.state) == (10_000, 0, BreakerState.CLOSED)

    simulate(main)


@pytest.mark.parametrize("limit", [1, 3])
def test_a_thousand_waiters_are_no_stampede(limit: int) -> None:
    """Half open, the provider never sees more than the probes allowed."""

    async def main() -> None:
        breaker = opened_by(2, max_probes=limit)
        await open_it(breaker)
        await asyncio.sleep(10)
        provider = Provider()
        provider.takes = 1
        outcomes = await many(breaker(provider), 1_000)
        assert provider.most_in_flight == limit
        assert outcomes.count("answer") == limit
        assert breaker.statistics().refused == 1_000 - limit

    simulate(main)


def test_a_cancelled_probe_gives_its_place_to_the_next() -> None:
    """It is no vote, and it does not hold the circuit."""

    async def main() -> None:
        breaker = opened_by(2)
        await open_it(breaker)
        await asyncio.sleep(10)
        provider = Provider()
        provider.takes = 2
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await breaker(provider)()
        assert breaker.available()
        assert await breaker(provider)() == "answer"
        assert breaker.statistics().probes == 2

    simulate(main)


def test_a_probe_without_a_verdict_leaves_the_circuit_half_open() -> None:
    """A 429 neither closes nor opens it."""

    async def main() -> None:
        breaker = opened_by(2)
        await open_it(breaker)
        await asyncio.sleep(10)
        await outcome(breaker(failing(RateLimited("429"))))
        assert breaker.statistics().state is BreakerState.HALF_OPEN
        assert breaker.available()

    simulate(main)


def test_a_probe_that_hangs_is_given_up() -> None:
    """After `slow_after` the circuit opens again, and what the probe says later changes nothing."""

    async def main() -> None:
        breaker = opened_by(2)
        await open_it(breaker)
        await asyncio.sleep(10)
        hanging = Provider()
        hanging.takes = 100
        probe = asyncio.create_task(outcome(breaker(hanging)))
        await asyncio.sleep(1)
        assert breaker.retry_after() == 4
        await asyncio.sleep(4)
        assert breaker.statistics().state is BreakerState.OPEN
        assert breaker.retry_after() == 20
        assert await probe == "answer"
        seen = breaker.statistics()
        assert (seen.state, seen.late, seen.probes_in_flight) == (BreakerState.OPEN, 1, 0)

    simulate(main)


def test_slow_calls_open_and_slow_probes_do_not_close() -> None:
    """A provider that answers in a minute is not well."""

    async def main() -> None:
        provider = Provider()
        provider.takes = 5
        breaker = opened_by(2)
        call = breaker(provider)
        assert await call() == await call() == "answer"
        assert breaker.statistics().state is BreakerState.OPEN
        await asyncio.sleep(10)
        assert await call() == "answer"
        seen = breaker.statistics()
        assert (seen.state, seen.slow) == (BreakerState.OPEN, 3)
        assert (seen.opened, seen.bad_probes) == (1, 1)

    simulate(main)


def test_results_of_calls_that_began_before_the_opening_change_nothing() -> None:
    """Whether they come while it is open, half open or closed again."""

    async def main() -> None:
        provider = Provider()
        provider.takes, provider.error = 4, ServerError("late")
        breaker = opened_by(2, open_time=1, probes_to_close=1)
        late = [asyncio.create_task(outcome(breaker(provider))) for _ in range(50)]
        await asyncio.sleep(1)
        await open_it(breaker)
        await asyncio.sleep(1)
        assert await breaker(Provider())() == "answer"
        assert breaker.statistics().state is BreakerState.CLOSED
        await asyncio.wait(late)
        seen = breaker.statistics()
        assert (seen.state, seen.opened, seen.late) == (BreakerState.CLOSED, 1, 50)

    simulate(main)


def test_open_times_double_up_to_the_longest_and_begin_anew_after_a_rest() -> None:
    """A rest is as long closed as it was last open."""
    heard: list[BreakerEvent] = []
    policy = POLICY.model_copy(update={"max_open_time": 40, "probes_to_close": 1})

    async def main() -> None:
        breaker = CircuitBreaker(
            policy, detector=StreakDetector(bad_calls=2), on_event=heard.append
        )
        await open_it(breaker)
        for _ in range(3):
            await asyncio.sleep(breaker.retry_after())
            breaker.release(breaker.acquire(), succeeded=False)
        await asyncio.sleep(breaker.retry_after())
        breaker.release(breaker.acquire(), succeeded=True)
        await asyncio.sleep(39)
        await open_it(breaker)
        await asyncio.sleep(breaker.retry_after())
        breaker.release(breaker.acquire(), succeeded=True)
        await asyncio.sleep(40)
        await open_it(breaker)

    simulate(main)
    opened = [event for event in heard if isinstance(event, BreakerOpened)]
    assert [event.open_for for event in opened] == [10, 20, 40, 40, 40, 10]
    assert [event.reopened for event in opened] == [0, 1, 2, 3, 4, 0]
    closed = [event for event in heard if isinstance(event, BreakerClosed)]
    assert [event.open_seconds for event in closed] == [110, 40]


def test_jitter_spreads_a_fleet_s_probes() -> None:
    """Between eight tenths of the open time and all of it, by each process's own chance."""

    async def main() -> list[float]:
        waits = []
        for _ in range(500):
            breaker = opened_by(2, open_jitter=0.2)
            await open_it(breaker)
            waits.append(breaker.retry_after())
        return waits

    waits = simulate(main)
    assert 8 <= min(waits) < 8.1
    assert 9.9 < max(waits) <= 10


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_the_ramp_admits_its_share_of_a_herd(share: float) -> None:
    """Of a thousand callers at one moment, to three."""

    async def main() -> None:
        breaker = opened_by(2, ramp=20, probes_to_close=1)
        await open_it(breaker)
        await asyncio.sleep(10)
        breaker.release(breaker.acquire(), succeeded=True)
        assert breaker.statistics().state is BreakerState.RAMPING
        await asyncio.sleep(20 * share)
        outcomes = await many(breaker(Provider()), 1_000)
        assert abs(outcomes.count("answer") - 1_000 * share) <= 3

    simulate(main)


def test_the_ramp_ends_in_all_the_load() -> None:
    """The admitted share rises evenly, and then the circuit is closed."""

    async def main() -> None:
        breaker = opened_by(2, ramp=10, probes_to_close=1)
        await open_it(breaker)
        await asyncio.sleep(10)
        breaker.release(breaker.acquire(), succeeded=True)
        admitted = []
        for _ in range(11):
            outcomes = []
            for _ in range(50):
                await asyncio.sleep(0.02)
                outcomes.append(await outcome(breaker(Provider())))
            admitted.append(outcomes.count("answer") / 50)
        expected = [min(1.0, (second + 0.5) / 10) for second in range(11)]
        assert admitted == pytest.approx(expected, abs=0.08)
        assert breaker.statistics().state is BreakerState.CLOSED

    simulate(main)


def test_who_only_asks_while_ramping_is_not_told_the_same_for_ever() -> None:
    """While the share rises from 0.1 to 0.2, a router that looks is told yes as often."""

    async def main() -> None:
        breaker = opened_by(2, ramp=100, probes_to_close=1)
        await open_it(breaker)
        await asyncio.sleep(10)
        breaker.release(breaker.acquire(), succeeded=True)
        await asyncio.sleep(10)
        answers = []
        for _ in range(100):
            answers.append(breaker.available())
            await asyncio.sleep(0.1)
        assert sum(answers) == pytest.approx(15, abs=3)

    simulate(main)


def test_failures_while_ramping_open_it_again() -> None:
    """For longer than the first time."""

    async def main() -> None:
        breaker = opened_by(2, ramp=20, probes_to_close=1)
        await open_it(breaker)
        await asyncio.sleep(10)
        breaker.release(breaker.acquire(), succeeded=True)
        await asyncio.sleep(15)
        provider = Provider()
        provider.error = ServerError("again")
        await many(breaker(provider), 20)
        assert breaker.statistics().state is BreakerState.OPEN
        assert breaker.retry_after() == 20

    simulate(main)


def test_the_load_is_back_within_open_time_and_ramp_of_the_recovery() -> None:
    """At least 95% of it, on the default policy, of calls that come twenty times a second."""

    async def main() -> float:
        breaker = CircuitBreaker(BreakerPolicy(max_open_time=30))
        provider = Provider()
        call = breaker(provider)
        provider.error = ServerError("down")
        outcomes: list[object] = []
        for tick in range(20 * 200):
            if tick == 20 * 95:
                provider.error = None
            await asyncio.sleep(0.05)
            outcomes.append(await outcome(call))
        after = outcomes[20 * (95 + 30 + 30) :]
        return after.count("answer") / len(after)

    assert simulate(main) >= 0.95


def test_forced_open_refuses_everything_until_told_otherwise() -> None:
    """Then it begins with a probe."""

    async def main() -> None:
        breaker = opened_by(2)
        breaker.force("open")
        assert not breaker.available()
        refusal = await outcome(breaker(Provider()))
        assert isinstance(refusal, CircuitOpen)
        assert refusal.state is BreakerState.FORCED_OPEN
        assert str(refusal) == "the circuit of k is forced open"
        await asyncio.sleep(10_000)
        assert not breaker.available()
        breaker.force(None)
        for _ in range(3):
            await breaker(Provider())()
        assert breaker.statistics().probes == 3
        assert breaker.statistics().state is BreakerState.CLOSED
        await open_it(breaker)
        assert breaker.retry_after() == 10

    simulate(main)


def test_forcing_is_no_bad_probe() -> None:
    """Opened by hand while it was open, it has opened once."""

    async def main() -> None:
        breaker = opened_by(2)
        await open_it(breaker)
        breaker.force("open")
        seen = breaker.statistics()
        assert (seen.opened, seen.bad_probes) == (1, 0)

    simulate(main)


def test_a_hook_may_ask_the_breaker_it_hears_of() -> None:
    """What it sees is the state after the change, and it cannot take a place that is taken."""
    asked: list[bool] = []

    async def main() -> None:
        def hook(event: BreakerEvent) -> None:
            if isinstance(event, BreakerHalfOpened):
                asked.append(breaker.available())

        breaker = CircuitBreaker(POLICY, detector=StreakDetector(bad_calls=2), on_event=hook)
        await open_it(breaker)
        await asyncio.sleep(10)
        await breaker(Provider())()

    simulate(main)
    assert asked == [False]


def test_forced_closed_admits_everything_until_told_otherwise() -> None:
    """Outcomes are counted, and open nothing; afterwards the detector begins anew."""

    async def main() -> None:
        breaker = opened_by(2)
        await open_it(breaker)
        breaker.force("closed")
        provider = Provider()
        provider.error = ServerError("no")
        await many(breaker(provider), 50)
        seen = breaker.statistics()
        assert (seen.state, seen.failed) == (BreakerState.FORCED_CLOSED, 52)
        breaker.force(None)
        await outcome(breaker(provider))
        assert breaker.statistics().state is BreakerState.CLOSED
        breaker.force(None)
        await outcome(breaker(provider))
        assert breaker.statistics().state is BreakerState.OPEN

    simulate(main)


def test_a_permit_is_released_once() -> None:
    """The second time is a mistake, and is told so."""

    async def main() -> None:
        breaker = opened_by(2)
        permit = breaker.acquire()
        breaker.release(permit, succeeded=None)
        with pytest.raises(LLMPatternsError, match="released twice"):
            breaker.release(permit, succeeded=True)

    simulate(main)


def test_a_duration_that_is_given_counts() -> None:
    """A caller that guards by hand knows which part of its time was the provider's."""

    async def main() -> None:
        breaker = opened_by(2)
        for _ in range(2):
            breaker.release(breaker.acquire(), succeeded=True, duration=5)
        assert breaker.statistics().state is BreakerState.OPEN

    simulate(main)


def test_asking_changes_nothing() -> None:
    """However often `available` and `retry_after` are asked."""

    async def main() -> None:
        breaker = opened_by(2)
        await open_it(breaker)
        await asyncio.sleep(10)
        before = breaker.statistics()
        assert all(breaker.available() and breaker.retry_after() == 0 for _ in range(100))
        assert breaker.statistics() == before

    simulate(main)


def test_events_tell_the_story_in_order() -> None:
    """Opened with the evidence, refusals, the first probe, closed."""
    heard: list[BreakerEvent] = []

    async def main() -> None:
        breaker = CircuitBreaker(
            POLICY, key="k", detector=StreakDetector(bad_calls=2), on_event=heard.append
        )
        await open_it(breaker)
        await outcome(breaker(Provider()))
        await asyncio.sleep(10)
        for _ in range(3):
            await breaker(Provider())()

    simulate(main)
    assert heard[0] == BreakerOpened("k", 10.0, 0, Evidence("streak", 2, 2, 2))
    assert isinstance(heard[1], CircuitOpen)
    assert heard[2:] == [BreakerHalfOpened("k"), BreakerClosed("k", 10.0, 0.0)]


def test_a_doubt_about_the_healthy_rate_is_an_event() -> None:
    """Before it costs false opens."""
    heard: list[BreakerEvent] = []
    rng = Random(9)

    async def main() -> None:
        detector = CusumDetector(calls_between_false_opens=10**9)
        breaker = CircuitBreaker(POLICY, detector=detector, on_event=heard.append)
        for _ in range(1_000):
            breaker.release(breaker.acquire(), succeeded=rng.random() > 0.1)

    simulate(main)
    assert [type(event) for event in heard] == [BaselineExceeded]


def test_a_hook_that_raises_does_not_break_the_call(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged instead."""

    def broken(event: BreakerEvent) -> None:
        raise RuntimeError("the tracer is down")

    async def main() -> None:
        breaker = CircuitBreaker(POLICY, detector=StreakDetector(bad_calls=2), on_event=broken)
        await open_it(breaker)
        assert isinstance(await outcome(breaker(Provider())), CircuitOpen)

    simulate(main)
    assert "event hook" in caplog.text


def test_retries_inside_are_one_call() -> None:
    """What they could not help counts once, by the kind of its last error."""

    async def main() -> None:
        provider = Provider()
        provider.error = ServerError("no")
        breaker = opened_by(2)
        call = breaker(RetryWithBudget(RetryPolicy(deadline=60, max_attempts=2))(provider))
        assert isinstance(await outcome(call), RetriesExhausted)
        assert breaker.statistics().failed == 1
        await outcome(call)
        assert breaker.statistics().state is BreakerState.OPEN

    simulate(main)


def test_the_opening_of_a_stream_is_guarded() -> None:
    """A model behind it is still a model."""
    request = ChatRequest(model="small", messages=(Message.user("Hello"),))

    async def main() -> None:
        provider = SimulatedProvider(faults=[ErrorRate(start=0, duration=5)])
        breaker = opened_by(2)
        model = LayeredModel(provider, breaker)
        for _ in range(2):
            await outcome(lambda: model.stream(request))
        assert isinstance(await outcome(lambda: model.complete(request)), CircuitOpen)
        await asyncio.sleep(10)
        stream = await model.stream(request)
        assert [chunk async for chunk in stream]

    simulate(main)


def test_a_rate_detector_works_as_well() -> None:
    """Half of the last ten calls."""

    async def main() -> None:
        breaker = CircuitBreaker(POLICY, detector=RateDetector(window_calls=10))
        for number in range(10):
            breaker.release(breaker.acquire(), succeeded=number % 2 == 0)
        seen = breaker.statistics()
        assert (seen.state, seen.failed) == (BreakerState.OPEN, 5)

    simulate(main)


def test_a_decorated_function_keeps_its_name_and_arguments() -> None:
    """The guard is not seen from outside."""

    @CircuitBreaker(POLICY)
    async def ask(question: str, *, polite: bool = False) -> str:
        """Ask."""
        return f"{question}{'?' if polite else '!'}"

    assert (ask.__name__, ask.__doc__) == ("ask", "Ask.")

    async def main() -> str:
        return await ask("why", polite=True)

    assert simulate(main) == "why?"


def test_the_same_seed_gives_the_same_story() -> None:
    """Open times and the ramp come from the run's chance; another seed gives others."""

    def story(seed: int) -> list[object]:
        heard: list[object] = []

        async def main() -> None:
            policy = BreakerPolicy(open_time=5, ramp=5)
            breaker = CircuitBreaker(policy, on_event=heard.append)
            provider = Provider()
            provider.error = ServerError("no")
            call = breaker(provider)
            for tick in range(400):
                provider.error = None if tick > 200 else provider.error
                await asyncio.sleep(0.1)
                await outcome(call)

        simulate(main, seed=seed)
        return [repr(event) for event in heard]

    assert story(1) == story(1) != story(2)


def test_an_own_source_of_chance_is_used() -> None:
    """An injected `rng` wins over the run's."""

    async def main() -> float:
        breaker = CircuitBreaker(
            POLICY.model_copy(update={"open_jitter": 0.5}),
            detector=StreakDetector(bad_calls=2),
            rng=Random(5),
        )
        await open_it(breaker)
        return breaker.retry_after()

    assert simulate(main) == pytest.approx(10 * (1 - 0.5 * Random(5).random()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"open_time": 0.1}, "greater than or equal to 1"),
        ({"open_time": 60, "max_open_time": 30}, "the first open time can't be longer"),
        ({"max_probes": 0}, "greater than or equal to 1"),
        ({"max_probes": 10_000}, "less than or equal to 100"),
        ({"slow_after": 0}, "greater than 0"),
        ({"ramp": float("inf")}, "finite number"),
        ({"threshold": 5}, "Extra inputs"),
    ],
)
def test_a_policy_that_cannot_work_is_refused_when_made(
    options: dict[str, float], said: str
) -> None:
    """The message names the value or the remedy."""
    with pytest.raises(ValidationError, match=said):
        BreakerPolicy.model_validate(options)


# --- one for each dependency ----------------------------------------------------------------------


def test_a_sick_model_does_not_refuse_a_healthy_one() -> None:
    """Each scope has its own circuit."""

    async def main() -> None:
        breakers = CircuitBreakers(POLICY, detector=lambda: StreakDetector(bad_calls=2))
        await open_it(breakers.of("openai", "large"))
        assert not breakers.of("openai", "large").available()
        assert breakers.of("openai", "small").available()
        seen = breakers.statistics()
        assert {key: each.state.value for key, each in seen.items()} == {
            "openai|large": "open",
            "openai|small": "closed",
        }

    simulate(main)


def test_keys_are_bounded_and_open_circuits_stay() -> None:
    """The least recently used closed one makes room; an open one only where all are open."""

    async def main() -> None:
        breakers = CircuitBreakers(POLICY, detector=lambda: StreakDetector(bad_calls=2), max_keys=3)
        await open_it(breakers.of("a"))
        for name in ("b", "c", "b", "d"):
            breakers.of(name)
        assert list(breakers.statistics()) == ["a", "b", "d"]
        await open_it(breakers.of("b"))
        await open_it(breakers.of("d"))
        breakers.of("e")
        assert list(breakers.statistics()) == ["b", "d", "e"]

    simulate(main)


@pytest.mark.parametrize("scope", [(), ("open|ai",)])
def test_a_scope_has_names(scope: tuple[str, ...]) -> None:
    """At least one, and none with the separator."""
    with pytest.raises(ConfigurationError, match="one or more names"):
        CircuitBreakers(POLICY).of(*scope)


def test_no_room_for_any_key_is_a_mistake() -> None:
    """It is refused when made."""
    with pytest.raises(ConfigurationError, match="max_keys is 0"):
        CircuitBreakers(POLICY, max_keys=0)
