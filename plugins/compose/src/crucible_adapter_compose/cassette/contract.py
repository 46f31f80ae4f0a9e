"""Which arguments and results are handles, and which calls change what a handle stands for."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from crucible_kitchen import PORTS

_CHANGES = frozenset({"load_checkpoint", "close_session"})
"""Callbacks that may be repeated, and change their session all the same."""
_PASSED_ON = frozenset({"ping"})
"""Callbacks that ask whether the backend is there: of a cassette it need not be."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a cassette must know of a callback.

    Args:
        handles: the arguments that are handles.
        returns_handle: whether the result is one.
        changes: the argument whose later calls may be answered otherwise than its earlier ones.
        recorded: whether its calls are on a cassette.
    """

    handles: tuple[str, ...]
    returns_handle: bool
    changes: str | None
    recorded: bool


@functools.cache
def signature(port: str, callback: str) -> Signature:
    """Return what a cassette must know of a callback of a port."""
    function = PORTS[port].callbacks()[callback]
    hints = get_type_hints(function)
    returned = hints.pop("return", None)
    handles = tuple(n for n, hint in hints.items() if isinstance(hint, TypeVar) and n != "opts")
    changes = None
    if "session" in handles and (callback in _CHANGES or not _may_repeat(port, callback)):
        changes = "session"
    return Signature(handles, isinstance(returned, TypeVar), changes, callback not in _PASSED_ON)


def _may_repeat(port: str, callback: str) -> bool:
    nothing: Mapping[str, Any] = {}
    return PORTS[port].traits(callback).repeatable(nothing)
