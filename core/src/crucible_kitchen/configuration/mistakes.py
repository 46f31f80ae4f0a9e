"""Mistakes on their way through pydantic, which alone knows where in the options they happened.

An adapter may be an option of another adapter, so an error of ours can be raised deep inside the
validation of a table. It makes a detour to collect its path:

1. `Configurator` raises it as `carried(error)`, a custom error of pydantic that holds the error;
2. every model around it adds its own part of the path, as pydantic does for any error;
3. `validate` words what pydantic itself found, and passes on what is carried (`error_in`);
4. at the outermost table, `explained` makes a `ConfigurationError` of it again: of the class that
   was carried, with the full path of the key, and the place its value came from;
5. `cause_of` finds the cause of the error that was carried, for `raise ... from`.
"""

from __future__ import annotations

from typing import Any, cast

from pydantic import PydanticUserError, ValidationError
from pydantic_core import PydanticCustomError

from ..errors import (
    AdapterForbidden,
    AdapterLoadError,
    AdapterNotFound,
    BindError,
    ConfigurationError,
    CrucibleError,
)
from ..masking.secrets import Secrets
from ..settings import Key, Settings
from .replaced import without_option

_KINDS = {
    kind.__name__: kind for kind in (AdapterForbidden, AdapterNotFound, AdapterLoadError, BindError)
}


def carried(error: CrucibleError) -> PydanticCustomError:
    """Wrap our error so that pydantic adds the path of the option."""
    return PydanticCustomError(
        cast(Any, type(error).__name__), "{message}", {"message": str(error), "error": error}
    )


def error_in(problem: Any) -> CrucibleError | None:
    """Return the error of ours that one of pydantic's problems carries, if it does."""
    error = problem.get("ctx", {}).get("error")
    return error if isinstance(error, CrucibleError) else None


def cause_of(error: ValidationError) -> BaseException | None:
    """Return the cause of the first error of ours among the problems, if it has one."""
    for problem in error.errors(include_input=False, include_url=False):
        if (found := error_in(problem)) is not None:
            return found.__cause__
    return None


def explained(
    error: ValidationError, at: Key, settings: Settings, secrets: Secrets
) -> ConfigurationError:
    """Return all problems of a table as one error, each with its key and the source of its value.

    Args:
        error: as `validate` raises it.
        at: where the table is in the settings.
        settings: where each value came from.
        secrets: masked in the messages.
    """
    found = []
    for problem in error.errors(include_input=False, include_url=False):
        key = (*at, *map(str, problem["loc"]))
        context = problem.get("ctx", {})
        message = secrets.masked(problem["msg"])
        if part := context.get("part"):
            message += f", on the command line {'.'.join(key)}.{part}"
        if problem["type"] == "missing":  # a missing value has no source
            lost = without_option(settings, key)
            message = f"{message.removesuffix('.')}; {lost}" if lost else message
        else:
            message += f" (from {context.get('source') or settings.source_of(key)})"
        kind = _KINDS.get(problem["type"], ConfigurationError)
        found.append(kind(f"{'.'.join(key)}: {message}"))
    return ConfigurationError.of(found)


def described(error: BaseException) -> str:
    """Describe an error without its message, which may contain a secret."""
    name = type(error).__name__
    # A PydanticUserError is about the class alone.
    return f"{name}: {error.message}" if isinstance(error, PydanticUserError) else name
