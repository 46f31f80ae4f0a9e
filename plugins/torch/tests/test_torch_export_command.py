"""From a run to a folder that any program loads: `crucible run`, `export` and `sample`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import crucible_kitchen.cli.console as output
import numpy as np
import peft
import pytest
import torch
from crucible_kitchen import FloatArray, Kitchen, SessionConfig
from crucible_kitchen.cli.app import invoke
from loopback_hub import LoopbackHub, redirect
from tiny_torch import MODELS
from transformers import AutoModelForCausalLM, AutoTokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # PEFT calls it
    pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning"),  # uploads do
]

REPO = "me/cities"
PROMPT = "3+4="

Crucible: TypeAlias = Callable[..., str]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        redirect(hub, tmp_path / "home", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        hub.commit(REPO, {"README.md": b"mine"})
        yield hub


@pytest.fixture
def crucible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Crucible:
    """The command, in this process; returns what it prints. It has a run, with LoRA: `cities`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(output, "_mask", output._mask)
    monkeypatch.setattr("warnings.showwarning", print)

    def run(*arguments: str) -> str:
        assert invoke(arguments) == 0
        return capsys.readouterr().out

    with Kitchen(adapters={"training_client": {"use": "torch", "models": MODELS}}) as kitchen:
        client = kitchen.training_client
        (tmp_path / "base").mkdir()
        client.export_weights(client.start_session(SessionConfig("tiny", seed=7)), "base")
    rows = [{"a": f"{i}+{i}=", "b": str(2 * i)} for i in range(20)]
    Path("train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Path("crucible.toml").write_text(
        """
        [adapters]
        training_client = { use = "torch", checkpoint_dir = "checkpoints" }
        completer = "torch"
        dataset_store = "hf-datasets"
        blob_store = { use = "fsspec", url = "runs" }
        metrics_store = { use = "jsonl", path = "metrics" }
        hub_client = "hf-hub"
        [workflow]
        use = "supervised"
        model = "base"
        lora = { rank = 2 }
        dataset = "train.jsonl"
        prompt = "{a}"
        completion = "{b}"
        max_steps = 5
        learning_rate = 3e-2
        """
    )
    run("run", "workflow.run_id=cities")
    return run


@torch.no_grad()
def logprobs(model: Any, ids: list[int]) -> FloatArray:
    logits = model.eval()(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    found: FloatArray = logits[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].numpy()
    return found


def test_a_run_is_exported_pushed_loaded_and_asked(crucible: Crucible, hub: LoopbackHub) -> None:
    facts = json.loads(crucible("export", "cities", "--to", "merged", "--push", REPO, "--json"))
    assert facts["url"] == f"{hub.url}/{REPO}/commit/{facts['commit']}"
    pushed = hub.files(REPO, facts["commit"])
    assert pushed["README.md"] == b"mine"
    assert pushed["model.safetensors"] == Path("merged/model.safetensors").read_bytes()
    said = crucible("export", "cities", "--to", "update", "--format", "peft")
    assert "format      peft\n" in said

    ids = AutoTokenizer.from_pretrained("merged").encode(f"{PROMPT}7")
    weights = json.loads(Path("runs/cities/run.json").read_text())["weights"]
    with Kitchen(adapters={"completer": "torch"}) as kitchen:
        expected = kitchen.completer.score([ids], weights)[0]
    base = AutoModelForCausalLM.from_pretrained("base")
    assert np.abs(logprobs(base, ids) - expected).max() > 1e-2
    merged = AutoModelForCausalLM.from_pretrained("merged")
    np.testing.assert_allclose(logprobs(merged, ids), expected, atol=1e-5)
    adapted = peft.AutoPeftModelForCausalLM.from_pretrained("update")
    np.testing.assert_allclose(logprobs(adapted, ids), expected, atol=1e-5)

    greedy = ("--temperature", "0", "--max-tokens", "5", "--json")
    answers = [
        json.loads(crucible("sample", name, PROMPT, *greedy))["answers"]
        for name in ("cities", "merged", "update", REPO)
    ]
    assert answers[0][0]["completion_tokens"] >= 1
    assert all(each == answers[0] for each in answers)
