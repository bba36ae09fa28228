"""Toolkit: what every pattern's user needs."""

from llm_patterns.toolkit.cost_tracker import (
    Cost,
    CostPolicy,
    CostRecorded,
    CostStatistics,
    CostTracker,
    usage_of,
)
from llm_patterns.toolkit.deadlines import (
    DeadlineExceeded,
    deadline,
    deadline_at,
    deadline_headers,
    hard_deadline,
    require_time,
    time_allowed,
    time_left,
)
from llm_patterns.toolkit.prices import (
    ModelPrice,
    UnknownModel,
    model_price,
    price_of,
    price_source,
)

__all__ = [
    "Cost",
    "CostPolicy",
    "CostRecorded",
    "CostStatistics",
    "CostTracker",
    "DeadlineExceeded",
    "ModelPrice",
    "UnknownModel",
    "deadline",
    "deadline_at",
    "deadline_headers",
    "hard_deadline",
    "model_price",
    "price_of",
    "price_source",
    "require_time",
    "time_allowed",
    "time_left",
    "usage_of",
]
