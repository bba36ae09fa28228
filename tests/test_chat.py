"""The words everything shares."""

import pytest
from pydantic import ValidationError

from llm_patterns.chat import ChatModel, ChatRequest, ChatStream, Message, Tool, ToolCall, Usage
from llm_patterns.simulation import SimulatedProvider, simulate


def test_messages_are_made_by_role() -> None:
    """Each role has its constructor."""
    call = ToolCall(id="1", name="look_up", arguments="{}")
    made = [
        Message.system("Be brief."),
        Message.user("Hello"),
        Message.assistant(tool_calls=(call,)),
        Message.tool("42", tool_call_id="1"),
    ]
    assert [message.role for message in made] == ["system", "user", "assistant", "tool"]
    assert made[3].tool_call_id == made[2].tool_calls[0].id


def test_usage_adds_up_without_overlap() -> None:
    """What was read from or written to a cache is no input token."""
    one = Usage(
        input_tokens=1,
        cached_input_tokens=2,
        cache_write_tokens=4,
        cache_write_1h_tokens=8,
        output_tokens=16,
    )
    assert ((one + one).total_input_tokens, (one + one).total_tokens) == (30, 62)
    assert one + Usage() == one


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "m", "messages": []},
        {"model": "m", "messages": [{"role": "robot"}]},
        {"model": "m", "messages": [{"role": "user"}], "max_tokens": 0},
        {"model": "m", "messages": [{"role": "user"}], "temperatures": 1},
    ],
)
def test_a_wrong_request_is_refused_when_made(wrong: dict[str, object]) -> None:
    """Not at the provider."""
    with pytest.raises(ValidationError):
        ChatRequest.model_validate(wrong)


def test_requests_are_frozen() -> None:
    """A layer that changes one makes a new one."""
    request = ChatRequest(model="m", messages=(Message.user("Hello"),))
    with pytest.raises(ValidationError, match="frozen"):
        request.model = "other"  # type: ignore[misc]


def test_a_tool_s_name_is_checked() -> None:
    """As both vendors demand it."""
    with pytest.raises(ValidationError):
        Tool(name="look up")


def test_the_provider_is_a_model() -> None:
    """And its streams are streams."""
    provider = SimulatedProvider()
    assert isinstance(provider, ChatModel)

    async def main() -> bool:
        stream = await provider.stream(ChatRequest(model="m", messages=(Message.user("Hello"),)))
        await stream.aclose()
        return isinstance(stream, ChatStream)

    assert simulate(main)
