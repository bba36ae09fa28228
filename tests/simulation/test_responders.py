"""Invented answers are what the request asks for, and the same for the same chance."""

import json
from random import Random

import pytest

from llm_patterns.chat import ChatRequest, Message, Tool
from llm_patterns.errors import ConfigurationError
from llm_patterns.simulation import approximate_tokens, improvised
from llm_patterns.simulation.json_schema import instance_of


def test_the_same_chance_gives_the_same_instance():
    """And another one another."""
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 9}
    first, same, other = (instance_of(schema, Random(seed)) for seed in (1, 1, 2))
    assert first == same != other


def test_a_schema_that_never_ends_is_cut():
    """Recursion stops where the schema allows it to."""
    schema = {
        "$ref": "#/$defs/n",
        "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}},
    }
    assert len(json.dumps(instance_of(schema, Random(0)))) < 1000


def ask(**request):
    return ChatRequest(model="small", messages=(Message.user("Hello"),), **request)


def test_words_have_the_length_asked_for():
    """In the simulation's own tokens."""
    text = improvised(output_tokens=25)(ask(), Random(0)).text
    assert approximate_tokens(text) == 25
    assert text == improvised(output_tokens=25)(ask(), Random(0)).text


def test_a_tool_is_called_when_demanded_and_only_then():
    """`required` takes any, a name that one, `auto` none."""
    tools = (Tool(name="one"), Tool(name="two"))
    called = improvised()(ask(tools=tools, tool_choice="two"), Random(0)).tool_calls
    assert [call.name for call in called] == ["two"]
    names = {
        improvised()(ask(tools=tools, tool_choice="required"), Random(seed)).tool_calls[0].name
        for seed in range(20)
    }
    assert names == {"one", "two"}
    assert improvised()(ask(tools=tools), Random(0)).tool_calls == ()


def test_a_schema_is_answered_in_json():
    """Where the request asks for one."""
    reply = improvised()(ask(response_schema={"const": [1]}), Random(0))
    assert reply.text == "[1]"


def test_an_answer_without_words_is_refused():
    """At construction."""
    with pytest.raises(ConfigurationError, match="output_tokens is 0"):
        improvised(output_tokens=0)
