"""Ctrl-C, SIGTERM and SIGHUP: they end a command at any moment, and always as an interruption.

Until this module is imported Python answers signals itself, so it imports as little as it can.
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
"""Seconds within which another signal is the same request: `uv run`, for one, passes on to the
command what the terminal has sent to both. Keys are not pressed twice that fast."""


class Interruption:
    """Turns the three signals into KeyboardInterrupt, and remembers the first.

    KeyboardInterrupt is raised wherever the main thread happens to be. A destructor drops it;
    pydantic, while serializing, and extension modules, while being imported, replace it by an error
    of their own. So it is raised again at the next event of a run that continues, and callers that
    catch an error ask for `first`.

    The first signal asks a run to end, and the run may save. The second leaves without saving. The
    third ends the process at once, so that no library can keep it alive.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        """The first signal."""
        self.done = False
        """Whether the work is done, so that a signal can no longer change its outcome."""
        self.exit_code: int | None = None
        """Set when nothing is left to do: a signal then ends the process at once."""
        self._held = False
        self._noticed = False
        self._count = 0
        self._last = 0.0

    @property
    def code(self) -> int:
        """The exit code of an interrupted command, as in shells: 130, 143 or 129; 0 if done."""
        return 0 if self.done else 128 + (self.first or signal.SIGINT)

    def listen(self) -> None:
        """Handle the signals from now on.

        Except those that were ignored when the command was started, as `nohup` does, and scripts
        for commands in the background.
        """
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._take)
        sys.unraisablehook = _without_interruptions
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._restore)

    def _restore(self) -> None:
        """Let signals end a forked process, such as one of a data loader, as any other."""
        for number in SIGNALS:
            if signal.getsignal(number) == self._take:
                signal.signal(
                    number,
                    signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL,
                )

    def ignore(self) -> None:
        """Ignore the signals from now on: at its end Python restores handlers that kill."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.exit_code is not None:
            leave(self.exit_code)
        now = time.monotonic()
        # When a terminal is closed, the shell gets the signal as well, and passes it on to us.
        if self.first is not None and (number == HANGUP or now - self._last < ECHO):
            return
        self.first = self.first or number
        self._last = now
        self._count += 1
        if self._count > 2:
            leave(self.code, "interrupted for the third time; ended at once")
        if self._held and self._count == 1:
            return
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise the interruption that was dropped, if one was."""
        if self.first is not None:
            raise KeyboardInterrupt

    def hold(self) -> None:
        """Note that only printing the result is left; the first signal waits for that."""
        self.done = self._held = True

    def release(self) -> None:
        """Note that the result is printed."""
        self._held = False

    def observe(self, event: Event) -> None:
        """Raise the interruption that was dropped, at an event of a run that continues.

        Not while a run is ending: it saves, and its record must be written. From
        `workflow.finishing` on, the first signal waits until the result is printed, or the run
        failed.
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
    """Do not report a KeyboardInterrupt that a destructor drops: it is raised again."""
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)


def leave(code: int, message: str = "") -> NoReturn:
    """End the process without waiting for anything."""
    try:
        if sys.stdout.isatty():
            os.write(1, b"\x1b[?25h")  # the cursor, which a progress bar hides
        os.write(2, f"{message}\n".encode() if message else b"")
    except Exception:
        pass  # there is no terminal
    finally:
        os._exit(code)


signals = Interruption()
"""That of this process."""
