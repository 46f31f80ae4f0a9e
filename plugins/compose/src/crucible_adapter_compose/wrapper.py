"""The base of the wrappers: one object for each port, with the options of that port."""

from __future__ import annotations

from typing import TypeVar

from crucible_kitchen import (
    AdapterOptions,
    BlobStore,
    Completer,
    DatasetStore,
    HubClient,
    MetricsStore,
    TrainingClient,
)

PortT = TypeVar(
    "PortT", TrainingClient, DatasetStore, BlobStore, HubClient, MetricsStore, Completer
)


class Wrapper:
    """The base of the adapters of this package, which differ by port in their `Options` alone.

    Args:
        name: the wrapper's name, for messages where it was not chosen by name.
        options: the class of its options. The field `inner` is the port, or a list of it.
    """

    def __init__(self, name: str, options: type[AdapterOptions]) -> None:
        self.__name__ = name
        self.Options = options
