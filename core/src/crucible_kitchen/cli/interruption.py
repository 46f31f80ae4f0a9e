"""Ctrl-C, SIGTERM and SIGHUP, which end a command at any moment, and always as what it was.

Until this is imported a signal is answered by Python, so it imports as little as it can.
"""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

    from ..events import Event

HANGUP: int | None = getattr(signal, "SIGHUP", None)  # not on Windows
SIGNALS = [signal.SIGINT, signal.SIGTERM, *([] if HANGUP is None else [HANGUP])]

ECHO = 0.1
"""Seconds within which another signal is the same request: `uv run`, say, passes on to the command
what the terminal has sent to both. Nobody presses a key twice as fast."""


class Interruption:
    """Turns the three signals into KeyboardInterrupt, and remembers the first that came.

    KeyboardInterrupt is raised wherever the main thread is at the moment. In a destructor it is
    dropped; pydantic, while it serializes, and extension modules, while they are imported, make an
    error of their own of it. So it is raised again at the next event of a run that goes on, and
    callers that catch an error ask for `first`.

    The first asks a run to end, which may save first. The second leaves without. The third ends the
    process there and then, so that nobody is ever at the mercy of a library.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        """The first that came."""
        self.done = False
        """Whether what was to be done is done, so that nothing that comes can change it."""
        self.exit_code: int | None = None
        """Set when nothing is left to do: a signal then ends the process at once."""
        self._held = False
        self._noticed = False
        self._count = 0
        self._last = 0.0

    @property
    def code(self) -> int:
        """The exit code of what was interrupted, as shells have it: 130, 143 or 129."""
        return 0 if self.done else 128 + (self.first or signal.SIGINT)

    def listen(self) -> None:
        """Take the signals from now on.

        Not those that whoever started the command had ignored, as `nohup` does, and scripts with
        what they start in the background.
        """
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._take)
        sys.unraisablehook = _without_interruptions
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._restore)

    def _restore(self) -> None:
        """Let a forked process, of a data loader say, be ended as any other."""
        for number in SIGNALS:
            if signal.getsignal(number) == self._take:
                signal.signal(
                    number,
                    signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL,
                )

    def ignore(self) -> None:
        """Ignore the signals from now on: Python, when it ends, would make them kill again."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.exit_code is not None:
            leave(self.exit_code)
        now = time.monotonic()
        # A terminal that is closed tells its shell, too, which tells us again.
        if self.first is not None and (number == HANGUP or now - self._last < ECHO):
            return
        self.first = self.first or number
        self._last = now
        self._count += 1
        if self._count > 2:
            leave(self.code, "interrupted for the third time: left at once")
        if self._held and self._count == 1:
            return
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise what was dropped."""
        if self.first is not None:
            raise KeyboardInterrupt

    def hold(self) -> None:
        """Take note that all is done but to print the result, for which the first signal waits."""
        self.done = self._held = True

    def release(self) -> None:
        """Take note that the result is printed."""
        self._held = False

    def observe(self, event: Event) -> None:
        """Raise what was dropped, at an event of a run that goes on.

        Not while a run is ending: it saves, and its record must be written. From the event on that
        says that the record will say done, the first signal waits until its result has been
        printed, or until that failed.
        """
        match event.name:
            case "workflow.interrupted":
                self._noticed = True
            case "workflow.finishing":
                self._held = True
            case "workflow.exception":
                self._held = False
            case "workflow.start":
                self.done = self._held = self._noticed = False
            case "workflow.stop":
                self.hold()
            case name if name.startswith(("dataset.", "training.")):
                if not (self._noticed or event.attributes.get("error")):
                    self.check()


def _without_interruptions(dropped: sys.UnraisableHookArgs) -> None:
    """Say nothing of a KeyboardInterrupt that a destructor drops: it is raised again."""
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)


def leave(code: int, message: str = "") -> NoReturn:
    """End the process without waiting for anything."""
    try:
        if sys.stdout.isatty():
            os.write(1, b"\x1b[?25h")  # the cursor, which a progress bar hides
        os.write(2, f"{message}\n".encode() if message else b"")
    except Exception:
        pass  # there is nobody to see it
    finally:
        os._exit(code)


signals = Interruption()
"""That of this process."""
