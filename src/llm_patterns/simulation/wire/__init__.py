"""The simulated provider on the wire: one pure application, and the ways to reach it."""

from llm_patterns.simulation.wire.app import WireApp
from llm_patterns.simulation.wire.asgi import AsgiApp
from llm_patterns.simulation.wire.exchange import WireRequest, WireResponse

__all__ = ["AsgiApp", "WireApp", "WireRequest", "WireResponse"]
