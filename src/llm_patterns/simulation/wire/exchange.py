"""One exchange on the wire: what a request and an answer are, and how a request is refused."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

from pydantic import BaseModel, ValidationError

from llm_patterns.chat import ChatStream
from llm_patterns.errors import ConnectionFailed, InvalidRequest

__all__ = ["BadRequest", "Body", "BrokenBody", "StreamBody", "WireRequest", "WireResponse", "parse"]

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class WireRequest:
    """A request as it came: `headers` has lower-case names."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


class Body(AsyncIterator[bytes]):
    """A body that comes piece by piece. It raises `ConnectionFailed` where the connection shall break."""

    async def aclose(self) -> None:
        """Say that nobody reads any further."""


@dataclass(frozen=True, slots=True)
class WireResponse:
    """An answer, whole or piece by piece."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes | Body


class StreamBody(Body):
    """The events of a streamed answer, which hangs up on the provider when it is closed."""

    def __init__(self, stream: ChatStream, events: AsyncGenerator[bytes, None]) -> None:
        self._stream = stream
        self._events = events

    async def __anext__(self) -> bytes:
        return await anext(self._events)

    async def aclose(self) -> None:
        """Stop the provider's work on the answer, if it may stop."""
        await self._events.aclose()
        await self._stream.aclose()


class BrokenBody(Body):
    """A body that was promised and never comes, because the connection breaks."""

    async def __anext__(self) -> bytes:
        raise ConnectionFailed("the connection broke before the answer was whole")


class BadRequest(InvalidRequest):
    """A body that the format does not allow; `param` is the path of the field."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, status_code=400, code=code)
        self.param = param

    @classmethod
    def of(cls, error: ValidationError) -> Self:
        """Return the refusal for the first field that is wrong."""
        wrong = error.errors(include_url=False, include_input=False)
        field = wrong[0]["loc"][:1]
        # Where a field may be of several kinds, each complains; the deepest came closest.
        first = max((e for e in wrong if e["loc"][:1] == field), key=lambda e: len(e["loc"]))
        param, kind = _path(first["loc"]), first["type"]
        if kind == "json_invalid":
            return cls(f"the body cannot be read as JSON: {first['msg']}")
        if kind == "missing":
            message = f"missing required parameter: {param}"
            return cls(message, param=param, code="missing_required_parameter")
        code = "invalid_type" if kind.endswith("_type") else "invalid_value"
        return cls(f"{param}: {first['msg']}", param=param, code=code)


def parse(model: type[M], body: bytes) -> M:
    """Return *body* as *model*, or raise the `BadRequest` that says why not."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise BadRequest.of(error) from error


def _path(location: tuple[int | str, ...]) -> str:
    """Return `messages.0.content`, without pydantic's names for the kinds that a field may have."""
    return ".".join(str(part) for part in location if isinstance(part, int) or _is_field(part))


def _is_field(part: str) -> bool:
    return part.isidentifier() and not part.startswith("_") and part not in {"str", "int"}
