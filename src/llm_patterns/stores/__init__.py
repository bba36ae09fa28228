"""Stores: where state lives when it must outlive a process, or be the same in many."""

from llm_patterns.stores.sql import Database, DatabasePolicy, Row, Transaction, Value, open_database

__all__ = ["Database", "DatabasePolicy", "Row", "Transaction", "Value", "open_database"]
