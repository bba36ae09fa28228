"""Server-sent events are read as the standard says, however the bytes were cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_patterns.providers.sse import Decoder, Event, encode

TEXT = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]))
EVENTS = st.lists(st.builds(Event, TEXT, TEXT.filter(lambda name: not name.startswith(" "))))


def read(*pieces):
    """The events in *pieces* of bytes."""
    decoder = Decoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


@given(EVENTS, st.data())
def test_what_is_written_is_read_wherever_it_is_cut(events, data):
    """Any events, cut at any bytes, come out the same."""
    stream = b"".join(encode(*event) for event in events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    pieces = [
        stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
    ]
    assert read(*pieces) == events


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_each_line_end_of_the_standard_is_one(end):
    """LF, CR and CRLF, also cut in the middle."""
    stream = end.join([b"event: ping", b"data: 1", b"", b"data: 2", b"", b""])
    assert read(stream, b"data: 3") == [Event("1", "ping"), Event("2")]
    assert read(*(stream[at : at + 1] for at in range(len(stream))), b":") == read(stream, b":")


def test_separators_of_unicode_are_not_line_ends():
    """JSON may contain them as they are."""
    data = '{"text": "a\u2028b\x85c\x0bd"}'
    assert read(encode(data)) == [Event(data)]


def test_lines_of_one_event_are_joined():
    """Data of many lines is one text."""
    assert read(b"data: one\ndata:two\n\n") == [Event("one\ntwo")]


def test_comments_and_unknown_fields_are_ignored():
    """As are events without data."""
    assert read(b": keep-alive\n\nevent: empty\n\nid: 7\nretry: 5\ndata: x\n\n") == [Event("x")]


def test_an_event_that_was_never_ended_is_not_given():
    """The standard drops it."""
    assert read(b"data: whole\n\ndata: half\n") == [Event("whole")]
