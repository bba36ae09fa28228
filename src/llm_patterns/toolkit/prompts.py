"""What exactly was the model asked, down to the last space and setting, and what differs from yesterday?

A `Prompt` is a template, a model and its settings. It is its canonical form: JSON with sorted keys, no spaces, and
whole numbers without a point. The SHA-256 of that is its `digest`, so that equal prompts have equal digests wherever
and whenever they were written. It cannot be changed, and neither can what it hands out.

A variable is `{{name}}`, and no more than a name: there is no attribute access as in `str.format`, where
`{user.__class__}` reads what nobody meant to show, and a single brace is a brace, since prompts are full of JSON. `$`
is free for prices, which `string.Template` would take for names. `\\{{` stands for the braces themselves. Values are
put in as they are and never looked at again: a value that contains `{{name}}` stays what it is.

>>> prompt = Prompt("Answer {{question}} as {\\"answer\\": ...}.", model="small", settings={"temperature": 0})
>>> prompt.render(question="why?")[0].content
'Answer why? as {"answer": ...}.'
>>> prompt.digest == Prompt(prompt.template, settings={"temperature": 0.0}, model="small").digest
True
>>> print(prompt_diff(prompt, Prompt(prompt.template, model="large", settings={"temperature": 0})))
--- before
+++ after
@@ -1,4 +1,4 @@
-model: "small"
+model: "large"
 settings.temperature: 0
 template:
   Answer {{question}} as {"answer": ...}.

The canonical form follows the idea of RFC 8785 (JSON Canonicalization Scheme), without its rules for numbers that are
not whole.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import unified_diff
from hashlib import sha256
from typing import Final

from pydantic import JsonValue

from llm_patterns.chat import ChatRequest, Message
from llm_patterns.errors import ConfigurationError, LLMPatternsError

__all__ = ["Prompt", "RenderFailed", "prompt_diff"]


class RenderFailed(LLMPatternsError):
    """The values given are not those that the template needs.

    `missing` and `unknown` are names of variables; `not_text` those whose value is no text, such as None.
    """

    def __init__(self, missing: list[str], unknown: list[str], not_text: list[str]) -> None:
        self.missing = tuple(missing)
        self.unknown = tuple(unknown)
        self.not_text = tuple(not_text)
        kinds = {"missing": missing, "not in the template": unknown, "not text": not_text}
        told = [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]
        super().__init__(f"the prompt can't be rendered; variables {'; '.join(told)}")


class Prompt:
    """A template, a model and its settings. Equal if, and only if, the digests are.

    *template* is a text, which is rendered as one message of the user's, or messages. *settings* is whatever else
    decides the answer: temperature, tools, the schema of the answer. Raises `ConfigurationError` for braces that open
    no variable, and for a setting that is not JSON.
    """

    __slots__ = ("_canonical", "_digest", "_model", "_template", "_variables")

    def __init__(
        self,
        template: str | Sequence[Message],
        *,
        model: str,
        settings: Mapping[str, JsonValue] | None = None,
    ) -> None:
        self._template = template if isinstance(template, str) else tuple(template)
        self._model = model
        self._variables = frozenset(_variables(self._template))
        content = {_shape(template): _dumped(self._template), "model": model, "settings": settings}
        self._canonical = _canonical(content)
        self._digest = digest_of(self._canonical)
        if not model or not template:
            raise ConfigurationError("a prompt needs a model and a template; one of them is empty")

    @classmethod
    def parse(cls, canonical: str) -> Prompt:
        """Return the prompt whose canonical form this is."""
        content = json.loads(canonical)
        messages = [Message.model_validate(each) for each in content.get("messages", ())]
        return cls(
            content.get("template") or messages,
            model=content["model"],
            settings=content.get("settings"),
        )

    @property
    def template(self) -> str | tuple[Message, ...]:
        """Return the text, or the messages, with variables in them."""
        return self._template

    @property
    def model(self) -> str:
        """Return the model that it was written for."""
        return self._model

    @property
    def settings(self) -> dict[str, JsonValue]:
        """Return the settings, a copy for each caller."""
        settings: dict[str, JsonValue] = json.loads(self._canonical).get("settings", {})
        return settings

    @property
    def variables(self) -> frozenset[str]:
        """Return the names that `render` needs."""
        return self._variables

    @property
    def canonical(self) -> str:
        """Return all of it as one text, the same for all that are equal."""
        return self._canonical

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the canonical form, in hexadecimal: what a trace should carry."""
        return self._digest

    def render(self, /, **variables: str) -> tuple[Message, ...]:
        """Return the messages with *variables* put in, each exactly once.

        Raises `RenderFailed` where one is missing, unknown to the template, or no text.
        """
        if variables.keys() != self._variables or not all(
            isinstance(value, str) for value in variables.values()
        ):
            raise _failure(self._variables, variables)
        if isinstance(self._template, str):
            return (Message.user(_filled(self._template, variables)),)
        return tuple(
            message.model_copy(update={"content": _filled(message.content, variables)})
            for message in self._template
        )

    def request(self, /, **variables: str) -> ChatRequest:
        """Return the request with *variables* put in; the settings must be those of a `ChatRequest`."""
        messages = self.render(**variables)
        return ChatRequest.model_validate(
            {**self.settings, "model": self._model, "messages": messages}
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prompt) and other._canonical == self._canonical

    def __hash__(self) -> int:
        return hash(self._canonical)

    def __repr__(self) -> str:
        return f"<Prompt {self._digest[:12]} for {self._model}>"


def digest_of(canonical: str) -> str:
    """Return the SHA-256 of *canonical* in hexadecimal."""
    return sha256(canonical.encode()).hexdigest()


def prompt_diff(
    before: Prompt, after: Prompt, *, names: tuple[str, str] = ("before", "after"), context: int = 3
) -> str:
    """Return what differs, as a unified diff of settings and text; empty if, and only if, they are equal."""
    lines = unified_diff(list(_lines(before)), list(_lines(after)), *names, n=context, lineterm="")
    return "\n".join(lines)


# An escape, a variable, or braces that are neither.
_TOKEN: Final = re.compile(r"\\\{\{|\{\{\s*([^\W\d]\w*)\s*\}\}|\{\{")


def _variables(template: str | tuple[Message, ...]) -> Iterator[str]:
    texts = [template] if isinstance(template, str) else [each.content for each in template]
    for text in texts:
        for token in _TOKEN.finditer(text):
            if token[1] is not None:
                yield token[1]
            elif token[0] == "{{":
                raise ConfigurationError(
                    f"braces that open no variable: {text[token.start() : token.start() + 30]!r}; "
                    "a variable is {{name}} and no more, and \\{{ stands for the braces themselves"
                )


def _filled(text: str, variables: Mapping[str, str]) -> str:
    return _TOKEN.sub(lambda token: variables[token[1]] if token[1] else "{{", text)


def _failure(wanted: frozenset[str], given: Mapping[str, object]) -> RenderFailed:
    return RenderFailed(
        sorted(wanted - given.keys()),
        sorted(given.keys() - wanted),
        sorted(name for name in wanted & given.keys() if not isinstance(given[name], str)),
    )


def _shape(template: object) -> str:
    return "template" if isinstance(template, str) else "messages"


def _dumped(template: str | tuple[Message, ...]) -> object:
    if isinstance(template, str):
        return template
    # Without defaults: a field that a later version adds to a message leaves the digests of today's alone.
    return [each.model_dump(mode="json", exclude_defaults=True) for each in template]


def _canonical(content: Mapping[str, object]) -> str:
    given = {name: _plain(value, name) for name, value in content.items() if value}
    text = json.dumps(given, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"a prompt is Unicode text, and this is not: {error}") from None
    return text


def _plain(value: object, where: str) -> JsonValue:
    """Return a copy of *value* as JSON has it, with 1.0 as 1."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(each, f"{where}.{key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, f"{where}[{at}]") for at, each in enumerate(value)]
    raise ConfigurationError(f"{where} is {value!r}, which JSON has no word for")


def _lines(prompt: Prompt) -> Iterator[str]:
    """Yield a prompt line by line; what is indented is text, so that no text reads as a heading."""
    yield f"model: {json.dumps(prompt.model)}"
    for name, value in sorted(prompt.settings.items()):
        yield f"settings.{name}: {json.dumps(value, sort_keys=True, ensure_ascii=False)}"
    if isinstance(prompt.template, str):
        yield "template:"
        yield from _indented(prompt.template)
        return
    for message in prompt.template:
        yield f"{message.role}:"
        yield from _indented(message.content)
        rest = message.model_dump(mode="json", exclude={"role", "content"}, exclude_defaults=True)
        for name, value in rest.items():
            yield f"{name}: {json.dumps(value, sort_keys=True, ensure_ascii=False)}"


def _indented(text: str) -> Iterator[str]:
    return (f"  {line}" for line in text.split("\n"))
