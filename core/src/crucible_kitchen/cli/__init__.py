"""The `crucible` command.

This module imports next to nothing: the signals must be listened to before the second or two that
the rest takes to import.
"""

from __future__ import annotations

import sys

from .interruption import signals


def main() -> None:
    """Run the command, and end the process.

    Exit codes: 0 done; 1 an adapter failed, or what was printed could not be written, or an
    observer of a run failed; 2 a mistake in the configuration or of the user, which is a message
    and never a traceback; 130, 143 and 129 interrupted by Ctrl-C, SIGTERM and SIGHUP. A run that is
    done when a signal comes stays done: 0.
    """
    signals.listen()
    try:
        code = _outcome()
    except KeyboardInterrupt:  # another, while the first was answered
        code = signals.code
    signals.exit_code = code
    from . import ending, streams

    signals.exit_code = code = streams.settled(code)
    ending.prepare(code)
    sys.exit(code)


def _outcome() -> int:
    """Run the command; return its exit code. What it ends with is printed."""
    try:
        import atexit

        from . import ending, streams

        atexit.register(ending.at_exit)  # first, so that it is called last
        streams.open_streams()
        from . import stray
        from .app import invoke

        stray.take()
        return invoke(sys.argv[1:])
    except KeyboardInterrupt:
        pass
    except BaseException as error:
        if signals.first is None:  # else it is what a library made of KeyboardInterrupt
            from .failures import explain

            return explain(error)
    print("interrupted", file=sys.stderr)
    return signals.code
