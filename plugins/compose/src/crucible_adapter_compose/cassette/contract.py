"""Which arguments and results are handles, and which calls change what a handle stands for."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from crucible_kitchen import PORTS, hookspecs

_CHANGES = frozenset({"load_checkpoint", "close_session"})
"""Callbacks that may be repeated, and change their session all the same."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a cassette must know of a callback.

    Args:
        handles: the arguments that are handles.
        returns_handle: whether the result is one.
        changes: the argument whose later calls may be answered otherwise than its earlier ones.
    """

    handles: tuple[str, ...]
    returns_handle: bool
    changes: str | None


@functools.cache
def signature(port: str, callback: str) -> Signature:
    """Return what a cassette must know of a callback of a port."""
    function = PORTS[port].callbacks()[callback]
    # In the contract a handle, and nothing else, is of a variable type.
    variable = {
        name
        for name, annotation in function.__annotations__.items()
        if isinstance(getattr(hookspecs, str(annotation), None), TypeVar)
    }
    handles = tuple(sorted(variable - {"opts", "return"}))
    changes = None
    if "session" in handles and (callback in _CHANGES or not _may_repeat(port, callback)):
        changes = "session"
    return Signature(handles, "return" in variable, changes)


def _may_repeat(port: str, callback: str) -> bool:
    nothing: Mapping[str, Any] = {}
    return PORTS[port].traits(callback).repeatable(nothing)
