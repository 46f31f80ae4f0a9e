"""`crucible parity`: the numbers of several backends, side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import Crucible, Outcome

ROOT = Path(__file__).parents[2]
CONFIG = """
[adapters]
dataset_store = { use = "noop", latency_scale = 0 }
[adapters.training_client]
use = "exact"
models = { any = 256 }
address = "one"
[workflow]
use = "supervised"
model = "any"
dataset = "rows"
batch_size = 4
learning_rate = 0.05
render_cache = false
[profile.again.adapters.training_client]
use = "exact"
[profile.stale.adapters.training_client]
use = "stale"
[profile.elsewhere]
adapters = { training_client = { use = "exact", address = "two" }, dataset_store = "none" }
workflow = { batch_size = 7 }
[profile.larger.workflow]
batch_size = 7
"""
ADAPTERS = ("exact", "stale", "silent", "breaks", "other", "draws", "rounds")


@pytest.fixture
def parity(plain_crucible: Crucible, tmp_path: Path) -> Callable[..., Outcome]:
    """The command, in a folder with this configuration, and the adapters above."""
    site = tmp_path / "site"
    about = site / "backends-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: backends\nVersion: 1.0\n")
    lines = "".join(f"training_client.{name} = parity_backends:{name}\n" for name in ADAPTERS)
    (about / "entry_points.txt").write_text(f"[crucible.adapters]\n{lines}")
    (tmp_path / "crucible.toml").write_text(CONFIG)
    path = [site, ROOT / "tests/support", ROOT / "docs/examples"]
    return partial(plain_crucible, "parity", PYTHONPATH=os.pathsep.join(map(str, path)))


def test_each_step_of_each_backend_is_a_row_and_the_reference_is_first(
    parity: Callable[..., Outcome],
) -> None:
    outcome = parity("--backends", "exact,again,stale", "--steps", "2")
    assert outcome.code == 1, outcome
    assert outcome.err == ""
    steps, summary = outcome.out.split("\n\n")
    rows = [line.split() for line in steps.splitlines()]
    assert [row[:2] for row in rows[1:]] == [
        ["exact", "1"], ["exact", "2"], ["again", "1"], ["again", "2"], ["stale", "1"],
        ["stale", "2"],
    ]  # fmt: skip
    assert [row[-1] for row in rows[1:]] == ["ref", "ref", "ok", "ok", "ok", "FAIL"]
    assert rows[3][2:4] == [rows[1][2], "0.0e+00"]
    assert steps.splitlines()[-1].count("*") == 3
    assert "within" in summary.splitlines()[2]
    assert "beyond" in summary.splitlines()[3]
    assert "FAIL stale, step 2: loss differs by " in summary
    assert max(map(len, steps.splitlines())) <= 80


def test_it_is_a_test_that_passes_where_everything_is_within(
    parity: Callable[..., Outcome], tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    outcome = parity("--backends", "exact,again", "--steps", "1")
    assert outcome.code == 0, outcome
    assert sorted(tmp_path.iterdir()) == before


def test_with_json_everything_is_one_document(parity: Callable[..., Outcome]) -> None:
    outcome = parity("--backends", "exact,silent,stale", "--steps", "2", "--json")
    assert outcome.code == 1
    found = json.loads(outcome.out)
    assert (found["reference"], found["within"]) == ("exact", False)
    assert [each["name"] for each in found["backends"]] == ["exact", "silent", "stale"]
    assert found["backends"][1]["steps"][0]["grad_norm"] is None
    silent, stale = found["differences"]["silent"], found["differences"]["stale"]
    assert silent["within"]
    assert silent["steps"][0]["held"] == ["logprobs", "loss"]
    assert set(stale["steps"][1]["beyond"]) == {"loss", "grad_norm", "logprobs"}
    assert stale["tolerances"]["loss"] == 1e-5
    assert len(found["problems"]) == 3
    assert found["doubts"] == []
    assert stale["reference_moved"] == silent["reference_moved"] > 0


def test_a_workflow_that_ends_early_is_said(parity: Callable[..., Outcome]) -> None:
    outcome = parity("--backends", "exact,again", "--steps", "20", "workflow.max_steps=2")
    assert outcome.code == 0, outcome
    assert outcome.out.endswith("the workflow took 2 of the 20 steps that were asked for\n")


def test_options_that_adapters_share_are_given_to_all_and_others_are_not(
    parity: Callable[..., Outcome],
) -> None:
    outcome = parity("--backends", "exact,stale,other", "--json")
    errors = [each["error"] for each in json.loads(outcome.out)["backends"]]
    assert errors[:2] == [None, None]  # the profile `stale` has the models of `exact`
    assert errors[2] is not None
    assert "address='elsewhere'" in errors[2]


def test_a_backend_that_fails_is_a_row_and_the_others_go_on(
    parity: Callable[..., Outcome],
) -> None:
    outcome = parity("--backends", "exact,breaks,again", "--steps", "3")
    assert outcome.code == 1
    assert "FAIL breaks, step 3: Unavailable: " in outcome.out
    steps, summary = outcome.out.split("\n\n")
    assert [line.split() for line in steps.splitlines() if "error" in line] == [
        ["breaks", "3", "error", "FAIL"]
    ]
    assert "\nbreaks   0.0e+00/1e-05  0.0e+00/0.0001  0.0e+00/0.0001  error\n" in summary
    assert sum(line.startswith("again") for line in steps.splitlines()) == 3


def test_what_is_held_to_the_first_step_is_shown(parity: Callable[..., Outcome]) -> None:
    settings = ("workflow.lora.rank=2", "--backends", "exact,draws", "--steps", "2")
    outcome = parity(*settings)
    assert outcome.code == 1
    assert "--first-step-only draws" in outcome.out
    outcome = parity(*settings, "--first-step-only", "draws")
    assert outcome.code == 0, outcome
    assert "draws is held to step 1" in outcome.out
    last = [line for line in outcome.out.splitlines() if line.startswith("draws")][1]
    assert last.endswith("curve")
    assert last.count("(") == 2  # the norm and the logprobs, which are not held
    assert "it is not known whether the weights of draws move" in outcome.out


def test_what_follows_from_a_backend_is_said(parity: Callable[..., Outcome]) -> None:
    outcome = parity("--backends", "exact,rounds,silent", "--steps", "1")
    assert outcome.code == 0, outcome
    assert "rounds is compared in bfloat16" in outcome.out
    assert "silent does not say the norm of its gradient" in outcome.out


def test_tolerances_can_be_given(parity: Callable[..., Outcome]) -> None:
    wide = "loss=1,grad_norm=1"
    outcome = parity("--backends", "exact,stale", "--tolerance", wide, "--tolerance", "logprobs=9")
    assert outcome.code == 0, outcome


def test_a_setting_of_the_command_line_is_that_of_profiles_too(
    parity: Callable[..., Outcome],
) -> None:
    setting = "adapters.training_client.models.any=300"
    outcome = parity("--backends", "exact,again,stale", "--steps", "1", setting)
    assert outcome.code == 0, outcome  # all have 300 tokens, so the same random weights
    changed = "adapters.training_client.address=three"
    assert parity("--backends", "exact,elsewhere", "--steps", "1", changed).code == 0


def test_of_a_profile_only_the_training_client_counts_and_that_is_said(
    parity: Callable[..., Outcome],
) -> None:
    outcome = parity("--backends", "exact,elsewhere", "--steps", "1")
    assert outcome.code == 0, outcome
    assert outcome.err == (
        "of [profile.elsewhere] only the training client is used, not adapters.dataset_store, "
        "workflow.batch_size\n"
    )


@pytest.mark.slow
def test_a_plot_is_a_png(parity: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = parity("--backends", "exact,stale", "--plot", "parity.png")
    assert outcome.code == 1
    assert outcome.err == "wrote parity.png\n"
    assert (tmp_path / "parity.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--backends"),
        (["--backends", "exact"], "two backends"),
        (["--backends", "exact,exact"], "twice"),
        (["--backends", "exact,exct"], "did you mean 'exact'?"),
        (["--backends", "exact,agin"], "'again'"),
        (["--backends", "exact,larger"], "sets nothing of [adapters.training_client]"),
        (["--backends", "exact,again", "--tolerance", "los=1"], "did you mean 'loss'?"),
        (["--backends", "exact,again", "--tolerance", "loss=-1"], "not negative"),
        (["--backends", "exact,again", "--plot", "parity.pdf"], ".png"),
        (["--backends", "exact,again", "--plot", "no/parity.png"], "no folder"),
        (["--backends", "exact,again", "workflow.learning_rat=1"], "learning_rate"),
        (["--backends", "exact,again", "--first-step-only", "stale"], "'stale'"),
        (["--backends", "exact,again", "--steps", "0"], "steps"),
    ],
)
def test_a_mistake_is_named(
    parity: Callable[..., Outcome], arguments: list[str], said: str
) -> None:
    outcome: Any = parity(*arguments)
    assert outcome.code == 2, outcome
    assert said in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
