"""Checkpoints: complete, unique, good in another process, and continued to the bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from crucible_adapter_torch import checkpoints, folders
from crucible_kitchen import InvalidInput, LoraConfig, NotFound, SessionConfig
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

CONFIGS = {
    "full": SessionConfig("drops", seed=3),
    "lora": SessionConfig("drops", seed=3, lora=LoraConfig(rank=2, dropout=0.3)),
}


def train(client, session, datums, steps=5):
    for step in range(steps):
        client.forward_backward(session, datums[step % 3 :])
        client.await_(client.optim_step(session, 1e-2))


def state(session):
    engine = session.engine
    tensors = {**engine.weights, **engine.moments()}
    return {name: t.detach().clone() for name, t in tensors.items()}, engine.randomness()


def assert_equal_to_the_bit(left, right):
    assert left[1] == right[1]
    assert left[0].keys() == right[0].keys()
    for name, tensor in left[0].items():
        assert torch.equal(tensor, right[0][name]), name


@pytest.mark.parametrize("kind", CONFIGS)
def test_training_continues_to_the_bit_in_another_session(client, datums, kind):
    straight, other = (client.start_session(CONFIGS[kind]) for _ in range(2))
    train(client, straight, datums)
    reference = client.save_checkpoint(straight, "half")
    train(client, straight, datums)
    client.load_checkpoint(other, reference)
    train(client, other, datums)
    assert_equal_to_the_bit(state(other), state(straight))


@pytest.mark.parametrize("kind", CONFIGS)
def test_training_continues_to_the_bit_in_another_process(
    client, datums, kind, tmp_path, make_kitchen
):
    straight = client.start_session(CONFIGS[kind])
    train(client, straight, datums)
    reference = client.save_checkpoint(straight, "half")
    train(client, straight, datums)
    child = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import MODELS
from test_torch_checkpoints import CONFIGS, train
import crucible_adapter_torch.training_client as adapter
from dataclasses import replace
from crucible_kitchen import Datum, Kitchen, ModelInput
import numpy as np

def make(tokens):
    inputs = {"target_tokens": tokens[1:], "weights": np.ones(len(tokens) - 1, np.float32)}
    return Datum(ModelInput.from_ints(tokens[:-1]), inputs)

rng = np.random.default_rng(0)
datums = [make(rng.integers(0, 256, rng.integers(4, 12))) for _ in range(8)]
options = {"use": adapter, "models": MODELS, "checkpoint_dir": sys.argv[2], "device": "cpu"}
with Kitchen(adapters={"training_client": options}) as kitchen:
    client = kitchen.training_client
    config = replace(CONFIGS[sys.argv[4]], from_checkpoint=sys.argv[3], with_optimizer=True)
    session = client.start_session(config)
    train(client, session, datums)
    print(client.save_checkpoint(session, "child"))
"""
    folder = str(tmp_path / "ckpt")
    here = str(Path(__file__).parent)
    run = subprocess.run(
        [sys.executable, "-c", child, here, folder, reference, kind],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    other = client.start_session(CONFIGS[kind])
    client.load_checkpoint(other, run.stdout.strip())
    assert_equal_to_the_bit(state(other), state(straight))


def test_training_continues_to_the_bit_whatever_the_seed_of_the_other_session(client, datums):
    straight, other = (client.start_session(SessionConfig("drops", seed=s)) for s in (3, 8))
    train(client, straight, datums)
    client.load_checkpoint(other, client.save_checkpoint(straight, "half"))
    for session in (straight, other):
        train(client, session, datums)
    assert_equal_to_the_bit(state(other), state(straight))


def test_loading_puts_the_same_session_back(client, datums):
    session = client.start_session(CONFIGS["full"])
    train(client, session, datums)
    before = state(session)
    reference = client.save_checkpoint(session, "x")
    train(client, session, datums)
    client.load_checkpoint(session, reference)
    assert_equal_to_the_bit(state(session), before)


def test_without_the_optimizer_its_state_starts_afresh(client, datums):
    session = client.start_session(CONFIGS["full"])
    train(client, session, datums)
    before = state(session)[0]
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


def test_loading_drops_accumulated_gradients(client, datums):
    session = client.start_session(CONFIGS["full"])
    reference = client.save_checkpoint(session, "x")
    client.forward_backward(session, datums)
    client.load_checkpoint(session, reference)
    with pytest.raises(InvalidInput, match="forward_backward"):
        client.optim_step(session, 1e-2)
    assert all(w.grad is None for w in session.engine.weights.values())


def test_an_unknown_checkpoint_is_not_found_and_changes_nothing(client, datums, tmp_path):
    session = client.start_session(CONFIGS["full"])
    (tmp_path / "state.json").write_text("{}")
    client.forward_backward(session, datums)
    for reference in ("nothing", "", ".", "..", str(tmp_path), "a/b", "x" * 300, "\0"):
        with pytest.raises(NotFound, match="no checkpoint"):
            client.load_checkpoint(session, reference)
    client.await_(client.optim_step(session, 1e-2))  # the gradients are still there
    with pytest.raises(NotFound):
        client.start_session(SessionConfig("tiny", from_checkpoint="nothing"))


def test_a_checkpoint_of_another_model_is_invalid_and_changes_nothing(client, datums):
    small, deep = (client.start_session(SessionConfig(name)) for name in ("tiny", "deep"))
    reference = client.save_checkpoint(deep, "deep")
    before = state(small)
    with pytest.raises(InvalidInput, match="another model"):
        client.load_checkpoint(small, reference)
    assert_equal_to_the_bit(state(small), before)
    train(client, small, datums)


def test_saving_with_gradients_pending_is_invalid_input(client, datums):
    session = client.start_session(CONFIGS["full"])
    client.forward_backward(session, datums)
    with pytest.raises(InvalidInput, match="gradients are pending"):
        client.save_checkpoint(session, "x")
    client.optim_step(session, 1e-2)
    client.save_checkpoint(session, "x")  # waits for the step


def test_saving_a_label_again_makes_another_checkpoint(client, datums):
    session = client.start_session(CONFIGS["full"])
    first = client.save_checkpoint(session, "same")
    before = state(session)
    train(client, session, datums)
    second = client.save_checkpoint(session, "same")
    assert first != second
    client.load_checkpoint(session, first)
    assert_equal_to_the_bit(state(session), before)


def test_checkpoints_are_listed_by_the_prefix_of_their_label_oldest_first(client):
    session = client.start_session(SessionConfig("tiny"))
    labels = ["run/b", "run/a", "other", "run/b"]
    references = [client.save_checkpoint(session, label) for label in labels]
    assert client.list_checkpoints() == references
    assert client.list_checkpoints("run/") == [references[i] for i in (0, 1, 3)]
    assert client.list_checkpoints("run/b") == [references[i] for i in (0, 3)]


def test_no_checkpoints_are_listed_where_there_is_no_folder(client):
    assert client.list_checkpoints() == []


def test_deleting_removes_one_and_again_is_fine(client):
    session = client.start_session(SessionConfig("tiny"))
    first, second = (client.save_checkpoint(session, "x") for _ in range(2))
    client.delete_checkpoint(first)
    client.delete_checkpoint(first)
    client.delete_checkpoint("..")
    assert client.list_checkpoints() == [second]
    with pytest.raises(NotFound):
        client.load_checkpoint(session, first)


def test_a_checkpoint_deleted_during_a_listing_is_left_out(client, monkeypatch):
    session = client.start_session(SessionConfig("tiny"))
    for _ in range(2):
        client.save_checkpoint(session, "x")
    read = checkpoints.read_facts

    def read_late(path):
        client.delete_checkpoint(path.name)
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "read_facts", read_late)
        assert client.list_checkpoints() == []


@settings(deadline=None)
@given(label=st.text(max_size=300))
@example(label="half a character: \udc80")
@example(label=".hidden")
def test_any_text_is_a_label(label, tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    weights = {"w": torch.arange(3.0)}
    reference = checkpoints.save(folder, label, checkpoints.Checkpoint(weights, {}, {"n": 1}))
    assert checkpoints.list_references(folder, label) == [reference]
    found = checkpoints.read(checkpoints.find(folder, reference), with_moments=True)
    assert torch.equal(found.weights["w"], weights["w"])
    assert found.facts["n"] == 1
    checkpoints.delete(folder, reference)
    assert os.listdir(folder) == []


def test_a_save_that_fails_leaves_nothing_and_does_not_fail_the_session(
    client, datums, monkeypatch, tmp_path
):
    session = client.start_session(SessionConfig("tiny"))

    def full(*args):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(folders, "sync", full)
        with pytest.raises(Exception, match="no space left"):
            client.save_checkpoint(session, "x")
    assert os.listdir(tmp_path / "ckpt") == []
    train(client, session, datums)


def test_a_save_killed_at_any_instant_is_not_listed(client, monkeypatch, tmp_path):
    session = client.start_session(SessionConfig("tiny"))
    listings = []
    sync = folders.sync

    def look(path):
        listings.append(client.list_checkpoints())  # what another process would find now
        sync(path)

    monkeypatch.setattr(folders, "sync", look)
    reference = client.save_checkpoint(session, "x")
    assert listings == [[]] * 4 + [[reference]]  # three files, their folder, its parent


def test_nothing_in_a_checkpoint_is_a_pickle(client, datums, tmp_path):
    session = client.start_session(SessionConfig("tiny"))
    train(client, session, datums)
    reference = client.save_checkpoint(session, "x")
    names = sorted(os.listdir(tmp_path / "ckpt" / reference))
    assert names == ["moments.safetensors", "state.json", "weights.safetensors"]


def test_a_checkpoint_of_another_format_is_invalid_input(client, tmp_path):
    session = client.start_session(SessionConfig("tiny"))
    reference = client.save_checkpoint(session, "x")
    state = tmp_path / "ckpt" / reference / "state.json"
    state.write_text(state.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(InvalidInput, match="has format 2, this version reads 1"):
        client.load_checkpoint(session, reference)


def test_a_checkpoint_records_what_it_needs_to_continue_to_the_bit(client, tmp_path):
    session = client.start_session(SessionConfig("tiny"))
    session.commit = "0123abc"  # as of a model of the hub
    reference = client.save_checkpoint(session, "x")
    facts = json.loads((tmp_path / "ckpt" / reference / "state.json").read_text())
    assert facts["commit"] == "0123abc"
    assert facts["threads"] == 1
    assert facts["torch"] == torch.__version__


def test_a_checkpoint_is_good_for_another_kitchen_of_the_same_options(make_kitchen, datums):
    first, second = (make_kitchen().training_client for _ in range(2))
    session = first.start_session(SessionConfig("tiny"))
    train(first, session, datums)
    reference = first.save_checkpoint(session, "x")
    other = second.start_session(
        SessionConfig("tiny", from_checkpoint=reference, with_optimizer=True)
    )
    assert_equal_to_the_bit(state(other), state(session))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: {n: t[:1] if n.startswith("exp_avg.") else t for n, t in m.items()}, "exp_avg"),
        (lambda m: {n: t.double() if "_sq" in n else t for n, t in m.items()}, "float64"),
        (lambda m: {n: t for n, t in m.items() if "_sq" not in n}, "without the others"),
        (
            lambda m: {**m, "step.nothing": torch.tensor(1.0)},
            "a weight here: 'step.nothing'",
        ),
        (lambda m: {f"more.{n}": t for n, t in m.items()}, "without a weight here"),
    ],
    ids=["shape", "dtype", "missing", "more", "names"],
)
def test_moments_that_do_not_fit_are_invalid_and_change_nothing(
    client, datums, tmp_path, change, told
):
    session = client.start_session(SessionConfig("tiny"))
    train(client, session, datums, steps=1)
    reference = client.save_checkpoint(session, "x")
    file = tmp_path / "ckpt" / reference / "moments.safetensors"
    changed = {name: t.contiguous() for name, t in change(load_file(file)).items()}
    save_file(changed, file)
    before = state(session)
    with pytest.raises(InvalidInput, match=told):
        client.load_checkpoint(session, reference)
    assert_equal_to_the_bit(state(session), before)
    train(client, session, datums, steps=1)
