"""Verdicts in Valkey or Redis: which circuits are open, for all processes of a fleet.

Each write is one script, which the server runs as a whole, on its own clock. A key's record is a hash of some hundred
bytes that expires ten minutes after its open time, so what nobody asks for leaves nothing behind; generations are
milliseconds of the server's clock, so they rise through that too.

`ValkeyVerdicts("redis://localhost")` connects when it is first used, and again when the server was away. It needs the
extra `redis`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from llm_patterns.errors import ConfigurationError, StoreUnavailable
from llm_patterns.stores.verdicts import Verdict

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["ValkeyVerdicts"]

_DECIDE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'generation', 'until', 'by')
if tonumber(held[1] or 0) <= tonumber(ARGV[1]) then
    local open_for = tonumber(ARGV[2])
    held[1] = math.max(ARGV[1] + 1, now)
    held[2] = open_for < 0 and 0 or now + open_for
    held[3] = ARGV[3]
    redis.call('HSET', KEYS[1], 'generation', held[1], 'until', held[2], 'by', held[3], 'prober', '')
    redis.call('PEXPIRE', KEYS[1], math.max(open_for, 0) + tonumber(ARGV[4]))
end
return {tonumber(held[1]), tonumber(held[2]), held[3], now}
"""
_CLAIM: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'generation', 'until', 'prober')
local till = tonumber(held[2] or 0)
if held[1] ~= ARGV[1] or till == 0 or (now < till and held[3] ~= ARGV[3]) then
    return 0
end
redis.call('HSET', KEYS[1], 'until', now + ARGV[2], 'prober', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2] + ARGV[4])
return 1
"""
_CLOSED: Final = -1
_LINGER: Final = 600_000
"""Milliseconds that a verdict is kept after its open time."""


class ValkeyVerdicts:
    """A `VerdictStore` on a server. *prefix* keeps its keys apart from others'."""

    def __init__(self, url: str, *, prefix: str = "llm_patterns:breaker:") -> None:
        self._url = url
        self._prefix = prefix
        self._client = _client(url)

    def __repr__(self) -> str:
        return f"Valkey at {self._url.rpartition('@')[2].removeprefix('redis://')}"

    async def read(self, keys: Sequence[str]) -> Mapping[str, Verdict]:
        """Return the verdict on each of *keys*, in one round trip."""
        with self._translated():
            async with self._client.pipeline(transaction=False) as pipeline:
                pipeline.time()
                for key in keys:
                    pipeline.hmget(self._prefix + key, ["generation", "until", "by"])
                (seconds, microseconds), *records = await pipeline.execute()
        now = int(seconds) * 1000 + int(microseconds) // 1000
        return {
            key: _verdict(generation, until, by, now)
            for key, (generation, until, by) in zip(keys, records, strict=True)
        }

    async def open(self, key: str, *, known: int, open_for: float, by: str) -> Verdict:
        """Open, if no generation is newer than *known*."""
        return _verdict(*await self._run(_DECIDE, key, known, round(open_for * 1000), by))

    async def close(self, key: str, *, known: int, by: str) -> Verdict:
        """Close, if no generation is newer than *known*."""
        return _verdict(*await self._run(_DECIDE, key, known, _CLOSED, by))

    async def claim(self, key: str, *, known: int, by: str, lease: float) -> bool:
        """Let *by* probe, if nobody else does."""
        return bool(await self._run(_CLAIM, key, known, round(lease * 1000), by))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def _run(self, script: str, key: str, known: int, milliseconds: int, by: str) -> Any:
        arguments = (str(known), str(milliseconds), by, str(_LINGER))
        with self._translated():
            return await self._client.eval(script, 1, self._prefix + key, *arguments)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from redis.exceptions import RedisError  # noqa: PLC0415 - an extra

        try:
            yield
        except (RedisError, OSError) as error:
            raise StoreUnavailable(repr(self), str(error) or type(error).__name__) from error


def _client(url: str) -> Redis:
    try:
        from redis.asyncio import Redis  # noqa: PLC0415 - an extra
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            "ValkeyVerdicts needs redis-py: pip install 'production-llm-patterns[redis]'"
        ) from error
    try:
        # One try: the one who asks has a time-out of its own, and asks again.
        return Redis.from_url(url, decode_responses=True, retry=Retry(NoBackoff(), 0))
    except ValueError as error:
        raise ConfigurationError(f"{url!r} is no address of a server: {error}") from error


def _verdict(generation: str | None, until: str | None, by: str | None, now: int) -> Verdict:
    left = max(0, int(until) - now) / 1000 if until and int(until) else None
    return Verdict(int(generation or 0), left, by or "")
