"""What a process uses: memory and open files.

To be measured in a process of the adapter's own: the server of a test, in the process of that test,
would be measured as well.
"""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def peak_of(function: Callable[[], Result]) -> tuple[Result, int]:
    """Call a function; return its result, and the most bytes that Python objects took meanwhile,
    beyond those that there were.
    """
    tracemalloc.start()
    try:
        return function(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def open_files() -> int:
    """Return how many files, pipes and sockets are open; 0 where the system does not say."""
    return len(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else 0
