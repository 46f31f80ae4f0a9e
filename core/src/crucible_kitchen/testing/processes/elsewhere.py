"""One adapter in another process, as tests use it."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from ...calls.port import Port
from ...errors import AdapterError
from .interpreter import Interpreter, environ
from .travelling import CannotTravel, packed, unpacked


class Interpreters:
    """The processes of a class of tests. One that a test has given back serves the next."""

    def __init__(self) -> None:
        self._started: list[Interpreter] = []
        self._idle: list[Interpreter] = []

    def take(self) -> Interpreter:
        """Return a process that nobody uses, with the environment of this one as it is now."""
        for interpreter in self._idle:
            if interpreter.alive and interpreter.environ == environ():
                self._idle.remove(interpreter)
                return interpreter
        started = Interpreter()
        self._started.append(started)
        return started

    def give_back(self, interpreter: Interpreter) -> None:
        """Keep a process for the next test."""
        self._idle.append(interpreter)

    def close(self) -> None:
        """End all of them."""
        for interpreter in self._started:
            interpreter.end()


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
        self._interpreter: Interpreter | None = None
        self._name = ""
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
            ProcessDied: the process ended, or did not answer within 120 s; with what it wrote.
        """
        return self._submit(function, arguments).result()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Do as `run`, and return a future at once, for several writers at a time."""
        return self._submit(function, arguments)

    def run_and_die(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Do as `run` in a process that is killed, by SIGKILL, the moment the function returns.
        The next call starts another one.
        """
        try:
            return self._submit(function, arguments, last=True).result()
        finally:
            self._interpreter = None

    def restart(self) -> None:
        """Leave the process, closing the adapter there; the next call starts a fresh one."""
        if self._interpreter is not None:
            interpreter = self._interpreter
            self._leave()
            interpreter.end()

    def another(self) -> Elsewhere:
        """Return the same adapter in one more process."""
        other = Elsewhere(self.port, self._interpreters)
        self._others.append(other)
        return other

    def processes(self, count: int) -> list[Elsewhere]:
        """Return this one and others, `count` in all. The adapter is bound in each already, so that
        what is submitted to them begins at once.
        """
        processes = [self, *(self.another() for _ in range(count - 1))]
        for each in processes:
            each.run(_nothing)
        return processes

    def close(self) -> None:
        """Close the adapter there, and keep the process for other tests.

        Raises:
            AdapterError: closing it failed.
        """
        with contextlib.ExitStack() as stack:
            for other in self._others:
                stack.callback(other.close)
            if (interpreter := self._interpreter) is not None:
                self._leave()
                self._interpreters.give_back(interpreter)

    def _submit(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], last: bool = False
    ) -> Future[Any]:
        try:
            if self._interpreter is None or not self._interpreter.alive:
                adapter = packed(self.port)
                interpreter = self._interpreters.take()
                name = uuid.uuid4().hex
                self._interpreter, self._name = interpreter, name
                interpreter.run(_open, name, adapter, os.getcwd())
            return self._interpreter.submit(_call, self._name, function, arguments, last=last)
        except CannotTravel as error:
            pytest.skip(f"cannot be started in another process: {error}")

    def _leave(self) -> None:
        assert self._interpreter is not None
        interpreter, self._interpreter = self._interpreter, None
        if interpreter.alive:
            interpreter.run(_close, self._name)


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


def _nothing(port: Port) -> None:
    """Show that the adapter is bound."""


def _close(name: str) -> None:
    if (port := _open_ports.pop(name, None)) is not None:
        port.close()
