"""What a cell of a notebook shows of a run, in a kernel of Jupyter."""

from __future__ import annotations

import sys
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient", reason="nbclient and ipykernel are not installed")

import nbformat  # noqa: E402
from jupyter_client.kernelspec import KernelSpecManager  # noqa: E402

SETUP = """
import kitchen_noop
from crucible_kitchen import run

quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
config = {"model": "any", "dataset": "rows", "test_size": 4, "max_steps": 30, "run_id": "<r>"}
"""
RUN = 'result = run("supervised", config, adapters=quick, progress=True)'


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Execute a run in a cell; return what the cell shows."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(SETUP), nbformat.v4.new_code_cell(RUN)]
    )
    client = nbclient.NotebookClient(
        notebook,
        timeout=240,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.create_kernel_manager()
    manager = client.km
    manager.kernel_spec_manager = KernelSpecManager(ensure_native_kernel=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager.kernel_spec.argv = command  # of this environment, whatever else is installed
    client.execute()
    made: list[Any] = notebook.cells[1].outputs
    return made


def test_a_cell_shows_what_happens_and_one_bar(outputs: list[Any]) -> None:
    text = "".join(each.text for each in outputs if each.output_type == "stream")
    assert text.startswith("supervised run <r> begins\n  training_client: kitchen_noop.")
    assert "\nstep 30: test/nll " in text
    [bar] = [each.data for each in outputs if each.output_type == "display_data"]
    assert '<progress value="30" max="30"' in bar["text/html"]
    assert bar["text/plain"].startswith("30/30  loss ")


def test_the_bar_needs_no_widgets_and_nothing_is_said_of_them(outputs: list[Any]) -> None:
    assert {each.output_type for each in outputs} == {"stream", "display_data"}
    assert {each.name for each in outputs if each.output_type == "stream"} == {"stdout"}
    assert "widget" not in str(outputs)
