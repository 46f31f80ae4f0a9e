"""From a file to a model that learns: five ports, real data."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from commands import Crucible
from crucible_kitchen import Kitchen, Message, SamplingParams, SessionConfig
from crucible_kitchen.workflows import run_in
from crucible_kitchen.workflows.batches import permutation

if TYPE_CHECKING:
    from addition_model import AdditionModel

ROOT = Path(__file__).resolve().parents[2]
GSM8K = ROOT.parent / "shared" / "data" / "gsm8k"

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("crucible_adapter_torch") is None,
    reason="crucible-adapter-torch is not installed",
)
needs_gsm8k = pytest.mark.skipif(
    not (GSM8K / "train.jsonl").is_file(), reason="the GSM8K data is not next to this repository"
)

NOOPS = ("adapters.training_client=noop", "adapters.completer=noop")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The folder that the command runs in, with `docs/examples` as in a clone."""
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
    return tmp_path


def summary(out: str) -> dict[str, str]:
    """Return the figures that a run prints at the end."""
    lines = out[out.index("\nsummary") :].splitlines()
    return dict(line.split(None, 1) for line in lines if len(line.split(None, 1)) == 2)


def test_the_example_runs_unchanged_on_noops(plain_crucible: Crucible, clone: Path) -> None:
    outcome = plain_crucible("run", "docs/examples/arithmetic.toml", *NOOPS)
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert "step 1000/1000" in outcome.out
    assert len(outcome.out.splitlines()) < 60
    figures = summary(outcome.out)
    assert {"test/nll", "test/exact_match", "train_mean_nll", "run_id"} <= figures.keys()
    record = json.loads((clone / "runs" / figures["run_id"] / "run.json").read_text())
    assert record["status"] == "done"
    with Kitchen({"metrics_store": {"use": "jsonl", "path": str(clone / "runs/metrics")}}) as again:
        rows = again.metrics_store.read(figures["run_id"])
    assert sum(row.metric == "train_mean_nll" for row in rows) == 1000


def test_a_rehearsal_reports_restored_sessions_and_finally_how_to_continue(
    plain_crucible: Crucible, clone: Path
) -> None:
    rehearsal = ("run", "docs/examples/rehearsal.toml", "workflow.save_every=1")
    noop = "adapters.training_client.inner.inner=noop"
    outcome = plain_crucible(*rehearsal, noop)
    assert outcome.code == 0, outcome.err
    assert re.search(
        r"^\w+ failed \(Unavailable\); restoring the session from its checkpoint; "
        r"resuming after step \d+ \(restart 3\)$",
        outcome.out,
        re.MULTILINE,
    )
    outcome = plain_crucible(*rehearsal, noop, "workflow.max_restarts=3")
    assert outcome.code == 1
    error, used_up, to_continue, _, command = outcome.err.splitlines()
    assert error.startswith("error: training_client.faulty.")
    assert used_up == "restarts are used up (workflow.max_restarts=3)"
    assert re.fullmatch(r"to continue after step \d+:", to_continue)
    assert command.startswith(f"    crucible {' '.join(rehearsal)} {noop}")


def test_every_port_can_be_a_noop(plain_crucible: Crucible, clone: Path) -> None:
    ports = ("training_client", "dataset_store", "blob_store", "metrics_store", "completer")
    outcome = plain_crucible(
        "run",
        "docs/examples/arithmetic.toml",
        *(f"adapters.{port}=noop" for port in ports),
        "workflow.max_steps=50",
    )
    assert outcome.code == 0, outcome.err
    assert not (clone / "runs").exists()


def test_a_missing_data_set_is_reported_in_one_plain_line(
    plain_crucible: Crucible, clone: Path
) -> None:
    outcome = plain_crucible(
        "run", "docs/examples/arithmetic.toml", *NOOPS, "workflow.dataset=docs/nowhere.jsonl"
    )
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert "docs/nowhere.jsonl" in outcome.err


@needs_torch
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_example_learns_to_add(addition_model: AdditionModel) -> None:
    out, err = addition_model.said
    assert err == ""
    assert float(summary(out)["test/exact_match"]) >= 0.95


CHAT = "docs/examples/chat.toml"


@needs_torch
@pytest.mark.slow
def test_the_chat_example_trains_on_the_last_answer_as_it_will_be_requested(
    plain_crucible: Crucible, clone: Path
) -> None:
    outcome = plain_crucible("run", CHAT, "--show-rows", "2")
    assert outcome.code == 0, outcome.err
    shown = outcome.out[outcome.out.index("<|im_start|>") :]
    assert shown.startswith(
        "<|im_start|>user\n48/2 = ?<|im_end|>\n<|im_start|>assistant\n24<|im_end|>\n"
        "<|im_start|>user\n48+24 = ?<|im_end|>\n<|im_start|>assistant\n72<|im_end|>\n"
        "<|im_start|>user\nAnd the answer?<|im_end|>\n<|im_start|>assistant\n"
        "⟦<think>\n\n</think>\n\n72<|im_end|>⟧\n\n"
    )
    assert re.findall("⟦.*?⟧", shown, re.DOTALL) == [
        "⟦<think>\n\n</think>\n\n72<|im_end|>⟧",
        "⟦<think>\n\n</think>\n\n48<|im_end|>⟧",
    ]


@needs_torch
@pytest.mark.slow
def test_the_chat_example_learns_to_answer_in_the_form_of_its_rows(
    plain_crucible: Crucible, clone: Path
) -> None:
    from transformers import AutoTokenizer

    conversation: list[Message] = [
        {"role": "user", "content": "48/2 = ?"},
        {"role": "assistant", "content": "24"},
        {"role": "user", "content": "48+24 = ?"},
        {"role": "assistant", "content": "72"},
        {"role": "user", "content": "And the answer?"},
    ]
    shorter = ("max_steps=100", "save_every=0", "eval_every=0", "exact_match=false", "test_size=16")
    outcome = plain_crucible(
        "run", CHAT, *(f"workflow.{setting}" for setting in shorter), timeout=600
    )
    assert outcome.code == 0, outcome.err
    run_id = summary(outcome.out)["run_id"]
    weights = json.loads((clone / "runs" / run_id / "run.json").read_text())["weights"]
    with Kitchen(
        {
            "metrics_store": {"use": "jsonl", "path": str(clone / "runs/metrics")},
            "completer": {"use": "torch", "device": "cpu"},
        }
    ) as kitchen:
        rows = kitchen.metrics_store.read(run_id)
        losses = [row.value for row in rows if row.metric == "train_mean_nll"]
        assert losses[0] == pytest.approx(math.log(258), abs=0.2)
        assert losses[-1] < 0.3
        answer = kitchen.completer.complete(
            conversation, SamplingParams(max_tokens=64, temperature=0.0, model=weights)
        )
    assert re.fullmatch(r"<think>\n\n</think>\n\n\d{1,2}", answer.text)
    assert answer.finish_reason == "stop"
    tokenizer = AutoTokenizer.from_pretrained(weights)
    assert answer.tokens is not None
    assert tokenizer.decode(answer.tokens[-1:]) == tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.chat_template == (clone / "docs/examples/chat/template.jinja").read_text()


def gsm8k_kitchen(folder: Path) -> Kitchen:
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    small = {"model_type": "llama", **sizes, "intermediate_size": 512}
    return Kitchen(
        {
            "training_client": {
                "use": "torch",
                "device": "cpu",
                "checkpoint_dir": str(folder / "checkpoints"),
                "models": {"small": {**small, "max_position_embeddings": 256}},
            },
            "dataset_store": "hf-datasets",
            "blob_store": {"use": "fsspec", "url": str(folder / "blobs")},
            "metrics_store": {"use": "jsonl", "path": str(folder / "metrics")},
        }
    )


GSM8K_CONFIG: dict[str, Any] = {
    "model": "small",
    "dataset": str(GSM8K / "train.jsonl"),
    "prompt": "{question}\n",
    "completion": "{answer}",
    "train_on": "all_tokens",
    "max_length": 256,
    "too_long": "truncate",
    "batch_size": 8,
    "max_steps": 500,
    "learning_rate": 4e-3,
    "lr_schedule": "linear",
    "adam": {"beta1": 0.9, "beta2": 0.95, "weight_decay": 0.01, "grad_clip_norm": 1.0},
}


@needs_torch
@needs_gsm8k
@pytest.mark.slow
def test_held_out_gsm8k_becomes_steadily_more_likely(tmp_path: Path) -> None:
    with gsm8k_kitchen(tmp_path) as kitchen:
        held_out = {"test_dataset": str(GSM8K / "test.jsonl"), "test_size": 30}
        shorter = {"max_steps": 60, "eval_every": 20, "seed": 0}
        result = run_in(kitchen, "supervised", {**GSM8K_CONFIG, **held_out, **shorter})
        rows = kitchen.metrics_store.read(result.run_id)
    first = next(row.value for row in rows if row.metric == "train_mean_nll")
    falling = [row.value for row in rows if row.metric == "test/nll"]
    assert first == pytest.approx(math.log(257), abs=0.1)
    assert len(falling) == 3
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] <= 2.8


@needs_torch
@needs_gsm8k
def test_the_first_ten_losses_on_gsm8k_match_a_raw_pytorch_loop(tmp_path: Path) -> None:
    with gsm8k_kitchen(tmp_path) as kitchen:
        result = run_in(kitchen, "supervised", {**GSM8K_CONFIG, "max_steps": 10, "seed": 3})
        rows = kitchen.metrics_store.read(result.run_id)
        ours = [row.value for row in rows if row.metric == "train_mean_nll"]
        norms = [row.value for row in rows if row.metric == "grad_norm"]
        # The same random weights, from a session that took no step.
        client = kitchen.training_client
        untrained = client.start_session(SessionConfig("small", seed=3, max_length=256))
        weights = client.save_weights_for_sampler(untrained, "untrained")
    losses, expected_norms = raw_pytorch_loop(weights, steps=10, seed=3)
    np.testing.assert_allclose(ours, losses, rtol=1e-5)
    np.testing.assert_allclose(norms, expected_norms, rtol=1e-4)
    assert ours[-1] < ours[0]


def raw_pytorch_loop(weights: str, steps: int, seed: int) -> tuple[list[float], list[float]]:
    """Train as one would without Crucible Kitchen: bytes, one padded batch, AdamW, clipping."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    model.train()
    config = GSM8K_CONFIG
    adam = config["adam"]
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config["learning_rate"],
        betas=(adam["beta1"], adam["beta2"]),
        eps=1e-8,
        weight_decay=adam["weight_decay"],
    )
    lines = Path(config["dataset"]).read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    end = 256
    order = permutation(len(rows), seed, 0)
    losses, norms = [], []
    for step in range(steps):
        batch = [rows[i] for i in order[step * 8 : step * 8 + 8]]
        texts = [f"{row['question']}\n{row['answer']}".encode() for row in batch]
        sequences = [[*text, end][:257] for text in texts]
        width = max(map(len, sequences)) - 1
        inputs = torch.full((8, width), end)
        targets = torch.full((8, width), -100)
        mask = torch.zeros((8, width), dtype=torch.long)
        for i, sequence in enumerate(sequences):
            n = len(sequence) - 1
            inputs[i, :n] = torch.tensor(sequence[:-1])
            targets[i, :n] = torch.tensor(sequence[1:])
            mask[i, :n] = 1
        logits = model(input_ids=inputs, attention_mask=mask).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), adam["grad_clip_norm"])
        for group in optimizer.param_groups:
            group["lr"] = config["learning_rate"] * (1 - step / steps)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        norms.append(norm.item())
    return losses, norms
