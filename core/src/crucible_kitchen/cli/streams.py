"""Standard output and standard error, whose loss does not stop a run.

A run may take days, and outlives the terminal or the `head` that reads its lines. So what cannot be
written is dropped, and the error is kept until the end, where it decides the exit code.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any

NAMES = {1: "standard output", 2: "standard error"}


class Sink(io.FileIO):
    """A file descriptor to which writing does not fail: what cannot be written is dropped.

    Args:
        number: the descriptor, which stays open.
        absent: whether the command was started without it, as by `>&-`.
    """

    def __init__(self, number: int, *, absent: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self.number = number
        self.absent = absent
        self.lost: OSError | None = None
        """The first failure."""

    def write(self, data: Any, /) -> int:
        try:
            if self.absent:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            # None: another process that shares the terminal has made it non-blocking.
            while (written := super().write(data)) is None:
                select.select([], [self.number], [])
            return written
        except OSError as error:
            self.lost = self.lost or error
            return memoryview(data).nbytes


_sinks: list[Sink] = []


def open_streams() -> None:
    """Replace `sys.stdout` and `sys.stderr` by streams over sinks.

    Closed descriptors are opened first: otherwise the next file to be opened would get the number
    of standard output, and what is printed would end up in it.
    """
    absent = [number for number in (0, 1, 2) if _is_closed(number)]
    for number in absent:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number
        if number == 0:
            sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    for number, name in ((1, "stdout"), (2, "stderr")):
        before = getattr(sys, name)
        if before is not getattr(sys, f"__{name}__"):  # a program's own, around the command
            continue
        sink = Sink(number, absent=number in absent)
        _sinks.append(sink)
        stream = io.TextIOWrapper(
            io.BufferedWriter(sink),
            encoding=getattr(before, "encoding", "utf-8"),
            errors="backslashreplace",  # nor does a character fail that the encoding lacks
            line_buffering=number == 2 or sink.isatty() or getattr(before, "write_through", False),
        )
        setattr(sys, name, stream)


def _is_closed(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return True
    return False


def lost() -> dict[int, OSError]:
    """Write what is buffered; return what went wrong, by descriptor."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return {sink.number: sink.lost for sink in _sinks if sink.lost is not None}


def described(losses: dict[int, OSError]) -> str:
    """Return what was lost, in words."""
    return " and ".join(f"{NAMES[n]} ({error.strerror})" for n, error in losses.items())


def settled(code: int) -> int:
    """Write what is buffered; return the exit code of a command that ends with `code`.

    It is 1 if lines of standard output were lost. That is also printed, unless the reader left, as
    `head` does. A command that was started without standard output has lost nothing.
    """
    error = lost().get(1)
    if code or error is None or error.errno == errno.EBADF:
        return code
    if error.errno != errno.EPIPE:
        print(f"error: what was printed is lost: {described({1: error})}", file=sys.stderr)
    return 1
