"""Leases: only one process at a time works on a run.

A lease is a blob that its holder rewrites at regular intervals, each time with a higher count.
Blob stores have no compare-and-set, and the clocks of machines differ, so nothing here depends on
either: a process that finds another's lease watches it for a whole term by its own clock, and takes
it over if it was not rewritten meanwhile. A holder on this machine can be looked up, so there is no
waiting for it. Before writing anything that must not be written twice, the holder reads the lease:
if it names another holder, the run has been lost to that one.

This is how DynamoDB's lock client works, without its conditional writes: between the last look and
a write there is a moment in which a holder that had been suspended for a whole term could still
overwrite what its successor wrote. What it would write is also a state that can be resumed.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from ...errors import AdapterError, ConfigurationError, NotFound
from ...ports import BlobStore

TERM = 60.0
"""Seconds after which a lease that was not renewed is free. It is renewed three times as often."""

_held: set[str] = set()
"""The holders in this process. A lease of this process by any other could not be released."""


class Lease:
    """A lease on something, under a path of a blob store.

    Args:
        store: where it is kept.
        path: the blob's path.
        of: what it is a lease on, for messages.
        term: seconds; a holder that is silent for so long has lost it.
    """

    def __init__(self, store: BlobStore, path: str, of: str, term: float = TERM) -> None:
        self._store = store
        self.path = path
        self._of = of
        self.term = term
        self._holder = secrets.token_hex(8)
        self._pid = os.getpid()
        self._count = 0
        self._looked: tuple[dict[str, Any] | None, float] | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def acquire(self, waiting: Callable[[str], None] = lambda holder: None) -> Self:
        """Take the lease, and keep it until it is released.

        Args:
            waiting: told, once, of a holder that is watched, which takes up to a term since the
                last `look`.

        Raises:
            ConfigurationError: another process holds it.
        """
        found = self._read()
        if found is not None and not _is_over(found):
            if _is_here(found):
                raise self._taken(found)
            before, since = self._looked or (found, time.monotonic())
            if found != before:
                raise self._taken(found)
            if (until := since + self.term) > time.monotonic():
                waiting(_named(found))
            if (seen := self._watch(found, until)) is not None:
                raise self._taken(seen)
        try:
            _held.add(self._holder)
            self._write()
            threading.Thread(target=self._renew, name=f"lease {self._of}", daemon=True).start()
        except BaseException:  # it may be written all the same
            self.release()
            raise
        return self

    def look(self) -> None:
        """Return if no process seems to hold it. Waits for none, and takes nothing.

        Raises:
            ConfigurationError: another process holds it, or held it when it was last seen.
        """
        found = self._read()
        self._looked = found, time.monotonic()
        if found is not None and not _is_over(found):
            raise self._taken(found)

    @property
    def is_one(self) -> bool:
        """Whether the last look found a lease, and not the file of another program."""
        found = self._looked[0] if self._looked else None
        return found is not None and {"holder", "count", "process"} <= found.keys()

    def check(self) -> None:
        """Return if it is still held.

        Raises:
            ConfigurationError: another process has taken it meanwhile, or it was deleted; or this
                one was forked from the holder.
        """
        if (found := self._read()) is None:
            raise ConfigurationError(
                f"the lease on {self._of}, the blob {self.path!r}, was deleted meanwhile, so that "
                "another process may work on it"
            )
        if found.get("holder") != self._holder or os.getpid() != self._pid:
            raise self._taken(found)

    def release(self) -> None:
        """Give it up, if it is still held. A process that was forked from the holder holds none."""
        self._ended.set()
        if not self._count or os.getpid() != self._pid:
            return
        try:
            with self._lock:  # nothing is written after this
                if (found := self._read()) is not None and found.get("holder") == self._holder:
                    if self._store.supports("delete"):
                        self._store.delete(self.path)
                    else:
                        self._store.write(self.path, json.dumps({"released": True}).encode())
        finally:
            _held.discard(self._holder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _renew(self) -> None:
        while not self._ended.wait(self.term / 3):
            with self._lock:
                try:
                    if self._ended.is_set():
                        return
                    self.check()
                    self._write()
                except ConfigurationError:
                    return  # the next check says so
                except AdapterError:
                    continue  # the store is away for now

    def _watch(self, found: Mapping[str, Any], until: float) -> Mapping[str, Any] | None:
        """Watch the lease of another; return it if it was renewed."""
        while (left := until - time.monotonic()) > 0:
            self._ended.wait(min(left, self.term / 60))
            if (now := self._read()) is None or _is_over(now):
                return None
            if now != found:
                return now
        return None

    def _read(self) -> dict[str, Any] | None:
        try:
            content = self._store.read(self.path)
        except NotFound:
            return None
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        return found if isinstance(found, dict) else {"damaged": repr(content[:1000])}

    def _write(self) -> None:
        self._count += 1
        text = {
            "holder": self._holder,
            "count": self._count,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process": process(os.getpid()),
        }
        self._store.write(self.path, json.dumps(text, indent=2).encode())

    def _taken(self, found: Mapping[str, Any]) -> ConfigurationError:
        return ConfigurationError(
            f"{self._of} is in use by {_named(found)}; wait for its end, or stop it"
        )


def process(pid: int) -> str | None:
    """Return what no other process has, now or later, on any machine; None if there is none.

    The boot of the machine, the namespace of process ids, the id, and when it was started. Where
    the operating system has no `/proc` it is None for every process.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The name in the second field is in brackets and may hold brackets and spaces.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
    ended = state in "ZX"  # a zombie waits for its parent, and does nothing
    return None if ended else f"{boot} {space} {pid} {fields[18]}"


def _is_here(found: Mapping[str, Any]) -> bool:
    """Say whether the holder is a process of this machine that is alive."""
    pid, name = found.get("pid"), found.get("process")
    return isinstance(pid, int) and name is not None and process(pid) == name


def _is_over(found: Mapping[str, Any]) -> bool:
    """Say whether the lease was released, or its holder was a process here that has ended."""
    if found.get("released"):
        return True
    name, mine = found.get("process"), process(os.getpid())
    if not isinstance(name, str) or mine is None:
        return False
    if name == mine:
        return str(found.get("holder")) not in _held
    if _is_here(found):
        return False
    return name.split()[:-2] == mine.split()[:-2]


def _named(found: Mapping[str, Any]) -> str:
    if "pid" not in found:
        return "another process"
    mine = found["pid"] == os.getpid() and found.get("process") == process(os.getpid())
    return "this process" if mine else f"process {found['pid']} on {found.get('host')}"
