"""The types of prompts and their registry; checked by mypy, never run."""

from typing import assert_type

from pydantic import JsonValue

from llm_patterns.chat import ChatModel, ChatRequest, Message
from llm_patterns.toolkit import (
    LabelMove,
    MemoryPromptStore,
    Prompt,
    PromptRegistry,
    PromptSave,
    PromptStore,
    PromptVersion,
    RegistryEvent,
    ServedPrompt,
    SQLPromptStore,
    StaleServed,
)


async def a_call(registry: PromptRegistry, model: ChatModel) -> None:
    """From a label to an answer."""
    served = await registry.get("answer")
    assert_type(served, ServedPrompt)
    assert_type(served.version, PromptVersion)
    assert_type(served.prompt.render(question="why?"), tuple[Message, ...])
    request = served.prompt.request(question="why?")
    assert_type(request, ChatRequest)
    await model.complete(request)
    served.prompt.render(question=1)  # type: ignore[arg-type]


async def changes(registry: PromptRegistry, prompt: Prompt) -> None:
    """Whoever changes something signs."""
    version = await registry.save("answer", prompt, by="ada")
    assert_type(
        await registry.move("answer", "canary", version.number, by="ada", why=""), LabelMove
    )
    assert_type(await registry.rollback("answer", by="ada", why=""), LabelMove)
    assert_type(await registry.history("answer"), list[PromptSave | LabelMove])
    assert_type(prompt.settings, dict[str, JsonValue])
    await registry.save("answer", prompt)  # type: ignore[call-arg]
    prompt.model = "other"  # type: ignore[misc]


def hook(event: RegistryEvent) -> None:
    """What is heard can be told apart."""
    if isinstance(event, StaleServed):
        assert_type(event.age, float)
    else:
        assert_type(event, PromptSave | LabelMove)


def stores(sql: SQLPromptStore) -> None:
    """Each is a store; a URL opens one."""
    each: list[PromptStore] = [MemoryPromptStore(), sql]
    PromptRegistry(each[0], on_event=hook)
    PromptRegistry("sqlite:///prompts.db")
    PromptRegistry(7)  # type: ignore[arg-type]
