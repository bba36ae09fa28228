"""The application on the wire: its headers, its transport and its face to web servers."""

import asyncio
import gc
import json

import httpx
import pytest

from llm_patterns.chat import ChatRequest, Message
from llm_patterns.errors import ConfigurationError
from llm_patterns.simulation import (
    ConstantLatency,
    Disconnect,
    FifoServer,
    RateLimits,
    SimulatedProvider,
    fixed,
    simulate,
)
from llm_patterns.simulation.transport import SimulatedTransport
from llm_patterns.simulation.wire import AsgiApp, WireApp, WireRequest

CHAT = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
URL = "http://provider/v1/chat/completions"


def client(provider, *, timeout=None):
    return httpx.AsyncClient(transport=SimulatedTransport(provider), timeout=timeout)


def test_a_read_time_out_holds_in_virtual_time():
    """The client waits exactly as long as it says."""

    async def use():
        provider = SimulatedProvider(latency=ConstantLatency(30, 0))
        async with client(provider, timeout=httpx.Timeout(5, connect=1)) as http:
            with pytest.raises(httpx.ReadTimeout):
                await http.post(URL, json=CHAT)
        return asyncio.get_running_loop().time()

    assert simulate(use) == 5


def test_a_read_time_out_holds_between_two_pieces():
    """Each wait has the whole time-out, as with a real connection."""

    words = fixed("four words, quite long")

    async def read(seconds_per_token):
        provider = SimulatedProvider(latency=ConstantLatency(1, seconds_per_token), responder=words)
        async with client(provider, timeout=5) as http:
            await http.post(URL, json={**CHAT, "stream": True})
        return asyncio.get_running_loop().time()

    assert simulate(lambda: read(4)) == 21
    with pytest.raises(httpx.ReadTimeout):
        simulate(lambda: read(6))


def test_a_closed_answer_hangs_up_even_before_it_is_read():
    """Closing is heard by the provider at once."""
    provider = SimulatedProvider(server=FifoServer(slots=1, abandoned="drop"))

    async def use():
        async with (
            client(provider) as http,
            http.stream("POST", URL, json={**CHAT, "stream": True}),
        ):
            pass
        return provider.server.in_flight

    assert simulate(use) == 0
    assert provider.ledger[0].abandoned


def test_two_runs_of_one_seed_are_equal_to_the_byte():
    """Ids, times and words: nothing comes from outside."""

    def run():
        async def use():
            provider = SimulatedProvider(limits=RateLimits(requests_per_minute=100))
            async with client(provider) as http:
                answers = [await http.post(URL, json=CHAT) for _ in range(3)]
                streamed = await http.post(URL, json={**CHAT, "stream": True})
            return [(answer.content, dict(answer.headers)) for answer in (*answers, streamed)]

        return simulate(use)

    assert run() == run()


def test_headers_count_down_and_refill():
    """Requests left now, and the time until all are back."""

    async def use():
        async with client(SimulatedProvider(limits=RateLimits(requests_per_minute=60))) as http:
            first = (await http.post(URL, json=CHAT)).headers
            await asyncio.sleep(10)
            later = (await http.get("http://provider/v1/models")).headers
        return first, later

    first, later = simulate(use)
    assert first["x-ratelimit-remaining-requests"] == "59"
    assert first["x-ratelimit-reset-requests"].endswith("ms")
    assert later["x-ratelimit-remaining-requests"] == "60"
    assert "x-ratelimit-limit-tokens" not in later


def test_a_client_that_waits_as_told_is_let_in():
    """A refused request uses up a part of the limit; the wait that it is told includes that."""

    async def use():
        provider = SimulatedProvider(limits=RateLimits(requests_per_minute=7))
        async with client(provider) as http:
            for _ in range(7):
                await http.post(URL, json=CHAT)
            await asyncio.sleep(3.3)
            for _ in range(20):
                refused = await http.post(URL, json=CHAT)
                assert refused.status_code == 429
                await asyncio.sleep(int(refused.headers["retry-after-ms"]) / 1000)
                assert (await http.post(URL, json=CHAT)).status_code == 200

    simulate(use)


def test_the_largest_body_must_be_positive():
    """A setting that would refuse everything is refused."""
    with pytest.raises(ConfigurationError, match="max_body_bytes is 0"):
        WireApp(SimulatedProvider(), max_body_bytes=0)


class Server:
    """The other side of an ASGI application: what it receives, and what it is sent."""

    def __init__(self, *events):
        self.events = list(events)
        self.sent = []
        self.gone = asyncio.Event()

    async def receive(self):
        if self.events:
            return self.events.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, event):
        self.sent.append(event)


def scope(path="/v1/chat/completions", headers=()):
    return {"type": "http", "method": "POST", "path": path, "headers": list(headers)}


def body(content, *, more=False):
    return {"type": "http.request", "body": content, "more_body": more}


def serve(provider, *events, use=None, **options):
    """Let the application serve one request made of *events*; return what it sent."""

    async def main():
        server = Server(*events)
        serving = asyncio.create_task(
            AsgiApp(WireApp(provider, **options))(scope(), server.receive, server.send)
        )
        if use is not None:
            await use(server, serving)
        await serving
        return server.sent

    return simulate(main)


def test_a_body_in_pieces_is_put_together():
    """As servers deliver it."""
    content = json.dumps(CHAT).encode()
    start, answer = serve(SimulatedProvider(), body(content[:9], more=True), body(content[9:]))
    assert start["status"] == 200
    assert dict(start["headers"])[b"content-length"] == str(len(answer["body"])).encode()


def test_no_more_of_a_body_is_read_than_is_allowed():
    """The answer does not wait for the rest."""
    server = Server(body(b" " * 60, more=True), body(b" " * 60, more=True))

    async def main():
        app = AsgiApp(WireApp(SimulatedProvider(), max_body_bytes=100))
        await app(scope(), server.receive, server.send)

    simulate(main)
    assert server.sent[0]["status"] == 413


def test_a_client_that_leaves_before_its_body_is_whole_is_forgotten():
    """Nothing is asked of the provider."""
    provider = SimulatedProvider()
    assert serve(provider, body(b"{", more=True), {"type": "http.disconnect"}) == []
    assert len(provider.ledger) == 0


def test_a_client_that_leaves_cancels_its_request():
    """The provider's slot is free at once."""
    provider = SimulatedProvider(
        latency=ConstantLatency(30, 0), server=FifoServer(slots=1, abandoned="drop")
    )

    async def leave(server, serving):
        await asyncio.sleep(1)
        assert provider.server.in_flight == 1
        server.gone.set()

    assert serve(provider, body(json.dumps(CHAT).encode()), use=leave) == []
    assert provider.server.in_flight == 0
    assert provider.ledger[0].abandoned


def test_a_client_that_leaves_a_stream_cancels_it():
    """After some pieces."""
    provider = SimulatedProvider(
        latency=ConstantLatency(1, 10),
        server=FifoServer(slots=1, abandoned="drop"),
        responder=fixed("many words " * 9),
    )

    async def leave(server, serving):
        await asyncio.sleep(12)
        server.gone.set()

    sent = serve(provider, body(json.dumps({**CHAT, "stream": True}).encode()), use=leave)
    assert [event["type"] for event in sent][:2] == ["http.response.start", "http.response.body"]
    assert provider.server.in_flight == 0
    assert 0 < provider.ledger[0].usage.output_tokens < 5


def test_a_server_that_stops_cancels_its_requests():
    """Cancellation of the application is cancellation of the request."""
    provider = SimulatedProvider(latency=ConstantLatency(30, 0))

    async def main():
        server = Server(body(json.dumps(CHAT).encode()))
        app = AsgiApp(WireApp(provider))
        serving = asyncio.create_task(app(scope(), server.receive, server.send))
        await asyncio.sleep(1)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving

    simulate(main)
    assert provider.ledger[0].abandoned


def test_a_broken_answer_is_left_incomplete():
    """The server then closes the connection, for lack of an end."""
    content = body(json.dumps({**CHAT, "stream": True}).encode())
    sent = serve(SimulatedProvider(faults=[Disconnect(after=0)]), content)
    assert all(event.get("more_body") for event in sent[1:])


def test_an_error_of_our_own_reaches_the_server():
    """A responder that fails is a bug, and is not swallowed."""

    def fail(request, rng):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        serve(SimulatedProvider(responder=fail), body(json.dumps(CHAT).encode()))


def test_start_and_stop_are_acknowledged():
    """What servers ask of an application before and after."""

    async def main():
        server = Server({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
        await AsgiApp(WireApp(SimulatedProvider()))(
            {"type": "lifespan"}, server.receive, server.send
        )
        await AsgiApp(WireApp(SimulatedProvider()))(
            {"type": "websocket"}, server.receive, server.send
        )
        return [event["type"] for event in server.sent]

    assert simulate(main) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_the_application_needs_no_server():
    """A request in, an answer out."""

    async def main():
        request = WireRequest("POST", "/v1/chat/completions", {}, json.dumps(CHAT).encode())
        return await WireApp(SimulatedProvider())(request)

    answer = simulate(main)
    assert json.loads(answer.body)["choices"][0]["message"]["content"] == "OK"


def test_a_generator_that_is_dropped_half_way_is_no_leftover():
    """asyncio closes it in a task of its own, which is not main's to await."""
    closed = []

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(1)
            closed.append(True)

    async def main():
        async for _ in numbers():
            break
        gc.collect()

    simulate(main)
    assert closed == [True]


def test_an_abandoned_answer_is_billed_for_what_was_written():
    """Not for the whole, if the server notices and stops."""
    provider = SimulatedProvider(
        latency=ConstantLatency(1, 1),
        server=FifoServer(slots=1, abandoned="drop"),
        responder=fixed("word " * 40),
    )
    request = ChatRequest(model="small", messages=(Message.user("Hello"),))

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(6.5):
                await provider.complete(request)

    simulate(main)
    assert provider.ledger[0].usage.output_tokens == 6
