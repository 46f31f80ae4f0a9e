"""Failures of `datasets` and the libraries below it as errors of the contract."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from crucible_adapter_hf_hub import seconds_to_wait
from crucible_kitchen import (
    AdapterError,
    InvalidInput,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
    causes,
)

from .sources import Source

_NO_CONNECTION = frozenset({"ConnectionError", "TimeoutError", "TransportError"})
"""Errors of the standard library, httpx and requests, by their names, since the Hub's client has
changed its HTTP library before."""

_NO_ROWS = ("corresponds to no data", "at least one example", "BatchSize must be greater than 0")
"""Messages of `datasets` about files without rows, for which it also raises StopIteration."""

_NOT_UNDERSTOOD = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError)
"""Exceptions of metadata with other types than `datasets` expects, and of programs."""


@contextmanager
def translated(source: Source) -> Iterator[None]:
    """Translate exceptions raised in this block to those of the contract."""
    before = sys.exception()  # what the caller is handling; it is not a cause
    try:
        yield
    except AdapterError:
        raise
    except Exception as error:
        failure = None if source.local else _of_the_hub(source, list(causes(error, before)))
        failure = failure or _of_the_data(source, error)
        if failure is None:
            raise
        raise failure from error


def _of_the_hub(source: Source, chain: Sequence[BaseException]) -> AdapterError | None:
    """Return why the Hub did not serve a data set.

    `datasets` reports that it could not find a data set, or a file of it, whatever the reason
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
    if isinstance(chain[0], json.JSONDecodeError):  # bad data would be a different error
        return Unavailable(f"{source.label}: the answer is not a hub's: {chain[0]}")
    return None


def _refusal(reason: str, response: Any) -> AdapterError | None:
    status, code = response.status_code, response.headers.get("X-Error-Code")
    if code in ("RepoNotFound", "RevisionNotFound"):  # with status 401 if there is no login
        return NotFound(reason)
    if status in (401, 403):
        return Unauthorized(reason)
    if status == 429:
        return RateLimited(reason, retry_after=seconds_to_wait(response.headers))
    if status == 404:  # an optional file of a data set
        return None
    return Unavailable(reason)


def _of_the_data(source: Source, error: Exception) -> AdapterError | None:
    """Return the error for a mistake in the data set itself."""
    from datasets.exceptions import DatasetBuildError

    if isinstance(error, FileNotFoundError):
        return NotFound(f"{source.label}: {error}")
    if isinstance(error, StopIteration):  # raised for an empty file
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
            f"{source.label}: its metadata is not understood: {type(error).__name__}: {error}"
        )
    return None


def _is_of_yaml(error: Exception) -> bool:
    return any(cls.__name__ == "YAMLError" for cls in type(error).__mro__)
