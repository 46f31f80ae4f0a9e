"""Weights that a training client publishes for the completers of the same process."""

from __future__ import annotations

import threading
import uuid

from crucible_kitchen import NotFound

from .models.language_model import LanguageModel

PREFIX = "torch-live:"

_published: dict[str, LanguageModel] = {}
_lock = threading.Lock()


def publish(model: LanguageModel) -> str:
    """Offer a model, whose weights must not change from then on; return a reference never used
    before. The model is kept until it is withdrawn, and by who samples from it.
    """
    reference = f"{PREFIX}{uuid.uuid4().hex}"
    with _lock:
        _published[reference] = model
    return reference


def withdraw(reference: str | None) -> None:
    """Unpublish a model. Samplers already using it may finish."""
    with _lock:
        _published.pop(reference or "", None)


def find(reference: str) -> LanguageModel:
    """Return a published model.

    Raises:
        NotFound: it was withdrawn, or it was published in another process.
    """
    with _lock:
        if reference in _published:
            return _published[reference]
    raise NotFound(
        f"no weights {reference!r}: they are valid in the process that saved them, until its "
        "session saves the next ones or is closed; save them with a name to keep them"
    )
