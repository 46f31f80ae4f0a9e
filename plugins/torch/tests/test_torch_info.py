"""What results depend on is reported by the session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crucible_kitchen import (
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
    wider = {"tiny": {**MODELS["tiny"], "rope_parameters": {"rope_theta": 5.0}}}
    changes: dict[str, dict[str, Any]] = {
        "dtype": {"dtype": "bfloat16"},
        "micro_batch_tokens": {"micro_batch_tokens": 7},
        "adapter": {"adapter": "continue"},
        "model_config": {"models": wider},
    }
    for name, options in changes.items():
        changed = info(**options)
        assert {key for key in usual if usual[key] != changed[key]} == {name}
    assert info(checkpoint_dir=tmp_path / "elsewhere") == usual


def test_the_configuration_of_a_model_in_a_folder_counts(client: TrainingClient) -> None:
    session = client.start_session(TINY)
    model = client.save_weights_for_sampler(session, "x")
    before = client.get_info(client.start_session(SessionConfig(model)))["model_config"]
    file = Path(model, "config.json")
    file.write_text(file.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    after = client.get_info(client.start_session(SessionConfig(model)))["model_config"]
    assert before != after
