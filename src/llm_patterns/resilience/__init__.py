"""Resilience: when things go wrong."""

from llm_patterns.resilience.retry_budgets import (
    BudgetStatistics,
    EarnedBudget,
    InFlightBudget,
    QuotaBucket,
    RetryBudget,
    ThrottleBucket,
    Unlimited,
    WindowBudget,
)
from llm_patterns.resilience.retry_with_budget import (
    AttemptFailed,
    BudgetEmpty,
    RetriesExhausted,
    RetryEvent,
    RetryPolicy,
    RetryScheduled,
    RetryStatistics,
    RetryWithBudget,
    StopReason,
    StreamRestarted,
    backoff_delay,
)

__all__ = [
    "AttemptFailed",
    "BudgetEmpty",
    "BudgetStatistics",
    "EarnedBudget",
    "InFlightBudget",
    "QuotaBucket",
    "RetriesExhausted",
    "RetryBudget",
    "RetryEvent",
    "RetryPolicy",
    "RetryScheduled",
    "RetryStatistics",
    "RetryWithBudget",
    "StopReason",
    "StreamRestarted",
    "ThrottleBucket",
    "Unlimited",
    "WindowBudget",
    "backoff_delay",
]
