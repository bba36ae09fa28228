"""A provider that queues, limits, streams, bills and fails as real ones do, in process.

>>> from llm_patterns.chat import ChatRequest, Message
>>> from llm_patterns.simulation import Outage, SimulatedProvider, simulate
>>> async def main():
...     provider = SimulatedProvider(faults=[Outage(start=10, duration=5)])
...     request = ChatRequest(model="small", messages=(Message.user("Hello"),))
...     answer = await provider.complete(request)
...     return answer.text, len(provider.ledger)
>>> simulate(main)
('OK', 1)

One attempt passes these stations: faults that answer or swallow it, checks of the request, rate
limits, the server's queue and slots, and then the answer, token by token if it is streamed.
Whatever happens is in the `ledger`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, pairwise
from math import inf
from random import Random
from typing import Final, Protocol, Self

from llm_patterns.chat import (
    ChatChunk,
    ChatRequest,
    ChatResponse,
    ChatStream,
    FinishReason,
    Message,
    ToolCallDelta,
    Usage,
)
from llm_patterns.clock import World
from llm_patterns.errors import (
    ConfigurationError,
    ConnectionFailed,
    ErrorKind,
    InvalidRequest,
    Overloaded,
    ProviderError,
    RateLimited,
    error_for_status,
)
from llm_patterns.simulation.embedding import embed
from llm_patterns.simulation.faults import (
    Disconnect,
    ErrorRate,
    Fault,
    Hang,
    MalformedOutput,
    Schedule,
    TruncatedOutput,
)
from llm_patterns.simulation.latency import Latency
from llm_patterns.simulation.ledger import Attempt, Ledger
from llm_patterns.simulation.limits import Gate, RateLimits, RateLimitState
from llm_patterns.simulation.responders import Reply, Responder, approximate_tokens, fixed
from llm_patterns.simulation.server import FifoServer, Job, QueueFull, Server

__all__ = [
    "Client",
    "ConstantLatency",
    "LatencyModel",
    "SimulatedModel",
    "SimulatedProvider",
    "Stream",
]

_EPSILON: Final = 1e-9


@dataclass(frozen=True, slots=True)
class ConstantLatency:
    """Every answer takes `time_to_first_token` seconds, and `seconds_per_token` for each token it writes."""

    time_to_first_token: float = 0.3
    seconds_per_token: float = 0.01

    def sample(self, usage: Usage, *, in_flight: int, rng: Random) -> Latency:
        """Return the two, whatever is asked and however busy the server is."""
        return Latency(self.time_to_first_token, self.seconds_per_token)


class LatencyModel(Protocol):
    """How long a model takes on an idle server: `ConstantLatency`, or a measured `LatencyProfile`."""

    def sample(self, usage: Usage, *, in_flight: int, rng: Random) -> Latency:
        """Return the seconds to the first token and for each further one."""


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """A model that the provider offers. Sizes are in tokens."""

    name: str
    latency: LatencyModel = ConstantLatency()
    context_window: int = 128_000
    max_output_tokens: int = 16_384


class SimulatedProvider:
    """A `ChatModel` with finite capacity, rate limits, faults and books.

    *models* lists what it offers; None offers any name, at *latency*. *server* is its capacity
    (default: 100 requests at a time, the rest queue). *seed* decides the provider's own chance,
    apart from the clients', so that the same faults strike whatever the client does. Faults are
    timed from the simulation's start, or on a real loop from the first request.
    """

    def __init__(
        self,
        *,
        models: Iterable[SimulatedModel] | None = None,
        latency: LatencyModel = ConstantLatency(),
        server: Server | None = None,
        limits: RateLimits | None = None,
        faults: Iterable[Fault] = (),
        responder: Responder | None = None,
        tokens_per_chunk: int = 1,
        seed: int = 0,
        name: str = "simulated",
    ) -> None:
        if tokens_per_chunk < 1:
            raise ConfigurationError(
                f"tokens_per_chunk is {tokens_per_chunk}; it must be at least 1"
            )
        self.name = name
        self.models = None if models is None else {model.name: model for model in models}
        self.server = server or FifoServer(slots=100)
        self.ledger = Ledger()
        self.tokens_per_chunk = tokens_per_chunk
        self._any_model = SimulatedModel("any", latency)
        self._gate = Gate(limits or RateLimits())
        self._schedule = Schedule(tuple(faults))
        self._responder = responder or fixed()
        self._rng = Random(seed)
        self._ids = count(1)
        self._epoch: float | None = None
        self.server.capacity_factor = self._capacity

    async def complete(self, request: ChatRequest, *, caller: str = "") -> ChatResponse:
        """Return the whole answer; raises `ProviderError`. *caller* is the name for the ledger."""
        answer = await self._whole(request, caller)
        reply = answer.reply
        return ChatResponse(
            id=answer.id,
            model=request.model,
            text=reply.text,
            tool_calls=reply.tool_calls,
            finish_reason=answer.finish_reason,
            usage=answer.usage,
            quotas=self.rate_limit_state().quotas,
        )

    async def stream(self, request: ChatRequest, *, caller: str = "") -> Stream:
        """Return the answer as a stream, once its first chunk is there; raises `ProviderError`."""
        attempt, answer = await self._admit(request, caller)
        stream = Stream(self, attempt, answer)
        await stream.open()
        return stream

    async def embed(
        self, model: str, texts: Sequence[str], *, dimensions: int = 256, caller: str = ""
    ) -> tuple[list[list[float]], Usage]:
        """Return a vector for each of *texts* (see `embedding.embed`), and what they cost.

        An attempt like any other, which writes nothing; raises `ProviderError`.
        """
        request = ChatRequest(model=model, messages=tuple(map(Message.user, texts)))
        usage = Usage(input_tokens=sum(map(approximate_tokens, texts)))
        await self._whole(request, caller, Reply(usage=usage))
        return [embed(text, dimensions=dimensions) for text in texts], usage

    def client(self, caller: str) -> Client:
        """Return a `ChatModel` whose attempts stand in the ledger under the name *caller*."""
        return Client(self, caller)

    def rate_limit_state(self) -> RateLimitState:
        """Return what the rate-limit headers say now."""
        return self._gate.state(asyncio.get_running_loop().time())

    async def _whole(
        self, request: ChatRequest, caller: str, reply: Reply | None = None
    ) -> _Answer:
        attempt, answer = await self._admit(request, caller, reply)
        try:
            if answer.breaks_at is None:
                await answer.job.done
            else:
                await answer.job.reach(answer.breaks_at * answer.job.work)
                raise self._broken(attempt, answer)
        except asyncio.CancelledError:
            self._left(attempt, answer)
            raise
        return answer

    async def _admit(
        self, request: ChatRequest, caller: str, reply: Reply | None = None
    ) -> tuple[Attempt, _Answer]:
        loop = asyncio.get_running_loop()
        attempt = self.ledger.open(caller, request.model, loop.time())
        try:
            if self._schedule:
                await self._strike(self._second(loop))
            model = self._model(request)
            answer = self._answer(request, model, reply)
            self._check_size(request, model, answer)
            self._check_limits(request, answer, loop.time())
            self._begin(attempt, answer, model, loop)
        except ProviderError as error:
            _close(attempt, loop.time(), status_code=error.status_code, error=error.kind)
            raise
        except asyncio.CancelledError:
            attempt.abandoned = True
            attempt.finished_at = loop.time()
            raise
        return attempt, answer

    async def _strike(self, at: float) -> None:
        for fault in self._schedule.faults:
            if isinstance(fault, ErrorRate) and self._hits(fault, at):
                await asyncio.sleep(fault.latency)
                raise _refusal(fault)
            if isinstance(fault, Hang) and self._hits(fault, at):
                await asyncio.get_running_loop().create_future()

    def _hits(self, fault: ErrorRate | Hang | Disconnect | TruncatedOutput, at: float) -> bool:
        return fault.active(at) and self._rng.random() < fault.probability

    def _model(self, request: ChatRequest) -> SimulatedModel:
        if self.models is None:
            return self._any_model
        if request.model not in self.models:
            raise InvalidRequest(
                f"the model {request.model!r} does not exist; this provider has {', '.join(self.models)}",
                status_code=404,
                code="model_not_found",
            )
        return self.models[request.model]

    def _answer(self, request: ChatRequest, model: SimulatedModel, reply: Reply | None) -> _Answer:
        reply = _until_stop(reply or self._responder(request, self._rng), request.stop)
        usage = reply.usage or _usage_of(request, reply)
        most = min(request.max_tokens or model.max_output_tokens, model.max_output_tokens)
        answer = _Answer(f"{self.name}-{next(self._ids)}", reply, usage)
        if reply.tool_calls:
            answer.finish_reason = "tool_calls"
        if usage.output_tokens > most:
            answer.cut(most / usage.output_tokens, says_so=True)
        return answer

    def _check_size(self, request: ChatRequest, model: SimulatedModel, answer: _Answer) -> None:
        size = answer.usage.total_input_tokens + (request.max_tokens or 0)
        if size > model.context_window:
            raise InvalidRequest(
                f"this model's maximum context length is {model.context_window} tokens; the request needs {size}",
                status_code=400,
                code="context_length_exceeded",
            )

    def _check_limits(self, request: ChatRequest, answer: _Answer, now: float) -> None:
        usage = answer.usage
        fresh = usage.total_input_tokens - usage.cached_input_tokens
        tokens = fresh + (request.max_tokens or usage.output_tokens)
        wait = self._gate.admit(tokens, now)
        if wait == inf:
            raise RateLimited(
                f"request too large: it needs {tokens} tokens, more than the limit of "
                f"{self._gate.limits.tokens_per_minute} a minute; reduce the input or max_tokens",
                status_code=429,
            )
        if wait > 0:
            raise RateLimited(
                f"rate limit reached; try again in {wait:.3f} s", status_code=429, retry_after=wait
            )

    def _begin(
        self,
        attempt: Attempt,
        answer: _Answer,
        model: SimulatedModel,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        pace = model.latency.sample(
            answer.usage, in_flight=self.server.in_flight + 1, rng=self._rng
        )
        if self._schedule:
            at = self._second(loop)
            self._spoil(answer, at)
            slowdown = self._schedule.slowdown(at)
            pace = Latency(*(seconds * slowdown for seconds in pace))
        answer.first, answer.each = pace
        try:
            answer.job = self.server.submit(
                pace.duration(answer.usage.output_tokens),
                partial(_served, attempt, answer.usage),
            )
        except QueueFull as full:
            raise Overloaded(
                f"overloaded: {full}", status_code=503, code="server_is_overloaded"
            ) from None

    def _spoil(self, answer: _Answer, at: float) -> None:
        for fault in self._schedule.faults:
            if isinstance(fault, TruncatedOutput) and self._hits(fault, at):
                answer.cut(fault.keep, says_so=not isinstance(fault, MalformedOutput))
            if isinstance(fault, Disconnect) and self._hits(fault, at):
                answer.breaks_at, answer.breaks_with = fault.after, fault.status_code

    def _left(self, attempt: Attempt, answer: _Answer) -> None:
        """Close the books on a caller who went away; a server that works on closes them at the end."""
        attempt.abandoned = True
        written = answer.written()
        answer.job.abandon()
        if answer.job.finished_at is not None and attempt.finished_at is None:
            attempt.finished_at = answer.job.finished_at
            attempt.usage = written

    def _broken(self, attempt: Attempt, answer: _Answer) -> ProviderError:
        usage = answer.written()
        answer.job.abandon()
        error: ProviderError = ConnectionFailed("the connection broke before the answer was whole")
        if answer.breaks_with is not None:
            message = f"simulated failure ({answer.breaks_with}) while answering"
            error = error_for_status(answer.breaks_with, message)
        now = asyncio.get_running_loop().time()
        _close(attempt, now, status_code=answer.breaks_with, error=error.kind)
        attempt.usage = usage
        return error

    def _capacity(self) -> float:
        return self._schedule.capacity(self._second(asyncio.get_running_loop()))

    def _second(self, loop: asyncio.AbstractEventLoop) -> float:
        """Return the time on the faults' schedule, which begins at the first call."""
        if self._epoch is None:
            self._epoch = 0.0 if isinstance(loop, World) else loop.time()
            for second in self._schedule.edges():
                loop.call_at(max(loop.time(), self._epoch + second), self.server.capacity_changed)
        return loop.time() - self._epoch


class Client:
    """A `ChatModel`: a provider as one caller sees it."""

    def __init__(self, provider: SimulatedProvider, caller: str) -> None:
        self._provider = provider
        self._caller = caller

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """Return the whole answer; raises `ProviderError`."""
        return await self._provider.complete(request, caller=self._caller)

    async def stream(self, request: ChatRequest) -> ChatStream:
        """Return the answer as a stream, once its first chunk is there; raises `ProviderError`."""
        return await self._provider.stream(request, caller=self._caller)


class _Answer:
    """A reply on its way: how it ends, what it costs, and the work it waits for."""

    __slots__ = (
        *("breaks_at", "breaks_with", "each", "finish_reason"),
        *("first", "id", "job", "reply", "usage"),
    )

    job: Job
    first: float
    each: float

    def __init__(self, answer_id: str, reply: Reply, usage: Usage) -> None:
        self.id = answer_id
        self.reply = reply
        self.usage = usage
        self.finish_reason: FinishReason = "stop"
        self.breaks_at: float | None = None
        self.breaks_with: int | None = None

    def cut(self, keep: float, *, says_so: bool) -> None:
        """Keep that share of the answer."""
        calls = tuple(
            call.model_copy(update={"arguments": _part(call.arguments, keep)})
            for call in self.reply.tool_calls
        )
        self.reply = replace(self.reply, text=_part(self.reply.text, keep), tool_calls=calls)
        tokens = max(1, int(self.usage.output_tokens * keep + _EPSILON))
        self.usage = self.usage.model_copy(update={"output_tokens": tokens})
        if says_so:
            self.finish_reason = "length"

    def written(self) -> Usage:
        """Return the usage so far: nothing until the server begins, then all input and the tokens written."""
        if self.job.started_at is None:
            return Usage()
        beyond_first = self.job.attained() - self.first
        steps = beyond_first / self.each if self.each else 0.0
        written = (
            0 if beyond_first < 0 else min(self.usage.output_tokens, 1 + int(steps + _EPSILON))
        )
        return self.usage.model_copy(update={"output_tokens": written})


class Stream:
    """The answer's chunks, each when the server has written it. `usage` is what the whole will cost.

    `quotas` is what was left of the rate limits when it was asked for.
    """

    def __init__(self, provider: SimulatedProvider, attempt: Attempt, answer: _Answer) -> None:
        self.id = answer.id
        self.usage = answer.usage
        self.quotas = provider.rate_limit_state().quotas
        self._provider = provider
        self._attempt = attempt
        self._answer = answer
        self._chunks = _chunks(answer, provider.tokens_per_chunk)
        self._position = 0
        self._closed = False

    async def open(self) -> None:
        """Wait for the first chunk, or raise if the answer breaks before it."""
        await self._wait(self._answer.first)
        self._break_if_due()
        self._attempt.first_token_at = asyncio.get_running_loop().time()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatChunk:
        if self._closed or self._position == len(self._chunks):
            raise StopAsyncIteration
        self._break_if_due()
        last = self._position == len(self._chunks) - 1
        tokens = self._position * self._provider.tokens_per_chunk
        work = self._answer.first + tokens * self._answer.each
        await self._wait(self._answer.job.work if last else work)
        self._position += 1
        return self._chunks[self._position - 1]

    async def aclose(self) -> None:
        """Hang up. The server drops the rest, or works on, as it is made."""
        if not self._closed and self._position < len(self._chunks):
            self._provider._left(self._attempt, self._answer)
        self._closed = True

    async def _wait(self, work: float) -> None:
        try:
            await self._answer.job.reach(work)
        except asyncio.CancelledError:
            self._closed = True
            self._provider._left(self._attempt, self._answer)
            raise

    def _break_if_due(self) -> None:
        breaks_at = self._answer.breaks_at
        if breaks_at is not None and self._position >= int(breaks_at * len(self._chunks)):
            self._closed = True
            raise self._provider._broken(self._attempt, self._answer)


def _part(text: str, keep: float) -> str:
    return text[: int(len(text) * keep + _EPSILON)]


def _chunks(answer: _Answer, tokens_per_chunk: int) -> list[ChatChunk]:
    text, calls = answer.reply.text, answer.reply.tool_calls
    pieces = max(1, -(-answer.usage.output_tokens // tokens_per_chunk) - len(calls))
    edges = [len(text) * piece // pieces for piece in range(pieces + 1)]
    chunks = [ChatChunk(text=text[start:end]) for start, end in pairwise(edges) if end > start]
    chunks += [
        ChatChunk(
            tool_calls=(
                ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments),
            )
        )
        for index, call in enumerate(calls)
    ]
    return [*chunks, ChatChunk(finish_reason=answer.finish_reason, usage=answer.usage)]


def _until_stop(reply: Reply, stop: tuple[str, ...]) -> Reply:
    ends = [at for word in stop if word and (at := reply.text.find(word)) >= 0]
    return replace(reply, text=reply.text[: min(ends)]) if ends else reply


def _usage_of(request: ChatRequest, reply: Reply) -> Usage:
    written = reply.text + "".join(call.arguments for call in reply.tool_calls)
    return Usage(
        input_tokens=sum(approximate_tokens(message.content) for message in request.messages),
        output_tokens=approximate_tokens(written),
    )


def _refusal(fault: ErrorRate) -> ProviderError:
    headers = {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:g}"}
    return error_for_status(
        fault.status_code, f"simulated failure ({fault.status_code})", headers=headers
    )


def _served(attempt: Attempt, usage: Usage, at: float) -> None:
    if attempt.finished_at is None:
        attempt.usage = usage
        _close(attempt, at, status_code=200, error=None)


def _close(
    attempt: Attempt, at: float, *, status_code: int | None, error: ErrorKind | None
) -> None:
    attempt.finished_at = at
    attempt.status_code = status_code
    attempt.error = error
