"""Toolkit: what every pattern's user needs."""

from llm_patterns.toolkit.cost_tracker import (
    Cost,
    CostPolicy,
    CostRecorded,
    CostStatistics,
    CostTracker,
    usage_of,
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
    "ModelPrice",
    "UnknownModel",
    "model_price",
    "price_of",
    "price_source",
    "usage_of",
]
