"""The invariants of traces, as checks on random programs, disks and headers.

Each is a function of the module under test, or of what happened in it, so that it can be shown to fail on a copy with a
bug in it.
"""

import asyncio
import errno
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from random import Random
from types import ModuleType
from typing import Any

from hypothesis import strategies as st

from llm_patterns.simulation import simulate
from llm_patterns.toolkit import spans
from llm_patterns.toolkit.spans import FinishedSpan, SpanEvent, read_lines
from llm_patterns.toolkit.trace_sinks import MemorySink

# --- whole programs: nested steps, task groups, background tasks, streams and generators -------------

HOW = st.sampled_from(["inline", "group", "background", "stream", "generator", "thread"])
LEAF = st.fixed_dictionaries(
    {
        "waits": st.sampled_from([0.0, 0.5, 1.0]),
        "takes": st.sampled_from([0.0, 1.0, 2.0]),
        "fails": st.booleans() | st.just(False),
        "patience": st.none() | st.sampled_from([0.7, 1.5, 3.2]),
        "read": st.integers(0, 3),
        "closed": st.sampled_from(["here", "elsewhere", "dropped"]),
        "steps": st.just([]),
    }
)


def _with_steps(steps: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    children = st.lists(st.tuples(HOW, steps), max_size=3)
    return st.tuples(LEAF, children).map(lambda pair: {**pair[0], "steps": pair[1]})


PROGRAMS = st.lists(st.recursive(LEAF, _with_steps, max_leaves=8), min_size=1, max_size=3)
POLICIES = st.fixed_dictionaries(
    {
        "sample_rate": st.sampled_from([0.0, 0.5, 1.0]),
        "keep_errors": st.booleans(),
        "keep_slower_than": st.none() | st.just(2.5),
        "max_buffered_spans": st.sampled_from([1, 3, 1000]),
    }
)


class StepFailed(Exception):
    """A step of the program failed, as planned."""


@dataclass
class Run:
    """What a program did, noted beside the tracer: each span's parent and outcome, by its id."""

    parents: dict[int, int | None] = field(default_factory=dict)
    outcomes: dict[int, str] = field(default_factory=dict)
    kept: list[FinishedSpan] = field(default_factory=list)
    statistics: list[Any] = field(default_factory=list)

    def root(self, span_id: int) -> int:
        """The outermost span above that one."""
        parent = self.parents[span_id]
        return span_id if parent is None else self.root(parent)

    @property
    def by_id(self) -> dict[int, FinishedSpan]:
        """The spans that came to the sink."""
        return {span.span_id: span for span in self.kept}


class Program:
    """Runs steps as planned, and knows without the tracer which span is whose parent."""

    def __init__(self, traces: Any, run: Run) -> None:
        self.traces = traces
        self.run = run
        self.tasks: list[asyncio.Task[None]] = []
        self.names = count()

    def begin(self, parent: int | None) -> Any:
        """Begin a span and note its parent."""
        span = self.traces.span(f"step {next(self.names)}")
        self.run.parents[span.context.span_id] = parent
        return span

    def note(self, span: Any, outcome: str) -> None:
        """Note how a step ended, and what the tracer counts then."""
        self.run.outcomes.setdefault(span.context.span_id, outcome)
        self.run.statistics.append(self.traces.statistics())

    @contextmanager
    def noted(self, parent: int | None) -> Iterator[int]:
        """A block with a span, whose id is yielded, and its outcome."""
        span = self.begin(parent)
        outcome = "cancelled"
        try:
            with span:
                yield span.context.span_id
                outcome = "ok"
        except Exception:
            outcome = "error"
            raise
        finally:
            self.note(span, outcome)

    async def step(self, plan: dict[str, Any], parent: int | None) -> None:
        """One step, with those within it."""
        await asyncio.sleep(plan["waits"])
        with self.noted(parent) as own:
            await self.within(plan, own)

    async def within(self, plan: dict[str, Any], parent: int) -> None:
        """The steps of a step: a failure of one that runs beside it is its own affair."""
        async with asyncio.timeout(plan["patience"]):
            async with asyncio.TaskGroup() as group:
                for how, step in plan["steps"]:
                    if how == "group":
                        group.create_task(self.quietly(self.step(step, parent)))
                    elif how == "background":
                        self.tasks.append(
                            asyncio.create_task(self.quietly(self.step(step, parent)))
                        )
                    elif how == "stream":
                        await self.stream(step, parent)
                    elif how == "generator":
                        await self.generator(step, parent)
                    elif how == "thread":
                        await asyncio.to_thread(self.in_thread, parent)
                    else:
                        await self.quietly(self.step(step, parent))
                await asyncio.sleep(plan["takes"])
            if plan["fails"]:
                raise StepFailed

    async def quietly(self, step: Coroutine[Any, Any, None]) -> None:
        """Run a step whose failure nobody minds."""
        with suppress(StepFailed, TimeoutError):
            await step

    def in_thread(self, parent: int) -> None:
        """A step without a loop of its own."""
        span = self.begin(parent)
        span.end()
        span.end()
        self.note(span, "ok")

    async def stream(self, plan: dict[str, Any], parent: int) -> None:
        """Read a stream in part, and leave it in one of several ways; what is begun between chunks is the reader's."""
        span = self.begin(parent)
        own = span.context.span_id

        async def chunks() -> AsyncIterator[int]:
            for number in range(2):
                with self.noted(own):
                    await asyncio.sleep(plan["takes"] / 2)
                yield number
            if plan["fails"]:
                raise StepFailed

        stream = self.traces.stream(chunks(), span=span)
        outcome = "cancelled"
        try:
            for _ in range(plan["read"]):
                await anext(stream)
                with self.noted(parent):
                    pass
        except StopAsyncIteration:
            outcome = "ok"
        except StepFailed:
            outcome = "error"
        finally:
            self.note(span, outcome)
            await self.close(stream, plan["closed"])
            del stream

    async def generator(self, plan: dict[str, Any], parent: int) -> None:
        """A generator that holds a span open, closed by this task or by another: nothing of it may stay behind."""

        async def holding() -> AsyncIterator[int]:
            with self.noted(parent):
                yield 1

        pieces = holding()
        await anext(pieces)
        await self.close(pieces, "elsewhere" if plan["closed"] == "dropped" else plan["closed"])
        with self.noted(parent):
            pass

    async def close(self, stream: Any, how: str) -> None:
        """Close a stream, here or in another task; or only drop it."""
        if how == "here":
            await stream.aclose()
        elif how == "elsewhere":
            await asyncio.shield(asyncio.create_task(stream.aclose()))

    async def main(self, roots: list[dict[str, Any]]) -> None:
        """All of it, and what was started on the side."""
        async with asyncio.TaskGroup() as group:
            for plan in roots:
                group.create_task(self.quietly(self.step(plan, None)))
        for task in self.tasks:
            await task
        await asyncio.sleep(1)


def run_program(
    module: Any, roots: list[dict[str, Any]], policy: dict[str, Any], seed: int = 0
) -> Run:
    """Run the steps of *roots*, each a trace, through *module*'s logger in virtual time."""
    sink, run = MemorySink(), Run()

    async def main() -> None:
        traces = module.TraceLogger(module.TracePolicy(**policy), sink=sink)
        await Program(traces, run).main(roots)
        run.statistics.append(traces.statistics())

    simulate(main, seed=seed)
    run.kept = list(sink.spans)
    return run


def every_span_ends_once(run: Run) -> None:
    """Invariant 1: nothing is open, nothing comes twice, and all that ended is accounted for."""
    last = run.statistics[-1]
    assert last.open == 0
    assert last.started == len(run.parents) == len(run.outcomes)
    assert max(Counter(span.span_id for span in run.kept).values(), default=1) == 1
    for seen in run.statistics:
        gone = sum(seen.kept.values()) + seen.discarded + seen.evicted + seen.buffered
        assert gone == seen.ended
    assert sum(last.kept.values()) == len(run.kept)


def parents_are_where_tasks_began(run: Run) -> None:
    """Invariant 2: the tracer's tree is the program's."""
    for span in run.kept:
        assert span.parent_id == run.parents[span.span_id], span.name


def outcomes_are_told(run: Run) -> None:
    """A span's status is how its step ended."""
    for span in run.kept:
        assert span.status == run.outcomes[span.span_id], span.name


def spans_lie_within_their_parents(run: Run) -> None:
    """Invariant 3: or they say that they do not."""
    for span in run.kept:
        parent = run.by_id.get(span.parent_id or 0)
        if parent is not None:
            assert span.trace_id == parent.trace_id
            assert span.start_time >= parent.start_time - 1e-6
            end, limit = span.start_time + span.duration, parent.start_time + parent.duration
            assert span.outlived_parent or end <= limit + 1e-6
            assert end >= limit - 1e-6 or not span.outlived_parent


def traces_are_kept_whole(run: Run, policy: dict[str, Any]) -> None:
    """Invariant 5, and what sampling promises: drawn traces, and those with a failure or a slow step, are whole."""
    assert all(seen.buffered <= policy["max_buffered_spans"] for seen in run.statistics)
    evicted = run.statistics[-1].evicted
    for trace_id in {span.trace_id for span in run.kept}:
        kept = [span for span in run.kept if span.trace_id == trace_id]
        reasons = {span.kept_by for span in kept}
        assert len(reasons) == 1
        drawn = spans.keeps(trace_id, policy["sample_rate"])
        assert drawn == (reasons == {"head"})
        if not drawn:
            failed = policy["keep_errors"] and any(span.status == "error" for span in kept)
            limit = policy["keep_slower_than"]
            assert failed or (limit and any(span.duration >= limit for span in kept))
        if not evicted:
            roots = {run.root(span.span_id) for span in kept}
            assert {span.span_id for span in kept} == {
                each for each in run.parents if run.root(each) in roots
            }
    for span_id, outcome in run.outcomes.items():
        early = run.parents[span_id] is None and outcome == "error"
        assert not early or not policy["keep_errors"] or span_id in run.by_id, "a failure is lost"


def check_program(
    module: Any,
    holds: Callable[..., None],
    roots: list[dict[str, Any]],
    policy: dict[str, Any],
    seed: int,
) -> None:
    """Run a program and check one promise; without sampling where it is about the tree."""
    if holds is traces_are_kept_whole:
        traces_are_kept_whole(run_program(module, roots, policy, seed), policy)
    elif holds is every_span_ends_once:
        every_span_ends_once(run_program(module, roots, policy, seed))
    else:
        holds(run_program(module, roots, {}, seed))


# --- disks: writes that are cut short, refused, or fail ------------------------------------------------

OVERFLOW = st.sampled_from(["oldest", "newest"])
DISKS = st.lists(
    st.sampled_from(["all", "all", "half", "one", "busy", "full", "broken", "none"]), max_size=30
)
PUTS = st.lists(st.tuples(st.sampled_from([0.0, 0.05, 0.3]), st.integers(0, 9)), max_size=30)


class Disk:
    """A stream that takes what it likes of each write, as its script says; at its end it takes all."""

    def __init__(self, script: list[str]) -> None:
        self.script = list(script)
        self.content = b""

    def write(self, data: bytes) -> int | None:
        """Take *data*, or a part of it, or none."""
        assert len(self.content) < 1_000_000, "the writer repeats itself"
        how = self.script.pop(0) if self.script else "all"
        if how == "none":
            return None
        if how in {"busy", "full", "broken"}:
            code = {"busy": errno.EAGAIN, "full": errno.ENOSPC, "broken": errno.EIO}[how]
            raise OSError(code, how)
        taken = {"all": len(data), "half": len(data) // 2 or 1, "one": 1}[how]
        self.content += data[:taken]
        return taken


def span(number: int, **changes: Any) -> FinishedSpan:
    """A span to write."""
    values = {"name": f"step {number}", "trace_id": 1, "span_id": number + 1, "parent_id": None}
    return FinishedSpan(**{**values, "start_time": 1767571200.0, "duration": 0.5, **changes})


def check_disk(
    module: ModuleType, puts: list[tuple[float, int]], script: list[str], overflow: str
) -> None:
    """Whatever the disk does: bounded, accounted for, and every line whole (invariants 2, 3 and 4)."""
    disk = Disk(script)
    policy = module.JsonLinesPolicy(max_queue=7, max_batch=3, overflow=overflow)
    sink = module.JsonLinesSink(disk, policy)

    def accounted() -> None:
        seen = sink.statistics()
        assert seen.queued <= policy.max_queue, f"{seen.queued} are queued"
        assert seen.received == seen.written + seen.dropped + seen.queued, seen

    async def main() -> int:
        numbers = count()
        for wait, burst in puts:
            await asyncio.sleep(wait)
            for _ in range(burst):
                sink.put(span(next(numbers)))
                accounted()
        await asyncio.sleep(policy.retry_delay * (len(script) + 2))
        assert sink.flush(0)
        accounted()
        sink.close(0)
        return next(numbers)

    received = simulate(main)
    seen, read = sink.statistics(), read_lines(disk.content.splitlines(keepends=True))
    assert (seen.received, seen.queued, read.torn) == (received, 0, 0)
    assert (len(read.spans), read.dropped) == (seen.written, seen.dropped)
    order = [each.span_id for each in read.spans]
    assert order == sorted(set(order))


# --- the hook -----------------------------------------------------------------------------------------

SECRET = "zebra"
WRITTEN = st.text("abz", max_size=5) | st.just(SECRET) | st.just(f"a {SECRET} b")
CONTENT = st.recursive(
    st.none() | st.integers() | WRITTEN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "type", "content", "parts"]),
            inner | st.sampled_from(["user", "text"]),
            max_size=3,
        )
    ),
    max_leaves=10,
)


def texts(value: Any) -> list[str]:
    """All texts in a value, but for the words of the conventions."""
    if isinstance(value, dict):
        labels = {("role", "user"), ("type", "text")}
        inner = [each for name, each in value.items() if (name, str(each)) not in labels]
        return [text for each in inner for text in texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in texts(each)]
    return [value] if isinstance(value, str) else []


def check_clean(module: ModuleType, content: Any, max_chars: int) -> None:
    """Of every text in it only what the hook returned, and no more than is allowed."""
    seen: list[str] = []

    def hook(text: str) -> str:
        seen.append(text)
        return text.replace(SECRET, "#")

    cleaned = module.clean(content, hook, max_chars=max_chars)
    assert SECRET not in str(cleaned)
    assert set(texts(content)) <= set(seen)
    assert sum(map(len, texts(cleaned))) <= max_chars
    assert sum(map(len, texts(module.shortened(content, max_chars=max_chars)))) <= max_chars
    whole = module.clean(content, str, max_chars=1_000)
    assert whole == content == module.shortened(content, max_chars=1_000)


# --- the line and the header ----------------------------------------------------------------------------

TEXT = st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | TEXT | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
ATTRIBUTES = st.dictionaries(TEXT, VALUES, max_size=4)
IDS = st.integers(1, 2**64 - 1)
SPANS = st.builds(
    FinishedSpan,
    name=TEXT,
    trace_id=st.integers(1, 2**128 - 1),
    span_id=IDS,
    parent_id=st.none() | IDS,
    start_time=st.integers(0, 4_000_000_000).map(float),
    duration=st.integers(0, 10**9).map(lambda value: value / 1_000_000),
    status=st.sampled_from(["ok", "error", "cancelled"]),
    kind=st.sampled_from(["internal", "client", "server"]),
    attributes=ATTRIBUTES,
    events=st.lists(
        st.builds(SpanEvent, TEXT, st.integers(0, 9).map(float), ATTRIBUTES), max_size=3
    ).map(tuple),
    kept_by=st.sampled_from(["head", "error", "slow"]),
    sample_rate=st.none() | st.sampled_from([0.1, 1.0]),
    outlived_parent=st.booleans(),
    handle=st.none(),
)


def check_line(module: ModuleType, finished: FinishedSpan, cut: float) -> None:
    """A line gives the span back; the beginning of a line gives nothing."""
    line = module.line_of(finished)
    assert line.count(b"\n") == 1
    assert module.span_of(line) == finished
    torn = line[: int(len(line) * cut)]
    for piece in (torn, torn[:-1] + b"\n"):
        with suppress(ValueError):
            module.span_of(piece)
            raise AssertionError(f"{piece!r} was read as a span")


def check_rates(module: ModuleType, trace_id: int, low: float, high: float) -> None:
    """What is kept at a rate is kept at a higher one; 0 keeps none, 1 all."""
    low, high = sorted((low, high))
    assert module.keeps(trace_id, low) <= module.keeps(trace_id, high)
    assert (module.keeps(trace_id, 0.0), module.keeps(trace_id, 1.0)) == (False, True)


def check_shares(module: ModuleType, *, ids: int = 4_000) -> None:
    """A rate is the share of random ids that is kept, and only their last 56 bits matter."""
    rng = Random(1)
    drawn = [rng.getrandbits(128) for _ in range(ids)]
    for rate in (0.1, 0.5, 0.9):
        kept = [module.keeps(each, rate) for each in drawn]
        assert abs(sum(kept) / ids - rate) < 0.03
        assert kept == [module.keeps(each & ((1 << 56) - 1), rate) for each in drawn]


def check_headers(module: ModuleType, trace_id: int, span_id: int, sampled: bool) -> None:
    """What one service sends is what the next one reads; with a letter wrong it is nothing."""
    context = spans.SpanContext(trace_id, span_id, sampled)
    headers = module.trace_headers(context)
    assert module.remote_parent(headers) == context
    assert module.remote_parent({"TraceParent": f" {headers['traceparent']} "}) == context
    for wrong in ("0", "-01", "-x1", "G"):
        assert module.remote_parent({"traceparent": headers["traceparent"] + wrong}) is None
    zeros = headers["traceparent"].replace(f"{span_id:016x}-", f"{0:016x}-")
    assert module.remote_parent({"traceparent": zeros}) is None
