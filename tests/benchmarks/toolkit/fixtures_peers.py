"""Do the tools that mock HTTP see what clients send today? A real server stands behind them and counts."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import openai
import respx
import vcr

from course.benchmarks import Row
from llm_patterns.toolkit.fixtures import ServedProvider, served

PEERS = ("respx", "vcrpy", "openai", "httpx")
ROUNDS = 1


def by_sdk(url: str) -> None:
    """Ask with the vendor's client."""
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        client.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "Hello"}]
        )


def by_httpx(url: str) -> None:
    """Ask with httpx."""
    body = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
    httpx.post(f"{url}/chat/completions", json=body).raise_for_status()


@contextmanager
def with_respx(server: ServedProvider, ask: Callable[[str], None]) -> Iterator[None]:
    """Answer in the server's place."""
    with respx.mock(assert_all_called=False, assert_all_mocked=False) as routes:
        routes.post(f"{server.openai_url}/chat/completions").respond(json={"choices": []})
        yield


@contextmanager
def with_vcr(server: ServedProvider, ask: Callable[[str], None]) -> Iterator[None]:
    """Replay what was recorded of the same call."""
    with TemporaryDirectory() as folder:
        cassette = str(Path(folder, "cassette.yaml"))
        with vcr.use_cassette(cassette):
            ask(server.openai_url)
        with vcr.use_cassette(cassette, record_mode="none"):
            yield


TOOLS: dict[str, Callable[..., AbstractContextManager[None]]] = {
    "respx": with_respx,
    "VCR.py": with_vcr,
}


def answers(tool: str, ask: Callable[[str], None]) -> str:
    """Return whether the tool answered, so that nothing reached the server."""
    with served() as server, TOOLS[tool](server, ask):
        before = len(server.provider.ledger)
        with suppress(openai.OpenAIError):
            ask(server.openai_url)
            return "yes" if len(server.provider.ledger) == before else "no"
        return "no"


def measure() -> list[Row]:
    """Return which tool answers for which client."""
    return [
        {"Tool": tool, "httpx": answers(tool, by_httpx), "OpenAI's SDK": answers(tool, by_sdk)}
        for tool in TOOLS
    ]
