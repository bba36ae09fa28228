"""Every error of the library, and how any client's errors are understood.

```
LLMPatternsError
├── ConfigurationError (ValueError)    a setting that cannot work, found when it is made
├── StoreUnavailable                   where state is kept could not be reached, or did not answer in time
├── ProviderError                      the provider refused or failed, or could not be reached
│   ├── RateLimited                    429: slow down
│   ├── QuotaExhausted                 429 or 402 that waiting won't cure: the credit is used up
│   ├── Overloaded                     503, 529: the provider has too much to do
│   ├── ServerError                    500, 502 and the other 5xx
│   ├── Conflict                       409: a concurrent change; safe to try again
│   ├── RequestTimeout (TimeoutError)  408, 504, or no answer in time
│   ├── ConnectionFailed (ConnectionError)  no connection, or one that broke
│   ├── InvalidRequest                 400, 404, 413, 422: the same request fails everywhere
│   ├── AuthenticationFailed           401, 403
│   └── ContentFiltered                refused for what it says
└── one branch for each pattern, beside the pattern (such as `RetriesExhausted`)
```

An error that stands for a call which was never sent (an open circuit, say) has the kind `REFUSED`: no layer around it
may count it as the provider's failure, and none retries it.

Patterns guard other people's clients too, so they never ask `isinstance`: they ask
`failure_of(error)`, which reads the shape that HTTP clients' errors share (`status_code`,
`response.headers`, the class's name).

>>> from llm_patterns.errors import ErrorKind, Overloaded, failure_of
>>> failure_of(Overloaded("busy", status_code=529)).kind
<ErrorKind.OVERLOADED: 'overloaded'>
>>> failure_of(TimeoutError()).kind
<ErrorKind.TIMEOUT: 'timeout'>
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from enum import StrEnum
from typing import ClassVar

from llm_patterns import clock

__all__ = [
    "AuthenticationFailed",
    "ConfigurationError",
    "Conflict",
    "ConnectionFailed",
    "ContentFiltered",
    "ErrorKind",
    "Failure",
    "InvalidRequest",
    "LLMPatternsError",
    "Overloaded",
    "ProviderError",
    "QuotaExhausted",
    "RateLimited",
    "RequestTimeout",
    "ServerError",
    "StoreUnavailable",
    "error_for_status",
    "failure_of",
    "retry_after_of",
]


class ErrorKind(StrEnum):
    """What went wrong, whoever's client says so."""

    RATE_LIMITED = "rate_limited"
    QUOTA_EXHAUSTED = "quota_exhausted"
    OVERLOADED = "overloaded"
    SERVER = "server"
    CONFLICT = "conflict"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    INVALID_REQUEST = "invalid_request"
    AUTHENTICATION = "authentication"
    CONTENT_FILTERED = "content_filtered"
    REFUSED = "refused"
    """A pattern of this process refused the call before it was sent: nothing was tried, and nothing is billed."""
    UNKNOWN = "unknown"


class LLMPatternsError(Exception):
    """The root: catch this to catch everything that this library raises on purpose."""


class ConfigurationError(LLMPatternsError, ValueError):
    """A setting that cannot work; the message names the value and the remedy."""


class StoreUnavailable(LLMPatternsError):
    """The place where state is kept could not be reached, or did not answer in time.

    Whether what was asked of it happened is not known. It is no failure of a provider's, and its kind is `UNKNOWN`.
    """

    def __init__(self, store: str, reason: str) -> None:
        self.store = store
        self.reason = reason
        super().__init__(f"{store} is not available: {reason}")


class ProviderError(LLMPatternsError):
    """The provider refused or failed, or could not be reached.

    `status_code` is the HTTP status, or None if no answer came; `retry_after` the provider's wish
    in seconds; `code` the vendor's own word for the failure (such as `insufficient_quota`);
    `headers` has lower-case names.
    """

    kind: ClassVar[ErrorKind] = ErrorKind.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        retry_after: float | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.code = code
        self.headers = {name.lower(): value for name, value in (headers or {}).items()}
        self.retry_after = retry_after_of(self.headers) if retry_after is None else retry_after


class RateLimited(ProviderError):
    """A quota of requests or tokens a minute is used up; it refills by itself."""

    kind = ErrorKind.RATE_LIMITED


class QuotaExhausted(ProviderError):
    """The account's credit is used up: an order to a person, not to a retry loop."""

    kind = ErrorKind.QUOTA_EXHAUSTED


class Overloaded(ProviderError):
    """The provider has more work than it can do, whatever your own quota says."""

    kind = ErrorKind.OVERLOADED


class ServerError(ProviderError):
    """The provider broke while working on the request."""

    kind = ErrorKind.SERVER


class Conflict(ProviderError):
    """The request met a concurrent change of the same resource."""

    kind = ErrorKind.CONFLICT


class RequestTimeout(ProviderError, TimeoutError):
    """No answer in time; the provider may still be working, and may still bill."""

    kind = ErrorKind.TIMEOUT


class ConnectionFailed(ProviderError, ConnectionError):
    """No connection could be made, or it broke before the answer was whole."""

    kind = ErrorKind.CONNECTION


class InvalidRequest(ProviderError):
    """The request itself is wrong: it will fail again, here and elsewhere."""

    kind = ErrorKind.INVALID_REQUEST


class AuthenticationFailed(ProviderError):
    """The key is missing, wrong, or may not do this."""

    kind = ErrorKind.AUTHENTICATION


class ContentFiltered(ProviderError):
    """The provider will not answer because of what the request or the answer says."""

    kind = ErrorKind.CONTENT_FILTERED


@dataclass(frozen=True, slots=True)
class Failure:
    """What any client's error says, in this library's words.

    `retry_after` is in seconds from now; `should_retry` is the provider's own verdict (the
    `x-should-retry` header that the OpenAI and Anthropic APIs send), or None where it gave none.
    """

    kind: ErrorKind
    status_code: int | None = None
    retry_after: float | None = None
    should_retry: bool | None = None


_ERRORS: dict[ErrorKind, type[ProviderError]] = {
    cls.kind: cls for cls in ProviderError.__subclasses__()
}
_KIND_OF_STATUS = {
    401: ErrorKind.AUTHENTICATION,
    402: ErrorKind.QUOTA_EXHAUSTED,
    403: ErrorKind.AUTHENTICATION,
    408: ErrorKind.TIMEOUT,
    409: ErrorKind.CONFLICT,
    429: ErrorKind.RATE_LIMITED,
    503: ErrorKind.OVERLOADED,
    504: ErrorKind.TIMEOUT,
    529: ErrorKind.OVERLOADED,
}
# The vendors' own words, which say more than the status, or stand alone in mid-stream.
_KIND_OF_CODE = {
    "insufficient_quota": ErrorKind.QUOTA_EXHAUSTED,
    "billing_error": ErrorKind.QUOTA_EXHAUSTED,
    "contract_spend_limit_reached": ErrorKind.QUOTA_EXHAUSTED,
    "enforced_spend_limit_reached": ErrorKind.QUOTA_EXHAUSTED,
    "content_filter": ErrorKind.CONTENT_FILTERED,
    "content_policy_violation": ErrorKind.CONTENT_FILTERED,
    "rate_limit_exceeded": ErrorKind.RATE_LIMITED,
    "rate_limit_error": ErrorKind.RATE_LIMITED,
    "server_is_overloaded": ErrorKind.OVERLOADED,
    "overloaded_error": ErrorKind.OVERLOADED,
}
# Words that a stream's error may bring, but that say less than a status where there is one.
_KIND_OF_STREAM_CODE = {
    "server_error": ErrorKind.SERVER,
    "api_error": ErrorKind.SERVER,
    "timeout_error": ErrorKind.TIMEOUT,
    "invalid_request_error": ErrorKind.INVALID_REQUEST,
}
# Parts of the class names with which httpx, httpx2, aiohttp, requests and the vendors' SDKs report
# that no answer came. Time-outs come first: the OpenAI SDK's is also a connection error.
_KIND_OF_NAME = (
    ("Timeout", ErrorKind.TIMEOUT),
    ("Connect", ErrorKind.CONNECTION),
    ("NetworkError", ErrorKind.CONNECTION),
    ("RemoteProtocolError", ErrorKind.CONNECTION),
    ("ReadError", ErrorKind.CONNECTION),
    ("WriteError", ErrorKind.CONNECTION),
)


def error_for_status(
    status_code: int,
    message: str,
    *,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> ProviderError:
    """Return the error that an HTTP answer of *status_code* stands for.

    >>> error_for_status(429, "You exceeded your current quota", code="insufficient_quota")
    QuotaExhausted('You exceeded your current quota')
    >>> error_for_status(429, "Slow down", headers={"Retry-After": "7"}).retry_after
    7.0
    """
    return _ERRORS[_kind_of(status_code, code or "")](
        message, status_code=status_code, code=code, headers=headers
    )


def failure_of(error: BaseException) -> Failure:
    """Understand *error*, of this library or of any client, by its shape.

    An `ExceptionGroup` or an unrecognised error is `UNKNOWN`: nothing is retried on a guess.
    """
    status_code = _status_code(error)
    headers = _headers(error)
    retry_after = _non_negative(getattr(error, "retry_after", None))
    return Failure(
        kind=_kind_of_error(error, status_code),
        status_code=status_code,
        retry_after=retry_after_of(headers) if retry_after is None else retry_after,
        should_retry={"true": True, "false": False}.get(headers.get("x-should-retry", "")),
    )


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Return the wait that *headers* (lower-case names) ask for, in seconds from now, or None.

    Reads `retry-after-ms` (milliseconds, OpenAI's), then `retry-after` as seconds or as an HTTP
    date (RFC 9110, section 10.2.3). A date in the past is 0; anything unreadable, negative or not
    finite is None.

    >>> retry_after_of({"retry-after": "2.5"}), retry_after_of({"retry-after-ms": "40"})
    (2.5, 0.04)
    """
    milliseconds = _non_negative(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if value is None:
        return None
    seconds = _non_negative(value)
    return _seconds_until(value) if seconds is None else seconds


def _kind_of(status_code: int, *codes: str) -> ErrorKind:
    for code in codes:
        if code in _KIND_OF_CODE:
            return _KIND_OF_CODE[code]
    if status_code in _KIND_OF_STATUS:
        return _KIND_OF_STATUS[status_code]
    return ErrorKind.SERVER if status_code >= 500 else ErrorKind.INVALID_REQUEST


def _kind_of_error(error: BaseException, status_code: int | None) -> ErrorKind:
    kind = getattr(error, "kind", None)
    if isinstance(kind, ErrorKind):
        return kind
    codes = _codes(error)
    if status_code is not None and status_code >= 400:
        return _kind_of(status_code, *codes)
    for code in codes:
        if kind := (_KIND_OF_CODE | _KIND_OF_STREAM_CODE).get(code):
            return kind
    if isinstance(error, TimeoutError):
        return ErrorKind.TIMEOUT
    if isinstance(error, ConnectionError):
        return ErrorKind.CONNECTION
    return _kind_of_class(cls.__name__ for cls in type(error).__mro__)


def _kind_of_class(names: Iterable[str]) -> ErrorKind:
    ancestry = list(names)
    for part, kind in _KIND_OF_NAME:
        if any(part in name for name in ancestry):
            return kind
    return ErrorKind.UNKNOWN


def _status_code(error: BaseException) -> int | None:
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status"):
            value = getattr(holder, name, None)
            if isinstance(value, int):
                return int(value)
    code = getattr(error, "code", None)  # google-genai's; elsewhere a number of another kind
    return int(code) if isinstance(code, int) and 400 <= code <= 599 else None


def _headers(error: BaseException) -> Mapping[str, str]:
    for holder in (error, getattr(error, "response", None)):
        headers = getattr(holder, "headers", None)
        if isinstance(headers, Mapping):
            return {str(name).lower(): str(value) for name, value in headers.items()}
    return {}


def _codes(error: BaseException) -> list[str]:
    """Return the vendor's words for *error*, the most specific first."""
    words = (getattr(error, name, None) for name in ("error_code", "code", "type"))
    return [word for word in words if isinstance(word, str)]


def _non_negative(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, str | int | float) else -1.0
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < float("inf") else None


def _seconds_until(date: str) -> float | None:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - a sixth of the import's time

    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:  # the zone -0000, which is UTC too
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - clock.now())
