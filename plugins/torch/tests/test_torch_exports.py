"""Exported weights: what Transformers and PEFT load from them is what was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from crucible_kitchen import (
    Completer,
    Datum,
    FloatArray,
    InvalidInput,
    LoraConfig,
    NotFound,
    SessionConfig,
    TrainingClient,
)
from tiny_torch import MODELS, MakeKitchen, train
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

# PEFT calls it.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
EXPERTS = {
    "model_type": "qwen3_moe",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 8,
    "intermediate_size": 32,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
    "max_position_embeddings": 32,
}


def tokens(datums: list[Datum]) -> list[list[int]]:
    return [
        [*each.model_input.to_ints(), int(each.loss_fn_inputs["target_tokens"][-1])]
        for each in datums
    ]


@torch.no_grad()
def scored(model: Any, sequences: list[list[int]]) -> FloatArray:
    """Return the log probabilities of the tokens of each sequence after the first."""
    found = []
    for ids in sequences:
        logits = model.eval()(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        found.append(logits[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].numpy())
    return np.concatenate(found)


def of_completer(completer: Completer, sequences: list[list[int]], model: str) -> FloatArray:
    return np.concatenate(completer.score(sequences, model))


def export(client: TrainingClient, session: Any, folder: Path, merge: bool = True) -> Path:
    folder.mkdir()
    client.export_weights(session, folder, merge)
    return folder


def plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture
def base(client: TrainingClient, tmp_path: Path) -> Path:
    """A folder with a model of random weights, which any program can load."""
    session = client.start_session(SessionConfig("tiny", seed=7))
    return export(client, session, tmp_path / "base")


def test_a_trained_model_gives_the_logits_of_the_completer(
    client: TrainingClient, completer: Completer, datums: list[Datum], tmp_path: Path
) -> None:
    session = client.start_session(SessionConfig("tiny"))
    train(client, session, datums, 3)
    folder = export(client, session, tmp_path / "out")
    published = client.save_weights_for_sampler(session)
    expected = of_completer(completer, tokens(datums), published)
    np.testing.assert_allclose(scored(plain(folder), tokens(datums)), expected, atol=1e-5)
    np.testing.assert_allclose(
        of_completer(completer, tokens(datums), str(folder)), expected, atol=1e-5
    )


@pytest.mark.parametrize(
    ("model", "targets"),
    [
        (MODELS["deep"], ("attn", "mlp")),
        (MODELS["deep"], ("q_proj", "unembed")),
        (MODELS["deep"], ("layers.1.self_attn.v_proj",)),
        ({**MODELS["gpt2"], "tie_word_embeddings": False}, ("attn", "mlp")),
        (EXPERTS, ("attn", "mlp")),
    ],
    ids=["llama", "unembed", "one-layer", "conv1d", "experts"],
)
def test_an_update_alone_merged_and_in_peft_is_one_model(
    make_kitchen: MakeKitchen,
    datums: list[Datum],
    tmp_path: Path,
    model: dict[str, Any],
    targets: tuple[str, ...],
) -> None:
    kitchen = make_kitchen(models={"tiny": model})
    client, completer = kitchen.training_client, kitchen.completer
    base = export(client, client.start_session(SessionConfig("tiny", seed=7)), tmp_path / "base")
    lora = LoraConfig(rank=2, alpha=6.0, targets=targets)
    session = client.start_session(SessionConfig(str(base), lora=lora))
    before = of_completer(completer, tokens(datums), str(base))
    train(client, session, datums, 3, rate=3e-2)
    whole = export(client, session, tmp_path / "whole")
    update = export(client, session, tmp_path / "update", merge=False)
    expected = of_completer(completer, tokens(datums), client.save_weights_for_sampler(session))
    assert np.abs(expected - before).max() > 1e-2
    adapted = peft.PeftModel.from_pretrained(plain(base), update)
    for name, found in {
        "merged": scored(plain(whole), tokens(datums)),
        "PEFT": scored(adapted, tokens(datums)),
        "PEFT, merged": scored(adapted.merge_and_unload(), tokens(datums)),
        "the completer": of_completer(completer, tokens(datums), str(update)),
    }.items():
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)


def test_an_update_names_its_base_and_its_projections_in_short(
    client: TrainingClient, base: Path, tmp_path: Path
) -> None:
    lora = LoraConfig(rank=2, alpha=6.0, targets=("attn",))
    session = client.start_session(SessionConfig(str(base), lora=lora))
    update = export(client, session, tmp_path / "update", merge=False)
    config = json.loads((update / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    assert config["peft_type"] == "LORA"
    assert config["task_type"] == "CAUSAL_LM"
    assert (config["r"], config["lora_alpha"]) == (2, 6.0)
    assert sorted(config["target_modules"]) == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert peft.AutoPeftModelForCausalLM.from_pretrained(update) is not None


def test_an_update_that_is_continued_keeps_its_base(
    make_kitchen: MakeKitchen, base: Path, tmp_path: Path
) -> None:
    client = make_kitchen(adapter="continue").training_client
    lora = LoraConfig(rank=2)
    first = client.start_session(SessionConfig(str(base), lora=lora))
    update = export(client, first, tmp_path / "update", merge=False)
    second = client.start_session(SessionConfig(str(update), lora=lora))
    again = export(client, second, tmp_path / "again", merge=False)
    config = json.loads((again / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)


@pytest.mark.parametrize("made", ["here", "of an adapter"])
def test_an_update_of_what_no_program_can_load_is_refused(
    client: TrainingClient, base: Path, tmp_path: Path, made: str
) -> None:
    lora, model = LoraConfig(rank=2), "tiny"
    if made == "of an adapter":
        first = client.start_session(SessionConfig(str(base), lora=lora))
        model = str(export(client, first, tmp_path / "update", merge=False))
    session = client.start_session(SessionConfig(model, lora=lora))
    (folder := tmp_path / "out").mkdir()
    with pytest.raises(InvalidInput, match="export the whole model"):
        client.export_weights(session, folder, merge=False)
    assert [*folder.iterdir()] == []


@pytest.mark.parametrize("merge", [True, False])
def test_tokenizer_chat_template_and_end_tokens_come_along(
    make_kitchen: MakeKitchen, tmp_path: Path, merge: bool
) -> None:
    (tmp_path / "template.jinja").write_text(TEMPLATE)
    chatty = {
        **MODELS["tiny"],
        "chat_template": str(tmp_path / "template.jinja"),
        "special_tokens": ["<|im_start|>", "<|im_end|>", "<|endoftext|>"],
    }
    client = make_kitchen(models={"chatty": chatty}).training_client
    base = export(client, client.start_session(SessionConfig("chatty")), tmp_path / "base")
    lora = LoraConfig(rank=2)
    session = client.start_session(SessionConfig(str(base), lora=lora))
    folder = export(client, session, tmp_path / "out", merge)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == TEMPLATE
    ours = client.helper("get_tokenizer")(session)
    assert tokenizer.encode("2+3=") == ours.encode("2+3=")
    ends = GenerationConfig.from_pretrained(folder).eos_token_id
    assert tokenizer.eos_token_id in (ends if isinstance(ends, list) else [ends])


@pytest.mark.parametrize("merge", [True, False])
def test_a_folder_that_is_missing_is_named(
    client: TrainingClient, base: Path, tmp_path: Path, merge: bool
) -> None:
    session = client.start_session(SessionConfig(str(base), lora=LoraConfig(rank=2)))
    with pytest.raises(NotFound, match=r"cannot be exported to .*gone"):
        client.export_weights(session, tmp_path / "gone", merge)
    assert not (tmp_path / "gone").exists()
