"""Full disks and forbidden folders: known before anything is saved, and harmless during it."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crucible_adapter_torch.checkpoints import folders, inspection
from crucible_kitchen import (
    Datum,
    InvalidInput,
    SessionConfig,
    TrainingClient,
    Unauthorized,
    Unavailable,
)
from tiny_torch import TINY, MakeKitchen, assert_equal_to_the_bit, tensors, train


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond this, as a full disk would not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 500, 6000])  # the label, the first file, all but the last
def test_a_save_without_room_is_unavailable_and_leaves_nothing(
    client: TrainingClient, datums: list[Datum], ckpt: Path, room: int
) -> None:
    session = client.start_session(TINY)
    train(client, session, datums)
    before = tensors(session)
    for save in (client.save_checkpoint, client.save_weights_for_sampler):
        with largest_file(room), pytest.raises(Unavailable, match=str(ckpt)) as caught:
            save(session, "x")
        assert caught.value.no_effect
    assert [path for path in ckpt.rglob("*") if path.name != "sampler"] == []
    assert_equal_to_the_bit(tensors(session), before)
    train(client, session, datums)
    client.load_checkpoint(session, client.save_checkpoint(session, "x"))


@pytest.fixture
def disk(ckpt: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    ckpt.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(ckpt)]
    if (
        shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("no disk may be mounted here")
    yield ckpt
    subprocess.run(["umount", str(ckpt)], check=True)


def test_on_a_full_disk_what_was_saved_stays_and_deleting_helps(
    client: TrainingClient, disk: Path
) -> None:
    session = client.start_session(TINY)
    saved = []

    def fill(save: Callable[[Any, str], str]) -> None:
        for _ in range(100):
            saved.append(save(session, "x"))

    with pytest.raises(Unavailable, match="No space left"):
        fill(client.save_checkpoint)
    complete = [*saved]
    with pytest.raises(Unavailable, match="No space left"):
        fill(client.save_weights_for_sampler)
    assert not list(disk.rglob(".partial*"))
    assert client.list_checkpoints() == complete
    assert client.clean("x", saved[1:]) == saved[:1]
    client.load_checkpoint(session, complete[-1])
    client.save_checkpoint(session, "x")


def test_the_estimate_is_a_little_more_than_what_is_saved(
    client: TrainingClient, datums: list[Datum], ckpt: Path
) -> None:
    session = client.start_session(SessionConfig("deep"))
    train(client, session, datums)
    asked: dict[Path, int] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspection, "check_storage", asked.update)
        client.check_storage(session, 2)
    for _ in range(2):
        client.save_checkpoint(session, "x")
    client.save_weights_for_sampler(session, "x")
    sizes = dict.fromkeys(asked, 0)
    for file in filter(Path.is_file, ckpt.rglob("*")):
        sizes[ckpt / "sampler" if "sampler" in file.parts else ckpt] += file.stat().st_size
    for place, size in sizes.items():
        assert size <= asked[place] <= size + 3 * 96 * 1024


def test_too_little_space_is_known_before_with_both_figures(
    client: TrainingClient, ckpt: Path, tmp_path: Path
) -> None:
    session = client.start_session(TINY)
    with pytest.raises(Unavailable, match=r"[\d,]+ bytes are needed .* [\d,]+ are free") as caught:
        client.check_storage(session, 10**12)
    assert str(ckpt) in caught.value.reason
    assert caught.value.no_effect
    assert os.listdir(tmp_path) == []


def test_space_is_counted_once_for_both_folders_of_a_disk(
    client: TrainingClient, disk: Path
) -> None:
    session = client.start_session(TINY)
    with pytest.raises(Unavailable, match="needed") as caught:
        client.check_storage(session, 1)  # which alone would fit, and the weights, too
    assert str(disk / "sampler") in caught.value.reason
    client.check_storage(session, 0)


def test_a_place_that_is_not_a_folder_is_known_before(client: TrainingClient, ckpt: Path) -> None:
    session = client.start_session(TINY)
    ckpt.write_text("a file")
    with pytest.raises(InvalidInput, match=str(ckpt)):
        client.check_storage(session)
    with pytest.raises(InvalidInput, match=str(ckpt)):
        client.ping()


def test_a_folder_for_weights_that_cannot_be_made_is_known_before(
    client: TrainingClient, ckpt: Path
) -> None:
    session = client.start_session(TINY)
    ckpt.mkdir()
    (ckpt / "sampler").write_text("a file")
    with pytest.raises(InvalidInput, match="sampler"):
        client.check_storage(session)


@pytest.fixture
def forbidden(ckpt: Path) -> Iterator[Path]:
    """A folder that this process may not write to, though it is the superuser's."""
    ckpt.mkdir(mode=0o500)
    if os.geteuid() == 0:
        os.seteuid(65534)
        yield ckpt
        os.seteuid(0)
    else:
        yield ckpt
    ckpt.chmod(0o700)


def test_a_folder_that_may_not_be_written_is_known_before(
    client: TrainingClient, make_kitchen: MakeKitchen, ckpt: Path, request: pytest.FixtureRequest
) -> None:
    session = client.start_session(TINY)
    request.getfixturevalue("forbidden")
    attempts = [
        lambda: client.check_storage(session),
        lambda: client.save_checkpoint(session, "x"),
        client.ping,
    ]
    for attempt in attempts:
        with pytest.raises(Unauthorized, match=str(ckpt)):
            attempt()


def test_a_library_that_reports_a_full_disk_in_its_own_words_is_understood(ckpt: Path) -> None:
    with (
        pytest.raises(Unavailable, match="No space left"),
        folders.new_folder(ckpt, "x"),
    ):
        raise Exception("No space left on device (os error 28)")  # as tokenizers says
