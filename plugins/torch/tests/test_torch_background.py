"""Checkpoints that are written while training goes on, and the files that they become."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from crucible_adapter_torch.checkpoints import snapshots, tensor_files
from crucible_adapter_torch.checkpoints.snapshots import Snapshot
from crucible_kitchen import (
    Datum,
    InvalidInput,
    SessionClosed,
    SessionFailed,
    TrainingClient,
    Unavailable,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from tiny_torch import (
    CONTINUED,
    TINY,
    assert_equal_to_the_bit,
    break_next_pass,
    state,
    train,
    train_on_parts,
)

TYPES = list(tensor_files._NAMES)
SHAPES = [(), (0,), (3,), (2, 5), (1, 2, 3)]


class Disk:
    """A disk on which no file is written until it is let go.

    Attributes:
        began: set when the first file would have been written.
        goes_on: set it to have it written.
        fails: whether it fails then.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.began, self.goes_on, self.fails = threading.Event(), threading.Event(), False
        self._write = tensor_files.write
        patch.setattr(tensor_files, "write", self._slow)

    def _slow(self, path: Path, tensors: Snapshot, group: str) -> str:
        self.began.set()
        assert self.goes_on.wait(30)
        if self.fails:
            raise OSError(28, os.strerror(28))
        return self._write(path, tensors, group)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk(monkeypatch)
    yield made
    made.goes_on.set()


@pytest.mark.parametrize("how", CONTINUED)
def test_what_is_trained_meanwhile_is_not_in_a_checkpoint(
    client: TrainingClient, datums: list[Datum], disk: Disk, how: str
) -> None:
    session, other = (client.start_session(CONTINUED[how]) for _ in range(2))
    train_on_parts(client, session, datums)
    saved = client.save_checkpoint_async(session, "x")
    before = state(session)
    assert disk.began.wait(30)
    train_on_parts(client, session, datums)
    after = state(session)
    disk.goes_on.set()
    reference = client.await_(saved)
    assert_equal_to_the_bit(state(session), after)
    client.load_checkpoint(other, reference)
    assert_equal_to_the_bit(state(other), before)
    train_on_parts(client, other, datums)
    assert_equal_to_the_bit(state(other), after)


def test_nothing_is_copied_until_a_step_would_change_it(
    client: TrainingClient, datums: list[Datum], disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = client.start_session(TINY)
    copies: list[Snapshot] = []
    monkeypatch.setattr(Snapshot, "detach", lambda self: copies.append(self))
    saved = client.save_checkpoint_async(session, "x")
    client.await_(client.forward_backward(session, datums))
    assert copies == []
    client.await_(client.optim_step(session, 1e-2))
    assert len(copies) == 1
    disk.goes_on.set()
    client.await_(saved)


def test_of_several_checkpoints_each_holds_the_state_of_its_own_moment(
    client: TrainingClient, datums: list[Datum], disk: Disk
) -> None:
    session, patient = (client.start_session(TINY) for _ in range(2))
    saved, expected = [], []
    for _ in range(3):
        client.forward_backward(session, datums)
        client.optim_step(session, 1e-2)
        train(client, patient, datums)
        for _ in range(2):
            saved.append(client.save_checkpoint_async(session, "same"))
            expected.append(state(patient))
    disk.goes_on.set()
    for future, then in zip(saved, expected, strict=True):
        client.load_checkpoint(session, client.await_(future))
        assert_equal_to_the_bit(state(session), then)


def test_a_write_that_fails_fails_its_checkpoint_alone(
    client: TrainingClient, datums: list[Datum], disk: Disk, ckpt: Path
) -> None:
    session = client.start_session(TINY)
    saved = client.save_checkpoint_async(session, "x")
    train(client, session, datums)
    disk.fails = True
    disk.goes_on.set()
    for _ in range(2):
        with pytest.raises(Unavailable, match="No space left"):
            client.await_(saved)
    assert os.listdir(ckpt) == []
    disk.fails = False
    train(client, session, datums)
    reference = client.save_checkpoint(session, "x")
    assert client.list_checkpoints() == [reference]


def test_loading_a_checkpoint_leaves_the_one_that_is_being_written_as_it_was(
    client: TrainingClient, datums: list[Datum], disk: Disk
) -> None:
    session = client.start_session(TINY)
    disk.goes_on.set()
    first = client.save_checkpoint(session, "x")
    train(client, session, datums)
    disk.goes_on.clear()
    saved, expected = client.save_checkpoint_async(session, "x"), state(session)
    loading = threading.Thread(target=client.load_checkpoint, args=(session, first))
    loading.start()
    disk.goes_on.set()
    loading.join(30)
    client.load_checkpoint(session, client.await_(saved))
    assert_equal_to_the_bit(state(session), expected)


def test_a_session_that_is_closed_ends_what_it_writes(
    client: TrainingClient, disk: Disk, ckpt: Path
) -> None:
    session = client.start_session(TINY)
    running, queued = (client.save_checkpoint_async(session, "x") for _ in range(2))
    assert disk.began.wait(30)
    closing = threading.Thread(target=client.close_session, args=(session,))
    closing.start()
    disk.goes_on.set()
    closing.join(30)
    reference = client.await_(running, timeout=0)
    try:
        references = [reference, client.await_(queued, timeout=0)]
    except SessionClosed:
        references = [reference]
    assert client.list_checkpoints() == references
    assert sorted(os.listdir(ckpt)) == sorted(references)


def test_a_failed_session_is_not_saved(client: TrainingClient, datums: list[Datum]) -> None:
    session = client.start_session(TINY)
    break_next_pass(session)
    client.forward_backward(session, datums)
    client.optim_step(session, 1e-2)
    with pytest.raises(SessionFailed):
        client.await_(client.save_checkpoint_async(session, "x"))
    assert client.list_checkpoints() == []


def test_gradients_that_are_pending_are_refused_at_once(
    client: TrainingClient, datums: list[Datum]
) -> None:
    session = client.start_session(TINY)
    client.forward_backward(session, datums)
    with pytest.raises(InvalidInput, match="gradients are pending"):
        client.save_checkpoint_async(session, "x")


# --- snapshots and files ---


@settings(deadline=None)
@given(
    kinds=st.dictionaries(
        st.text(min_size=1), st.tuples(st.sampled_from(TYPES), st.sampled_from(SHAPES))
    )
)
def test_a_file_is_that_of_safetensors_to_the_bit(
    kinds: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    kinds = {name: kind for name, kind in kinds.items() if name != "__metadata__"}
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randint(0, 2, shape, generator=generator).to(dtype)
        for name, (dtype, shape) in kinds.items()
    }
    path = tmp_path_factory.mktemp("file") / "x.safetensors"
    digest = tensor_files.write(path, Snapshot({"all": tensors}), "all")
    assert path.read_bytes() == save(tensors)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_snapshot_reads_what_was_there_though_it_was_changed_between_two_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshots, "CHUNK", 8)
    tensors = {name: torch.arange(5.0) for name in ("a", "b")}
    expected = b"".join(each.numpy().tobytes() for each in tensors.values())
    snapshot = Snapshot({"g": tensors})
    found = b""
    for name in tensors:
        for chunk in snapshot.read("g", name):
            found += chunk
            snapshot.detach()
            for tensor in tensors.values():
                tensor.add_(1)
    assert found == expected


def test_a_tensor_that_is_not_contiguous_is_read_in_its_own_order() -> None:
    tensor = torch.arange(6.0).reshape(2, 3).T
    found = b"".join(bytes(chunk) for chunk in Snapshot({"g": {"a": tensor}}).read("g", "a"))
    assert found == tensor.numpy().tobytes()
