"""The invariants of retries and of their budgets, as checks on random schedules.

Each is a function of the classes under test, so that it can be shown to fail on a copy with a bug in it.
"""

import asyncio
from collections.abc import Callable
from random import Random
from types import ModuleType, SimpleNamespace
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
        assert abs(self.budget.statistics(self.now).level - before) < EPSILON

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
            return lambda failure: trace.spent + 1 <= earned + EPSILON
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

OUTCOMES = st.sampled_from(["ok", "500", "429", "429 later", "400", "hang"])
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "start": st.floats(0, 5),
            "outcomes": st.lists(OUTCOMES, min_size=1, max_size=5),
            "takes": st.floats(0, 2),
            "cancelled": st.none() | st.floats(0, 12),
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


def check_calls(
    module: Any, schedule: list[dict[str, Any]], policy: dict[str, Any], budget: str, seed: int
) -> None:
    """Make the calls of *schedule* through *module*'s `RetryWithBudget` and check every invariant."""
    world = SimpleNamespace(attempts={}, ended={}, errors={}, asked={}, results={})

    async def main() -> None:
        shared = getattr(retry_budgets, budget)()
        kept = retry_budgets.InFlightBudget(ratio=0, min_concurrency=10_000)
        retry = module.RetryWithBudget(
            module.RetryPolicy(**policy), budget=Both(shared, kept), rng=Random(seed)
        )
        async with asyncio.TaskGroup() as group:
            for number, plan in enumerate(schedule):
                group.create_task(caller(retry, number, plan, world))
        statistics = retry.statistics()
        retries = sum(len(starts) - 1 for starts in world.attempts.values() if starts)
        assert statistics.retries == retries <= shared.statistics(0).granted
        assert vars(kept)["_calls"] == vars(kept)["_retries"] == 0, "a call left something behind"

    simulate(main, seed=seed)
    for number in world.attempts:
        _check_call(number, world, policy)


async def caller(retry: Any, number: int, plan: dict[str, Any], world: Any) -> None:
    """Make one call as planned, and cancel it where the plan says so."""
    loop_time = asyncio.get_running_loop().time
    world.attempts[number], world.ended[number] = [], []
    world.errors[number], world.asked[number] = [], []

    async def attempt() -> str:
        at = len(world.attempts[number])
        world.attempts[number].append(loop_time())
        outcome = plan["outcomes"][min(at, len(plan["outcomes"]) - 1)]
        try:
            await asyncio.sleep(10_000 if outcome == "hang" else plan["takes"])
            return _outcome(outcome, world.errors[number])
        finally:
            world.ended[number].append(loop_time())
            world.asked[number].append({"429": 1.5, "429 later": 6.0}.get(outcome, 0.0))

    await asyncio.sleep(plan["start"])
    limit = 60.0 if plan["cancelled"] is None else plan["cancelled"]
    try:
        async with asyncio.timeout(limit) as cancel:
            world.results[number] = await retry(attempt)()
    except Exception as error:
        world.results[number] = None if cancel.expired() else error


def _outcome(outcome: str, errors: list[Exception]) -> str:
    if outcome == "ok":
        return outcome
    wait = {"429": "1.5", "429 later": "6"}.get(outcome)
    error: Exception = (
        ServerError("500", status_code=500)
        if outcome == "500"
        else error_for_status(
            int(outcome[:3]), outcome, headers={"retry-after": wait} if wait else None
        )
    )
    errors.append(error)
    raise error


def _check_call(number: int, world: Any, policy: dict[str, Any]) -> None:
    starts, ends, asked = world.attempts[number], world.ended[number], world.asked[number]
    if not starts:
        return
    assert len(starts) <= policy["max_attempts"], "more attempts than the policy allows"
    last = starts[0] + policy["deadline"] - policy["expected_latency"]
    for before, (start, wish) in enumerate(zip(starts[1:], asked, strict=False)):
        wait = start - ends[before]
        answered = ends[before] - starts[before] < (policy["attempt_timeout"] or 1e9) - EPSILON
        assert start <= last + EPSILON, "a retry began too late"
        assert wait >= (wish if answered else 0) - EPSILON, "earlier than the provider asked for"
        assert wait <= policy["max_retry_after"] + policy["max_delay"] + EPSILON, "too long a wait"
    errors = world.errors[number]
    if errors and getattr(errors[-1], "status_code", None) == 400 and len(errors) == len(starts):
        result = world.results.get(number)
        assert result is None or result is errors[-1], "a failure that does not pass was changed"


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

    def _affordable(self, cost: float, now: float) -> bool:
        raise NotImplementedError

    def _spend(self, cost: float, now: float) -> float:
        raise NotImplementedError

    def _level(self, now: float) -> tuple[float, float]:
        seen = self._both[0].statistics(now)
        return seen.level, seen.capacity
