"""Workflows of one's own, which need not be installed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Crucible
from crucible_kitchen import ConfigurationError, Kitchen, run
from crucible_kitchen.workflows import find, run_in

import kitchen_noop

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "tiny_workflow.py"
NOOPS = [f"adapters.{port}=noop" for port in ("training_client", "dataset_store", "metrics_store")]
ARGUMENTS = ["workflow.model=m", "workflow.dataset=d", "workflow.steps=3", *NOOPS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The current folder of the command, with the example in it, and a module that lacks one."""
    shutil.copy(EXAMPLE, tmp_path)
    (tmp_path / "requires_more.py").write_text("import not_installed\n")
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("place", ["tiny_workflow.py", "./tiny_workflow.py", "tiny_workflow"])
def test_a_workflow_is_run_from_the_file_or_module_it_is_in(
    plain_crucible: Crucible, place: str
) -> None:
    outcome = plain_crucible("run", f"workflow.use={place}:fit", *ARGUMENTS)
    assert (outcome.code, outcome.err) == (0, "")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            "tiny_workflow.py:fti",
            "no 'fti' in tiny_workflow.py; did you mean tiny_workflow.py:fit?",
        ),
        ("nowhere.py:fit", "the workflow nowhere.py:fit: there is no file 'nowhere.py'"),
        ("tiny_workflw.py:fit", "no file 'tiny_workflw.py'; did you mean 'tiny_workflow.py'?"),
        ("nowhere:fit", "the workflow nowhere:fit: there is no module 'nowhere'"),
        ("tiny_workflw:fit", "there is no module 'tiny_workflw'; did you mean 'tiny_workflow'?"),
        ("requires_more.py:fit", "requires_more.py:fit cannot be imported: ModuleNotFoundError"),
        ("requires_more:fit", "requires_more:fit cannot be imported: ModuleNotFoundError"),
        ("tiny_workflow.py:np", "tiny_workflow.py:np is not a function"),
        ("tiny_workflow.py:FitConfig", "must be a function of (kitchen, config)"),
        (":fit", "cannot be imported"),
    ],
)
def test_a_place_that_holds_no_workflow_is_a_mistake(
    crucible: Crucible, mistake: Callable[..., str], use: str, message: str
) -> None:
    assert message in mistake("run", f"workflow.use={use}", *ARGUMENTS)


def test_a_function_runs_as_it_is_and_its_metrics_are_kept() -> None:
    with Kitchen(kitchen_noop.ADAPTERS) as kitchen:
        config = {"model": "m", "dataset": "d", "steps": 3}
        result = run_in(kitchen, find(f"{EXAMPLE}:fit"), config)
        steps = [entry.step for entry in kitchen.metrics_store.read("fit")]
    assert result.keys() == {"first", "last"}
    assert steps == [1, 2, 3]


def test_a_key_given_in_code_is_said_to_come_from_there() -> None:
    with pytest.raises(
        ConfigurationError, match=r"workflow\.stpes: .*did you mean 'steps'\? \(from code\)"
    ):
        run(find(f"{EXAMPLE}:fit"), {"model": "m", "dataset": "d", "stpes": 3})


def test_a_run_that_is_done_says_so_and_is_not_run_again(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    adapters = {
        "training_client": '{ use = "noop", latency_scale = 0 }',
        "dataset_store": '"noop"',
        "blob_store": '{ use = "fsspec", url = "runs" }',
        "metrics_store": '"noop"',
    }
    chosen = "\n".join(f"{port} = {adapter}" for port, adapter in adapters.items())
    (tmp_path / "crucible.toml").write_text(f"[adapters]\n{chosen}\n")
    run = ["run", "workflow.use=supervised", "workflow.model=m", "workflow.dataset=d"]
    run += ["workflow.max_steps=3", "workflow.run_id=r"]
    assert "supervised run r begins" in plain_crucible(*run).out
    again = plain_crucible(*run)
    assert again.code == 0
    assert "supervised run r is done, after step 3; nothing is run again" in again.out
    assert "step 1/3" not in again.out
