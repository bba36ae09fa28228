"""Values that a JSON Schema allows, for a model that answers in JSON.

>>> schema = {"type": "object", "properties": {"city": {"enum": ["Oslo"]}, "days": {"const": 3}}}
>>> instance_of(schema, Random(0))
{'city': 'Oslo', 'days': 3}

Understood are `type`, `properties`, `items` and `prefixItems`, `enum`, `const`, `anyOf`, `oneOf`,
`allOf`, references within the schema, bounds of numbers, strings and arrays, and the common
`format`s. Not understood are `pattern`, `not` and conditions: their instances may not be valid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from math import ceil, floor
from random import Random
from typing import Final, cast
from uuid import UUID

from pydantic import JsonValue

from llm_patterns.simulation.words import words

__all__ = ["instance_of"]

Schema = Mapping[str, JsonValue]

_MAX_DEPTH: Final = 3
"""Where a schema refers to itself, instances end at this depth as soon as the schema lets them."""


def instance_of(schema: Schema, rng: Random) -> JsonValue:
    """Return a value of *schema* with all its properties, drawn from *rng*."""
    return _Maker(schema, rng).make(schema, 0)


class _Maker:
    def __init__(self, root: Schema, rng: Random) -> None:
        self._root = root
        self._rng = rng

    def make(self, schema: Schema, depth: int) -> JsonValue:
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        if choices := _list(schema, "enum"):
            return self._rng.choice(choices)
        make: Callable[[Schema, int], JsonValue] = getattr(self, f"_{_kind(schema, depth)}")
        return make(schema, depth)

    def _resolved(self, schema: Schema, depth: int) -> Schema:
        """Return *schema* with references followed, alternatives chosen and parts merged."""
        while True:
            schema = _merged([schema, *_schemas(schema, "allOf")])
            if isinstance(reference := schema.get("$ref"), str):
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = _merged([self._referred(reference), rest])
            elif choices := _schemas(schema, "anyOf") or _schemas(schema, "oneOf"):
                rest = {key: value for key, value in schema.items() if key not in _CHOICES}
                schema = _merged([rest, self._chosen(choices, depth)])
            else:
                return schema

    def _chosen(self, choices: list[Schema], depth: int) -> Schema:
        ends = [choice for choice in choices if choice.get("type") not in {None, "object", "array"}]
        return self._rng.choice(ends if depth > _MAX_DEPTH and ends else choices)

    def _referred(self, reference: str) -> Schema:
        steps = reference.removeprefix("#").split("/")[1:]
        names = [step.replace("~1", "/").replace("~0", "~") for step in steps]
        return reduce(lambda at, name: cast(Schema, at[name]), names, self._root)

    def _object(self, schema: Schema, depth: int) -> JsonValue:
        properties = cast("Mapping[str, Schema]", schema.get("properties") or {})
        required = _list(schema, "required")
        return {
            name: self.make(part, depth + 1)
            for name, part in properties.items()
            if depth <= _MAX_DEPTH or name in required
        }

    def _array(self, schema: Schema, depth: int) -> JsonValue:
        first = [self.make(part, depth + 1) for part in _schemas(schema, "prefixItems")]
        fewest = max(_number(schema, "minItems", 0), 0 if depth > _MAX_DEPTH else 1)
        most = _number(schema, "maxItems", fewest + 2 if depth <= _MAX_DEPTH else fewest)
        rest = schema.get("items", {})
        if not isinstance(rest, dict) or (first and "items" not in schema):
            return first
        count = self._rng.randint(int(min(fewest, most)), int(most)) - len(first)
        return [*first, *(self.make(rest, depth + 1) for _ in range(count))]

    def _integer(self, schema: Schema, depth: int) -> int:
        low, high = _bounds(schema, 1)
        return self._rng.randint(ceil(low), max(ceil(low), floor(high)))

    def _number(self, schema: Schema, depth: int) -> float:
        return round(self._rng.uniform(*_bounds(schema, 0.01)), 2)

    def _boolean(self, schema: Schema, depth: int) -> bool:
        return self._rng.random() < 0.5

    def _null(self, schema: Schema, depth: int) -> None:
        return None

    def _string(self, schema: Schema, depth: int) -> str:
        day = f"2026-{self._rng.randint(1, 12):02}-{self._rng.randint(1, 28):02}"
        match schema.get("format"):
            case "date":
                return day
            case "date-time":
                return f"{day}T12:00:00Z"
            case "email":
                return f"{words(1, self._rng)}@example.com"
            case "uri":
                return f"https://example.com/{words(1, self._rng)}"
            case "uuid":
                return str(UUID(int=self._rng.getrandbits(128), version=4))
        return self._text(schema)

    def _text(self, schema: Schema) -> str:
        fewest = int(_number(schema, "minLength", 0))
        most = int(_number(schema, "maxLength", max(fewest, 40)))
        return words(max(2, fewest), self._rng)[: max(fewest, min(most, 20))]


_CHOICES: Final = ("anyOf", "oneOf")
_KINDS: Final = {"object", "array", "integer", "number", "boolean", "null", "string"}


def _kind(schema: Schema, depth: int) -> str:
    kinds = _list(schema, "type") or [schema.get("type")]
    kind = "null" if "null" in kinds and depth > _MAX_DEPTH else kinds[0]
    if kind in _KINDS:
        return str(kind)
    implied = {"properties": "object", "items": "array", "minimum": "number"}
    return next((kind for key, kind in implied.items() if key in schema), "string")


def _bounds(schema: Schema, step: float) -> tuple[float, float]:
    """Return the least and the greatest number; *step* is the least distance from an open bound."""
    low = _number(schema, "minimum", _number(schema, "exclusiveMinimum", -step) + step)
    high = _number(schema, "maximum", _number(schema, "exclusiveMaximum", low + 100 + step) - step)
    if "minimum" not in schema and "exclusiveMinimum" not in schema:
        low = min(0.0, high)
    return low, max(low, high)


def _merged(schemas: list[Schema]) -> Schema:
    result: dict[str, JsonValue] = {}
    for schema in schemas:
        for key, value in schema.items():
            earlier = result.get(key)
            if isinstance(earlier, dict) and isinstance(value, dict):
                result[key] = {**earlier, **value}
            elif key == "required" and isinstance(earlier, list) and isinstance(value, list):
                result[key] = [*earlier, *value]
            elif key != "allOf":
                result[key] = value
    return result


def _schemas(schema: Schema, key: str) -> list[Schema]:
    return [each for each in _list(schema, key) if isinstance(each, dict)]


def _list(schema: Schema, key: str) -> list[JsonValue]:
    value = schema.get(key)
    return value if isinstance(value, list) else []


def _number(schema: Schema, key: str, default: float) -> float:
    value = schema.get(key)
    return value if isinstance(value, int | float) else default
