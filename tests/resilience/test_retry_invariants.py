"""The invariants hold on random schedules, and each check fails on a copy of the library with a bug in it."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from llm_patterns.resilience import retry_budgets, retry_with_budget
from tests.resilience.invariants import BUDGETS, CALLS, POLICIES, check_budgets, check_calls

Mutant = Callable[[ModuleType, str, str], ModuleType]


def test_budgets_keep_their_bounds_over_ten_thousand_traces() -> None:
    """Between zero and their capacity, granting no more than was earned, a permit given back unused undone."""
    check_budgets(traces=10_000)


@settings(max_examples=300)
@given(CALLS, POLICIES, BUDGETS, st.integers(0, 99))
def test_calls_keep_every_promise(schedule, policy, budget, seed) -> None:  # type: ignore[no-untyped-def]
    """Attempts, deadlines, waits, errors and permits, under faults, concurrency and cancellation."""
    check_calls(retry_with_budget, schedule, policy, budget, seed)


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


BUDGET_BUGS = {
    "the earned bucket has no rim": (
        "self._held = min(self._held, capacity)",
        "self._held = self._held",
    ),
    "failed retries come back": ("if succeeded is not False:", "if True:"),
    "unused retries are lost": ("if succeeded is None", "if False and succeeded is None"),
    "the window forgets its retries": ("max(0.0, capacity - retries)", "max(0.0, capacity)"),
    "finished retries stay in flight": ("self._retries -= 1", "self._retries -= 0"),
    "any fill is above half": ("self._tokens > self.max_tokens / 2", "self._tokens >= 0"),
    "the throttle overflows": ("min(self.max_tokens, tokens)", "tokens"),
    "the quota lends": ("return self._tokens >= cost - _EPSILON", "return self._tokens >= 0"),
    "the quota overflows": ("min(self.capacity, tokens)", "tokens"),
}


@pytest.mark.parametrize("bug", BUDGET_BUGS)
def test_the_budgets_check_finds(bug: str, mutant: Mutant) -> None:
    """A budget with this bug breaks a bound within two thousand traces."""
    broken = mutant(retry_budgets, *BUDGET_BUGS[bug])
    with pytest.raises(AssertionError):
        check_budgets(broken, traces=2_000)


CALL_BUGS = {
    "one attempt too many": (
        "if attempt >= policy.max_attempts",
        "if attempt > policy.max_attempts",
    ),
    "the deadline is not looked at": (
        "if delay + policy.expected_latency >= left",
        "if delay + policy.expected_latency >= left + 99",
    ),
    "the time a good attempt takes is forgotten": (
        "if delay + policy.expected_latency >= left",
        "if delay >= left",
    ),
    "retry-after is ignored": ("return (retry_after or 0.0) + delay", "return delay"),
    "any retry-after is waited for": (
        "failure.retry_after > policy.max_retry_after",
        "failure.retry_after > 1e9",
    ),
    "the caller's error is wrapped": (
        "            raise error\n",
        "            raise LLMPatternsError('wrapped') from error\n",
    ),
    "a cancelled wait keeps its permit": ("self._release(succeeded=None)", "pass"),
    "a cancelled retry keeps its permit": (
        "            except BaseException:\n                trouble.settle(succeeded=False)\n",
        "            except BaseException:\n",
    ),
    "calls do not end": (
        "            finally:\n                end()",
        "            finally:\n                pass",
    ),
    "the budget's refusal is not heard": ("if permit is None:", "if False:"),
}


@pytest.mark.parametrize("bug", CALL_BUGS)
def test_the_calls_check_finds(bug: str, mutant: Mutant) -> None:
    """A guard with this bug breaks a promise on some schedule."""
    broken = mutant(retry_with_budget, *CALL_BUGS[bug])

    @settings(max_examples=400, phases=[Phase.generate])
    @given(CALLS, POLICIES, BUDGETS, st.integers(0, 99))
    def check(schedule, policy, budget, seed) -> None:  # type: ignore[no-untyped-def]
        check_calls(broken, schedule, policy, budget, seed)

    run: Callable[[], None] = check
    with pytest.raises(Exception):  # noqa: B017, PT011 - an assertion, or what the bug brings on
        run()
