"""A workflow that was recorded is replayed without its backend, and gives the same metrics."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from crucible_kitchen import Completion, Kitchen
from crucible_kitchen.environments import Step
from crucible_kitchen.workflows import run_in

import kitchen_noop

if TYPE_CHECKING:  # the module is imported without the tests' support as well
    from commands import Crucible

cassette = pytest.importorskip("crucible_adapter_compose.cassette")

TIMED = ("time/step", "tokens_per_second")
NOOPS: dict[str, Any] = {
    **{name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()},
    "dataset_store": {"use": "noop", "latency_scale": 0, "rows": {"train": 24, "test": 4}},
}
NOT_INSTALLED = {"use": "a-paid-service", "api_key": "none"}
"""A key that is not one, as people write it where none is needed."""
SUPERVISED: dict[str, Any] = {
    "model": "tiny",
    "dataset": "sums",
    "train_on": "all_tokens",
    "test_size": 4,
    "batch_size": 4,
    "max_steps": 6,
    "save_every": 2,
    "learning_rate": 1e-2,
}


class Remainders:
    """A completion is worth the sum of its token ids, each modulo 7."""

    size = 12

    def reset(self, seed: int) -> str:
        return f"{seed}:"

    def step(self, completion: Completion) -> Step:
        assert completion.tokens is not None
        return Step(reward=float((completion.tokens % 7).sum()) / 7, done=True)


REINFORCEMENT: dict[str, Any] = {
    "model": "tiny",
    "environment": Remainders,
    "test_size": 4,
    "batch_size": 2,
    "group_size": 3,
    "max_steps": 3,
    "max_tokens": 5,
    "learning_rate": 1e-2,
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No rendered row is there from before."""
    monkeypatch.setenv("CRUCIBLE_CACHE", str(tmp_path / "cache"))


def on_cassettes(folder: Path, inner: Mapping[str, Any], mode: str) -> dict[str, Any]:
    """Return adapters of which these are recorded, or replayed."""
    return {
        port: {
            "use": getattr(cassette, port),
            "file": str(folder / f"{port}.jsonl"),
            "mode": mode,
            "inner": inner[port] if mode == "record" else NOT_INSTALLED,
        }
        for port in inner
    }


def rows(
    workflow: str, config: Mapping[str, Any], adapters: Mapping[str, Any]
) -> list[tuple[str, int | None, float]]:
    """Return the rows of metrics of a run, but for how long things took."""
    with Kitchen({**NOOPS, **adapters}) as kitchen:
        run_in(kitchen, workflow, {"run_id": "mine", **config})
        found = kitchen.metrics_store.read("mine")
    return [(e.metric, e.step, e.value) for e in found if e.metric not in TIMED]


def test_supervised_on_noops_is_replayed_with_every_port_but_the_stores_on_cassettes(
    tmp_path: Path,
) -> None:
    inner = {port: NOOPS[port] for port in ("training_client", "dataset_store")}
    recorded = rows("supervised", SUPERVISED, on_cassettes(tmp_path, inner, "record"))
    replayed = rows("supervised", SUPERVISED, on_cassettes(tmp_path, inner, "replay"))
    assert len(recorded) > 12
    assert replayed == recorded


def test_a_replay_needs_nothing_that_the_recording_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = {"training_client": NOOPS["training_client"]}
    first = rows("supervised", SUPERVISED, on_cassettes(tmp_path, inner, "record"))
    (tmp_path / "training_client.jsonl").unlink()
    again = rows("supervised", SUPERVISED, on_cassettes(tmp_path, inner, "record"))
    monkeypatch.setenv("CRUCIBLE_CACHE", str(tmp_path / "another machine's"))
    assert rows("supervised", SUPERVISED, on_cassettes(tmp_path, inner, "replay")) == first == again


def test_runs_with_new_ids_are_replayed_from_one_cassette(tmp_path: Path) -> None:
    inner = {"training_client": NOOPS["training_client"]}
    config = {**SUPERVISED, "run_id": None}
    found = []
    for mode in ("record", "replay", "replay"):
        adapters = {**NOOPS, **on_cassettes(tmp_path, inner, mode)}
        with Kitchen(adapters) as kitchen:
            run_in(kitchen, "supervised", config)
            [run] = kitchen.metrics_store.runs()
            read = kitchen.metrics_store.read(run)
        found.append((run, [(e.metric, e.step, e.value) for e in read if e.metric not in TIMED]))
    assert len({run for run, _ in found}) == 3
    assert found[0][1] == found[1][1] == found[2][1]


def test_reinforcement_is_replayed_with_trainer_and_sampler_on_cassettes(tmp_path: Path) -> None:
    inner = {port: NOOPS[port] for port in ("training_client", "completer")}
    recorded = rows("reinforcement", REINFORCEMENT, on_cassettes(tmp_path, inner, "record"))
    replayed = rows("reinforcement", REINFORCEMENT, on_cassettes(tmp_path, inner, "replay"))
    assert "sampler/logprob_diff" in {metric for metric, *_ in recorded}
    assert replayed == recorded


def test_a_sampler_alone_is_replayed_next_to_a_trainer_whose_references_are_new(
    tmp_path: Path,
) -> None:
    inner = {"completer": NOOPS["completer"]}
    recorded = rows("reinforcement", REINFORCEMENT, on_cassettes(tmp_path, inner, "record"))
    replayed = rows("reinforcement", REINFORCEMENT, on_cassettes(tmp_path, inner, "replay"))
    assert replayed == recorded


def test_a_run_with_other_settings_is_told_which_argument_differs(tmp_path: Path) -> None:
    inner = {"training_client": NOOPS["training_client"]}
    rows("supervised", SUPERVISED, on_cassettes(tmp_path, inner, "record"))
    other = {**SUPERVISED, "learning_rate": 2e-2}
    with pytest.raises(
        Exception, match=r"learning_rate is .*, and not .*; if that is meant, delete"
    ):
        rows("supervised", other, on_cassettes(tmp_path, inner, "replay"))


GUIDE = Path(__file__).parents[2] / "docs" / "adapters" / "composition.md"
AROUND = """
[adapters]
dataset_store = { use = "noop", latency_scale = 0 }
blob_store = { use = "fsspec", url = "runs" }
metrics_store = { use = "jsonl", path = "metrics" }
[workflow]
use = "supervised"
model = "any"
dataset = "rows"
max_steps = 2
test_size = 4
"""


def _section() -> str:
    return GUIDE.read_text().partition("## Record and replay\n")[2].partition("\n## ")[0]


@pytest.fixture
def guide(tmp_path: Path) -> list[list[str]]:
    """The commands of the guide, in a folder with its configuration, around a noop."""
    [table] = re.findall(r"```toml\n(.*?)```", _section(), re.DOTALL)
    table = table.replace(
        '{ use = "torch", device = "cuda" }', '{ use = "noop", latency_scale = 0 }'
    )
    assert "noop" in table
    (tmp_path / "crucible.toml").write_text(table + AROUND)
    shown = re.findall(r"^\$ crucible (.*)$", _section(), re.MULTILINE)
    return [line.split() for line in shown]


def test_the_commands_of_the_guide_record_a_run_and_replay_it(
    guide: list[list[str]], plain_crucible: Crucible, tmp_path: Path
) -> None:
    recording, replay = guide
    assert plain_crucible(*recording).code == 0
    config = tmp_path / "crucible.toml"
    config.write_text(config.read_text().replace('"noop", latency_scale = 0 }', '"gone" }', 1))
    done = plain_crucible(*replay)
    assert done.code == 0, done.err
    found = [json.loads(line) for f in tmp_path.glob("metrics/**/*.jsonl") for line in _lines(f)]
    runs: dict[str, list[Any]] = {}
    for row in found:
        if row["metric"] not in TIMED:
            runs.setdefault(row["run_id"], []).append((row["metric"], row["step"], row["value"]))
    first, second = runs.values()
    assert first == second


def _lines(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if line]


def test_the_test_of_the_guide_passes_as_written(
    guide: list[list[str]],
    plain_crucible: Crucible,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recording, _ = guide
    assert plain_crucible(*recording).code == 0
    config = tmp_path / "crucible.toml"
    config.write_text(config.read_text().replace('"noop", latency_scale = 0 }', '"gone" }', 1))
    [source] = re.findall(r"```python\n(.*?)```", _section(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(source, names)
    monkeypatch.chdir(tmp_path)
    runs = [*tmp_path.glob("runs/**/run.json")]
    names["test_the_model_learns"](tmp_path / "of the test")
    assert [*tmp_path.glob("runs/**/run.json")] == runs
    assert len([*tmp_path.glob("of the test/**/run.json")]) == 1


def test_a_recorded_run_and_its_replay_can_be_deleted_in_a_replay(
    guide: list[list[str]], plain_crucible: Crucible, tmp_path: Path
) -> None:
    recording, replay = guide
    assert plain_crucible(*recording).code == plain_crucible(*replay).code == 0
    ids = [file.parent.name for file in tmp_path.glob("runs/**/run.json")]
    assert len(ids) == 2
    for run_id in ids:
        done = plain_crucible("runs", "delete", run_id, "-y")
        assert done.code == 0, done.err
        assert "a replay deletes no checkpoints" in " ".join(done.err.split())
        deleted, kept = done.out.split("kept\n")
        assert "noop://" not in deleted
        assert f"{run_id}/run.json" in deleted
        assert {line.split()[0] for line in kept.splitlines()} == {run_id}
        assert kept.count("noop://") >= 2  # a checkpoint, and the weights
    assert [*tmp_path.glob("runs/**/run.json")] == []


def test_the_doctor_finds_a_cassette_in_order_and_its_rows_are_shown(
    guide: list[list[str]], plain_crucible: Crucible
) -> None:
    assert plain_crucible(*guide[0]).code == 0
    checked = plain_crucible("doctor")
    assert checked.code == 0, checked.out
    assert re.search("workflow train rows +ok ", checked.out)
    assert "everything is in order" in checked.out
    shown = plain_crucible("run", "--show-rows", "1")
    assert shown.code == 0, shown.err


def test_what_the_doctor_asks_and_was_not_recorded_is_not_a_problem(
    guide: list[list[str]], plain_crucible: Crucible
) -> None:
    assert plain_crucible(*guide[0]).code == 0
    checked = plain_crucible("doctor", "workflow.dataset=others")
    assert checked.code == 0, checked.out
    assert re.search("workflow +not recorded ", checked.out)
    assert "delete the cassette" not in checked.out
    assert "nothing is wrong with what was tried" in checked.out
    shown = plain_crucible("run", "--show-rows", "1", "workflow.dataset=others")
    assert shown.code == 1
    assert "as they were rendered for the recorded run" in shown.err


def test_what_a_replay_would_not_delete_is_not_said_to_be_deleted(
    guide: list[list[str]], plain_crucible: Crucible, tmp_path: Path
) -> None:
    recording, _ = guide
    assert plain_crucible(*recording).code == 0
    [file] = tmp_path.glob("runs/**/run.json")
    done = plain_crucible("runs", "delete", file.parent.name)
    would_be, kept = done.out.split("would be kept\n")
    assert "would be deleted" in would_be
    assert "noop://" not in would_be
    assert "noop://" in kept
    assert "a replay deletes no checkpoints" in " ".join(done.err.split())
    assert file.exists()


def test_no_command_that_would_record_replaces_a_cassette(
    guide: list[list[str]], plain_crucible: Crucible, tmp_path: Path
) -> None:
    recording, _ = guide
    assert plain_crucible(*recording).code == 0
    [file] = tmp_path.glob("tests/cassettes/*")
    kept = file.read_bytes()
    for command in (
        ["run"],
        ["run", "--dry-run"],
        ["doctor"],
        ["clean", "--dry-run"],
        ["export", "none", "--to", "there"],
        ["runs", "delete", "none", "-y"],
    ):
        done = plain_crucible(*command, *recording[1:])
        assert done.code != 0, command
        assert "a recording replaces no cassette" in " ".join((done.out + done.err).split())
        assert [*file.parent.iterdir()] == [file]
        assert file.read_bytes() == kept


REPLAY = """
import importlib.abc, json, sys

class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "crucible_adapter_torch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import test_cassette as recorded

found = recorded.rows(
    sys.argv[2],
    getattr(recorded, sys.argv[2].upper()),
    recorded.on_cassettes(Path(sys.argv[3]), dict.fromkeys(sys.argv[4:]), "replay"),
)
assert "torch" not in sys.modules
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workflow", "ports"),
    [
        ("supervised", ("training_client",)),
        ("reinforcement", ("training_client", "completer")),
    ],
)
def test_a_run_on_torch_is_replayed_where_torch_is_not_installed(
    workflow: str, ports: tuple[str, ...], tmp_path: Path
) -> None:
    pytest.importorskip("crucible_adapter_torch", reason="crucible-adapter-torch is not installed")
    from tiny_torch import MODELS

    models = {"tiny": {**MODELS["tiny"], "max_position_embeddings": 128}}
    checkpoints = str(tmp_path / "checkpoints")
    torch: dict[str, Any] = {
        "training_client": {"device": "cpu", "checkpoint_dir": checkpoints, "models": models},
        "completer": {"device": "cpu"},
    }
    inner = {port: {"use": "torch", **torch[port]} for port in ports}
    config = {"supervised": SUPERVISED, "reinforcement": REINFORCEMENT}[workflow]
    recorded = rows(workflow, config, on_cassettes(tmp_path, inner, "record"))
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", REPLAY, here, workflow, str(tmp_path), *ports]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    replayed = [(metric, step, value) for metric, step, value in json.loads(done.stdout)]
    assert len(recorded) > 12
    assert replayed == recorded
