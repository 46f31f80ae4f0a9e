"""From the start of a process to the end of the first step, against the same script by hand.

Both load the same model and tokenizer of a folder, read the same file of rows, train on all of them
in one batch, and are ended when they print the loss of that step, which must be the same. Ours is
`crucible run`, with a record, metrics on disk and checks of every place that the run will need.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .comparison import Row, at_most
from .settings import Settings

ROWS = 64
SHAPE = {
    "model_type": "llama",
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 384,
    "max_position_embeddings": 64,
}
CONFIG = f"""
[adapters]
dataset_store = "hf-datasets"
metrics_store = {{ use = "jsonl", path = "runs/metrics" }}
blob_store = {{ use = "fsspec", url = "runs" }}
training_client = {{ use = "torch", checkpoint_dir = "runs/checkpoints", device = "cpu" }}

[workflow]
use = "supervised"
model = "./model"
dataset = "rows.jsonl"
batch_size = {ROWS}
max_steps = 1000
learning_rate = 3e-3
"""
OURS = "from crucible_kitchen.cli import main; main()"
BY_HAND = """
import json
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained("model")
model = AutoModelForCausalLM.from_pretrained("model").train()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
batch = []
with open("rows.jsonl") as file:
    for row in map(json.loads, file):
        prompt, completion = (tokenizer.encode(row[key]) for key in ("prompt", "completion"))
        completion.append(tokenizer.eos_token_id)
        batch.append((prompt + completion, [-100] * len(prompt) + completion))
longest = max(len(ids) for ids, _ in batch)
ids, labels, mask = [], [], []
for some, targets in batch:
    rest = longest - len(some)
    ids.append(some + [0] * rest)
    labels.append(targets + [-100] * rest)
    mask.append([1] * len(some) + [0] * rest)
ids, labels, mask = (torch.tensor(each) for each in (ids, labels, mask))
loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
loss.backward()
torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
optimizer.step()
optimizer.zero_grad()
print(f"step 1/1000  loss {loss.item():.4f}", flush=True)
"""


def rows(settings: Settings) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder)
        found = settings.contest().run(
            ours=lambda: first_loss(folder, [OURS, "run"]),
            theirs=lambda: first_loss(folder, [BY_HAND]),
        )
    losses = found.results
    assert abs(losses["ours"] - losses["theirs"]) < 2e-4, f"the first losses are {losses}"
    yield found.row(
        "ours",
        "theirs",
        what="start of a run to its first step, tiny model",
        against="the same script by hand",
        goal=at_most(1.1),
        work=1.0,
        unit="s",
    )


def first_loss(folder: Path, arguments: list[str]) -> float:
    """Run Python until it prints the loss of its first step, and end it there."""
    command = [sys.executable, "-c", *arguments]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has been compiled
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("step 1/"):
                process.kill()
                return float(line.split()[3])
    raise AssertionError(f"{arguments[1:] or 'the script'} ended early: {''.join(said)}")


def _prepare(folder: Path) -> None:
    """Write the model, the rows and the configuration."""
    import crucible_adapter_torch.training_client as adapter
    from crucible_kitchen import Kitchen, SessionConfig

    options = {"checkpoint_dir": folder / "made", "models": {"tiny": SHAPE}, "device": "cpu"}
    (folder / "model").mkdir()
    with Kitchen({"training_client": {"use": adapter, **options}}) as kitchen:
        client = kitchen.training_client
        client.export_weights(client.start_session(SessionConfig("tiny")), folder / "model")
    with (folder / "rows.jsonl").open("w") as file:
        for n in range(ROWS):
            row = {"prompt": f"{n}+{n + 1}=", "completion": str(2 * n + 1)}
            file.write(json.dumps(row) + "\n")
    (folder / "crucible.toml").write_text(CONFIG)
