"""Each check of failover's invariants fails on a copy of the library with a bug in it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.resilience import failover_invariants as invariants
from tests.resilience.failover_invariants import (
    BUDGETS,
    CALLS,
    PARTS,
    POLICIES,
    TARGETS,
    Run,
    run_calls,
)

SETTLED_BY_NOBODY = "            attempt.settle(succeeded=None)\n            raise"
BUGS = {
    "one attempt too many": (
        "        self.sent += 1\n        return attempt",
        "        return attempt",
        invariants.attempts_are_bounded,
    ),
    "the first target is asked again": (
        "            del call.queue[0]\n",
        "",
        invariants.attempts_are_bounded,
    ),
    "the hedged target is asked again": (
        "        self.queue.remove(target)\n",
        "",
        invariants.attempts_are_bounded,
    ),
    "one request too many is in flight": (
        "in_flight >= self._max_in_flight",
        "in_flight > self._max_in_flight",
        invariants.limits_hold,
    ),
    "a stream gives its place back at its first chunk": (
        "        self.target = won.target.name\n",
        "        self.target = won.target.name\n        won.settle(succeeded=True)\n",
        invariants.limits_hold,
    ),
    "admissions are not counted": (
        "            limits.take(self._reserved(request))",
        "            pass",
        invariants.limits_hold,
    ),
    "the quota refills twice as fast": (
        "gained = (now",
        "gained = 2 * (now",
        invariants.limits_hold,
    ),
    "a rest is not kept": (
        "            if now < self._rests_until:\n",
        "            if now < self._rests_until - 1:\n",
        invariants.rests_are_kept,
    ),
    "an expired key is tried again at once": (
        "            target.rest(policy.alarm_rest, failure.kind, now)\n",
        "",
        invariants.rests_are_kept,
    ),
    "the ambient deadline is not asked": (
        "return ours if ambient is None else min(ours, ambient)",
        "return ours",
        invariants.deadlines_hold,
    ),
    "attempts start too late": (
        "if left < policy.expected_latency or left <= 0",
        "if left <= 0",
        invariants.deadlines_hold,
    ),
    "what hangs is not cut off": (
        "            self._cut = True\n            self._task.cancel()",
        "            self._cut = True",
        invariants.deadlines_hold,
    ),
    "a share is cut too fine": (
        "others = min(others, max(0, int(left / policy.expected_latency) - 1))",
        "pass",
        invariants.nobody_is_cut_off_too_soon,
    ),
    "a bad request goes everywhere": (
        "if common.react(target, failed) is Reaction.STOP:",
        "if common.react(target, failed) is None:",
        invariants.bad_requests_stop,
    ),
    "a bad request is wrapped": (
        "            raise error\n",
        "            raise LLMPatternsError('wrapped') from error\n",
        invariants.bad_requests_stop,
    ),
    "every failure speaks against the target": (
        "attempt.settle(succeeded=vote_of(error, target.breaker.policy))\n        failed =",
        "attempt.settle(succeeded=False)\n        failed =",
        invariants.bad_requests_stop,
    ),
    "a cancelled first attempt keeps its permit": (
        "            target.release(permit, succeeded=None)\n            raise",
        "            raise",
        invariants.nothing_is_left_behind,
    ),
    "a cancelled attempt keeps its permit": (
        SETTLED_BY_NOBODY,
        "            raise",
        invariants.nothing_is_left_behind,
    ),
    "a permit is given back twice": (
        "        self._settled = True\n",
        "",
        invariants.nothing_is_left_behind,
    ),
    "what was drawn and not used is lost": (
        "            common.budget.release(self._drawn, succeeded=None)\n",
        "",
        invariants.nothing_is_left_behind,
    ),
    "the budget's permit is kept": (
        "            self.budget.release(self.budget_permit, succeeded=succeeded)",
        "            pass",
        invariants.nothing_is_left_behind,
    ),
    "calls do not end": (
        "            self.common.budget.end()",
        "            pass",
        invariants.nothing_is_left_behind,
    ),
    "a stream's call does not end": (
        "            self._won.settle(succeeded=succeeded)\n        self._call.end()",
        "            self._won.settle(succeeded=succeeded)",
        invariants.nothing_is_left_behind,
    ),
    "the loser keeps its permit": (
        "    finally:\n        attempt.settle(succeeded=None)",
        "    finally:\n        pass",
        invariants.nothing_is_left_behind,
    ),
    "the loser's stream stays open": (
        "            await close_stream(attempt.answer)",
        "            pass",
        invariants.streams_are_closed_once,
    ),
    "a broken stream stays open": (
        "                await close_stream(self._chunks)",
        "                pass",
        invariants.streams_are_closed_once,
    ),
    "a stream that was left stays open": (
        "            await close_stream(self._chunks)\n        finally",
        "            pass\n        finally",
        invariants.streams_are_closed_once,
    ),
    "a stream is closed twice": (
        "        self._closed = True\n        try:",
        "        try:",
        invariants.streams_are_closed_once,
    ),
    "hedges are free": (
        "        common.hedge_credit -= 1\n",
        "",
        invariants.hedges_are_few,
    ),
    "the loser is waited for": (
        "                for task in tasks:\n                    task.cancel()\n",
        "",
        invariants.nobody_waits_for_a_loser,
    ),
    "conversations wander": (
        "            queue.insert(0, sticky)",
        "            queue.append(sticky)",
        invariants.conversations_stay,
    ),
    "a switch is not told": (
        "        return switched\n",
        "        return await self.__anext__()\n",
        invariants.switches_are_visible,
    ),
    "a restart claims to go on": (
        "        self._calls_tools = False\n        return True",
        "        self._calls_tools = False\n        return False",
        invariants.nothing_is_shown_twice,
    ),
    "what was taken back is still the text so far": (
        "        self._pieces.clear()\n",
        "",
        invariants.nothing_is_shown_twice,
    ),
    "white space comes twice": (
        "self._chunks, self._twice = chunks, twice",
        'self._chunks, self._twice = chunks, ""',
        invariants.nothing_is_shown_twice,
    ),
    "a continuation begins from nothing": (
        "(*request.messages, Message.assistant(prefill))",
        "request.messages",
        invariants.nothing_is_shown_twice,
    ),
}


@contextmanager
def mutated(old: str, new: str) -> Iterator[dict[str, ModuleType]]:
    """Copies of all parts, in one of which a text, which must be there, reads another; they import each other."""
    sources = {part: Path(str(part.__file__)).read_text(encoding="utf-8") for part in PARTS}
    assert sum(old in source for source in sources.values()) == 1, f"renew the mutant of {old!r}"
    copies: dict[str, ModuleType] = {}
    try:
        for part, source in sources.items():
            copies[part.__name__] = sys.modules[part.__name__] = ModuleType(part.__name__)
            code = compile(source.replace(old, new), f"<{part.__name__}, mutated>", "exec")
            exec(code, vars(copies[part.__name__]))
        yield {name.rpartition(".")[2]: copy for name, copy in copies.items()}
    finally:
        sys.modules.update({part.__name__: part for part in PARTS})


@pytest.mark.parametrize("bug", BUGS)
def test_the_check_finds(bug: str) -> None:
    """A failover with this bug breaks that promise on some schedule."""
    old, new, holds = BUGS[bug]

    with mutated(old, new) as broken:

        @settings(max_examples=4_000, phases=[Phase.generate], report_multiple_bugs=False)
        @given(TARGETS, CALLS, POLICIES, BUDGETS, st.integers(0, 99))
        def check(targets, schedule, policy, budget, seed) -> None:  # type: ignore[no-untyped-def]
            run = run_calls(broken, targets, schedule, policy, budget=budget, seed=seed)
            holds(run, policy)

        run: Callable[[], None] = check
        with pytest.raises(AssertionError):
            run()


def test_the_copies_without_a_bug_hold() -> None:
    """So that it is the bug that was found, and not the copying."""
    text = "One call: who may still be asked"
    with mutated(text, text) as same:

        @settings(max_examples=50)
        @given(TARGETS, CALLS, POLICIES, BUDGETS, st.integers(0, 99))
        def check(targets, schedule, policy, budget, seed) -> None:  # type: ignore[no-untyped-def]
            run: Run = run_calls(same, targets, schedule, policy, budget=budget, seed=seed)
            for *_, holds in BUGS.values():
                kept: Callable[[Run, dict[str, Any]], None] = holds
                kept(run, policy)

        run_all: Callable[[], None] = check
        run_all()
