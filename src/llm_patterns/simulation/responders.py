"""What the simulated model says: a responder turns a request into a reply.

>>> import random
>>> from llm_patterns.chat import ChatRequest, Message
>>> request = ChatRequest(model="small", messages=(Message.user("Hello"),))
>>> scripted("Yes.", "No.")(request, random.Random(0)).text
'Yes.'
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from llm_patterns.chat import ChatRequest, Tool, ToolCall, Usage
from llm_patterns.errors import ConfigurationError
from llm_patterns.simulation.json_schema import instance_of
from llm_patterns.simulation.words import words

__all__ = ["Reply", "Responder", "approximate_tokens", "fixed", "improvised", "scripted"]


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


def improvised(*, output_tokens: int = 60) -> Responder:
    """Return a responder that gives what is asked for: a tool's call, JSON of a schema, or else words.

    A tool is called where `tool_choice` demands one; `auto` gets words. The words make
    *output_tokens* tokens; calls and JSON are as long as they are.

    >>> from llm_patterns.chat import Message
    >>> request = ChatRequest(model="small", messages=(Message.user("Hello"),))
    >>> improvised(output_tokens=3)(request, Random(0)).text
    'use these ne'
    """
    if output_tokens < 1:
        raise ConfigurationError(f"output_tokens is {output_tokens}; it must be at least 1")

    def respond(request: ChatRequest, rng: Random) -> Reply:
        tools = [tool for tool in request.tools if request.tool_choice in {"required", tool.name}]
        if tools:
            return Reply(tool_calls=(_call(rng.choice(tools), rng),))
        if request.response_schema is not None:
            return Reply(json.dumps(instance_of(request.response_schema, rng)))
        return Reply(words(2 * output_tokens, rng)[: 4 * output_tokens])

    return respond


def _call(tool: Tool, rng: Random) -> ToolCall:
    arguments = json.dumps(instance_of(tool.parameters, rng))
    return ToolCall(id=f"call_{rng.getrandbits(48):012x}", name=tool.name, arguments=arguments)


def approximate_tokens(text: str) -> int:
    """Return the tokens of *text*, taken as a quarter of its characters, at least 1.

    For English prose the count of OpenAI's o200k encoding is about three quarters of that; a
    simulation needs a stable rule, not an exact one.

    >>> approximate_tokens("four characters a token")
    6
    """
    return max(1, -(-len(text) // 4))
