"""What the application needs to know of a vendor's API."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping

from llm_patterns.chat import ChatRequest
from llm_patterns.errors import ProviderError
from llm_patterns.simulation.wire.exchange import BadRequest, WireRequest, WireResponse

__all__ = ["Dialect", "Handler", "bearer_token", "check_choice"]

Handler = Callable[[WireRequest], Awaitable[WireResponse]]


class Dialect(ABC):
    """One vendor's API: its paths, keys, errors and headers."""

    @property
    @abstractmethod
    def routes(self) -> Mapping[str, tuple[str, Handler]]:
        """Return the method and the handler of each path."""

    @abstractmethod
    def check_key(self, headers: Mapping[str, str], api_key: str) -> None:
        """Raise `AuthenticationFailed` unless *headers* bring *api_key*."""

    @abstractmethod
    def refusal(self, error: ProviderError, request_id: str) -> tuple[int, bytes]:
        """Return the status and body of *error*."""

    @abstractmethod
    def headers(self, request_id: str, error: ProviderError | None) -> dict[str, str]:
        """Return what every answer carries, and what an answer with *error* does."""


def bearer_token(headers: Mapping[str, str]) -> str:
    """Return the key in `authorization`, or nothing."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def check_choice(request: ChatRequest) -> None:
    """Raise `BadRequest` for a `tool_choice` that names no tool of the request."""
    names = [tool.name for tool in request.tools]
    if request.tool_choice in {"auto", "none"} or request.tool_choice in names:
        return
    if request.tool_choice == "required" and names:
        return
    raise BadRequest(
        f"tool_choice asks for {request.tool_choice!r}; the tools are: {', '.join(names) or 'none'}",
        param="tool_choice",
        code="invalid_value",
    )
