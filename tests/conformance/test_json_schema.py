"""Invented JSON is valid, by the reference implementation of JSON Schema."""

from random import Random

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from llm_patterns.simulation.json_schema import instance_of

SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    {"type": "integer", "minimum": 3, "maximum": 5},
    {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
    {"type": "integer", "maximum": -5},
    {"type": "number", "minimum": 0.5, "maximum": 0.75},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 4, "maxItems": 6},
    {"type": "array", "items": {"type": "null"}, "maxItems": 0},
    {"type": "array", "prefixItems": [{"const": 1}, {"const": 2}]},
    {"type": "array", "prefixItems": [{"const": 1}], "items": {"type": "string"}, "minItems": 3},
    {"type": "array", "items": {"type": "integer"}, "minItems": 9},
    {"type": "string", "minLength": 50, "maxLength": 60},
    {"type": "string", "maxLength": 3},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "email"},
    {"type": "string", "format": "uri"},
    {"type": "string", "format": "uuid"},
    {"type": ["null", "string"]},
    {"enum": [1, "two", None]},
    {"const": {"a": [1]}},
    {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    {
        "allOf": [
            {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]},
            {"properties": {"b": {"const": 2}}, "required": ["b"]},
        ]
    },
    {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}},
    {"properties": {"a": {"minimum": 5}}, "required": ["a"]},
    {"items": {"type": "integer"}},
    {},
]


class Node(BaseModel):
    """A schema that refers to itself in each of the ways that pydantic writes."""

    name: str = Field(min_length=3, max_length=12)
    weight: float = Field(gt=0, le=10)
    parent: "Node | None"
    children: list["Node"]
    by_name: dict[str, int]


@pytest.mark.parametrize("schema", [*SCHEMAS, Node.model_json_schema()])
@settings(deadline=None)
@given(seed=st.integers(0, 2**32))
def test_an_instance_is_valid(schema, seed):
    """By the reference implementation of JSON Schema, whatever the chance."""
    value = instance_of(schema, Random(seed))
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(value)
