"""All six ports without a backend, to develop and test workflows.

    with Kitchen(adapters=kitchen_noop.ADAPTERS) as kitchen: ...

Each module serves one port with synthetic data, kept in memory, and is safe under threads. Change
one adapter with `{**ADAPTERS, "completer": {"use": completer, "completion_text": "42"}}`.
"""

from collections.abc import Mapping
from typing import Any, Final

from . import blob_store, completer, dataset_store, hub_client, metrics_store, training_client
from .tokenizer import CharTokenizer

ADAPTERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "training_client": {"use": training_client},
    "dataset_store": {"use": dataset_store},
    "blob_store": {"use": blob_store},
    "hub_client": {"use": hub_client},
    "metrics_store": {"use": metrics_store},
    "completer": {"use": completer},
}
"""The adapter of every port, with its default options."""

__all__ = ["ADAPTERS", "CharTokenizer"]
