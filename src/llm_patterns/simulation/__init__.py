"""Virtual time, and a provider to spend it with."""

from llm_patterns.simulation.faults import (
    BrownOut,
    CapacityLoss,
    Disconnect,
    ErrorRate,
    Fault,
    Hang,
    MalformedOutput,
    Outage,
    TruncatedOutput,
)
from llm_patterns.simulation.ledger import Attempt, Ledger, per_second
from llm_patterns.simulation.limits import RateLimits, RateLimitState
from llm_patterns.simulation.loop import (
    Deadlock,
    LeftoverTasks,
    OutsideWorld,
    VirtualTimeLoop,
    simulate,
)
from llm_patterns.simulation.provider import (
    ConstantLatency,
    Latency,
    SimulatedModel,
    SimulatedProvider,
)
from llm_patterns.simulation.responders import (
    Reply,
    Responder,
    approximate_tokens,
    fixed,
    scripted,
)
from llm_patterns.simulation.server import FifoServer, ProcessorSharingServer, QueueFull, Server

__all__ = [
    "Attempt",
    "BrownOut",
    "CapacityLoss",
    "ConstantLatency",
    "Deadlock",
    "Disconnect",
    "ErrorRate",
    "Fault",
    "FifoServer",
    "Hang",
    "Latency",
    "Ledger",
    "LeftoverTasks",
    "MalformedOutput",
    "Outage",
    "OutsideWorld",
    "ProcessorSharingServer",
    "QueueFull",
    "RateLimitState",
    "RateLimits",
    "Reply",
    "Responder",
    "Server",
    "SimulatedModel",
    "SimulatedProvider",
    "TruncatedOutput",
    "VirtualTimeLoop",
    "approximate_tokens",
    "fixed",
    "per_second",
    "scripted",
    "simulate",
]
