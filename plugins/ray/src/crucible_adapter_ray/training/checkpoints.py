"""Where the checkpoints of sessions are: in a folder that every node sees, or in a blob store."""

from __future__ import annotations

import contextlib
import json
import posixpath
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import crucible_adapter_torch.training_client as torch_client
from crucible_kitchen import AdapterError, BlobStore, InvalidInput, NotFound

from ..options import TrainingClientOptions

CHUNK = 8 << 20
"""Bytes of a file that travel at a time."""
INDEX = ".json"
"""Next to the files of a checkpoint, `<reference>/<file>`, lies `<reference>.json`, written last
and deleted first: what has none is not complete."""
LABEL = "label"
"""The first file of a checkpoint in a store, for whoever cleans up after its writer was killed."""


class Nodes(Protocol):
    """The machines of a session's workers, whose `checkpoint_dir` is a folder of each."""

    def files(self, reference: str) -> Mapping[str, int]:
        """Return the sizes of a checkpoint's files, by name, on the first rank's machine."""

    def read(self, reference: str, name: str, size: int) -> Iterator[bytes]:
        """Yield the content of one of them."""

    def write(self, reference: str, name: str, content: Iterable[bytes]) -> None:
        """Write a file of a checkpoint on each machine."""

    def forget(self, reference: str) -> None:
        """Remove a checkpoint from each machine."""


class InFolder:
    """Checkpoints stay where the first rank writes them, and every rank finds them there."""

    def __init__(self, opts: TrainingClientOptions) -> None:
        self._opts = opts

    def keep(self, nodes: Nodes, reference: str, label: str) -> None:
        """Take over a checkpoint that the first rank has written."""

    def fetch(self, nodes: Nodes, reference: str) -> str:
        """Have a checkpoint where every rank finds it; return the name that it has there."""
        return reference

    def drop(self, nodes: Nodes, fetched: str) -> None:
        """Undo `fetch`, which returned this name."""

    def at_a_time(self, checkpoints: int) -> int:
        """Return how many of a run's checkpoints are on the first rank's machine at a time."""
        return checkpoints

    def list(self, prefix: str) -> Sequence[str]:
        """See `TrainingClientOptionalSpec.list_checkpoints`."""
        return torch_client.list_checkpoints(self._opts, prefix)

    def delete(self, reference: str) -> None:
        """See `TrainingClientOptionalSpec.delete_checkpoint`."""
        torch_client.delete_checkpoint(self._opts, reference)

    def clean(self, prefix: str, keep: Sequence[str], dry_run: bool) -> Sequence[str]:
        """See `AdapterSpec.clean`."""
        return torch_client.clean(self._opts, prefix, keep, dry_run)


class InStore(InFolder):
    """Checkpoints go from the first rank's machine to a store, and from there to each machine. They
    pass through the driver, a chunk at a time.
    """

    def __init__(self, opts: TrainingClientOptions, store: BlobStore) -> None:
        super().__init__(opts)
        self._store = store

    def keep(self, nodes: Nodes, reference: str, label: str) -> None:
        try:
            sizes = dict(nodes.files(reference))
            self._store.write(f"{reference}/{LABEL}", label.encode())
            for name, size in sizes.items():
                self._store.write(f"{reference}/{name}", nodes.read(reference, name, size))
            about = json.dumps({"label": label, "files": sizes})
            self._store.write(reference + INDEX, about.encode())
        finally:
            with contextlib.suppress(AdapterError):  # its machine may be what failed
                nodes.forget(reference)

    def fetch(self, nodes: Nodes, reference: str) -> str:
        if not self._has(reference):
            raise NotFound(f"no checkpoint {reference!r} in {self._store!r}")
        names = json.loads(self._store.read(reference + INDEX))["files"]
        fetched = f"{reference}-{uuid.uuid4().hex[:8]}"  # another session may fetch it, too
        try:
            for name in names:
                path = f"{reference}/{name}"
                with contextlib.closing(self._store.stream(path, CHUNK)) as content:
                    nodes.write(fetched, name, content)
        except BaseException:
            self.drop(nodes, fetched)
            raise
        return fetched

    def drop(self, nodes: Nodes, fetched: str) -> None:
        with contextlib.suppress(AdapterError):
            nodes.forget(fetched)

    def at_a_time(self, checkpoints: int) -> int:
        return min(checkpoints, 1)

    def list(self, prefix: str) -> Sequence[str]:
        found = [
            name.removesuffix(INDEX)
            for name in self._store.list("")
            if name.endswith(INDEX)
            and "/" not in name
            and json.loads(self._store.read(name))["label"].startswith(prefix)
        ]
        return sorted(found, key=lambda reference: reference.rsplit("-", 2)[1:])

    def delete(self, reference: str) -> None:
        if self._has(reference):
            self._remove(reference)

    def _has(self, reference: str) -> bool:
        if posixpath.basename(reference) != reference:
            return False
        try:
            return self._store.exists(reference + INDEX)
        except InvalidInput:  # the store has no blob of such a name
            return False

    def _remove(self, reference: str) -> None:
        self._store.delete(reference + INDEX)
        for name in self._store.list(f"{reference}/"):
            self._store.delete(name)

    def clean(self, prefix: str, keep: Sequence[str], dry_run: bool) -> Sequence[str]:
        removed = [*super().clean(prefix, keep, dry_run)]  # what never got to the store
        if not prefix:  # nobody can tell whether something is still being written
            return removed
        end = f"/{LABEL}"
        for name in self._store.list(""):
            reference = name.removesuffix(end)
            if not name.endswith(end) or reference in keep:
                continue
            if self._store.read(name).decode().startswith(prefix):
                if not dry_run:
                    self._remove(reference)
                removed.append(reference)
        return removed


def checkpoints_of(opts: TrainingClientOptions) -> InFolder:
    """Return where the options say that checkpoints are."""
    return InFolder(opts) if opts.checkpoints is None else InStore(opts, opts.checkpoints)
