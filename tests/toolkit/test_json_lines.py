"""The sink of JSON lines, in virtual time: what is written, dropped and announced, and how files grow."""

import asyncio
import errno
from io import BytesIO, StringIO
from pathlib import Path

import pytest
from pydantic import ValidationError

from llm_patterns.errors import ConfigurationError
from llm_patterns.simulation import simulate
from llm_patterns.toolkit import FinishedSpan, JsonLinesPolicy, JsonLinesSink, read_lines
from tests.toolkit.trace_invariants import Disk, span


def written(target: Path) -> list[int]:
    """The ids of the spans in a file."""
    with target.open("rb") as lines:
        return [each.span_id for each in read_lines(lines).spans]


def put(sink: JsonLinesSink, *spans: FinishedSpan) -> None:
    """Put spans in virtual time, and close."""

    async def main() -> None:
        for each in spans:
            sink.put(each)
        sink.close(0)

    simulate(main)


def test_a_span_is_a_line(tmp_path: Path) -> None:
    """What has its default is left out; what is not ASCII stays readable."""
    put(JsonLinesSink(tmp_path / "traces.jsonl"), span(1, attributes={"who": "Zoë"}))
    (line,) = (tmp_path / "traces.jsonl").read_text("utf-8").splitlines()
    assert line == (
        '{"trace_id":"00000000000000000000000000000001","span_id":"0000000000000002","name":"step 1",'
        '"start":"2026-01-05T00:00:00.000000+00:00","duration":0.5,"attributes":{"who":"Zoë"}}'
    )


def test_a_file_goes_on_where_an_earlier_one_ended(tmp_path: Path) -> None:
    """Nothing is overwritten."""
    path = tmp_path / "traces.jsonl"
    put(JsonLinesSink(path), span(1))
    put(JsonLinesSink(str(path)), span(2))
    assert written(path) == [2, 3]


def test_a_line_that_a_crash_cut_short_is_seen_and_spoils_no_other(tmp_path: Path) -> None:
    """The next writer begins on a line of its own."""
    path = tmp_path / "traces.jsonl"
    put(JsonLinesSink(path), span(1), span(2))
    path.write_bytes(path.read_bytes()[:-20])
    put(JsonLinesSink(path), span(3))
    read = read_lines(path.read_bytes().splitlines(keepends=True))
    assert ([each.span_id for each in read.spans], read.torn) == ([2, 4], 1)


@pytest.mark.parametrize("files", [1, 3])
def test_files_are_bounded_in_size_and_number(tmp_path: Path, files: int) -> None:
    """The newest spans are there, in order, across the files."""
    path = tmp_path / "traces.jsonl"
    policy = JsonLinesPolicy(max_file_size_bytes=1_000, max_files=files)
    put(JsonLinesSink(path, policy), *(span(number) for number in range(100)))
    found = sorted(tmp_path.iterdir(), reverse=True)
    assert len(found) == files
    assert all(each.stat().st_size <= 1_000 for each in found)
    ids = [number for each in found for number in written(each)]
    assert ids == list(range(ids[0], 101))


def test_a_line_longer_than_a_file_has_a_file_of_its_own(tmp_path: Path) -> None:
    """It is written whole all the same."""
    path = tmp_path / "traces.jsonl"
    policy = JsonLinesPolicy(max_file_size_bytes=1_000)
    put(JsonLinesSink(path, policy), span(1), span(2, attributes={"long": "x" * 2_000}), span(3))
    assert [written(path.with_name(f"traces.jsonl{end}")) for end in (".2", ".1", "")] == [
        *([2], [3], [4])
    ]


def test_what_is_dropped_is_said_where_it_is_missing() -> None:
    """The count stands before the spans that were written after the gap."""
    disk = Disk(["busy"] * 3)
    sink = JsonLinesSink(disk, JsonLinesPolicy(max_queue=5, max_batch=2))

    async def main() -> None:
        for number in range(9):
            sink.put(span(number))
        assert not sink.flush(0)
        await asyncio.sleep(1)

    simulate(main)
    lines = disk.content.splitlines(keepends=True)
    assert [b'"dropped":4' in line for line in lines] == [False, True, False, False, False, False]
    assert sink.statistics().dropped == 4


def test_a_span_that_has_no_json_costs_itself_only() -> None:
    """It is counted as dropped, and the writer goes on."""
    stream = BytesIO()
    sink = JsonLinesSink(stream)
    put(sink, span(1, attributes={"a": object()}), span(2))
    assert sink.statistics().dropped == 1
    assert [each.span_id for each in read_lines([*stream.getvalue().splitlines(True)]).spans] == [3]


def test_a_text_cut_within_a_character_is_written_all_the_same() -> None:
    """Half a surrogate pair has no UTF-8; the line stays one."""
    stream = BytesIO()
    put(JsonLinesSink(stream), span(1, attributes={"cut": "\ud83d"}))
    assert read_lines([stream.getvalue()]).spans[0].attributes == {"cut": "?"}


def test_an_error_is_told_in_the_statistics() -> None:
    """With its number, and until the disk takes lines again."""
    disk = Disk(["full", "broken"])
    sink = JsonLinesSink(disk)

    async def main() -> None:
        sink.put(span(1))
        await asyncio.sleep(1)

    simulate(main)
    seen = sink.statistics()
    assert (seen.errors, seen.written, seen.queued) == (2, 1, 0)
    assert seen.last_error == f"OSError: [Errno {errno.EIO}] broken"


def test_a_closed_sink_takes_nothing_more() -> None:
    """What comes late is counted, and writes nothing."""
    stream = BytesIO()
    sink = JsonLinesSink(stream)

    async def main() -> None:
        assert sink.close(0)
        sink.put(span(1))
        assert sink.close(0) is False

    simulate(main)
    assert stream.getvalue() == b""
    assert sink.statistics().dropped == 1


def test_a_sink_serves_one_simulation_after_another() -> None:
    """A retry that the first one's end cut off is not waited for in the next."""
    disk = Disk(["busy"])
    sink = JsonLinesSink(disk)

    async def main() -> None:
        sink.put(span(1))

    simulate(main)
    simulate(main)
    assert len(read_lines(disk.content.splitlines(keepends=True)).spans) == 2


def test_a_place_that_can_not_be_written_to_is_refused_when_the_sink_is_made(
    tmp_path: Path,
) -> None:
    """A folder, a folder that is not there, a stream of text."""
    for wrong in (tmp_path, tmp_path / "none" / "traces.jsonl"):
        with pytest.raises(ConfigurationError, match="can't be a file"):
            JsonLinesSink(wrong)
    with pytest.raises(ConfigurationError, match=r"stream\.buffer"):
        JsonLinesSink(StringIO())  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        JsonLinesPolicy(max_queue=0)


def test_reading_knows_what_is_no_span() -> None:
    """JSON of another kind, no JSON, an empty line."""
    read = read_lines([b"{}\n", b"[1]\n", b"\n", b"what?\n", b'{"dropped":"x"}\n'])
    assert (read.spans, read.dropped, read.torn) == ([], 0, 4)
