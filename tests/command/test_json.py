"""`--json`: one document on standard output, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import Crucible

CONFIG = """
[adapters]
training_client = { use = "noop", latency_scale = 0 }
dataset_store = { use = "noop", latency_scale = 0 }
blob_store = { use = "fsspec", url = "s3://me:hunter2hunter2@there/runs" }
[workflow]
use = "supervised"
model = "any"
dataset = "rows"
epochs = nan
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "crucible.toml").write_text(CONFIG.replace("epochs = nan\n", ""))
    return tmp_path


def document(crucible: Crucible, *words: str, code: int = 0) -> Any:
    outcome = crucible(*words, "--json")
    assert outcome.code == code, outcome
    return json.loads(outcome.out)


def test_the_installed_adapters_are_a_list(plain_crucible: Crucible) -> None:
    found = document(plain_crucible, "adapters", "list")
    [noop] = [each for each in found if (each["port"], each["name"]) == ("blob_store", "noop")]
    assert noop["package"] == "crucible-adapter-noop"


def test_an_adapter_has_its_options_and_callbacks(plain_crucible: Crucible) -> None:
    [about] = document(plain_crucible, "adapters", "show", "metrics_store.jsonl")
    assert about["options"][0]["option"] == "path"
    assert {each["callback"]: each["offered"] for each in about["callbacks"]}["record"] == "yes"


def test_a_port_has_the_settings_of_its_adapter_and_their_sources(
    plain_crucible: Crucible, folder: Path
) -> None:
    about = document(plain_crucible, "adapters", "show", "training_client")
    key = "adapters.training_client.latency_scale"
    assert {"key": key, "value": 0.0, "source": "crucible.toml"} in about["settings"]
    assert "forward" in about["serves"]


def test_settings_have_their_values_and_no_secret(plain_crucible: Crucible, folder: Path) -> None:
    rows = {row["key"]: row for row in document(plain_crucible, "config")}
    assert rows["workflow.use"]["value"] == "supervised"
    assert rows["workflow.batch_size"] == {
        "key": "workflow.batch_size",
        "value": 32,
        "source": "default",
    }
    assert rows["workflow.lora"]["value"] is None
    assert "hunter2" not in json.dumps(rows)


def test_with_a_mistake_the_settings_are_a_document_and_the_mistake_a_message(
    plain_crucible: Crucible, folder: Path
) -> None:
    (folder / "crucible.toml").write_text(CONFIG)
    rows = document(plain_crucible, "config", code=2)
    assert {row["key"] for row in rows} >= {"workflow.use", "workflow.epochs"}


def test_what_was_checked_has_a_state_each(plain_crucible: Crucible, tmp_path: Path) -> None:
    (tmp_path / "crucible.toml").write_text('[adapters]\nblob_store = "none"\n')
    found = document(plain_crucible, "doctor", code=1)
    assert found["problems"] == 1
    [failed] = [each for each in found["checks"] if each["state"] == "FAIL"]
    assert failed["what"] == "adapters.blob_store"


def test_a_trace_has_times_in_seconds(plain_crucible: Crucible, folder: Path) -> None:
    stores = ["adapters.blob_store=noop", "adapters.metrics_store=noop"]
    assert (
        plain_crucible(
            "run", *stores, "workflow.max_steps=2", "workflow.run_id=r", "--trace", "t"
        ).code
        == 0
    )
    found = document(plain_crucible, "trace", "t")
    assert found["runs"] == ["r"]
    assert 0 < found["waiting"] + found["calling"] + found["own"] == pytest.approx(found["elapsed"])


def test_what_was_cleaned_is_a_list(plain_crucible: Crucible, folder: Path) -> None:
    stores = ["adapters.blob_store=noop", "adapters.metrics_store=noop"]
    assert document(plain_crucible, "clean", *stores) == []
