"""Hold every adapter to its port's promises again, inside wrappers.

`python -m pytest -p tests.support.around` collects the conformance suites alone. The adapter of
each, and whatever `reopen` opens, is bound inside every wrapper that there is for its port, one in
the other; all else stays as it is. A suite that differs from another in what no wrapper sees has
`within_wrappers = False`, and is left out. With `--around retry`, which may be repeated, each suite
is collected once for each wrapper that was named, inside that one alone.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from crucible_kitchen import Kitchen
from crucible_kitchen.adapters.discovery import catalog
from crucible_kitchen.calls.port import Port
from crucible_kitchen.testing import Conformance
from crucible_kitchen.testing.plugin import installed_as

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "retry": {"wait": 0},
    "limit": {"concurrency": 64, "rate": 1e6},
    "fallback": {},
    "tee": {},
    "faulty": {"failure_rate": 0},
}
"""In the order in which they are nested, the outermost first."""
NOOP = {"use": "noop", "latency_scale": 0}
SECOND: Mapping[str, Any] = {
    "fallback": {
        "use": "faulty",
        "inner": NOOP,
        "failure_rate": 1,
    },  # away: it would make answers up
    "tee": NOOP,
}
"""What is inside next to the adapter."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--around",
        metavar="WRAPPER",
        action="append",
        choices=[*OPTIONS],
        help="each suite inside this wrapper alone, rather than inside all at once",
    )


def pytest_pycollect_makeitem(
    collector: pytest.Collector, name: str, obj: object
) -> list[pytest.Collector] | None:
    """Collect suites around adapters, and nothing else of a module."""
    if not isinstance(collector, pytest.Module):
        return None  # a method
    if not (isinstance(obj, type) and issubclass(obj, Conformance) and name.startswith("Test")):
        return []
    if not hasattr(obj, "port"):  # no wrapper goes around an environment
        return []
    if not getattr(obj, "within_wrappers", True):
        return []
    installed = {entry.name for entry in catalog().entries if entry.port == obj.port.name}
    there = [wrapper for wrapper in OPTIONS if wrapper in installed]
    chosen = collector.config.getoption("--around")
    stacks = [[w] for w in there if w in chosen] if chosen else [there]
    suites: list[pytest.Collector] = []
    for stack in stacks:
        made = f"{name}In{''.join(wrapper.title() for wrapper in stack)}"
        setattr(collector.obj, made, within(stack, obj))
        suites.append(pytest.Class.from_parent(collector, name=made))
    return suites


def within(stack: Sequence[str], suite: type[Conformance]) -> type[Conformance]:
    """Return the suite of an adapter with the adapter inside wrappers, the outermost first."""
    port = suite.port.name

    def wrapped(adapter: Port) -> Port:
        table: Any = adapter
        for wrapper in reversed(stack):
            inner = [table, SECOND[wrapper]] if wrapper in SECOND else table
            table = {"use": wrapper, "inner": inner, **OPTIONS[wrapper]}
        # Left open: to close it is to close the adapter, which the fixture does that made it.
        return Kitchen(adapters={port: table}).port(suite.port)

    def opened(self: Conformance, adapter_inside: Port) -> Port:
        made_by_reopen = adapter_inside.adapter == stack[0]
        whole = innermost = adapter_inside if made_by_reopen else wrapped(adapter_inside)
        for _ in stack:
            assert innermost.inner is not None
            innermost = innermost.inner
        entry = installed_as(innermost)
        about = [entry.name if entry else innermost.adapter, suite.variant]
        inside = [*stack[1:], " ".join(filter(None, about))]
        type(self).variant = f"around {', '.join(inside)}"
        return whole

    def reopened(self: Conformance, reopen_inside: Callable[[], Any] | None) -> Any:
        if reopen_inside is None:
            return None

        @contextlib.contextmanager
        def reopen() -> Iterator[Port]:
            with reopen_inside() as adapter:
                yield wrapped(adapter)

        return reopen

    def elsewhere(self: Conformance) -> None:
        pytest.skip("a wrapper keeps nothing that another process could miss")

    members: dict[str, Any] = {
        "adapter_inside": inspect.getattr_static(suite, port),
        port: pytest.fixture(opened),
        "elsewhere": pytest.fixture(elsewhere),
        "max_examples": min(suite.max_examples, 5),
    }
    if hasattr(suite, "reopen"):
        members |= {
            "reopen_inside": inspect.getattr_static(suite, "reopen"),
            "reopen": pytest.fixture(reopened),
        }
    return type(suite.__name__, (suite,), members)
