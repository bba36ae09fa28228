"""The cost tracker: exact sums, and nothing lost between labels."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import reduce
from operator import add
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llm_patterns.chat import ChatRequest, ChatResponse, Message, Usage
from llm_patterns.errors import ConnectionFailed, RateLimited, ServerError
from llm_patterns.simulation.loop import simulate
from llm_patterns.toolkit import (
    Cost,
    CostPolicy,
    CostRecorded,
    CostTracker,
    ModelPrice,
    UnknownModel,
    price_of,
)
from llm_patterns.toolkit.costs import OVERFLOW

HOUSE = ModelPrice(
    input_usd_per_mtok=Decimal("0.3"),
    cached_input_usd_per_mtok=Decimal("0.07"),
    output_usd_per_mtok=Decimal("1.1"),
)
tokens = st.integers(0, 2_000_000)
usages = st.builds(Usage, input_tokens=tokens, cached_input_tokens=tokens, output_tokens=tokens)
labelled = st.tuples(usages, st.sampled_from(["a", "b", "c"]), st.sampled_from(["ok", "retry"]))


def tracker(**policy: Any) -> CostTracker:
    """A tracker that knows only the house's models."""
    return CostTracker(CostPolicy(prices={"house": HOUSE, "other": HOUSE}, **policy))


def test_a_months_tokens_must_not_be_priced_in_one_go() -> None:
    """A hundred short requests cost less than one request of their sum: hence a price for each."""
    short = Usage(input_tokens=10_000)
    costs = CostTracker()
    with localcontext() as context:
        context.prec = 1
        for _ in range(100):
            costs.record(short, "gpt-6-sol", provider="openai")
    total = costs.statistics().total
    assert total.usd < price_of(total.usage, "gpt-6-sol", provider="openai")
    assert total.usd == 100 * price_of(short, "gpt-6-sol", provider="openai")


@given(calls=st.lists(labelled, max_size=30))
def test_series_add_up_to_the_total_exactly(calls: list[tuple[Usage, str, str]]) -> None:
    """By any label, the parts' sum is the total (invariant 1)."""
    costs = tracker()
    for usage, tenant, outcome in calls:
        costs.record(usage, "house", labels={"tenant": tenant, "outcome": outcome})
    statistics = costs.statistics()
    exact = sum((Fraction(HOUSE.price(usage)) for usage, _, _ in calls), Fraction(0))
    assert Fraction(statistics.total.usd) == exact
    assert statistics.total.calls == len(calls)
    for label in ("tenant", "outcome", "model", "absent"):
        assert reduce(add, statistics.by(label).values(), Cost()) == statistics.total


@given(calls=st.lists(labelled, max_size=20), order=st.randoms())
def test_the_order_of_calls_does_not_matter(
    calls: list[tuple[Usage, str, str]], order: Any
) -> None:
    """The same calls in another order give the same costs (invariant 2)."""
    shuffled = list(calls)
    order.shuffle(shuffled)
    results = []
    for sequence in (calls, shuffled):
        costs = tracker()
        for usage, tenant, outcome in sequence:
            costs.record(usage, "house", labels={"tenant": tenant, "outcome": outcome})
        results.append(costs.statistics())
    assert results[0] == results[1]


@given(users=st.lists(st.integers(0, 50), max_size=100), limit=st.integers(1, 10))
def test_a_label_of_many_values_is_bounded_and_loses_nothing(users: list[int], limit: int) -> None:
    """There are at most max_series series and one for the rest, and all calls are in them (invariant 3)."""
    costs = tracker(max_series=limit)
    for user in users:
        costs.record(Usage(input_tokens=1), "house", labels={"user": str(user)})
    statistics = costs.statistics()
    assert len(statistics.series) == min(len(set(users)), limit + 1)
    assert statistics.total.calls == len(users)
    kept = list(dict.fromkeys(users))[:limit]
    assert statistics.by("user").get(OVERFLOW, Cost()).calls == sum(u not in kept for u in users)


def test_costs_are_grouped_by_any_label_and_by_model() -> None:
    """Labels group the same calls in different ways; a call without the label is under the empty value."""
    costs = tracker()
    used = Usage(input_tokens=1_000_000)
    costs.record(used, "house", labels={"tenant": "acme", "outcome": "retry"})
    costs.record(used, "other", labels={"tenant": "acme"})
    statistics = costs.statistics()
    assert {k: v.calls for k, v in statistics.by("tenant").items()} == {"acme": 2}
    assert {k: v.calls for k, v in statistics.by("outcome").items()} == {"": 1, "retry": 1}
    assert {k: v.usd for k, v in statistics.by("model").items()} == {
        "house": Decimal("0.3"),
        "other": Decimal("0.3"),
    }


def test_a_snapshot_does_not_change_with_later_calls() -> None:
    """Statistics are of the moment they were taken."""
    costs = tracker()
    before = costs.statistics()
    costs.record(Usage(input_tokens=1), "house")
    assert (before.total.calls, costs.statistics().total.calls) == (0, 1)


def test_recording_an_unknown_model_counts_nothing() -> None:
    """The error leaves the tracker as it was."""
    costs = tracker()
    with pytest.raises(UnknownModel):
        costs.record(Usage(input_tokens=1), "no-such-model-zzz")
    assert costs.statistics() == CostTracker().statistics()


def test_a_layer_records_each_answer_and_hands_it_on() -> None:
    """The answer passes unchanged; its cost is under the layer's labels, its outcome and the answer's model."""
    told: list[CostRecorded] = []
    costs = CostTracker(CostPolicy(prices={"house": HOUSE}), on_event=told.append)
    answer = ChatResponse(id="1", model="house", usage=Usage(output_tokens=1_000_000))

    async def call(question: str) -> ChatResponse:
        return answer

    guarded = costs.layer(model="asked-for", labels={"feature": "search"})(call)
    assert simulate(lambda: guarded("hello")) is answer
    assert costs.statistics().by("feature")["search"].usd == Decimal("1.1")
    labels = {"feature": "search", "model": "house", "outcome": "answered"}
    assert told == [CostRecorded("house", answer.usage, Decimal("1.1"), labels)]


async def anonymous(**request: object) -> dict[str, object]:
    """An answer that does not say which model it is from."""
    return {"usage": {"input_tokens": 1_000_000, "output_tokens": 0}}


def test_a_layer_uses_its_own_model_where_the_answer_names_none() -> None:
    """Decoded JSON without a model is priced as the model that the layer knows, whatever was asked for."""
    costs = tracker()
    simulate(costs.layer(model="house")(anonymous)(model="other"))
    assert costs.statistics().by("model")["house"].usd == Decimal("0.3")


def test_a_layer_uses_the_model_asked_for_where_nobody_names_another() -> None:
    """It is in the request, as an argument or inside one."""
    costs = tracker()
    request = ChatRequest(model="other", messages=(Message.user("Hello"),))

    async def call(request: ChatRequest) -> dict[str, object]:
        return await anonymous()

    simulate(costs.layer()(anonymous)(model="house"))
    simulate(costs.layer()(call)(request))
    assert {model: cost.calls for model, cost in costs.statistics().by("model").items()} == {
        "house": 1,
        "other": 1,
    }


@pytest.mark.parametrize(
    ("answer", "used"),
    [
        ("no usage", Usage()),
        (
            ChatResponse(id="1", model="no-such-model-zzz", usage=Usage(input_tokens=1)),
            Usage(input_tokens=1),
        ),
        (
            {"usage": {"input_tokens": 1, "output_tokens": 2}},
            Usage(input_tokens=1, output_tokens=2),
        ),
        (
            {"model": "house", "usage": {"prompt_tokens": 3}, "service_tier": "scale"},
            Usage(input_tokens=3),
        ),
    ],
    ids=["no usage", "unknown model", "no model", "unknown tier"],
)
def test_an_answer_that_cannot_be_priced_still_passes_and_is_counted(
    answer: object, used: Usage
) -> None:
    """Nothing paid for is lost for want of a price, and the gap shows under its labels (invariant 4)."""
    told: list[CostRecorded] = []
    costs = CostTracker(CostPolicy(prices={"house": HOUSE}), on_event=told.append)

    async def call() -> object:
        return answer

    assert simulate(costs.layer(labels={"tenant": "acme"})(call)) is answer
    assert costs.statistics().by("tenant") == {"acme": Cost(calls=1, usage=used, unpriced=1)}
    assert [event.usd for event in told] == [None]


@pytest.mark.parametrize(
    ("tier", "told", "usd"),
    [
        (None, "batch", "0.15"),
        (None, "standard", "0.3"),
        ("batch", None, "0.15"),
        ("batch", "standard", "0.15"),
    ],
)
def test_a_batchs_answer_has_a_batchs_price(tier: str | None, told: str | None, usd: str) -> None:
    """The tier is what the layer says, else what the answer says of itself."""
    price = HOUSE.model_copy(update={"batch_ratio": Decimal("0.5")})
    costs = CostTracker(CostPolicy(prices={"house": price}))

    async def call() -> dict[str, object]:
        return {"model": "house", "usage": {"input_tokens": 1_000_000, "service_tier": told}}

    simulate(costs.layer(tier=tier)(call))
    assert costs.statistics().total.usd == Decimal(usd)


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (TimeoutError(), 1),
        (ConnectionFailed("gone"), 1),
        (asyncio.CancelledError(), 1),
        (RateLimited("slow down", status_code=429), 0),
        (ServerError("oops", status_code=500), 0),
        (ValueError("a bug"), 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_call_without_an_answer_counts_where_it_may_be_billed(
    error: BaseException, calls: int
) -> None:
    """A time-out leaves a model that works on: the gap shows as unpriced. A refusal is none."""
    costs = tracker()

    async def call(**request: str) -> None:
        raise error

    with pytest.raises(type(error)):
        simulate(costs.layer(labels={"tenant": "acme"})(call)(model="house"))
    statistics = costs.statistics()
    assert statistics.total == Cost(calls=calls, unpriced=calls)
    assert list(statistics.by("outcome")) == ["abandoned"] * calls


def test_labels_around_a_call_go_with_it_into_its_tasks() -> None:
    """Two requests at once keep theirs apart, and what they start inherits them."""
    costs = tracker()

    async def step() -> None:
        await asyncio.sleep(1)
        costs.record(Usage(input_tokens=1), "house")

    async def request(tenant: str, steps: int) -> None:
        with costs.labels(tenant=tenant, prompt_version="v7", team="blue"):
            async with asyncio.TaskGroup() as group:
                for _ in range(steps):
                    group.create_task(step())

    async def main() -> None:
        await asyncio.gather(request("acme", 2), request("zoo", 3))
        costs.record(Usage(input_tokens=1), "house")

    simulate(main)
    statistics = costs.statistics()
    assert {tenant: cost.calls for tenant, cost in statistics.by("tenant").items()} == {
        "": 1,
        "acme": 2,
        "zoo": 3,
    }
    assert statistics.by("prompt_version")["v7"].calls == statistics.by("team")["blue"].calls == 5


def test_the_nearest_label_wins() -> None:
    """A call's own before the inner scope's before the outer's; the model is always the one priced."""
    told: list[CostRecorded] = []
    costs = CostTracker(CostPolicy(prices={"house": HOUSE}), on_event=told.append)
    with costs.labels(tenant="outer", feature="outer", outcome="outer", model="wrong"):
        with costs.labels(feature="inner", outcome="inner"):
            costs.record(Usage(), "house", labels={"outcome": "own"})
        costs.record(Usage(), "house")
    assert [dict(event.labels) for event in told] == [
        {"tenant": "outer", "feature": "inner", "outcome": "own", "model": "house"},
        {"tenant": "outer", "feature": "outer", "outcome": "outer", "model": "house"},
    ]


def test_labels_end_with_their_block_even_in_a_generator_that_another_task_closes() -> None:
    """As a web framework does with what a handler left open."""
    costs = tracker()

    async def handler() -> AsyncIterator[None]:
        with costs.labels(tenant="acme"):
            yield

    async def main() -> None:
        generator = handler()
        await anext(generator)
        await asyncio.create_task(generator.aclose())  # type: ignore[attr-defined]

    simulate(main)
    with costs.labels(tenant="acme"):
        pass
    costs.record(Usage(input_tokens=1), "house")
    assert list(costs.statistics().by("tenant")) == [""]


def test_an_outcome_that_somebody_gives_stands() -> None:
    """Around the call or on the layer, for answers, streams and what is abandoned."""
    costs = tracker()

    async def stream() -> AsyncIterator[dict[str, object]]:
        return (each async for each in chunks())

    async def chunks() -> AsyncIterator[dict[str, object]]:
        yield {"model": "house", "usage": {"prompt_tokens": 1}}

    async def late() -> None:
        raise TimeoutError

    async def main() -> None:
        with costs.labels(outcome="retry"):
            await costs.layer(model="house")(anonymous)()
            async for _ in await costs.layer()(stream)():
                pass
            with pytest.raises(TimeoutError):
                await costs.layer()(late)()
        await costs.layer(model="house", labels={"outcome": "mine"})(anonymous)()

    simulate(main)
    outcomes = costs.statistics().by("outcome")
    assert {name: cost.calls for name, cost in outcomes.items()} == {"mine": 1, "retry": 3}


def test_an_explicit_day_prices_a_call_of_that_day() -> None:
    """For a batch that is collected the day after a price has changed."""
    costs = CostTracker()
    usage = Usage(input_tokens=1_000_000)
    usd = [
        costs.record(
            usage, "gemini-4-argon", provider="google", at=datetime(year, 1, 5, tzinfo=UTC)
        )
        for year in (2026, 2027)
    ]
    assert usd[0] != usd[1]
    assert costs.statistics().total.usd == sum(usd)


@pytest.mark.parametrize("limit", [0, 100_001])
def test_an_unusable_bound_on_series_is_refused(limit: int) -> None:
    """No series at all, or more than memory should hold, fails when built."""
    with pytest.raises(ValidationError, match="max_series"):
        CostPolicy(max_series=limit)
