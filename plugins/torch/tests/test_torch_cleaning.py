"""What killed processes leave among the checkpoints and the saved weights is removed."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from crucible_adapter_torch.checkpoints import cleaning, exports, folders, stored, unfinished
from crucible_kitchen import (
    CrucibleWarning,
    TrainingClient,
)
from tiny_torch import TINY

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # os.fork


def save(folder: Path, label: str) -> str:
    """Save a small checkpoint."""
    tensors = stored.snapshot({"w": torch.arange(3.0)}, {})
    return stored.save(folder, label, tensors, {"base": None})


def clean(
    folder: Path, prefix: str = "", keep: Sequence[str] = (), dry_run: bool = False
) -> list[str]:
    return cleaning.clean(folder, prefix, keep, dry_run)


def partial(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".partial")]


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def when_claimed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Path, "mkdir", lambda self, *a, **k: die() if ".partial" in self.name else None)


def when_written(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(folders, "sync", die)


def when_named(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shutil, "rmtree", die)


def killed(
    patch: pytest.MonkeyPatch, how: Callable[[pytest.MonkeyPatch], None], act: Callable[[], object]
) -> None:
    """Let another process die while it acts, at the instant that `how` arranges."""
    if (child := os.fork()) == 0:
        try:
            how(patch)
            act()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


INSTANTS = [when_claimed, when_written, when_named]


@pytest.mark.parametrize("how", INSTANTS, ids=lambda how: how.__name__)
@pytest.mark.parametrize("prefix", ["", "run/1/"])
def test_what_a_killed_save_leaves_is_removed(
    ckpt: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: Callable[[pytest.MonkeyPatch], None],
    prefix: str,
) -> None:
    whole = save(ckpt, "run/1/whole")
    killed(monkeypatch, how, lambda: save(ckpt, "run/1/half"))
    complete = [ref for ref in stored.list_references(ckpt, "") if ref != whole]
    assert partial(ckpt)
    named = clean(ckpt, prefix, [whole], dry_run=True)
    assert partial(ckpt)
    assert clean(ckpt, prefix, [whole]) == named
    assert partial(ckpt) == []
    assert stored.list_references(ckpt, "") == [whole, *([] if prefix else complete)]


def test_what_a_killed_deletion_leaves_is_removed(
    ckpt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = save(ckpt, "run/1/x")
    killed(monkeypatch, when_named, lambda: stored.delete(ckpt, reference))
    assert stored.list_references(ckpt, "") == []
    assert len(clean(ckpt, "run/1/")) == 1
    assert os.listdir(ckpt) == []


def test_under_a_prefix_what_others_left_stays(ckpt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(monkeypatch, when_written, lambda: save(ckpt, "run/10/half"))
    assert clean(ckpt, "run/1/") == []
    assert partial(ckpt)
    assert len(clean(ckpt, "run/10/")) == 1
    assert partial(ckpt) == []


def test_what_is_being_written_is_spared_without_a_prefix(ckpt: Path) -> None:
    with folders.new_folder(ckpt, "run/1/x") as (path, _):
        (path / "file").write_bytes(b"content")
        assert clean(ckpt) == []
        assert clean(ckpt, "run/10/") == []
        assert clean(ckpt, "run/1/", dry_run=True) == [str(path)]


def test_an_export_that_was_killed_is_removed_with_its_name(
    client: TrainingClient, ckpt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = client.start_session(TINY)
    export = session._save_weights
    killed(monkeypatch, when_written, lambda: export("run/1/weights"))
    kept = client.save_weights_for_sampler(session, "run/1/weights")
    assert len(client.clean("run/1/", [kept])) == 1
    assert os.listdir(ckpt / "sampler") == [Path(kept).name]
    assert client.clean("run/1/") == [kept]
    assert os.listdir(ckpt / "sampler") == []


def test_saved_weights_are_kept_wherever_their_folder_lies_now(
    client: TrainingClient, ckpt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = client.start_session(TINY)
    kept = client.save_weights_for_sampler(session, "run/1/weights")
    ckpt.rename(tmp_path / "moved")
    (tmp_path / "link").symlink_to("moved")
    monkeypatch.chdir(tmp_path)
    for moved in (Path("moved"), Path("link"), tmp_path / "moved"):
        assert clean(moved, "run/1/", [kept]) == []


def test_weights_that_older_versions_saved_stay(client: TrainingClient, ckpt: Path) -> None:
    session = client.start_session(TINY)
    weights = Path(client.save_weights_for_sampler(session, "run/1/weights"))
    (weights / exports.NAME).unlink()
    assert client.clean("run/1/") == []


def test_what_cannot_be_removed_is_warned_of_and_stops_nothing(
    ckpt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        save(ckpt, f"run/1/{name}")
    remove = unfinished.remove_whole

    def refuse(path: Path) -> None:
        if path.name.startswith("run%2F1%2Fa"):
            raise PermissionError(errno.EACCES, "not yours")
        remove(path)

    monkeypatch.setattr(unfinished, "remove_whole", refuse)
    with pytest.warns(CrucibleWarning, match="cannot be removed: not yours"):
        assert len(clean(ckpt, "run/1/")) == 1


def test_nothing_is_made_where_there_is_nothing(client: TrainingClient, tmp_path: Path) -> None:
    assert client.clean() == client.clean("run/") == []
    assert os.listdir(tmp_path) == []
