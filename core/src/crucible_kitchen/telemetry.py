"""Observers: callables that are told of every adapter call and workflow event.

| event | attributes |
| --- | --- |
| `adapter.call` | port, adapter, callback, duration_s, error: by the adapter that served it |
| `adapter.around` | the same and depth: by each wrapper that the call went through |
| `workflow.start`, `workflow.stop`, `workflow.exception` | workflow, run_id, ... |
| `dataset.load` | dataset, split, rows |
| `training.step`, `training.epoch`, `training.eval`, `training.checkpoint` | run_id, step, ... |

Events hold numbers, names and error types, never a row of data and never a secret.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Args:
        name: what, from the table above.
        attributes: the particulars.
        time: when, in seconds since the epoch.
    """

    name: str
    attributes: Mapping[str, Any]
    time: float = field(default_factory=time.time)


Observer: TypeAlias = Callable[[Event], None]


class Observers:
    """The observers of one kitchen. False while there are none, so that not observing costs
    no more than a truth test.
    """

    def __init__(self) -> None:
        self._observers: list[Observer] = []
        self._reported: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._observers)

    def add(self, observer: Observer) -> Callable[[], None]:
        """Tell `observer` of everything from now on; return a function that stops it."""
        self._observers.append(observer)

        def stop() -> None:
            if observer in self._observers:
                self._observers.remove(observer)

        return stop

    def emit(self, name: str, /, **attributes: Any) -> None:
        """Tell every observer. One that fails is reported once and never stops training."""
        if not self._observers:
            return
        event = Event(name, attributes)
        for observer in tuple(self._observers):
            try:
                observer(event)
            except Exception as error:
                if id(observer) not in self._reported:
                    self._reported.add(id(observer))
                    print(
                        f"crucible: observer {observer!r} failed at {name} "
                        f"({type(error).__name__}: {error}); further failures stay silent",
                        file=sys.stderr,
                    )
