"""What every thread of a process shares, and no call may change."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any


def left_alone(function: Callable[..., Any], *arguments: Any) -> dict[str, tuple[Any, Any]]:
    """Call `function(*arguments)`; return what was before and is after it, of what it changed."""
    before = _state()
    function(*arguments)
    after = _state()
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


def _state() -> dict[str, Any]:
    umask = os.umask(0o077)
    os.umask(umask)
    return {
        "the umask": oct(umask),
        "the working directory": str(Path.cwd()),
        "the generator of `random`": hash(random.getstate()),
    }
