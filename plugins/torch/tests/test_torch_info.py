"""What results depend on is reported by the session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crucible_kitchen import (
    LoraConfig,
    SessionConfig,
    TrainingClient,
)
from tiny_torch import MODELS, TINY, MakeKitchen


def test_options_that_change_results_are_reported(
    make_kitchen: MakeKitchen, tmp_path: Path
) -> None:
    def info(**options: Any) -> dict[str, Any]:
        client = make_kitchen(**options).training_client
        session = client.start_session(TINY)
        return dict(client.get_info(session))

    usual = info()
    assert usual["device"] == "cpu"
    assert usual["dtype"] == "float32"
    # Said by one process too: a run of several may not go on with one, nor the other way round.
    assert (usual["ranks"], usual["strategy"]) == (1, None)
    wider = {"tiny": {**MODELS["tiny"], "rope_parameters": {"rope_theta": 5.0}}}
    changes: dict[str, dict[str, Any]] = {
        "dtype": {"dtype": "bfloat16"},
        "micro_batch_tokens": {"micro_batch_tokens": 7},
        "attention": {"attn_implementation": "eager"},
        "compile": {"compile": True},
        "adapter": {"adapter": "continue"},
        "model_config": {"models": wider},
    }
    for name, options in changes.items():
        changed = info(**options)
        assert {key for key in usual if usual[key] != changed[key]} == {name}
    assert info(checkpoint_dir=tmp_path / "elsewhere") == usual
    assert info(gradient_checkpointing=True) == usual


def test_what_frozen_weights_are_kept_in_is_reported(make_kitchen: MakeKitchen) -> None:
    kept = []
    for base_dtype in ("auto", "bfloat16"):
        client = make_kitchen(base_dtype=base_dtype).training_client
        session = client.start_session(SessionConfig("tiny", lora=LoraConfig(rank=2)))
        kept.append(client.get_info(session)["base_dtype"])
    assert kept == ["float32", "bfloat16"]


def test_the_configuration_of_a_model_in_a_folder_counts(client: TrainingClient) -> None:
    session = client.start_session(TINY)
    model = client.save_weights_for_sampler(session, "x")
    before = client.get_info(client.start_session(SessionConfig(model)))["model_config"]
    file = Path(model, "config.json")
    file.write_text(file.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    after = client.get_info(client.start_session(SessionConfig(model)))["model_config"]
    assert before != after
