"""Which dependency is sick: the provider, one of its models, one endpoint? A breaker for each, by key.

One breaker for all of a provider would refuse its healthy models because of a sick one; one for each user would never
see enough calls. The key names what fails together.

>>> breakers = CircuitBreakers(BreakerPolicy())
>>> breakers.of("openai", "gpt-6", "eu").key
'openai|gpt-6|eu'
>>> breakers.of("openai", "gpt-6", "eu") is breakers.of("openai", "gpt-6", "eu")
True
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from random import Random

from llm_patterns.errors import ConfigurationError
from llm_patterns.events import EventHook
from llm_patterns.resilience.breaker_detectors import CusumDetector, Detector
from llm_patterns.resilience.circuit_breaker import (
    BreakerEvent,
    BreakerPolicy,
    BreakerStatistics,
    CircuitBreaker,
    Sharing,
)

__all__ = ["CircuitBreakers"]


class CircuitBreakers:
    """A breaker for each dependency, all with the same *policy*.

    *detector* makes a detector for each. There are at most *max_keys*: the least recently used one that is closed makes
    room, and has to learn anew when it is asked for again.
    """

    def __init__(
        self,
        policy: BreakerPolicy,
        *,
        detector: Callable[[], Detector] = CusumDetector,
        sharing: Sharing | None = None,
        max_keys: int = 1_000,
        rng: Random | None = None,
        on_event: EventHook[BreakerEvent] | None = None,
    ) -> None:
        if max_keys < 1:
            raise ConfigurationError(f"max_keys is {max_keys}; at least 1 is needed")
        self.policy = policy
        self.max_keys = max_keys
        self._detector = detector
        self._sharing = sharing
        self._rng = rng
        self._on_event = on_event
        self._breakers: OrderedDict[str, CircuitBreaker] = OrderedDict()

    def of(self, *scope: str) -> CircuitBreaker:
        """Return the breaker of a dependency, named from the general to the particular."""
        if not scope or any("|" in part for part in scope):
            raise ConfigurationError(
                f"a scope of one or more names without '|' is needed, not {scope}"
            )
        key = "|".join(scope)
        breaker = self._breakers.get(key)
        if breaker is None:
            if len(self._breakers) >= self.max_keys:
                self._make_room()
            breaker = self._breakers[key] = self._made(key)
        self._breakers.move_to_end(key)
        return breaker

    def statistics(self) -> Mapping[str, BreakerStatistics]:
        """Return the statistics of all, by key, the least recently used first."""
        return {key: breaker.statistics() for key, breaker in self._breakers.items()}

    def _made(self, key: str) -> CircuitBreaker:
        return CircuitBreaker(
            self.policy,
            key=key,
            detector=self._detector(),
            sharing=self._sharing,
            rng=self._rng,
            on_event=self._on_event,
        )

    def _make_room(self) -> None:
        closed = (key for key, each in self._breakers.items() if each.closed)
        leaving = self._breakers.pop(next(closed, next(iter(self._breakers))))
        if self._sharing is not None:
            self._sharing.forget(leaving)
