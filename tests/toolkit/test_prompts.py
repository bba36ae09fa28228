"""Prompts: their identity, their rendering, and their differences."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_patterns.chat import ChatRequest, Message
from llm_patterns.errors import ConfigurationError
from llm_patterns.toolkit import Prompt, RenderFailed, prompt_diff

TEXTS = st.text(st.sampled_from("ab \n:{}\\\"'é[]-"), max_size=12).filter(
    lambda text: "{{" not in text
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
MESSAGES = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "tool"]),
    content=TEXTS,
    tool_call_id=st.none() | TEXTS,
)
PROMPTS = st.builds(
    Prompt,
    TEXTS.filter(bool) | st.lists(MESSAGES, min_size=1, max_size=2),
    model=st.sampled_from(["small", "large"]),
    settings=st.dictionaries(TEXTS, JSON, max_size=2),
)  # fmt: skip


@settings(max_examples=200)
@given(PROMPTS)
def test_a_prompt_is_its_canonical_form(prompt: Prompt) -> None:
    """Read back, it is the same; and that form is JSON in one spelling."""
    again = Prompt.parse(prompt.canonical)
    assert (again, again.canonical, again.digest) == (prompt, prompt.canonical, prompt.digest)
    assert (again.template, again.model, again.settings) == (
        prompt.template,
        prompt.model,
        prompt.settings,
    )
    spelt = json.dumps(
        json.loads(prompt.canonical), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert spelt == prompt.canonical


@settings(max_examples=300)
@given(PROMPTS, PROMPTS)
def test_a_difference_is_shown_exactly_where_there_is_one(one: Prompt, other: Prompt) -> None:
    """No two prompts that differ read alike, whatever their texts look like."""
    assert (prompt_diff(one, other) == "") == (one.digest == other.digest) == (one == other)


def test_what_means_the_same_has_the_same_digest() -> None:
    """The order of settings, and 1.0 for 1, make no difference; a space does."""
    prompt = Prompt("a", model="m", settings={"top_p": 1, "stop": ["x"]})
    assert Prompt("a", model="m", settings={"stop": ["x"], "top_p": 1.0}).digest == prompt.digest
    assert Prompt("a ", model="m", settings=prompt.settings).digest != prompt.digest
    assert Prompt("a", model="m").digest == Prompt("a", model="m", settings={}).digest
    assert len({prompt, Prompt("a", model="m", settings=prompt.settings)}) == 1


def test_the_digest_is_the_same_in_every_version_of_this_library() -> None:
    """It is written into traces: a change here would orphan them all."""
    prompt = Prompt(
        [Message.system("Be brief."), Message.user("{{question}}")],
        model="gpt-5-mini",
        settings={"temperature": 0.5, "max_tokens": 200},
    )
    assert prompt.canonical == (
        '{"messages":[{"content":"Be brief.","role":"system"},{"content":"{{question}}","role":"user"}],'
        '"model":"gpt-5-mini","settings":{"max_tokens":200,"temperature":0.5}}'
    )
    assert prompt.digest == "e84141f55fc640babcd3d7d81bda388ac0228b9f6cbaab29e8741daf76675e3a"


def test_nobody_can_change_a_prompt() -> None:
    """What it hands out is a copy."""
    settings = {"stop": ["x"]}
    prompt = Prompt("a", model="m", settings=settings)  # type: ignore[arg-type]
    settings["stop"].append("y")
    handed: dict[str, list[str]] = prompt.settings  # type: ignore[assignment]
    handed["stop"].append("z")
    assert prompt.settings == {"stop": ["x"]}
    with pytest.raises(AttributeError):
        prompt.model = "n"  # type: ignore[misc]


def test_variables_are_put_in_everywhere() -> None:
    """In each message, with spaces or without, as often as they are there."""
    prompt = Prompt(
        [
            Message.system("You know {{topic}}."),
            Message.user("{{ topic }}: {{question}} {{topic}}"),
        ],
        model="m",
    )
    assert prompt.variables == {"topic", "question"}
    assert [each.content for each in prompt.render(topic="tax", question="why?")] == [
        "You know tax.",
        "tax: why? tax",
    ]


def test_single_braces_and_dollars_are_text() -> None:
    """JSON needs no escape, nor does a price."""
    prompt = Prompt('{"a": {"b": "{{a}}"}} for $5 %s', model="m")
    assert prompt.render(a="x")[0].content == '{"a": {"b": "x"}} for $5 %s'


def test_escaped_braces_are_braces() -> None:
    """For a prompt about templates."""
    prompt = Prompt(r"Write \{{name}} where {{what}} goes", model="m")
    assert prompt.render(what="a name")[0].content == "Write {{name}} where a name goes"


@given(TEXTS | st.sampled_from(["{{b}}", r"\{{b}}", "{{a}}", r"\g<0>"]))
def test_values_are_never_looked_at(value: str) -> None:
    """A value that looks like a variable stays what it is."""
    prompt = Prompt("<{{a}}|{{b}}>", model="m")
    assert prompt.render(a=value, b="b")[0].content == f"<{value}|b>"


def test_wrong_variables_are_named() -> None:
    """All of them at once, by what is wrong."""
    prompt = Prompt("{{question}} {{tone}} {{length}}", model="m")
    with pytest.raises(RenderFailed) as failed:
        prompt.render(question="why?", tone=None, topic="tax")  # type: ignore[arg-type]
    error = failed.value
    assert (error.missing, error.unknown, error.not_text) == (("length",), ("topic",), ("tone",))
    assert "missing: length; not in the template: topic; not text: tone" in str(error)


@pytest.mark.parametrize(
    "text", ["{{user.name}}", "{{#if x}}", "{{ x | upper }}", "{{}}", "{{1}}", "{{x}", "a {{"]
)
def test_more_than_a_name_is_refused(text: str) -> None:
    """When the prompt is made: it would reach the model as it stands."""
    with pytest.raises(ConfigurationError, match="braces that open no variable"):
        Prompt(text, model="m")


@pytest.mark.parametrize("setting", [float("nan"), float("inf"), {1: "a"}, {"a": b"b"}, [object()]])
def test_a_setting_that_json_has_no_word_for_is_refused(setting: object) -> None:
    """And the message says where it is."""
    with pytest.raises(ConfigurationError, match=r"settings\.x"):
        Prompt("a", model="m", settings={"x": setting})  # type: ignore[dict-item]


@pytest.mark.parametrize(("template", "model"), [("", "m"), ([], "m"), ("a", "")])
def test_an_empty_prompt_is_refused(template: str, model: str) -> None:
    """There is nothing to ask, or nobody."""
    with pytest.raises(ConfigurationError, match="empty"):
        Prompt(template, model=model)


def test_half_a_character_is_refused() -> None:
    """It has no bytes to take a digest of."""
    with pytest.raises(ConfigurationError, match="Unicode"):
        Prompt("\ud83d", model="m")


def test_a_request_is_the_rendered_prompt_with_its_settings() -> None:
    """What goes to a `ChatModel`."""
    prompt = Prompt("Why {{what}}?", model="m", settings={"temperature": 0, "stop": ["x"]})
    assert prompt.request(what="now") == ChatRequest(
        model="m", messages=(Message.user("Why now?"),), temperature=0, stop=("x",)
    )


def test_a_difference_reads_as_a_diff() -> None:
    """Of settings and text, line by line."""
    before = Prompt([Message.system("Be brief.\nBe kind.")], model="m", settings={"temperature": 0})
    after = Prompt([Message.system("Be brief.\nBe exact.")], model="m", settings={"temperature": 1})
    assert prompt_diff(before, after, names=("v1", "v2"), context=1).splitlines() == [
        "--- v1",
        "+++ v2",
        "@@ -1,5 +1,5 @@",
        ' model: "m"',
        "-settings.temperature: 0",
        "+settings.temperature: 1",
        " system:",
        "   Be brief.",
        "-  Be kind.",
        "+  Be exact.",
    ]
    assert "-  a\n+  a " in prompt_diff(Prompt("a", model="m"), Prompt("a ", model="m"))
