"""Where do records live that must outlive the process: in a file beside it, or in the server that all processes share?

`open_database(url)` is one asynchronous interface to both: SQLite, from the standard library, on a thread of its own;
and PostgreSQL, over asyncpg's pool (the extra `postgres`). Parameters are `$1`, `$2`; the types `TEXT`, `BIGINT` and
`DOUBLE PRECISION` mean the same in both. It connects when it is first used, and again when the server was away.

Invariants, held for any interleaving of tasks, processes, cancellations and losses of the server:

1. A transaction happens as a whole or not at all, and nothing of another task comes between its statements.
2. Transactions with the same `key` run one after the other, in all processes: what one reads, no other changes
   before it is over.
3. Nobody waits longer than the policy's `timeout`; a transaction that would is undone.
4. A database that cannot be used raises `StoreUnavailable`; a mistake in a statement, the driver's own error.

>>> import asyncio
>>> async def main():
...     async with open_database("sqlite:///:memory:") as database:
...         await database.create("CREATE TABLE IF NOT EXISTS notes (id BIGINT PRIMARY KEY, text TEXT)")
...         async with database.transaction("notes") as transaction:
...             [row] = await transaction.fetch("SELECT count(*) AS notes FROM notes")
...             await transaction.execute("INSERT INTO notes VALUES ($1, $2)", row["notes"], "first")
...         return await database.fetch("SELECT * FROM notes WHERE id = $1", 0)
>>> asyncio.run(main())
[{'id': 0, 'text': 'first'}]

Sources: SQLite, "Write-Ahead Logging" and "Transactions"; PostgreSQL, "Advisory Locks".
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field

from llm_patterns.errors import ConfigurationError, StoreUnavailable

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Database", "DatabasePolicy", "Row", "Transaction", "Value", "open_database"]

Value = str | int | float | bytes | None
"""What a column holds."""
Row = dict[str, Value]
"""A row of a result, by column."""


class DatabasePolicy(BaseModel):
    """What using a database may take."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    timeout: float = Field(
        default=5.0,
        gt=0,
        le=60,
        description="Seconds that a statement or a whole transaction may take, waiting for others included. "
        "Below the patience of the call that waits for it.",
    )
    max_connections: int = Field(
        default=4,
        ge=1,
        le=100,
        description="Connections to PostgreSQL, of each process: a server has 100 in all by default. SQLite has one.",
    )


class Transaction(Protocol):
    """Statements that happen together."""

    async def execute(self, statement: str, *values: Value) -> int:
        """Carry out *statement* with *values* for `$1`, `$2`, ... and return the number of rows it changed."""

    async def execute_many(self, statement: str, rows: Iterable[Sequence[Value]]) -> None:
        """Carry out *statement* for each of *rows*."""

    async def fetch(self, statement: str, *values: Value) -> list[Row]:
        """Return the rows that *statement* gives."""


class Database(ABC):
    """SQLite or PostgreSQL. It belongs to one event loop; as a context manager it is closed at the end.

    A statement by itself is its own transaction. Inside one, use the transaction's methods: in SQLite, the database's
    would wait for it.
    """

    def __init__(self, policy: DatabasePolicy) -> None:
        self.policy = policy
        self._closed = False

    async def execute(self, statement: str, *values: Value) -> int:
        """Carry out *statement* with *values* for `$1`, `$2`, ... and return the number of rows it changed."""
        async with self._bounded() as session:
            return await session.execute(statement, *values)

    async def execute_many(self, statement: str, rows: Iterable[Sequence[Value]]) -> None:
        """Carry out *statement* for each of *rows*, for all or for none."""
        async with self.transaction() as transaction:
            await transaction.execute_many(statement, rows)

    async def fetch(self, statement: str, *values: Value) -> list[Row]:
        """Return the rows that *statement* gives."""
        async with self._bounded() as session:
            return await session.fetch(statement, *values)

    @asynccontextmanager
    async def transaction(self, key: str | None = None) -> AsyncIterator[Transaction]:
        """Open a transaction: it is committed at the end, and undone by any error or cancellation.

        A statement's error must pass: who catches it gets a `RuntimeError` at the end, in both databases.
        Those with the same *key* run one after the other, in all processes: read, decide and write without anyone
        between. Without a key it sees what others commit meanwhile (in SQLite, nobody can). `StoreUnavailable` from
        the commit leaves open whether it happened: write so that doing it again does no harm.
        """
        async with self._bounded() as session:
            await session.begin(key)
            yield session
            if session.broken:
                raise RuntimeError(
                    "a statement of the transaction failed, so all of it is undone: let its error pass, "
                    "or write ON CONFLICT where it may fail"
                )
            await session.commit()

    async def create(self, *statements: str) -> None:
        """Carry out *statements*, such as `CREATE TABLE IF NOT EXISTS`, together; other processes that do it wait."""
        async with self.transaction(_SCHEMA) as transaction:
            for statement in statements:
                await transaction.execute(statement)

    async def close(self) -> None:
        """Let what is running end, and leave no thread and no connection."""
        if not self._closed:
            self._closed = True
            await self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[_Session]:
        if self._closed:
            raise RuntimeError("the database is closed: open it anew")
        limit = asyncio.timeout(self.policy.timeout)
        try:
            async with limit, self._session() as session:
                yield session
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise StoreUnavailable(
                str(self), f"not done within {self.policy.timeout:g} s"
            ) from error

    @abstractmethod
    def _session(self) -> AbstractAsyncContextManager[_Session]:
        """Hold a connection; an error or a cancellation leaves it as it was found, or not at all."""

    @abstractmethod
    async def _close(self) -> None:
        """Close what is open."""


_SCHEMA: Final = "llm_patterns/schema"


def open_database(url: str, policy: DatabasePolicy | None = None) -> Database:
    """Return the database at *url*; it connects when it is first used.

    *url* is `sqlite:///file.db` (`sqlite:////srv/file.db` for an absolute path), `sqlite:///:memory:`, or
    `postgresql://user:password@host/database`. Raises `ConfigurationError` for another, or where the driver is missing.
    """
    scheme, _, rest = url.partition("://")
    policy = policy or DatabasePolicy()
    if scheme == "sqlite" and rest.startswith("/") and rest != "/":
        return _SQLite(rest[1:], policy)
    if scheme in ("postgresql", "postgres") and rest:
        return _PostgreSQL(url, policy)
    raise ConfigurationError(
        f"no database has an address like {scheme + '://...' if rest else url!r}; "
        "known are sqlite:///file.db, sqlite:///:memory: and postgresql://host/database"
    )


class _Session(ABC):
    """A connection in use by one task. It is `broken` once a statement failed: PostgreSQL then commits nothing more."""

    broken = False

    @abstractmethod
    async def execute(self, statement: str, *values: Value) -> int: ...

    @abstractmethod
    async def execute_many(self, statement: str, rows: Iterable[Sequence[Value]]) -> None: ...

    @abstractmethod
    async def fetch(self, statement: str, *values: Value) -> list[Row]: ...

    @abstractmethod
    async def begin(self, key: str | None) -> None: ...

    @abstractmethod
    async def commit(self) -> None: ...


class _SQLite(Database):
    """One connection, which only its own thread touches. The lock keeps tasks out of each other's transactions."""

    def __init__(self, path: str, policy: DatabasePolicy) -> None:
        super().__init__(policy)
        self.path = path
        self.connection: sqlite3.Connection | None = None
        self._lock = asyncio.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="sqlite")

    def __repr__(self) -> str:
        return "SQLite in memory" if self.path == ":memory:" else f"SQLite in {self.path}"

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[_Session]:
        async with self._lock:
            try:
                yield _SQLiteSession(self)
            except BaseException as error:
                if self.connection is not None and not isinstance(error, Exception):
                    self.connection.interrupt()
                # Not awaited, so that it cannot be cancelled: the thread's queue does it before anything that follows.
                self.submit(self._undo)
                raise

    def submit(self, work: Any, *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._worker, work, *arguments)

    async def _close(self) -> None:
        try:
            async with self._lock:
                await self.submit(self._disconnect)
        finally:
            self._worker.shutdown()

    # What follows runs in the thread.

    def connected(self) -> sqlite3.Connection:
        if self.connection is None:
            self.connection = self._connect()
        return self.connection

    def _connect(self) -> sqlite3.Connection:
        import sqlite3  # noqa: PLC0415 - a browser's Python has none

        connection = sqlite3.connect(self.path, timeout=self.policy.timeout, isolation_level=None)
        connection.row_factory = _named
        try:
            # `synchronous` stays at FULL: in this mode NORMAL would lose confirmed commits with the power.
            with suppress(sqlite3.OperationalError):  # Another process is just setting it, for all.
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA foreign_keys = ON")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _undo(self) -> None:
        import sqlite3  # noqa: PLC0415

        if self.connection is not None and self.connection.in_transaction:
            with suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")

    def _disconnect(self) -> None:
        if self.connection is not None:
            self.connection.close()


class _SQLiteSession(_Session):
    def __init__(self, database: _SQLite) -> None:
        self._database = database

    async def execute(self, statement: str, *values: Value) -> int:
        count: int = await self._database.submit(self._execute, statement, values)
        return count

    async def execute_many(self, statement: str, rows: Iterable[Sequence[Value]]) -> None:
        await self._database.submit(self._execute_many, statement, rows)

    async def fetch(self, statement: str, *values: Value) -> list[Row]:
        rows: list[Row] = await self._database.submit(self._fetch, statement, values)
        return rows

    async def begin(self, key: str | None) -> None:
        # IMMEDIATE takes the one write lock at once: a transaction that reads first and writes later would fail
        # where another wrote in between.
        await self.execute("BEGIN IMMEDIATE")

    async def commit(self) -> None:
        await self.execute("COMMIT")

    def _execute(self, statement: str, values: Sequence[Value]) -> int:
        with self._translated():
            return max(0, self._database.connected().execute(statement, _numbered(values)).rowcount)

    def _execute_many(self, statement: str, rows: Iterable[Sequence[Value]]) -> None:
        with self._translated():
            self._database.connected().executemany(statement, map(_numbered, rows))

    def _fetch(self, statement: str, values: Sequence[Value]) -> list[Row]:
        with self._translated():
            return self._database.connected().execute(statement, _numbered(values)).fetchall()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import sqlite3  # noqa: PLC0415

        try:
            yield
        except sqlite3.Error as error:
            self.broken = True
            if _primary_code(error) not in _SQLITE_AWAY:
                raise
            raise StoreUnavailable(str(self._database), str(error)) from error


_SQLITE_AWAY: Final = {
    5,  # BUSY: another process holds the lock for longer than the time-out
    6,  # LOCKED
    8,  # READONLY
    10,  # IOERR
    11,  # CORRUPT
    13,  # FULL
    14,  # CANTOPEN
    15,  # PROTOCOL
    26,  # NOTADB
}


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _numbered(values: Sequence[Value]) -> dict[str, Value]:
    """SQLite reads `$1` as a parameter named 1."""
    return {str(number): value for number, value in enumerate(values, 1)}


def _named(cursor: sqlite3.Cursor, row: Sequence[Value]) -> Row:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


class _PostgreSQL(Database):
    """A pool of connections, made at the first use."""

    def __init__(self, url: str, policy: DatabasePolicy) -> None:
        super().__init__(policy)
        self._url = url
        self.driver = _driver()
        self._pool: Any = None
        self._opening = asyncio.Lock()

    def __repr__(self) -> str:
        return "PostgreSQL"

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[_Session]:
        pool = await self._opened()
        connection = await self._acquired(pool)
        try:
            yield _PostgreSQLSession(self, connection)
        except Exception:
            await self._undo(connection)
            raise
        except BaseException:
            # Cut off, it is undone by the server: nothing may wait for an answer that has not come in time.
            connection.terminate()
            raise
        finally:
            await pool.release(connection)

    async def _opened(self) -> Any:
        async with self._opening:
            if self._pool is None:
                self._pool = await self.driver.create_pool(
                    self._url,
                    min_size=0,
                    max_size=self.policy.max_connections,
                    timeout=self.policy.timeout,
                    command_timeout=self.policy.timeout,
                    reset=_as_it_is,
                )
            return self._pool

    async def _acquired(self, pool: Any) -> Any:
        try:
            return await pool.acquire()
        except (OSError, self.driver.PostgresError, self.driver.InterfaceError) as error:
            raise StoreUnavailable(str(self), _described(error)) from error

    async def _undo(self, connection: Any) -> None:
        try:
            if not self.lost(connection) and connection.is_in_transaction():
                await connection.execute("ROLLBACK")
        except BaseException as error:
            connection.terminate()
            if not isinstance(error, Exception):
                raise

    async def _close(self) -> None:
        if self._pool is not None:
            try:
                async with asyncio.timeout(self.policy.timeout):
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()

    def lost(self, connection: Any) -> bool:
        try:
            closed: bool = connection.is_closed()
        except self.driver.InterfaceError:  # the pool has already taken it back
            return True
        return closed


class _PostgreSQLSession(_Session):
    def __init__(self, database: _PostgreSQL, connection: Any) -> None:
        self._database = database
        self._connection = connection

    async def execute(self, statement: str, *values: Value) -> int:
        with self._translated():
            status: str = await self._connection.execute(statement, *values)
        count = status.rpartition(" ")[2]
        return int(count) if count.isdecimal() else 0

    async def execute_many(self, statement: str, rows: Iterable[Sequence[Value]]) -> None:
        with self._translated():
            await self._connection.executemany(statement, rows)

    async def fetch(self, statement: str, *values: Value) -> list[Row]:
        with self._translated():
            return [dict(row) for row in await self._connection.fetch(statement, *values)]

    async def begin(self, key: str | None) -> None:
        await self.execute("BEGIN")
        if key is not None:
            # Held to the end of the transaction, or of the connection. The statements after it see all that was
            # committed before: each has its own snapshot in this, the default isolation.
            await self.fetch("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", key)

    async def commit(self) -> None:
        await self.execute("COMMIT")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        asyncpg = self._database.driver
        try:
            yield
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self.broken = True
            away = (getattr(error, "sqlstate", None) or "")[:2] in _POSTGRESQL_AWAY
            if not away and not self._database.lost(self._connection):
                raise
            raise StoreUnavailable(str(self._database), _described(error)) from error


_POSTGRESQL_AWAY: Final = {
    "08",  # connection
    "40",  # rolled back: a deadlock
    "53",  # resources: no connection left, no disk
    "57",  # an operator, or a start-up that is not over
    "58",  # the server's own system
}


def _driver() -> Any:
    try:
        import asyncpg  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "PostgreSQL needs asyncpg: pip install 'production-llm-patterns[postgres]'"
        ) from None
    return asyncpg


async def _as_it_is(connection: object) -> None:
    """Reset nothing when a connection is given back, which would cost a round trip: nothing of it was changed."""


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
