"""The lever panel: one call that is live in a notebook and works on the rendered page without a kernel.

>>> from course.figures import lines
>>> def storm(attempts: int, jitter: str) -> tuple[Figure, dict[str, float]]:
...     load = [attempts * step for step in range(5)]
...     figure = lines({"Load": (range(5), load)}, title=f"{attempts} attempts reach {load[-1]}/s",
...                    x="Time (s)", y="Requests per second", alt="Line chart of a load that grows.")
...     return figure, {"Peak load": load[-1]}
>>> explore(storm, attempts=[1, 2, 3], jitter=["none", "full"])
Levers: attempts 1, 2, 3 (now 1); jitter none, full (now none). 1 attempts reach 4/s. Peak load: 4.

For the page the function is called once for each combination, and what changes is stored once: values are kept
by their path in the figure, each different one a single time.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from pydantic import JsonValue

from course.display import figures_of
from course.figures import Figure

__all__ = ["MIME", "Levers", "explore", "unpack"]

MIME = "application/vnd.llm-patterns.levers+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
MAX_COMBINATIONS = 400

Value = str | int | float | bool
Metrics = Mapping[str, str | int | float]
Drawn = Figure | tuple[Figure, Metrics]


def explore(
    fn: Callable[..., Drawn],
    *,
    default: Mapping[str, Value] | None = None,
    title: str = "Try it",
    labels: Mapping[str, str] | None = None,
    **levers: Sequence[Value],
) -> Levers:
    """A panel with one lever for each keyword, over the figure and numbers that `fn` returns.

    Args:
        fn: called with one value for each lever; returns a figure, or a figure and numbers by name. Equal
            arguments must give equal results: seed what is random. Keep the axes' ranges fixed, or the
            reader cannot see a change.
        default: where the levers stand at first; the first value of each if not given.
        title: the panel's heading.
        labels: a lever's label with its unit, if its name is not enough.
        **levers: the values of each lever, in order.

    Raises:
        ValueError: if a lever has fewer than two values or a default that is none of them, or there are more
            than 400 combinations.
    """
    start = {name: values[0] for name, values in levers.items()} | dict(default or {})
    _validate(levers, start, labels or {})
    names = {name: (labels or {}).get(name, name.replace("_", " ")) for name in levers}
    return Levers(fn, {name: tuple(values) for name, values in levers.items()}, start, names, title)


@dataclass(frozen=True)
class Levers:
    """What `explore` returns; a cell that ends with it shows the panel."""

    fn: Callable[..., Drawn]
    levers: Mapping[str, tuple[Value, ...]]
    default: Mapping[str, Value]
    labels: Mapping[str, str]
    title: str

    def at(self, **values: Value) -> JsonValue:
        """The figure and numbers for these values, as they are drawn."""
        drawn = self.fn(**values)
        figure, metrics = drawn if isinstance(drawn, tuple) else (drawn, {})
        numbers: JsonValue = {name: figures_of(value) for name, value in metrics.items()}
        return {"figure": figure.to_dict(), "numbers": numbers}

    def combinations(self) -> Iterator[dict[str, Value]]:
        """Every combination of the levers' values, the last lever fastest."""
        for values in itertools.product(*self.levers.values()):
            yield dict(zip(self.levers, values, strict=True))

    def to_dict(self) -> dict[str, JsonValue]:
        """The panel for a page without a kernel: the state at the default, and what changes from it."""
        states = [self.at(**values) for values in self.combinations()]
        base = states[[*self.combinations()].index(dict(self.default))]
        return {
            "title": self.title,
            "levers": [
                {
                    "label": self.labels[name],
                    "values": [figures_of(value) for value in values],
                    "kind": "steps" if isinstance(values[0], (int, float)) else "choice",
                    "default": values.index(self.default[name]),
                }
                for name, values in self.levers.items()
            ],
            "state": base,
            "changes": pack(states, base),
        }

    def __repr__(self) -> str:
        return _summary(self, self.at(**self.default))

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> Mapping[str, JsonValue]:
        packed = self.to_dict()
        bundle: dict[str, JsonValue] = {MIME: packed, "text/plain": _summary(self, packed["state"])}
        return bundle | _widgets(self, packed["state"])


def pack(states: Sequence[JsonValue], base: JsonValue) -> list[JsonValue]:
    """What differs from `base`: for each path its different values, and which of them each state has.

    >>> pack([{"a": 1, "b": [1, 2]}, {"a": 1, "b": [1, 3]}], {"a": 1, "b": [1, 2]})
    [{'path': ['b'], 'values': [[1, 2], [1, 3]], 'index': [0, 1]}]
    """
    return list(_changes(list(states), base, []))


def unpack(packed: JsonValue, position: int) -> JsonValue:
    """The state at one combination, put together again as the page does it."""
    copy: Any = json.loads(json.dumps(packed))
    for change in copy["changes"]:
        *path, last = change["path"]
        target = copy["state"]
        for step in path:
            target = target[step]
        target[last] = change["values"][change["index"][position]]
    state: JsonValue = copy["state"]
    return state


def _changes(states: list[Any], base: Any, path: list[str | int]) -> Iterator[JsonValue]:
    if all(state == base for state in states):
        return
    keys = _keys(base)
    if path and (keys is None or any(_keys(state) != keys for state in states)):
        yield _table(states, path)
        return
    for key in keys or []:
        yield from _changes([state[key] for state in states], base[key], [*path, key])


def _keys(value: JsonValue) -> list[str] | list[int] | None:
    """What to go into: an object, or a list of objects. Anything else changes as a whole."""
    if isinstance(value, dict):
        return list(value)
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return list(range(len(value)))
    return None


def _table(states: list[Any], path: list[str | int]) -> JsonValue:
    place: dict[str, int] = {}
    index: list[JsonValue] = [place.setdefault(json.dumps(each), len(place)) for each in states]
    return {"path": [*path], "values": [json.loads(each) for each in place], "index": index}


def _validate(
    levers: Mapping[str, Sequence[Value]], start: Mapping[str, Value], labels: Mapping[str, str]
) -> None:
    for name in [*start, *labels]:
        if name not in levers:
            raise ValueError(f"There is no lever {name!r}; the levers are {', '.join(levers)}.")
    for name, values in levers.items():
        if len(values) < 2 or len({str(value) for value in values}) < len(values):
            raise ValueError(f"The lever {name!r} needs two or more different values: {values}.")
        if start[name] not in values:
            raise ValueError(f"{name}={start[name]!r} is not one of the lever's values: {values}.")
    count = prod(len(values) for values in levers.values())
    if not levers or count > MAX_COMBINATIONS:
        raise ValueError(
            f"{count} combinations; from 2 to {MAX_COMBINATIONS} fit a page. "
            "Give the levers fewer values."
        )


def _summary(panel: Levers, state: Any) -> str:
    levers = "; ".join(
        f"{panel.labels[name]} {', '.join(map(figures_of, values))} "
        f"(now {figures_of(panel.default[name])})"
        for name, values in panel.levers.items()
    )
    title = state["figure"]["layout"]["meta"]["title"]
    shown = "".join(f" {name}: {value}." for name, value in state["numbers"].items())
    return f"Levers: {levers}. {title}.{shown}"


def _widgets(panel: Levers, state: JsonValue) -> dict[str, JsonValue]:
    """The live panel for a notebook with a kernel; nothing where ipywidgets is not installed."""
    try:
        from course.widgets import live  # noqa: PLC0415 - only where there is a kernel
    except ImportError:
        return {}
    return live(panel, state)
