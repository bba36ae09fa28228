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
from llm_patterns.toolkit.distributions import Distribution, WindowedDistribution
from llm_patterns.toolkit.latency_tracker import (
    Latencies,
    LatencyPolicy,
    LatencyRecorded,
    LatencyStatistics,
    LatencyTracker,
)
from llm_patterns.toolkit.prices import (
    ModelPrice,
    UnknownModel,
    model_price,
    price_of,
    price_source,
)
from llm_patterns.toolkit.stopwatches import Stopwatch, TimedStream, Timing, timing_of

__all__ = [
    "Cost",
    "CostPolicy",
    "CostRecorded",
    "CostStatistics",
    "CostTracker",
    "DeadlineExceeded",
    "Distribution",
    "Latencies",
    "LatencyPolicy",
    "LatencyRecorded",
    "LatencyStatistics",
    "LatencyTracker",
    "ModelPrice",
    "Stopwatch",
    "TimedStream",
    "Timing",
    "UnknownModel",
    "WindowedDistribution",
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
    "timing_of",
    "usage_of",
]
