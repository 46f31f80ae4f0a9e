"""Models are made here or loaded, and an error says at once what is wrong with a name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crucible_adapter_torch.models.loading import load
from crucible_adapter_torch.options import ModelOptions
from crucible_adapter_torch.options import TrainingClientOptions as Options
from crucible_kitchen import (
    AdapterError,
    Completer,
    InvalidInput,
    NotFound,
    SessionConfig,
    TrainingClient,
    Unavailable,
    Unsupported,
)
from pydantic import ValidationError
from tiny_torch import LLAMA, MakeKitchen
from transformers import AutoModelForCausalLM, AutoTokenizer


def test_importing_the_adapters_does_not_import_pytorch() -> None:
    code = (
        "import sys, crucible_adapter_torch.completer, crucible_adapter_torch.training_client\n"
        "print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


# --- made here ---


@pytest.mark.parametrize(
    ("model", "kind", "problem"),
    [
        ({"hiden_size": 8}, InvalidInput, "no 'hiden_size'; did you mean 'hidden_size'"),
        ({"model_type": "lama"}, NotFound, "no model_type 'lama'; did you mean 'llama'"),
        ({"hidden_size": 7, "num_attention_heads": 2}, InvalidInput, "multiple of"),
        ({"vocab_size": 100}, InvalidInput, "257 in all"),
    ],
)
def test_a_mistake_in_the_sizes_is_named(
    make_kitchen: MakeKitchen, model: dict[str, Any], kind: type[AdapterError], problem: str
) -> None:
    client = make_kitchen(models={"mine": model}).training_client
    with pytest.raises(kind, match=f"models.mine: .*{problem}"):
        client.start_session(SessionConfig("mine"))


def test_sizes_are_those_asked_for(client: TrainingClient) -> None:
    config = client.start_session(SessionConfig("gpt2")).engine.model.config
    assert (config.n_embd, config.n_head, config.n_positions) == (16, 2, 32)
    assert (config.vocab_size, config.eos_token_id) == (257, 256)


def test_a_model_made_here_has_no_revision(client: TrainingClient) -> None:
    with pytest.raises(Unsupported, match="no revision 'main'"):
        client.start_session(SessionConfig("tiny", revision="main"))


# --- loaded ---


@pytest.fixture
def folder(client: TrainingClient) -> Path:
    session = client.start_session(SessionConfig("deep", seed=4))
    return Path(client.save_weights_for_sampler(session, "a name/ö"))


def test_weights_saved_with_a_name_are_a_hugging_face_folder(
    folder: Path, completer: Completer
) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[1, 2]])).logits[0].log_softmax(-1)
    [score] = completer.score([[1, 2, 3]], str(folder))
    np.testing.assert_allclose(score, [logits[0, 2], logits[1, 3]], atol=1e-5)
    assert tokenizer.decode(tokenizer.encode("héllo")) == "héllo"
    assert model.generation_config.eos_token_id == 256
    assert not list(folder.parent.glob(".partial*"))


def test_a_session_starts_from_a_folder(
    client: TrainingClient, folder: Path, completer: Completer
) -> None:
    session = client.start_session(SessionConfig(str(folder)))
    reference = client.save_weights_for_sampler(session)
    rows = [[1, 2, 3, 4]]
    np.testing.assert_array_equal(
        completer.score(rows, reference)[0], completer.score(rows, str(folder))[0]
    )
    with pytest.raises(Unsupported, match="revision"):
        client.start_session(SessionConfig(str(folder), revision="main"))


def test_weights_that_are_pickles_are_not_loaded(client: TrainingClient, folder: Path) -> None:
    state = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(NotFound, match="safetensors"):
        client.start_session(SessionConfig(str(folder)))


def test_code_that_comes_with_a_model_is_not_run(
    client: TrainingClient, folder: Path, tmp_path: Path
) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InvalidInput, match="trust_remote_code = true"):
        client.start_session(SessionConfig(str(folder)))
    assert not (tmp_path / "ran").exists()


def test_an_empty_folder_is_not_found(client: TrainingClient, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        client.start_session(SessionConfig(str(tmp_path)))


# --- the hub ---


def test_a_hub_that_may_not_be_asked_is_unavailable(
    client: TrainingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="cannot be reached for model 'acme/model'"):
        client.start_session(SessionConfig("acme/model"))


def test_the_commit_of_a_model_is_known(
    client: TrainingClient, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--acme--model"
    shutil.copytree(folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cached.parent))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    session = client.start_session(SessionConfig("acme/model"))
    assert client.get_info(session)["model_commit"] == commit


def test_an_unknown_name_says_which_models_are_made_here(client: TrainingClient) -> None:
    with pytest.raises(NotFound, match=r"made here: tiny, deep.* did you mean 'tiny'"):
        client.start_session(SessionConfig("tiny/"))


# --- options ---


def test_no_threads_are_refused_with_the_options() -> None:
    with pytest.raises(ValidationError, match="threads"):
        Options(threads=0)


def test_options_know_their_defaults() -> None:
    assert (Options().device, Options().threads, Options().micro_batch_tokens) == ("auto", 1, 4096)
    assert ModelOptions().models == {}


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "~/nowhere", "noop://ephemeral/1"])
def test_what_cannot_be_a_name_on_a_hub_is_not_looked_up_there(name: str) -> None:
    folder = os.path.expanduser(name)
    with pytest.raises(NotFound, match=f"there is no folder '{folder}'"):
        load(ModelOptions(), name)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    opts = Options(models={"tiny": LLAMA}, checkpoint_dir="~/checkpoints")
    assert opts.checkpoint_dir == tmp_path / "checkpoints"
    language = load(opts, "tiny")
    language.model.save_pretrained(tmp_path / "saved")
    assert load(opts, "~/saved").vocab_size == language.vocab_size
    with pytest.raises(NotFound, match="does not begin with a home folder"):
        load(opts, "~nobody-at-all/saved")
