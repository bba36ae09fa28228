"""The lever panel: what the page puts together equals what Python computes, at every point."""

import json
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course import Figure, explore, lines
from course.levers import MIME, WIDGET, Drawn, pack, unpack

LEVERS = {"attempts": [1, 2, 3, 5], "ratio": [0.01, 0.1, 0.5], "jitter": ["none", "full"]}


def storm(attempts: int, ratio: float, jitter: str) -> Drawn:
    """A small scenario in which every lever matters."""
    load = [attempts * step * ratio + (jitter == "full") for step in range(6)]
    series = {"Load": (range(6), load)}
    if attempts > 2:
        series["Base"] = (range(6), [1.0] * 6)
    figure = lines(
        series,
        title=f"{attempts} attempts reach {max(load):.1f}",
        x="Time (s)",
        y="Load (1/s)",
        y_range=(0, 20),
        alt=f"Line chart of a load up to {max(load):.1f}.",
    )
    return figure, {"Peak": max(load), "Jitter": jitter}


def test_every_point_of_the_grid_equals_the_live_result() -> None:
    """Unpacked, each combination is exactly what the function gives for it."""
    panel = explore(storm, **LEVERS, default={"attempts": 3})
    packed = json.loads(json.dumps(panel._repr_mimebundle_()[MIME]))
    for at, values in enumerate(panel.combinations()):
        assert unpack(packed, at) == json.loads(json.dumps(panel.at(**values)))


def test_the_function_runs_once_for_each_combination() -> None:
    """Storing a panel costs its grid, once."""
    calls = count()

    def counted(attempts: int, ratio: float, jitter: str) -> Drawn:
        next(calls)
        return storm(attempts, ratio, jitter)

    explore(counted, **LEVERS)._repr_mimebundle_()
    assert next(calls) == 4 * 3 * 2


def test_the_panel_is_live_where_there_are_widgets() -> None:
    """The same output carries the widget for a kernel and the grid for a page."""
    shown = explore(storm, **LEVERS)._repr_mimebundle_()
    assert {MIME, WIDGET, "text/plain"} <= set(shown)


def test_a_value_that_does_not_change_is_stored_once() -> None:
    """A line that ignores the levers is in the state, and in no change."""
    packed = explore(storm, **LEVERS, default={"attempts": 5}).to_dict()
    axes = [change for change in packed["changes"] if "xaxis" in change["path"]]
    assert axes == []


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "a": st.lists(st.integers(0, 2), max_size=2),
                "b": st.one_of(st.none(), st.dictionaries(st.sampled_from("xy"), st.booleans())),
                "c": st.lists(st.fixed_dictionaries({"y": st.integers(0, 1)}), max_size=2),
            }
        ),
        min_size=1,
        max_size=6,
    )
)
def test_packing_loses_nothing(states: list[dict[str, object]]) -> None:
    """Any states, of any shape, come back."""
    packed = {"state": states[0], "changes": pack(states, states[0])}
    assert [unpack(packed, at) for at in range(len(states))] == states


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attempts": [1]}, "two or more different values"),
        ({"attempts": [1, 1]}, "two or more different values"),
        ({"attempts": [1, 2], "default": {"attempts": 9}}, "attempts=9 is not one of"),
        ({"attempts": [1, 2], "default": {"atempts": 1}}, "no lever 'atempts'"),
        ({"attempts": range(401)}, "401 combinations"),
    ],
)
def test_a_panel_that_cannot_work_is_refused(options: dict[str, object], message: str) -> None:
    """The error names the lever and the remedy, before anything runs."""
    with pytest.raises(ValueError, match=message):
        explore(lambda attempts: Figure("t", "a b c d e", [], {}), **options)  # type: ignore[arg-type]
