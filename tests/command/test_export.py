"""`crucible export`: what it says, on noops; the torch package has a test of what it writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from commands import Crucible, Outcome, clean_environ
from preloaded import Commands

CONFIG = """
[adapters]
training_client = { use = "noop", latency_scale = 0 }
dataset_store = { use = "noop", latency_scale = 0 }
hub_client = { use = "noop", latency_scale = 0, repositories = ["me/cities"] }
blob_store = { use = "fsspec", url = "runs" }
metrics_store = { use = "jsonl", path = "metrics" }
[workflow]
use = "supervised"
model = "any"
dataset = "rows"
max_steps = 2
"""


@pytest.fixture(scope="module")
def folder(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run called `cities`."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "crucible.toml").write_text(CONFIG)
    run = ("run", "workflow.run_id=cities")
    code, _, err = commands.run(run, folder, clean_environ(), 120)
    assert code == 0, err
    return folder


@pytest.fixture
def in_folder(commands: Commands, folder: Path) -> Crucible:
    """The command, in that folder."""
    return lambda *arguments: Outcome(*commands.run(arguments, folder, clean_environ(), 120))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["citis", "--to", "out"], "there is no run 'citis'; did you mean 'cities'?"),
        (["cities", "more", "--to", "out"], "one run, not 2"),
        (["cities", "--to", "runs"], "runs is not empty; choose another folder"),
        (["cities", "--to", "crucible.toml"], "crucible.toml exists and is not a folder"),
        (["cities", "--to", "out", "--checkpoint", "lsat"], "keeps no checkpoint 'lsat'"),
        (["cities", "--to", "out", "--checkpoint", "best"], "without workflow.best_metric"),
        (["cities"], "--to"),
        (["cities", "--to", "out", "--format", "gguf"], "gguf"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(
    in_folder: Crucible, folder: Path, arguments: list[str], message: str
) -> None:
    before = {*os.listdir(folder)}
    outcome = in_folder("export", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert {*os.listdir(folder)} == before


def test_a_checkpoint_that_is_gone_is_named(in_folder: Crucible, folder: Path) -> None:
    outcome = in_folder("export", "cities", "--to", "out")
    assert outcome.code == 1
    assert "noop keeps them in memory, for one kitchen" in outcome.err
    assert not (folder / "out").exists()


def test_a_repository_that_does_not_exist_shows_before_anything_is_done(
    in_folder: Crucible, folder: Path
) -> None:
    outcome = in_folder("export", "cities", "--to", "out", "--push", "me/citis")
    assert outcome.code == 1
    assert "me/citis" in outcome.err
    assert "--push uploads to a repository, and a branch, that exist" in outcome.err
    assert not (folder / "out").exists()


def test_without_a_hub_client_the_port_is_named(in_folder: Crucible, folder: Path) -> None:
    text = (folder / "crucible.toml").read_text().replace("hub_client", "completer")
    (folder / "other.toml").write_text(text.replace(', repositories = ["me/cities"]', ""))
    outcome = in_folder("export", "cities", "other.toml", "--to", "out", "--push", "me/cities")
    assert outcome.code == 2
    assert "hub_client" in outcome.err
