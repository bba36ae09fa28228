"""The simulated provider, workloads and virtual time in any pytest suite: installed is enough.

```python
@pytest.mark.virtual_time(seed=7)
async def test_an_outage_is_survived(llm_provider, llm_workload):
    provider = llm_provider(faults=[Outage(start=20, duration=10)])
    ask = RetryWithBudget(RetryPolicy(deadline=30))(provider.complete)
    outcomes = await llm_workload(lambda number: ask(REQUEST), rate_per_second=5, duration=60)
    assert outcomes.availability() > 0.95
```

pytest loads this module in every suite, so it imports nothing of the library until a test asks for something, and does
nothing to a test without the marker. `-p no:llm_patterns` turns it off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import ExitStack
from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from llm_patterns.simulation import SimulatedProvider
    from llm_patterns.toolkit.fixtures import Outcomes, ServedProvider

__all__ = ["llm_provider", "llm_server", "llm_workload"]

Test = Callable[..., Any]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that runs a suite under another seed."""
    parser.getgroup("llm-patterns").addoption(
        "--virtual-time-seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the tests in virtual time that name none (default: %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        "virtual_time(seed=0, start=..., leftover='raise'): run an async test on a clock that jumps from timer to "
        "timer, with all chance from the seed; see llm_patterns.simulation.simulate",
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Run a marked test in virtual time."""
    marker = item.get_closest_marker("virtual_time")
    if marker is None or not isinstance(item, pytest.Function):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        # Of a property test, each example is a simulation of its own.
        holder, name = (item, "obj")
        if hasattr(item.obj, "hypothesis"):
            holder, name = (item.obj.hypothesis, "inner_test")
        test = getattr(holder, name)
        if iscoroutinefunction(test):
            patch.setattr(holder, name, _in_virtual_time(test, item, marker))
        elif marker in item.own_markers:
            pytest.fail(f"virtual_time marks an async test, and {item.name} is not", pytrace=False)
        return (yield)


def _in_virtual_time(test: Test, item: pytest.Function, marker: pytest.Mark) -> Test:
    options = {"seed": item.config.getoption("--virtual-time-seed"), **marker.kwargs}

    @wraps(test)
    def simulated(*args: Any, **fixtures: Any) -> None:
        import asyncio  # noqa: PLC0415

        from llm_patterns.simulation import simulate  # noqa: PLC0415

        loops = []

        async def main() -> None:
            loops.append(asyncio.get_running_loop())
            await test(*args, **fixtures)

        try:
            simulate(main, **options)
        except BaseException:
            at = f"ended at {loops[0].time():g} s" if loops else "did not begin"
            item.add_report_section("call", "virtual time", f"seed {options['seed']}, {at}")
            raise

    @wraps(test)
    async def nested(*args: Any, **fixtures: Any) -> None:
        simulated(*args, **fixtures)

    # pytest-asyncio insists on running what it has marked, in its automatic mode every async test: let it.
    asyncio_s = item.get_closest_marker("asyncio") and item.config.pluginmanager.has_plugin(
        "asyncio"
    )
    return nested if asyncio_s else simulated


@pytest.fixture
def llm_provider() -> Iterator[Callable[..., SimulatedProvider]]:
    """Make a simulated provider: llm_provider(faults=[...], limits=..., latency=..., responder=...).

    At the test's end, an attempt that is still running fails it; unfinished=True allows it.
    """
    from llm_patterns.simulation import SimulatedProvider  # noqa: PLC0415
    from llm_patterns.toolkit.fixtures import check_finished  # noqa: PLC0415

    checked = []

    def make(*, unfinished: bool = False, **options: Any) -> SimulatedProvider:
        provider = SimulatedProvider(**options)
        if not unfinished:
            checked.append(provider)
        return provider

    yield make
    for provider in checked:
        check_finished(provider)


@pytest.fixture
def llm_server() -> Iterator[Callable[..., ServedProvider]]:
    """Serve a provider on a free port, until the test's end: llm_server(provider).openai_url, .anthropic_url."""
    from llm_patterns.toolkit.fixtures import served  # noqa: PLC0415

    with ExitStack() as servers:

        def serve(
            provider: SimulatedProvider | None = None, *, api_key: str | None = None
        ) -> ServedProvider:
            return servers.enter_context(served(provider, api_key=api_key))

        yield serve


@pytest.fixture
def llm_workload() -> Callable[..., Awaitable[Outcomes]]:
    """Send calls at random times and keep how they went: await llm_workload(call, rate_per_second=5, duration=60)."""
    from llm_patterns.toolkit.fixtures import workload  # noqa: PLC0415

    return workload
