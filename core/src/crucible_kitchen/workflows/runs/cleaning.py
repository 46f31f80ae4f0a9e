"""What killed processes left behind: which of it no run needs, and how it is removed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ...errors import AdapterError, AdapterTimeout, ConfigurationError, RateLimited, Unavailable
from ...kitchen import Kitchen
from ..config import LEASE, RECORD, SAMPLES
from .lease import Lease
from .record import RunRecord, ids_with, now, path_of, read, write


def lease_of(kitchen: Kitchen, run_id: str) -> Lease:
    """Return the lease on a run, not acquired."""
    return Lease(kitchen.blob_store, f"{run_id}/{LEASE}", f"the run {run_id!r}")


def acquire(lease: Lease, kitchen: Kitchen, run_id: str) -> None:
    """Take the lease on a run; tell observers of a holder that is waited for."""
    emit = kitchen.observers.emit
    lease.acquire(
        lambda holder: emit("workflow.waiting", run_id=run_id, seconds=lease.term, holder=holder)
    )


def sweep(kitchen: Kitchen, record: RunRecord, dry_run: bool = False) -> list[str]:
    """Remove what killed processes left of a run whose lease is held; return its names.

    Unfinished blobs, checkpoints and weights, and whole ones that the record does not name.
    """
    prefix = record.checkpoint_prefix
    own = (path_of(record.run_id), f"{record.run_id}/{SAMPLES}/")
    left = [each for path in own for each in kitchen.blob_store.clean(path, dry_run=dry_run)]
    if not prefix:  # of a version that had none
        return left
    named = [*record.checkpoints, record.weights]
    keep = [reference for reference in named if reference is not None]
    if not keep and "training_client" not in kitchen.configured:  # an evaluation, say
        return left
    client = kitchen.training_client
    left += client.clean(prefix, keep, dry_run)
    if client.supports("list_checkpoints") and client.supports("delete_checkpoint"):
        for reference in client.list_checkpoints(prefix):
            if reference not in keep and reference not in left:
                left.append(reference)
                if not dry_run:
                    client.delete_checkpoint(reference)
    return left


def clean(kitchen: Kitchen, dry_run: bool = False) -> Iterator[tuple[str, str]]:
    """Remove what killed runs left behind; yield the run, and what was, or would be, done.

    A run that another process works on is left alone. Of one that was killed, the record says so
    from then on, and no longer that it is running. All holders elsewhere are watched at once.

    Raises:
        Unsupported: the blob store cannot list its blobs.
        AdapterError: a backend is away.
    """
    there = {*kitchen.blob_store.list("")}
    found_ids = ids_with(there, RECORD) | ids_with(there, LEASE)
    removes = kitchen.blob_store.supports("delete")  # else a lease that was released stays
    watched: list[tuple[str, Lease]] = []
    for run_id in sorted(found_ids):
        lease = lease_of(kitchen, run_id)
        found: list[str] = []
        with _left_alone(found):
            if not (lease.path in there and removes) and not _is_left(kitchen, run_id):
                continue
            try:
                lease.look()
            except ConfigurationError:
                if dry_run or not (path_of(run_id) in there or lease.is_one):
                    raise
                watched.append((run_id, lease))
            else:
                found += _clean(kitchen, run_id, lease, dry_run)
        yield from ((run_id, what) for what in found)
    for run_id, lease in watched:
        found = []
        with _left_alone(found):
            found += _clean(kitchen, run_id, lease, dry_run)
        yield from ((run_id, what) for what in found)


@contextlib.contextmanager
def _left_alone(found: list[str]) -> Iterator[None]:
    """Name what is wrong with one run, which concerns no other; not a backend that is away."""
    try:
        yield
    except (Unavailable, AdapterTimeout, RateLimited):
        raise
    except (ConfigurationError, AdapterError) as error:
        found.append(f"left alone: {error}")


def _is_left(kitchen: Kitchen, run_id: str) -> bool:
    """Say whether there is anything to clean: most runs are done, and need no lease for it."""
    record = read(kitchen, run_id)
    if record is None:
        return False
    return record.status == "running" or bool(sweep(kitchen, record, dry_run=True))


def _clean(kitchen: Kitchen, run_id: str, lease: Lease, dry_run: bool) -> Iterator[str]:
    was_left = kitchen.blob_store.supports("delete") and kitchen.blob_store.exists(lease.path)
    with lease:
        if not dry_run:
            acquire(lease, kitchen, run_id)
        if was_left:
            yield f"removed {lease.path}"
        record = read(kitchen, run_id)
        if record is None:
            return
        for name in sweep(kitchen, record, dry_run):
            yield f"removed {name}"
        if record.status == "running":
            if not dry_run:
                lease.check()
                killed = record.with_(status="interrupted", error="killed", ended=now())
                write(kitchen, killed)
            yield f"was killed; goes on after step {record.state.step}"
