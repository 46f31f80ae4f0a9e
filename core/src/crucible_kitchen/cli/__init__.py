"""The `crucible` command.

This module imports next to nothing: the command must listen to signals before the second or two
that importing the rest takes.
"""

from __future__ import annotations

import sys

from .interruption import signals


def main() -> None:
    """Run the command, and end the process.

    Exit codes: 0 done; 1 an adapter or an observer of a run failed, or output could not be written;
    2 a mistake of the user, such as one in the configuration, reported as a message and never as a
    traceback; 130, 143 and 129 interrupted by Ctrl-C, SIGTERM and SIGHUP. A run that is done when a
    signal comes stays done: 0.
    """
    signals.listen()
    try:
        code = _outcome()
    except KeyboardInterrupt:  # another, while the first was handled
        code = signals.code
    signals.exit_code = code
    from . import ending, streams

    signals.exit_code = code = streams.settled(code)
    ending.prepare(code)
    sys.exit(code)


def _outcome() -> int:
    """Run the command, print the error that it ends with, and return its exit code."""
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
        if signals.first is None:  # else a library turned KeyboardInterrupt into another error
            from .failures import explain

            return explain(error)
    print("interrupted", file=sys.stderr)
    return signals.code
