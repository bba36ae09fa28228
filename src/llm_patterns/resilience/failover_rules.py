"""Which failures send a request elsewhere, in which order are targets asked, and how long may each take?

One table, the policy, and pure functions: chance and time are arguments.

>>> REACTIONS[ErrorKind.INVALID_REQUEST].reaction, REACTIONS[ErrorKind.AUTHENTICATION].reaction
(<Reaction.STOP: 'stop'>, <Reaction.ALARM: 'alarm'>)
>>> attempt_share(30, others=2, policy=FailoverPolicy(deadline=30))
10.0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import inf, log
from random import Random
from typing import Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llm_patterns.errors import ErrorKind, Failure
from llm_patterns.resilience.failover_streams import AfterFirstToken
from llm_patterns.resilience.failover_targets import Target

__all__ = [
    "REACTIONS",
    "FailoverPolicy",
    "Order",
    "Reaction",
    "Rule",
    "attempt_share",
    "ranked",
    "reaction_to",
]

Order = Literal["listed", "weighted", "fastest"]


class Reaction(StrEnum):
    """What a failure leads to. Whether it speaks against the target's health is for its breaker to say."""

    STOP = "stop"
    """The caller gets the error as it came."""
    NEXT = "next"
    """The next target is asked."""
    REST = "rest"
    """The next target is asked, and this one rests as long as it wishes."""
    ALARM = "alarm"
    """The next target is asked, this one rests, and a person is told: it will not pass by itself."""


class Rule(NamedTuple):
    """A reaction, and why."""

    reaction: Reaction
    why: str


REACTIONS: Final[Mapping[ErrorKind, Rule]] = {
    ErrorKind.SERVER: Rule(Reaction.NEXT, "it broke; another provider runs other code"),
    ErrorKind.OVERLOADED: Rule(Reaction.NEXT, "it has too much to do; another may not"),
    ErrorKind.TIMEOUT: Rule(Reaction.NEXT, "no answer in its share of the time"),
    ErrorKind.CONNECTION: Rule(Reaction.NEXT, "it can't be reached; another road may be open"),
    ErrorKind.CONFLICT: Rule(Reaction.NEXT, "a state of its own is in the way"),
    ErrorKind.UNKNOWN: Rule(Reaction.NEXT, "often a broken gateway's page; asking once is cheap"),
    ErrorKind.REFUSED: Rule(Reaction.NEXT, "nothing was sent, so nothing is lost"),
    ErrorKind.RATE_LIMITED: Rule(Reaction.REST, "a quota is no sickness: it says when it is back"),
    ErrorKind.QUOTA_EXHAUSTED: Rule(Reaction.ALARM, "the account there has no credit left"),
    ErrorKind.AUTHENTICATION: Rule(Reaction.ALARM, "the key there is wrong or has expired"),
    ErrorKind.INVALID_REQUEST: Rule(Reaction.STOP, "a bad request fails everywhere"),
    ErrorKind.CONTENT_FILTERED: Rule(
        Reaction.STOP, "which provider's filter applies is a decision, not an accident"
    ),
}
"""The reaction to each kind of failure; `FailoverPolicy.reactions` changes it."""


class FailoverPolicy(BaseModel):
    """What one call may do, and how targets are chosen.

    >>> FailoverPolicy(deadline=30).after_first_token
    'raise'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    deadline: float = Field(
        gt=0,
        description="Seconds for a call, all attempts together; for a stream until its first chunk. An earlier "
        "deadline of `deadlines` holds too. No default: a chat has 10, a nightly job an hour.",
    )
    max_attempts: int = Field(
        default=3,
        ge=1,
        le=10,
        description="Requests that one call may send. 1 chooses a target and never fails over.",
    )
    order: Order = Field(
        default="listed",
        description="How targets of one tier are ordered: as listed, drawn by weight, or by expected latency.",
    )
    expected_latency: float = Field(
        default=1.0,
        ge=0,
        le=600,
        description="Seconds that a good attempt takes: none starts with less left, nor is cut off sooner by the "
        "split. Below that, healthy targets look sick.",
    )
    attempt_timeout: float | None = Field(
        default=None,
        gt=0,
        description="Most seconds of one attempt. None: its share of the deadline, equal for all that may be asked.",
    )
    reactions: Mapping[ErrorKind, Reaction] = Field(
        default_factory=dict,
        description="Changes to the table `REACTIONS` of which failure leads to what.",
    )
    rate_limit_rest: float = Field(
        default=5.0,
        ge=0.1,
        le=600,
        description="Seconds that a target rests after a 429 that does not say how long.",
    )
    max_rest: float = Field(
        default=300.0,
        ge=1,
        le=86_400,
        description="Longest rest in seconds, whatever a target asks for: then it is tried.",
    )
    alarm_rest: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="Seconds of rest after what only a person can mend: an expired key, no credit, a retired model.",
    )
    quota_reserve: float = Field(
        default=0.02,
        ge=0,
        le=0.5,
        description="Share of a rate limit below which a target rests until it has refilled, where its headers say so. "
        "0 finds the end by a 429; 0.5 gives away half the quota.",
    )
    stickiness: float = Field(
        default=300.0,
        ge=0,
        le=86_400,
        description="Seconds since its last turn for which a conversation stays with its target. 300 is what "
        "Anthropic's prompt cache lives; 0 pays for the prefix at each change.",
    )
    max_sessions: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Conversations remembered; the longest unused goes first.",
    )
    hedge_percentile: float | None = Field(
        default=None,
        ge=0.5,
        lt=1,
        description="Share of a target's latencies after which a second target is asked as well. None: never.",
    )
    max_hedge_share: float = Field(
        default=0.05,
        gt=0,
        le=0.2,
        description="Most hedges for each call, over all calls. Above 0.2 a slow primary becomes a second load.",
    )
    after_first_token: AfterFirstToken = Field(
        default="raise",
        description="What happens to a stream that breaks after its first chunk: an error, a visible restart, or a "
        "visible continuation where the next target takes a prefill (else a restart).",
    )
    stall_timeout: float | None = Field(
        default=30.0,
        gt=0,
        description="Seconds without a chunk after which an open stream counts as broken. None: it may hang for ever.",
    )

    @model_validator(mode="after")
    def _an_attempt_fits(self) -> Self:
        longest = min(self.deadline, self.attempt_timeout or inf)
        if self.expected_latency >= longest:
            raise ValueError(
                f"expected_latency is {self.expected_latency} s, and an attempt has {longest} s: lower it, or no "
                "attempt can start"
            )
        return self


def reaction_to(
    error: Exception, failure: Failure, changes: Mapping[ErrorKind, Reaction]
) -> Reaction:
    """Return what to do after *error*, understood as *failure*.

    Two refusals that look like the caller's fault are the target's: a model or address that is not there (404), and a
    request too long for this one (413, or OpenAI's `context_length_exceeded`). The provider's `x-should-retry` is not
    asked: it speaks of the same target.
    """
    if failure.kind in changes:
        return changes[failure.kind]
    if failure.kind is ErrorKind.INVALID_REQUEST:
        if failure.status_code == 404:
            return Reaction.ALARM
        too_long = getattr(error, "code", None) == "context_length_exceeded"
        if failure.status_code == 413 or too_long:
            return Reaction.NEXT
    return REACTIONS[failure.kind].reaction


def ranked(targets: Sequence[Target], order: Order, now: float, rng: Random) -> list[Target]:
    """Return *targets* in the order in which they are asked, tier by tier.

    Within a tier: as `listed`; drawn without replacement by their weights (`weighted`: the first comes first with
    exactly its share of the weights); or the shortest expected latency first (`fastest`). Whether they are well is seen
    when it is their turn, for it may have changed by then.
    """
    if order == "weighted":
        return sorted(targets, key=lambda each: (each.tier, -log(1 - rng.random()) / each.weight))
    if order == "fastest":
        return sorted(targets, key=lambda each: (each.tier, each.expected_latency(now)))
    return sorted(targets, key=lambda each: each.tier)


def attempt_share(left: float, *, others: int, policy: FailoverPolicy) -> float:
    """Return the seconds that an attempt may take, of *left* before the deadline, with *others* that may come after.

    An equal share, so that a target that hangs leaves as much to each of the others; but for no more of them than can
    have their `expected_latency`, since one that is cut off sooner than it can answer looks sick. `attempt_timeout` is
    the longest.

    >>> policy = FailoverPolicy(deadline=60, expected_latency=2, attempt_timeout=20)
    >>> attempt_share(5, others=3, policy=policy), attempt_share(60, others=1, policy=policy)
    (2.5, 20.0)
    """
    if policy.expected_latency:
        others = min(others, max(0, int(left / policy.expected_latency) - 1))
    share = left / (others + 1)
    return share if policy.attempt_timeout is None else min(share, policy.attempt_timeout)
