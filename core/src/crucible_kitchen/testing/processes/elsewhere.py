"""One adapter in another process, as tests use it."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ...calls.port import Port
from ...errors import AdapterError
from .interpreter import TIMEOUT, Interpreter, environ, import_path
from .travelling import CannotTravel, packed, unpacked

KEPT = 2
"""Processes that stay for the next class of tests: no test needs more."""


@dataclass(eq=False)
class Place:
    """A process, and the adapter that is bound in it: as it was sent, and by its name there."""

    interpreter: Interpreter
    adapter: bytes = b""
    name: str = ""

    def bind(self, adapter: bytes) -> None:
        """Bind an adapter, unless it is bound already, and close the one that was."""
        if adapter != self.adapter:
            self.close()
            name = uuid.uuid4().hex
            self.interpreter.run(_open, name, adapter, os.getcwd())
            self.adapter, self.name = adapter, name

    def close(self) -> None:
        """Close the adapter."""
        name, self.adapter, self.name = self.name, b"", ""
        if name and self.interpreter.alive:
            self.interpreter.run(_close, name)


class Interpreters:
    """The processes of a test run. One that a test has given back serves the next, with the adapter
    that is bound in it if that is the same.
    """

    def __init__(self) -> None:
        self._places: list[Place] = []
        self._idle: list[Place] = []

    def take(self, adapter: bytes) -> Place:
        """Return a process that no test uses, with the environment of this one as it is now."""
        here = environ(), import_path()
        usable = [place for place in self._idle if place.interpreter.fits(*here)]
        if usable:
            found = min(usable, key=lambda place: place.adapter != adapter)
            self._idle.remove(found)
            return found
        started = Place(Interpreter())
        self._places.append(started)
        return started

    def give_back(self, place: Place) -> None:
        """Keep a process for the next test."""
        self._idle.append(place)

    def rest(self) -> None:
        """Close the adapters, whose servers may end with a class of tests; keep a few processes.

        Raises:
            AdapterError: closing an adapter failed.
        """
        kept = [place for place in self._idle if place.interpreter.alive][-KEPT:]
        self._end([place for place in self._places if place not in kept])

    def close(self) -> None:
        """Close the adapters, and end all processes.

        Raises:
            AdapterError: closing an adapter failed.
        """
        self._end(self._places)

    def _end(self, ending: Sequence[Place]) -> None:
        places = self._places
        self._places = [place for place in places if place not in ending]
        self._idle = [place for place in self._idle if place not in ending]
        with contextlib.ExitStack() as stack:
            for place in places:
                if place in ending:
                    stack.callback(place.interpreter.end)
                stack.callback(place.close)


class Elsewhere:
    """An adapter in another process, bound there to equal options when it is first called.

    The process has other hashes of texts, another working directory, umask and time zone. What
    cannot be sent there, such as an adapter that is an object which does not pickle, skips the
    test.

    Args:
        port: the adapter as it is bound here.
        interpreters: where processes come from.
    """

    def __init__(self, port: Port, interpreters: Interpreters) -> None:
        self.port = port
        self._interpreters = interpreters
        self._place: Place | None = None
        self._others: list[Elsewhere] = []

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run `function(port, *arguments)` there.

        Args:
            function: a function of a module. It runs in a thread of its own.
            arguments: whatever pickles.

        Returns:
            What it returns, which has to pickle.

        Raises:
            Exception: what it raises, with a note of its traceback.
            ProcessDied: the process ended, or did not answer within 300 s; with what it wrote. The
                next call starts another one.
        """
        return self.submit(function, *arguments).result()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Do as `run`, and return a future at once, for several writers at a time."""
        return self._submit(function, arguments, last=False)

    def run_and_die(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Do as `run` in a process that is killed, by SIGKILL, the moment the function returns."""
        try:
            return self._submit(function, arguments, last=True).result()
        finally:
            self._place = None

    def restart(self) -> None:
        """Close the adapter there and end the process; the next call starts a fresh one."""
        place, self._place = self._place, None
        if place is not None:
            place.close()
            place.interpreter.end()

    def another(self) -> Elsewhere:
        """Return the same adapter in one more process."""
        other = Elsewhere(self.port, self._interpreters)
        self._others.append(other)
        return other

    def processes(self, count: int) -> list[Elsewhere]:
        """Return this one and others, `count` in all, each time the same. The adapter is bound in
        each already, so that what is submitted to them begins at once.
        """
        while len(self._others) < count - 1:
            self.another()
        processes = [self, *self._others[: count - 1]]
        for each in processes:
            each.run(_nothing)
        return processes

    def submit_together(
        self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]
    ) -> list[Future[Any]]:
        """Submit one call to each of as many processes as there are tuples of arguments. They wait
        until all of them can begin; this returns at the moment when they do.

        Args:
            function: a function of a module, as for `run`.
            arguments: what each process calls it with, after the adapter; one tuple or more.

        Returns:
            The future of each.
        """
        try:
            packed(arguments)  # all of them, before a process calls anything
        except CannotTravel as error:
            pytest.skip(f"cannot be sent to another process: {error}")
        until = time.monotonic() + TIMEOUT
        with tempfile.TemporaryDirectory() as name:
            start = Path(name)
            futures = [
                each.submit(_wait_and_call, start, function, mine)
                for each, mine in zip(self.processes(len(arguments)), arguments, strict=True)
            ]
            while (
                len([*start.iterdir()]) < len(futures)
                and not any(future.done() for future in futures)
                and time.monotonic() < until
            ):
                time.sleep(0.001)
        return futures

    def close(self) -> None:
        """Leave the processes to other tests."""
        for other in self._others:
            other.close()
        if self._place is not None:
            self._interpreters.give_back(self._place)
            self._place = None

    def _submit(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], last: bool
    ) -> Future[Any]:
        try:
            if self._place is None or not self._place.interpreter.alive:
                adapter = packed(self.port)
                place = self._interpreters.take(adapter)
                try:
                    place.bind(adapter)
                except BaseException:
                    self._interpreters.give_back(place)
                    raise
                self._place = place
            place = self._place
            return place.interpreter.submit(_call, place.name, function, arguments, last=last)
        except CannotTravel as error:
            pytest.skip(f"cannot be started in another process: {error}")


# --- in the other process ---

_open_ports: dict[str, Port] = {}


def _open(name: str, adapter: bytes, folder: str) -> None:
    """Bind the adapter where it was bound before: a URL may say no more than a relative path."""
    with contextlib.chdir(folder):
        port: Port = unpacked(adapter)
        if port.supports("ping"):
            with contextlib.suppress(AdapterError):  # the calls will say so
                port.ping()
    _open_ports[name] = port


def _call(name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(_open_ports[name], *arguments)


def _wait_and_call(
    port: Port, start: Path, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> Any:
    """Say in a folder that this process is ready, and begin when the folder is deleted."""
    with contextlib.suppress(FileNotFoundError):  # the others have begun long since
        (start / str(os.getpid())).touch()
    while start.exists():
        time.sleep(0.0005)
    return function(port, *arguments)


def _nothing(port: Port) -> None:
    """Show that the adapter is bound."""


def _close(name: str) -> None:
    if (port := _open_ports.pop(name, None)) is not None:
        port.close()
