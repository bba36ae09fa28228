"""How much of a rate limit is left, as a provider's headers say it.

Two spellings are understood: OpenAI's, which most compatible servers share, and Anthropic's.

>>> headers = {"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "25",
...            "x-ratelimit-reset-requests": "6m0s"}
>>> quotas = quotas_of(headers)
>>> quotas.requests
Quota(limit=500, remaining=25, reset=360.0)
>>> quotas.share_left
0.05
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from llm_patterns import clock

__all__ = ["Quota", "Quotas", "quotas_of"]


class Quota(NamedTuple):
    """One limit: `reset` is the seconds until it is whole again, or None where that was not said."""

    limit: int
    remaining: int
    reset: float | None = None


class Quotas(NamedTuple):
    """The limits on requests and on tokens, each None where it was not said.

    `tokens` is the limit on all of them, or where a provider counts input and output apart, the one with less left.
    """

    requests: Quota | None = None
    tokens: Quota | None = None

    @property
    def share_left(self) -> float:
        """Return the smallest share that is left of any limit, 0 to 1; 1 where there is none."""
        return min((_share(quota) for quota in self if quota is not None), default=1.0)


def quotas_of(source: object) -> Quotas | None:
    """Return the quotas that *source* tells of: headers, an answer, a stream or an error of any client; or None.

    An object is asked for `quotas`, then for `headers`, then for its response's. Headers' names may have any case.
    """
    quotas = getattr(source, "quotas", None)
    if isinstance(quotas, Quotas):
        return quotas
    headers = _headers(source)
    requests = _tightest(_read(headers, "requests"))
    tokens = _tightest(
        quota
        for what in ("tokens", "input-tokens", "output-tokens")
        for quota in _read(headers, what)
    )
    return Quotas(requests, tokens) if requests or tokens else None


def _share(quota: Quota) -> float:
    return min(1.0, max(0.0, quota.remaining / quota.limit)) if quota.limit > 0 else 0.0


def _headers(source: object) -> Mapping[str, str]:
    for holder in (
        source,
        getattr(source, "headers", None),
        getattr(getattr(source, "response", None), "headers", None),
    ):
        if isinstance(holder, Mapping):
            return {str(name).lower(): str(value) for name, value in holder.items()}
    return {}


def _read(headers: Mapping[str, str], what: str) -> Iterator[Quota]:
    for spelling in ("x-ratelimit-{part}-{what}", "anthropic-ratelimit-{what}-{part}"):
        limit, remaining, reset = (
            headers.get(spelling.format(what=what, part=part), "")
            for part in ("limit", "remaining", "reset")
        )
        if limit.isdecimal() and remaining.isdecimal():
            yield Quota(int(limit), int(remaining), _seconds(reset))


def _tightest(quotas: Iterator[Quota]) -> Quota | None:
    return min(quotas, key=_share, default=None)


_DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")


def _seconds(reset: str) -> float | None:
    """Read a reset: a duration such as `6m0s` or `20ms`, bare seconds, or a date (RFC 3339)."""
    if (parts := _DURATION.fullmatch(reset)) and reset:
        hours, minutes, seconds, milliseconds = (float(part or 0) for part in parts.groups())
        return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    try:
        return float(reset) if reset.replace(".", "", 1).isdecimal() else _seconds_until(reset)
    except ValueError:
        return None


def _seconds_until(date: str) -> float:
    moment = datetime.fromisoformat(date)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - clock.now())
