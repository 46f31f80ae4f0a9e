"""What a command prints about the error that it ends with."""

from __future__ import annotations

import io
import traceback

import typer

from ..adapters.discovery import Catalog, catalog
from ..errors import ConfigurationError, CrucibleError, described
from ..messages.counts import counted
from .console import fail, note


def explain(error: BaseException) -> int:
    """Print an error; return the exit code: 2 for a mistake of the user, else 1.

    Only unexpected errors get a traceback: bugs, and exceptions of a workflow's own.
    """
    match error:
        case CrucibleError():
            fail(described(error).removeprefix(f"{type(error).__name__}: "))
            for more in getattr(error, "__notes__", ()):
                note(more)
            # A library that reads entry points fails if those of any package are malformed.
            note_malformed(catalog())
            return 2 if isinstance(error, ConfigurationError) else 1
        case typer.Exit():
            return error.exit_code
        case typer.Abort():
            note("aborted")
            return 1
        case SystemExit():
            # Our code never exits this way, and a package that does may have meant success.
            fail(f"sys.exit({error.code!r}) was called {_where(error)}")
            return 1
    usage = getattr(error, "show", None)  # typer names the class ClickException in some versions
    if isinstance(error, Exception) and callable(usage):
        text = io.StringIO()
        usage(file=text)
        how, is_error, what = text.getvalue().rstrip("\n").rpartition("Error: ")
        if not is_error:  # a help
            note(what)
        else:
            if how:
                note(how.rstrip("\n"))
            fail((what[:1].lower() + what[1:]).rstrip("."))
        return int(getattr(error, "exit_code", 2))
    note("".join(traceback.format_exception(error)).rstrip("\n"))
    return 1


def note_malformed(found: Catalog) -> None:
    """Note how many packages were passed over, if any were."""
    if many := len(found.problems):
        packages = counted(many, "package")
        note(f"the metadata of {packages} is malformed; `crucible doctor` says which")


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"in {frames[-1].filename}, line {frames[-1].lineno}" if frames else "somewhere"
