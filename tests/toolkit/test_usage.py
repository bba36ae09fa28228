"""Usage, model and tier of any client's answer, by its shape."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from llm_patterns.chat import ChatResponse, Usage
from llm_patterns.toolkit import estimated_tokens, usage_of
from llm_patterns.toolkit.usage import model_of, tier_of


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
            Usage(input_tokens=10, cached_input_tokens=30, cache_write_tokens=20, output_tokens=7),
        ),
        (
            {"input_tokens": 10, "cache_read_input_tokens": None, "output_tokens": 7},
            Usage(input_tokens=10, output_tokens=7),
        ),
        (
            {
                "input_tokens": 10,
                "cache_creation_input_tokens": 20,
                "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 15},
                "output_tokens": 7,
            },
            Usage(input_tokens=10, cache_write_tokens=5, cache_write_1h_tokens=15, output_tokens=7),
        ),
        (
            {
                "input_tokens": 2_600,
                "input_tokens_details": {"cached_tokens": 2_000, "cache_write_tokens": 400},
                "output_tokens": 7,
            },
            Usage(
                input_tokens=200, cached_input_tokens=2_000, cache_write_tokens=400, output_tokens=7
            ),
        ),
        ({"seconds": 3}, None),
    ],
    ids=[
        *("chat", "uncached", "embedding", "responses", "anthropic", "anthropic-plain"),
        *("anthropic-for-an-hour", "openai-written", "other"),
    ],
)
def test_usage_is_understood_by_its_shape(shape: Any, usage: Any, expected: Usage | None) -> None:
    """The vendors' usage objects, or their JSON, become one disjoint usage."""
    assert usage_of(shape({"usage": usage})) == expected


def test_usage_of_this_librarys_answer_is_its_own() -> None:
    """No translation; an answer that reports nothing gives None."""
    used = Usage(input_tokens=1, output_tokens=2)
    assert usage_of(ChatResponse(id="1", model="house", usage=used)) == used
    assert usage_of("text") is None


@pytest.mark.parametrize("shape", [dict, as_object])
@pytest.mark.parametrize(
    ("response", "tier"),
    [
        ({"service_tier": "flex", "usage": None}, "flex"),
        ({"service_tier": "default"}, "standard"),
        ({"usage": {"service_tier": "standard"}}, "standard"),
        ({"usage": {"service_tier": "batch"}}, "batch"),
        ({"service_tier": None}, None),
    ],
)
def test_the_tier_is_where_the_vendor_puts_it(shape: Any, response: Any, tier: str | None) -> None:
    """OpenAI's beside the usage, Anthropic's in it."""
    assert tier_of(shape(response)) == tier


def test_an_answer_without_a_model_has_none() -> None:
    """Nor has one that names it in no words."""
    assert model_of({"model": "small"}) == "small"
    assert model_of({"model": ""}) is model_of("text") is None


def test_tokens_are_estimated_by_bytes() -> None:
    """A Chinese character, of three bytes, is most of a token; half a surrogate pair is no reason to fail."""
    assert [estimated_tokens(text) for text in ("word" * 25, "服务" * 50, "\ud800", "")] == [
        25,
        75,
        1,
        0,
    ]
