"""Who charges what for the same answer: the vendors' own bodies, priced by the tracker's rules and by the peers'.

genai-prices, whose prices the tracker uses, reads the bodies itself here; litellm has a price table of its own.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from course.benchmarks import Row
from llm_patterns.toolkit import price_of, usage_of
from llm_patterns.toolkit.usage import STANDARD, tier_of

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = (
    "True"  # or it looks for newer prices, over the network
)

PEERS = ("genai-prices", "litellm")
ROUNDS = 1
AT = datetime(2026, 11, 23, tzinfo=UTC)
LATER = datetime(2027, 1, 5, tzinfo=UTC)


class Case(NamedTuple):
    """An answer, by whom, at which tier and when."""

    name: str
    provider: str
    body: Mapping[str, Any]
    tier: str | None = None
    at: datetime = AT


def openai(model: str, read: int, *, cached: int = 0, kept: int = 0, **body: Any) -> dict[str, Any]:
    """Return OpenAI's body of an answer of 300 tokens."""
    details = {"cached_tokens": cached, "cache_write_tokens": kept}
    usage = {"prompt_tokens": read, "completion_tokens": 300, "total_tokens": read + 300}
    return {"model": model, "usage": {**usage, "prompt_tokens_details": details}, **body}


def anthropic(model: str, read: int, *, cached: int = 0, kept: tuple[int, int] = (0, 0)) -> Any:
    """Return Anthropic's body of an answer of 300 tokens; *kept* is for five minutes and for an hour."""
    usage = {
        "input_tokens": read,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": sum(kept),
        "cache_creation": {
            "ephemeral_5m_input_tokens": kept[0],
            "ephemeral_1h_input_tokens": kept[1],
        },
        "output_tokens": 300,
    }
    return {"model": model, "usage": usage}


LUNA, SONNET, DATED = "gpt-6-luna", "claude-sonnet-5-5", "gpt-4o-2024-08-06"
CASES = [
    Case("OpenAI, plain", "openai", openai(LUNA, 2_600)),
    Case("OpenAI, a dated name", "openai", openai(DATED, 2_600)),
    Case("OpenAI, cached", "openai", openai(LUNA, 2_600, cached=2_000)),
    Case("OpenAI, cached and written", "openai", openai(LUNA, 2_600, cached=2_000, kept=400)),
    Case("OpenAI, past the threshold", "openai", openai(LUNA, 300_000, cached=100_000)),
    Case("OpenAI, flex", "openai", openai(LUNA, 2_600, service_tier="flex")),
    Case("OpenAI, priority", "openai", openai(LUNA, 2_600, service_tier="priority")),
    Case("OpenAI, batch", "openai", openai(LUNA, 2_600, cached=2_000), "batch"),
    Case(
        "OpenAI, batch of gpt-4o, cached", "openai", openai("gpt-4o", 2_600, cached=2_000), "batch"
    ),
    Case("Anthropic, plain", "anthropic", anthropic(SONNET, 600)),
    Case("Anthropic, cached", "anthropic", anthropic(SONNET, 600, cached=2_000)),
    Case("Anthropic, written", "anthropic", anthropic(SONNET, 600, kept=(2_000, 0))),
    Case("Anthropic, written for an hour", "anthropic", anthropic(SONNET, 600, kept=(0, 2_000))),
    Case("Anthropic, batch, cached", "anthropic", anthropic(SONNET, 600, cached=2_000), "batch"),
    Case("Google, a price of next year", "google", openai("gemini-4-argon", 2_600), at=LATER),
]


def ours(case: Case) -> str:
    """Return what the tracker charges."""
    usage, model = usage_of(case.body), case.body["model"]
    assert usage is not None
    tier = case.tier or tier_of(case.body) or STANDARD
    return str(price_of(usage, model, provider=case.provider, tier=tier, at=case.at).normalize())


def genai(case: Case) -> str:
    """Return what genai-prices charges for what it reads from the body; a tier it has to be told."""
    import genai_prices  # noqa: PLC0415

    if case.provider == "anthropic":
        reader, flavour, body = "anthropic", "default", dict(case.body)
    else:  # also Google's, which speaks this format too
        reader, flavour, body = "openai", "chat", {**case.body, "model": LUNA}
    read = genai_prices.extract_usage(body, provider_id=reader, api_flavor=flavour)
    tier = case.tier or case.body.get("service_tier")
    context = {"processing" if tier == "batch" else "service_tier": tier} if tier else None
    priced = genai_prices.calc_price(
        read.usage,
        case.body["model"],
        provider_id=case.provider,
        genai_request_timestamp=case.at,
        price_context=context,
    )
    return str(priced.total_price.normalize())


def litellm_charges(case: Case) -> float:
    """Return what litellm charges: a float."""
    import litellm  # noqa: PLC0415
    from litellm.cost_calculator import batch_cost_calculator  # noqa: PLC0415
    from litellm.llms.anthropic.chat.transformation import AnthropicConfig  # noqa: PLC0415

    model = case.body["model"]
    if case.provider == "anthropic":
        usage = AnthropicConfig().calculate_usage(case.body["usage"], reasoning_content=None)
    else:
        usage = litellm.Usage(**case.body["usage"])
    provider = {"google": "gemini"}.get(case.provider, case.provider)
    if case.tier == "batch":
        return float(sum(batch_cost_calculator(usage, model, custom_llm_provider=provider)))
    response = litellm.ModelResponse(model=model, usage=usage)
    tier = case.body.get("service_tier")
    return float(
        litellm.completion_cost(
            response, model=model, custom_llm_provider=provider, service_tier=tier
        )
    )


def measure() -> list[Row]:
    """Return the dollars for each answer, exact ones as text."""
    return [
        {
            "Answer": case.name,
            "CostTracker": ours(case),
            "genai-prices": genai(case),
            "litellm": litellm_charges(case),
        }
        for case in CASES
    ]
