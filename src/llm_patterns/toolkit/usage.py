"""How many tokens did a call use, at which tier, of which model? Read from any client's answer, by its shape.

The vendors say it in different words that overlap in different ways: OpenAI's prompt tokens include those read from and
written to its cache, Anthropic's input tokens include neither. One `Usage` is made of them whose parts are disjoint
and add up to what the vendor counts. No client is imported.

>>> usage_of({"usage": {"prompt_tokens": 2600, "completion_tokens": 5,
...                     "prompt_tokens_details": {"cached_tokens": 2000, "cache_write_tokens": 400}}})
Usage(input_tokens=200, cached_input_tokens=2000, cache_write_tokens=400, output_tokens=5)

Sources: OpenAI, "Prompt caching"; Anthropic, "Prompt caching".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast

from llm_patterns.chat import Usage

__all__ = [
    "STANDARD",
    "estimated_tokens",
    "field_of",
    "items_of",
    "model_of",
    "tier_of",
    "usage_of",
]

STANDARD: Final = "standard"
"""The tier of an ordinary call, as against `batch`, `flex` or `priority`."""
_NOTHING: Final[Mapping[str, object]] = {}


def usage_of(response: object) -> Usage | None:
    """Return the usage that any client's *response* reports, by its shape, or None.

    Understands this library's, OpenAI's (chat completions, responses, embeddings) and Anthropic's,
    as objects or as decoded JSON. Tokens count alike whether they are text, sound or picture, and
    what OpenAI's cache keeps for twelve hours counts as what it keeps for half an hour.

    >>> usage_of({"usage": {"input_tokens": 20, "cache_read_input_tokens": 80, "output_tokens": 5}})
    Usage(input_tokens=20, cached_input_tokens=80, output_tokens=5)
    """
    usage = field_of(response, "usage")
    if isinstance(usage, Usage) or usage is None:
        return usage
    if field_of(usage, "prompt_tokens") is not None:
        return _openai_usage(usage, "prompt_tokens", "completion_tokens")
    if field_of(usage, "input_tokens_details") is not None:
        return _openai_usage(usage, "input_tokens", "output_tokens")
    if field_of(usage, "input_tokens") is not None:
        return _anthropic_usage(usage)
    return None


def model_of(response: object) -> str | None:
    """Return the model that *response* says has answered, or None."""
    model = field_of(response, "model")
    return model if isinstance(model, str) and model else None


def tier_of(response: object) -> str | None:
    """Return the tier at which *response* says it was served, or None: `standard`, or the vendor's word for another.

    >>> tier_of({"service_tier": "default"}), tier_of({"usage": {"service_tier": "batch"}})
    ('standard', 'batch')
    """
    for holder in (response, field_of(response, "usage")):
        tier = field_of(holder, "service_tier")
        if isinstance(tier, str):
            return STANDARD if tier in {"default", "auto"} else tier
    return None


def estimated_tokens(text: str) -> int:
    """Return about how many tokens *text* is: a quarter of its bytes in UTF-8.

    Beside OpenAI's o200k encoding that is a quarter too much for English prose, within a tenth for Python, Chinese and
    Japanese (where a quarter of the characters would be a third of the tokens), two thirds too much for Russian, and a
    third too little for dense JSON. Pass a tokenizer where that matters.

    >>> estimated_tokens("four bytes a token"), estimated_tokens("")
    (5, 0)
    """
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def items_of(value: object) -> Sequence[object]:
    """Return *value* if it is a sequence, but no text; else nothing."""
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()


def field_of(holder: object, name: str) -> object:
    """Return what an object or a mapping has under *name*, or None."""
    if isinstance(holder, Mapping):
        return holder.get(name)
    fields = getattr(holder, "__dict__", _NOTHING)
    if name in fields:
        return cast(object, fields[name])
    # A pydantic model, such as each chunk of an SDK, is slow to say that it has no such attribute.
    if hasattr(holder, "__pydantic_extra__"):
        return (holder.__pydantic_extra__ or _NOTHING).get(name)
    return getattr(holder, name, None)


def _openai_usage(usage: object, read: str, written: str) -> Usage:
    details = field_of(usage, f"{read}_details")
    cached, kept = _count(details, "cached_tokens"), _count(details, "cache_write_tokens")
    return Usage(
        input_tokens=max(0, _count(usage, read) - cached - kept),
        cached_input_tokens=cached,
        cache_write_tokens=kept,
        output_tokens=_count(usage, written),
    )


def _anthropic_usage(usage: object) -> Usage:
    kept = _count(usage, "cache_creation_input_tokens")
    kept_1h = _count(field_of(usage, "cache_creation"), "ephemeral_1h_input_tokens")
    return Usage(
        input_tokens=_count(usage, "input_tokens"),
        cached_input_tokens=_count(usage, "cache_read_input_tokens"),
        cache_write_tokens=max(0, kept - kept_1h),
        cache_write_1h_tokens=kept_1h,
        output_tokens=_count(usage, "output_tokens"),
    )


def _count(holder: object, name: str) -> int:
    value = field_of(holder, name)
    return value if isinstance(value, int) else 0
