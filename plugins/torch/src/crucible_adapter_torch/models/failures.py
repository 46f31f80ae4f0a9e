"""What Transformers, and the libraries below it, raise where a model cannot be loaded."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from crucible_kitchen import (
    AdapterError,
    InvalidInput,
    NotFound,
    Unauthorized,
    Unavailable,
    causes,
    did_you_mean,
)
from huggingface_hub import errors as hub_errors

MISSING = (
    hub_errors.RepositoryNotFoundError,
    hub_errors.RevisionNotFoundError,
    hub_errors.HFValidationError,
)
OFFLINE = (
    hub_errors.LocalEntryNotFoundError,
    hub_errors.OfflineModeIsEnabled,
    ConnectionError,
    TimeoutError,
)


@contextlib.contextmanager
def translated(name: str, revision: str | None, made_here: Collection[str]) -> Iterator[None]:
    """Turn failures to load a model into the errors of the contract.

    Args:
        name: of the model.
        revision: its branch, tag or commit.
        made_here: names of the models in `ModelOptions.models`, for a hint.
    """
    handled = sys.exception()
    try:
        yield
    except AdapterError:
        raise
    except Exception as error:
        chain = list(causes(error, until=handled))
        # Most are OSError or ValueError; what a cut connection raises is not.
        if not isinstance(error, OSError | ValueError) and not _unreachable(chain):
            raise
        raise _translation(chain, name, revision, made_here) from error


def _translation(
    chain: list[BaseException], name: str, revision: str | None, made_here: Collection[str]
) -> AdapterError:
    """Return the error for a chain of causes.

    Transformers raises OSError for nearly everything; the reason is somewhere in the chain.
    """
    model = model_called(name, revision)
    text = str(chain[0])
    reason = text.strip().split("\n")[0]
    codes = [getattr(getattr(link, "response", None), "status_code", 0) for link in chain]
    refused = 401 in codes or 403 in codes
    busy = 429 in codes or max(codes) >= 500
    missing = _raised(chain, *MISSING)
    # The hub answers 401 for a repository that does not exist, too: only "gated" is certain.
    if _raised(chain, hub_errors.GatedRepoError) or (refused and not missing):
        return Unauthorized(f"the hub refuses {model}; accept its terms and log in: {reason}")
    if not missing and not Path(name).is_dir() and (busy or _unreachable(chain)):
        return Unavailable(f"the hub cannot be reached for {model}: {reason}")
    if "trust_remote_code" in text:
        return InvalidInput(
            f"{model} comes with its own Python code; read it, then allow it with "
            "trust_remote_code = true"
        )
    made = f" (made here: {', '.join(made_here)})" if made_here else ""
    return NotFound(f"no {model}{made}{did_you_mean(name, made_here) or ':'} {reason}")


def model_called(name: str, revision: str | None) -> str:
    """Return what messages call a model."""
    return f"model {name!r}" + (f" at {revision!r}" if revision else "")


def is_unreachable(error: BaseException) -> bool:
    """Whether an error came about because the hub cannot be reached, or may not be asked."""
    return _unreachable(list(causes(error)))


def _unreachable(chain: list[BaseException]) -> bool:
    return (
        _raised(chain, *OFFLINE)
        # By its name, since the hub's client has changed its HTTP library before.
        or any("TransportError" in [cls.__name__ for cls in type(link).__mro__] for link in chain)
        or "couldn't connect" in str(chain[0])
    )


def _raised(chain: list[BaseException], *kinds: type[BaseException]) -> bool:
    return any(isinstance(link, kinds) for link in chain)
