"""Failures of the server and of its SDK as errors of the contract."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from crucible_kitchen import (
    AdapterError,
    AdapterTimeout,
    AlreadyExists,
    InvalidInput,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
    Unsupported,
)

T = TypeVar("T")


def asked(what: str, ask: Callable[[], T], *, refusal: type[AdapterError] = InvalidInput) -> T:
    """Return what `ask` returns, with the exceptions of the SDK as errors of the contract.

    They are raised without a cause or context: those hold the request with its key, and the batch.

    Args:
        what: what failed then, such as `the model could not be made`.
        ask: calls the SDK.
        refusal: the error for a request that the server refuses as wrong.
    """
    try:
        return ask()
    except AdapterError:
        raise
    except Exception as error:
        failure = translated(what, error, refusal=refusal)
    raise failure


def translated(
    what: str, error: BaseException, *, refusal: type[AdapterError] = InvalidInput
) -> AdapterError:
    """Return the contract's error for an exception of the SDK; see `asked`."""
    import tinker

    if isinstance(error, AdapterError):
        return error
    # "Error retrieving result" is a ValueError, whose cause is the answer.
    cause = error.__cause__ if isinstance(error, ValueError) else None
    status = cause if isinstance(cause, tinker.APIStatusError) else error
    if isinstance(status, tinker.APIStatusError):
        return _of_status(what, status, refusal)
    said = f"{what}: {cut(str(error) or type(error).__name__)}"
    if isinstance(error, TimeoutError | tinker.APITimeoutError):
        return AdapterTimeout(f"{what}: no answer in time")
    if isinstance(error, tinker.APIConnectionError):
        return Unavailable(said)
    if isinstance(error, tinker.RequestFailedError):
        if str(getattr(error.category, "value", error.category)).lower() == "user":
            return refusal(said)
        return Unavailable(said)
    if isinstance(error, tinker.APIResponseValidationError):
        return AdapterError(f"{said}; {versions()}")
    if isinstance(error, tinker.TinkerError) and "key" in str(error):
        return Unauthorized(f"{said} (option `api_key`)")
    if isinstance(error, CancelledError):
        return Unavailable(f"{what}: it was cancelled")
    if type(error).__name__ == "RetryableException":  # the server forgot the operation
        return Unavailable(said)
    return AdapterError(f"{what}: {type(error).__name__}: {cut(str(error))}")


def versions() -> str:
    """Name the SDK, for errors that may be those of its version."""
    import tinker

    return (
        f"the installed SDK is tinker {tinker.__version__}, and a server understands certain "
        "versions of it: SkyRL 0.3 those before 0.25, TuFT 0.25, Thinking Machines' the newest"
    )


def cut(text: str) -> str:
    """Return a text of at most 500 characters that can be written to any file."""
    text = text if len(text) <= 500 else f"{text[:497]}..."
    return text.encode("utf-8", "backslashreplace").decode()


def _of_status(what: str, error: Any, refusal: type[AdapterError]) -> AdapterError:
    """`error` is the SDK's for an answer of this status."""
    status: int = error.status_code
    said = f"{what}: the server answered {status}: {cut(_detail(error))}"
    details = {"status": status}
    if status in (401, 403):
        return Unauthorized(f"{said}; is `api_key` right?", details=details)
    if status == 404:
        return NotFound(said, details=details)
    if status == 402:
        return RateLimited(said, retryable=False, details=details)
    if status == 409:
        return AlreadyExists(said, details=details)
    if status in (415, 422):
        return Unsupported(f"{said}; {versions()}", details=details)
    if status == 429:
        after = RateLimited.retry_after_of(error.response.headers)
        return RateLimited(said, retry_after=after, details=details)
    if status == 408:
        return AdapterTimeout(said, details=details)
    if status >= 500:
        return Unavailable(said, details=details)
    if "Maximum number of LoRA adapters" in said:  # SkyRL
        return Unavailable(
            f"{said}; every slot of the server is taken: close sessions, or give it more "
            "(max_lora_adapters)",
            no_effect=True,
            details=details,
        )
    return refusal(said, details=details)


def _detail(error: Any) -> str:
    body = error.body
    if isinstance(body, dict):
        body = body.get("detail") or body.get("message") or body.get("error") or body
    return str(body or error)
