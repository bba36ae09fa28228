"""What `RetryWithBudget` does with failures, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest
from pydantic import ValidationError

from llm_patterns.deadlines import deadline
from llm_patterns.errors import (
    ErrorKind,
    Failure,
    InvalidRequest,
    Overloaded,
    RateLimited,
    ServerError,
)
from llm_patterns.resilience import (
    AttemptFailed,
    BudgetEmpty,
    EarnedBudget,
    RetriesExhausted,
    RetryEvent,
    RetryPolicy,
    RetryScheduled,
    RetryWithBudget,
    StopReason,
    StreamRestarted,
    ThrottleBucket,
    Unlimited,
    WindowBudget,
    backoff_delay,
)
from llm_patterns.simulation import simulate

POLICY = RetryPolicy(deadline=60, jitter="none", initial_delay=1)


class Script:
    """A call that fails with each of *outcomes* in turn, or returns it; `times` is when it was called."""

    def __init__(self, *outcomes: object, takes: float = 0.0) -> None:
        self.outcomes = list(outcomes)
        self.takes = takes
        self.times: list[float] = []

    async def __call__(self) -> object:
        """Give the next outcome; the last one again and again."""
        self.times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.takes)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def run(retry: RetryWithBudget, call: Callable[[], Awaitable[object]]) -> object:
    """Make one guarded call in virtual time and return its result or its error."""

    async def main() -> object:
        try:
            return await retry(call)()
        except Exception as error:
            return error

    return simulate(main)


def exhausted(result: object) -> RetriesExhausted:
    """The result, which is the error of a call that gave up."""
    assert isinstance(result, RetriesExhausted)
    return result


def test_a_success_is_passed_on_at_once() -> None:
    """Nothing is waited for, and nothing is tried twice."""
    call = Script("answer")
    assert run(RetryWithBudget(POLICY), call) == "answer"
    assert call.times == [0.0]


def test_a_passing_failure_is_tried_again() -> None:
    """The waits are those of the backoff, one after the other."""
    call = Script(ServerError("a"), ServerError("b"), "answer")
    assert run(RetryWithBudget(POLICY), call) == "answer"
    assert call.times == [0.0, 1.0, 3.0]


def test_a_failure_that_does_not_pass_reaches_the_caller_untouched() -> None:
    """The very same error, after one attempt."""
    error = InvalidRequest("no such model", status_code=404)
    call = Script(error)
    assert run(RetryWithBudget(POLICY), call) is error
    assert len(call.times) == 1


def test_a_later_failure_that_does_not_pass_says_what_came_before() -> None:
    """The error is untouched but for a note."""
    error = InvalidRequest("wrong")
    assert run(RetryWithBudget(POLICY), Script(ServerError("first"), error)) is error
    assert error.__notes__ == ["after 1 retries of ServerError('first')"]


def test_exhaustion_carries_every_error_and_the_reason() -> None:
    """After the last attempt there is nothing left to try."""
    errors = [ServerError("a", status_code=500), ServerError("b"), Overloaded("c", status_code=529)]
    result = exhausted(run(RetryWithBudget(POLICY), Script(*errors)))
    assert result.reason is StopReason.ATTEMPTS
    assert result.errors == tuple(errors)
    assert result.__cause__ is errors[-1]
    assert (result.kind, result.status_code) == (ErrorKind.OVERLOADED, 529)
    assert str(result) == "gave up after 3 attempts (max_attempts reached): Overloaded('c')"


def test_one_attempt_is_no_retry() -> None:
    """`max_attempts=1` turns retries off."""
    call = Script(ServerError("a"))
    policy = POLICY.model_copy(update={"max_attempts": 1})
    assert str(exhausted(run(RetryWithBudget(policy), call))).startswith("gave up after 1 attempt ")
    assert len(call.times) == 1


def test_an_empty_budget_ends_the_call() -> None:
    """The provider sees one attempt, and the caller is told why."""
    call = Script(ServerError("a"))
    budget = WindowBudget(ratio=0, min_per_second=0)
    result = exhausted(run(RetryWithBudget(POLICY, budget=budget), call))
    assert result.reason is StopReason.BUDGET
    assert len(call.times) == 1


def test_a_retry_that_would_start_too_late_is_not_started() -> None:
    """The wait alone would reach the deadline, so nothing is waited for."""
    call = Script(ServerError("a"), takes=2.5)
    policy = POLICY.model_copy(update={"deadline": 3.5})
    result = exhausted(run(RetryWithBudget(policy), call))
    assert result.reason is StopReason.DEADLINE
    assert call.times == [0.0]


def test_a_retry_that_could_not_finish_is_not_started() -> None:
    """There is time to start it, and not enough for `expected_latency`."""
    call = Script(ServerError("a"), takes=1)
    policy = POLICY.model_copy(update={"deadline": 5, "expected_latency": 3})
    assert exhausted(run(RetryWithBudget(policy), call)).reason is StopReason.DEADLINE
    assert call.times == [0.0]


def test_a_deadline_around_the_call_is_heeded() -> None:
    """The earlier one wins: a wait that would pass it is not begun, and a retry that runs is cut off at it."""

    async def main() -> list[tuple[float, StopReason, int]]:
        ends = []
        for seconds, takes in ((0.5, 0.0), (3.0, 2.0)):
            call = Script(ServerError("a"), takes=takes)
            began = asyncio.get_running_loop().time()
            with deadline(seconds), pytest.raises(RetriesExhausted) as gave_up:
                await RetryWithBudget(POLICY.model_copy(update={"initial_delay": 0.6}))(call)()
            after = asyncio.get_running_loop().time() - began
            ends.append((round(after, 6), gave_up.value.reason, len(call.times)))
        return ends

    assert simulate(main) == [(0.0, StopReason.DEADLINE, 1), (3.0, StopReason.DEADLINE, 2)]


def test_the_deadline_ends_a_running_retry() -> None:
    """A retry that hangs is cut off where the call's time is up."""

    async def main() -> float:
        call = Script(ServerError("a"), "late", takes=8)
        policy = POLICY.model_copy(update={"deadline": 10})
        with pytest.raises(RetriesExhausted) as caught:
            await RetryWithBudget(policy)(call)()
        assert isinstance(caught.value.errors[1], TimeoutError)
        return asyncio.get_running_loop().time()

    assert simulate(main) == 10.0


def test_an_attempt_is_cut_at_its_own_time_out() -> None:
    """A time-out counts as a failure that passes."""
    call = Script("late", takes=9)
    policy = POLICY.model_copy(update={"attempt_timeout": 2, "max_attempts": 2})
    result = exhausted(run(RetryWithBudget(policy), call))
    assert call.times == [0.0, 3.0]
    assert result.kind is ErrorKind.TIMEOUT


@pytest.mark.parametrize("jitter", ["full", "equal", "decorrelated", "none"])
def test_the_provider_s_wait_comes_first(jitter: str) -> None:
    """No retry starts before the second that `retry-after` names."""
    call = Script(RateLimited("slow down", retry_after=7), "answer")
    policy = RetryPolicy.model_validate({"deadline": 60, "jitter": jitter})
    assert run(RetryWithBudget(policy), call) == "answer"
    assert 7 <= call.times[1] <= 7 + policy.max_delay


def test_too_long_a_wait_ends_the_call() -> None:
    """A shortened wait would be sure to fail, so there is none."""
    call = Script(RateLimited("tomorrow", retry_after=61))
    assert exhausted(run(RetryWithBudget(POLICY), call)).reason is StopReason.RETRY_AFTER
    assert len(call.times) == 1


def test_the_provider_s_verdict_wins() -> None:
    """`x-should-retry` is believed both ways."""
    never = ServerError("do not", headers={"x-should-retry": "false"})
    assert run(RetryWithBudget(POLICY), Script(never)) is never
    again = InvalidRequest("do", headers={"x-should-retry": "true"})
    assert run(RetryWithBudget(POLICY), Script(again, "answer")) == "answer"


def test_two_layers_do_not_multiply() -> None:
    """What the inner one gave up, the outer one passes on."""
    call = Script(ServerError("a"))
    inner = RetryWithBudget(POLICY)(call)
    outer = RetryWithBudget(POLICY)
    assert exhausted(run(outer, inner)).reason is StopReason.ATTEMPTS
    assert len(call.times) == 3


def test_two_instances_share_one_budget() -> None:
    """What one spends the other cannot."""
    budget = EarnedBudget(floor=2)

    async def main() -> tuple[StopReason, StopReason]:
        reasons = []
        for _ in range(2):
            with pytest.raises(RetriesExhausted) as caught:
                await RetryWithBudget(POLICY, budget=budget)(Script(ServerError("a")))()
            reasons.append(caught.value.reason)
        return reasons[0], reasons[1]

    assert simulate(main) == (StopReason.ATTEMPTS, StopReason.BUDGET)


def test_cancellation_is_not_retried_and_gives_the_permit_back() -> None:
    """Whether it comes in the wait or in the attempt."""
    budget = EarnedBudget(floor=1)

    async def main() -> tuple[float, int]:
        call = Script(ServerError("a"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await RetryWithBudget(POLICY, budget=budget)(call)()
        return budget.statistics(asyncio.get_running_loop().time()).level, len(call.times)

    assert simulate(main) == (1.0, 1)


def test_cancelling_a_running_retry_spends_its_permit() -> None:
    """It reached the provider, so it cost."""
    budget = EarnedBudget(floor=1)

    async def main() -> float:
        call = Script(ServerError("a"), "late", takes=2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4):
                await RetryWithBudget(POLICY, budget=budget)(call)()
        return budget.statistics(asyncio.get_running_loop().time()).level

    assert simulate(main) == 0.0


def test_events_tell_the_story_in_order() -> None:
    """A failed attempt, the retry that follows, the refusal and the end."""
    heard: list[RetryEvent] = []
    budget = EarnedBudget(floor=1)
    retry = RetryWithBudget(POLICY, budget=budget, on_event=heard.append)
    run(retry, Script(ServerError("a"), ServerError("b"), takes=2))
    kinds = [type(event) for event in heard]
    assert kinds == [AttemptFailed, RetryScheduled, AttemptFailed, BudgetEmpty, RetriesExhausted]
    assert heard[0] == AttemptFailed(1, Failure(ErrorKind.SERVER), after=2.0)
    assert heard[1] == RetryScheduled(2, 1.0, Failure(ErrorKind.SERVER))


def test_a_hook_that_raises_does_not_break_the_call(caplog: pytest.LogCaptureFixture) -> None:
    """The loop's exception handler hears of it instead."""

    def broken(event: RetryEvent) -> None:
        raise RuntimeError("the tracer is down")

    assert run(RetryWithBudget(POLICY, on_event=broken), Script(ServerError("a"), "ok")) == "ok"
    assert "event hook" in caplog.text


def test_statistics_count_what_happened() -> None:
    """Calls, retries, and what became of the calls in trouble."""

    async def main() -> None:
        retry = RetryWithBudget(POLICY, budget=Unlimited())
        plans = [["ok"], [ServerError("a"), "ok"], [ServerError("a")], [InvalidRequest("x")]]
        calls = [retry(Script(*outcomes))() for outcomes in plans]
        await asyncio.gather(*calls, return_exceptions=True)
        seen = retry.statistics()
        assert (seen.calls, seen.retries, seen.recovered, seen.not_retryable) == (4, 3, 1, 1)
        assert seen.exhausted[StopReason.ATTEMPTS] == 1
        assert seen.troubled == 3
        assert seen.amplification == 1 + 3 / 4
        assert seen.budget.granted == 3

    simulate(main)


def test_nothing_called_is_no_amplification() -> None:
    """Before the first call the ratio is 1."""

    async def main() -> float:
        return RetryWithBudget(POLICY).statistics().amplification

    assert simulate(main) == 1.0


def test_a_decorated_function_keeps_its_name_and_arguments() -> None:
    """The guard is not seen from outside."""

    @RetryWithBudget(POLICY)
    async def ask(question: str, *, polite: bool = False) -> str:
        """Ask."""
        return f"{question}{'?' if polite else '!'}"

    assert (ask.__name__, ask.__doc__) == ("ask", "Ask.")

    async def main() -> str:
        return await ask("why", polite=True)

    assert simulate(main) == "why?"


class Pieces:
    """A stream of *pieces* that breaks where a piece is an error."""

    def __init__(self, *pieces: object) -> None:
        self._pieces = iter(pieces)

    def __aiter__(self) -> "Pieces":
        """Return itself."""
        return self

    async def __anext__(self) -> object:
        """Return the next piece, or break."""
        await asyncio.sleep(0.1)
        piece = next(self._pieces, StopAsyncIteration())
        if isinstance(piece, BaseException):
            raise piece
        return piece


async def read(retry: RetryWithBudget, call: Callable[[], Awaitable[Pieces]]) -> list[object]:
    """Read a guarded stream to its end."""
    return [piece async for piece in retry.stream(call)]


def test_the_opening_of_a_stream_is_retried() -> None:
    """What comes after the opening is not the guard's matter."""
    call = Script(ServerError("a"), Pieces("x"))
    assert isinstance(run(RetryWithBudget(POLICY), call), Pieces)
    assert len(call.times) == 2


def test_a_broken_stream_begins_anew_and_says_so() -> None:
    """Only when asked, through `stream`."""
    broke = ServerError("broke")
    call: Script = Script(Pieces("a", "b", broke), Pieces("a", "c"))
    retry = RetryWithBudget(POLICY)

    async def main() -> list[object]:
        return await read(retry, call)  # type: ignore[arg-type]

    assert simulate(main) == ["a", "b", StreamRestarted(2, broke), "a", "c"]


def test_a_stream_that_keeps_breaking_is_given_up() -> None:
    """The same attempts, deadline and budget hold for it."""
    retry = RetryWithBudget(POLICY)
    opened = []

    async def call() -> Pieces:
        opened.append(True)
        return Pieces("a", ServerError("broke"))

    async def main() -> None:
        with pytest.raises(RetriesExhausted):
            await read(retry, call)
        assert retry.statistics().retries == 2

    simulate(main)
    assert len(opened) == 3


def test_a_stream_that_is_left_gives_everything_back() -> None:
    """Closing the reader ends the call."""
    budget = EarnedBudget()

    async def call() -> Pieces:
        return Pieces("a", "b")

    async def main() -> float:
        stream = RetryWithBudget(POLICY, budget=budget).stream(call)
        assert await anext(stream) == "a"
        await stream.aclose()  # type: ignore[attr-defined]
        return budget.statistics(asyncio.get_running_loop().time()).level

    assert simulate(main) == budget.floor


def test_a_stream_s_opening_is_cut_at_the_attempt_s_time_out() -> None:
    """Then it counts as a time-out, and is tried again; an open stream may take its time."""
    calls = 0

    async def call() -> Pieces:
        nonlocal calls
        calls += 1
        await asyncio.sleep(9 if calls == 1 else 0)
        return Pieces(*range(40))

    retry = RetryWithBudget(POLICY.model_copy(update={"attempt_timeout": 2}))

    async def main() -> list[object]:
        return await read(retry, call)

    restarted, *pieces = simulate(main)  # type: ignore[misc]
    assert isinstance(restarted, StreamRestarted)
    assert pieces == list(range(40))


def test_a_call_that_raises_before_it_is_awaited_is_tried_again() -> None:
    """A function that returns an awaitable may fail without one."""
    calls = 0

    def call() -> Awaitable[object]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ServerError("at once")
        return asyncio.sleep(0, "answer")

    assert run(RetryWithBudget(POLICY), call) == "answer"


def test_a_bound_method_can_be_guarded() -> None:
    """As SDKs have them: the guard takes what the method takes."""

    class Client:
        async def ask(self, question: str) -> str:
            return f"{question}!"

    async def main() -> str:
        return await RetryWithBudget(POLICY)(Client().ask)("why")

    assert simulate(main) == "why!"


@pytest.mark.parametrize("name", ["aclose", "close"])
def test_a_stream_that_is_left_is_hung_up(name: str) -> None:
    """By the name that its client has for it, so that the provider may stop."""
    pieces, hung_up = Pieces("a", "b"), []

    async def hang_up() -> None:
        hung_up.append(name)

    setattr(pieces, name, hang_up)

    async def main() -> None:
        stream = RetryWithBudget(POLICY).stream(Script(pieces))  # type: ignore[arg-type]
        assert await anext(stream) == "a"
        await stream.aclose()  # type: ignore[attr-defined]

    simulate(main)
    assert hung_up == [name]


@pytest.mark.parametrize("streamed", [True, False])
def test_first_successes_earn_for_the_budget(streamed: bool) -> None:
    """Streams earn as calls do."""
    budget = EarnedBudget(ratio=0.1, floor=0)
    retry = RetryWithBudget(POLICY, budget=budget)

    async def main() -> float:
        for _ in range(10):
            call = Script(Pieces("a"))
            await (read(retry, call) if streamed else retry(call)())  # type: ignore[arg-type]
        return budget.statistics(asyncio.get_running_loop().time()).level

    assert simulate(main) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("outcomes", "options", "ends"),
    [
        ((Pieces("a"),), {"attempt_timeout": 2, "max_attempts": 1}, 2),
        ((ServerError("a"), Pieces("a")), {"deadline": 100}, 100),
    ],
)
def test_the_opening_of_a_stream_ends_in_time(
    outcomes: tuple[object, ...], options: dict[str, float], ends: float
) -> None:
    """At the attempt's own time-out, and a retry at the deadline."""
    policy = POLICY.model_copy(update=options)

    async def main() -> float:
        slow = Script(*outcomes, takes=90)
        with pytest.raises(RetriesExhausted):
            await read(RetryWithBudget(policy), slow)  # type: ignore[arg-type]
        return asyncio.get_running_loop().time()

    assert simulate(main) == ends


def test_a_reader_that_lingers_delays_no_retry_past_the_deadline() -> None:
    """A stream that begins anew is open before its reader is told."""
    call = Script(Pieces("a", ServerError("broke")), Pieces("b"))

    async def main() -> None:
        async for _ in RetryWithBudget(POLICY).stream(call):  # type: ignore[arg-type]
            await asyncio.sleep(50)

    simulate(main)
    assert call.times[1:] == [51.2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"deadline": 0}, "greater than 0"),
        ({"deadline": 9, "max_attempts": 0}, "greater than or equal to 1"),
        ({"deadline": 9, "max_attempts": 11}, "less than or equal to 10"),
        ({"deadline": 9, "initial_delay": 9, "max_delay": 1}, "the first wait can't be longer"),
        ({"deadline": float("inf")}, "finite number"),
        ({"deadline": 9, "attempts": 2}, "Extra inputs"),
    ],
)
def test_a_policy_that_cannot_work_is_refused_when_made(
    options: dict[str, float], said: str
) -> None:
    """The message names the value or the remedy."""
    with pytest.raises(ValidationError, match=said):
        RetryPolicy.model_validate(options)


def test_the_deadline_has_no_default() -> None:
    """Every default would be wrong for someone."""
    with pytest.raises(ValidationError, match="deadline"):
        RetryPolicy()  # type: ignore[call-arg]


def test_jitter_spreads_as_described() -> None:
    """Each kind of jitter stays within its bounds, and uses them."""
    for jitter, low, high in (("full", 0, 4), ("equal", 2, 4), ("decorrelated", 1, 6)):
        policy = RetryPolicy.model_validate(
            {"deadline": 60, "initial_delay": 1, "max_delay": 8, "jitter": jitter}
        )
        rng = Random(1)
        waits = [backoff_delay(3, policy, rng, previous=2) for _ in range(2_000)]
        assert low <= min(waits) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(waits) <= high


def test_the_same_seed_gives_the_same_waits() -> None:
    """Jitter comes from the run's own chance, and another seed gives others."""

    def waits(seed: int) -> list[float]:
        call = Script(ServerError("a"))

        async def main() -> None:
            with pytest.raises(RetriesExhausted):
                await RetryWithBudget(RetryPolicy(deadline=60))(call)()

        simulate(main, seed=seed)
        return call.times

    assert waits(1) == waits(1) != waits(2)


def test_an_own_source_of_chance_is_used() -> None:
    """An injected `rng` wins over the run's."""
    call = Script(ServerError("a"), "ok")
    run(RetryWithBudget(RetryPolicy(deadline=60), rng=Random(5)), call)
    assert call.times[1] == pytest.approx(Random(5).random() * 0.5)


def test_grpc_s_bucket_hears_of_failures_that_are_not_retried_too() -> None:
    """Every failed attempt drains it, whether a retry follows or not."""
    budget = ThrottleBucket(max_tokens=4)
    policy = POLICY.model_copy(update={"max_attempts": 1})
    run(RetryWithBudget(policy, budget=budget), Script(ServerError("a")))
    assert budget.statistics(0).level == 3
