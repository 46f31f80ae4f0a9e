"""The `crucible` command.

This module imports next to nothing: the signals must be listened to before the second or two that
the rest takes to import.
"""

from __future__ import annotations

import sys

from .interruption import interruption


def main() -> None:
    """Run the command, and end the process.

    Exit codes: 0 done; 1 an adapter failed, or what was printed could not be written, or an
    observer of a run failed; 2 a mistake in the configuration or of the user, which is a message
    and never a traceback; 130, 143 and 129 interrupted by Ctrl-C, SIGTERM and SIGHUP. A run that is
    done when a signal comes stays done: 0.
    """
    interruption.listen()
    import atexit

    from . import ending, streams

    atexit.register(ending.at_exit)  # first, so that it is called last
    streams.open_streams()
    try:
        code = _outcome()
    except KeyboardInterrupt:  # another, while the first was answered
        code = interruption.code
    interruption.exit_code = code
    interruption.exit_code = code = streams.settled(code)
    ending.prepare(code)
    sys.exit(code)


def _outcome() -> int:
    """Run the command; return its exit code. What it ends with is printed."""
    try:
        from .app import invoke

        return invoke(sys.argv[1:])
    except KeyboardInterrupt:
        pass
    except BaseException as error:
        if interruption.signal is None:  # else it is what a library made of KeyboardInterrupt
            from .app import explain

            return explain(error)
    print("interrupted", file=sys.stderr)
    return interruption.code
