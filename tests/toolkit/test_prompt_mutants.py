"""Each check of the prompts' invariants fails on a copy of the library with a bug in it."""

from typing import Any

import pytest
from hypothesis import Phase, given, settings

from llm_patterns.simulation import simulate
from llm_patterns.toolkit import prompt_registry, prompt_store
from tests.mutants import mutant
from tests.toolkit import prompt_invariants as promises
from tests.toolkit.prompt_invariants import READINGS, SCHEDULES, read_all, write_all

STORE_BUGS = {
    "a content is saved twice": (
        "(each for each in versions if each.prompt == prompt)",
        "(each for each in versions if False)",
        promises.versions_are_numbered,
    ),
    "numbers have gaps": (
        "len(versions) + 1, prompt",
        "len(history) + 1, prompt",
        promises.versions_are_numbered,
    ),
    "a save is not noted": (
        "        history.append(save)\n",
        "",
        promises.nothing_confirmed_is_lost,
    ),
    "a move is not noted": (
        "        history.append(move)\n",
        "",
        promises.nothing_confirmed_is_lost,
    ),
    "a label forgets where it was": (
        "previous=at or None",
        "previous=None",
        promises.moves_form_a_chain,
    ),
    "moves go nowhere": (
        "if current is not None and to == at:",
        "if False:",
        promises.moves_form_a_chain,
    ),
    "expectations are not looked at": (
        "if expected is not None and expected != at:",
        "if False:",
        promises.expectations_hold,
    ),
    "a new label cannot be expected": (
        "if expected is not None and expected != at:",
        "if expected and expected != at:",
        promises.expectations_hold,
    ),
    "a rollback of a rollback goes forward": (
        "number, back = before.number, before.before",
        "number, back = before.number, current.sequence",
        promises.rollbacks_go_back,
    ),
}


@pytest.mark.parametrize("bug", STORE_BUGS)
def test_the_check_of_stores_finds(bug: str) -> None:
    """A store with this bug breaks that promise on some schedule."""
    old, new, holds = STORE_BUGS[bug]
    with mutant(prompt_store, old, new) as broken:

        @settings(max_examples=2_000, phases=[Phase.generate], report_multiple_bugs=False)
        @given(SCHEDULES)
        def check(schedule: list[dict[str, Any]]) -> None:
            holds(simulate(lambda: write_all(broken.MemoryPromptStore(), schedule)))

        with pytest.raises(AssertionError):
            check()


CACHE_BUGS = {
    "a label is cached for ever": (
        "age < policy.cache_ttl + patience",
        "age < 1e9",
        promises.fresh_is_fresh,
    ),
    "what is old is not marked": (
        "return ServedPrompt(version, move, age, stale)",
        "return ServedPrompt(version, move, age, False)",
        promises.fresh_is_fresh,
    ),
    "the others wait for no limit": (
        "patience = policy.timeout if asking else 0.0",
        "patience = 1e9 if asking else 0.0",
        promises.fresh_is_fresh,
    ),
    "staleness has no limit": (
        "(age or 0.0) <= policy.max_staleness",
        "True",
        promises.nothing_is_too_old,
    ),
    "an age begins with the answer": (
        "entry.confirmed_at, entry.failure = now, None",
        "entry.confirmed_at, entry.failure = get_running_loop().time(), None",
        promises.ages_are_honest,
    ),
    "readers wait as long as it takes": (
        "limit = asyncio.timeout(self.policy.timeout)",
        "limit = asyncio.timeout(None)",
        promises.waits_are_bounded,
    ),
    "each reader tries the store": (
        "if since_failure >= policy.retry_interval and",
        "if True and",
        promises.nobody_asks_after_a_failure,
    ),
    "a move leaves the cache as it was": (
        "        self._labels.pop(key, None)\n",
        "",
        promises.own_moves_are_read,
    ),
    "a read under way undoes a move": (
        "self._labels.pop(key, None)",
        "same = _recent(self._labels, key, 9, _Entry); same.known, same.confirmed_at = moved, began",
        promises.own_moves_are_read,
    ),
    "an earlier move that is confirmed later wins": (
        "entry.known.move.sequence > moved.move.sequence",
        "False",
        promises.own_moves_are_read,
    ),
}


@pytest.mark.parametrize("bug", CACHE_BUGS)
def test_the_check_of_readers_finds(bug: str) -> None:
    """A registry with this bug breaks that promise in some weather."""
    old, new, holds = CACHE_BUGS[bug]
    with mutant(prompt_registry, old, new) as broken:

        @settings(max_examples=3_000, phases=[Phase.generate], report_multiple_bugs=False)
        @given(READINGS)
        def check(plan: dict[str, Any]) -> None:
            holds(simulate(lambda: read_all(broken, plan)))

        with pytest.raises(AssertionError):
            check()
