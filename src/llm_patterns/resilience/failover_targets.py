"""Where can a request go, can that target serve it, and how much may it be asked to bear?

A target is a model with a circuit breaker for its health, a rest for its quota, and limits of its own, so that a small
spare is not buried by the load of a large primary. What a target lacks is found before it is asked. Sickness and an
empty quota are kept apart: the breaker judges the one by outcomes, a rest waits the other out by the clock.

Invariants:

1. Requests in flight never exceed `max_in_flight`; those admitted in any period never exceed its share of
   `requests_per_minute` plus one burst.
2. Nothing is admitted while the target rests, and a later, shorter rest does not end an earlier one.
3. A refusal takes nothing: neither quota, nor a place, nor one of the breaker's probes.
4. A request that is sent asks for nothing that the target's capabilities deny.

>>> from llm_patterns.chat import ChatRequest, Message, Tool
>>> spare = Target("spare", model_name="small", capabilities=Capabilities(tools=False))
>>> question = ChatRequest(model="large", messages=(Message.user("Why?"),))
>>> spare.fitted(question).model
'small'
>>> spare.fitted(question.model_copy(update={"tools": (Tool(name="look_up"),)}))
Traceback (most recent call last):
...
llm_patterns.resilience.failover_targets.UnsupportedFeature: spare has no tools, and the request needs them
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, exp
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from llm_patterns.chat import ChatModel, ChatRequest
from llm_patterns.errors import ConfigurationError, ErrorKind, LLMPatternsError
from llm_patterns.quotas import Quota, Quotas
from llm_patterns.resilience.circuit_breaker import (
    BreakerPolicy,
    BreakerState,
    CircuitBreaker,
    CircuitOpen,
    Permit,
)

__all__ = [
    "Capabilities",
    "Target",
    "TargetFull",
    "TargetLimits",
    "TargetRefused",
    "TargetResting",
    "TargetStatistics",
    "UnsupportedFeature",
    "estimated_tokens",
]

_EPSILON: Final = 1e-9
_REMEMBERED: Final = 100
"""Latencies kept of each kind of call: enough for a 95th percentile, and constant memory."""
_SMOOTHING: Final = 0.2
_FORGETTING: Final = 30.0
"""Seconds in which the latency of a target that nobody asks shrinks to a third: sooner or later it is tried again."""

BREAKER: Final = BreakerPolicy(open_time=15, max_open_time=60)
"""That of a target without its own. It probes sooner than a breaker alone would: a probe that fails is served elsewhere
at once, and a small spare can't carry the load for longer than it must."""


class TargetRefused(LLMPatternsError):
    """A target was not asked. Nothing was sent, nothing is billed, and it says nothing of the target's health."""

    kind = ErrorKind.REFUSED

    def __init__(self, target: str, message: str, retry_after: float | None = None) -> None:
        self.target = target
        self.retry_after = retry_after
        self.headers = {"x-should-retry": "false"}
        again = "" if retry_after is None else f"; ask again in {retry_after:.3g} s"
        super().__init__(f"{target} {message}{again}")


class UnsupportedFeature(TargetRefused):
    """The request needs what the target does not have: `feature`."""

    def __init__(self, target: str, feature: str, message: str) -> None:
        self.feature = feature
        super().__init__(target, message)


class TargetResting(TargetRefused):
    """The target rests after a failure of kind `cause`; `RATE_LIMITED` also where its headers said little is left."""

    def __init__(self, target: str, cause: ErrorKind, retry_after: float) -> None:
        self.cause = cause
        super().__init__(target, f"rests ({cause.replace('_', ' ')})", retry_after)


class TargetFull(TargetRefused):
    """The target's own `limit` is reached: more would bury it."""

    def __init__(self, target: str, limit: str, retry_after: float | None) -> None:
        self.limit = limit
        super().__init__(target, f"is at its {limit}", retry_after)


class Capabilities(BaseModel):
    """What a target's model can be asked for. The defaults are those of a current large model, without prefill."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    context_window: int | None = Field(
        default=None, ge=1, description="Tokens of input and output together; None: not checked."
    )
    max_output_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Most tokens of an answer. A larger `max_tokens` is lowered to it: it is a bound, not a wish.",
    )
    tools: bool = Field(default=True, description="Whether it can call tools.")
    response_schema: bool = Field(
        default=True, description="Whether it can be held to a JSON Schema."
    )
    seed: bool = Field(default=True, description="Whether it takes a seed.")
    max_temperature: float | None = Field(
        default=2.0, ge=0, le=2, description="Highest temperature; None: it takes none at all."
    )
    prefill: bool = Field(
        default=False,
        description="Whether it goes on from an assistant's last message instead of answering it. False, since the "
        "vendors' newer models refuse that.",
    )


class TargetLimits(BaseModel):
    """What a target may be asked to bear, by this process; None is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_in_flight: int | None = Field(default=None, ge=1, description="Requests at one time.")
    requests_per_minute: float | None = Field(
        default=None, gt=0, description="Your quota there, over your replicas."
    )
    tokens_per_minute: float | None = Field(
        default=None,
        gt=0,
        description="The same in tokens: estimated input, and `max_tokens` where given.",
    )
    burst: float = Field(
        default=5.0,
        gt=0,
        le=60,
        description="Seconds of quota that may be used at once. Less than a few requests' worth loses quota in the "
        "traffic's gaps; a quota that is enforced second by second refuses more than 1.",
    )


@dataclass(frozen=True, slots=True)
class TargetStatistics:
    """A target at one moment, and its counts since the beginning.

    `latency` is the smoothed seconds of its answers, None before the first; `rests_for` the seconds it still rests.
    """

    name: str
    state: BreakerState
    served: int
    failed: dict[ErrorKind, int]
    refused: int
    in_flight: int
    rests_for: float
    latency: float | None


def estimated_tokens(request: ChatRequest) -> int:
    """Return about how many tokens *request* reads: a quarter of its characters.

    That is a third too many for English prose, and far too few for base64 or Chinese: give a target a real tokenizer
    where its window or its quota is tight.
    """
    return (
        sum(
            len(message.content) + sum(len(call.arguments) for call in message.tool_calls)
            for message in request.messages
        )
        // 4
    )


def lacking(request: ChatRequest, can: Capabilities, tokens: int) -> tuple[str, str] | None:
    """Return the feature that *request* of *tokens* needs and a model does not have, with the reason; None if it fits.

    >>> from llm_patterns.chat import Message
    >>> request = ChatRequest(model="any", messages=(Message.user("Hi"),), max_tokens=200)
    >>> lacking(request, Capabilities(context_window=1000), tokens=900)
    ('context_window', 'has a context window of 1000 tokens, and the request needs about 1100')
    """
    most, temperature = can.max_output_tokens, request.temperature
    needed = tokens + min(request.max_tokens or 0, most or request.max_tokens or 0)
    too_hot = temperature is not None and (
        can.max_temperature is None or temperature > can.max_temperature
    )
    held, goes_on = request.response_schema is not None, request.messages[-1].role == "assistant"
    checks = (
        (
            "tools",
            bool(request.tools) and not can.tools,
            "has no tools, and the request needs them",
        ),
        (
            "response_schema",
            held and not can.response_schema,
            "can't be held to a schema, and the request has one",
        ),
        (
            "seed",
            request.seed is not None and not can.seed,
            "takes no seed, and the request has one",
        ),
        (
            "temperature",
            too_hot,
            f"takes a temperature up to {can.max_temperature}, and the request has {temperature}",
        ),
        (
            "prefill",
            goes_on and not can.prefill,
            "can't go on from an assistant's message, and the request ends with one",
        ),
        (
            "context_window",
            can.context_window is not None and needed > can.context_window,
            f"has a context window of {can.context_window} tokens, and the request needs about {needed}",
        ),
    )
    return next(((feature, why) for feature, missing, why in checks if missing), None)


def quota_wait(quotas: Quotas, *, reserve: float) -> float:
    """Return the seconds until every limit has *reserve* of its quota again, and at least one unit; 0 if it has now.

    Quotas refill evenly until their reset, as far as one can know. One whose reset was not said is not waited for.

    >>> quota_wait(Quotas(requests=Quota(limit=60, remaining=0, reset=60.0)), reserve=0.05)
    3.0
    """
    return max((_wait(quota, reserve) for quota in quotas if quota is not None), default=0.0)


def _wait(quota: Quota, reserve: float) -> float:
    short = max(1, ceil(reserve * quota.limit)) - quota.remaining
    used = quota.limit - quota.remaining
    if short <= 0 or used <= 0 or quota.reset is None:
        return 0.0
    return quota.reset * min(1.0, short / used)


class Target:
    """A place that requests can go to. It may serve several failovers; its health is then shared between them.

    *model* answers chat requests, None where only other callables are guarded; *model_name* replaces the request's. A
    lower *tier* is preferred to a higher one, and *weight* is a share within a tier. *adapt* rewrites a request for
    this model, its prompt for example, before anything is checked.
    """

    def __init__(
        self,
        name: str,
        model: ChatModel | None = None,
        *,
        model_name: str | None = None,
        breaker: CircuitBreaker | None = None,
        tier: int = 0,
        weight: float = 1.0,
        capabilities: Capabilities | None = None,
        limits: TargetLimits | None = None,
        adapt: Callable[[ChatRequest], ChatRequest] | None = None,
        count_tokens: Callable[[ChatRequest], int] = estimated_tokens,
    ) -> None:
        if not 0 < weight < float("inf"):
            raise ConfigurationError(
                f"the weight of {name} is {weight}; a target that must get nothing is left out of the list"
            )
        self.name = name
        self.model = model
        self.model_name = model_name
        self.breaker = breaker or CircuitBreaker(BREAKER, key=name)
        self.tier = tier
        self.weight = weight
        self.capabilities = capabilities or Capabilities()
        self.in_flight = 0
        self.last_answered = float("-inf")
        self.takes_all = capabilities is None and adapt is None
        self._adapt = adapt
        self._count_tokens = count_tokens
        self._limits = None if limits is None else _Limits(limits)
        self._rests_until = float("-inf")
        self._rests_for = ErrorKind.RATE_LIMITED
        self._latency: float | None = None
        self._latencies: dict[str, deque[float]] = {}
        self._served = 0
        self._refused = 0
        self._failed: Counter[ErrorKind] = Counter()

    def __repr__(self) -> str:
        return f"Target({self.name!r})"

    @property
    def chat(self) -> ChatModel:
        """Return the model; raises `ConfigurationError` if it has none."""
        if self.model is None:
            raise ConfigurationError(f"{self.name} has no model: give it one, or use `over`")
        return self.model

    def lack(self, request: ChatRequest) -> UnsupportedFeature | None:
        """Return what *request* needs and this target does not have, or None."""
        return self._lack(request if self._adapt is None else self._adapt(request))

    def fitted(self, request: ChatRequest) -> ChatRequest:
        """Return *request* as this target's model takes it; raises `UnsupportedFeature`."""
        if self._adapt is not None:
            request = self._adapt(request)
        changes: dict[str, object] = {}
        if not self.takes_all or request.messages[-1].role == "assistant":
            if (lack := self._lack(request)) is not None:
                raise lack
            most = self.capabilities.max_output_tokens
            if most is not None and request.max_tokens is not None and request.max_tokens > most:
                changes["max_tokens"] = most
        if self.model_name is not None and self.model_name != request.model:
            changes["model"] = self.model_name
        return request.model_copy(update=changes) if changes else request

    def available(self, now: float) -> bool:
        """Return whether `acquire` would admit a request now."""
        if now < self._rests_until or not self.breaker.available():
            return False
        return self._limits is None or self._limits.refusal(self.in_flight, now) is None

    def retry_after(self, now: float) -> float:
        """Return the seconds until one may be admitted, at the earliest; 0 if now, or when a place may be free."""
        refusal = None if self._limits is None else self._limits.refusal(self.in_flight, now)
        full = 0.0 if refusal is None or refusal[1] is None else refusal[1]
        return max(0.0, self._rests_until - now, self.breaker.retry_after(), full)

    def acquire(self, now: float, request: ChatRequest | None = None) -> Permit:
        """Return leave to send *request*; raises `TargetResting`, `TargetFull` or `CircuitOpen`."""
        try:
            if now < self._rests_until:
                raise TargetResting(self.name, self._rests_for, self._rests_until - now)
            limits = self._limits
            if limits is not None and (full := limits.refusal(self.in_flight, now)) is not None:
                raise TargetFull(self.name, *full)
            permit = self.breaker.acquire()
        except (TargetRefused, CircuitOpen):
            self._refused += 1
            raise
        if limits is not None:
            limits.take(self._reserved(request))
        self.in_flight += 1
        return permit

    def release(
        self, permit: Permit, *, succeeded: bool | None, duration: float | None = None
    ) -> None:
        """Give *permit* back, with the request's outcome and duration; None is no vote on the target's health."""
        self.in_flight -= 1
        self.breaker.release(permit, succeeded=succeeded, duration=duration)

    def answered(self, kind: str, seconds: float, now: float) -> None:
        """Note that a call of that *kind* was answered; a stream counts at its first chunk."""
        self._served += 1
        self.last_answered = now
        before = self._latency
        self._latency = seconds if before is None else before + _SMOOTHING * (seconds - before)
        if kind not in self._latencies:
            self._latencies[kind] = deque(maxlen=_REMEMBERED)
        self._latencies[kind].append(seconds)

    def failed(self, kind: ErrorKind) -> None:
        """Note a failure of that *kind*; the breaker hears of it by `release`."""
        self._failed[kind] += 1

    def rest(self, seconds: float, cause: ErrorKind, now: float) -> None:
        """Admit nothing for *seconds*."""
        if now + seconds > self._rests_until:
            self._rests_until, self._rests_for = now + seconds, cause

    def percentile(self, kind: str, share: float, *, at_least: int) -> float | None:
        """Return the seconds within which *share* of its last calls of that *kind* were answered, None if too few."""
        latencies = sorted(self._latencies.get(kind, ()))
        if len(latencies) < at_least:
            return None
        return latencies[min(len(latencies) - 1, int(share * len(latencies)))]

    def expected_latency(self, now: float) -> float:
        """Return the seconds that one more request will take: its smoothed latency, times those already on their way.

        A target of which nothing is known takes 0, so that it is tried.
        """
        idle = max(0.0, now - self.last_answered)
        return (self._latency or 0.0) * exp(-idle / _FORGETTING) * (self.in_flight + 1)

    def statistics(self, now: float) -> TargetStatistics:
        """Return the target as it is."""
        return TargetStatistics(
            name=self.name,
            state=self.breaker.statistics().state,
            served=self._served,
            failed=dict(self._failed),
            refused=self._refused,
            in_flight=self.in_flight,
            rests_for=max(0.0, self._rests_until - now),
            latency=self._latency,
        )

    def _lack(self, request: ChatRequest) -> UnsupportedFeature | None:
        can = self.capabilities
        tokens = 0 if can.context_window is None else self._count_tokens(request)
        missing = lacking(request, can, tokens)
        return None if missing is None else UnsupportedFeature(self.name, *missing)

    def _reserved(self, request: ChatRequest | None) -> int:
        return 0 if request is None else self._count_tokens(request) + (request.max_tokens or 0)


class _Bucket:
    """A quota that refills; what is taken at once may leave it in debt, so that one large request is not refused."""

    __slots__ = ("_capacity", "_level", "_per_second", "_since")

    def __init__(self, per_minute: float, burst: float) -> None:
        self._per_second = per_minute / 60
        self._capacity = max(1.0, self._per_second * burst)
        self._level = self._capacity
        self._since = float("-inf")

    def wait(self, now: float) -> float:
        """Return the seconds until one may be taken, 0 if it may now."""
        if now > self._since:
            gained = (now - self._since) * self._per_second
            self._level = min(self._capacity, self._level + gained)
            self._since = now
        return 0.0 if self._level >= 1 - _EPSILON else (1 - self._level) / self._per_second

    def take(self, amount: float) -> None:
        """Take it; `wait` was 0."""
        self._level -= amount


class _Limits:
    """The limits of one target, and what of them is used."""

    __slots__ = ("_buckets", "_max_in_flight")

    def __init__(self, limits: TargetLimits) -> None:
        self._max_in_flight = limits.max_in_flight
        rates = {
            "requests_per_minute": limits.requests_per_minute,
            "tokens_per_minute": limits.tokens_per_minute,
        }
        self._buckets = {
            name: _Bucket(rate, limits.burst) for name, rate in rates.items() if rate is not None
        }

    def refusal(self, in_flight: int, now: float) -> tuple[str, float | None] | None:
        """Return the limit that is reached and the seconds to wait, or None; nothing is taken."""
        if self._max_in_flight is not None and in_flight >= self._max_in_flight:
            return "max_in_flight", None
        for name, bucket in self._buckets.items():
            if (wait := bucket.wait(now)) > 0:
                return name, wait
        return None

    def take(self, tokens: int) -> None:
        """Take what one request of *tokens* uses."""
        for name, bucket in self._buckets.items():
            bucket.take(1 if name == "requests_per_minute" else tokens)
