"""Environments that are lent: made when all others are in use, and closed at the end."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable

from ...environments.guarded import Guarded
from ...errors import CrucibleWarning, described


class Source:
    """Where problems come from. It lends environments, and makes one when all are in use, since
    making one may be expensive. Safe to use from any thread.

    Args:
        name: its name in messages.
        make: makes an environment.
        called: what messages call a problem, by its seed.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Guarded],
        called: Callable[[int], str] = "seed {}".format,
    ) -> None:
        self.name, self._make, self.called = name, make, called
        self._lock = threading.Lock()
        self._free: list[Guarded] = []
        self._made: list[Guarded] = []
        self._closing = weakref.finalize(self, _close, self._made)

    def take(self) -> Guarded:
        """Return an environment that nothing else uses; a new one if there is none."""
        with self._lock:
            if self._free:
                return self._free.pop()
        made = self._make()
        with self._lock:
            self._made.append(made)
        return made

    def give_back(self, environment: Guarded) -> None:
        """Take back an environment that is not used any more."""
        with self._lock:
            self._free.append(environment)

    def close(self) -> None:
        """Close every environment that was made; at the latest it is done when this is gone."""
        self._closing()


def _close(made: list[Guarded]) -> None:
    for environment in made:
        try:
            environment.close()
        except Exception as error:
            warnings.warn(f"an environment did not close: {described(error)}", CrucibleWarning, 2)
