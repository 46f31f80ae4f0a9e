"""Adapters around a noop that fail on request, and record their calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from crucible_kitchen import PORTS, AdapterOptions, Call, Kitchen, hookimpl

import kitchen_noop


class Scripted:
    """Serves a port by its noop, and raises the next of these failures instead, until all are used.

    Args:
        port: the port's name.
        failures: what to raise, call by call; None lets a call pass.
        after: raise after the call took effect.
        only: the callbacks that fail; empty, all.
        noop: options of the noop.
    """

    def __init__(
        self,
        port: str,
        *failures: Exception | None,
        after: bool = False,
        only: tuple[str, ...] = (),
        **noop: Any,
    ) -> None:
        self.failures = list(failures)
        self.calls: list[str] = []
        self.arguments: list[Any] = []
        self.options: AdapterOptions | None = None
        self._after = after
        self._only = only
        self._lock = threading.Lock()
        fields = {"__annotations__": {"inner": PORTS[port]}, "__module__": __name__}
        self.Options = type("Options", (AdapterOptions,), fields)
        noop = {"use": getattr(kitchen_noop, port), "latency_scale": 0, **noop}
        self.table = {"use": self, "inner": noop}

    @hookimpl
    def around(self, opts: Any, call: Call) -> Any:
        self.options = opts
        with self._lock:
            self.calls.append(call.name)
            self.arguments.append(dict(call.arguments))
            fails = self.failures and (not self._only or call.name in self._only)
            failure = self.failures.pop(0) if fails else None
        if failure is not None and not self._after:
            raise failure
        result = call()
        if failure is not None:
            raise failure
        return result


@pytest.fixture
def bind() -> Iterator[Callable[..., Any]]:
    """Bind an adapter as a kitchen does: `bind(port, use=..., ...)`. It is closed at the end."""
    kitchens = []

    def bound(port: str, /, use: Any, **options: Any) -> Any:
        kitchens.append(Kitchen({port: {"use": use, **options}}))
        return kitchens[-1].port(PORTS[port])

    yield bound
    for kitchen in kitchens:
        kitchen.close()


@pytest.fixture
def scripted() -> type[Scripted]:
    return Scripted
