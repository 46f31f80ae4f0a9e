"""Hold every adapter to its port's promises again, inside each wrapper.

`python -m pytest -p tests.around` collects the conformance suites alone, each once for each wrapper
that there is for its port. The adapter, and whatever `reopen` opens, is bound inside the wrapper;
all else stays as it is.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from crucible_kitchen import Kitchen
from crucible_kitchen.discovery import KNOWN_WRAPPERS
from crucible_kitchen.dispatch import Port
from crucible_kitchen.testing import Conformance
from crucible_kitchen.testing.plugin import installed_as

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "retry": {"wait": 0},
    "limit": {"concurrency": 64, "rate": 1e6},
    "faulty": {"failure_rate": 0},
    "fallback": {},
    "tee": {},
}
SEVERAL = ("fallback", "tee")
"""Those that have more than one adapter inside; the second is a noop here."""


def pytest_pycollect_makeitem(
    collector: pytest.Collector, name: str, obj: object
) -> list[pytest.Collector] | None:
    """Collect suites around adapters, and nothing else of a module."""
    if not isinstance(collector, pytest.Module):
        return None  # a method
    if not (isinstance(obj, type) and issubclass(obj, Conformance) and name.startswith("Test")):
        return []
    suites = []
    for wrapper in KNOWN_WRAPPERS[obj.port.name]:
        made = f"{name}In{wrapper.title()}"
        setattr(collector.obj, made, within(wrapper, obj))
        suites.append(pytest.Class.from_parent(collector, name=made))
    return suites


def within(wrapper: str, suite: type[Conformance]) -> type[Conformance]:
    """Return the suite of an adapter with the adapter inside a wrapper."""
    port = suite.port.name

    def wrapped(adapter: Port) -> Port:
        noop = {"use": "noop", "latency_scale": 0}
        inner: Any = [adapter, noop] if wrapper in SEVERAL else adapter
        table = {"use": wrapper, "inner": inner, **OPTIONS[wrapper]}
        # Left open: to close it is to close the adapter, which the fixture does that made it.
        return Kitchen(adapters={port: table}).port(suite.port)

    def opened(self: Conformance, adapter_inside: Port) -> Port:
        made_by_reopen = adapter_inside.adapter == wrapper
        port = adapter_inside if made_by_reopen else wrapped(adapter_inside)
        assert port.inner is not None
        entry = installed_as(port.inner)
        about = [entry.name if entry else port.inner.adapter, suite.variant]
        type(self).variant = " ".join(["around", *filter(None, about)])
        return port

    def reopened(self: Conformance, reopen_inside: Callable[[], Any] | None) -> Any:
        if reopen_inside is None:
            return None

        @contextlib.contextmanager
        def reopen() -> Iterator[Port]:
            with reopen_inside() as adapter:
                yield wrapped(adapter)

        return reopen

    members: dict[str, Any] = {
        "adapter_inside": inspect.getattr_static(suite, port),
        port: pytest.fixture(opened),
        "max_examples": min(suite.max_examples, 5),
    }
    if hasattr(suite, "reopen"):
        members |= {
            "reopen_inside": inspect.getattr_static(suite, "reopen"),
            "reopen": pytest.fixture(reopened),
        }
    return type(suite.__name__, (suite,), members)
