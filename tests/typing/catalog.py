"""Only type-checked: what the catalog promises to a type checker."""

from typing import assert_type

from llm_patterns.catalog import Category, Pattern, Priorities, Priority, pattern, patterns

assert_type(pattern("retry_with_budget"), Pattern)
assert_type(patterns(Category.SAFETY), tuple[Pattern, ...])
assert_type(pattern("retry_with_budget").priorities, Priorities)
assert_type(pattern("retry_with_budget").priorities.rag, Priority)
assert_type(pattern("retry_with_budget").path, str)
pattern("retry_with_budget").title = "Retry"  # type: ignore[misc]
patterns("safety")  # type: ignore[arg-type]
