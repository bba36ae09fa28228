"""The cost tracker: exact sums, and nothing lost between labels."""

import asyncio
from collections.abc import Mapping
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import reduce
from operator import add
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llm_patterns.chat import ChatResponse, Usage
from llm_patterns.simulation.loop import simulate
from llm_patterns.toolkit.cost_tracker import (
    OVERFLOW,
    Cost,
    CostPolicy,
    CostRecorded,
    CostTracker,
    usage_of,
)
from llm_patterns.toolkit.prices import ModelPrice, UnknownModel, price_of

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


class Object(SimpleNamespace):
    """An answer as an SDK gives it: attributes instead of keys."""


def as_object(value: Any) -> Any:
    """Turn decoded JSON into nested objects."""
    if isinstance(value, Mapping):
        return Object(**{key: as_object(item) for key, item in value.items()})
    return value


@pytest.mark.parametrize("shape", [dict, as_object])
@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 64},
            },
            Usage(input_tokens=36, cached_input_tokens=64, output_tokens=7),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 7, "prompt_tokens_details": None},
            Usage(input_tokens=9, output_tokens=7),
        ),
        ({"prompt_tokens": 9, "total_tokens": 9}, Usage(input_tokens=9)),
        (
            {
                "input_tokens": 100,
                "input_tokens_details": {"cached_tokens": 64},
                "output_tokens": 7,
            },
            Usage(input_tokens=36, cached_input_tokens=64, output_tokens=7),
        ),
        (
            {
                "input_tokens": 10,
                "cache_creation_input_tokens": 20,
                "cache_read_input_tokens": 30,
                "output_tokens": 7,
            },
            Usage(input_tokens=30, cached_input_tokens=30, output_tokens=7),
        ),
        (
            {"input_tokens": 10, "cache_read_input_tokens": None, "output_tokens": 7},
            Usage(input_tokens=10, output_tokens=7),
        ),
        ({"seconds": 3}, None),
    ],
    ids=["chat", "uncached", "embedding", "responses", "anthropic", "anthropic-plain", "other"],
)
def test_usage_is_understood_by_its_shape(shape: Any, usage: Any, expected: Usage | None) -> None:
    """The vendors' usage objects, or their JSON, become one disjoint usage."""
    assert usage_of(shape({"usage": usage})) == expected


def test_usage_of_this_librarys_answer_is_its_own() -> None:
    """No translation; an answer that reports nothing gives None."""
    used = Usage(input_tokens=1, output_tokens=2)
    assert usage_of(ChatResponse(id="1", model="house", usage=used)) == used
    assert usage_of("text") is None


def test_a_layer_records_each_answer_and_hands_it_on() -> None:
    """The answer passes unchanged; its cost is under the layer's labels and the answer's model."""
    told: list[CostRecorded] = []
    costs = CostTracker(CostPolicy(prices={"house": HOUSE}), on_event=told.append)
    answer = ChatResponse(id="1", model="house", usage=Usage(output_tokens=1_000_000))

    async def call(question: str) -> ChatResponse:
        return answer

    guarded = costs.layer(model="asked-for", labels={"feature": "search"})(call)
    assert simulate(lambda: guarded("hello")) is answer
    assert costs.statistics().by("feature")["search"].usd == Decimal("1.1")
    labels = {"feature": "search", "model": "house"}
    assert told == [CostRecorded("house", answer.usage, Decimal("1.1"), labels)]


def test_a_layer_uses_its_own_model_where_the_answer_names_none() -> None:
    """Decoded JSON without a model is priced as the model that was asked for."""
    costs = tracker()

    async def call() -> dict[str, dict[str, int]]:
        return {"usage": {"input_tokens": 1_000_000, "output_tokens": 0}}

    simulate(costs.layer(model="house")(call))
    assert costs.statistics().by("model")["house"].usd == Decimal("0.3")


@pytest.mark.parametrize(
    "answer",
    [
        "no usage",
        ChatResponse(id="1", model="no-such-model-zzz", usage=Usage(input_tokens=1)),
        {"usage": {"input_tokens": 1, "output_tokens": 1}},
    ],
    ids=["no usage", "unknown model", "no model"],
)
def test_an_answer_that_cannot_be_priced_still_passes_and_is_counted(answer: object) -> None:
    """Nothing paid for is lost for want of a price, and the gap shows (invariant 4)."""
    told: list[CostRecorded] = []
    costs = CostTracker(on_event=told.append)

    async def call() -> object:
        return answer

    assert simulate(costs.layer()(call)) is answer
    statistics = costs.statistics()
    assert (statistics.unpriced, statistics.total.calls) == (1, 0)
    assert [event.usd for event in told] == [None]


def test_a_layer_lets_errors_through_and_records_nothing() -> None:
    """A failed call has no answer to price."""
    costs = tracker()

    async def call() -> None:
        await asyncio.sleep(1)
        raise TimeoutError

    with pytest.raises(TimeoutError):
        simulate(costs.layer(model="house")(call))
    assert costs.statistics() == CostTracker().statistics()


@pytest.mark.parametrize("limit", [0, 100_001])
def test_an_unusable_bound_on_series_is_refused(limit: int) -> None:
    """No series at all, or more than memory should hold, fails when built."""
    with pytest.raises(ValidationError, match="max_series"):
        CostPolicy(max_series=limit)
