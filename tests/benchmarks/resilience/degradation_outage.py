"""An outage and a crowd, and what their users get from each library: real outcomes of a strong and a weak model.

Users ask MMLU's questions, twice a second, by a Zipf-like popularity; an answer is right if the model that gave it was
right on that question in RouteLLM's evaluation (see `course.data`). They leave after twelve seconds. Both models run on
providers of their own, with Azure's token lengths: the strong one has 20 slots, the weak one 40, and writes half as
fast again, which is a judgement. The third level says a fixed letter, right for one question in four.

The outage: for ten minutes the strong model's provider swallows requests, for twenty more it answers 503. The crowd:
for five minutes nine times as many users come, twice what the strong model's provider can serve.
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from statistics import quantiles
from typing import NamedTuple

from course.benchmarks import Row
from course.data import mmlu_outcomes
from llm_patterns.chat import ChatRequest, Message
from llm_patterns.simulation import (
    Fault,
    FifoServer,
    Hang,
    Outage,
    Reply,
    SimulatedProvider,
    TokenLengths,
    open_loop,
    poisson,
    simulate,
)
from llm_patterns.simulation.latency import HOSTED_2026, LatencyProfile
from tests.benchmarks.resilience.degradation_peers import (
    DEADLINE,
    LADDERS,
    Ladder,
    Step,
    loop_time,
    virtual_clock,
)

PEERS = ("hyx", "pyresilience", "pydantic-ai-slim")
ROUNDS = 1
SEED = 1
RATE = 2.0
OUTAGE = [Hang(start=300, duration=600), Outage(start=900, duration=1200)]
CROWD = (300, 600)
QUIZ = random.Random(SEED).sample(mmlu_outcomes(), k=len(mmlu_outcomes()))
POPULARITY = list(accumulate(1 / rank**0.8 for rank in range(1, len(QUIZ) + 1)))
STEPS = {"strong": (7.0, 40), "weak": (5.0, 40), "rules": (0.1, 1_000)}  # seconds, calls at once
WEAK = HOSTED_2026.model_copy(update={"output_tokens_per_second": 210.0})
SLOTS = {"strong": 20, "weak": 40}


class Seen(NamedTuple):
    """One call as its user saw it: who answered, or None if nobody did in time, and whether that was right."""

    began: float
    seconds: float
    by: str | None
    right: bool


class World:
    """What is asked, and by whom it can be answered."""

    def __init__(self, arrivals: Sequence[float], faults: Sequence[Fault]) -> None:
        rng, lengths = random.Random(SEED), TokenLengths.azure("conversation")
        self.arrivals = arrivals
        self.questions = rng.choices(QUIZ, cum_weights=POPULARITY, k=len(arrivals))
        self.usages = [lengths.sample(rng) for _ in arrivals]
        self.strong = self.provider("strong", HOSTED_2026, faults)
        self.weak = self.provider("weak", WEAK, ())
        self.seen: list[Seen] = []

    def provider(
        self, name: str, latency: LatencyProfile, faults: Sequence[Fault]
    ) -> SimulatedProvider:
        """Make the provider of one model."""
        return SimulatedProvider(
            server=FifoServer(SLOTS[name]),
            latency=latency,
            faults=faults,
            responder=lambda request, rng: Reply(name, usage=self.usages[int(request.user or 0)]),
            seed=SEED,
        )

    async def ask_strong(self, number: int) -> str:
        """Ask the strong model."""
        return (await self.strong.complete(request(number))).text

    async def ask_weak(self, number: int) -> str:
        """Ask the weak model."""
        return (await self.weak.complete(request(number))).text

    async def ask_rules(self, number: int) -> str:
        """Say a letter."""
        return "rules"

    def right(self, model: str, number: int) -> bool:
        """Return whether *model* knows the answer."""
        question = self.questions[number]
        return {"strong": question.strong, "weak": question.weak, "rules": number % 4 == 0}[model]

    async def run(self, ladder: Ladder) -> None:
        """Let the users come."""
        calls = (self.ask_strong, self.ask_weak, self.ask_rules)
        steps = [Step(name, call, *STEPS[name]) for name, call in zip(STEPS, calls, strict=True)]
        call = ladder(steps)

        async def user(number: int) -> None:
            began, by = loop_time(), None
            with suppress(Exception):
                async with asyncio.timeout(DEADLINE):
                    by = await call(number)
            right = by is not None and self.right(by, number)
            self.seen.append(Seen(began, loop_time() - began, by, right))

        await open_loop(user, self.arrivals)


def request(number: int) -> ChatRequest:
    """Return one user's question, as the providers see it."""
    return ChatRequest(model="any", messages=(Message.user("?"),), user=str(number))


def world(ladder: Ladder, arrivals: Sequence[float], faults: Sequence[Fault] = ()) -> World:
    """Run one of the two, and return what was seen."""

    async def main() -> World:
        run = World(arrivals, faults)
        await run.run(ladder)
        return run

    with virtual_clock():
        return simulate(main, seed=SEED)


def outcome(seen: Sequence[Seen]) -> Row:
    """Return what became of some users."""
    answered = [each for each in seen if each.by is not None]
    return {
        "Answered in time": round(len(answered) / len(seen), 4),
        "Right": round(sum(each.right for each in seen) / len(seen), 4),
        "Seconds, 95th percentile": round(quantiles([e.seconds for e in seen], n=20)[-1], 2),
    }


def recovery(
    seen: Sequence[Seen], *, after: float, over: int = 20, share: float = 0.95
) -> int | None:
    """Return the seconds from *after* until the strong model answers nearly all who ask in the next *over*."""
    for second in range(600):
        start = after + second
        asked = [each.by for each in seen if start <= each.began < start + over]
        if asked.count("strong") >= share * len(asked):
            return second
    return None


def row(name: str, ladder: Ladder) -> Row:
    """Run both for one library."""
    rng = random.Random(SEED)
    quiet = poisson(RATE, duration=2_700, rng=rng)
    start, end = CROWD
    crowd = [start + at for at in poisson(8 * RATE, duration=end - start, rng=rng)]
    down = world(ladder, quiet, OUTAGE)
    full = world(ladder, sorted([*(at for at in quiet if at < 900), *crowd]))
    lost = OUTAGE[0].start, OUTAGE[-1].end
    asked = sum(lost[0] <= attempt.started_at < lost[1] for attempt in down.strong.ledger)
    in_outage = [each for each in down.seen if lost[0] <= each.began < lost[1]]
    in_crowd = [each for each in full.seen if start <= each.began < end]
    right = sum(each.right for each in in_crowd)
    return {
        "Library": name,
        **{f"{key}, outage": value for key, value in outcome(in_outage).items()},
        "Attempts a call at the strong model, outage": round(asked / len(in_outage), 3),
        "Seconds to the strong model again, outage": recovery(down.seen, after=lost[1]),
        **{f"{key}, crowd": value for key, value in outcome(in_crowd).items()},
        "Right a second, crowd": round(right / (end - start), 3),
    }


def measure() -> list[Row]:
    """Return a row for each library, and for none."""
    return [row(name, ladder) for name, ladder in LADDERS.items()]
