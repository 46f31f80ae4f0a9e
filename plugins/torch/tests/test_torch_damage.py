"""What is damaged among the checkpoints, or belongs to something else, changes nothing."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from crucible_adapter_torch.checkpoints import cleaning, stored
from crucible_kitchen import (
    CrucibleWarning,
    Datum,
    InvalidInput,
    SessionConfig,
    TrainingClient,
)
from safetensors.torch import load_file, save_file
from tiny_torch import TINY, assert_equal_to_the_bit, tensors, train


def save(folder: Path, label: str) -> str:
    """Save a small checkpoint."""
    tensors = stored.snapshot({"w": torch.arange(3.0)}, {})
    return stored.save(folder, label, tensors, {"base": None})


def a_file(path: Path) -> None:
    path.write_text("{}")


def a_pipe(path: Path) -> None:
    path.mkdir()
    os.mkfifo(path / "state.json")


def a_loop(path: Path) -> None:
    path.symlink_to(path)


def a_link_to_a_checkpoint(path: Path) -> None:
    target = save(path.parent.parent / "elsewhere", "run/1/x")
    path.symlink_to(path.parent.parent / "elsewhere" / target)


def too_large(path: Path) -> None:
    path.mkdir()
    with (path / "state.json").open("wb") as file:
        file.truncate(1 << 40)


def says(content: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / "state.json").write_bytes(content)

    return make


FOREIGN: Mapping[str, Callable[[Path], object]] = {
    "a-file": a_file,
    "an-empty-ckpt": Path.mkdir,
    "a-pipe": a_pipe,
    "a-loop": a_loop,
    "a-link": a_link_to_a_checkpoint,
    "too-large": too_large,
    "empty": says(b""),
    "binary": says(bytes(range(256))),
    "a-list": says(b"[]"),
    "deep": says(b"[" * 100_000),
    "long-number": says(b'{"format": ' + b"1" * 5000 + b', "label": "run/1/x"}'),
    "no-label": says(b'{"format": 1}'),
    "no-format": says(b'{"label": "run/1/x"}'),
    "odd-label": says(b'{"format": 1, "label": ["run/1/x"]}'),
    "no-files": says(b'{"format": 1, "label": "else"}'),
    "surrogate-\udc80": says(b"{}"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_damaged_is_passed_over_and_named_by_ping(
    client: TrainingClient, ckpt: Path, name: str
) -> None:
    session = client.start_session(TINY)
    good = client.save_checkpoint(session, "run/1/good")
    FOREIGN[name](ckpt / name)
    assert [ref for ref in client.list_checkpoints() if ref != name] == [good]
    with pytest.warns(CrucibleWarning) as warned:
        client.ping()
    assert [ascii(name)[1:-1] in str(each.message) for each in warned] == [True]
    assert client.clean("run/1/", [good]) == []
    assert os.path.lexists(ckpt / name)
    assert client.clean("run/1/") == [good]
    assert client.list_checkpoints("run/") == []


@pytest.mark.parametrize("others", [1, 3])
def test_ping_warns_of_ten_and_counts_the_rest(
    client: TrainingClient, ckpt: Path, others: int
) -> None:
    for number in range(10 + others):
        (ckpt / f"{number}").mkdir(parents=True)
    with pytest.warns(CrucibleWarning) as warned:
        client.ping()
    assert len(warned) == 11
    last = str(warned[-1].message)
    assert last.endswith(f"{others} more in {ckpt}: damaged, or not a checkpoint")


def test_ping_is_silent_about_checkpoints_and_leaves_nothing(
    client: TrainingClient, ckpt: Path, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client.ping()
        assert os.listdir(tmp_path) == []
        session = client.start_session(TINY)
        client.save_checkpoint(session, "x")
        client.save_weights_for_sampler(session, "x")
        client.ping()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def changed_in_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def no_tensors(path: Path) -> None:
    path.write_bytes(b"\xff" * 64)


def gone(path: Path) -> None:
    path.unlink()


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE = [cut, changed_in_a_bit, no_tensors, gone, piped]


@pytest.mark.parametrize("file", [stored.WEIGHTS, stored.MOMENTS])
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damaged_tensors_are_invalid_and_change_nothing(
    client: TrainingClient,
    datums: list[Datum],
    ckpt: Path,
    file: str,
    damage: Callable[[Path], None],
) -> None:
    session = client.start_session(TINY)
    train(client, session, datums)
    reference = client.save_checkpoint(session, "x")
    train(client, session, datums)
    before = tensors(session)
    damage(ckpt / reference / file)
    with pytest.raises(InvalidInput, match=file):
        client.load_checkpoint(session, reference)
    with pytest.raises(InvalidInput, match=file):
        client.start_session(SessionConfig("tiny", from_checkpoint=reference, with_optimizer=True))
    assert_equal_to_the_bit(tensors(session), before)
    train(client, session, datums)


@pytest.mark.parametrize(
    "facts",
    [
        {"randomness": None},
        {"randomness": {"seed": 0}},
        {"randomness": {"seed": 0, "passes": "1"}},
        {"randomness": {"seed": 0, "passes": -1}},
        {"randomness": {"seed": 0.5, "passes": 1}},
        {"randomness": {"seed": True, "passes": 1}},
        {"base": ["other"]},
        {"format": "1"},
        {"label": None},
        {"sha256": []},
        {"sha256": {"weights.safetensors": 5}},
    ],
    ids=str,
)
def test_facts_of_a_wrong_kind_are_invalid_and_change_nothing(
    client: TrainingClient, datums: list[Datum], ckpt: Path, facts: dict[str, Any]
) -> None:
    session = client.start_session(TINY)
    reference = client.save_checkpoint(session, "x")
    file = ckpt / reference / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **facts}))
    before = tensors(session)
    with pytest.raises(InvalidInput, match=reference):
        client.load_checkpoint(session, reference)
    assert_equal_to_the_bit(tensors(session), before)
    train(client, session, datums)


def test_weights_of_another_type_are_invalid(client: TrainingClient, ckpt: Path) -> None:
    session = client.start_session(TINY)
    reference = client.save_checkpoint(session, "x")
    file = ckpt / reference / stored.WEIGHTS
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
    with pytest.raises(InvalidInput, match="type"):
        client.load_checkpoint(session, reference)


def test_a_checkpoint_of_an_older_version_has_no_digests_and_is_read(
    client: TrainingClient, datums: list[Datum], ckpt: Path
) -> None:
    session = client.start_session(TINY)
    train(client, session, datums)
    before = tensors(session)
    reference = client.save_checkpoint(session, "x")
    file = ckpt / reference / "state.json"
    facts = json.loads(file.read_text())
    del facts["sha256"]
    file.write_text(json.dumps(facts))
    train(client, session, datums)
    client.load_checkpoint(session, reference)
    assert_equal_to_the_bit(tensors(session), before)


@pytest.mark.parametrize("kind", ["a-file", "a-loop", "a-link", "a-pipe", "an-empty-ckpt"])
def test_whatever_has_the_name_of_what_is_unfinished_goes(ckpt: Path, kind: str) -> None:
    kept = save(ckpt, "run/1/x")
    FOREIGN[kind](ckpt / ".partial-odd")
    os.mkfifo(ckpt / ".partial-pipe.json")
    assert len(cleaning.clean(ckpt, "", (), dry_run=False)) == 2
    assert os.listdir(ckpt) == [kept]
    assert len(stored.list_references(ckpt.parent / "elsewhere", "")) == (kind == "a-link")
