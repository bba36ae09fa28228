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
from llm_patterns.simulation.latency import Latency, LatencyProfile
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
    LatencyModel,
    SimulatedModel,
    SimulatedProvider,
)
from llm_patterns.simulation.responders import (
    Reply,
    Responder,
    approximate_tokens,
    fixed,
    improvised,
    scripted,
)
from llm_patterns.simulation.server import FifoServer, ProcessorSharingServer, QueueFull, Server
from llm_patterns.simulation.workload import (
    TokenLengths,
    TooManyInFlight,
    TraceRequest,
    bursts,
    closed_loop,
    diurnal,
    index_of_dispersion,
    open_loop,
    poisson,
    replay,
)

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
    "LatencyModel",
    "LatencyProfile",
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
    "TokenLengths",
    "TooManyInFlight",
    "TraceRequest",
    "TruncatedOutput",
    "VirtualTimeLoop",
    "approximate_tokens",
    "bursts",
    "closed_loop",
    "diurnal",
    "fixed",
    "improvised",
    "index_of_dispersion",
    "open_loop",
    "per_second",
    "poisson",
    "replay",
    "scripted",
    "simulate",
]
