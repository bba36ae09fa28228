"""Texts that are spelled alike have near vectors, on every machine the same."""

from math import hypot

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_patterns.errors import ConfigurationError
from llm_patterns.simulation.embedding import embed, similarity


@given(st.text(), st.integers(1, 64))
def test_a_vector_has_length_one(text, dimensions):
    """Whatever the text, so that the dot product is the cosine."""
    vector = embed(text, dimensions=dimensions)
    assert len(vector) == dimensions
    assert hypot(*vector) == pytest.approx(1)


def test_nearness_follows_spelling():
    """The same text, then its variant, then another one."""
    text = "How do I reset my password?"
    near = similarity(embed(text), embed("how can i reset the password"))
    far = similarity(embed(text), embed("Bring me a large pizza"))
    assert similarity(embed(text), embed(text)) == pytest.approx(1)
    assert 1 > near > 0.5
    assert abs(far) < 0.25


def test_case_and_spaces_do_not_count():
    """They are not spelling."""
    assert embed("Hello  World") == embed("hello world")


def test_a_vector_without_components_is_refused():
    """With the value in the message."""
    with pytest.raises(ConfigurationError, match="dimensions is 0"):
        embed("text", dimensions=0)
