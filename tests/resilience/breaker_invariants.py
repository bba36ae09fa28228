"""The invariants of a circuit breaker, as checks on random schedules of calls, faults and cancellations.

A run is a log: who asked when, who was admitted, how each call ended, what the breaker said. The checks read the log
alone; one of them replays it on a model, a breaker written the slow and plain way. Each can be shown to fail on a copy
of the module with a bug in it.
"""

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hypothesis import strategies as st

from llm_patterns.errors import error_for_status
from llm_patterns.resilience import StreakDetector
from llm_patterns.simulation import simulate

EPSILON = 1e-6
SLOW_AFTER = 4.0

CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "start": st.integers(0, 240).map(lambda tenth: tenth / 4),
            "outcome": st.sampled_from(["500", "500", "503", "ok", "ok", "ok", "429", "400"]),
            "takes": st.sampled_from([0.0, 0.0, 0.5, 1.0, 3.0, 6.0]),
            "cancelled": st.sampled_from([None, None, None, 0.25, 2.0]),
            "by_hand": st.booleans(),
        }
    ),
    min_size=5,
    max_size=60,
)
POLICIES = st.fixed_dictionaries(
    {
        "open_time": st.sampled_from([1.0, 2.0, 5.0]),
        "max_open_time": st.sampled_from([5.0, 8.0]),
        "open_multiplier": st.sampled_from([1.0, 2.0]),
        "open_jitter": st.sampled_from([0.0, 0.3]),
        "max_probes": st.integers(1, 3),
        "probes_to_close": st.integers(1, 3),
        "ramp": st.sampled_from([0.0, 3.0]),
        "slow_after": st.just(SLOW_AFTER),
    }
)
STREAKS = st.integers(2, 3)


@dataclass
class Entry:
    """One line of the log; `what` is asked, admitted, refused, ended, or the name of an event."""

    at: float
    what: str
    call: int = -1
    vote: bool | None = None
    taken: float = 0.0
    event: Any = None


@dataclass
class Run:
    """What a schedule led to."""

    policy: Any
    streak: int
    log: list[Entry] = field(default_factory=list)
    statistics: Any = None
    ended_at: float = 0.0

    def count(self, what: str) -> int:
        """How many lines say so."""
        return sum(entry.what == what for entry in self.log)


def run_calls(
    module: Any, schedule: list[dict[str, Any]], policy: dict[str, Any], streak: int, seed: int
) -> Run:
    """Make the calls of *schedule* through *module*'s `CircuitBreaker`, in virtual time."""
    run = Run(module.BreakerPolicy(**policy), streak)

    async def main() -> Run:
        def heard(event: Any) -> None:
            if not isinstance(event, Exception):
                run.log.append(Entry(_now(), type(event).__name__, event=event))

        breaker = module.CircuitBreaker(
            run.policy,
            detector=StreakDetector(bad_calls=streak),
            rng=Random(seed),
            on_event=heard,
        )
        async with asyncio.TaskGroup() as group:
            for number, plan in enumerate(schedule):
                group.create_task(_caller(breaker, run, number, plan))
        run.statistics, run.ended_at = breaker.statistics(), _now()
        return run

    return simulate(main, seed=seed)


async def _caller(breaker: Any, run: Run, number: int, plan: dict[str, Any]) -> None:
    await asyncio.sleep(plan["start"])

    async def provider() -> str:
        entry = Entry(_now(), "admitted", number)
        run.log.append(entry)
        vote: bool | None = None
        try:
            await asyncio.sleep(plan["takes"])
            if plan["outcome"] != "ok":
                vote = None if plan["outcome"] in ("429", "400") else False
                raise error_for_status(int(plan["outcome"]), "no")
            vote = True
        finally:
            run.log.append(Entry(_now(), "ended", number, vote, _now() - entry.at))
        return "ok"

    refused = type(breaker).__init__.__globals__["CircuitOpen"]
    guard = _by_hand if plan["by_hand"] else _guarded
    try:
        async with asyncio.timeout(plan["cancelled"]):
            await guard(breaker, provider)
    except refused:
        run.log.append(Entry(_now(), "refused", number))
    except Exception:  # the log has it
        pass


async def _guarded(breaker: Any, provider: Any) -> None:
    await breaker(provider)()


async def _by_hand(breaker: Any, provider: Any) -> None:
    would = breaker.available()
    wait = breaker.retry_after()
    assert would == (wait == 0)
    permit = breaker.acquire()
    assert would, "available() said no, and acquire() admitted"
    vote: bool | None = None
    try:
        await provider()
        vote = True
    except Exception as error:
        vote = type(breaker).__init__.__globals__["vote_of"](error, breaker.policy)
        raise
    finally:
        breaker.release(permit, succeeded=vote)


def _now() -> float:
    return asyncio.get_running_loop().time()


def nothing_passes_while_open(run: Run) -> None:
    """Invariant 1: from an opening to the end of its open time no call reaches the provider."""
    until = -1.0
    for entry in run.log:
        if entry.what == "BreakerOpened":
            until = entry.at + entry.event.open_for
        if entry.what == "admitted":
            assert entry.at >= until - EPSILON, f"admitted at {entry.at}, open until {until}"


def open_times_are_bounded(run: Run) -> None:
    """Invariant 1: within the jitter of what the policy says, and never above the longest."""
    for entry in run.log:
        if entry.what == "BreakerOpened":
            growth = run.policy.open_multiplier**entry.event.reopened
            longest = min(run.policy.max_open_time, run.policy.open_time * growth)
            shortest = longest * (1 - run.policy.open_jitter)
            assert shortest - EPSILON <= entry.event.open_for <= longest + EPSILON


def probes_are_limited(run: Run) -> None:
    """Invariant 2: half open, never more in flight than allowed, however many wait."""
    probing, flying = False, set[int]()
    for entry in run.log:
        if entry.what.startswith("Breaker"):
            probing, flying = entry.what == "BreakerHalfOpened", set()
        elif entry.what == "admitted" and probing:
            flying.add(entry.call)
            assert len(flying) <= run.policy.max_probes, f"{len(flying)} probes at {entry.at}"
        elif entry.what == "ended":
            flying.discard(entry.call)


def everything_is_accounted_for(run: Run) -> None:
    """Each admitted call is in one count, each refusal too, and no probe keeps its place."""
    seen = run.statistics
    assert seen.succeeded + seen.failed + seen.no_vote + seen.late == run.count("admitted")
    assert seen.refused == run.count("refused")
    assert seen.opened + seen.bad_probes == run.count("BreakerOpened")
    assert seen.probes_in_flight == 0


def states_follow_as_drawn(run: Run) -> None:
    """Invariant 4: opened, half opened, then opened again or closed; and opened from closed."""
    follows = {
        "": {"BreakerOpened"},
        "BreakerOpened": {"BreakerHalfOpened"},
        "BreakerHalfOpened": {"BreakerOpened", "BreakerClosed"},
        "BreakerClosed": {"BreakerOpened"},
    }
    last = ""
    for entry in run.log:
        if entry.what.startswith("Breaker"):
            assert entry.what in follows[last], f"{entry.what} after {last}"
            last = entry.what


class Model:
    """A breaker written the slow way: it keeps every outcome, and looks at all of them each time."""

    def __init__(self, policy: Any, streak: int) -> None:
        self.policy = policy
        self.streak = streak
        self.state = "closed"
        self.until = 0.0
        self.began: dict[int, float] = {}  # the calls of this state, until they end
        self.votes: list[bool] = []
        self.late = 0
        self.expected: list[str] = []  # what the breaker has to say next

    def enter(self, state: str, event: str) -> None:
        """Begin a state: what was begun before has no say in it."""
        self.state, self.began, self.votes = state, {}, []
        self.expected.append(event)

    def passed(self, at: float) -> None:
        """Let time end the ramp."""
        if self.state == "ramping" and at >= self.until - EPSILON:
            self.state = "closed"

    def asked(self, at: float) -> bool | None:
        """Whether a call is admitted; None where the ramp's draw decides."""
        self.passed(at)
        if self.state == "half_open" and self.began:
            if at - min(self.began.values()) >= SLOW_AFTER - EPSILON:
                self.enter("open", "BreakerOpened")
                return False
            return len(self.began) < self.policy.max_probes
        if self.state == "open":
            if at < self.until:
                return False
            self.enter("half_open", "BreakerHalfOpened")
        return None if self.state == "ramping" else True

    def ended(self, entry: Entry) -> None:
        """Take an outcome in, if it belongs to this state."""
        if self.began.pop(entry.call, None) is None:
            self.late += 1
            return
        if entry.vote is None:
            return
        self.votes.append(entry.vote and entry.taken < SLOW_AFTER)
        recent = self.votes[-self.streak :]
        if self.state == "half_open" and not self.votes[-1]:
            self.enter("open", "BreakerOpened")
        elif self.state == "half_open" and len(self.votes) >= self.policy.probes_to_close:
            self.enter("ramping" if self.policy.ramp else "closed", "BreakerClosed")
            self.until = entry.at + self.policy.ramp
        elif self.state in ("closed", "ramping") and recent == [False] * self.streak:
            self.enter("open", "BreakerOpened")


def agrees_with_the_model(run: Run) -> None:
    """Invariants 1 to 4 together: at every line of the log, what the plain breaker would do."""
    model = Model(run.policy, run.streak)
    for entry in run.log:
        if entry.what.startswith("Breaker"):
            if not model.expected:  # said before its cause is logged: time alone, or an admission
                model.asked(entry.at)
            assert model.expected[:1] == [entry.what], f"{entry}, expected {model.expected}"
            model.expected.pop(0)
            if entry.what == "BreakerOpened":
                model.until = entry.at + entry.event.open_for
        elif entry.what in ("admitted", "refused"):
            verdict = model.asked(entry.at)
            assert verdict in (None, entry.what == "admitted"), f"{entry} while {model.state}"
            assert not model.expected, f"{model.expected} was not said before {entry}"
            if entry.what == "admitted":
                model.began[entry.call] = entry.at
        else:
            assert not model.expected, f"{model.expected} was not said before {entry}"
            model.ended(entry)
    model.passed(run.ended_at)
    assert not model.expected
    assert run.statistics.state == model.state
    assert run.statistics.late == model.late


INVARIANTS = [
    nothing_passes_while_open,
    open_times_are_bounded,
    probes_are_limited,
    everything_is_accounted_for,
    states_follow_as_drawn,
    agrees_with_the_model,
]
