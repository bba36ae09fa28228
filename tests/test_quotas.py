"""Rate-limit headers, read by their shape, whoever sends them."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from llm_patterns.chat import ChatRequest, Message
from llm_patterns.errors import RateLimited
from llm_patterns.quotas import Quota, Quotas, quotas_of
from llm_patterns.simulation import RateLimits, SimulatedProvider, simulate
from llm_patterns.simulation.wire.openai import duration

REQUEST = ChatRequest(model="small", messages=(Message.user("Hello"),), max_tokens=10)


def openai(**values: str) -> dict[str, str]:
    """OpenAI's headers of one limit, on requests."""
    return {f"X-RateLimit-{part.title()}-Requests": value for part, value in values.items()}


@pytest.mark.parametrize("seconds", [0.02, 1.5, 59.999, 60.0, 360.0, 3723.0])
def test_a_reset_is_read_as_openai_writes_it(seconds: float) -> None:
    """Milliseconds, seconds, minutes and hours come back as they went out."""
    quotas = quotas_of(openai(limit="10", remaining="1", reset=duration(seconds)))
    assert quotas == Quotas(Quota(10, 1, pytest.approx(seconds)))


def test_a_date_is_seconds_from_now() -> None:
    """Anthropic says when, not how long; the past is now."""

    async def main() -> list[Quotas | None]:
        await asyncio.sleep(30)
        dates = ("2026-01-05T00:01:00Z", "2026-01-05T00:01:00", "2026-01-04T00:00:00Z")
        return [quotas_of(anthropic(reset=date)) for date in dates]

    def anthropic(reset: str) -> dict[str, str]:
        name = "anthropic-ratelimit-tokens"
        return {f"{name}-limit": "100", f"{name}-remaining": "20", f"{name}-reset": reset}

    resets = [quotas.tokens.reset for quotas in simulate(main) if quotas and quotas.tokens]
    assert resets == [30.0, 30.0, 0.0]


def test_of_input_and_output_the_tighter_limit_counts() -> None:
    """Anthropic counts both apart; what is nearer its end decides."""
    headers = {}
    for what, left in (("input", "90"), ("output", "5")):
        headers[f"anthropic-ratelimit-{what}-tokens-limit"] = "100"
        headers[f"anthropic-ratelimit-{what}-tokens-remaining"] = left
    quotas = quotas_of(headers)
    assert quotas == Quotas(None, Quota(100, 5, None))
    assert quotas is not None
    assert quotas.share_left == 0.05


@pytest.mark.parametrize(
    "headers",
    [
        {},
        openai(limit="10"),
        openai(limit="-1", remaining="x"),
        openai(remaining="5", reset="1s"),
    ],
)
def test_what_is_missing_or_unreadable_says_nothing(headers: dict[str, str]) -> None:
    """A limit needs its size and what is left of it, both as whole numbers."""
    assert quotas_of(headers) is None


@pytest.mark.parametrize("reset", ["", "soon", "1x", "s", "12:00"])
def test_an_unreadable_reset_is_none(reset: str) -> None:
    """What is left counts all the same."""
    assert quotas_of(openai(limit="10", remaining="5", reset=reset)) == Quotas(Quota(10, 5, None))


@pytest.mark.parametrize(("remaining", "share"), [("0", 0.0), ("20", 1.0)])
def test_a_share_is_between_nothing_and_all(remaining: str, share: float) -> None:
    """A provider that reports more than the limit has all of it left."""
    quotas = quotas_of(openai(limit="10", remaining=remaining))
    assert quotas is not None
    assert quotas.share_left == share
    assert Quotas(Quota(0, 0)).share_left == 0.0
    assert Quotas().share_left == 1.0


def test_any_object_is_asked_for_its_headers() -> None:
    """Errors of this library and responses of the vendors' SDKs alike."""
    headers = openai(limit="10", remaining="5", reset="1s")
    expected = Quotas(Quota(10, 5, 1.0))
    sources: list[Any] = [
        RateLimited("slow down", status_code=429, headers=headers),
        SimpleNamespace(response=SimpleNamespace(headers=headers)),
        SimpleNamespace(quotas=expected),
    ]
    assert [quotas_of(source) for source in sources] == [expected] * 3
    assert quotas_of(ValueError("no headers at all")) is None


def test_the_simulated_provider_says_what_is_left() -> None:
    """Answers and streams carry it; without limits there is nothing to say."""

    async def main() -> list[Quotas | None]:
        limited = SimulatedProvider(limits=RateLimits(requests_per_minute=60))
        answer = await limited.complete(REQUEST)
        stream = await limited.stream(REQUEST)
        await stream.aclose()
        return [answer.quotas, stream.quotas, (await SimulatedProvider().complete(REQUEST)).quotas]

    complete, stream, unlimited = simulate(main)
    assert complete is not None
    assert complete.requests is not None
    assert complete.requests.remaining == 59
    assert stream is not None
    assert stream.requests is not None
    assert stream.requests.remaining == 58
    assert unlimited is None
