"""Write to several stores, read from the first."""

from __future__ import annotations

import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic

from crucible_kitchen import (
    AdapterError,
    AdapterOptions,
    BlobStore,
    Call,
    CrucibleWarning,
    InvalidInput,
    MetricsStore,
    Unsupported,
    hookimpl,
    resource,
)
from pydantic import Field

from .wrapper import PortT, Wrapper

READS: Mapping[str, frozenset[str]] = {
    "blob_store": frozenset({"read", "stream", "exists", "list", "read_range"}),
    "metrics_store": frozenset({"read", "runs"}),
}
WRITES: Mapping[str, frozenset[str]] = {
    "blob_store": frozenset({"write", "delete"}),
    "metrics_store": frozenset({"record", "record_many", "flush"}),
}
"""The callbacks of each port, by where they go. One that is in neither is refused."""

IN_MEMORY = 16 << 20
"""Bytes of a blob, come in pieces, that are kept in memory; more go to a temporary file."""
PIECE = 1 << 20


class TeeOptions(AdapterOptions, Generic[PortT]):
    inner: list[PortT] = Field(min_length=1)
    """The stores. All are written to, the first is read."""


class Tee(Wrapper):
    """Write to several stores, read from the first.

    They are written to one after the other. One that fails is told of once, by a warning that names
    it, and the others go on; the call fails when all do. A blob store fails also when its first
    store does, when the others have been written to: what was written must be there to be read.
    What the whole supports, and which arguments it takes, is what the first store does: what that
    one refuses is written nowhere.
    """

    @hookimpl
    def around(self, opts: TeeOptions[Any], call: Call) -> Any:
        if call.name in READS[call.port]:
            return call()
        if call.name == "ping":
            for store in opts.inner:
                if store.supports("ping"):
                    call.on(store)
            return None
        if call.name not in WRITES[call.port]:
            raise Unsupported(f"does not know where {call.name} goes, to one store or to all")
        data: Any = call.arguments.get("data")
        if call.name != "write" or isinstance(data, bytes | bytearray | memoryview):
            return _write(opts, call, {})
        with Spooled(data) as spooled:  # the first store would leave nothing for the others
            return _write(opts, call, {"data": spooled})


def _write(opts: TeeOptions[Any], call: Call, changed: Mapping[str, Any]) -> None:
    failures: dict[int, AdapterError] = {}
    for index, store in enumerate(opts.inner):
        try:
            if call.name == "record_many" and not store.supports(call.name):
                store.record_many(**call.arguments)  # one by one
            else:
                call.on(store, **changed)
        except AdapterError as error:
            if index == 0 and isinstance(error, InvalidInput | Unsupported):
                raise  # the call is at fault, not the store
            failures[index] = error
    everywhere = len(failures) == len(opts.inner)
    if 0 in failures:  # raised, it speaks of the whole, and not of the first store alone
        failures[0].no_effect = everywhere and all(each.no_effect for each in failures.values())
    if everywhere:
        raise failures[0]
    for index, failure in failures.items():
        _told(opts).tell(call, f"inner.{index} ({opts.inner[index].adapter})", failure)
    if 0 in failures and call.port == "blob_store":
        raise failures[0]


class Told:
    """Which stores have been told of as failing."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._lock = threading.Lock()

    def tell(self, call: Call, name: str, error: AdapterError) -> None:
        """Warn of a store that failed, the first time."""
        with self._lock:
            if name in self._names:
                return
            self._names.add(name)
        warnings.warn(
            f"{call.port}.tee: {name} failed in {call.name}: {error.reason}. The other stores go "
            "on; further failures of this one are not told",
            CrucibleWarning,
            stacklevel=2,
        )


@resource
def _told(opts: TeeOptions[Any]) -> Told:
    return Told()


class Spooled(Iterable[bytes]):
    """The pieces of a blob, all of them read before the first store is given any, for each anew.

    Args:
        pieces: an iterator, an open file, or whatever else yields bytes.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        try:
            for piece in pieces:
                self._file.write(piece)
        except BaseException:
            self._file.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while piece := self._file.read(PIECE):
            yield piece

    def __enter__(self) -> Spooled:
        return self

    def __exit__(self, *failure: object) -> None:
        self._file.close()


blob_store = Tee("tee", TeeOptions[BlobStore])
metrics_store = Tee("tee", TeeOptions[MetricsStore])
