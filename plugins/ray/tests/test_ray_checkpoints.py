"""Checkpoints in a blob store: whole or not there, listed, fetched, and removed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from crucible_adapter_ray.options import TrainingClientOptions
from crucible_adapter_ray.training import files
from crucible_adapter_ray.training.checkpoints import InStore, checkpoints_of
from crucible_kitchen import BlobStore, Kitchen, NotFound, Unavailable

REFERENCE = "run-1-01795966579559566145-d679e075"
LATER = "run-2-01795966579559566146-00000000"


class Machine:
    """A machine of a worker, whose files are read three bytes at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fails_after = 1000

    def files(self, reference: str) -> Mapping[str, int]:
        return files.sizes(self.folder, reference)

    def read(self, reference: str, name: str, size: int) -> Iterator[bytes]:
        for start in range(0, size, 3):
            self.fails_after -= 1
            if not self.fails_after:
                raise Unavailable("the worker died")
            yield files.read(self.folder, reference, name, start, 3)

    def write(self, reference: str, name: str, content: Iterable[bytes]) -> None:
        start = 0
        files.write(self.folder, reference, name, 0, b"")
        for data in content:
            files.write(self.folder, reference, name, start, data)
            start += len(data)

    def forget(self, reference: str) -> None:
        files.forget(self.folder, reference)

    def saves(self, reference: str) -> dict[str, str]:
        """Write a checkpoint as a rank does; return its digests."""
        folder = self.folder / reference
        folder.mkdir(parents=True)
        for name in ("weights.safetensors", "moments.safetensors"):
            (folder / name).write_bytes(f"{name} of {reference}".encode())
        (folder / "empty").write_bytes(b"")
        (folder / "checkpoint.json").write_text('{"format": 1, "label": "x"}')
        return self.has(reference)

    def has(self, reference: str) -> dict[str, str]:
        folder = self.folder / reference
        return {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()
        }


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlobStore]:
    pytest.importorskip("crucible_adapter_fsspec")
    with Kitchen({"blob_store": {"use": "fsspec", "url": str(tmp_path / "store")}}) as kitchen:
        yield kitchen.blob_store


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "a")


@pytest.fixture
def checkpoints(tmp_path: Path, store: BlobStore) -> InStore:
    opts = TrainingClientOptions(checkpoint_dir=tmp_path / "driver", checkpoints=store)
    found = checkpoints_of(opts)
    assert isinstance(found, InStore)
    return found


def test_a_checkpoint_is_the_same_on_another_machine(
    checkpoints: InStore, machine: Machine, tmp_path: Path
) -> None:
    digests = machine.saves(REFERENCE)
    checkpoints.keep(machine, REFERENCE, "run-1")
    other = Machine(tmp_path / "b")
    assert other.has(checkpoints.fetch(other, REFERENCE)) == digests


def test_two_who_load_it_at_once_have_a_copy_each(
    checkpoints: InStore, machine: Machine, tmp_path: Path
) -> None:
    digests = machine.saves(REFERENCE)
    checkpoints.keep(machine, REFERENCE, "run-1")
    machine.saves(REFERENCE)  # of someone who keeps checkpoints in this folder
    one, two = checkpoints.fetch(machine, REFERENCE), checkpoints.fetch(machine, REFERENCE)
    checkpoints.drop(machine, one)
    assert machine.has(two) == digests
    checkpoints.drop(machine, two)
    assert [path.name for path in machine.folder.iterdir()] == [REFERENCE]


def test_disks_of_machines_need_room_for_one_at_a_time(checkpoints: InStore) -> None:
    assert [checkpoints.at_a_time(n) for n in (0, 1, 20)] == [0, 1, 1]


def test_it_stays_on_no_machine(checkpoints: InStore, machine: Machine) -> None:
    machine.saves(REFERENCE)
    checkpoints.keep(machine, REFERENCE, "run-1")
    assert not (machine.folder / REFERENCE).exists()


def test_half_a_checkpoint_is_none(checkpoints: InStore, machine: Machine) -> None:
    machine.saves(REFERENCE)
    machine.fails_after = 5
    with pytest.raises(Unavailable):
        checkpoints.keep(machine, REFERENCE, "run-1")
    assert checkpoints.list("") == []
    assert not (machine.folder / REFERENCE).exists()
    with pytest.raises(NotFound, match=f"no checkpoint '{REFERENCE}'"):
        checkpoints.fetch(machine, REFERENCE)


@pytest.mark.parametrize("reference", ["", "unknown", "../x", "a/b", ".", "é\0"])
def test_an_unknown_reference_is_not_found(
    checkpoints: InStore, machine: Machine, reference: str
) -> None:
    with pytest.raises(NotFound, match="no checkpoint"):
        checkpoints.fetch(machine, reference)
    checkpoints.delete(reference)  # there is nothing to delete, which is fine


def test_they_are_listed_by_label_oldest_first(checkpoints: InStore, machine: Machine) -> None:
    for reference, label in ((LATER, "run-2"), (REFERENCE, "run-1")):
        machine.saves(reference)
        checkpoints.keep(machine, reference, label)
    assert checkpoints.list("run-") == [REFERENCE, LATER]
    assert checkpoints.list("run-2") == [LATER]


def test_a_deleted_one_leaves_nothing(
    checkpoints: InStore, machine: Machine, store: BlobStore
) -> None:
    machine.saves(REFERENCE)
    checkpoints.keep(machine, REFERENCE, "run-1")
    checkpoints.delete(REFERENCE)
    checkpoints.delete(REFERENCE)  # as often as one likes
    assert store.list("") == []


def test_cleaning_removes_what_its_prefix_names_whole_or_not(
    checkpoints: InStore, machine: Machine, store: BlobStore
) -> None:
    for reference, label in ((REFERENCE, "run-1"), (LATER, "run-2")):
        machine.saves(reference)
        checkpoints.keep(machine, reference, label)
    half = "run-1-01795966579559566147-11111111"
    machine.saves(half)
    machine.fails_after = 5
    with pytest.raises(Unavailable):
        checkpoints.keep(machine, half, "run-1")
    before: Any = store.list("")
    assert sorted(checkpoints.clean("run-1", [REFERENCE], dry_run=True)) == [half]
    assert store.list("") == before
    assert sorted(checkpoints.clean("run-", [LATER], dry_run=False)) == sorted([REFERENCE, half])
    assert checkpoints.list("") == [LATER]
    assert all(name.startswith(LATER) for name in store.list(""))


def test_cleaning_without_a_prefix_leaves_what_may_be_being_written(
    checkpoints: InStore, machine: Machine, store: BlobStore
) -> None:
    machine.saves(REFERENCE)
    machine.fails_after = 5
    with pytest.raises(Unavailable):
        checkpoints.keep(machine, REFERENCE, "run-1")
    assert checkpoints.clean("", [], dry_run=False) == []
    assert store.list("")


@pytest.mark.parametrize("reference", ["", ".", "..", "../b", "/tmp"])
def test_nothing_but_a_checkpoint_is_forgotten(machine: Machine, reference: str) -> None:
    machine.saves(REFERENCE)
    machine.forget(reference)
    assert machine.files(REFERENCE)
