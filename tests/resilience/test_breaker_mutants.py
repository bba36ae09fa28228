"""Each check of the breaker's invariants fails on a copy of the library with a bug in it."""

from collections.abc import Callable

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from llm_patterns.resilience import circuit_breaker
from tests.mutants import mutant
from tests.resilience import breaker_invariants
from tests.resilience.breaker_invariants import CALLS, POLICIES, STREAKS, run_calls

BUGS = {
    "calls pass while open": (
        "        if wait > 0:\n",
        "        if wait > 1:\n",
        breaker_invariants.nothing_passes_while_open,
    ),
    "a call that was under way goes on while open": (
        "self._unguarded = self._generation if state is BreakerState.CLOSED else None",
        "self._unguarded = self._generation",
        breaker_invariants.nothing_passes_while_open,
    ),
    "open times grow without end": (
        "min(policy.max_open_time, policy.open_time * growth)",
        "policy.open_time * growth",
        breaker_invariants.open_times_are_bounded,
    ),
    "open times do not grow": (
        "policy.open_multiplier ** min(reopened, 12)",
        "1.0",
        breaker_invariants.open_times_are_bounded,
    ),
    "the jitter lengthens": (
        "longest * (1 - policy.open_jitter",
        "longest * (1 + policy.open_jitter",
        breaker_invariants.open_times_are_bounded,
    ),
    "half open admits everybody": (
        "if len(self._probes) >= self.policy.max_probes:",
        "if len(self._probes) >= 1_000:",
        breaker_invariants.probes_are_limited,
    ),
    "one probe too many": (
        "if len(self._probes) >= self.policy.max_probes:",
        "if len(self._probes) > self.policy.max_probes:",
        breaker_invariants.probes_are_limited,
    ),
    "probes are not counted in": (
        "            self._probes[permit] = None\n",
        "",
        breaker_invariants.probes_are_limited,
    ),
    "probes do not give their place back": (
        "        self._probes.pop(permit, None)\n",
        "",
        breaker_invariants.everything_is_accounted_for,
    ),
    "cancelled calls are lost": (
        "        except BaseException as error:\n            self.release(",
        "        except Exception as error:\n            self.release(",
        breaker_invariants.everything_is_accounted_for,
    ),
    "refusals are not counted": (
        "            self._refused += 1\n",
        "",
        breaker_invariants.everything_is_accounted_for,
    ),
    "late results are lost": (
        "            self._late += 1\n",
        "",
        breaker_invariants.everything_is_accounted_for,
    ),
    "an opening closes": (
        "if not good:\n            self._open(now, evidence=None)",
        "if not good:\n            self._close(now)\n            self._close(now)",
        breaker_invariants.states_follow_as_drawn,
    ),
    "late results vote": (
        "        if generation != self._generation:\n",
        "        if generation != self._generation and False:\n",
        breaker_invariants.agrees_with_the_model,
    ),
    "late successes vote": (
        "if now - began >= slow_after or generation != self._unguarded:",
        "if now - began >= slow_after:",
        breaker_invariants.agrees_with_the_model,
    ),
    "cancellation counts against the provider": (
        "isinstance(error, Exception) and failure_of",
        "not isinstance(error, Exception) or failure_of",
        breaker_invariants.agrees_with_the_model,
    ),
    "what does not count counts for the provider": (
        "        if vote is None:\n            self._no_vote += 1\n            return\n",
        "        vote = vote is not False\n",
        breaker_invariants.agrees_with_the_model,
    ),
    "too many requests count": (
        "*(ErrorKind.SERVER, ErrorKind.OVERLOADED, ErrorKind.TIMEOUT)",
        "*(ErrorKind.SERVER, ErrorKind.OVERLOADED, ErrorKind.RATE_LIMITED)",
        breaker_invariants.agrees_with_the_model,
    ),
    "slow probes are good ones": (
        "good=vote and not slow",
        "good=vote",
        breaker_invariants.agrees_with_the_model,
    ),
    "slow calls are good ones": (
        "if now - began >= slow_after or generation",
        "if generation",
        breaker_invariants.agrees_with_the_model,
    ),
    "a probe that hangs holds the circuit": (
        "elif self._patience(now) <= 0:",
        "elif self._patience(now) <= -1_000:",
        breaker_invariants.agrees_with_the_model,
    ),
    "a bad probe is forgiven": (
        "        if not good:\n            self._open(now, evidence=None)\n        elif ",
        "        if ",
        breaker_invariants.agrees_with_the_model,
    ),
    "one good probe too few": (
        "elif self._probes_good >= self.policy.probes_to_close",
        "elif self._probes_good + 1 >= self.policy.probes_to_close",
        breaker_invariants.agrees_with_the_model,
    ),
    "good probes of the last time count": (
        "        self._probes_good = 0\n        self.detector",
        "        self.detector",
        breaker_invariants.agrees_with_the_model,
    ),
    "the detector remembers the last time": (
        "        self.detector.reset()\n",
        "",
        breaker_invariants.agrees_with_the_model,
    ),
    "the ramp never ends": (
        "if now - self._since >= self.policy.ramp:",
        "if now - self._since >= self.policy.ramp + 1_000:",
        breaker_invariants.agrees_with_the_model,
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_check_finds(bug: str) -> None:
    """A breaker with this bug breaks that promise on some schedule."""
    old, new, holds = BUGS[bug]
    with mutant(circuit_breaker, old, new) as broken:

        @settings(max_examples=4_000, phases=[Phase.generate], report_multiple_bugs=False)
        @given(CALLS, POLICIES, STREAKS, st.integers(0, 99))
        def check(schedule, policy, streak, seed) -> None:  # type: ignore[no-untyped-def]
            holds(run_calls(broken, schedule, policy, streak, seed))

        run: Callable[[], None] = check
        with pytest.raises(AssertionError):
            run()
