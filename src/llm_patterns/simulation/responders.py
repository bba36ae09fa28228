"""What the simulated model says: a responder turns a request into a reply.

>>> import random
>>> from llm_patterns.chat import ChatRequest, Message
>>> request = ChatRequest(model="small", messages=(Message.user("Hello"),))
>>> scripted("Yes.", "No.")(request, random.Random(0)).text
'Yes.'
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from llm_patterns.chat import ChatRequest, ToolCall, Usage
from llm_patterns.errors import ConfigurationError

__all__ = ["Reply", "Responder", "approximate_tokens", "fixed", "scripted"]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer before it is served. Without `usage`, tokens are counted as a quarter of the characters."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None


Responder = Callable[[ChatRequest, Random], Reply]


def fixed(text: str = "OK", *, usage: Usage | None = None) -> Responder:
    """Return a responder that always answers *text*, billed as *usage*."""
    reply = Reply(text, usage=usage)
    return lambda request, rng: reply


def scripted(*replies: str | Reply) -> Responder:
    """Return a responder that gives *replies* in turn, and then the last one again and again."""
    if not replies:
        raise ConfigurationError("scripted() needs at least one reply")
    script = [reply if isinstance(reply, Reply) else Reply(reply) for reply in replies]
    position = iter(range(len(script) - 1))
    return lambda request, rng: script[next(position, len(script) - 1)]


def approximate_tokens(text: str) -> int:
    """Return the tokens of *text*, taken as a quarter of its characters, at least 1.

    For English prose the count of OpenAI's o200k encoding is about three quarters of that; a
    simulation needs a stable rule, not an exact one.

    >>> approximate_tokens("four characters a token")
    6
    """
    return max(1, -(-len(text) // 4))
