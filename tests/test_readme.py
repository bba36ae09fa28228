"""The README tells the truth: its table is the catalog's, its links lead somewhere."""

import ast
import asyncio
import re
import socket
from pathlib import Path

import pytest
import uvicorn

from course.matrix import with_matrix
from llm_patterns.catalog import companions, patterns
from llm_patterns.simulation import ConstantLatency, SimulatedProvider
from llm_patterns.simulation.wire import AsgiApp, WireApp

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_is_the_catalogs() -> None:
    """The README shows every pattern as the catalog has it; `make readme` renews it."""
    assert with_matrix(README) == README
    assert all(each.question in README for each in (*patterns(), *companions()))


def test_a_text_without_markers_is_refused() -> None:
    """The table is written only where a file asks for it."""
    with pytest.raises(ValueError, match="needs the markers"):
        with_matrix("# A page")


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_every_link_into_the_tree_leads_to_a_file(name: str) -> None:
    """A relative link names a file that exists."""
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text())
    assert links
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_every_command_in_the_readme_is_a_target() -> None:
    """Each `make` command that the README names exists."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))
    assert {"book", "test", "help"} <= commands <= targets


async def run(
    program: str, provider: SimulatedProvider, listener: socket.socket
) -> dict[str, object]:
    """Serve the provider on a socket and run a program with `await` in it; return its names."""
    config = uvicorn.Config(AsgiApp(WireApp(provider)), log_level="warning")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    names: dict[str, object] = {}
    await eval(compile(program, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    await names["client"].close()  # type: ignore[attr-defined]
    server.should_exit = True
    await serving
    return names


def test_the_example_works_on_the_vendors_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's lines, as they stand, get an answer from the simulated provider on a port."""
    example = re.search(r"<!-- example -->\n```python\n(.*?)```", README, re.DOTALL)
    assert example
    provider = SimulatedProvider(latency=ConstantLatency(0.0, 0.0))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        names = asyncio.run(run(example[1], provider, listener))
    assert names["answer"].choices[0].message.content  # type: ignore[attr-defined]
    assert [attempt.model for attempt in provider.ledger] == ["gpt-5-mini"]
