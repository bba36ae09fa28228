"""What is one step of a request, how does it reach the next service, and which requests are kept?

A span is a step with a beginning, an end and a parent; the spans of one request share a trace id. Between services the
ids travel in W3C's `traceparent` header. Which traces are kept is decided from the trace id alone, so that services
which never talk to each other keep the same ones.

Invariants:

1. A trace that is kept at some rate is kept at every higher rate, by every service.
2. A header that is not well-formed is no header: the trace begins anew, and nothing is raised.
3. `span_of(line_of(span))` is the span, to the microsecond; a line that was cut short is never read as a span.

>>> parent = remote_parent({"Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})
>>> trace_headers(parent)
{'traceparent': '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'}

Sources: W3C Trace Context, level 1 (the header) and level 2 (its 56 random bits); OpenTelemetry's specification of
consistent probability sampling (the comparison in `keeps`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

from pydantic import JsonValue

__all__ = [
    "FinishedSpan",
    "SpanContext",
    "SpanEvent",
    "TraceFile",
    "keeps",
    "line_of",
    "read_lines",
    "remote_parent",
    "span_of",
    "trace_headers",
]

SpanKind = Literal["internal", "server", "client", "producer", "consumer"]
SpanStatus = Literal["ok", "error", "cancelled"]
KeptBy = Literal["head", "error", "slow"]
"""Why a trace was kept: its id was drawn, or the draw was overruled since a span failed or was slow."""

_RANDOM_BITS: Final = 56  # of a trace id, from the right; W3C promises no others
_HEADER: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)


class SpanContext(NamedTuple):
    """What other spans need to know of one: its ids, and whether its trace was drawn to be kept.

    `handle` is what the sink gave the span when it began, such as OpenTelemetry's own span.
    """

    trace_id: int
    span_id: int
    sampled: bool = True
    handle: object = None


class SpanEvent(NamedTuple):
    """Something that happened `after` seconds into a span."""

    name: str
    after: float
    attributes: Mapping[str, JsonValue]


class FinishedSpan(NamedTuple):
    """A step that is over. `start_time` is in seconds since the epoch, `duration` in seconds.

    `kept_by` and `sample_rate` are what an average over kept traces must be weighted by; the rate is None if another
    service drew the trace. `outlived_parent` says that the parent was over first; `handle` is that of the context.
    """

    name: str
    trace_id: int
    span_id: int
    parent_id: int | None
    start_time: float
    duration: float
    status: SpanStatus = "ok"
    kind: SpanKind = "internal"
    attributes: Mapping[str, JsonValue] = {}
    events: tuple[SpanEvent, ...] = ()
    kept_by: KeptBy = "head"
    sample_rate: float | None = 1.0
    outlived_parent: bool = False
    handle: object = None


def keeps(trace_id: int, rate: float) -> bool:
    """Return whether a trace of that id is kept at *rate*, from 0 to 1.

    The id's last 56 bits are compared with the share to reject, as OpenTelemetry's consistent samplers do.

    >>> [keeps(0x4BF92F3577B34DA6A3CE929D0E0E4736, rate) for rate in (0.1, 0.2)]
    [False, True]
    """
    return trace_id % (1 << _RANDOM_BITS) >= (1 << _RANDOM_BITS) - round(rate * (1 << _RANDOM_BITS))


def trace_headers(context: SpanContext | None) -> dict[str, str]:
    """Return the header that makes the next service's spans children of *context*; none without one."""
    if context is None:
        return {}
    flags = "01" if context.sampled else "00"
    return {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags}"}


def remote_parent(headers: Mapping[str, str]) -> SpanContext | None:
    """Return the caller's span, as *headers* (names in any case) tell of it, or None.

    A header of a later version may go on after the flags; of version 00 it may not.
    """
    value = next((headers[name] for name in headers if name.lower() == "traceparent"), "")
    parts = _HEADER.fullmatch(value.strip())
    if parts is None or (parts[1] == "00" and parts[5]):
        return None
    return SpanContext(int(parts[2], 16), int(parts[3], 16), bool(int(parts[4], 16) & 1))


def line_of(span: FinishedSpan) -> bytes:
    """Return *span* as one line of JSON, with its end. What has its default is left out.

    >>> line_of(FinishedSpan("retrieve", 1, 2, None, 1767571200.0, 0.25))[-78:]
    b'"name":"retrieve","start":"2026-01-05T00:00:00.000000+00:00","duration":0.25}\\n'
    """
    line: dict[str, Any] = {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
    if span.parent_id is not None:
        line["parent_id"] = f"{span.parent_id:016x}"
    line["name"] = span.name
    line["start"] = datetime.fromtimestamp(span.start_time, UTC).isoformat(timespec="microseconds")
    line["duration"] = round(span.duration, 6)
    for name, default in _DEFAULTS.items():
        if (value := getattr(span, name)) != default:
            line[name] = value
    if span.attributes:
        line["attributes"] = span.attributes
    if span.events:
        line["events"] = [
            {"name": name, "after": round(after, 6), "attributes": attributes}
            for name, after, attributes in span.events
        ]
    # Half a surrogate pair, as a stream cut within an emoji leaves it, has no UTF-8.
    return _encode(line).encode("utf-8", "replace") + b"\n"


def span_of(line: bytes) -> FinishedSpan:
    """Return the span that `line_of` wrote; raises `ValueError` for anything else, half a line included."""
    if not line.endswith(b"\n"):
        raise ValueError("the line has no end: its writer was stopped in the middle")
    try:
        read = json.loads(line)
        parent = read.get("parent_id")
        return FinishedSpan(
            name=read["name"],
            trace_id=int(read["trace_id"], 16),
            span_id=int(read["span_id"], 16),
            parent_id=None if parent is None else int(parent, 16),
            start_time=datetime.fromisoformat(read["start"]).timestamp(),
            duration=read["duration"],
            attributes=read.get("attributes", {}),
            events=tuple(SpanEvent(**event) for event in read.get("events", ())),
            **{name: read.get(name, default) for name, default in _DEFAULTS.items()},
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the line is JSON, and no span: {error!r}") from error


class TraceFile(NamedTuple):
    """What was read: the spans, how many the writer says it dropped, and how many lines were cut short."""

    spans: list[FinishedSpan]
    dropped: int
    torn: int


def read_lines(lines: Iterable[bytes]) -> TraceFile:
    """Read what a `JsonLinesSink` wrote: an open binary file, or any lines.

    >>> read_lines([b'{"dropped":3}\\n', b'{"trace_id":"00'])
    TraceFile(spans=[], dropped=3, torn=1)
    """
    spans, dropped, torn = [], 0, 0
    for line in lines:
        try:
            if line.startswith(b'{"dropped":'):
                dropped += int(json.loads(line)["dropped"])
            elif line.strip():
                spans.append(span_of(line))
        except ValueError:
            torn += 1
    return TraceFile(spans, dropped, torn)


_DEFAULTS: Final[Mapping[str, Any]] = {
    name: FinishedSpan._field_defaults[name]
    for name in ("status", "kind", "kept_by", "sample_rate", "outlived_parent")
}
_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
