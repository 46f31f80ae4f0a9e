"""`crucible runs`: what is kept of runs, listed, compared, exported and deleted."""

from __future__ import annotations

import csv
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import Crucible, Outcome, clean_environ
from preloaded import Commands

CONFIG = """
[adapters]
training_client = { use = "noop", latency_scale = 0 }
dataset_store = { use = "noop", latency_scale = 0 }
blob_store = { use = "fsspec", url = "runs" }
metrics_store = { use = "jsonl", path = "metrics" }
[workflow]
use = "supervised"
model = "any"
dataset = "rows"
max_steps = 4
test_size = 10
"""
SAMPLE = {"prompt": "2+2=", "completion": "5", "reward": 0.5, "answer": "4"}


@pytest.fixture(scope="module")
def ran(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the runs `a`, `a/b` and `c` were run, in this order."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "crucible.toml").write_text(CONFIG)
    for settings in (["a"], ["a/b", "workflow.seed=7"], ["c", "workflow.learning_rate=0.01"]):
        arguments = ["run", f"workflow.run_id={settings[0]}", *settings[1:]]
        assert commands.run(arguments, folder, clean_environ(), 60)[0] == 0
        about = folder / "runs" / settings[0]
        (about / "samples").mkdir()
        (about / "samples/00000004.jsonl").write_text(json.dumps(SAMPLE) + "\n")
    for number, run_id in enumerate(("a", "a/b", "c")):
        change(folder, run_id, created=f"2026-01-02T03:04:0{number}+00:00")
    return folder


@pytest.fixture
def folder(ran: Path, tmp_path: Path) -> Path:
    return shutil.copytree(ran, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def runs(plain_crucible: Crucible, folder: Path) -> Crucible:
    return partial(plain_crucible, "runs")


def record_of(folder: Path, run_id: str) -> Path:
    return folder / "runs" / run_id / "run.json"


def change(folder: Path, run_id: str, **fields: Any) -> None:
    path = record_of(folder, run_id)
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def printed(outcome: Outcome) -> Any:
    """Return the one document that a command printed."""
    assert outcome.code == 0, outcome
    return json.loads(outcome.out)


def files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


# --- list ---


def test_runs_are_listed_with_the_newest_first(runs: Crucible) -> None:
    outcome = runs("list")
    heading, *lines = outcome.out.splitlines()
    assert heading.split() == ["run", "workflow", "status", "step", "metrics", "started", "took"]
    assert [line.split()[0] for line in lines] == ["c", "a/b", "a"]
    assert all("supervised  done    4     test/nll " in line for line in lines)
    assert runs().out == outcome.out


def test_as_json_a_list_has_numbers(runs: Crucible) -> None:
    newest, *_ = printed(runs("list", "--json"))
    assert (newest["run_id"], newest["status"], newest["step"]) == ("c", "done", 4)
    assert newest["metrics"]["test/nll"] > 0
    assert newest["best"] is None


def test_a_list_has_the_best_value_of_a_run_that_looks_for_one(
    runs: Crucible, folder: Path
) -> None:
    [checkpoint] = json.loads(record_of(folder, "c").read_text())["checkpoints"]
    best = {"step": 4, "value": 0.125, "checkpoint": checkpoint}
    state = {"step": 4, "checkpoint": checkpoint, "standing": {"best": best, "waited": 0}}
    config = json.loads(record_of(folder, "c").read_text())["config"]
    change(folder, "c", state=state, config=config | {"best_metric": "test/nll"})
    assert "test/nll 0.125 (best, step 4)" in runs("list").out
    assert printed(runs("list", "--json"))[0]["best"]["value"] == 0.125


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 100_000])
def test_a_damaged_record_is_listed_as_damaged_and_hides_no_other(
    runs: Crucible, folder: Path, content: bytes
) -> None:
    record_of(folder, "a").write_bytes(content)
    outcome = runs("list")
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.out.splitlines()] == ["run", "c", "a/b", "a"]
    assert "a                damaged" in outcome.out
    assert "'a/run.json'" in outcome.err


def test_a_record_of_an_earlier_version_is_listed(runs: Crucible, folder: Path) -> None:
    old = json.loads(record_of(folder, "a").read_text())
    kept = ("run_id", "workflow", "status", "config", "checkpoints", "metrics")
    state = {"step": 4, "checkpoint": old["checkpoints"][0]}
    record_of(folder, "a").write_text(json.dumps({n: old[n] for n in kept} | {"state": state}))
    assert "a    supervised  done    4" in runs("list").out
    assert runs("show", "a").code == runs("compare", "a", "c").code == 0


def test_a_run_whose_process_is_gone_was_killed(runs: Crucible, folder: Path) -> None:
    change(folder, "a", status="running", ended=None)
    assert "a    supervised  killed" in runs("list").out


def test_a_run_that_may_be_worked_on_elsewhere_is_running(runs: Crucible, folder: Path) -> None:
    change(folder, "a", status="running", ended=None)
    lease = {"holder": "0", "count": 7, "host": "there", "pid": 1, "process": "b pid:[1] 1 9"}
    (folder / "runs/a/lease.json").write_text(json.dumps(lease))
    assert "a    supervised  running" in runs("list").out


def test_where_blobs_cannot_be_listed_runs_are_those_of_the_metrics_store(
    plain_crucible: Crucible, folder: Path
) -> None:
    (folder / "metrics_only.toml").write_text(
        '[adapters]\nmetrics_store = { use = "jsonl", path = "metrics" }\n'
    )
    listed = printed(plain_crucible("runs", "list", "metrics_only.toml", "--json"))
    assert {run["run_id"] for run in listed} == {"a", "a/b", "c"}
    assert {run["status"] for run in listed} == {"no record"}
    assert plain_crucible("runs", "show", "c", "metrics_only.toml").code == 0


def test_without_a_store_the_error_says_what_is_missing(plain_crucible: Crucible) -> None:
    outcome = plain_crucible("runs")
    assert outcome.code == 2
    assert "no blob_store is configured" in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "a"),
        ("compare", "a", "c"),
        ("plot", "a"),
        ("export", "a"),
        ("delete", "a"),
    ],
)
def test_without_a_store_no_run_is_said_to_be_missing(
    plain_crucible: Crucible, arguments: tuple[str, ...]
) -> None:
    outcome = plain_crucible("runs", *arguments)
    assert outcome.code == 2
    assert "there is no run" not in outcome.err
    assert "configured" in outcome.err


@pytest.mark.parametrize("arguments", [("crucible.toml",), ("adapters.blob_store=noop",)])
def test_a_list_may_be_given_settings_without_its_name(
    runs: Crucible, arguments: tuple[str, ...]
) -> None:
    outcome = runs(*arguments)
    assert (outcome.code, outcome) == (0, runs("list", *arguments))


def test_a_run_in_place_of_a_command_is_answered_with_what_shows_it(runs: Crucible) -> None:
    assert runs("a").err.endswith("no such command 'a'; `crucible runs show a` shows one\n")


def test_where_there_are_no_runs_the_list_says_so(plain_crucible: Crucible, tmp_path: Path) -> None:
    (tmp_path / "crucible.toml").write_text(CONFIG)
    outcome = plain_crucible("runs")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "there are no runs yet\n")
    assert printed(plain_crucible("runs", "list", "--json")) == []


# --- show and compare ---


def test_a_run_is_shown_with_settings_metrics_and_what_belongs_to_it(runs: Crucible) -> None:
    text = runs("show", "c").out
    for part in (
        "workflow.learning_rate                  0.01\n",
        'adapters.blob_store.use                 "fsspec"\n',
        "packages.crucible-kitchen ",
        "depends_on.train.sha256 ",
        "test/nll ",
        "samples      c/samples/00000004.jsonl\n",
        "checkpoint   noop://checkpoint/",
        "weights      noop://named/",
    ):
        assert part in text


def test_as_json_a_run_has_its_whole_record(runs: Crucible) -> None:
    about = printed(runs("show", "a", "--json"))
    assert about["record"]["config"]["dataset"] == "rows"
    assert about["samples"] == ["a/samples/00000004.jsonl"]  # none of a/b
    assert about["rows_of_metrics"] > 4


def test_a_misspelt_run_is_answered_with_the_nearest(runs: Crucible) -> None:
    outcome = runs("show", "a/c")
    assert outcome.code == 2
    assert outcome.err == "error: there is no run 'a/c'; did you mean 'a/b'?\n"


def test_only_what_differs_is_compared(runs: Crucible) -> None:
    text = runs("compare", "a", "c").out
    assert "workflow.learning_rate  0.0001  0.01" in text
    assert "workflow.seed" not in text
    assert "test/nll" in text
    about = printed(runs("compare", "a", "c", "--json"))
    assert about["settings"]["workflow.learning_rate"] == {"a": 0.0001, "c": 0.01}
    assert [run["run_id"] for run in about["runs"]] == ["a", "c"]


def test_a_run_is_compared_with_another_one(runs: Crucible) -> None:
    outcome = runs("compare", "a", "a")
    assert (outcome.code, outcome.out) == (2, "")
    assert "name 2 different runs" in outcome.err


def test_a_run_of_less_than_a_second_took_less_than_that(runs: Crucible, folder: Path) -> None:
    time = "2026-01-02T03:04:05+00:00"
    change(folder, "a", created=time, ended=time)
    assert ["took", "under", "1", "s"] in [
        line.split() for line in runs("show", "a").out.splitlines()
    ]


# --- export and plot ---


def test_an_export_has_the_record_every_row_and_every_sample(runs: Crucible) -> None:
    whole = printed(runs("export", "c"))
    assert whole["record"]["run_id"] == "c"
    steps = [row["step"] for row in whole["metrics"] if row["metric"] == "train_mean_nll"]
    assert steps == [1, 2, 3, 4]
    assert whole["samples"] == [{"path": "c/samples/00000004.jsonl", "step": 4, "sample": SAMPLE}]


def test_rows_are_exported_as_csv(runs: Crucible, folder: Path) -> None:
    assert runs("export", "c", "--to", "c.csv").out == ""
    text = (folder / "c.csv").read_text()
    assert runs("export", "c", "--csv").out == text
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == len(printed(runs("export", "c"))["metrics"])
    assert {row["step"] for row in rows if row["metric"] == "train_mean_nll"} == {*"1234"}


def test_nan_is_text_in_json_and_the_document_is_standard(runs: Crucible, folder: Path) -> None:
    change(folder, "c", metrics={"test/nll": "nan"})
    assert printed(runs("list", "--json"))[0]["metrics"] == {"test/nll": "nan"}


@pytest.mark.parametrize("name", ["a.html", "a.png"])
def test_runs_are_drawn_into_one_file(runs: Crucible, folder: Path, name: str) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    outcome = runs("plot", "a", "c", "--to", name)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", f"wrote {name}\n")
    content = (folder / name).read_bytes()
    if name == "a.png":
        assert content.startswith(b"\x89PNG")
    else:
        assert content.count(b"<polyline") > 4
        assert b"2+2=" in content


def test_a_metric_that_is_misspelt_is_answered_with_the_nearest(runs: Crucible) -> None:
    outcome = runs("plot", "a", "--metric", "train_mean_nl")
    assert outcome.code == 2
    assert "did you mean 'train_mean_nll'?" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show"], "missing argument"),
        (["show", "a", "c"], "one run, not 2"),
        (["plot", "adapters.blob_store=noop"], "name a run"),
        (["plot", "a", "--to", "a.pdf"], "ends in .html or .png"),
        (["export", "a", "--to", "a.xml"], "ends in .json or .csv"),
        (["export", "a", "--csv", "--to", "a.json"], "with --csv, a name that ends in .csv"),
        (["show", ""], "there is no run ''"),
        (["plot", "../a"], "there is no run '../a'"),
        (["show", "a/"], "there is no run 'a/'"),
        (["export", "a", "--to", "/proc/a/a.csv"], "cannot be written"),
        (["show", "a", "none.toml"], "none.toml"),
    ],
)
def test_a_mistake_is_answered_without_a_traceback(
    runs: Crucible, arguments: list[str], said: str
) -> None:
    outcome = runs(*arguments)
    assert outcome.code == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err


# --- delete ---


def test_a_deleted_run_leaves_only_its_rows_of_metrics(runs: Crucible, folder: Path) -> None:
    before = files(folder)
    outcome = runs("delete", "c", "--yes")
    assert outcome.code == 0, outcome
    assert before - files(folder) == {"runs/c/run.json", "runs/c/samples/00000004.jsonl"}
    assert "rows of metrics stay" in outcome.err
    assert "c/samples/00000004.jsonl" in outcome.out
    assert [line.split()[0] for line in runs("list").out.splitlines()[1:]] == ["a/b", "a"]


def test_a_run_whose_id_begins_with_the_deleted_one_stays(runs: Crucible, folder: Path) -> None:
    before = files(folder)
    assert runs("delete", "a", "--yes").code == 0
    assert before - files(folder) == {"runs/a/run.json", "runs/a/samples/00000004.jsonl"}


def test_without_yes_nothing_is_deleted_where_nobody_can_be_asked(
    runs: Crucible, folder: Path
) -> None:
    before = files(folder)
    outcome = runs("delete", "a", "c")
    assert outcome.code == 2
    assert "without --yes" in outcome.err
    assert "c/run.json" in outcome.out  # what would be
    assert files(folder) == before


def test_a_run_that_a_process_works_on_is_not_deleted(runs: Crucible, folder: Path) -> None:
    from crucible_kitchen import Kitchen
    from crucible_kitchen.workflows.runs.cleaning import lease_of

    stores = {"blob_store": {"use": "fsspec", "url": str(folder / "runs")}}
    with Kitchen(stores) as kitchen, lease_of(kitchen, "c").acquire():
        before = files(folder)
        outcome = runs("delete", "a", "c", "--yes")
        assert outcome.code == 2
        assert "the run 'c' is in use by process" in outcome.err
        assert files(folder) == before


def test_weights_that_another_run_starts_from_are_not_deleted(runs: Crucible, folder: Path) -> None:
    [checkpoint] = json.loads(record_of(folder, "a").read_text())["checkpoints"]
    change(folder, "c", from_checkpoint=checkpoint)
    before = files(folder)
    outcome = runs("delete", "a", "--yes")
    assert outcome.code == 2
    assert "'c' starts from 'a'" in outcome.err
    assert files(folder) == before
    assert runs("delete", "a", "c", "--yes").code == 0


def test_the_weights_of_a_teacher_are_not_deleted(runs: Crucible, folder: Path) -> None:
    weights = json.loads(record_of(folder, "a").read_text())["weights"]
    change(folder, "c", depends_on={"teacher": {"model": weights}})
    before = files(folder)
    outcome = runs("delete", "a", "--yes")
    assert outcome.code == 2
    assert "'c' learns from 'a'" in outcome.err
    assert files(folder) == before
    assert runs("delete", "a", "c", "--yes").code == 0


def test_a_run_of_another_training_client_is_not_deleted(runs: Crucible, folder: Path) -> None:
    change(folder, "a", adapters={"training_client": {"use": "torch"}})
    outcome = runs("delete", "a", "--yes")
    assert outcome.code == 2
    assert "noop is configured, and torch has the checkpoints" in outcome.err


def test_a_damaged_record_is_not_deleted(runs: Crucible, folder: Path) -> None:
    record_of(folder, "a").write_text("{}")
    before = files(folder)
    outcome = runs("delete", "a", "--yes")
    assert (outcome.code, files(folder)) == (2, before)
    assert "nothing is deleted" in outcome.err


# --- other stores ---


def test_runs_of_a_database_are_shown(plain_crucible: Crucible, folder: Path) -> None:
    pytest.importorskip("sqlalchemy")
    database = 'adapters.metrics_store={"use": "sql", "url": "sqlite:///metrics.db"}'
    assert plain_crucible("run", "workflow.run_id=sql", database).code == 0
    about = printed(plain_crucible("runs", "show", "sql", database, "--json"))
    assert about["rows_of_metrics"] > 4
    assert about["metrics"]["test/nll"] > 0


def test_where_the_blob_store_cannot_list_runs_are_those_of_the_metrics_store(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crucible_kitchen import Kitchen
    from crucible_kitchen.history import stored

    adapters = {
        "blob_store": {"use": "fsspec", "url": str(folder / "runs")},
        "metrics_store": {"use": "jsonl", "path": str(folder / "metrics")},
    }
    with Kitchen(adapters) as kitchen:
        supports = kitchen.blob_store.supports
        monkeypatch.setattr(
            kitchen.blob_store,
            "supports",
            lambda callback: callback != "list" and supports(callback),
        )
        found = stored.find(kitchen)
        assert [(run.run_id, run.status) for run in found] == [
            ("c", "done"),
            ("a/b", "done"),
            ("a", "done"),
        ]
        assert stored.sample_paths(kitchen, "a") == []
