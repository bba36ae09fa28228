"""The types of databases; checked by mypy, never run."""

from typing import assert_type

from llm_patterns.stores import Database, DatabasePolicy, Row, Transaction, Value, open_database


async def statements(database: Database) -> None:
    """A transaction has the statements that a database has."""
    assert_type(await database.execute("DELETE FROM notes WHERE id = $1", 1), int)
    rows = await database.fetch("SELECT * FROM notes")
    assert_type(rows, list[Row])
    assert_type(rows[0]["text"], Value)
    async with database.transaction("notes") as transaction:
        assert_type(transaction, Transaction)
        assert_type(await transaction.fetch("SELECT 1"), list[Row])
        await transaction.execute_many("INSERT INTO notes VALUES ($1)", [(1,), ("a",), (None,)])
    either: list[Transaction] = [database, transaction]
    await either[0].execute("DELETE FROM notes", [1])  # type: ignore[arg-type]


async def opening() -> None:
    """It is closed at the end."""
    async with open_database("sqlite:///notes.db", DatabasePolicy(timeout=1)) as database:
        assert_type(database, Database)
