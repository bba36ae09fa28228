"""What does each call cost, and who caused it? Exact dollars, by label.

Each request is priced by itself (see `llm_patterns.toolkit.prices`), and the costs add up as decimals, in one series
for each combination of labels: tenant, feature, prompt version, outcome. Labels come from the call, the layer and the
scope around it. There may only be so many series, since one for each user would grow without end. A stream is counted
when it ends; one that is cut off, by what is known of it. Given a ledger, all of it is written down as well
(`llm_patterns.toolkit.cost_ledger`).

Invariants:

1. Every recorded call is in exactly one series: the series add up to the total, exactly.
2. The order of calls does not matter.
3. There are never more than `max_series` series and one for the overflow; nothing is lost to it.
4. A call that a layer cannot price is counted as such, and its answer passes all the same.
5. A stream is counted exactly once, however it ends: read out, broken, closed, cancelled or dropped.

>>> price = ModelPrice(input_usd_per_mtok=Decimal(2), output_usd_per_mtok=Decimal(10))
>>> costs = CostTracker(CostPolicy(prices={"house-model": price}))
>>> usage = Usage(input_tokens=500, output_tokens=200)
>>> with costs.labels(tenant="acme", feature="search"):
...     costs.record(usage, "house-model")
...     costs.record(usage, "house-model", labels={"feature": "chat"})
Decimal('0.003')
Decimal('0.003')
>>> {feature: str(cost.usd) for feature, cost in costs.statistics().by("feature").items()}
{'chat': '0.003', 'search': '0.003'}
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from functools import partial
from threading import RLock
from typing import Any, Final, ParamSpec, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

from llm_patterns import clock
from llm_patterns.chat import Usage
from llm_patterns.errors import ErrorKind, failure_of
from llm_patterns.events import EventHook, emit
from llm_patterns.layers import Layer
from llm_patterns.toolkit.costs import (
    OVERFLOW,
    OVERFLOW_SERIES,
    Cost,
    CostBook,
    CostStatistics,
    Series,
)
from llm_patterns.toolkit.prices import ModelPrice, UnknownModel, price_of
from llm_patterns.toolkit.stream_usage import RecordedStream, StreamUsage
from llm_patterns.toolkit.usage import STANDARD, estimated_tokens, model_of, tier_of, usage_of

__all__ = [
    "OVERFLOW",
    "Cost",
    "CostPolicy",
    "CostRecorded",
    "CostStatistics",
    "CostTracker",
    "Outcome",
    "price_of",
    "usage_of",
]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=AsyncIterable[object])

_NOTHING: Final[Mapping[str, str]] = {}
_LABELS: ContextVar[Mapping[str, str]] = ContextVar("cost_labels", default=_NOTHING)


class Outcome(StrEnum):
    """How a call behind a layer ended: its label `outcome`, where no other is given."""

    ANSWERED = "answered"
    CUT_OFF = "cut_off"
    """A stream that broke, or that the reader left."""
    ABANDONED = "abandoned"
    """A call without an answer that may be billed all the same: timed out, cancelled, or broken."""


class CostPolicy(BaseModel):
    """How costs are counted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prices: Mapping[str, ModelPrice] = Field(
        default_factory=dict,
        description="Prices of your own by model id, before the price library's: contracts, own machines.",
    )
    max_series: int = Field(
        default=1_000,
        ge=1,
        le=100_000,
        description="Combinations of labels kept apart; later ones share one series. A label with "
        "a value for each user or request would otherwise grow without end.",
    )


@dataclass(frozen=True, slots=True)
class CostRecorded:
    """A call was counted. `usd` is None where it could not be priced, `usage` where none was told."""

    model: str | None
    usage: Usage | None
    usd: Decimal | None
    labels: Mapping[str, str]
    estimated: bool = False


class CostTracker:
    """Counts what calls cost, by label. Safe to share between tasks and threads.

    Use `record` where you have the usage, or put it on a call with `layer`. *ledger* is written to with every call;
    *count_tokens* counts what a stream that was cut off did not tell; *on_event* hears of every call.
    """

    def __init__(
        self,
        policy: CostPolicy | None = None,
        *,
        ledger: CostBook | None = None,
        count_tokens: Callable[[str], int] = estimated_tokens,
        on_event: EventHook[CostRecorded] | None = None,
    ) -> None:
        self._policy = policy or CostPolicy()
        self._ledger = ledger
        self._count_tokens = count_tokens
        self._on_event = on_event
        self._series: dict[Series, Cost] = {}
        self._lock = (
            RLock()
        )  # a dropped stream is counted by the garbage collector, which may come any time

    @contextmanager
    def labels(
        self,
        *,
        tenant: str | None = None,
        feature: str | None = None,
        prompt_version: str | None = None,
        outcome: str | None = None,
        **others: str,
    ) -> Iterator[None]:
        """Give these labels to all that is recorded inside, in the tasks that are started there too.

        Labels belong to the work, not to a tracker: every tracker in it sees them. Inner ones add to the outer ones or
        replace them, and what a layer or a `record` is given itself replaces both.
        """
        named = {
            "tenant": tenant,
            "feature": feature,
            "prompt_version": prompt_version,
            "outcome": outcome,
        }
        given = {name: value for name, value in named.items() if value is not None}
        token = _LABELS.set({**_LABELS.get(), **given, **others})
        try:
            yield
        finally:
            with suppress(
                ValueError
            ):  # a generator that another task closes, which has labels of its own
                _LABELS.reset(token)

    def record(
        self,
        usage: Usage,
        model: str,
        *,
        provider: str | None = None,
        tier: str = STANDARD,
        labels: Mapping[str, str] = _NOTHING,
        at: datetime | None = None,
        estimated: bool = False,
    ) -> Decimal:
        """Count one request and return its dollars. Raises `UnknownModel`, and then counts nothing.

        *labels* are whatever you want to ask by later, and come on top of those around. `model` is one of them by
        itself. *tier* is `batch` for a batch's answers; *at* is when the request was made (default: now).
        """
        usd = price_of(
            usage, model, provider=provider, tier=tier, prices=self._policy.prices, at=at
        )
        labels = {**_LABELS.get(), **labels, "model": model}
        self._count(labels, Cost(1, usage, usd, estimated=int(estimated)), at)
        emit(self._on_event, CostRecorded(model, usage, usd, labels, estimated))
        return usd

    def record_stream(
        self,
        stream: S,
        *,
        model: str | None = None,
        request: object = None,
        provider: str | None = None,
        tier: str | None = None,
        labels: Mapping[str, str] = _NOTHING,
    ) -> S:
        """Return *stream*, to be read in its place, which is recorded once when it ends.

        That is the stream of any client. Its usage is exact if it told it: OpenAI's does so if asked with
        `stream_options={"include_usage": True}`. Otherwise, and if it is cut off, it is estimated from *request* and
        from what was written. *model* and *tier* are taken where the stream names none.
        """
        around = {**_LABELS.get(), **labels}

        def settle(seen: StreamUsage) -> None:
            usage, estimated = seen.measured(request, count_tokens=self._count_tokens)
            outcome = Outcome.ANSWERED if seen.whole else Outcome.CUT_OFF
            self._record_answer(
                usage,
                seen.model or model,
                provider=provider,
                tier=tier or seen.tier,
                labels={"outcome": outcome.value, **around},
                estimated=estimated,
            )

        return cast(S, RecordedStream(stream, settle))

    def layer(
        self,
        *,
        model: str | None = None,
        provider: str | None = None,
        tier: str | None = None,
        labels: Mapping[str, str] = _NOTHING,
    ) -> Layer:
        """Return a layer that records what each answer reports of its usage, a stream's when it ends.

        Model and tier are the answer's own, else those given here, else the model that was asked for. An answer without
        usage or of a model without a price passes all the same, and counts as unpriced; so does a call that timed
        out, was cancelled or lost its connection, for it may be billed. Put the layer inside a retry to count every
        attempt, outside to count what was delivered.
        """

        def wrap(call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
            async def recording(*args: P.args, **kwargs: P.kwargs) -> R:
                request = (*args, kwargs)
                asked = model or next(filter(None, map(model_of, request)), None)
                write = partial(self._record_answer, provider=provider)
                try:
                    response = await call(*args, **kwargs)
                except (Exception, CancelledError) as error:
                    if _may_be_billed(error):
                        write(None, asked, labels=_ended(Outcome.ABANDONED, labels))
                    raise
                if isinstance(response, AsyncIterable):
                    recorded = self.record_stream(
                        response,
                        model=asked,
                        request=request,
                        provider=provider,
                        tier=tier,
                        labels=labels,
                    )
                    return cast(R, recorded)
                write(
                    usage_of(response),
                    model_of(response) or asked,
                    tier=tier or tier_of(response),
                    labels=_ended(Outcome.ANSWERED, labels),
                )
                return response

            return recording

        return wrap

    def statistics(self) -> CostStatistics:
        """Return a snapshot."""
        with self._lock:
            return CostStatistics(dict(self._series))

    def _record_answer(
        self,
        usage: Usage | None,
        model: str | None,
        *,
        labels: Mapping[str, str],
        provider: str | None = None,
        tier: str | None = None,
        estimated: bool = False,
    ) -> None:
        if usage is not None and model is not None:
            with suppress(UnknownModel):  # An answer is worth more than its price.
                self.record(
                    usage,
                    model,
                    provider=provider,
                    tier=tier or STANDARD,
                    labels=labels,
                    estimated=estimated,
                )
                return
        labels = {**_LABELS.get(), **labels, "model": model or ""}
        self._count(
            labels, Cost(1, usage or Usage(), estimated=int(estimated), unpriced=1), at=None
        )
        emit(self._on_event, CostRecorded(model, usage, None, labels, estimated))

    def _count(self, labels: Mapping[str, str], cost: Cost, at: datetime | None) -> None:
        with self._lock:
            series = self._kept(tuple(sorted(labels.items())))
            self._series[series] = self._series.get(series, Cost()) + cost
        if self._ledger is not None:
            self._ledger.record(series, cost, at=clock.now() if at is None else at.timestamp())

    def _kept(self, series: Series) -> Series:
        room = len(self._series) < self._policy.max_series
        return series if room or series in self._series else OVERFLOW_SERIES


def _ended(outcome: Outcome, labels: Mapping[str, str]) -> Mapping[str, str]:
    return {"outcome": outcome.value, **_LABELS.get(), **labels}


def _may_be_billed(error: BaseException) -> bool:
    lost = (ErrorKind.TIMEOUT, ErrorKind.CONNECTION)
    return isinstance(error, CancelledError) or failure_of(error).kind in lost
