"""Failures of file systems and the clients below them as errors of the contract."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from crucible_kitchen import (
    AdapterError,
    AdapterTimeout,
    InvalidInput,
    Unauthorized,
    Unavailable,
    explain_os_errors,
)

_NO_CREDENTIALS = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "TokenRetrievalError",
        "SSOError",
        "ClientAuthenticationError",
        "GoogleAuthError",
    }
)
_TOO_SLOW = frozenset({"ReadTimeoutError", "ConnectTimeoutError"})
_NO_CONNECTION = frozenset(
    {"ConnectionError", "HTTPClientError", "ClientConnectionError", "ServiceRequestError"}
)
"""Exceptions by their names, since the clients below fsspec may not be installed: those of the
standard library, botocore, aiohttp, azure-core and google-auth."""


@contextmanager
def translated(path: str, where: str, *, no_effect: bool | None = None) -> Iterator[None]:
    """Translate exceptions raised in this block to those of the contract.

    Args:
        path: the path of a blob.
        where: the start of the messages.
        no_effect: whether a failure in this block changed nothing.
    """
    # s3fs translates a server's "slow down" and "service unavailable" to EBUSY, and an "internal
    # server error" to EREMOTEIO, which it counts as temporary as well.
    with explain_os_errors(where, no_effect=no_effect):
        try:
            yield
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            if isinstance(error, AdapterError):
                raise
            raise InvalidInput(
                f"blob path {path!r}: {error} is a blob or a folder already"
            ) from error
        except Exception as error:
            if (kind := _kind_of(error)) is None:
                raise
            raise kind(f"{where}: {error}", no_effect=no_effect) from error


def _kind_of(error: Exception) -> type[AdapterError] | None:
    """Return the kind of an error of a client, or None for one of the operating system."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & _NO_CREDENTIALS:
        return Unauthorized
    if names & _TOO_SLOW:
        return AdapterTimeout
    translated_already = isinstance(error, AdapterError | TimeoutError)
    return Unavailable if names & _NO_CONNECTION and not translated_already else None
