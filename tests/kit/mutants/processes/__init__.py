"""Adapters whose fault shows in another process alone, or between two."""

from __future__ import annotations

from . import blob_store, completer, dataset_store, hub_client, metrics_store, training_client

MUTANTS = [
    *blob_store.MUTANTS,
    *metrics_store.MUTANTS,
    *dataset_store.MUTANTS,
    *training_client.MUTANTS,
    *completer.MUTANTS,
    *hub_client.MUTANTS,
]
