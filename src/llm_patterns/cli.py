"""The command line: `llm-patterns simulate` serves the simulated provider on a port."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from pydantic import BaseModel, ValidationError

from llm_patterns.errors import ConfigurationError

if TYPE_CHECKING:
    from llm_patterns.simulation import Fault
    from llm_patterns.simulation.wire import AsgiApp

__all__ = ["fault", "main"]

M = TypeVar("M", bound=BaseModel)

_DESCRIPTION: Final = """\
Serve a simulated LLM provider over HTTP. It speaks the formats of OpenAI (chat completions,
embeddings, models) and Anthropic (messages), so the vendors' own SDKs talk to it:

  OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="any")
  Anthropic(base_url="http://127.0.0.1:8080", api_key="any")

Answers are invented words, JSON of the schema you ask for, or calls of the tool you ask for; they
take time, queue for a finite number of slots, count against rate limits, and fail when told to.
"""

_FAULTS: Final = """\
faults (times are in seconds since the first request; every fault takes start and duration):
  outage            every request gets 503          status_code, retry_after, latency, probability
  error-rate        a share of requests fails       probability, status_code, retry_after, latency
  capacity-loss     a part of the slots is left     remaining (a share, required)
  brown-out         everything is slower            slowdown (times longer, required)
  hang              requests are never answered     probability
  disconnect        answers break off               after (a share), status_code, probability
  truncated-output  answers end early, honestly     keep (a share), probability
  malformed-output  answers end early, silently     keep (a share), probability

examples:
  llm-patterns simulate --slots 4 --time-to-first-token 0.5
  llm-patterns simulate --fault outage:start=10,duration=5
  llm-patterns simulate --rpm 60 --fault error-rate:probability=0.1,status_code=429,retry_after=2
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        app = _app(options)
    except ConfigurationError as error:
        parser.error(str(error))
    try:
        import uvicorn  # noqa: PLC0415 (an extra)
    except ImportError:
        parser.error("uvicorn is not installed; pip install 'production-llm-patterns[server]'")
    # Nothing here is worth a long wait for those who are still connected.
    uvicorn.run(app, host=options.host, port=options.port, timeout_graceful_shutdown=1)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llm-patterns", description="Production LLM patterns, at the command line."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    simulate = commands.add_parser(
        "simulate",
        help="serve a simulated LLM provider over HTTP",
        description=_DESCRIPTION,
        epilog=_FAULTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = simulate.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=8080, help="port; 0 takes a free one (default: %(default)s)")
    add("--api-key", metavar="KEY", help="key that requests must bring (default: any, or none)")
    add("--models", nargs="+", metavar="NAME", help="models that exist (default: every name)")
    add("--slots", type=int, default=100, help="requests at a time (default: %(default)s)")
    add("--queue", type=int, default=1000, help="requests that may wait (default: %(default)s)")
    add("--rpm", type=int, metavar="N", help="requests a minute (default: no limit)")
    add("--tpm", type=int, metavar="N", help="tokens a minute (default: no limit)")
    add(
        "--time-to-first-token", type=float, default=0.3, metavar="S", help="(default: %(default)s)"
    )
    add("--tokens-per-second", type=float, default=100, metavar="N", help="(default: %(default)s)")
    add(
        "--output-tokens",
        type=int,
        default=60,
        metavar="N",
        help="length of an answer in words (default: %(default)s)",
    )
    add(
        "--fault",
        action="append",
        default=[],
        metavar="KIND:NAME=VALUE,...",
        help="may be given several times; see below",
    )
    add("--seed", type=int, default=0, help="decides all chance (default: %(default)s)")
    return parser


def _app(options: argparse.Namespace) -> AsgiApp:
    from llm_patterns.simulation import (  # noqa: PLC0415 (--help is quick without)
        ConstantLatency,
        FifoServer,
        RateLimits,
        SimulatedModel,
        SimulatedProvider,
        improvised,
    )
    from llm_patterns.simulation.wire import AsgiApp, WireApp  # noqa: PLC0415

    if not 0 <= options.port <= 65535:
        raise ConfigurationError(f"--port is {options.port}; it must be 0 to 65535")
    if options.tokens_per_second <= 0 or options.time_to_first_token < 0:
        raise ConfigurationError(
            "--tokens-per-second must be above 0, and --time-to-first-token 0 or more"
        )
    latency = ConstantLatency(options.time_to_first_token, 1 / options.tokens_per_second)
    provider = SimulatedProvider(
        models=options.models and [SimulatedModel(name, latency) for name in options.models],
        latency=latency,
        server=FifoServer(options.slots, max_queue=options.queue, abandoned="drop"),
        limits=_built(
            RateLimits,
            "--rpm and --tpm",
            requests_per_minute=options.rpm,
            tokens_per_minute=options.tpm,
        ),
        faults=[fault(text) for text in options.fault],
        responder=improvised(output_tokens=options.output_tokens),
        seed=options.seed,
    )
    return AsgiApp(WireApp(provider, api_key=options.api_key))


def fault(text: str) -> Fault:
    """Return the fault that *text* describes.

    >>> fault("outage:start=10,duration=5")
    Outage(start=10.0, duration=5.0, probability=1.0, status_code=503, retry_after=None, latency=0.05)

    Raises `ConfigurationError` for a kind, a name or a value that does not exist.
    """
    from llm_patterns.simulation import faults  # noqa: PLC0415

    kind, _, settings = text.partition(":")
    names = {_kebab(name): name for name in faults.__all__ if name != "Fault"}
    if kind not in names:
        raise ConfigurationError(f"--fault {text}: no kind {kind!r}; there are {', '.join(names)}")
    pairs = [pair.partition("=") for pair in settings.split(",") if pair]
    values = {name.strip(): value.strip() for name, _, value in pairs}
    found: type[Fault] = getattr(faults, names[kind])
    return _built(found, f"--fault {text}", **values)


def _kebab(name: str) -> str:
    return re.sub("(?<=[a-z])(?=[A-Z])", "-", name).lower()


def _built(model: type[M], option: str, **values: object) -> M:
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigurationError(f"{option}: {first['loc'][0]}: {first['msg']}") from error


if __name__ == "__main__":
    raise SystemExit(main())
