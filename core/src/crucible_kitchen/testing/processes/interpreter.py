"""A Python process that runs functions for this one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from multiprocessing.connection import Pipe
from typing import Any, Self

from . import serving
from .travelling import packed, unpacked

TIMEOUT = 300.0
"""Seconds that the other process may take to answer, its start included."""
ENDING = 10.0
"""Seconds that it may take to end."""
SHOWN = 4000
"""Characters of what it wrote that a message repeats: the last ones."""

_UMASK = 0o077
_BOOT = (
    "import sys; from multiprocessing.connection import Connection; "
    "connection = Connection(int(sys.argv[1])); sys.path[:] = connection.recv(); "
    f"from {serving.__name__} import serve; serve(connection)"
)


class ProcessDied(AssertionError):
    """The other process ended, or was ended because it did not answer; with what it wrote."""


class Interpreter:
    """A Python process with the same modules and environment, and everything else different: the
    hashes of texts, the working directory, the umask and the time zone.

    What is sent to it goes through a pipe that no other process can read: not on its command line,
    and in no environment variable.
    """

    def __init__(self) -> None:
        self._environ, self._path = environ(), import_path()
        self._kept = kept = contextlib.ExitStack()
        folder = kept.enter_context(tempfile.TemporaryDirectory(prefix="crucible-"))
        self._written = kept.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        ours, theirs = Pipe()
        self._connection = kept.enter_context(ours)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-c", _BOOT, str(theirs.fileno())],
                env={**self._environ, **_different()},
                cwd=folder,
                umask=_UMASK,
                stdin=subprocess.DEVNULL,
                stdout=self._written,
                stderr=self._written,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._connection.send(self._path)
        self._lock, self._killing = threading.Lock(), threading.Lock()
        self._killed = False
        self._pending: dict[int, Future[Any]] = {}
        self._asked = 0
        self._slow = False
        self._obituary: str | None = None
        self._reader = threading.Thread(target=self._read, name="elsewhere", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return self._obituary is None

    def fits(self, environ: Mapping[str, str], path: Sequence[str]) -> bool:
        """Say whether it can be asked, and was started with this environment and `sys.path`."""
        return self.alive and self._environ == environ and self._path == path

    def submit(
        self, function: Callable[..., Any], *arguments: Any, last: bool = False
    ) -> Future[Any]:
        """Run `function(*arguments)` there, in a thread of its own.

        Args:
            function: of a module, by whose name the process finds it.
            arguments: whatever pickles; adapters are bound there again.
            last: whether the process is killed, by SIGKILL, the moment the function returns.

        Returns:
            A future of what it returns or raises, which waits 300 s at most; of `ProcessDied` if
            the process ends before.

        Raises:
            CannotTravel: an argument cannot be sent.
        """
        message = packed((function, arguments, last))
        future = _Bounded(self._expire)
        with self._lock:
            if self._obituary is not None:
                future.set_exception(ProcessDied(self._obituary))
                return future
            self._asked += 1
            self._pending[self._asked] = future
            with contextlib.suppress(OSError):  # it has died, as its reader finds out
                self._connection.send_bytes(self._asked.to_bytes(8, "big") + message)
        return future

    def run(self, function: Callable[..., Any], *arguments: Any, last: bool = False) -> Any:
        """Run `function(*arguments)` there; return what it returns, or raise what it raises."""
        return self.submit(function, *arguments, last=last).result()

    def end(self) -> None:
        """End it, and whatever it has started."""
        with self._lock, contextlib.suppress(OSError):
            self._connection.send_bytes(b"")
        self._reader.join(ENDING)
        self._kill()
        self._reader.join()
        self._kept.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while self._connection.poll(0.2) or self._process.poll() is None:
                if self._connection.poll():
                    self._settle(self._connection.recv_bytes())
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDING)
        self._kill()
        with self._lock:
            self._obituary = self._how_it_ended()
        for future in self._pending.values():
            future.set_exception(ProcessDied(self._obituary))

    def _settle(self, answer: bytes) -> None:
        with self._lock:
            future = self._pending.pop(int.from_bytes(answer[:8], "big"))
        try:
            result, error, traceback = unpacked(answer[8:])
        except Exception as failure:  # a class that does not survive its own pickle
            result, error, traceback = None, failure, ""
        if error is None:
            future.set_result(result)
        else:
            error.add_note(f"in another process:\n{traceback}")
            future.set_exception(error)

    def _expire(self) -> None:
        """End a process that does not answer; it writes what its threads are doing."""
        self._slow = True
        self._process.send_signal(signal.SIGABRT)
        self._reader.join(ENDING)
        self._kill()

    def _kill(self) -> None:
        """Kill the process if it still runs, and those that it started and left behind."""
        with self._killing:
            if not self._killed:  # later, its number may be that of another process
                self._killed = True
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _how_it_ended(self) -> str:
        code = self._process.returncode
        ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        if self._slow:
            ended = f"did not answer within {TIMEOUT:g} s, so it was ended"
        self._written.seek(0)
        wrote = self._written.read().decode(errors="replace").strip()
        return f"the other process {ended}; it wrote:\n{wrote[-SHOWN:] or 'nothing'}"


class _Bounded(Future[Any]):
    """A future that never waits longer than `TIMEOUT`."""

    def __init__(self, expire: Callable[[], None]) -> None:
        super().__init__()
        self._expire = expire

    def result(self, timeout: float | None = None) -> Any:
        try:
            return super().result(TIMEOUT if timeout is None else timeout)
        except FutureTimeout:
            if timeout is not None or self.done():
                raise
            self._expire()
            return super().result(ENDING)


def environ() -> dict[str, str]:
    """Return the environment but for what pytest notes there during each test."""
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def import_path() -> list[str]:
    """Return `sys.path` as it is from any working directory."""
    return [os.path.abspath(place) for place in sys.path]


def _different() -> dict[str, str]:
    """Return the variables that are others there."""
    salt = "12345" if os.environ.get("PYTHONHASHSEED") != "12345" else "54321"
    zone = "<+0945>-09:45" if os.environ.get("TZ") != "<+0945>-09:45" else "UTC0"
    return {"PYTHONHASHSEED": salt, "TZ": zone}
