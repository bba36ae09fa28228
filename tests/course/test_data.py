"""The small tables of what others measured."""

from course.data import incident_minutes, mmlu_outcomes, staleness


def test_the_strong_model_is_better_and_not_always() -> None:
    """Of 14,042 questions in 57 subjects; some only the weak one got right."""
    outcomes = mmlu_outcomes()
    assert len({outcome.subject for outcome in outcomes}) == 57
    right = sum(each.strong for each in outcomes), sum(each.weak for each in outcomes)
    assert right == (11_315, 9_560)
    assert sum(each.weak and not each.strong for each in outcomes) == 742


def test_quick_facts_change_the_quickest() -> None:
    """The shares are in the order of the kinds' names."""
    shares = [
        staleness()[kind].changed / staleness()[kind].questions
        for kind in ("never-changing", "slow-changing", "fast-changing")
    ]
    assert shares == sorted(shares)
    assert 0.2 < shares[-1] < 0.3


def test_two_providers_are_rarely_down_together() -> None:
    """A little more often than by chance, and far less often than either."""
    seen = incident_minutes()
    by_chance = seen.openai * seen.anthropic / seen.minutes
    assert by_chance < seen.both < 2 * by_chance
    assert seen.both < seen.anthropic / 20 < seen.openai / 20
    assert seen.minutes == 392 * 24 * 60
