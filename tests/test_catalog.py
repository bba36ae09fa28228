"""The catalog is whole, agrees with itself, and says of each chapter whether it is there."""

from dataclasses import FrozenInstanceError
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from llm_patterns.catalog import (
    Category,
    Companion,
    Pattern,
    Priority,
    Section,
    UnknownPattern,
    chapter,
    companions,
    pattern,
    patterns,
)

BOOK = Path(__file__).parents[1] / "book"


def test_there_are_thirty_five_patterns_in_eight_categories() -> None:
    """The course is 35 patterns, and no category is empty."""
    assert len(patterns()) == 35
    assert all(patterns(category) for category in Category)
    assert sum(len(patterns(category)) for category in Category) == 35


def test_slugs_and_titles_are_unique() -> None:
    """A slug or a title names one pattern."""
    assert len({each.slug for each in patterns()}) == 35
    assert len({each.title for each in patterns()}) == 35


@pytest.mark.parametrize("each", patterns(), ids=lambda each: each.slug)
def test_a_pattern_is_complete(each: Pattern) -> None:
    """Each has a question, a priority per type of system, and neighbours that exist."""
    assert each.question.endswith("?")
    assert all(isinstance(priority, Priority) for priority in each.priorities)
    assert 2 <= len(each.related) <= 5
    assert each.slug not in {slug for slug, _ in each.related}
    assert all(pattern(slug) and why for slug, why in each.related)


@pytest.mark.parametrize("each", companions(), ids=lambda each: each.slug)
def test_a_companion_is_complete(each: Companion) -> None:
    """Each has a question, neighbours that exist, and a chapter exactly when it says so."""
    assert each.question.endswith("?")
    assert 2 <= len(each.related) <= 5
    assert each.slug not in {slug for slug, _ in each.related}
    assert all(chapter(slug) and why for slug, why in each.related)
    assert (BOOK / f"{each.path}.ipynb").is_file() == each.published


def test_no_companion_has_a_patterns_name() -> None:
    """One slug names one chapter; every section has its heading."""
    slugs = [each.slug for each in (*patterns(), *companions())]
    assert len(set(slugs)) == len(slugs)
    assert [section.label for section in Section] == ["Toolkit", "Recipe"]
    assert {each.section for each in companions()} == set(Section)


def test_every_chapter_is_in_the_books_contents() -> None:
    """What is published is listed once, patterns under their category's heading; nothing else is."""
    contents = yaml.safe_load((BOOK.parent / "_toc.yml").read_text())
    listed = {
        part["caption"]: [each["file"] for each in part["chapters"]] for part in contents["parts"]
    }
    published = [each for each in (*patterns(), *companions()) if each.published]
    chapters = [file for files in listed.values() for file in files if "/reference/" not in file]
    assert sorted(chapters) == sorted(f"book/{each.path}" for each in published)
    for each in published:
        if isinstance(each, Pattern):
            assert f"book/{each.path}" in listed[each.category.label]


@pytest.mark.parametrize("each", patterns(), ids=lambda each: each.slug)
def test_published_means_that_the_module_and_the_chapter_are_there(each: Pattern) -> None:
    """A pattern is published exactly when it can be imported and read."""
    assert (BOOK / f"{each.path}.ipynb").is_file() == each.published
    if each.published:
        assert find_spec(f"llm_patterns.{each.category}.{each.slug}")


def test_every_category_has_somebody_who_needs_it() -> None:
    """In each category some type of system finds a pattern Critical or Required."""
    needed = {Priority.CRITICAL, Priority.REQUIRED}
    for category in Category:
        assert any(needed & set(each.priorities) for each in patterns(category))


def test_a_label_reads_as_a_heading() -> None:
    """A category's label is its folder's name as words."""
    assert Category.COST_CONTROL.label == "Cost Control"


def test_an_unknown_slug_names_near_matches() -> None:
    """A misspelled slug gets the ones that were probably meant."""
    with pytest.raises(
        UnknownPattern, match=r"'retry-with-budgets'\. Near: retry_with_budget"
    ) as e:
        chapter("retry-with-budgets")
    assert e.value.slug == "retry-with-budgets"


def test_a_slug_like_no_other_says_where_the_list_is() -> None:
    """Without near matches the error points to the list."""
    with pytest.raises(UnknownPattern, match=r"patterns\(\) lists them all"):
        pattern("zzz")


def test_a_pattern_cannot_be_changed() -> None:
    """The catalog is the same for everybody in a process."""
    with pytest.raises(FrozenInstanceError):
        pattern("circuit_breaker").title = "Fuse"  # type: ignore[misc]
