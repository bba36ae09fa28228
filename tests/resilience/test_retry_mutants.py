"""Each check of the invariants fails on a copy of the library with a bug in it."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from llm_patterns.resilience import retry_budgets, retry_with_budget
from tests.resilience import invariants
from tests.resilience.invariants import BUDGETS, CALLS, POLICIES, check_budgets, run_calls

Mutant = Callable[[ModuleType, str, str], ModuleType]


@pytest.fixture
def mutant(monkeypatch: pytest.MonkeyPatch) -> Mutant:
    """Makes a copy of a module in which one text, which must be there, reads another."""
    return partial(mutated, monkeypatch)


def mutated(monkeypatch: pytest.MonkeyPatch, module: ModuleType, old: str, new: str) -> ModuleType:
    """The copy. It is listed among the modules, where dataclasses look their annotations up."""
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    assert old in source, f"{old!r} is gone from {module.__name__}: renew the mutant"
    copy = ModuleType(f"{module.__name__}_mutant")
    monkeypatch.setitem(sys.modules, copy.__name__, copy)
    exec(compile(source.replace(old, new), f"<{copy.__name__}>", "exec"), vars(copy))
    return copy


BOUNDS, EARNED, UNDONE = "holds", "can't afford", "lost an unused"
BUDGET_BUGS = {
    "the earned bucket has no rim": (
        "self._held = min(self._held, capacity)",
        "self._held = self._held",
        BOUNDS,
    ),
    "old traffic counts for ever": ("if piece[0] > oldest", "if piece[0] >= 0", UNDONE),
    "failed retries come back": ("if succeeded is not False:", "if True:", EARNED),
    "unused retries are lost": ("if succeeded is None", "if False and succeeded is None", UNDONE),
    "the window forgets its retries": (
        "max(0.0, capacity - retries)",
        "max(0.0, capacity)",
        EARNED,
    ),
    "the window owes": ("max(0.0, capacity - retries)", "capacity - retries", BOUNDS),
    "running retries are not counted": (
        "        self._retries += 1\n        return cost",
        "        return cost",
        UNDONE,
    ),
    "one retry too many runs": (
        "capacity = max(float(self.min_concurrency), self.ratio * self._calls)",
        "capacity = 1 + max(float(self.min_concurrency), self.ratio * self._calls)",
        EARNED,
    ),
    "finished retries stay in flight": ("self._retries -= 1", "self._retries -= 0", UNDONE),
    "any fill is above half": ("self._tokens > self.max_tokens / 2", "self._tokens >= 0", EARNED),
    "the throttle overflows": ("min(self.max_tokens, tokens)", "tokens", BOUNDS),
    "the throttle owes": ("max(0.0, self._tokens - 1)", "self._tokens - 1", BOUNDS),
    "budgets lend": (
        "return self._level(now)[0] >= cost - _EPSILON",
        "return self._level(now)[0] >= 0",
        EARNED,
    ),
    "the quota overflows": ("min(self.capacity, tokens)", "tokens", BOUNDS),
}


@pytest.mark.parametrize("bug", BUDGET_BUGS)
def test_the_budgets_check_finds(bug: str, mutant: Mutant) -> None:
    """A budget with this bug breaks that invariant within two thousand traces."""
    old, new, said = BUDGET_BUGS[bug]
    broken = mutant(retry_budgets, old, new)
    with pytest.raises(AssertionError, match=said):
        check_budgets(broken, traces=2_000)


CALL_BUGS = {
    "one attempt too many": (
        "if attempt >= policy.max_attempts",
        "if attempt > policy.max_attempts",
        invariants.attempts_are_bounded,
    ),
    "the budget's refusal is not heard": (
        "if permit is None:",
        "if False:",
        invariants.attempts_are_bounded,
    ),
    "the deadline is not looked at": (
        "if delay + policy.expected_latency >= left",
        "if delay + policy.expected_latency >= left + 99",
        invariants.deadlines_hold,
    ),
    "the time a good attempt takes is forgotten": (
        "if delay + policy.expected_latency >= left",
        "if delay >= left",
        invariants.deadlines_hold,
    ),
    "a running retry is not cut off": (
        "min(self._deadline(began), now + limit)",
        "now + limit",
        invariants.deadlines_hold,
    ),
    "retry-after is ignored": (
        "return (retry_after or 0.0) + delay",
        "return delay",
        invariants.waits_are_as_asked,
    ),
    "any retry-after is waited for": (
        "failure.retry_after > policy.max_retry_after",
        "failure.retry_after > 1e9",
        invariants.waits_are_as_asked,
    ),
    "waits have no cap": (
        "min(policy.max_delay, policy.initial_delay * ",
        "max(policy.max_delay, 5 * policy.initial_delay * ",
        invariants.waits_are_as_asked,
    ),
    "the caller's error is wrapped": (
        "            raise error\n",
        "            raise LLMPatternsError('wrapped') from error\n",
        invariants.the_rest_passes_through,
    ),
    "everything is tried again": (
        "if not retryable(failure, retry.policy):",
        "if False:",
        invariants.the_rest_passes_through,
    ),
    "a cancelled wait goes on": (
        "self._release(succeeded=None)\n            raise",
        "pass",
        invariants.nothing_is_left_behind,
    ),
    "a cancelled wait keeps its permit": (
        "self._release(succeeded=None)",
        "pass",
        invariants.nothing_is_left_behind,
    ),
    "a cancelled retry keeps its permit": (
        "            except BaseException:\n                trouble.settle(succeeded=False)\n",
        "            except BaseException:\n",
        invariants.nothing_is_left_behind,
    ),
    "a permit is given back twice": (
        "            self._permit = None\n\n",
        "\n",
        invariants.nothing_is_left_behind,
    ),
    "calls do not end": (
        "            finally:\n                end()",
        "            finally:\n                pass",
        invariants.nothing_is_left_behind,
    ),
    "a cancelled stream keeps its permit": (
        "            trouble.settle(succeeded=False)\n            self.budget.end()",
        "            self.budget.end()",
        invariants.nothing_is_left_behind,
    ),
    "streams do not end": (
        "            trouble.settle(succeeded=False)\n            self.budget.end()",
        "            trouble.settle(succeeded=False)",
        invariants.nothing_is_left_behind,
    ),
    "only the last error is told": (
        "tuple(self.errors)",
        "tuple(self.errors[-1:])",
        invariants.errors_are_told,
    ),
}


@pytest.mark.parametrize("bug", CALL_BUGS)
def test_the_calls_check_finds(bug: str, mutant: Mutant) -> None:
    """A guard with this bug breaks that promise on some schedule."""
    old, new, holds = CALL_BUGS[bug]
    broken = mutant(retry_with_budget, old, new)

    @settings(max_examples=4_000, phases=[Phase.generate], report_multiple_bugs=False)
    @given(CALLS, POLICIES, BUDGETS, st.integers(0, 99))
    def check(schedule, policy, budget, seed) -> None:  # type: ignore[no-untyped-def]
        holds(run_calls(broken, schedule, policy, budget, seed), policy)

    run: Callable[[], None] = check
    with pytest.raises(AssertionError):
        run()
