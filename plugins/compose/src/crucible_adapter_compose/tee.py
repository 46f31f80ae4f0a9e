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
from pydantic import Field, field_validator

from .recordings import check_apart
from .wrapper import PortT, Wrapper

READ_CALLBACKS: Mapping[str, frozenset[str]] = {
    "blob_store": frozenset({"read", "stream", "exists", "list", "read_range"}),
    "metrics_store": frozenset({"read", "runs"}),
}
WRITE_CALLBACKS: Mapping[str, frozenset[str]] = {
    "blob_store": frozenset({"write", "delete"}),
    "metrics_store": frozenset({"record", "record_many", "flush"}),
}
"""The callbacks of each port, by where they go. A callback in neither table is refused."""

_IN_MEMORY = 16 << 20
"""Bytes of a blob in pieces that are kept in memory; a larger one goes to a temporary file."""
_PIECE = 1 << 20
"""Bytes that are given to a store at a time."""


class TeeOptions(AdapterOptions, Generic[PortT]):
    inner: list[PortT] = Field(min_length=1)
    """The stores. All are written to, the first is read."""

    @field_validator("inner")
    @classmethod
    def _recorded_apart(cls, inner: list[PortT]) -> list[PortT]:
        check_apart(inner)
        return inner


class Tee(Wrapper):
    """Write to several stores, read from the first.

    They are written to one after the other. The first failure of a store is reported as a warning
    that names it, and the others continue; the call fails when all stores fail. A blob store also
    fails when its first store does, after the others were written to: what was written must be
    there to be read. The whole supports what the first store supports, and takes the arguments
    that it takes: what the first store refuses is written nowhere.
    """

    @hookimpl
    def around(self, opts: TeeOptions[Any], call: Call) -> Any:
        if call.name in READ_CALLBACKS[call.port]:
            return call()
        if call.name == "ping":
            for store in opts.inner:
                if store.supports("ping"):
                    call.on(store)
            return None
        if call.name not in WRITE_CALLBACKS[call.port]:
            raise Unsupported(f"does not know whether {call.name} goes to one store or to all")
        data: Any = call.arguments.get("data")
        if call.name != "write" or isinstance(data, bytes | bytearray | memoryview):
            return _write(opts, call, {})
        with SpooledBlob(data) as spooled:  # the first store would leave nothing for the others
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
    if 0 in failures:  # the error is that of the whole, and not of the first store alone
        failures[0].no_effect = everywhere and all(each.no_effect for each in failures.values())
    if everywhere:
        raise failures[0]
    for index, failure in failures.items():
        _warned_stores(opts).warn(call, f"inner.{index} ({opts.inner[index].adapter})", failure)
    if 0 in failures and call.port == "blob_store":
        raise failures[0]


class WarnedStores:
    """The stores that a warning has named as failing. Safe from any thread."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._lock = threading.Lock()

    def warn(self, call: Call, name: str, error: AdapterError) -> None:
        """Warn about a store that failed, the first time it does."""
        with self._lock:
            if name in self._names:
                return
            self._names.add(name)
        warnings.warn(
            f"{call.port}.tee: {name} failed in {call.name}: {error.reason}. The other stores "
            "continue; further failures of this one are not reported",
            CrucibleWarning,
            stacklevel=2,
        )


@resource
def _warned_stores(opts: TeeOptions[Any]) -> WarnedStores:
    return WarnedStores()


class SpooledBlob(Iterable[bytes]):
    """A blob in pieces, read to its end at once, that can be iterated once for each store.

    Args:
        pieces: an iterator, an open file, or anything else that yields bytes.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        try:
            for piece in pieces:
                self._file.write(piece)
        except BaseException:
            self._file.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while piece := self._file.read(_PIECE):
            yield piece

    def __enter__(self) -> SpooledBlob:
        return self

    def __exit__(self, *failure: object) -> None:
        self._file.close()


blob_store = Tee("tee", TeeOptions[BlobStore])
metrics_store = Tee("tee", TeeOptions[MetricsStore])
