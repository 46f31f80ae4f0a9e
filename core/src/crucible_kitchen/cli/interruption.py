"""Ctrl-C, which ends a run even where a library takes it for a failure of its own."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..telemetry import Event


class Interruption:
    """Turns SIGINT into KeyboardInterrupt, as Python does, and remembers that it came.

    Python raises KeyboardInterrupt wherever the main thread is at the moment. In a destructor it
    is dropped; pydantic, while it serializes, makes an error of its own of it; and the run would
    go on, or end as if an adapter had failed. So it is raised again at the next event of a run
    that goes on, and whoever catches an error asks `came`.
    """

    def __init__(self) -> None:
        self.came = False

    @classmethod
    @contextmanager
    def remembered(cls) -> Iterator[Interruption]:
        """Remember SIGINT during the `with` block."""
        interruption = cls()
        # Left alone where it is ignored, as of a command in the background of a script.
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield interruption
            return
        signal.signal(signal.SIGINT, interruption._take)
        try:
            yield interruption
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        raise KeyboardInterrupt

    def observe(self, event: Event) -> None:
        """Raise what was dropped. Not while a run is ending: its record must be written."""
        goes_on = not event.attributes.get("error")
        if self.came and goes_on and event.name.startswith(("dataset.", "training.")):
            raise KeyboardInterrupt
