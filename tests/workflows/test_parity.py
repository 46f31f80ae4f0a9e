"""The same steps on several backends, and how far their numbers are apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import parity_backends as backends
import pytest
from crucible_kitchen import ConfigurationError, NotFound, Unavailable, run
from crucible_kitchen.parity import Report, compare
from parity_backends import of
from rows_in_memory import RowsInMemory

import kitchen_noop

CONFIG: dict[str, Any] = {
    "model": "any",
    "dataset": "sums",
    "batch_size": 4,
    "learning_rate": 0.05,
    "render_cache": False,
}
SUMS = RowsInMemory(
    {"train": [{"prompt": f"{n} + {n} =", "completion": f" {2 * n}"} for n in range(40)]}
)
EXACT = of(backends.Exact())

REUSING = """
import numpy as np
from crucible_kitchen import AdamParams, Datum, ModelInput, SessionConfig, WorkflowConfig


def reusing(kitchen, config: WorkflowConfig):
    client = kitchen.training_client
    session = client.start_session(SessionConfig("any"))
    tokens, targets, weights = np.arange(4), np.arange(1, 5), np.zeros(4, np.float32)
    datum = Datum(ModelInput.from_ints(tokens), {"target_tokens": targets, "weights": weights})
    for step in range(3):
        tokens += 1
        targets += 1
        weights += 1
        passed = client.forward_backward(session, [datum], "cross_entropy")
        updated = client.optim_step(session, 0.05, AdamParams())
        client.await_(passed)
        client.await_(updated)
    client.close_session(session)
"""


def compared(
    *others: Any, workflow: str = "supervised", first: Any = EXACT, **changed: Any
) -> Report:
    asked = {
        name: changed.pop(name) for name in ("tolerances", "first_step_only") if name in changed
    }
    steps = changed.pop("steps", 4)
    rows = changed.pop("rows", SUMS)
    clients = {"reference": first} | {f"other{n}": each for n, each in enumerate(others)}
    adapters = {"dataset_store": rows}
    return compare(workflow, CONFIG | changed, clients, adapters=adapters, steps=steps, **asked)


def beyond(report: Report) -> list[set[str]]:
    """Return the figures that are beyond their tolerance in any step, of each backend."""
    return [
        {figure for step in range(len(each.differences)) for figure in each.beyond(step)}
        for each in report.others
    ]


def test_backends_that_compute_the_same_are_within_every_tolerance() -> None:
    report = compared(of(backends.Exact()), of(backends.LeavesOut()))
    assert report.within, report.problems
    assert [len(backend.measured) for backend in report.backends] == [4, 4, 4]
    for each in report.others:
        assert each.differences[3].figures() == {"loss": 0, "grad_norm": 0, "logprobs": 0}


@pytest.mark.parametrize(
    ("adapter", "figures", "first_step"),
    [
        (backends.MeanLoss(), {"loss"}, ["loss"]),
        (backends.Clips(), {"loss", "logprobs"}, []),
        (backends.Stale(), {"loss", "logprobs", "grad_norm"}, []),
        (backends.RoundsSilently(), {"logprobs"}, ["logprobs"]),
        (backends.DrawsSilently(), {"loss", "logprobs", "grad_norm"}, ["grad_norm"]),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "Options") else None,
)
def test_what_a_backend_does_wrong_is_found(
    adapter: Any, figures: set[str], first_step: list[str]
) -> None:
    report = compared(of(adapter))
    assert not report.within
    assert beyond(report) == [figures]
    assert report.others[0].beyond(0) == first_step


def test_the_others_get_what_the_workflow_submitted_on_the_reference() -> None:
    report = compared(of(backends.Exact()), lr_schedule="linear", max_steps=8)
    rates = [step.learning_rate for step in report.steps]
    assert rates == pytest.approx([0.05 * (8 - step) / 8 for step in range(4)])  # those of the run
    first = report.steps[0].passes[0]
    assert (first.loss_fn, len(first.datums)) == ("cross_entropy", 4)
    assert report.steps[0].tokens == sum(int(mask.sum()) for mask in first.counted)
    # Weights are 1 / tokens: the loss is in nats a token.
    logprobs = report.reference.measured[0].logprobs
    mean = -np.mean(np.concatenate([p[m] for p, m in zip(logprobs, first.counted, strict=True)]))
    assert report.loss(0, report.reference.measured[0]) == pytest.approx(float(mean), rel=1e-6)


def test_evaluations_of_the_run_are_left_out() -> None:
    for steps, total in ((2, 8), (3, 3), (4, 3)):  # before, at and after the end of the run
        reference = backends.Counts()
        report = compared(
            EXACT,
            first=of(reference),
            steps=steps,
            max_steps=total,
            test_size=4,
            eval_on_start=True,
            eval_every=1,
        )
        assert len(report.steps) == min(steps, total)
        assert bool(reference.passes) is (steps > total)  # then the run ends by itself


@pytest.mark.parametrize("reduction", ["sum", "sequence_mean"])
def test_the_loss_is_by_token_however_it_is_reduced(reduction: str) -> None:
    report = compared(of(backends.Exact()), loss_reduction=reduction)
    assert 3 < report.loss(0, report.reference.measured[0]) < 8


def test_preferences_are_compared_by_the_gradients_of_the_reference() -> None:
    pairs = [
        {"prompt": f"{n} + {n} =", "chosen": f" {2 * n}", "rejected": f" {n}"}
        for n in range(10, 30)
    ]
    for adapter, within in ((backends.Exact(), True), (backends.Stale(), False)):
        report = compared(of(adapter), workflow="preference", rows=RowsInMemory({"train": pairs}))
        assert report.within is within
        assert len(report.steps[0].passes[0].datums) == 8  # two sides of four pairs


def test_a_workflow_of_several_updates_a_step_is_compared_update_by_update() -> None:
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    config = {
        "model": "any",
        "environment": {"use": "arithmetic"},
        "batch_size": 2,
        "group_size": 2,
        "max_tokens": 4,
        "num_substeps": 2,
    }
    noop = quick.pop("training_client")
    report = compare("reinforcement", config, {"a": noop, "b": noop}, adapters=quick, steps=3)
    assert report.within, report.problems
    assert [step.passes[0].loss_fn for step in report.steps] == ["importance_sampling"] * 3


def test_nothing_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    client = of(backends.Exact(), checkpoint_dir=folder)
    report = compared(client, first=client, save_every=1, max_steps=2, steps=5)
    assert len(report.steps) == 2  # the run has no more
    assert [*tmp_path.iterdir()] == []


def test_a_run_that_exists_is_neither_continued_nor_written(tmp_path: Path) -> None:
    stores = {
        "dataset_store": SUMS,
        "blob_store": {"use": "fsspec", "url": str(tmp_path / "runs")},
        "metrics_store": {"use": "noop", "latency_scale": 0},
    }
    client = of(backends.Exact(), checkpoint_dir=tmp_path / "checkpoints")
    config = CONFIG | {"run_id": "one", "max_steps": 3}
    run("supervised", config, adapters={**stores, "training_client": client})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    report = compare("supervised", config, {"a": client, "b": client}, adapters=stores)
    assert (len(report.steps), report.within) == (3, True)
    started = compare(
        "supervised",
        CONFIG | {"from_checkpoint": "one"},
        {"a": client, "b": client},
        adapters=stores,
        steps=1,
    )
    assert started.within
    assert started.loss(0, started.reference.measured[0]) < report.loss(
        0, report.reference.measured[0]
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_backend_that_fails_keeps_its_steps_and_its_error_and_the_others_go_on() -> None:
    report = compared(of(backends.Breaks()), of(backends.Exact()))
    broken, fine = report.others
    assert (len(broken.differences), len(fine.differences)) == (2, 4)
    assert broken.backend.error is not None
    assert "the cluster is away" in broken.backend.error
    assert not report.within
    [problem] = report.problems
    assert problem.startswith("other0, step 3: Unavailable: ")


def test_every_session_is_closed_whether_its_steps_were_taken_or_not() -> None:
    counted = [backends.Counts(), backends.Counts(), backends.Counts(breaks=True)]
    compared(*map(of, counted[1:]), first=of(counted[0]))
    assert [each.open for each in counted] == [0, 0, 0]


def test_a_reference_that_fails_is_the_error() -> None:
    with pytest.raises(Unavailable, match="the cluster is away"):
        compared(EXACT, first=of(backends.Breaks()))


def test_a_backend_that_does_not_say_its_norm_is_held_to_the_rest() -> None:
    report = compared(of(backends.Silent()))
    assert report.within
    assert report.others[0].differences[0].grad_norm is None
    assert report.others[0].held(0).keys() == {"loss", "logprobs"}


def test_tolerances_follow_from_the_precision_that_a_backend_says() -> None:
    report = compared(of(backends.Rounds()))
    assert report.within, report.problems
    assert report.others[0].tolerances.logprobs > 1e-2
    assert not compared(of(backends.Rounds()), tolerances={"logprobs": 5e-4}).within


def test_of_low_rank_updates_that_a_server_draws_only_the_first_step_is_held() -> None:
    lora = {"rank": 2}
    report = compared(of(backends.Draws()), lora=lora)
    [other] = report.others
    assert other.first_step_only
    assert report.within, report.problems
    assert [set(other.held(step)) for step in (0, 1)] == [{"loss", "logprobs"}, {"loss"}]
    assert not compared(of(backends.Draws()), lora=lora, tolerances={"curve": 1e-4}).within
    assert not compared(of(backends.Draws())).others[0].first_step_only  # no random numbers


def test_weights_that_do_not_move_are_found_by_the_curve() -> None:
    report = compared(of(backends.Stale()), first_step_only=["other0"], learning_rate=0.5)
    assert beyond(report) == [{"loss"}]


def test_a_curve_that_is_flatter_than_its_tolerance_is_no_proof_of_training_and_that_is_said() -> (
    None
):
    for rate, steps, moves in ((0.05, 4, False), (0.5, 1, False), (0.5, 4, True)):
        for adapter in (backends.Draws(), backends.Stale()):
            report = compared(
                of(adapter),
                of(backends.Exact()),
                first_step_only=["other0"],
                learning_rate=rate,
                steps=steps,
            )
            assert [report.is_blind(each) for each in report.others] == [not moves, False]
            assert (report.moved(steps) > 0.1) is moves
            assert len(report.doubts) == (not moves)
            assert all("other0" in line for line in report.doubts)
            assert report.within or moves  # within is what is held; what is not is in doubt


def test_fewer_steps_than_were_asked_for_are_said() -> None:
    report = compared(EXACT, max_steps=2, steps=4)
    assert report.within
    assert report.doubts == ["the workflow took 2 of the 4 steps that were asked for"]
    assert compared(EXACT, max_steps=2, steps=2).doubts == []


def test_a_workflow_may_fill_its_arrays_anew_for_each_step(tmp_path: Path) -> None:
    (tmp_path / "reusing.py").write_text(REUSING)
    report = compare(f"{tmp_path}/reusing.py:reusing", {}, {"a": EXACT, "b": EXACT}, steps=3)
    assert report.within, report.problems
    sums = [float(step.passes[0].strengths[0].sum()) for step in report.steps]
    assert sums == [4, 8, 12]


def test_where_a_server_does_not_say_that_it_draws_them_the_user_does() -> None:
    lora = {"rank": 2}
    report = compared(of(backends.DrawsSilently()), lora=lora)
    assert not report.within
    assert "first-step-only" in report.others[0].hint
    assert not compared(of(backends.Stale()), lora=lora).others[0].hint
    told = compared(of(backends.DrawsSilently()), lora=lora, first_step_only=["other0"])
    assert told.within, told.problems


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"first_step_only": ["othr0"]}, "did you mean 'other0'"),
        ({"first_step_only": ["reference"]}, "'reference'"),
        ({"learning_rat": 1}, "learning_rat"),
    ],
)
def test_mistakes_are_named_before_anything_runs(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        compared(EXACT, **changed)


def test_a_workflow_that_trains_nothing_has_nothing_to_compare(tmp_path: Path) -> None:
    (tmp_path / "idle.py").write_text(
        "from crucible_kitchen import WorkflowConfig\n"
        "def idle(kitchen, config: WorkflowConfig): ...\n"
    )
    with pytest.raises(ConfigurationError, match="takes no training step"):
        compare(f"{tmp_path}/idle.py:idle", {}, {"a": EXACT, "b": EXACT})


def test_mistakes_of_every_backend_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as error:
        compared(of(backends.Exact(), adress=1), of(backends.Exact(), vocabulry=1))
    assert "other0: adapters.training_client.adress" in str(error.value)
    assert "other1: adapters.training_client.vocabulry" in str(error.value)


def test_one_backend_is_not_a_comparison() -> None:
    with pytest.raises(ConfigurationError, match="two backends"):
        compared()


def test_a_model_that_a_backend_does_not_have_is_its_error() -> None:
    report = compared({"use": backends.Exact(), "models": {"other": 256}})
    assert report.others[0].backend.error is not None
    assert NotFound.__name__ in report.others[0].backend.error
