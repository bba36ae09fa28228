"""What every store of prompts does, one behaviour a function: run on memory, on SQLite and on PostgreSQL."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from llm_patterns.toolkit import (
    LabelConflict,
    LabelMove,
    NothingBefore,
    Prompt,
    PromptNotFound,
    PromptRegistry,
    PromptSave,
)

FIRST = Prompt("Answer {{question}}", model="small", settings={"temperature": 0})
SECOND = Prompt("Answer {{question}} in a sentence", model="small", settings={"temperature": 0})
THIRD = Prompt("Answer {{question}} in a sentence", model="large", settings={"temperature": 0})


async def saved(registry: PromptRegistry) -> None:
    """Save three versions, and label the second."""
    for prompt in (FIRST, SECOND, THIRD):
        await registry.save("answer", prompt, by="ada", why="better")
    await registry.move("answer", "production", 2, by="ada", why="measured")


async def versions_are_numbered_for_each_name(registry: PromptRegistry) -> None:
    """From 1, in the order of the saves."""
    await saved(registry)
    other = await registry.save("summary", THIRD, by="bob")
    found = [await registry.version("answer", number) for number in (1, 2, 3)]
    assert [each.prompt for each in found] == [FIRST, SECOND, THIRD]
    assert (other.number, other.digest) == (1, found[2].digest)
    assert await registry.names() == ["answer", "summary"]


async def the_same_content_is_the_same_version(registry: PromptRegistry) -> None:
    """And the history has both saves."""
    first = await registry.save("answer", FIRST, by="ada", why="draft")
    again = await registry.save("answer", FIRST, by="bob", why="mine too")
    assert (again, again.by) == (first, "ada")
    entries = await registry.history("answer")
    assert [(each.number, each.by, each.why) for each in entries] == [
        (1, "bob", "mine too"),
        (1, "ada", "draft"),
    ]


async def a_version_is_found_by_its_digest(registry: PromptRegistry) -> None:
    """Which is what a trace has."""
    await saved(registry)
    found = await registry.version("answer", SECOND.digest)
    assert (found.number, found.prompt, found.by, found.why) == (2, SECOND, "ada", "better")


async def a_label_leads_to_a_version(registry: PromptRegistry) -> None:
    """And says who put it there."""
    await saved(registry)
    served = await registry.get("answer")
    assert (served.prompt, served.move.by, served.move.why) == (SECOND, "ada", "measured")
    assert not served.stale
    await registry.move("answer", "canary", 3, by="bob", why="try it")
    assert await registry.labels("answer") == {"canary": 3, "production": 2}


async def the_history_has_all(registry: PromptRegistry) -> None:
    """The newest first: who, from, to, why."""
    await saved(registry)
    move = await registry.move("answer", "production", 3, by="bob", why="cheaper")
    entries = await registry.history("answer")
    assert [type(each) for each in entries] == [LabelMove] * 2 + [PromptSave] * 3
    assert entries[0] == move
    assert (move.previous, move.number, move.by, move.why) == (2, 3, "bob", "cheaper")
    assert [each.sequence for each in await registry.history("answer", limit=2)] == [5, 4]


async def a_move_to_the_same_place_is_none(registry: PromptRegistry) -> None:
    """Or a rollback would go nowhere."""
    await saved(registry)
    again = await registry.move("answer", "production", 2, by="bob", why="twice")
    assert again.by == "ada"
    assert len(await registry.history("answer")) == 4


async def a_move_finds_what_it_expects_or_fails(registry: PromptRegistry) -> None:
    """The second of two who promote at once is told what the first did."""
    await saved(registry)
    moves = [
        registry.move("answer", "production", to, by=by, why="mine", expected=2)
        for to, by in ((1, "bob"), (3, "eve"))
    ]
    ends = await asyncio.gather(*moves, return_exceptions=True)
    [won] = [end for end in ends if isinstance(end, LabelMove)]
    [lost] = [end for end in ends if isinstance(end, LabelConflict)]
    assert lost.move == won
    assert f"points to version {won.number}, moved there by {won.by}: 'mine'" in str(lost)


async def a_label_can_be_expected_to_be_new(registry: PromptRegistry) -> None:
    """With 0."""
    await saved(registry)
    await registry.move("answer", "canary", 1, by="ada", why="new", expected=0)
    with pytest.raises(LabelConflict, match="expected not to exist, but points to version 1"):
        await registry.move("answer", "canary", 2, by="bob", why="new", expected=0)
    with pytest.raises(LabelConflict, match="at version 1, but does not exist"):
        await registry.move("answer", "staging", 2, by="bob", why="new", expected=1)


async def rolling_back_goes_back_and_further_back(registry: PromptRegistry) -> None:
    """Never forward to what was rolled back from, until somebody moves it there."""
    await saved(registry)
    for to in (1, 3):
        await registry.move("answer", "production", to, by="ada", why="on")
    for back in (1, 2):
        move = await registry.rollback("answer", by="eve", why="wrong answers")
        assert (move.number, move.rollback) == (back, True)
        assert (await registry.get("answer")).version.number == back
    with pytest.raises(NothingBefore, match="nothing before version 2"):
        await registry.rollback("answer", by="eve", why="wrong answers")
    await registry.move("answer", "production", 3, by="ada", why="fixed elsewhere")
    assert (await registry.rollback("answer", by="eve", why="no")).number == 2


async def two_who_roll_back_at_once_go_back_once(registry: PromptRegistry) -> None:
    """If they say from what."""
    await saved(registry)
    for to in (1, 3):
        await registry.move("answer", "production", to, by="ada", why="on")
    both = [registry.rollback("answer", by=by, why="bad", expected=3) for by in ("bob", "eve")]
    ends = await asyncio.gather(*both, return_exceptions=True)
    assert sorted(type(end).__name__ for end in ends) == ["LabelConflict", "LabelMove"]
    assert await registry.labels("answer") == {"production": 1}


async def what_is_not_there_is_said(registry: PromptRegistry) -> None:
    """With what is, and nothing is served in its place."""
    with pytest.raises(PromptNotFound, match=r"'answer' has no label 'production'$"):
        await registry.get("answer")
    await saved(registry)
    with pytest.raises(PromptNotFound, match="no label 'canary'; it has labels production"):
        await registry.get("answer", "canary")
    with pytest.raises(PromptNotFound, match="no version 4; it has versions 1 to 3"):
        await registry.version("answer", 4)
    with pytest.raises(PromptNotFound, match="no version of digest 12ab"):
        await registry.version("answer", "12ab")
    with pytest.raises(PromptNotFound, match="no version 4; it has versions 1 to 3"):
        await registry.move("answer", "production", 4, by="ada", why="typo")
    with pytest.raises(PromptNotFound, match="no label 'canary'"):
        await registry.rollback("answer", "canary", by="ada", why="typo")
    assert await registry.labels("answer") == {"production": 2}
    assert await registry.history("nothing") == []


async def any_text_is_kept(registry: PromptRegistry) -> None:
    """Quotes, other scripts, and what a database might take for its own."""
    text = "Robert'); DROP TABLE prompt_versions; -- $1 \x00 \u2028 ä 日本 🙂 {{question}}"
    version = await registry.save("answer", Prompt(text, model="small"), by="Åsa")
    assert (await registry.version("answer", 1)).prompt.template == text
    assert (await registry.history("answer"))[0].by == "Åsa"
    assert version.digest == Prompt(text, model="small").digest


async def writers_at_once_lose_nothing(registry: PromptRegistry) -> None:
    """Thirty saves of ten contents: ten versions, thirty saves."""
    contents = [Prompt(f"Answer {n}", model="small") for n in range(10)]
    made = await asyncio.gather(
        *(registry.save("answer", contents[n % 10], by=f"writer {n}") for n in range(30))
    )
    assert {each.number for each in made} == set(range(1, 11))
    assert [await registry.version("answer", each.number) for each in made] == made
    assert len(await registry.history("answer")) == 30


CASES: list[Callable[[PromptRegistry], Awaitable[None]]] = [
    versions_are_numbered_for_each_name,
    the_same_content_is_the_same_version,
    a_version_is_found_by_its_digest,
    a_label_leads_to_a_version,
    the_history_has_all,
    a_move_to_the_same_place_is_none,
    a_move_finds_what_it_expects_or_fails,
    a_label_can_be_expected_to_be_new,
    rolling_back_goes_back_and_further_back,
    two_who_roll_back_at_once_go_back_once,
    what_is_not_there_is_said,
    any_text_is_kept,
    writers_at_once_lose_nothing,
]
