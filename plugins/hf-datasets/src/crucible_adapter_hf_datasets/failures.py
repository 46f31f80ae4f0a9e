"""What `datasets` and the libraries below it raise, as the contract says it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from crucible_adapter_hf_hub.failures import seconds_to_wait
from crucible_kitchen import (
    AdapterError,
    InvalidInput,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
)
from crucible_kitchen.errors import told

from .sources import Source

# By their names, since the Hub's client has changed its HTTP library before: the errors of the
# standard library, httpx and requests.
_NO_CONNECTION = frozenset({"ConnectionError", "TimeoutError", "TransportError"})

# What `datasets` says, beside StopIteration, of files without rows.
_NO_ROWS = ("corresponds to no data", "at least one example", "BatchSize must be greater than 0")


# What comes of metadata that has other types than `datasets` expects, and of programs.
_NOT_UNDERSTOOD = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError)


@contextmanager
def explained(source: Source) -> Iterator[None]:
    """Raise what the contract says for whatever is raised inside."""
    before = sys.exception()  # what the caller is handling; it explains nothing here
    try:
        yield
    except AdapterError:
        raise
    except Exception as error:
        reason = None if source.local else _of_the_hub(source, list(_chain(error, before)))
        reason = reason or _of_the_data(source, error)
        if reason is None:
            raise
        raise reason from error


def _chain(error: BaseException | None, until: BaseException | None) -> Iterator[BaseException]:
    while error is not None and error is not until:
        yield error
        error = error.__cause__ or error.__context__


def _of_the_hub(source: Source, chain: Sequence[BaseException]) -> AdapterError | None:
    """Return why the Hub did not serve what it has.

    `datasets` says that it could not find a data set, or a file of it, whatever the reason was
    (measured, 5.2.0); the reason is somewhere in the chain of causes.
    """
    for error in chain:
        response = getattr(error, "response", None)
        if response is not None and (reason := _refusal(f"{source.label}: {error}", response)):
            return reason
    for error in chain:
        text = f"{source.label}: {error}"
        if _NO_CONNECTION & {cls.__name__ for cls in type(error).__mro__}:
            return Unavailable(text)
        if "Consistency check failed" in text:  # a body that was too short
            return Unavailable(text)
        if "is a gated dataset" in text:  # all that is left of the Hub's answer
            return Unauthorized(text)
    if isinstance(chain[0], json.JSONDecodeError):  # of data it would be another error
        return Unavailable(f"{source.label}: what answers is no hub: {chain[0]}")
    return None


def _refusal(reason: str, response: Any) -> AdapterError | None:
    status, code = response.status_code, response.headers.get("X-Error-Code")
    if code in ("RepoNotFound", "RevisionNotFound"):  # with 401 for those without a login
        return NotFound(reason)
    if status in (401, 403):
        return Unauthorized(reason)
    if status == 429:
        return RateLimited(reason, retry_after=seconds_to_wait(response.headers))
    if status == 404:  # one of the files that a data set may have, and need not
        return None
    return Unavailable(reason)


def _of_the_data(source: Source, error: Exception) -> AdapterError | None:
    """Return what is wrong with the data set itself."""
    from datasets.exceptions import DatasetBuildError

    if isinstance(error, FileNotFoundError):
        return NotFound(f"{source.label}: {error}")
    if isinstance(error, StopIteration):  # what an empty file comes to
        return InvalidInput(f"{source.label}: holds no rows")
    if isinstance(error, DatasetBuildError | ValueError):
        cause = error.__cause__ if isinstance(error, DatasetBuildError) else error
        if "BuilderConfig" in str(cause) and "not found" in str(cause):
            return NotFound(f"{source.label}: {cause}")
        if any(text in str(cause) for text in _NO_ROWS):
            return InvalidInput(f"{source.label}: holds no rows ({cause})")
        return InvalidInput(f"{source.label}: {cause or error}")
    if not source.local and (isinstance(error, _NOT_UNDERSTOOD) or _is_of_yaml(error)):
        return InvalidInput(
            f"{source.label}: what it says of itself is not understood: {told(error)}"
        )
    return None


def _is_of_yaml(error: Exception) -> bool:
    return any(cls.__name__ == "YAMLError" for cls in type(error).__mro__)
