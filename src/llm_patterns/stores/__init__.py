"""Stores: where state lives when it must outlive a process, or be the same in many."""

from llm_patterns.stores.sql import Database, DatabasePolicy, Row, Transaction, Value, open_database
from llm_patterns.stores.valkey import ValkeyVerdicts
from llm_patterns.stores.verdicts import MemoryVerdicts, Verdict, VerdictStore

__all__ = [
    "Database",
    "DatabasePolicy",
    "MemoryVerdicts",
    "Row",
    "Transaction",
    "ValkeyVerdicts",
    "Value",
    "Verdict",
    "VerdictStore",
    "open_database",
]
