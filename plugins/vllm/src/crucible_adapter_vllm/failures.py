"""Failures of Transformers and of vLLM as errors of the contract."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from crucible_kitchen import AdapterError, NotFound, Unauthorized, Unavailable, causes


@contextlib.contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn failures to find a model's files into the errors of the contract."""
    from huggingface_hub import errors as hub

    try:
        yield
    except AdapterError:
        raise
    except Exception as error:
        chain = list(causes(error))
        # By its name, since the hub's client has changed its HTTP library before.
        cut = any("TransportError" in [c.__name__ for c in type(link).__mro__] for link in chain)
        if not isinstance(error, OSError | ValueError) and not cut:
            raise
        reason = str(error).strip().split("\n")[0]
        if any(isinstance(link, hub.GatedRepoError) for link in chain):
            raise Unauthorized(f"the hub refuses model {name!r}: {reason}") from error
        missing = (
            hub.RepositoryNotFoundError,
            hub.RevisionNotFoundError,
            hub.HFValidationError,
        )
        away = (
            hub.LocalEntryNotFoundError,
            hub.OfflineModeIsEnabled,
            ConnectionError,
            TimeoutError,
        )
        if not any(isinstance(link, missing) for link in chain) and (
            cut or any(isinstance(link, away) for link in chain) or "couldn't connect" in str(error)
        ):
            raise Unavailable(f"the hub cannot be reached for model {name!r}: {reason}") from error
        raise NotFound(f"no model {name!r}: {reason}") from error


def refused(error: Exception) -> AdapterError:
    """Return the error for what vLLM raised about a request, or about the whole engine."""
    from vllm.v1.engine.exceptions import EngineDeadError

    if isinstance(error, AdapterError):
        return error
    if isinstance(error, EngineDeadError):
        return Unavailable(
            "the engine has died; what it died of is in its output. The next call starts another"
        )
    return AdapterError(f"vLLM refused the request: {error}")
