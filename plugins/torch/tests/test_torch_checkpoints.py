"""Checkpoints: complete, unique, and continued to the bit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from crucible_adapter_torch.checkpoints import folders, stored
from crucible_kitchen import (
    Datum,
    InvalidInput,
    NotFound,
    SessionConfig,
    TrainingClient,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_torch import (
    CONTINUED,
    TINY,
    MakeKitchen,
    assert_equal_to_the_bit,
    state,
    tensors,
    train_on_parts,
)

Tensors: TypeAlias = dict[str, Any]


def test_training_continues_to_the_bit_whatever_the_seed_of_the_other_session(
    client: TrainingClient, datums: list[Datum]
) -> None:
    straight, other = (client.start_session(SessionConfig("drops", seed=s)) for s in (3, 8))
    train_on_parts(client, straight, datums)
    client.load_checkpoint(other, client.save_checkpoint(straight, "half"))
    for session in (straight, other):
        train_on_parts(client, session, datums)
    assert_equal_to_the_bit(state(other), state(straight))


def test_without_the_optimizer_its_state_starts_afresh(
    client: TrainingClient, datums: list[Datum]
) -> None:
    session = client.start_session(CONTINUED["full"])
    train_on_parts(client, session, datums)
    before = tensors(session)
    reference = client.save_checkpoint(session, "x")
    client.load_checkpoint(session, reference, with_optimizer=False)
    started = client.start_session(
        SessionConfig("drops", seed=9, from_checkpoint=reference)  # the default is without
    )
    for each, seed in ((session, 3), (started, 9)):
        assert each.engine.moments() == {}
        assert each.engine.randomness() == {"seed": seed, "passes": 0}
        for name, weight in each.engine.weights.items():
            assert torch.equal(weight, before[name])


def test_an_unknown_checkpoint_is_not_found_and_changes_nothing(
    client: TrainingClient, datums: list[Datum], tmp_path: Path
) -> None:
    session = client.start_session(CONTINUED["full"])
    (tmp_path / "state.json").write_text("{}")
    client.forward_backward(session, datums)
    for reference in ("nothing", "", ".", "..", str(tmp_path), "a/b", "x" * 300, "\0"):
        with pytest.raises(NotFound, match="no checkpoint"):
            client.load_checkpoint(session, reference)
    client.await_(client.optim_step(session, 1e-2))  # the gradients are still there
    with pytest.raises(NotFound):
        client.start_session(SessionConfig("tiny", from_checkpoint="nothing"))


def test_a_checkpoint_of_another_model_is_invalid_and_changes_nothing(
    client: TrainingClient, datums: list[Datum]
) -> None:
    small, deep = (client.start_session(SessionConfig(name)) for name in ("tiny", "deep"))
    reference = client.save_checkpoint(deep, "deep")
    before = state(small)
    with pytest.raises(InvalidInput, match="another model"):
        client.load_checkpoint(small, reference)
    assert_equal_to_the_bit(state(small), before)
    train_on_parts(client, small, datums)


def test_deleting_what_is_not_a_reference_deletes_nothing(client: TrainingClient) -> None:
    reference = client.save_checkpoint(client.start_session(TINY), "x")
    for other in ("..", ".", "", "nothing"):
        client.delete_checkpoint(other)
    assert client.list_checkpoints() == [reference]


def test_no_checkpoints_are_listed_where_there_is_no_folder(client: TrainingClient) -> None:
    assert client.list_checkpoints() == []


def test_a_checkpoint_deleted_during_a_listing_is_left_out(
    client: TrainingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = client.start_session(TINY)
    for _ in range(2):
        client.save_checkpoint(session, "x")
    read = stored.read_facts

    def read_late(path: Path) -> dict[str, Any]:
        client.delete_checkpoint(path.name)
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(stored, "read_facts", read_late)
        assert client.list_checkpoints() == []


@settings(deadline=None)
@given(label=st.text(max_size=300))
@example(label="half a character: \udc80")
@example(label=".hidden")
def test_any_text_is_a_label(label: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("labels")
    weights = {"w": torch.arange(3.0)}
    reference = stored.save(folder, label, stored.snapshot(weights, {}), {"n": 1})
    assert stored.list_references(folder, label) == [reference]
    found = stored.read(stored.find(folder, reference), with_moments=True)
    assert torch.equal(found.weights["w"], weights["w"])
    assert found.facts["n"] == 1
    stored.delete(folder, reference)
    assert os.listdir(folder) == []


def test_a_save_that_fails_leaves_nothing_and_does_not_fail_the_session(
    client: TrainingClient, datums: list[Datum], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session = client.start_session(TINY)

    def full(path: Path) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(folders, "sync", full)
        with pytest.raises(Exception, match="no space left"):
            client.save_checkpoint(session, "x")
    assert os.listdir(tmp_path / "ckpt") == []
    train_on_parts(client, session, datums)


def test_a_save_killed_at_any_instant_is_not_listed(
    client: TrainingClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session = client.start_session(TINY)
    listings = []
    sync = folders.sync

    def look(path: Path) -> None:
        listings.append(client.list_checkpoints())  # what another process would find now
        sync(path)

    monkeypatch.setattr(folders, "sync", look)
    reference = client.save_checkpoint(session, "x")
    assert listings == [[]] * 4 + [[reference]]  # three files, their folder, its parent


def test_nothing_in_a_checkpoint_is_a_pickle(
    client: TrainingClient, datums: list[Datum], tmp_path: Path
) -> None:
    session = client.start_session(TINY)
    train_on_parts(client, session, datums)
    reference = client.save_checkpoint(session, "x")
    names = sorted(os.listdir(tmp_path / "ckpt" / reference))
    assert names == ["moments.safetensors", "state.json", "weights.safetensors"]


def test_a_checkpoint_of_another_format_is_invalid_input(
    client: TrainingClient, tmp_path: Path
) -> None:
    session = client.start_session(TINY)
    reference = client.save_checkpoint(session, "x")
    state = tmp_path / "ckpt" / reference / "state.json"
    state.write_text(state.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(InvalidInput, match="has format 2, this version reads 1"):
        client.load_checkpoint(session, reference)


def test_a_checkpoint_records_what_it_needs_to_continue_to_the_bit(
    client: TrainingClient, tmp_path: Path
) -> None:
    session = client.start_session(TINY)
    session.part.commit = "0123abc"  # as of a model of the hub
    reference = client.save_checkpoint(session, "x")
    facts = json.loads((tmp_path / "ckpt" / reference / "state.json").read_text())
    assert facts["commit"] == "0123abc"
    assert facts["threads"] == 1
    assert facts["torch"] == torch.__version__


def test_a_checkpoint_is_good_for_another_kitchen_of_the_same_options(
    make_kitchen: MakeKitchen, datums: list[Datum]
) -> None:
    first, second = (make_kitchen().training_client for _ in range(2))
    session = first.start_session(TINY)
    train_on_parts(first, session, datums)
    reference = first.save_checkpoint(session, "x")
    other = second.start_session(
        SessionConfig("tiny", from_checkpoint=reference, with_optimizer=True)
    )
    assert_equal_to_the_bit(state(other), state(session))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {n: t[:1] if n.startswith("exp_avg.") else t for n, t in m.items()}, "exp_avg"),
        (lambda m: {n: t.double() if "_sq" in n else t for n, t in m.items()}, "float64"),
        (lambda m: {n: t for n, t in m.items() if "_sq" not in n}, "is missing"),
        (
            lambda m: {**m, "step.nothing": torch.tensor(1.0)},
            "a weight here: 'step.nothing'",
        ),
        (lambda m: {f"more.{n}": t for n, t in m.items()}, "without a weight here"),
    ],
    ids=["shape", "dtype", "missing", "more", "names"],
)
def test_moments_that_do_not_fit_are_invalid_and_change_nothing(
    client: TrainingClient,
    datums: list[Datum],
    tmp_path: Path,
    change: Callable[[Tensors], Tensors],
    message: str,
) -> None:
    session = client.start_session(TINY)
    train_on_parts(client, session, datums)
    reference = client.save_checkpoint(session, "x")
    file = tmp_path / "ckpt" / reference / "moments.safetensors"
    changed = {name: t.contiguous() for name, t in change(load_file(file)).items()}
    save_file(changed, file)
    before = state(session)
    with pytest.raises(InvalidInput, match=message):
        client.load_checkpoint(session, reference)
    assert_equal_to_the_bit(state(session), before)
    train_on_parts(client, session, datums)
