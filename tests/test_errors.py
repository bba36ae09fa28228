"""Any client's error is understood by its shape."""

import asyncio
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from types import SimpleNamespace

import httpx
import pytest

from llm_patterns import errors
from llm_patterns.errors import (
    ErrorKind,
    LLMPatternsError,
    ProviderError,
    error_for_status,
    failure_of,
)
from llm_patterns.simulation import simulate

KINDS = {
    400: ErrorKind.INVALID_REQUEST,
    401: ErrorKind.AUTHENTICATION,
    402: ErrorKind.QUOTA_EXHAUSTED,
    403: ErrorKind.AUTHENTICATION,
    404: ErrorKind.INVALID_REQUEST,
    408: ErrorKind.TIMEOUT,
    409: ErrorKind.CONFLICT,
    413: ErrorKind.INVALID_REQUEST,
    422: ErrorKind.INVALID_REQUEST,
    429: ErrorKind.RATE_LIMITED,
    500: ErrorKind.SERVER,
    502: ErrorKind.SERVER,
    503: ErrorKind.OVERLOADED,
    504: ErrorKind.TIMEOUT,
    520: ErrorKind.SERVER,
    529: ErrorKind.OVERLOADED,
}


@pytest.mark.parametrize(("status", "kind"), KINDS.items())
def test_a_status_is_a_kind(status: int, kind: ErrorKind) -> None:
    """For our own errors, and for anything with a `status_code` or a response."""

    class Theirs(Exception):
        """Another client's."""

    own = error_for_status(status, "no")
    assert (own.kind, own.status_code) == (kind, status)
    assert failure_of(own).kind is kind
    direct, inside = Theirs(), Theirs()
    direct.status_code = status  # type: ignore[attr-defined]
    inside.response = SimpleNamespace(status_code=status, headers={})  # type: ignore[attr-defined]
    assert failure_of(direct).kind is failure_of(inside).kind is kind


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, "insufficient_quota", ErrorKind.QUOTA_EXHAUSTED),
        (400, "content_filter", ErrorKind.CONTENT_FILTERED),
        (400, "content_policy_violation", ErrorKind.CONTENT_FILTERED),
    ],
)
def test_the_vendor_s_word_wins_over_the_status(status: int, code: str, kind: ErrorKind) -> None:
    """A 429 that waiting will not cure is not a rate limit."""
    assert error_for_status(status, "no", code=code).kind is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), ErrorKind.TIMEOUT),
        (ConnectionResetError(), ErrorKind.CONNECTION),
        (httpx.ReadTimeout("slow"), ErrorKind.TIMEOUT),
        (httpx.ConnectTimeout("slow"), ErrorKind.TIMEOUT),
        (httpx.ConnectError("refused"), ErrorKind.CONNECTION),
        (httpx.ReadError("reset"), ErrorKind.CONNECTION),
        (httpx.RemoteProtocolError("cut"), ErrorKind.CONNECTION),
        (ValueError("a bug"), ErrorKind.UNKNOWN),
        (ExceptionGroup("several", [TimeoutError()]), ErrorKind.UNKNOWN),
        (asyncio.CancelledError(), ErrorKind.UNKNOWN),
    ],
    ids=repr,
)
def test_errors_without_a_status_are_known_by_their_class(
    error: BaseException, kind: ErrorKind
) -> None:
    """What is not known is not guessed."""
    assert failure_of(error).kind is kind


def test_an_http_client_s_error_is_read_whole() -> None:
    """httpx's, with its response's headers."""
    request = httpx.Request("POST", "http://provider")
    response = httpx.Response(429, headers={"Retry-After": "3", "X-Should-Retry": "true"})
    failure = failure_of(httpx.HTTPStatusError("slow down", request=request, response=response))
    assert failure == errors.Failure(
        ErrorKind.RATE_LIMITED, 429, retry_after=3.0, should_retry=True
    )


@pytest.mark.parametrize(
    ("code", "kind"),
    [(429, ErrorKind.RATE_LIMITED), (1006, ErrorKind.UNKNOWN), (1, ErrorKind.UNKNOWN)],
)
def test_a_numeric_code_is_a_status_only_where_it_can_be(code: int, kind: ErrorKind) -> None:
    """google-genai's error has its status there; a WebSocket's has its reason for closing."""
    error = Exception("failed")
    error.code = code  # type: ignore[attr-defined]
    assert failure_of(error).kind is kind


@pytest.mark.parametrize("wish", [float("nan"), float("inf"), -5, "soon", None])
def test_a_clients_own_wait_that_makes_no_sense_is_ignored(wish: object) -> None:
    """A wait that is no number, negative or endless would break the backoff."""
    error = Exception("failed")
    error.retry_after = wish  # type: ignore[attr-defined]
    assert failure_of(error).retry_after is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_each_form(headers: dict[str, str], seconds: float | None) -> None:
    """Garbage is no wish."""
    assert errors.retry_after_of(headers) == seconds


def test_a_date_is_counted_from_the_simulated_time_of_day() -> None:
    """An hour later it is an hour less, and in the past it is nothing."""
    noon = datetime(2026, 1, 5, 12, tzinfo=UTC)
    headers = {"retry-after": format_datetime(noon, usegmt=True)}

    async def main() -> list[float | None]:
        waits = [errors.retry_after_of(headers)]
        await asyncio.sleep(3600)
        waits.append(errors.retry_after_of(headers))
        await asyncio.sleep(86_400)
        return [*waits, errors.retry_after_of(headers)]

    assert simulate(main) == [12 * 3600, 11 * 3600, 0]


def test_a_date_without_a_zone_is_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever zone the machine is in: RFC 5322's `-0000` says no more than that."""
    set_zone = getattr(
        time, "tzset", lambda: None
    )  # where there is none, the machine's own zone stands
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    set_zone()
    try:

        async def main() -> float | None:
            return errors.retry_after_of({"retry-after": "Mon, 05 Jan 2026 00:00:10 -0000"})

        assert simulate(main) == 10
    finally:
        monkeypatch.undo()
        set_zone()


def test_cancellation_is_nobodys_failure() -> None:
    """It is never taken for something that may be tried again."""
    assert failure_of(asyncio.CancelledError()).kind is ErrorKind.UNKNOWN


def test_the_providers_wish_is_an_attribute() -> None:
    """Headers are kept in lower case, and read once."""
    error = error_for_status(503, "busy", headers={"Retry-After": "4", "X-Request-Id": "a"})
    assert (error.retry_after, error.headers["x-request-id"]) == (4.0, "a")
    assert ProviderError("no", retry_after=1.0).retry_after == 1.0


def test_one_root_catches_all() -> None:
    """And the standard library's classes catch theirs."""
    assert issubclass(errors.RequestTimeout, TimeoutError)
    assert issubclass(errors.ConnectionFailed, ConnectionError)
    assert issubclass(errors.ConfigurationError, ValueError)
    public = [getattr(errors, name) for name in errors.__all__]
    raised = [each for each in public if isinstance(each, type) and issubclass(each, Exception)]
    assert all(issubclass(each, LLMPatternsError) for each in raised)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Every error class stands there."""
    for name in errors.__all__:
        cls = getattr(errors, name)
        if isinstance(cls, type) and issubclass(cls, Exception):
            assert name in (errors.__doc__ or "")
