"""Resources: what an adapter keeps between calls, one for each bound options object.

An adapter is stateless except for engines, clients, file systems and connection pools. Each is
made by a function of the options:

    @resource
    def client(opts: Options) -> Client:
        return Client(opts.url)

    @hookimpl
    def read(opts: Options, path: str) -> bytes:
        return client(opts).get(path)

    @hookimpl
    def close(opts: Options) -> None:
        if made := client.pop(opts):
            made.close()
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from ..options.adapter_options import AdapterOptions, resource_cache

O = TypeVar("O", bound=AdapterOptions)  # noqa: E741
R = TypeVar("R")

_process = os.getpid()
"""The number of this process. Asking the system for it would take as long as the rest of a use."""


def _renew_process() -> None:
    global _process
    _process = os.getpid()


os.register_at_fork(after_in_child=_renew_process)


class Resource(Generic[O, R]):
    """A function of the options that runs once for each options object; see the module.

    The value lives as long as the options object, by identity: two kitchens with equal options
    share nothing. It is made on first use, only once even with several threads, and again after a
    fork, since connections and locks do not survive one. The child keeps the parent's value and
    does not finalise it, because closing it there could close it for the parent as well.
    """

    def __init__(self, make: Callable[[O], R]) -> None:
        functools.update_wrapper(self, make)
        self._make = make
        self._lock = threading.RLock()
        os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()

    def __call__(self, opts: O) -> R:
        values = resource_cache(opts)
        try:
            made: R = values[self, _process]
        except KeyError:
            made = self._made_once(opts)
        return made

    def _made_once(self, opts: O) -> R:
        values, key = resource_cache(opts), (self, _process)
        with self._lock:
            if key not in values:
                values[key] = self._make(opts)
            return cast(R, values[key])

    def peek(self, opts: O) -> R | None:
        """Return the value if it exists, else None, without making one."""
        return cast("R | None", resource_cache(opts).get((self, _process)))

    def pop(self, opts: O) -> R | None:
        """Remove the value and return it, or None; the next use makes another."""
        with self._lock:
            return cast("R | None", resource_cache(opts).pop((self, _process), None))


def resource(make: Callable[[O], R]) -> Resource[O, R]:
    """Decorate a function of the options, so that its value is kept between calls."""
    return Resource(make)
