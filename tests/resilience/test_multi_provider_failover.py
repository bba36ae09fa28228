"""What `MultiProviderFailover` does when targets fail, in virtual time."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any

import pytest
from pydantic import ValidationError

from llm_patterns.chat import ChatModel, ChatRequest, ChatResponse, Message, Tool
from llm_patterns.deadlines import deadline
from llm_patterns.errors import (
    ConfigurationError,
    ContentFiltered,
    ErrorKind,
    InvalidRequest,
    RateLimited,
    error_for_status,
)
from llm_patterns.resilience import (
    REACTIONS,
    AllTargetsFailed,
    AttentionNeeded,
    BreakerPolicy,
    BreakerState,
    Capabilities,
    CircuitBreaker,
    CircuitOpen,
    EarnedBudget,
    FailoverEvent,
    FailoverPolicy,
    InFlightBudget,
    MultiProviderFailover,
    NoCapableTarget,
    ProbeFinished,
    Reaction,
    RequestServed,
    RetryPolicy,
    RetryWithBudget,
    Served,
    ServedBecause,
    SessionSwitched,
    StreakDetector,
    Target,
    TargetFailed,
    TargetFull,
    TargetLimits,
    TargetResting,
    Unlimited,
    UnsupportedFeature,
)
from llm_patterns.simulation import (
    BrownOut,
    ConstantLatency,
    ErrorRate,
    Fault,
    Hang,
    Outage,
    RateLimits,
    SimulatedProvider,
    fixed,
    open_loop,
    poisson,
    simulate,
)

ASK = ChatRequest(model="any", messages=(Message.user("Why?"),))
POLICY = FailoverPolicy(deadline=30)
SECOND = ConstantLatency(time_to_first_token=1.0, seconds_per_token=0.0)


def provider(name: str, *faults: Fault, **options: Any) -> SimulatedProvider:
    """A provider that answers its own name after a second."""
    return SimulatedProvider(
        name=name, faults=faults, responder=fixed(name), **{"latency": SECOND} | options
    )


def pair(
    primary: SimulatedProvider,
    spare: SimulatedProvider,
    policy: FailoverPolicy = POLICY,
    **options: Any,
) -> MultiProviderFailover:
    """A primary and its spare."""
    targets = [Target("primary", primary), Target("spare", spare)]
    return MultiProviderFailover(policy, targets, **options)


def run(main: Callable[[], Coroutine[Any, Any, Any]], *, seed: int = 0) -> Any:
    """Run *main* in virtual time."""
    return simulate(main, seed=seed)


async def outcome(call: Awaitable[object]) -> Any:
    """The result of a call, or its error."""
    try:
        return await call
    except Exception as error:
        return error


def now() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


# --- who answers ----------------------------------------------------------------------------------


def test_the_first_choice_answers_and_is_named() -> None:
    """Nothing else is asked, and the answer says who gave it and why."""

    async def main() -> tuple[Served[ChatResponse], int]:
        spare = provider("spare")
        return await pair(provider("primary"), spare).call(ASK), len(spare.ledger)

    served, asked = run(main)
    assert (served.response.text, served.target, asked) == ("primary", "primary", 0)
    assert served.because is ServedBecause.FIRST_CHOICE
    assert (served.degraded, served.attempts, served.seconds) == (False, (), 1.0)


def test_the_next_target_answers_where_the_first_fails() -> None:
    """The answer carries what failed before it."""

    async def main() -> Served[ChatResponse]:
        return await pair(provider("primary", Outage()), provider("spare")).call(ASK)

    served = run(main)
    assert (served.target, served.because, served.degraded) == (
        "spare",
        ServedBecause.FAILOVER,
        True,
    )
    assert [(each.target, each.failure.kind) for each in served.attempts] == [
        ("primary", ErrorKind.OVERLOADED)
    ]


def test_it_is_a_chat_model() -> None:
    """`complete` gives the plain answer, under the name of the model that gave it."""

    async def main() -> ChatResponse:
        spare = Target("spare", provider("spare"), model_name="small")
        targets = [Target("primary", provider("primary", Outage()), model_name="large"), spare]
        failover: ChatModel = MultiProviderFailover(POLICY, targets)
        return await failover.complete(ASK)

    answer = run(main)
    assert (answer.text, answer.model) == ("spare", "small")


def test_other_callables_are_guarded_with_their_arguments() -> None:
    """`over` is for two SDKs' methods: same arguments, same result."""

    async def main() -> tuple[str, str]:
        async def primary(question: str, *, times: int = 1) -> str:
            raise ConnectionError("no route")

        async def spare(question: str, *, times: int = 1) -> str:
            return question * times

        failover = MultiProviderFailover(POLICY, [Target("primary"), Target("spare")])
        ask = failover.over({"spare": spare, "primary": primary})
        return await ask("why", times=2), ask.__name__

    assert run(main) == ("whywhy", "primary")


@pytest.mark.parametrize(
    ("error", "reaction"),
    [
        (error_for_status(500, "broken"), Reaction.NEXT),
        (error_for_status(503, "busy"), Reaction.NEXT),
        (error_for_status(529, "busy"), Reaction.NEXT),
        (error_for_status(408, "slow"), Reaction.NEXT),
        (error_for_status(409, "conflict"), Reaction.NEXT),
        (ConnectionError("reset"), Reaction.NEXT),
        (TimeoutError(), Reaction.NEXT),
        (ValueError("a gateway's page is no JSON"), Reaction.NEXT),
        (error_for_status(429, "slow down"), Reaction.REST),
        (error_for_status(429, "no credit", code="insufficient_quota"), Reaction.ALARM),
        (error_for_status(402, "pay"), Reaction.ALARM),
        (error_for_status(401, "key"), Reaction.ALARM),
        (error_for_status(403, "key"), Reaction.ALARM),
        (error_for_status(404, "model", code="model_not_found"), Reaction.ALARM),
        (error_for_status(413, "too large"), Reaction.NEXT),
        (error_for_status(400, "too long", code="context_length_exceeded"), Reaction.NEXT),
        (error_for_status(400, "bad"), Reaction.STOP),
        (error_for_status(422, "bad"), Reaction.STOP),
        (ContentFiltered("no"), Reaction.STOP),
    ],
    ids=repr,
)
def test_which_failures_fail_over(error: Exception, reaction: Reaction) -> None:
    """The next target is asked except where the caller must hear of it; the target rests, and a person is told."""

    async def main() -> None:
        async def primary() -> str:
            raise error

        async def spare() -> str:
            return "spare"

        events: list[FailoverEvent] = []
        target = Target("primary")
        failover = MultiProviderFailover(POLICY, [target, Target("spare")], on_event=events.append)
        result = await outcome(failover.over({"primary": primary, "spare": spare})())
        assert result is error if reaction is Reaction.STOP else result == "spare"
        rests = target.statistics(now()).rests_for > 0
        assert rests is (reaction in {Reaction.REST, Reaction.ALARM})
        alarmed = any(isinstance(each, AttentionNeeded) for each in events)
        assert alarmed is (reaction is Reaction.ALARM)

    run(main)


def test_each_kind_of_failure_has_a_reaction_and_a_reason() -> None:
    """A kind that the table forgets would raise in an outage."""
    assert set(REACTIONS) == set(ErrorKind)
    assert all(len(rule.why.split()) > 3 for rule in REACTIONS.values())


def test_the_policy_changes_a_reaction() -> None:
    """Who wants another provider's filter says so."""

    async def main() -> object:
        async def filtered() -> str:
            raise ContentFiltered("no")

        async def spare() -> str:
            return "spare"

        policy = FailoverPolicy(deadline=30, reactions={ErrorKind.CONTENT_FILTERED: Reaction.NEXT})
        failover = MultiProviderFailover(policy, [Target("primary"), Target("spare")])
        return await failover.over({"primary": filtered, "spare": spare})()

    assert run(main) == "spare"


def test_a_thousand_bad_requests_change_no_health() -> None:
    """The caller's mistakes say nothing of the provider."""

    async def main() -> None:
        bad = ErrorRate(status_code=400)
        failover = pair(provider("primary", bad), provider("spare", bad))
        targets = failover.targets
        before = [target.breaker.statistics() for target in targets]
        for _ in range(1_000):
            with pytest.raises(InvalidRequest):
                await failover.complete(ASK)
        after = [target.breaker.statistics() for target in targets]
        assert [each.state for each in after] == [BreakerState.CLOSED] * 2
        assert [each.evidence for each in after] == [each.evidence for each in before]
        assert [each.failed for each in after] == [0, 0]

    run(main)


def test_a_stopped_call_says_who_stopped_it_after_whom() -> None:
    """The error is the caller's own, with a note of what came before."""

    async def main() -> BaseException:
        spare = provider("spare", ErrorRate(status_code=400))
        with pytest.raises(InvalidRequest) as caught:
            await pair(provider("primary", Outage()), spare).complete(ASK)
        return caught.value

    assert "from spare, after primary" in "".join(run(main).__notes__)


def test_a_retry_layer_within_a_target_that_gave_up_fails_over() -> None:
    """Its `x-should-retry: false` speaks of the same target, not of the next."""

    async def main() -> tuple[object, int]:
        primary = provider("primary", Outage())
        retry = RetryWithBudget(RetryPolicy(deadline=5), budget=Unlimited())
        failover = MultiProviderFailover(POLICY, [Target("primary"), Target("spare")])
        calls = {"primary": retry(primary.complete), "spare": provider("spare").complete}
        return (await failover.over(calls)(ASK)).text, len(primary.ledger)

    assert run(main) == ("spare", 3)


# --- health, rests and limits ---------------------------------------------------------------------


def test_an_open_target_is_passed_over_at_no_cost() -> None:
    """The refusal stands among the attempts; no time is lost, and it is no attempt of `max_attempts`."""

    async def main() -> Served[ChatResponse]:
        policy = FailoverPolicy(deadline=30, max_attempts=1)
        failover = pair(provider("primary"), provider("spare"), policy)
        failover.targets[0].breaker.force("open")
        return await failover.call(ASK)

    served = run(main)
    assert (served.target, served.seconds, served.because) == ("spare", 1.0, ServedBecause.FAILOVER)
    assert isinstance(served.attempts[0].error, CircuitOpen)
    assert not served.attempts[0].asked


def test_a_dead_primary_is_hardly_called() -> None:
    """In ten minutes of outage at ten calls a second: bar, 20 requests."""

    async def main() -> tuple[int, int]:
        primary, spare = provider("primary", Outage()), provider("spare")
        failover = pair(primary, spare)
        answers: list[object] = []

        async def ask(_: int) -> None:
            answers.append(await outcome(failover.complete(ASK)))

        await open_loop(ask, poisson(10, duration=600, rng=Random(1)))
        return len(primary.ledger), sum(isinstance(each, ChatResponse) for each in answers)

    asked, answered = run(main)
    assert asked <= 20
    assert answered > 5_000


def test_the_first_choice_comes_back_as_a_ramp() -> None:
    """After the outage its share grows from nothing to all, without a step."""

    async def main() -> list[float]:
        primary = provider("primary", Outage(duration=100))
        failover = pair(primary, provider("spare"))
        await open_loop(lambda _: failover.complete(ASK), poisson(10, duration=400, rng=Random(1)))
        starts = [attempt.started_at for attempt in primary.ledger if attempt.error is None]
        return [sum(at <= each < at + 10 for each in starts) for at in range(100, 400, 10)]

    shares = run(main)
    first = next(at for at, share in enumerate(shares) if share > 10)
    assert shares[first] < shares[first + 1] < shares[first + 2]
    assert shares[-1] > 80


def test_a_rate_limited_target_rests_as_long_as_it_asks_and_stays_healthy() -> None:
    """A quota is no sickness."""

    async def main() -> tuple[list[str], BreakerState]:
        clamp = ErrorRate(duration=1, status_code=429, retry_after=10)
        failover = pair(provider("primary", clamp), provider("spare"))
        by = []
        for at in (0, 5, 9.9, 10.1):
            await asyncio.sleep(at - now() if at > now() else 0)
            by.append((await failover.call(ASK)).target)
        return by, failover.targets[0].breaker.statistics().state

    assert run(main) == (["spare", "spare", "spare", "primary"], BreakerState.CLOSED)


@pytest.mark.parametrize(("wish", "rest"), [(None, 5.0), (7.0, 7.0), (9_999.0, 300.0)])
def test_how_long_a_rate_limited_target_rests(wish: float | None, rest: float) -> None:
    """As it asks, within `max_rest`; `rate_limit_rest` where it does not say."""

    async def main() -> float:
        async def limited() -> None:
            raise RateLimited("slow down", retry_after=wish)

        target = Target("only")
        failover = MultiProviderFailover(POLICY, [target])
        await outcome(failover.over({"only": limited})())
        return target.statistics(now()).rests_for

    assert run(main) == pytest.approx(rest)


def test_a_shorter_rest_does_not_end_a_longer_one() -> None:
    """Two answers that cross on the wire."""

    async def main() -> float:
        target = Target("only")
        target.rest(60, ErrorKind.AUTHENTICATION, now())
        target.rest(5, ErrorKind.RATE_LIMITED, now())
        with pytest.raises(TargetResting, match="authentication"):
            target.acquire(now())
        return target.retry_after(now())

    assert run(main) == 60


def test_a_target_rests_before_its_quota_is_gone() -> None:
    """Its headers say that little is left, so no request is spent on finding out."""

    async def main() -> tuple[int, int]:
        primary = provider("primary", limits=RateLimits(requests_per_minute=60))
        policy = FailoverPolicy(deadline=30, quota_reserve=0.1)
        failover = pair(primary, provider("spare"), policy)
        for _ in range(120):
            await failover.complete(ASK)  # one after the other: one a second
            await failover.complete(ASK)
        refused = sum(attempt.error is not None for attempt in primary.ledger)
        return refused, len(primary.ledger)

    refused, asked = run(main)
    assert refused == 0
    assert asked > 100


def test_an_answer_s_headers_are_read_whoever_the_client_is() -> None:
    """A raw response of any SDK has them."""

    class Raw:
        def __init__(self) -> None:
            self.headers = {
                "x-ratelimit-limit-requests": "100",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "50s",
            }

    async def main() -> float:
        async def ask() -> Raw:
            return Raw()

        target = Target("only")
        failover = MultiProviderFailover(FailoverPolicy(deadline=9, quota_reserve=0.1), [target])
        await failover.over({"only": ask})()
        return target.statistics(now()).rests_for

    assert run(main) == pytest.approx(5.0)


def test_an_expired_key_rests_the_target_and_calls_a_person() -> None:
    """It is tried again after a minute, for somebody may have mended it."""

    async def main() -> tuple[list[str], list[AttentionNeeded]]:
        events: list[FailoverEvent] = []
        expired = ErrorRate(duration=30, status_code=401)
        failover = pair(provider("primary", expired), provider("spare"), on_event=events.append)
        by = []
        for pause in (0, 30, 40):
            await asyncio.sleep(pause)
            by.append((await failover.call(ASK)).target)
        return by, [event for event in events if isinstance(event, AttentionNeeded)]

    by, alarms = run(main)
    assert by == ["spare", "spare", "primary"]
    assert [(alarm.target, alarm.failure.kind, alarm.seconds) for alarm in alarms] == [
        ("primary", ErrorKind.AUTHENTICATION, 60.0)
    ]


def test_a_small_spare_runs_at_its_quota_and_no_further() -> None:
    """The rest is refused at once: the spare sees no request that it would refuse."""

    async def main() -> tuple[int, int, set[str]]:
        spare = provider("spare", limits=RateLimits(requests_per_minute=240))
        limits = TargetLimits(requests_per_minute=240)
        primary = provider("primary", Outage())
        targets = [Target("primary", primary), Target("spare", spare, limits=limits)]
        failover = MultiProviderFailover(POLICY, targets)
        refusals = set()

        async def ask(_: int) -> None:
            if isinstance(error := await outcome(failover.complete(ASK)), Exception):
                refusals.add(error.attempts[-1].error.limit)  # type: ignore[attr-defined]

        await open_loop(ask, poisson(10, duration=300, rng=Random(2)))
        failed = sum(attempt.error is not None for attempt in spare.ledger)
        return len(spare.ledger), failed, refusals

    served, failed, refusals = run(main)
    assert 0.95 * 1200 <= served <= 1200 + 20  # five seconds of quota at once
    assert (failed, refusals) == (0, {"requests_per_minute"})


def test_places_are_limited_while_requests_are_in_flight() -> None:
    """A third call finds the spare full, and says so."""

    async def main() -> list[object]:
        target = Target("only", provider("only"), limits=TargetLimits(max_in_flight=2))
        failover = MultiProviderFailover(POLICY, [target])
        at_once = [asyncio.create_task(outcome(failover.complete(ASK))) for _ in range(3)]
        await asyncio.wait(at_once)
        return [*(task.result() for task in at_once), await outcome(failover.complete(ASK))]

    first, second, third, later = run(main)
    assert [each.text for each in (first, second, later)] == ["only"] * 3
    assert third.kind is ErrorKind.REFUSED
    assert third.attempts[0].error.limit == "max_in_flight"


def test_tokens_are_limited_and_a_large_request_is_not_refused_for_ever() -> None:
    """It takes more than the burst, and the next waits until that has come back."""

    async def main() -> list[object]:
        limits = TargetLimits(tokens_per_minute=6_000, burst=1)
        failover = MultiProviderFailover(POLICY, [Target("only", provider("only"), limits=limits)])
        large = ASK.model_copy(update={"max_tokens": 1_000})
        answers = [await outcome(failover.complete(large)) for _ in range(2)]
        await asyncio.sleep(9)
        return [*answers, await outcome(failover.complete(large))]

    first, second, third = run(main)
    assert (first.text, third.text) == ("only", "only")
    assert second.attempts[0].error.limit == "tokens_per_minute"
    assert 7 < second.retry_after < 9


def test_a_refusal_takes_nothing() -> None:
    """A full target keeps its breaker's probe for whom it can serve."""

    async def main() -> None:
        breaker = CircuitBreaker(BreakerPolicy(open_time=1), detector=StreakDetector(bad_calls=2))
        target = Target("only", breaker=breaker, limits=TargetLimits(max_in_flight=1))
        for _ in range(2):
            target.release(target.acquire(now()), succeeded=False)
        await asyncio.sleep(2)
        permit = target.acquire(now())
        with pytest.raises(TargetFull):
            target.acquire(now())
        assert breaker.statistics().probes == 1
        target.release(permit, succeeded=True)
        assert target.in_flight == 0

    run(main)


# --- time and attempts ----------------------------------------------------------------------------


def test_a_target_that_hangs_leaves_as_much_time_to_the_others() -> None:
    """Three targets, thirty seconds, ten each."""

    async def main() -> Served[ChatResponse]:
        targets = [
            Target(name, provider(name, *faults))
            for name, faults in {"a": [Hang()], "b": [Hang()], "c": []}.items()
        ]
        return await MultiProviderFailover(POLICY, targets).call(ASK)

    served = run(main)
    assert [each.seconds for each in served.attempts] == [10.0, 10.0]
    assert (served.target, served.seconds) == ("c", 21.0)


def test_time_that_a_target_did_not_use_goes_to_the_next() -> None:
    """The first fails at once, so the second may take half of nearly all."""

    async def main() -> Served[ChatResponse]:
        faults = {"a": [Outage(latency=0.0)], "b": [Hang()], "c": []}
        targets = [Target(name, provider(name, *these)) for name, these in faults.items()]
        return await MultiProviderFailover(POLICY, targets).call(ASK)

    assert [each.seconds for each in run(main).attempts] == [0.0, 15.0]


def test_a_target_is_not_cut_off_while_no_other_could_take_over() -> None:
    """Its share is over at 15 s, but the spare is open: it answers after 20."""

    async def main() -> Served[ChatResponse]:
        failover = pair(provider("primary", BrownOut(slowdown=20)), provider("spare"))
        failover.targets[1].breaker.force("open")
        return await failover.call(ASK)

    served = run(main)
    assert (served.target, served.seconds) == ("primary", 20.0)


def test_the_deadline_holds_when_everybody_hangs() -> None:
    """The call is over at its second, and carries every attempt."""

    async def main() -> tuple[AllTargetsFailed, float]:
        failed = await outcome(pair(provider("a", Hang()), provider("b", Hang())).complete(ASK))
        return failed, now()

    failed, at = run(main)
    assert (at, failed.kind) == (30.0, ErrorKind.TIMEOUT)
    assert [(each.target, each.seconds) for each in failed.attempts] == [
        ("primary", 15.0),
        ("spare", 15.0),
    ]


def test_an_earlier_ambient_deadline_is_the_one_that_is_split() -> None:
    """The request's own deadline, wherever it was set."""

    async def main() -> Served[ChatResponse]:
        with deadline(8):
            return await pair(provider("primary", Hang()), provider("spare")).call(ASK)

    served = run(main)
    assert (served.seconds, served.target) == (5.0, "spare")


def test_no_attempt_starts_that_can_not_end() -> None:
    """With less than `expected_latency` left nothing is sent, so nothing is billed or looks sick."""

    async def main() -> tuple[AllTargetsFailed, int]:
        primary = provider("primary")
        failover = pair(primary, provider("spare"), FailoverPolicy(deadline=30, expected_latency=3))
        with deadline(2.9):
            failed = await outcome(failover.complete(ASK))
        return failed, len(primary.ledger)

    failed, asked = run(main)
    assert (failed.reason, failed.kind, asked) == ("deadline", ErrorKind.REFUSED, 0)


def test_an_attempt_is_never_cut_off_before_it_can_end() -> None:
    """Four targets, five seconds, and a good answer takes two: time for two targets."""

    async def main() -> Any:
        policy = FailoverPolicy(deadline=5, expected_latency=2, max_attempts=10)
        targets = [Target(name, provider(name, Hang())) for name in "abcd"]
        return await outcome(MultiProviderFailover(policy, targets).complete(ASK))

    failed = run(main)
    assert [each.seconds for each in failed.attempts] == [2.5, 2.5]
    assert failed.reason == "deadline"


def test_an_attempt_timeout_is_the_longest_that_one_target_gets() -> None:
    """Whatever its share."""

    async def main() -> Served[ChatResponse]:
        policy = FailoverPolicy(deadline=600, attempt_timeout=4)
        return await pair(provider("primary", Hang()), provider("spare"), policy).call(ASK)

    assert run(main).seconds == 5.0


def test_attempts_are_bounded_however_many_targets_there_are() -> None:
    """And the error says what ran out."""

    async def main() -> Any:
        targets = [Target(name, provider(name, Outage())) for name in "abcde"]
        policy = FailoverPolicy(deadline=30, max_attempts=2)
        return await outcome(MultiProviderFailover(policy, targets).complete(ASK))

    failed = run(main)
    assert ([each.target for each in failed.attempts], failed.reason) == (["a", "b"], "attempts")


def test_when_all_fail_the_error_tells_everything() -> None:
    """Who, what, when again; the cause is the last; no retry layer outside multiplies it."""

    async def main() -> tuple[AllTargetsFailed, int]:
        primary, spare = provider("primary", Outage()), provider("spare", Outage())
        retry = RetryWithBudget(RetryPolicy(deadline=60), budget=Unlimited())
        failed = await outcome(retry(pair(primary, spare).complete)(ASK))
        return failed, len(primary.ledger) + len(spare.ledger)

    failed, asked = run(main)
    assert isinstance(failed, AllTargetsFailed)
    assert [each.target for each in failed.attempts] == ["primary", "spare"]
    assert (failed.kind, failed.status_code, asked) == (ErrorKind.OVERLOADED, 503, 2)
    assert failed.__cause__ is failed.attempts[-1].error
    assert "primary: Overloaded" in str(failed)


def test_when_all_refuse_the_error_says_when_to_come_back() -> None:
    """The soonest of all; nothing was sent."""

    async def main() -> Any:
        failover = pair(provider("primary"), provider("spare"))
        failover.targets[0].rest(20, ErrorKind.RATE_LIMITED, now())
        failover.targets[1].rest(5, ErrorKind.RATE_LIMITED, now())
        return await outcome(failover.complete(ASK))

    failed = run(main)
    assert (failed.kind, failed.retry_after, failed.reason) == (ErrorKind.REFUSED, 5.0, "targets")


def test_a_refusal_inside_a_target_is_no_attempt() -> None:
    """An open breaker of the target's own layers: the next is asked, and `max_attempts` counts what was sent."""

    async def main() -> str:
        inner = CircuitBreaker(BreakerPolicy())
        inner.force("open")
        calls = {
            "primary": inner(provider("primary").complete),
            "spare": provider("spare").complete,
        }
        policy = FailoverPolicy(deadline=30, max_attempts=1)
        failover = MultiProviderFailover(policy, [Target("primary"), Target("spare")])
        return (await failover.over(calls)(ASK)).text

    assert run(main) == "spare"


def test_further_attempts_draw_on_the_shared_budget() -> None:
    """The first two failovers are what its floor allows; then the call ends, and says why."""

    async def main() -> tuple[list[object], tuple[int, int]]:
        budget, held = EarnedBudget(ratio=0), InFlightBudget(ratio=0, min_concurrency=2)
        primary = provider("primary", Outage())
        primary_target = Target(
            "primary",
            primary,
            breaker=CircuitBreaker(BreakerPolicy(), detector=StreakDetector(bad_calls=99)),
        )
        targets = [primary_target, Target("spare", provider("spare", Outage()))]
        failover = MultiProviderFailover(POLICY, targets, budget=budget)
        failed = [await outcome(failover.complete(ASK)) for _ in range(3)]
        other = MultiProviderFailover(POLICY, targets, budget=held)
        await outcome(other.complete(ASK))
        seen = held.statistics(now())
        return failed, (seen.granted, int(seen.level))

    failed, (granted, level) = run(main)
    assert [each.reason for each in failed] == ["targets", "targets", "budget"]
    assert (granted, level) == (1, 2)  # the permit came back


def test_a_call_is_cancelled_whole() -> None:
    """Its attempt ends, no other begins, and its place is free."""

    async def main() -> tuple[bool, int, int, int]:
        primary, spare = provider("primary", Hang()), provider("spare")
        failover = pair(primary, spare)
        task = asyncio.create_task(failover.complete(ASK))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        statistics = failover.targets[0].breaker.statistics()
        in_flight = failover.targets[0].in_flight
        return primary.ledger[0].abandoned, len(spare.ledger), in_flight, statistics.no_vote

    assert run(main) == (True, 0, 0, 1)


# --- what a target can do -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("can", "wants", "feature"),
    [
        ({"tools": False}, {"tools": (Tool(name="look"),)}, "tools"),
        ({"response_schema": False}, {"response_schema": {"type": "object"}}, "response_schema"),
        ({"seed": False}, {"seed": 1}, "seed"),
        ({"max_temperature": 1.0}, {"temperature": 1.5}, "temperature"),
        ({"max_temperature": None}, {"temperature": 0.0}, "temperature"),
        ({"context_window": 100}, {"max_tokens": 100}, "context_window"),
        ({}, {"messages": (Message.user("Go"), Message.assistant("I"))}, "prefill"),
    ],
)
def test_a_target_that_lacks_a_feature_is_not_asked(
    can: dict[str, Any], wants: dict[str, Any], feature: str
) -> None:
    """The other answers, though it is the second choice; alone, the error names feature and target."""

    async def main() -> tuple[str, NoCapableTarget, int]:
        poor = provider("poor")
        able = Capabilities(prefill=True)
        targets = [
            Target("poor", poor, capabilities=Capabilities(**can)),
            Target("able", provider("able"), capabilities=able),
        ]
        request = ASK.model_copy(update=wants)
        both = await MultiProviderFailover(POLICY, targets).complete(request)
        alone = await outcome(MultiProviderFailover(POLICY, targets[:1]).complete(request))
        return both.text, alone, len(poor.ledger)

    text, alone, asked = run(main)
    assert (text, asked) == ("able", 0)
    assert isinstance(alone, NoCapableTarget)
    assert alone.kind is ErrorKind.INVALID_REQUEST
    assert [(lack.target, lack.feature) for lack in alone.lacks] == [("poor", feature)]
    assert "poor" in str(alone)


def test_a_target_that_can_not_serve_takes_no_share_of_the_time() -> None:
    """The only other that can is given half, not a third."""

    async def main() -> Served[ChatResponse]:
        targets = [
            Target("hangs", provider("hangs", Hang())),
            Target("poor", provider("poor"), capabilities=Capabilities(seed=False)),
            Target("able", provider("able")),
        ]
        failover = MultiProviderFailover(POLICY, targets)
        return await failover.call(ASK.model_copy(update={"seed": 1}))

    served = run(main)
    assert (served.target, served.seconds) == ("able", 16.0)


def test_a_larger_answer_is_lowered_to_what_the_target_can_write() -> None:
    """`max_tokens` is a bound: less is in it."""
    target = Target("small", model_name="s", capabilities=Capabilities(max_output_tokens=100))
    fitted = target.fitted(ASK.model_copy(update={"max_tokens": 500}))
    assert (fitted.max_tokens, fitted.model) == (100, "s")
    assert target.fitted(ASK).max_tokens is None


def test_a_request_is_adapted_before_it_is_checked() -> None:
    """A prompt of its own for the model that wants one, and a seed taken off for the one that takes none."""

    def adapt(request: ChatRequest) -> ChatRequest:
        messages = (Message.system("Answer in JSON."), *request.messages)
        return request.model_copy(update={"messages": messages, "seed": None})

    target = Target("spare", capabilities=Capabilities(seed=False), adapt=adapt)
    fitted = target.fitted(ASK.model_copy(update={"seed": 7}))
    assert (fitted.messages[0].role, fitted.seed) == ("system", None)
    with pytest.raises(UnsupportedFeature, match="seed"):
        Target("spare", capabilities=Capabilities(seed=False)).fitted(
            ASK.model_copy(update={"seed": 7})
        )


# --- order, sessions, hedges ----------------------------------------------------------------------


def test_weights_are_shares() -> None:
    """Three to one, and the lower tier only when the first is gone."""

    async def main() -> Counter[str]:
        targets = [
            Target("late", provider("late"), tier=1),
            Target("a", provider("a"), weight=3),
            Target("b", provider("b"), weight=1),
        ]
        policy = FailoverPolicy(deadline=30, order="weighted")
        failover = MultiProviderFailover(policy, targets, rng=Random(5))
        return Counter([(await failover.complete(ASK)).text for _ in range(2_000)])

    counts = run(main)
    assert counts["late"] == 0
    assert 0.72 < counts["a"] / 2_000 < 0.78


def test_the_fastest_is_asked_and_a_slow_one_is_tried_again_later() -> None:
    """A minute later the slow one may have recovered, and only asking can tell."""

    async def main() -> tuple[Counter[str], Counter[str]]:
        fast, slow = ConstantLatency(1, 0), ConstantLatency(3, 0)
        targets = [
            Target("slow", provider("slow", latency=slow)),
            Target("fast", provider("fast", latency=fast)),
        ]
        failover = MultiProviderFailover(FailoverPolicy(deadline=30, order="fastest"), targets)
        first = Counter([(await failover.complete(ASK)).text for _ in range(20)])
        later = Counter([(await failover.complete(ASK)).text for _ in range(60)])
        return first, later

    first, later = run(main)
    assert first["fast"] >= 18
    assert 1 <= later["slow"] <= 3


def test_load_spreads_over_equals_when_the_fastest_is_busy() -> None:
    """What is in flight counts, so that a burst does not all go to one."""

    async def main() -> Counter[str]:
        targets = [Target(name, provider(name)) for name in "ab"]
        failover = MultiProviderFailover(FailoverPolicy(deadline=30, order="fastest"), targets)
        for _ in range(4):
            await failover.complete(ASK)
        answers = await asyncio.gather(*(failover.complete(ASK) for _ in range(20)))
        return Counter(answer.text for answer in answers)

    assert abs(run(main)["a"] - 10) <= 2


def test_a_conversation_stays_where_its_prompt_is_cached() -> None:
    """The primary is back, and new conversations go there; this one stays until its cache is cold."""

    async def main() -> tuple[list[str], list[SessionSwitched], str, ServedBecause]:
        events: list[FailoverEvent] = []
        primary = provider("primary", ErrorRate(start=5, duration=1, status_code=500))
        failover = pair(primary, provider("spare"), on_event=events.append)
        by = []
        for pause in (0, 4.5, 60, 60, 301):
            await asyncio.sleep(pause)
            by.append((await failover.call(ASK, session="c1")).target)
        new = await failover.call(ASK, session="c2")
        again = await failover.call(ASK, session="c2")
        switched = [event for event in events if isinstance(event, SessionSwitched)]
        return by, switched, new.target, again.because

    by, switched, new, because = run(main)
    assert by == ["primary", "spare", "spare", "spare", "primary"]
    assert switched == [SessionSwitched("c1", "primary", "spare")]
    assert (new, because) == ("primary", ServedBecause.SESSION)


def test_conversations_are_remembered_up_to_a_number() -> None:
    """The longest unused goes first."""

    async def main() -> list[ServedBecause]:
        policy = FailoverPolicy(deadline=30, max_sessions=2)
        failover = pair(provider("primary"), provider("spare"), policy)
        for session in ("a", "b", "a", "c"):
            await failover.call(ASK, session=session)
        return [(await failover.call(ASK, session=each)).because for each in ("a", "b")]

    assert run(main) == [ServedBecause.SESSION, ServedBecause.FIRST_CHOICE]


HEDGED = FailoverPolicy(deadline=60, hedge_percentile=0.9, max_hedge_share=0.2)


def test_a_slow_answer_is_hedged_and_the_loser_is_cancelled() -> None:
    """One winner; the first is no failure of the primary's, for a cancelled call says nothing."""

    async def main() -> tuple[Served[ChatResponse], bool, int, int]:
        primary = provider("primary", Hang(start=60, duration=1))
        failover = pair(primary, provider("spare"), HEDGED)
        for _ in range(60):
            await failover.complete(ASK)
        served = await failover.call(ASK)
        target = failover.targets[0]
        failed = target.breaker.statistics().failed
        return served, primary.ledger[-1].abandoned, target.in_flight, failed

    served, abandoned, in_flight, failed = run(main)
    assert (served.target, served.because, served.seconds) == ("spare", ServedBecause.HEDGE, 2.0)
    assert (abandoned, in_flight, failed) == (True, 0, 0)


def test_the_first_wins_where_it_is_still_quicker() -> None:
    """The hedge is cancelled."""

    async def main() -> tuple[Served[ChatResponse], bool]:
        primary = provider("primary", BrownOut(start=60, slowdown=1.5))
        spare = provider("spare")
        failover = pair(primary, spare, HEDGED)
        for _ in range(60):
            await failover.complete(ASK)
        return await failover.call(ASK), spare.ledger[-1].abandoned

    served, abandoned = run(main)
    assert (served.target, served.because, abandoned) == (
        "primary",
        ServedBecause.FIRST_CHOICE,
        True,
    )


def test_hedges_are_a_small_share_of_the_calls() -> None:
    """When the primary is slow for everybody, hedging would double the load; its cap holds."""

    async def main() -> tuple[int, int]:
        primary = provider("primary", BrownOut(start=100, slowdown=10))
        failover = pair(primary, provider("spare"), HEDGED)
        await open_loop(lambda _: failover.complete(ASK), poisson(2, duration=300, rng=Random(3)))
        statistics = failover.statistics()
        return statistics.hedges, statistics.calls

    hedges, calls = run(main)
    assert 20 < hedges <= 0.2 * calls + 3


def test_both_of_a_hedged_pair_may_fail() -> None:
    """Then a third is asked, and all three are told."""

    async def main() -> Served[ChatResponse]:
        outage = Outage(start=60, latency=3.0)
        targets = [
            Target("a", provider("a", outage)),
            Target("b", provider("b", outage)),
            Target("c", provider("c")),
        ]
        failover = MultiProviderFailover(HEDGED, targets)
        for _ in range(60):
            await failover.complete(ASK)
        return await failover.call(ASK)

    served = run(main)
    assert [each.target for each in served.attempts] == ["a", "b"]
    assert (served.target, served.because, served.seconds) == ("c", ServedBecause.FAILOVER, 5.0)


def test_a_hedge_does_not_move_a_conversation() -> None:
    """It was slow once; its cache is still there."""

    async def main() -> list[str]:
        primary = provider("primary", Hang(start=60, duration=1))
        failover = pair(primary, provider("spare"), HEDGED)
        for _ in range(60):
            await failover.call(ASK, session="c")
        return [(await failover.call(ASK, session="c")).target for _ in range(2)]

    assert run(main) == ["spare", "primary"]


def test_a_bad_request_found_by_the_hedge_waits_for_the_first() -> None:
    """What the spare will not take, the primary may."""

    async def main() -> str:
        primary = provider("primary", BrownOut(start=60, slowdown=5))
        spare = provider("spare", ErrorRate(start=60, status_code=400))
        failover = pair(primary, spare, HEDGED)
        for _ in range(60):
            await failover.complete(ASK)
        return (await failover.complete(ASK)).text

    assert run(main) == "primary"


# --- probes ---------------------------------------------------------------------------------------


def test_an_idle_spare_is_probed_and_its_expired_key_found() -> None:
    """Before anybody needs it; the primary, which is busy, is left alone."""

    async def main() -> tuple[list[FailoverEvent], int]:
        events: list[FailoverEvent] = []
        primary = provider("primary")
        spare = provider("spare", ErrorRate(start=250, status_code=401))
        failover = pair(primary, spare, on_event=events.append)
        async with failover.probing(ASK, every=100):
            for _ in range(350):
                await failover.complete(ASK)
        return events, len(primary.ledger)

    events, asked = run(main)
    probes = [event for event in events if isinstance(event, ProbeFinished)]
    assert [(each.target, each.failure and each.failure.kind) for each in probes] == [
        ("spare", None),
        ("spare", None),
        ("spare", ErrorKind.AUTHENTICATION),
    ]
    assert sum(isinstance(event, AttentionNeeded) for event in events) == 1
    assert asked == 350


def test_a_probe_brings_a_spare_back_without_a_user() -> None:
    """Half open, it is probed, so that the first user finds it closed."""

    async def main() -> BreakerState:
        breaker = CircuitBreaker(
            BreakerPolicy(open_time=5, probes_to_close=1, ramp=0),
            detector=StreakDetector(bad_calls=2),
        )
        spare = Target("spare", provider("spare", Outage(duration=3)), breaker=breaker)
        failover = MultiProviderFailover(POLICY, [Target("primary", provider("primary")), spare])
        async with failover.probing(ASK, every=1):
            await asyncio.sleep(20)
        return breaker.statistics().state

    assert run(main) is BreakerState.CLOSED


def test_a_probe_that_hangs_ends_and_counts() -> None:
    """And a probe of one that refuses is not made."""

    async def main() -> tuple[list[ProbeFinished], list[ProbeFinished], int]:
        failover = pair(provider("primary", Hang()), provider("spare"), FailoverPolicy(deadline=9))
        found = await failover.probe(ASK)
        for target in failover.targets:
            target.breaker.force("open")
        return found, await failover.probe(ASK), failover.targets[0].breaker.statistics().failed

    found, none, failed = run(main)
    assert [(each.target, each.seconds) for each in found] == [("primary", 9.0), ("spare", 1.0)]
    assert (none, failed) == ([], 1)


# --- settings, books ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: MultiProviderFailover(POLICY, []), "one or more"),
        (lambda: MultiProviderFailover(POLICY, [Target("a"), Target("a")]), "own name"),
        (lambda: Target("a", weight=0), "weight of a is 0"),
        (lambda: MultiProviderFailover(POLICY, [Target("a")]).over({}), "the targets are"),
        (
            lambda: MultiProviderFailover(POLICY, [Target("a")]).over({"b": outcome}),
            "calls are given for",
        ),
        (lambda: Target("a").chat, "has no model"),
    ],
)
def test_what_can_not_work_is_said_when_it_is_made(build: Callable[[], object], said: str) -> None:
    """The message names the value."""
    with pytest.raises(ConfigurationError, match=said):
        build()


@pytest.mark.parametrize(
    "settings",
    [
        {"deadline": 1},
        {"deadline": 30, "expected_latency": 5, "attempt_timeout": 4},
        {"deadline": 30, "max_hedge_share": 0.5},
        {"deadline": 30, "quota_reserve": 0.9},
        {"deadline": 0},
    ],
)
def test_a_policy_that_can_not_work_is_refused(settings: dict[str, Any]) -> None:
    """Each dangerous extreme has a bound."""
    with pytest.raises(ValidationError):
        FailoverPolicy(**settings)


def test_probing_too_often_is_refused() -> None:
    """Probes are billed."""

    async def main() -> None:
        with pytest.raises(ConfigurationError, match="billed"):
            async with pair(provider("a"), provider("b")).probing(ASK, every=0.1):
                pass

    run(main)


def test_everything_that_happens_is_told_and_counted() -> None:
    """Events in their order, and the sums of them."""

    async def main() -> tuple[list[FailoverEvent], Any]:
        events: list[FailoverEvent] = []
        primary = provider("primary", Outage(duration=3, latency=1.0))
        spare = provider("spare", Outage(duration=2.5, latency=1.0))
        failover = pair(primary, spare, on_event=events.append)
        for _ in range(3):
            await outcome(failover.complete(ASK))
        return events, failover.statistics()

    events, statistics = run(main)
    assert [type(event) for event in events] == [
        *(TargetFailed, TargetFailed, AllTargetsFailed),
        *(TargetFailed, RequestServed, RequestServed),
    ]
    assert (statistics.calls, statistics.gave_up, statistics.degraded) == (3, {"targets": 1}, 1)
    assert statistics.served[ServedBecause.FAILOVER] == 1
    assert statistics.served[ServedBecause.FIRST_CHOICE] == 1
    assert statistics.targets["primary"].failed == {ErrorKind.OVERLOADED: 2}
    assert statistics.targets["spare"].served == 1


def test_health_may_be_shared_between_failovers() -> None:
    """One list for chat, another for the night's batch; what one learns, the other knows."""

    async def main() -> tuple[int, int]:
        primary = provider("primary", Outage())
        shared, spare = Target("primary", primary), Target("spare", provider("spare"))
        chat = MultiProviderFailover(POLICY, [shared, spare])
        batch = MultiProviderFailover(POLICY, [shared, spare])
        for _ in range(20):
            await chat.complete(ASK)
        before = len(primary.ledger)
        await batch.complete(ASK)
        return before, len(primary.ledger)

    before, after = run(main)
    assert before == after < 20


def test_the_same_seed_gives_the_same_run() -> None:
    """And another one another."""

    def trace(seed: int) -> list[tuple[str, float]]:
        async def main() -> list[tuple[str, float]]:
            targets = [
                Target(name, provider(name, ErrorRate(probability=0.2), seed=seed)) for name in "ab"
            ]
            policy = FailoverPolicy(deadline=30, order="weighted")
            failover = MultiProviderFailover(policy, targets)
            return [
                (str(getattr(await outcome(failover.call(ASK)), "target", "")), now())
                for _ in range(50)
            ]

        return simulate(main, seed=seed)

    assert trace(1) == trace(1) != trace(2)
