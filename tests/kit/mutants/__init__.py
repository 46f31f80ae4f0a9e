"""Mutants: adapters with one fault each, which the conformance kit must find.

A mutant wraps a right adapter and replaces a callback or two; the rest goes to `inner`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Mutant:
    """An adapter with a fault.

    Args:
        port: the port's name.
        adapter: an object with the faulty callbacks, and an `Options` with `inner`.
        killed_by: the name of the promise that finds the fault.
        inner: the right adapter that it wraps.
        fixtures: values of optional fixtures of the suite.
    """

    port: str
    adapter: Any
    killed_by: str
    inner: Mapping[str, Any] = field(default_factory=lambda: {"use": "noop", "latency_scale": 0})
    fixtures: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.port}-{type(self.adapter).__name__}"
