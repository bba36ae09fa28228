"""The invariants of retries and of their budgets, as checks on random schedules.

Each is a function of the module under test, or of what happened in it, so that it can be shown to fail on a copy with a
bug in it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import cycle, pairwise
from random import Random
from types import ModuleType
from typing import Any

from hypothesis import strategies as st

from llm_patterns.errors import ErrorKind, Failure, ServerError, error_for_status
from llm_patterns.resilience import retry_budgets
from llm_patterns.simulation import simulate

EPSILON = 1e-6
FAILURE, TIMEOUT = Failure(ErrorKind.SERVER), Failure(ErrorKind.TIMEOUT)


# --- budgets: random traces of what calls tell them ---------------------------------------------


def budgets(module: ModuleType, rng: Random) -> list[Any]:
    """One budget of each kind, with random settings."""
    return [
        module.EarnedBudget(ratio=rng.choice([0, 0.1, 1]), floor=rng.choice([0, 1, 2.5])),
        module.WindowBudget(ratio=rng.choice([0, 0.2, 1]), min_per_second=rng.choice([0, 0.3])),
        module.InFlightBudget(ratio=rng.choice([0, 0.2, 1]), min_concurrency=rng.randrange(4)),
        module.ThrottleBucket(max_tokens=rng.choice([1, 4, 10]), token_ratio=rng.choice([0.1, 1])),
        module.QuotaBucket(
            capacity=rng.choice([10, 23]), success_refund=rng.choice([0, 0.5]), timeout_cost=10
        ),
    ]


class Trace:
    """Random calls on one budget: what was granted, what came back, and what was in flight."""

    def __init__(self, budget: Any, rng: Random) -> None:
        self.budget = budget
        self.rng = rng
        self.now = 0.0
        self.calls: list[float] = []
        self.open = 0
        self.successes = 0
        self.grants: list[tuple[float, float]] = []
        self.held: list[float] = []
        self.spent = 0.0

    def step(self) -> None:
        """Let one random thing happen, and check the budget before and after."""
        self.now += self.rng.choice([0, 0, 0.1, 1, 4])
        self.rng.choice([self.begin, self.end, self.retry, self.retry, self.unused, self.over])()
        self.bounded()

    def begin(self) -> None:
        """A call begins; some succeed at once."""
        self.budget.begin(self.now)
        self.calls.append(self.now)
        self.open += 1
        if self.rng.random() < 0.4:
            self.budget.succeeded()
            self.successes += 1

    def end(self) -> None:
        """A call ends."""
        if self.open > len(self.held):
            self.budget.end()
            self.open -= 1

    def retry(self) -> None:
        """An attempt failed, and one more is asked for."""
        failure = self.rng.choice([FAILURE, TIMEOUT])
        self.budget.failed(failure)
        allowed = affordable(self)
        permit = self.budget.acquire(failure, self.now)
        if permit is not None:
            assert allowed(failure), f"{self.budget} granted what it can't afford"
            self.grants.append((self.now, permit))
            self.held.append(permit)
            self.spent += permit

    def unused(self) -> None:
        """A retry is granted and never made: the budget is as it was."""
        before = self.budget.statistics(self.now).level
        permit = self.budget.acquire(FAILURE, self.now)
        if permit is not None:
            self.budget.release(permit, succeeded=None)
        after = self.budget.statistics(self.now).level
        assert abs(after - before) < EPSILON, f"{self.budget} lost an unused retry"

    def over(self) -> None:
        """A retry is over."""
        if self.held:
            permit, good = self.held.pop(), self.rng.random() < 0.5
            self.budget.release(permit, succeeded=good)
            self.successes += good and isinstance_of(self.budget, "ThrottleBucket")
            self.spent -= permit if good else 0

    def bounded(self) -> None:
        """Never below zero, never above the capacity."""
        seen = self.budget.statistics(self.now)
        assert 0 <= seen.level <= seen.capacity + EPSILON, f"{self.budget} holds {seen}"
        assert seen.granted >= len(self.grants)


def isinstance_of(budget: object, name: str) -> bool:
    """Whether the budget is of the class of that name, in whichever copy of the module."""
    return type(budget).__name__ == name


def affordable(trace: Trace) -> Callable[[Failure], bool]:
    """What the budget's own rule allows now, counted by the trace: note it before, ask after."""
    budget, now = trace.budget, trace.now
    level = budget.statistics(now).level
    match type(budget).__name__:
        case "EarnedBudget":
            earned = budget.floor + budget.ratio * trace.successes
            room = max(budget.floor, budget.ratio * sum(at > now - 11 for at in trace.calls))
            return lambda failure: max(trace.spent + 1 - earned, 1 - room) <= EPSILON
        case "WindowBudget":
            recent = sum(at > now - 11 for at in trace.calls)
            granted = sum(at > now - 9 for at, _ in trace.grants)
            most = budget.ratio * recent + vars(budget)["_minimum"]
            return lambda failure: granted + 1 <= most + EPSILON
        case "InFlightBudget":
            most = max(budget.min_concurrency, budget.ratio * trace.open)
            return lambda failure: len(trace.held) + 1 <= most + EPSILON
        case "ThrottleBucket":
            return lambda failure: level > budget.max_tokens / 2
        case _:
            limit = budget.capacity + budget.success_refund * trace.successes
            costs = {ErrorKind.TIMEOUT: budget.timeout_cost}
            return lambda failure: (
                trace.spent + costs.get(failure.kind, budget.retry_cost) <= limit + EPSILON
            )


def check_budgets(module: ModuleType = retry_budgets, *, traces: int, steps: int = 40) -> None:
    """Run random traces over each budget."""
    for seed in range(traces):
        rng = Random(seed)
        trace = Trace(rng.choice(budgets(module, rng)), rng)
        for _ in range(steps):
            trace.step()


# --- whole calls: random faults, concurrency and cancellations ----------------------------------

OUTCOMES = st.sampled_from(["ok", "500", "429", "429 later", "400", "hang", "breaks"])
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "start": st.floats(0, 5),
            "outcomes": st.lists(OUTCOMES, min_size=1, max_size=5),
            "takes": st.floats(0, 2),
            "cancelled": st.none() | st.floats(0, 12),
            "streamed": st.booleans(),
        }
    ),
    min_size=1,
    max_size=8,
)
POLICIES = st.fixed_dictionaries(
    {
        "deadline": st.floats(0.5, 20),
        "max_attempts": st.integers(1, 5),
        "initial_delay": st.floats(0.01, 2),
        "max_delay": st.just(2.0),
        "jitter": st.sampled_from(["full", "equal", "decorrelated", "none"]),
        "max_retry_after": st.just(5.0),
        "expected_latency": st.sampled_from([0.0, 1.0]),
        "attempt_timeout": st.none() | st.floats(0.1, 3),
    }
)
BUDGETS = st.sampled_from(
    ["EarnedBudget", "WindowBudget", "InFlightBudget", "ThrottleBucket", "QuotaBucket"]
)


@dataclass
class Attempt:
    """One attempt as the provider saw it; `wish` is the wait it asked for in its answer."""

    start: float
    cancelled: bool
    end: float = float("inf")
    wish: float = 0.0
    error: Exception | None = None


@dataclass
class Call:
    """One call as its caller saw it; `result` is None if the caller cancelled it."""

    attempts: list[Attempt] = field(default_factory=list)
    result: object = None

    async def attempt(self, outcome: str, takes: float) -> str:
        """Ask the provider once."""
        task = asyncio.current_task()
        attempt = Attempt(_now(), cancelled=task is None or task.cancelling() > 0)
        self.attempts.append(attempt)
        try:
            await asyncio.sleep(10_000 if outcome == "hang" else takes)
            attempt.wish = {"429": 1.5, "429 later": 6.0}.get(outcome, 0.0)
            attempt.error = _error(outcome, attempt.wish)
        finally:
            attempt.end = _now()
        if attempt.error is not None:
            raise attempt.error
        return outcome

    async def pieces(self, outcome: str, takes: float) -> AsyncIterator[str]:
        """A stream, which may break after its first piece."""
        yield outcome
        await asyncio.sleep(takes)
        if outcome == "breaks":
            self.attempts[-1].end = _now()
            self.attempts[-1].error = ServerError("broken")
            raise self.attempts[-1].error


@dataclass
class Run:
    """What a schedule led to. `held` is what was begun or granted, and never ended or released."""

    calls: list[Call]
    retries: int
    granted: int
    held: tuple[int, int]


def run_calls(
    module: Any, schedule: list[dict[str, Any]], policy: dict[str, Any], budget: str, seed: int
) -> Run:
    """Make the calls of *schedule* through *module*'s `RetryWithBudget`, in virtual time."""

    async def main() -> Run:
        shared = getattr(retry_budgets, budget)()
        kept = retry_budgets.InFlightBudget(ratio=0, min_concurrency=10_000)
        retry = module.RetryWithBudget(
            module.RetryPolicy(**policy), budget=Both(shared, kept), rng=Random(seed)
        )
        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(caller(retry, plan)) for plan in schedule]
        seen = vars(kept)
        return Run(
            calls=[each.result() for each in callers],
            retries=retry.statistics().retries,
            granted=shared.statistics(_now()).granted,
            held=(seen["_calls"], seen["_retries"]),
        )

    return simulate(main, seed=seed)


async def caller(retry: Any, plan: dict[str, Any]) -> Call:
    """Make one call as planned, and cancel it where the plan says so."""
    await asyncio.sleep(plan["start"])
    limit = 60.0 if plan["cancelled"] is None else plan["cancelled"]
    call = Call()
    outcomes = cycle(plan["outcomes"])

    async def ask() -> str:
        return await call.attempt(next(outcomes), plan["takes"])

    async def open_stream() -> AsyncIterator[str]:
        return call.pieces(await ask(), plan["takes"])

    try:
        async with asyncio.timeout(limit) as cancel:
            if plan["streamed"]:
                call.result = [piece async for piece in retry.stream(open_stream)][-1]
            else:
                call.result = await retry(ask)()
    except Exception as error:
        call.result = None if cancel.expired() else error
    return call


def _now() -> float:
    return asyncio.get_running_loop().time()


def _error(outcome: str, wish: float) -> Exception | None:
    if outcome in ("ok", "breaks"):
        return None
    headers = {"retry-after": str(wish)} if wish else None
    return error_for_status(int(outcome[:3]), outcome, headers=headers)


def attempts_are_bounded(run: Run, policy: dict[str, Any]) -> None:
    """Invariant 1: by the policy for each call, by what the budget granted for all of them."""
    made = [len(call.attempts) for call in run.calls if call.attempts]
    assert max(made, default=0) <= policy["max_attempts"]
    assert sum(made) - len(made) == run.retries <= run.granted


def deadlines_hold(run: Run, policy: dict[str, Any]) -> None:
    """Invariant 2: no retry starts after the deadline, or too late for `expected_latency`."""
    for first, *retries in (call.attempts for call in run.calls if call.attempts):
        last = first.start + policy["deadline"] - policy["expected_latency"]
        assert all(retry.start <= last + EPSILON for retry in retries)
        longest = first.start + policy["deadline"] + EPSILON
        assert all(retry.end <= longest for retry in retries if retry.error is None)


def waits_are_as_asked(run: Run, policy: dict[str, Any]) -> None:
    """Invariant 3: at least what the provider asked for, at most the two caps together."""
    for call in run.calls:
        for before, after in pairwise(call.attempts):
            wait = after.start - before.end
            assert wait >= before.wish - EPSILON
            assert wait <= policy["max_retry_after"] + policy["max_delay"] + EPSILON


def the_rest_passes_through(run: Run, policy: dict[str, Any]) -> None:
    """Invariant 4: what does not pass is raised as it came, and ends the call."""
    for call in run.calls:
        for attempt in call.attempts:
            if getattr(attempt.error, "status_code", None) == 400:
                assert attempt is call.attempts[-1]
                assert call.result in (attempt.error, None)


def nothing_is_left_behind(run: Run, policy: dict[str, Any]) -> None:
    """Invariant 5: no attempt starts after the cancellation, and what was held is given back."""
    assert not any(attempt.cancelled for call in run.calls for attempt in call.attempts)
    assert run.held == (0, 0)


def errors_are_told(run: Run, policy: dict[str, Any]) -> None:
    """Exhaustion carries the errors of all attempts, in order."""
    for call in run.calls:
        if getattr(call.result, "reason", None) is not None:
            told = vars(call.result)["errors"]
            assert len(told) == len(call.attempts)
            pairs = zip(told, call.attempts, strict=True)
            assert all(error is a.error or isinstance(error, TimeoutError) for error, a in pairs)


class Both(retry_budgets.RetryBudget):
    """Two budgets as one: the first decides, the second counts what is begun and never ended."""

    def __init__(
        self, decides: retry_budgets.RetryBudget, counts: retry_budgets.RetryBudget
    ) -> None:
        super().__init__()
        self._both = (decides, counts)
        self._permits: dict[int, tuple[float, float]] = {}

    def begin(self, now: float) -> None:
        """Tell both."""
        for budget in self._both:
            budget.begin(now)

    def end(self) -> None:
        """Tell both."""
        for budget in self._both:
            budget.end()

    def succeeded(self) -> None:
        """Tell both."""
        for budget in self._both:
            budget.succeeded()

    def failed(self, failure: Failure) -> None:
        """Tell both."""
        for budget in self._both:
            budget.failed(failure)

    def acquire(self, failure: Failure, now: float) -> float | None:
        """Ask the first; the second grants always."""
        first = self._both[0].acquire(failure, now)
        if first is None:
            return None
        number = len(self._permits)
        self._permits[number] = (first, self._both[1].acquire(failure, now) or 0.0)
        return float(number)

    def release(self, permit: float, *, succeeded: bool | None) -> None:
        """Give both permits back."""
        for budget, each in zip(self._both, self._permits[int(permit)], strict=True):
            budget.release(each, succeeded=succeeded)

    def _spend(self, cost: float, now: float) -> float:
        raise NotImplementedError

    def _level(self, now: float) -> tuple[float, float]:
        seen = self._both[0].statistics(now)
        return seen.level, seen.capacity
