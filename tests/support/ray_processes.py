"""The processes that Ray runs for this one, as the operating system sees them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path


def processes() -> Iterator[tuple[int, int, str]]:
    """Yield the id, the parent's id and the command line of every process."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, IndexError):  # it has ended meanwhile
                continue
            yield int(folder.name), parent, command


def below(ancestor: int) -> dict[int, str]:
    """Return the command lines of all processes that a process started, and of those of theirs."""
    found = list(processes())
    known = {ancestor}
    result: dict[int, str] = {}
    while more := {
        pid: line for pid, parent, line in found if parent in known and pid not in known
    }:
        known |= more.keys()
        result |= more
    return result


def ranks(driver: int | None = None) -> list[int]:
    """Return the ids of the workers of sessions of a driver's own Ray, oldest first."""
    lines = below(os.getpid() if driver is None else driver)
    found = [pid for pid, line in lines.items() if line.startswith("ray::RankActor")]
    return sorted(found, key=_started)


def _started(pid: int) -> int:
    """Return when a process was started; ids begin anew at some time. 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return 0


def left(pids: Iterable[int], within: float) -> dict[int, str]:
    """Wait some seconds at most for processes to end; return the command lines of the others."""
    pids = set(pids)
    end = time.monotonic() + within
    while True:
        # One that has ended, and was not waited for, has no command line.
        found = {pid: line for pid, _, line in processes() if pid in pids and line}
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.1)
