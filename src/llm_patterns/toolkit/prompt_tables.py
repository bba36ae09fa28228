"""Prompts in SQLite or PostgreSQL: two tables, to which rows are only ever added.

Writers of a name take turns in all processes, each in one transaction that reads, decides and adds. The primary keys
say the same once more: even a writer that took no turn could not give one number, or one place in the history, twice.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pydantic import TypeAdapter

from llm_patterns.stores import Database, Row, Transaction
from llm_patterns.toolkit.prompt_store import (
    ContentChanged,
    Labelled,
    LabelMove,
    PromptSave,
    PromptVersion,
    Signature,
    next_move,
    no_label,
    no_version,
)
from llm_patterns.toolkit.prompts import Prompt, digest_of

__all__ = ["SQLPromptStore"]

_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS prompt_versions (
        name TEXT NOT NULL, number BIGINT NOT NULL, digest TEXT NOT NULL, content TEXT NOT NULL,
        author TEXT NOT NULL, saved_at TEXT NOT NULL, why TEXT NOT NULL,
        PRIMARY KEY (name, number), UNIQUE (name, digest)
    )""",
    """CREATE TABLE IF NOT EXISTS prompt_history (
        name TEXT NOT NULL, sequence BIGINT NOT NULL, number BIGINT NOT NULL,
        label TEXT, previous BIGINT, before BIGINT, rollback BIGINT NOT NULL,
        author TEXT NOT NULL, happened_at TEXT NOT NULL, why TEXT NOT NULL,
        PRIMARY KEY (name, sequence),
        FOREIGN KEY (name, number) REFERENCES prompt_versions (name, number)
    )""",
    "CREATE INDEX IF NOT EXISTS prompt_labels ON prompt_history (name, label, sequence)",
)
_VERSION: Final = 'name, number, digest, content, author AS "by", saved_at AS "at", why'
_ENTRY: Final = 'name, sequence, number, label, previous, before, rollback, author AS "by", happened_at AS "at", why'


class SQLPromptStore:
    """A store in SQLite or PostgreSQL. It makes its tables when it is first used.

    With *owned*, it closes the database when it is closed.
    """

    def __init__(self, database: Database, *, owned: bool = False) -> None:
        self._database = database
        self._owned = owned
        self._made = False

    async def save(
        self, name: str, prompt: Prompt, signature: Signature
    ) -> tuple[PromptVersion, PromptSave]:
        """Return the version with this content, added if it is new."""
        database = await self._ready()
        async with database.transaction(_turn(name)) as transaction:
            version = await _version(transaction, name, prompt.digest)
            if version is None:
                number = 1 + await _last(transaction, "number", "prompt_versions", name)
                version = PromptVersion(name, number, prompt, *signature)
                await _add_version(transaction, version)
            sequence = 1 + await _last(transaction, "sequence", "prompt_history", name)
            save = PromptSave(name, sequence, version.number, *signature)
            await _add_entry(transaction, save)
        return version, save

    async def move(
        self,
        name: str,
        label: str,
        to: int | None,
        signature: Signature,
        *,
        expected: int | None = None,
    ) -> Labelled:
        """Move *label*, or roll it back."""
        database = await self._ready()
        async with database.transaction(_turn(name)) as transaction:
            current = await _last_move(transaction, name, label)
            before = await _move(transaction, name, current.before) if current else None
            sequence = 1 + await _last(transaction, "sequence", "prompt_history", name)
            move = next_move(
                name, label, to, signature, sequence=sequence,
                current=current, before=before, expected=expected,
            )  # fmt: skip
            version = await _version(transaction, name, move.number)
            if version is None:
                count = await _last(transaction, "number", "prompt_versions", name)
                raise no_version(name, move.number, count)
            if move is not current:
                await _add_entry(transaction, move)
        return Labelled(version, move)

    async def version(self, name: str, which: int | str) -> PromptVersion:
        """Return the version with this number or digest."""
        database = await self._ready()
        version = await _version(database, name, which)
        if version is None:
            raise no_version(name, which, await _last(database, "number", "prompt_versions", name))
        return version

    async def labelled(self, name: str, label: str) -> Labelled:
        """Return what *label* points to."""
        database = await self._ready()
        move = await _last_move(database, name, label)
        if move is None:
            raise no_label(name, label, await self.labels(name))
        return Labelled(await self.version(name, move.number), move)

    async def labels(self, name: str) -> dict[str, int]:
        """Return the version that each label points to."""
        rows = await (await self._ready()).fetch(
            "SELECT label, number FROM prompt_history AS history WHERE name = $1 AND sequence = "
            "(SELECT max(sequence) FROM prompt_history WHERE name = $1 AND label = history.label)",
            name,
        )
        return dict(sorted((str(row["label"]), _whole(row["number"])) for row in rows))

    async def history(self, name: str, limit: int) -> list[PromptSave | LabelMove]:
        """Return the last *limit* saves and moves, the newest first."""
        rows = await (await self._ready()).fetch(
            f"SELECT {_ENTRY} FROM prompt_history "  # noqa: S608
            "WHERE name = $1 ORDER BY sequence DESC LIMIT $2",
            name,
            limit,
        )
        return [(_SAVES if row["label"] is None else _MOVES).validate_python(row) for row in rows]

    async def names(self) -> list[str]:
        """Return all names."""
        rows = await (await self._ready()).fetch("SELECT DISTINCT name FROM prompt_versions")
        return sorted(str(row["name"]) for row in rows)

    async def close(self) -> None:
        """Close the database, if it was opened for this store."""
        if self._owned:
            await self._database.close()

    async def _ready(self) -> Database:
        if not self._made:
            await self._database.create(*_TABLES)
            self._made = True
        return self._database


_SAVES: Final = TypeAdapter(PromptSave)
_MOVES: Final = TypeAdapter(LabelMove)


def _turn(name: str) -> str:
    return f"llm_patterns/prompts/{name}"


async def _last(transaction: Transaction, column: str, table: str, name: str) -> int:
    statement = f"SELECT coalesce(max({column}), 0) AS last FROM {table} WHERE name = $1"  # noqa: S608
    [row] = await transaction.fetch(statement, name)
    return _whole(row["last"])


async def _version(transaction: Transaction, name: str, which: int | str) -> PromptVersion | None:
    column = "number" if isinstance(which, int) else "digest"
    statement = f"SELECT {_VERSION} FROM prompt_versions WHERE name = $1 AND {column} = $2"  # noqa: S608
    rows = await transaction.fetch(statement, name, which)
    return _version_of(rows[0]) if rows else None


async def _last_move(transaction: Transaction, name: str, label: str) -> LabelMove | None:
    rows = await transaction.fetch(
        f"SELECT {_ENTRY} FROM prompt_history WHERE name = $1 AND label = $2 "  # noqa: S608
        "ORDER BY sequence DESC LIMIT 1",
        name,
        label,
    )
    return _MOVES.validate_python(rows[0]) if rows else None


async def _move(transaction: Transaction, name: str, sequence: int | None) -> LabelMove | None:
    statement = f"SELECT {_ENTRY} FROM prompt_history WHERE name = $1 AND sequence = $2"  # noqa: S608
    rows = await transaction.fetch(statement, name, sequence)
    return _MOVES.validate_python(rows[0]) if rows else None


async def _add_version(transaction: Transaction, version: PromptVersion) -> None:
    await transaction.execute(
        "INSERT INTO prompt_versions VALUES ($1, $2, $3, $4, $5, $6, $7)",
        *(version.name, version.number, version.digest, version.prompt.canonical),
        *(version.by, version.at.isoformat(), version.why),
    )


async def _add_entry(transaction: Transaction, entry: PromptSave | LabelMove) -> None:
    moved = (
        (entry.label, entry.previous, entry.before, int(entry.rollback))
        if isinstance(entry, LabelMove)
        else (None, None, None, 0)
    )
    await transaction.execute(
        "INSERT INTO prompt_history VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        *(entry.name, entry.sequence, entry.number, *moved),
        *(entry.by, entry.at.isoformat(), entry.why),
    )


def _version_of(row: Row) -> PromptVersion:
    content, name, number = str(row["content"]), str(row["name"]), _whole(row["number"])
    if digest_of(content) != row["digest"]:
        raise ContentChanged(name, number)
    at = datetime.fromisoformat(str(row["at"]))
    return PromptVersion(name, number, Prompt.parse(content), str(row["by"]), at, str(row["why"]))


def _whole(value: object) -> int:
    assert isinstance(value, int)
    return value
