"""What detectors say of streams of outcomes, and how often they are wrong."""

import sys
from collections.abc import Callable
from math import sqrt
from random import Random
from statistics import mean, stdev
from types import ModuleType

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from llm_patterns.errors import ConfigurationError
from llm_patterns.resilience import (
    BaselineExceeded,
    CusumDetector,
    Detector,
    Evidence,
    RateDetector,
    StreakDetector,
    breaker_detectors,
)
from llm_patterns.resilience.breaker_detectors import average_run_length, bad_step
from tests.mutants import mutant

OUTCOMES = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.sampled_from([0.0, 0.1, 1.0, 7.0])), max_size=80
)
"""Failed, slow, and the seconds since the one before."""


def calls_to_open(
    detector: Detector, rate: float, rng: Random, *, healthy: int = 0, limit: int = 1_000_000
) -> int:
    """How many calls it takes at a rate of failure, after so many that succeeded; -1 for more than the limit."""
    for _ in range(healthy):
        detector.record(False, False, 0.0)
    for call in range(1, limit + 1):
        if isinstance(detector.record(rng.random() < rate, False, 0.0), Evidence):
            return call
    return -1


# --- CUSUM ----------------------------------------------------------------------------------------


def test_false_opens_are_as_rare_as_stated() -> None:
    """Invariant 3: the mean over 2,000 runs of healthy calls is the exact one, within its standard error."""
    detector = CusumDetector(healthy_rate=0.1, sick_rate=0.5, calls_between_false_opens=1_000)
    stated = detector.calls_to_detect(0.1)
    assert stated >= 1_000
    rng = Random(1)
    runs = []
    for _ in range(2_000):
        detector.reset()
        runs.append(calls_to_open(detector, 0.1, rng))
    error = stdev(runs) / sqrt(len(runs))
    assert abs(mean(runs) - stated) < 3 * error
    assert error < 0.03 * stated


@pytest.mark.parametrize("rate", [0.15, 0.3, 0.5, 0.9, 1.0])
def test_the_calls_to_detect_are_the_exact_ones(rate: float) -> None:
    """The chain's solution equals the mean of runs, for sick rates too."""
    detector, rng = CusumDetector(), Random(2)
    runs = []
    for _ in range(1_000):
        detector.reset()
        runs.append(calls_to_open(detector, rate, rng))
    error = stdev(runs) / sqrt(len(runs))
    assert abs(mean(runs) - detector.calls_to_detect(rate)) <= 3 * error


@given(st.floats(0.001, 0.47), st.floats(0.1, 0.95), st.sampled_from([1_000, 10_000, 10**6, 10**9]))
def test_the_threshold_is_the_lowest_that_keeps_the_promise(
    healthy: float, sick: float, calls: int
) -> None:
    """One step lower, and false opens would be more frequent than asked."""
    if sick < 2 * healthy:
        return
    detector = CusumDetector(healthy_rate=healthy, sick_rate=sick, calls_between_false_opens=calls)
    assert detector.calls_to_detect(healthy) >= calls
    if detector.threshold > 1:
        assert average_run_length(healthy, detector.step, detector.threshold - 1) < calls


def test_the_run_length_is_right_where_it_is_known() -> None:
    """Where one bad call opens, and on a chain of two scores solved by hand."""
    assert average_run_length(0.2, 4, 4) == pytest.approx(5)
    assert average_run_length(0.0, 4, 23) == float("inf")
    p, q = 0.2, 0.8  # scores 0 and 1: L0 = 1 + p L1 + q L0, L1 = 1 + q L0
    assert average_run_length(p, 1, 2) == pytest.approx((1 + p) / (1 - q - p * q))


def test_a_full_outage_is_found_in_six_calls() -> None:
    """After any number of good ones: the score does not go below zero."""
    assert calls_to_open(CusumDetector(), 1.0, Random(0), healthy=10_000) == 6


def test_a_brown_out_of_forty_percent_is_always_found() -> None:
    """In 300 of 300 runs, half of them within 60 calls."""
    rng = Random(3)
    found = sorted(
        calls_to_open(CusumDetector(), 0.4, rng, healthy=500, limit=2_000) for _ in range(300)
    )
    assert found[0] > 0
    assert found[150] < 60


def test_a_rate_above_the_assumed_is_said_before_it_opens() -> None:
    """At twice the healthy rate the doubt comes with the first thousand calls; false opens are ten times rarer."""
    detector, rng = CusumDetector(healthy_rate=0.05), Random(4)
    findings = [detector.record(rng.random() < 0.1, False, 0.0) for _ in range(1_000)]
    assert [type(each) for each in findings if each] == [BaselineExceeded]
    assert findings[-1] == BaselineExceeded(pytest.approx(0.1, abs=0.03), 0.05, 1_000)  # type: ignore[arg-type]
    assert detector.calls_to_detect(0.1) > 10_000


def test_a_healthy_rate_raises_no_doubt() -> None:
    """In a hundred thousand calls at the assumed rate there is none."""
    detector, rng = CusumDetector(healthy_rate=0.05), Random(5)
    findings = [detector.record(rng.random() < 0.05, False, 0.0) for _ in range(100_000)]
    assert not any(isinstance(each, BaselineExceeded) for each in findings)


def test_doubts_outlive_the_openings() -> None:
    """Where it opens again and again, the comparison still reaches its thousand calls."""
    detector, rng = CusumDetector(), Random(6)
    doubts = 0
    for _ in range(3_000):
        finding = detector.record(rng.random() < 0.3, False, 0.0)
        doubts += isinstance(finding, BaselineExceeded)
        if isinstance(finding, Evidence):
            detector.reset()
    assert doubts >= 2


def test_evidence_counts_the_calls_it_rests_on() -> None:
    """Those since the score was last zero."""
    detector = CusumDetector()
    for failed in (True, False, False, False, False, True, True):
        detector.record(failed, False, 0.0)
    assert detector.evidence(0.0) == Evidence("cusum", 8, 23, 2)
    assert detector.evidence(0.0).ratio == 8 / 23


# --- windows --------------------------------------------------------------------------------------


def rates_of(outcomes: list[tuple[bool, bool, float]]) -> tuple[float, float]:
    """The shares that failed and were slow."""
    calls = max(1, len(outcomes))
    return sum(each[0] for each in outcomes) / calls, sum(each[1] for each in outcomes) / calls


def check_count_window(module: ModuleType, outcomes: list[tuple[bool, bool, float]]) -> None:
    """Of a ring of ten, against the last ten of a list."""
    detector = module.RateDetector(
        failure_rate=0.5, slow_rate=0.75, window_calls=10, minimum_calls=4
    )
    for number, (failed, slow, _) in enumerate(outcomes, start=1):
        said = detector.record(failed, slow, 0.0)
        recent = outcomes[max(0, number - 10) : number]
        failures, slows = rates_of(recent)
        assert (said is not None) == (len(recent) >= 4 and (failures >= 0.5 or slows >= 0.75))
        seen = detector.evidence(0.0)
        assert seen.calls == len(recent)
        assert seen.ratio == pytest.approx(max(failures / 0.5, slows / 0.75))


def check_time_window(module: ModuleType, outcomes: list[tuple[bool, bool, float]]) -> None:
    """Of twenty slices of half a second, against a list of the slices that are not yet over."""
    detector = module.RateDetector(failure_rate=0.5, slow_rate=0.75, window=10.0, minimum_calls=4)
    now, kept = 0.0, []
    for failed, slow, gap in outcomes:
        now += gap
        said = detector.record(failed, slow, now)
        kept.append((failed, slow, now))
        recent = [each for each in kept if int(each[2] * 2) > int(now * 2) - 20]
        failures, slows = rates_of(recent)
        assert detector.evidence(now).calls == len(recent)
        assert (said is not None) == (len(recent) >= 4 and (failures >= 0.5 or slows >= 0.75))
    assert detector.evidence(now + 100.0).calls == 0


@given(OUTCOMES)
def test_a_window_of_calls_is_the_last_calls(outcomes: list[tuple[bool, bool, float]]) -> None:
    """Neither more nor fewer, whatever came before."""
    check_count_window(breaker_detectors, outcomes)


@given(OUTCOMES)
def test_a_window_of_seconds_is_the_last_seconds(
    outcomes: list[tuple[bool, bool, float]],
) -> None:
    """To a slice, whatever pauses there were."""
    check_time_window(breaker_detectors, outcomes)


def check_streak(module: ModuleType, outcomes: list[tuple[bool, bool, float]]) -> None:
    """Against the last three of a list."""
    detector, bad = module.StreakDetector(bad_calls=3), []
    for failed, slow, _ in outcomes:
        bad.append(failed or slow)
        assert (detector.record(failed, slow, 0.0) is not None) == (bad[-3:] == [True] * 3)


def check_cusum(module: ModuleType, outcomes: list[tuple[bool, bool, float]]) -> None:
    """Against the definition: the largest sum of steps over any calls that end with the last (Page 1954)."""
    detector = module.CusumDetector()
    steps: list[int] = []
    for failed, slow, _ in outcomes:
        steps.append(detector.step if failed or slow else -1)
        highest = max(0, *(sum(steps[start:]) for start in range(len(steps))))
        opened = detector.record(failed, slow, 0.0) is not None
        assert detector.evidence(0.0).score == highest
        assert opened == ((failed or slow) and highest >= detector.threshold)


@given(OUTCOMES)
def test_a_streak_is_the_bad_calls_in_a_row(outcomes: list[tuple[bool, bool, float]]) -> None:
    """Failed or slow."""
    check_streak(breaker_detectors, outcomes)


@given(OUTCOMES)
def test_the_score_is_page_s(outcomes: list[tuple[bool, bool, float]]) -> None:
    """The recursion equals the definition."""
    check_cusum(breaker_detectors, outcomes)


BUGS: dict[str, tuple[str, str, Callable[[ModuleType, list[tuple[bool, bool, float]]], None]]] = {
    "the ring does not forget failures": (
        "            self.failed -= ring[at] & 1\n",
        "",
        check_count_window,
    ),
    "the ring does not forget slow calls": (
        "            self.slow -= ring[at] >> 1\n",
        "",
        check_count_window,
    ),
    "the minimum is not waited for": (
        "if seen.calls < self.minimum_calls",
        "if seen.calls < 0",
        check_count_window,
    ),
    "slow calls do not open": (
        "or seen.slow >= self.slow_rate * seen.calls",
        "or False",
        check_count_window,
    ),
    "the window keeps a slice too many": (
        "number - _SLICES + 1), number + 1)",
        "number - _SLICES + 1), number)",
        check_time_window,
    ),
    "slices are not emptied": ("        piece[:] = (0, 0, 0)\n", "", check_time_window),
    "a success does not end the streak": ("            self._streak = 0\n", "", check_streak),
    "slow calls do no harm": ("        if failed or slow:\n", "        if failed:\n", check_cusum),
    "the score goes below zero": ("        elif self._score:\n", "        else:\n", check_cusum),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_checks_find(bug: str) -> None:
    """A detector with this bug is caught by its check."""
    old, new, holds = BUGS[bug]
    with mutant(breaker_detectors, old, new) as broken:

        @settings(max_examples=2_000, phases=[Phase.generate], report_multiple_bugs=False)
        @given(OUTCOMES)
        def check(outcomes: list[tuple[bool, bool, float]]) -> None:
            holds(broken, outcomes)

        run: Callable[[], None] = check
        with pytest.raises(AssertionError):
            run()


# --- all of them ----------------------------------------------------------------------------------

DETECTORS: list[Callable[[], Detector]] = [
    CusumDetector,
    RateDetector,
    lambda: RateDetector(window=60.0),
    StreakDetector,
]


@pytest.mark.parametrize("make", DETECTORS)
def test_a_reset_forgets(make: Callable[[], Detector]) -> None:
    """Invariant 2: what was recorded before it changes no answer after it."""
    used, fresh, rng = make(), make(), Random(7)
    for _ in range(300):
        used.record(rng.random() < 0.5, rng.random() < 0.2, 1.0)
    used.reset()
    for _ in range(50):
        failed = rng.random() < 0.3
        assert used.record(failed, False, 2.0) == fresh.record(failed, False, 2.0)
    assert used.evidence(2.0) == fresh.evidence(2.0)


def size(thing: object) -> int:
    """The bytes of an object and of all that it holds."""
    slots = [name for cls in type(thing).__mro__ for name in getattr(cls, "__slots__", ())]
    held = [getattr(thing, name) for name in slots] + list(
        vars(thing).values() if hasattr(thing, "__dict__") else []
    )
    held += thing if isinstance(thing, list) else []
    return sys.getsizeof(thing) + sum(
        size(each) for each in held if not isinstance(each, (int, float))
    )


@pytest.mark.parametrize("make", DETECTORS)
def test_memory_does_not_grow_with_traffic(make: Callable[[], Detector]) -> None:
    """Invariant 1: after a hundred calls and after fifty thousand it is the same."""
    detector, rng = make(), Random(8)

    def after(calls: int) -> int:
        for call in range(calls):
            detector.record(rng.random() < 0.01, False, call / 100)
        return size(detector)

    assert after(100) == after(50_000)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: CusumDetector(healthy_rate=0.0), "0.001"),
        (lambda: CusumDetector(healthy_rate=0.3, sick_rate=0.5), "factor of 2"),
        (lambda: CusumDetector(calls_between_false_opens=10), "1,000"),
        (lambda: RateDetector(failure_rate=0.01), "0.05"),
        (lambda: RateDetector(window_calls=5), "that fits into it"),
        (lambda: RateDetector(window_calls=50, window=60), "give one"),
        (lambda: RateDetector(window=0.1), "from 1 to 3600"),
        (lambda: StreakDetector(bad_calls=1), "one call is no pattern"),
    ],
)
def test_settings_that_cannot_work_are_refused(make: Callable[[], Detector], said: str) -> None:
    """The message names the value and the remedy."""
    with pytest.raises(ConfigurationError, match=said):
        make()


def test_a_bad_call_weighs_at_least_as_much_as_a_good_one() -> None:
    """However near the rates are."""
    assert bad_step(0.5, 0.95) == 1
