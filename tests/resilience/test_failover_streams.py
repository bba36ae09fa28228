"""What becomes of a stream when its target breaks off, in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from llm_patterns.chat import ChatChunk, ChatRequest, ChatStream, Message, Tool, ToolCall
from llm_patterns.errors import ErrorKind, InvalidRequest, ServerError
from llm_patterns.resilience import (
    AfterFirstToken,
    AllTargetsFailed,
    Capabilities,
    EarnedBudget,
    FailoverEvent,
    FailoverPolicy,
    FailoverStream,
    MultiProviderFailover,
    ServedBecause,
    StreamInterrupted,
    StreamSwitched,
    Target,
    TargetLimits,
)
from llm_patterns.simulation import (
    ConstantLatency,
    Disconnect,
    Fault,
    Hang,
    Outage,
    Reply,
    Responder,
    SimulatedProvider,
    simulate,
)

ASK = ChatRequest(model="any", messages=(Message.user("Tell me."),))
TEXT = "The quick brown fox jumps over the lazy dog, and the dog does not mind at all. " * 2
PREFILL = Capabilities(prefill=True)
TENTH = ConstantLatency(time_to_first_token=1.0, seconds_per_token=0.1)


def writes(text: str) -> Responder:
    """Write *text*, or after an assistant's beginning of it the rest, as a model that takes a prefill does."""

    def respond(request: ChatRequest, rng: Random) -> Reply:
        last = request.messages[-1]
        begun = last.content if last.role == "assistant" else ""
        assert text.startswith(begun)
        return Reply(text[len(begun) :])

    return respond


goes_on = writes(TEXT)


def provider(*faults: Fault, **options: Any) -> SimulatedProvider:
    """A provider that writes `TEXT` at ten tokens a second, the first after a second."""
    usual: dict[str, Any] = {"latency": TENTH, "responder": goes_on}
    return SimulatedProvider(faults=faults, **usual | options)


def failover(
    *models: SimulatedProvider,
    then: AfterFirstToken,
    capabilities: Capabilities = PREFILL,
    budget: EarnedBudget | None = None,
    on_event: Callable[[FailoverEvent], object] | None = None,
    **policy: Any,
) -> MultiProviderFailover:
    """Targets `t0`, `t1` and so on."""
    targets = [
        Target(f"t{at}", model, capabilities=capabilities) for at, model in enumerate(models)
    ]
    settings = FailoverPolicy(deadline=30, after_first_token=then, **policy)
    return MultiProviderFailover(settings, targets, budget=budget, on_event=on_event)


async def read(stream: ChatStream) -> tuple[str, list[StreamSwitched]]:
    """Read as a careful consumer does: drop what was shown where the answer starts over."""
    shown, switches = "", []
    async for chunk in stream:
        if isinstance(chunk, StreamSwitched):
            switches.append(chunk)
            shown = "" if chunk.restarted else shown
        shown += chunk.text
    return shown, switches


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run *main* in virtual time."""
    return simulate(main)


def test_before_the_first_token_nobody_notices() -> None:
    """The opening fails over as a call does; there is no marker in the stream."""

    async def main() -> tuple[str, list[StreamSwitched], str, float]:
        stream = await failover(provider(Outage()), provider(), then="raise").stream(ASK)
        opened = asyncio.get_running_loop().time()
        return *(await read(stream)), stream.target, opened

    text, switches, target, opened = run(main)
    assert (text, switches, target) == (TEXT, [], "t1")
    assert opened == pytest.approx(1.05)


def test_the_deadline_is_for_the_first_chunk_and_the_stream_may_run_on() -> None:
    """A target that hangs before it leaves half to the next, whose answer takes longer than the deadline."""

    async def main() -> tuple[str, float]:
        slow = provider(latency=ConstantLatency(1.0, 1.0))
        stream = await failover(provider(Hang()), slow, then="raise").stream(ASK)
        opened = asyncio.get_running_loop().time()
        text, _ = await read(stream)
        return text, opened

    assert run(main) == (TEXT, 16.0)


def test_after_the_first_token_a_break_is_an_error_by_default() -> None:
    """With what came, who wrote it, and what broke."""

    async def main() -> tuple[StreamInterrupted, str, int, int]:
        spare = provider()
        both = failover(provider(Disconnect(after=0.5)), spare, then="raise")
        stream = await both.stream(ASK)
        with pytest.raises(StreamInterrupted) as broken:
            await read(stream)
        failed = both.targets[0].breaker.statistics().failed
        return broken.value, stream.text, len(spare.ledger), failed

    error, text, asked, failed = run(main)
    assert (error.target, error.text, error.kind) == ("t0", text, ErrorKind.CONNECTION)
    assert TEXT.startswith(text)
    assert len(text) > 50
    assert (asked, failed, error.headers) == (0, 1, {"x-should-retry": "false"})


def test_a_restart_is_visible_and_begins_anew() -> None:
    """The marker says who wrote, who writes, and that what was shown must go."""

    async def main() -> tuple[str, list[StreamSwitched], list[FailoverEvent], Any]:
        events: list[FailoverEvent] = []
        both = failover(
            provider(Disconnect(after=0.5)), provider(), then="restart", on_event=events.append
        )
        text, switches = await read(await both.stream(ASK))
        return text, switches, events, both.statistics()

    text, (switch,), events, statistics = run(main)
    assert text == TEXT
    assert (switch.before, switch.target, switch.restarted) == ("t0", "t1", True)
    assert (switch.text, switch.error in [getattr(e, "error", None) for e in events]) == ("", True)
    assert switch in events
    assert (statistics.calls, statistics.stream_restarts) == (1, 1)
    assert statistics.served[ServedBecause.FIRST_CHOICE] == 1


def test_a_continuation_goes_on_from_the_text_so_far() -> None:
    """Nothing twice, nothing lost, and the marker says that what was shown may stay."""

    async def main() -> tuple[str, list[StreamSwitched], Any, float]:
        both = failover(provider(Disconnect(after=0.5)), provider(), then="continue")
        stream = await both.stream(ASK)
        text, switches = await read(stream)
        return text, switches, both.statistics(), asyncio.get_running_loop().time()

    text, (switch,), statistics, ended = run(main)
    assert text == TEXT
    assert (switch.restarted, statistics.stream_continuations) == (False, 1)
    assert ended < 1.0 + 4.0 + 1.0  # only the rest was written a second time


def test_ten_thousand_cuts_duplicate_nothing() -> None:
    """Wherever streams are cut, once or twice, the shown text is the whole text."""

    async def main() -> int:
        rng, whole = Random(7), "Neither the fox nor the dog minds."
        continued = 0
        for _ in range(10_000):
            cuts = ([Disconnect(after=rng.random() * 0.99)], [Disconnect(after=rng.random())], [])
            models = [provider(*cut, responder=writes(whole)) for cut in cuts]
            three = failover(*models, then="continue")
            text, switches = await read(await three.stream(ASK))
            assert text == whole
            continued += sum(not switch.restarted for switch in switches)
        return continued

    assert run(main) > 10_000


def test_white_space_that_a_prefill_may_not_end_in_comes_once() -> None:
    """Providers refuse it there, so it is taken off, and dropped where the continuation brings it again."""

    async def main() -> tuple[str, str]:
        asked = []

        def words(request: ChatRequest, rng: Random) -> Reply:
            asked.append(request.messages[-1].content)
            return Reply("one two") if len(asked) == 1 else Reply(" two")

        first = provider(Disconnect(after=0.5), responder=words, tokens_per_chunk=1)
        second = provider(responder=words)
        text, _ = await read(await failover(first, second, then="continue").stream(ASK))
        return text, asked[1]

    async def cut_after_space() -> str:
        """The same by hand, with the cut right after the space."""

        async def chunks() -> Any:
            yield ChatChunk(text="one ")
            raise ConnectionError("cut")

        class First:
            async def complete(self, request: ChatRequest) -> Any:
                raise NotImplementedError

            async def stream(self, request: ChatRequest) -> Any:
                return chunks()

        def rest(request: ChatRequest, rng: Random) -> Reply:
            assert request.messages[-1].content == "one"
            return Reply("  two")

        policy = FailoverPolicy(deadline=30, after_first_token="continue")
        targets = [
            Target("a", First()),
            Target("b", provider(responder=rest), capabilities=PREFILL),
        ]
        text, _ = await read(await MultiProviderFailover(policy, targets).stream(ASK))
        return text

    assert run(main)[0] == "one two"
    assert run(cut_after_space) == "one  two"


def test_the_bound_on_the_answer_holds_over_both_targets() -> None:
    """What was written is taken off `max_tokens`."""

    async def main() -> list[int | None]:
        bounds: list[int | None] = []

        def noted(request: ChatRequest, rng: Random) -> Reply:
            bounds.append(request.max_tokens)
            return goes_on(request, rng)

        both = failover(
            provider(Disconnect(after=0.5), responder=noted),
            provider(responder=noted),
            then="continue",
        )
        await read(await both.stream(ASK.model_copy(update={"max_tokens": 100})))
        return bounds

    whole, rest = run(main)
    assert whole == 100
    assert rest is not None
    assert 75 <= rest <= 85


@pytest.mark.parametrize(
    ("spoils", "capabilities"),
    [
        ({}, Capabilities(prefill=False)),
        ({"response_schema": {"type": "object"}}, PREFILL),
        ({"tools": (Tool(name="look"),), "tool_choice": "required"}, PREFILL),
    ],
    ids=["no prefill", "schema", "tool call"],
)
def test_what_can_not_be_continued_starts_over(
    spoils: dict[str, Any], capabilities: Capabilities
) -> None:
    """Visibly, by the same marker."""

    async def main() -> list[StreamSwitched]:
        def calls(request: ChatRequest, rng: Random) -> Reply:
            if not request.tools:
                return goes_on(request, rng)
            return Reply("Let me look.", (ToolCall(id="1", name="look", arguments="{}"),) * 9)

        models = [provider(Disconnect(after=0.6), responder=calls), provider(responder=calls)]
        both = failover(*models, then="continue", capabilities=capabilities)
        stream = await both.stream(ASK.model_copy(update=spoils))
        return (await read(stream))[1]

    assert [switch.restarted for switch in run(main)] == [True]


def test_a_continuation_looks_for_a_target_that_takes_a_prefill() -> None:
    """The next in order does not; the one after it goes on."""

    async def main() -> tuple[str, list[StreamSwitched]]:
        policy = FailoverPolicy(deadline=30, after_first_token="continue")
        targets = [
            Target("a", provider(Disconnect(after=0.5))),
            Target("b", provider()),
            Target("c", provider(), capabilities=PREFILL),
        ]
        return await read(await MultiProviderFailover(policy, targets).stream(ASK))

    text, switches = run(main)
    assert text == TEXT
    assert [(each.target, each.restarted) for each in switches] == [("c", False)]


def test_without_another_target_the_break_is_an_error() -> None:
    """Caused by what the others said."""

    async def main() -> StreamInterrupted:
        one = failover(provider(Disconnect(after=0.5)), then="restart")
        with pytest.raises(StreamInterrupted) as alone:
            await read(await one.stream(ASK))
        assert alone.value.__cause__ is alone.value.error
        both = failover(provider(Disconnect(after=0.5)), provider(Outage()), then="continue")
        with pytest.raises(StreamInterrupted) as broken:
            await read(await both.stream(ASK))
        return broken.value

    cause = run(main).__cause__
    assert isinstance(cause, AllTargetsFailed)
    assert [each.target for each in cause.attempts] == ["t0", "t1"]


def test_a_bad_request_in_mid_stream_is_the_caller_s() -> None:
    """It reaches them as it came, and no other target is asked."""

    async def main() -> int:
        spare = provider()
        both = failover(provider(Disconnect(after=0.5, status_code=400)), spare, then="restart")
        with pytest.raises(InvalidRequest):
            await read(await both.stream(ASK))
        return len(spare.ledger)

    assert run(main) == 0


def test_a_stream_that_stalls_is_broken() -> None:
    """An open connection on which nothing comes any more."""

    async def main() -> tuple[str, list[StreamSwitched], float]:
        stalls = provider(latency=ConstantLatency(1.0, 60.0))
        both = failover(stalls, provider(), then="continue", stall_timeout=5)
        stream = await both.stream(ASK)
        shown = await read(stream)
        return *shown, asyncio.get_running_loop().time()

    text, (switch,), ended = run(main)
    assert (text, isinstance(switch.error, TimeoutError)) == (TEXT, True)
    assert ended < 15


def test_an_answer_that_is_whole_is_not_begun_again() -> None:
    """Its connection broke after the last chunk had come."""

    async def main() -> tuple[str, list[StreamSwitched], int]:
        spare = provider()

        class Late:
            async def complete(self, request: ChatRequest) -> Any:
                raise NotImplementedError

            async def stream(self, request: ChatRequest) -> Any:
                async def chunks() -> Any:
                    yield ChatChunk(text="All.")
                    yield ChatChunk(finish_reason="stop")
                    raise ConnectionError("reset")

                return chunks()

        policy = FailoverPolicy(deadline=30, after_first_token="restart")
        targets = [Target("late", Late()), Target("spare", spare)]
        shown = await read(await MultiProviderFailover(policy, targets).stream(ASK))
        return *shown, len(spare.ledger)

    assert run(main) == ("All.", [], 0)


def test_a_reader_who_leaves_frees_everything() -> None:
    """The connection, the target's place, and a second `aclose` does nothing."""

    async def main() -> tuple[bool, int, int]:
        model = provider()
        limits = TargetLimits(max_in_flight=1)
        target = Target("only", model, limits=limits)
        one = MultiProviderFailover(FailoverPolicy(deadline=30), [target])
        stream = await one.stream(ASK)
        await anext(stream)
        busy = target.in_flight
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert target.breaker.statistics().succeeded == 1
        return model.ledger[0].abandoned, busy, target.in_flight

    assert run(main) == (True, 1, 0)


@pytest.mark.parametrize("while_reopening", [False, True])
def test_a_cancelled_reader_frees_everything(while_reopening: bool) -> None:
    """Also between two targets."""

    async def main() -> tuple[list[int], list[bool]]:
        models = [
            provider(Disconnect(after=0.5)),
            provider(Hang() if while_reopening else Outage()),
        ]
        both = failover(*models, then="restart")
        stream = await both.stream(ASK)
        reader = asyncio.create_task(read(stream))
        await asyncio.sleep(20 if while_reopening else 1)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        return [target.in_flight for target in both.targets], [
            attempt.abandoned for model in models for attempt in model.ledger
        ]

    in_flight, abandoned = run(main)
    assert in_flight == [0, 0]
    assert abandoned == ([False, True] if while_reopening else [True])


def test_a_stream_holds_its_place_until_it_ends() -> None:
    """A long answer is load for as long as it is written."""

    async def main() -> list[object]:
        target = Target("only", provider(), limits=TargetLimits(max_in_flight=1))
        one = MultiProviderFailover(FailoverPolicy(deadline=30), [target])
        stream = await one.stream(ASK)
        with pytest.raises(AllTargetsFailed):
            await one.stream(ASK)
        await read(stream)
        return [target.in_flight, isinstance(await one.stream(ASK), FailoverStream)]

    assert run(main) == [0, True]


def test_taking_up_a_broken_stream_draws_on_the_budget() -> None:
    """It is one more request; where it can't be afforded the stream ends."""

    async def main() -> tuple[object, float]:
        budget = EarnedBudget(ratio=0, floor=1)
        both = failover(provider(Disconnect(after=0.5)), provider(), then="restart", budget=budget)
        await read(await both.stream(ASK))
        level = budget.statistics(asyncio.get_running_loop().time()).level
        spent = EarnedBudget(ratio=0, floor=0)
        poor = failover(provider(Disconnect(after=0.5)), provider(), then="restart", budget=spent)
        with pytest.raises(StreamInterrupted) as broken:
            await read(await poor.stream(ASK))
        return broken.value.__cause__, level

    cause, level = run(main)
    assert isinstance(cause, AllTargetsFailed)
    assert (cause.reason, level) == ("budget", 1.0)  # the retry succeeded, so its cost came back


def test_a_conversation_follows_its_stream() -> None:
    """Its next turn goes where the last one was finished, and its switch is told."""

    async def main() -> tuple[str, int]:
        both = failover(provider(Disconnect(after=0.5, duration=3)), provider(), then="continue")
        await read(await both.stream(ASK, session="c"))
        served = await both.call(ASK, session="c")
        return served.target, both.statistics().session_switches

    assert run(main) == ("t1", 1)


def test_a_broken_stream_that_can_not_be_closed_is_left() -> None:
    """Its error must not hide the one that counts."""

    async def main() -> str:
        class Stubborn:
            def __aiter__(self) -> "Stubborn":
                return self

            async def __anext__(self) -> ChatChunk:
                raise ServerError("broken")

            async def aclose(self) -> None:
                raise RuntimeError("can't close")

        class First:
            async def complete(self, request: ChatRequest) -> Any:
                raise NotImplementedError

            async def stream(self, request: ChatRequest) -> Any:
                return Stubborn()

        policy = FailoverPolicy(deadline=30, after_first_token="restart")
        targets = [Target("a", First()), Target("b", provider())]
        return (await read(await MultiProviderFailover(policy, targets).stream(ASK)))[0]

    assert run(main) == TEXT
