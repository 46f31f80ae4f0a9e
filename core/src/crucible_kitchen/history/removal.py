"""What belongs to a run is deleted, and nothing else.

In the order: checkpoints and weights, the run's other blobs, the record. So what is left of a
deletion that was interrupted still has the record that names it, and deleting again goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import ConfigurationError
from ..kitchen import Kitchen
from ..messages.spelling import shortened
from ..workflows import runs
from ..workflows.config import SAMPLES
from ..workflows.runs import RunRecord, path_of
from ..workflows.runs.cleaning import acquire, lease_of
from .stored import StoredRun, blobs, find, is_worked_on


@dataclass(frozen=True, slots=True)
class Belongings:
    """What belongs to a run.

    Args:
        record: the run's record.
        references: of checkpoints and weights, which the training client deletes.
        blobs: in the blob store, its record last.
    """

    record: RunRecord
    references: Sequence[str]
    blobs: Sequence[str]


def belongings(kitchen: Kitchen, run: StoredRun) -> Belongings:
    """Return what deleting a run would delete.

    Raises:
        ConfigurationError: it cannot be deleted: it has no record that can be read, a store
            cannot delete, or its checkpoints belong to a training client that is not configured.
    """
    record = run.record
    if record is None:
        why = run.problem or f"the run {run.run_id!r} has no record in the blob store"
        raise ConfigurationError(
            f"{why}. What belongs to it is not known, so that nothing is deleted"
        )
    store = kitchen.blob_store
    for callback in ("list", "delete"):
        if not store.supports(callback):
            raise ConfigurationError(
                f"adapters.blob_store: {store.adapter} cannot {callback} blobs, so that runs "
                "cannot be deleted"
            )
    _check_client(kitchen, record)
    own = blobs(kitchen, record.run_id) or []
    path, lease = path_of(record.run_id), lease_of(kitchen, record.run_id).path
    others = [each for each in own if each not in (path, lease)]
    return Belongings(record, _references(kitchen, record), [*others, path])


def _check_client(kitchen: Kitchen, record: RunRecord) -> None:
    """Refuse where the training client is not the one that has the checkpoints."""
    named = record.adapters.get("training_client")
    used = named.get("use") if isinstance(named, dict) else None
    if "training_client" not in kitchen.configured:
        if record.checkpoints or record.weights:
            raise ConfigurationError(
                f"adapters.training_client: none is configured, and {used or 'another'} has the "
                f"checkpoints of the run {record.run_id!r}"
            )
        return
    now = kitchen.training_client.adapter
    if used is not None and used != now:
        raise ConfigurationError(
            f"adapters.training_client: {now} is configured, and {used} has the checkpoints of "
            f"the run {record.run_id!r}"
        )


def _references(kitchen: Kitchen, record: RunRecord) -> list[str]:
    """Return the checkpoints and the weights of a run, those that the record misses, too."""
    found = [*record.checkpoints, *([] if record.weights is None else [record.weights])]
    if "training_client" not in kitchen.configured:
        return found
    client, prefix = kitchen.training_client, record.checkpoint_prefix
    if prefix:  # no other run has it
        if client.supports("list_checkpoints"):
            found += client.list_checkpoints(prefix)
        found += client.clean(prefix, [], dry_run=True)
    return list(dict.fromkeys(found))


def check_not_needed(kitchen: Kitchen, doomed: Sequence[Belongings]) -> None:
    """Refuse to delete weights that other runs start from, or have for a teacher.

    Raises:
        ConfigurationError: names those runs.
    """
    going = {each.record.run_id for each in doomed}
    owners = {ref: each.record.run_id for each in doomed for ref in each.references}
    needed = [
        f"{run.run_id!r} {needs} {owners[reference]!r}"
        for run in find(kitchen)
        if run.record and run.run_id not in going
        for needs, reference in _needed(run.record)
        if reference in owners
    ]
    if needed:
        raise ConfigurationError(
            f"weights that another run needs are not deleted: {shortened(needed)}. Without them it "
            "cannot be continued; delete it first, or in the same command"
        )


def _needed(record: RunRecord) -> Iterator[tuple[str, object]]:
    """Yield the references that a run needs to be continued, and what for."""
    yield "starts from", record.from_checkpoint
    yield "learns from", record.depends_on.get("teacher", {}).get("model")


def wait(kitchen: Kitchen, run_id: str) -> None:
    """Return when no process works on a run. One elsewhere is watched, since it may have ended.

    Raises:
        ConfigurationError: another process works on it.
    """
    if is_worked_on(kitchen, run_id):
        with lease_of(kitchen, run_id) as lease:
            acquire(lease, kitchen, run_id)


def delete(kitchen: Kitchen, run_id: str) -> Iterator[str]:
    """Delete what belongs to a run; yield the name of each thing that is deleted.

    Rows of metrics stay: a metrics store deletes none.

    Raises:
        ConfigurationError: another process works on it, or it cannot be deleted.
        AdapterError: a call failed; deleting again goes on.
    """
    with lease_of(kitchen, run_id) as lease:
        acquire(lease, kitchen, run_id)
        record = runs.read(kitchen, run_id)  # again: from now on no other process writes it
        if record is None:
            return
        found = belongings(kitchen, StoredRun(run_id, record.status, record))
        yield from _delete_weights(kitchen, found)
        for folder in (path_of(run_id), f"{run_id}/{SAMPLES}/"):
            kitchen.blob_store.clean(folder)
        for path in found.blobs:
            lease.check()
            kitchen.blob_store.delete(path)
            yield path


def _delete_weights(kitchen: Kitchen, found: Belongings) -> Iterable[str]:
    if not found.references:
        return
    client, prefix = kitchen.training_client, found.record.checkpoint_prefix
    gone = list(client.clean(prefix, [])) if prefix else []
    yield from gone
    if client.supports("delete_checkpoint"):
        for reference in found.references:
            if reference not in gone and reference != found.record.weights:
                client.delete_checkpoint(reference)
                yield reference
