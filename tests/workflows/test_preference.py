"""Preference learning, on noops: the loss, its gradient, what is recorded, how it resumes."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Crucible
from crucible_kitchen import (
    ConfigurationError,
    Event,
    InvalidInput,
    Kitchen,
    TrainingResult,
)
from crucible_kitchen.workflows import run_in
from crucible_kitchen.workflows.preference import PreferenceConfig, check, loss_of, preview
from hypothesis import given
from hypothesis import strategies as st
from rows_in_memory import Row, RowsInMemory

import kitchen_noop

CONFIG: dict[str, Any] = {
    "model": "any",
    "dataset": "pairs",
    "batch_size": 4,
    "epochs": 2,
    "learning_rate": 0.01,
    "render_cache": False,
}


def config(**changed: Any) -> PreferenceConfig:
    return PreferenceConfig(**CONFIG | changed)


def pairs(count: int) -> list[Row]:
    """Pairs whose chosen answer is the longer one in two of three."""
    return [
        {"prompt": f"{n} + {n} =", "chosen": f" {2 * n}{'.' * (n % 3)}", "rejected": f" {n % 9}."}
        for n in range(10, 10 + count)
    ]


def kitchen_of(train: list[Row], test: list[Row] | None = None, **adapters: Any) -> Kitchen:
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    splits = {"train": train, **({} if test is None else {"test": test})}
    return Kitchen({**quick, "dataset_store": RowsInMemory(splits), **adapters})


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    with kitchen_of(pairs(10), pairs(6)[4:]) as made:
        yield made


def train(kitchen: Kitchen, **changed: Any) -> TrainingResult:
    result = run_in(kitchen, "preference", CONFIG | changed)
    assert isinstance(result, TrainingResult)
    return result


def recorded(kitchen: Kitchen, run_id: str) -> dict[tuple[str, int | None], float]:
    """Return every value but the times, by metric and step."""
    entries = kitchen.metrics_store.read(run_id)
    made = {(entry.metric, entry.step): entry.value for entry in entries}
    assert len(made) == len(entries), "a row was recorded twice"
    return {key: v for key, v in made.items() if key[0] not in ("time/step", "tokens_per_second")}


def record(kitchen: Kitchen, run_id: str) -> dict[str, Any]:
    return dict(json.loads(kitchen.blob_store.read(f"{run_id}/run.json")))


# --- the loss ---

SETTINGS = st.one_of(
    st.builds(
        lambda beta, smoothing: config(beta=beta, label_smoothing=smoothing),
        st.floats(0.01, 2),
        st.floats(0, 0.49),
    ),
    st.builds(lambda beta: config(beta=beta, loss="ipo"), st.floats(0.01, 2)),
)
RATIOS = st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), min_size=1, max_size=4)


@given(SETTINGS, RATIOS, st.data())
def test_the_gradient_is_that_of_finite_differences(
    settings: PreferenceConfig, ratios: list[tuple[float, float]], data: st.DataObject
) -> None:
    at = np.array(ratios)
    lengths = np.array(
        data.draw(
            st.lists(st.tuples(*[st.integers(1, 99)] * 2), min_size=len(at), max_size=len(at))
        )
    ).astype(np.float64)
    _, slopes = loss_of(at, lengths, settings)
    step = 1e-4
    for side in (0, 1):
        moved = np.zeros_like(at)
        moved[:, side] = step
        up, _ = loss_of(at + moved, lengths, settings)
        down, _ = loss_of(at - moved, lengths, settings)
        np.testing.assert_allclose(slopes[:, side], (up - down) / (2 * step), rtol=1e-4, atol=1e-7)


def of_one(chosen: float, rejected: float, **changed: Any) -> float:
    losses, _ = loss_of(np.array([[chosen, rejected]]), np.array([[4.0, 2.0]]), config(**changed))
    return float(losses[0])


def test_the_losses_are_those_of_the_papers() -> None:
    def log_sigmoid(x: float) -> float:
        return -math.log1p(math.exp(-x))

    assert of_one(3, 1, beta=0.5) == pytest.approx(-log_sigmoid(1))
    smoothed = -0.8 * log_sigmoid(1) - 0.2 * log_sigmoid(-1)
    assert of_one(3, 1, beta=0.5, label_smoothing=0.2) == pytest.approx(smoothed)
    assert of_one(3, 1, beta=0.5, loss="ipo") == pytest.approx((3 / 4 - 1 / 2 - 1) ** 2)


def test_large_ratios_overflow_nowhere() -> None:
    for ratio in (-1e5, 1e5):
        losses, slopes = loss_of(np.array([[ratio, 0.0]]), np.ones((1, 2)), config(beta=1))
        assert np.isfinite(losses).all()
        assert np.isfinite(slopes).all()


# --- steps and evaluations ---

AT_EACH_STEP = (
    *("dpo_loss", "accuracy", "margin", "chosen_reward", "rejected_reward"),
    *("num_pairs", "num_tokens"),
)


def test_each_step_and_each_evaluation_have_one_row_of_each_metric(kitchen: Kitchen) -> None:
    result = train(kitchen, test_split="test", eval_every=4)
    rows = recorded(kitchen, result.run_id)
    for name in (*AT_EACH_STEP, "learning_rate", "progress", "grad_norm"):
        assert [step for metric, step in rows if metric == name] == list(range(1, 7)), name
    for name in (*AT_EACH_STEP, "longer_accuracy", "reference_accuracy"):
        assert [step for metric, step in rows if metric == f"test/{name}"] == [4, 6], name
    assert [rows["num_pairs", step] for step in range(1, 7)] == [4, 4, 2] * 2
    assert rows["test/num_pairs", 6] == 2
    assert rows["margin", 5] == pytest.approx(rows["chosen_reward", 5] - rows["rejected_reward", 5])


def test_before_the_first_step_policy_and_reference_are_the_same(kitchen: Kitchen) -> None:
    result = train(kitchen, test_split="test", eval_on_start=True)
    rows = recorded(kitchen, result.run_id)
    for where, step in (("", 1), ("test/", 0)):
        assert rows[f"{where}dpo_loss", step] == pytest.approx(math.log(2))
        assert rows[f"{where}margin", step] == 0
    assert rows["dpo_loss", 4] != pytest.approx(math.log(2))


def test_the_baselines_are_the_longer_answer_and_the_likelier_one() -> None:
    rows = [
        {"prompt": "a", "chosen": "bb", "rejected": "b"},
        {"prompt": "b", "chosen": "cc", "rejected": "c"},
        {"prompt": "c", "chosen": "d", "rejected": "e"},
        {"prompt": "d", "chosen": "f", "rejected": "gg"},
    ]
    with kitchen_of(rows, rows) as kitchen:
        metrics = train(kitchen, test_split="test").metrics
    assert metrics["test/longer_accuracy"] == 0.5
    # Each further token makes an answer less likely, so of lengths that differ the shorter wins.
    assert metrics["test/reference_accuracy"] in (0.25, 0.5)


def test_the_gradient_is_on_the_answers_alone(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    client = kitchen.training_client
    submit = client.forward_backward

    def spy(session: Any, datums: Any, *rest: Any) -> Any:
        sent.append(datums)
        return submit(session, datums, *rest)

    monkeypatch.setattr(client, "forward_backward", spy)
    train(kitchen, max_steps=1)
    [datums] = sent
    # At h = 0 the slope of -log sigmoid is -1/2; the weights are minus the gradient.
    for side, datum in enumerate(datums):
        sign = -1 if side % 2 else 1
        weights = datum.loss_fn_inputs["weights"]
        prompt = len("10 + 10 =") - 1
        assert not weights[:prompt].any()
        assert weights[prompt:] == pytest.approx(sign * 0.1 / 2 / 4)


# --- the reference, and runs that resume ---


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize(
    ("callback", "nth", "resumed_at"),
    [
        ("forward_backward", 1, 0),  # before the first step
        ("save_checkpoint_async", 3, 2),  # inside an epoch of three steps
        ("save_checkpoint_async", 4, 3),  # at its boundary
        ("save_weights_for_sampler", 1, 6),  # at the end
    ],
)
def test_a_resumed_run_compares_with_the_weights_that_it_started_from(
    kitchen: Kitchen, callback: str, nth: int, resumed_at: int
) -> None:
    changed: dict[str, Any] = {"test_split": "test", "save_every": 1, "submit_ahead": 0}
    expected = recorded(kitchen, train(kitchen, **changed, run_id="whole").run_id)
    client: Any = kitchen.training_client
    original, count = getattr(client, callback), 0

    def kills(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == nth:
            raise Killed
        return original(*args, **kwargs)

    setattr(client, callback, kills)
    with pytest.raises(Killed):
        train(kitchen, **changed, run_id="same")
    delattr(client, callback)
    assert record(kitchen, "same")["state"]["step"] == resumed_at
    train(kitchen, **changed, run_id="same")
    assert recorded(kitchen, "same") == expected


def test_a_run_from_a_checkpoint_compares_with_the_weights_of_the_checkpoint(
    kitchen: Kitchen,
) -> None:
    first = train(kitchen, run_id="first")
    assert first.metrics["margin"] != 0
    second = train(kitchen, run_id="second", from_checkpoint="first")
    assert recorded(kitchen, second.run_id)["margin", 1] == 0


def test_the_reference_is_computed_once_in_batches(kitchen: Kitchen) -> None:
    called: list[str] = []
    sizes: list[int] = []

    def observer(event: Event) -> None:
        if event.name == "adapter.call" and event.attributes["port"] == "training_client":
            called.append(event.attributes["callback"])

    kitchen.observe(observer)
    client: Any = kitchen.training_client
    forward = client.forward

    def counted(session: Any, datums: Any) -> Any:
        sizes.append(len(datums))
        return forward(session, datums)

    client.forward = counted
    train(kitchen, test_split="test", eval_batch_size=3)
    # Of 10 pairs and of 2, then of each of 6 steps, then of the 2 again.
    assert sizes == [6, 6, 6, 2, 4, *[8, 8, 4] * 2, 4]
    assert called[: called.index("await_")].count("forward") > 1, "batches are submitted ahead"


def test_how_far_the_reference_is_is_reported(kitchen: Kitchen) -> None:
    told: list[dict[str, Any]] = []
    kitchen.observe(lambda e: told.append(dict(e.attributes)) if "reference" in e.name else None)
    train(kitchen, test_split="test")
    last = [(each["purpose"], each["pairs"], each["total"]) for each in told]
    assert last == [("train", 10, 10), ("test", 2, 2)]


def test_changed_pairs_are_refused_with_both_digests() -> None:
    store = RowsInMemory({"train": pairs(10)})
    with kitchen_of([], dataset_store=store) as kitchen:
        client: Any = kitchen.training_client
        client.optim_step = kill
        with pytest.raises(Killed):
            train(kitchen, run_id="same")
        del client.optim_step
        before = record(kitchen, "same")["depends_on"]["train"]["sha256"]
        store.splits = {"train": [*pairs(9), {**pairs(10)[9], "rejected": " 7"}]}
        with pytest.raises(ConfigurationError, match=f"train: sha256 was '{before}' and is '"):
            train(kitchen, run_id="same")


def kill(*arguments: Any, **named: Any) -> None:
    raise Killed


# --- what is refused, and what is said of the rows ---


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"loss": "ipo", "label_smoothing": 0.1}, "label_smoothing is of loss"),
        ({"label_smoothing": 0.5}, "label_smoothing"),
        ({"loss": "hinge"}, "loss"),
        ({"beta": 0}, "beta"),
        ({"lora": {"rank": 2, "dropout": 0.1}}, "lora.dropout must be 0"),
        ({"completion": "{a}"}, "completion is of rows with one answer"),
        ({"messages_field": "a"}, "messages_field is of rows with one answer"),
        ({"text_field": "a"}, "text_field is of rows with one answer"),
        ({"train_on": "all_tokens"}, "answers alone are compared"),
        ({"check_rows": "first"}, "rendered later; leave out check_rows"),
        ({"streaming": True, "max_steps": 3}, "streamed; leave out streaming"),
        ({"loss_type": "ipo"}, "did you mean 'loss'"),
        ({"ref_model": "other"}, "from_checkpoint"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    kitchen: Kitchen, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        train(kitchen, **changed)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "rejected side are the same"),
        ({"prompt": "a", "chosen": "", "rejected": "b"}, "its chosen side is empty"),
        ({"prompt": "a", "chosen": 1, "rejected": 2}, "the field 'chosen' is a int"),
        (
            {
                "chosen": [{"role": "user", "content": "a"}],
                "rejected": [{"role": "user", "content": "b"}],
            },
            "it has no prompt",
        ),
    ],
)
def test_rows_that_are_not_pairs_are_named_before_the_first_step(row: Row, message: str) -> None:
    with kitchen_of([*pairs(2), row]) as kitchen:
        with pytest.raises(InvalidInput, match=rf"row 2 of pairs \[train\]: .*{message}"):
            train(kitchen, run_id="same")
        assert kitchen.blob_store.list("") == []


def test_a_training_client_without_forward_is_refused(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kitchen.training_client, "supports", lambda name: name != "forward")
    with pytest.raises(ConfigurationError, match=r"'kitchen_noop.training_client' has no forward"):
        train(kitchen)


def test_both_sides_of_a_pair_are_shown(kitchen: Kitchen) -> None:
    assert list(preview(kitchen, config(), 1)) == [
        "row 0, 14 tokens\n10 + 10 =⟦ 20.<|im_end|>⟧",
        "row 0, 13 tokens\n10 + 10 =⟦ 1.<|im_end|>⟧",
    ]


def test_the_doctor_tries_a_pair_to_train_and_one_to_evaluate_on(kitchen: Kitchen) -> None:
    tried = dict(check(kitchen, config(test_split="test")))
    assert tried["train rows"].startswith("row 0: ")
    assert tried["test rows"].startswith("row 0: ")


def test_the_record_counts_sequences_and_prompts_that_are_also_trained_on(
    kitchen: Kitchen,
) -> None:
    kept = record(kitchen, train(kitchen, test_split="test").run_id)
    assert kept["rows"]["train"]["rows"] == 10
    assert kept["rows"]["train"]["sequences"] == 20
    assert kept["test_prompts_also_in_train"] == 2
    assert record(kitchen, train(kitchen, test_size=3).run_id)["test_prompts_also_in_train"] == 0


# --- the example ---

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def test_the_example_runs_on_noops(plain_crucible: Crucible, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "docs" / "examples")
    noops = ("adapters.training_client=noop", "adapters.completer=noop")
    outcome = plain_crucible(
        "run", "docs/examples/preference.toml", *noops, "workflow.max_steps=20"
    )
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    for name in ("dpo_loss", "margin", "test/accuracy", "test/longer_accuracy"):
        assert f"\n{name} " in outcome.out


def test_the_script_makes_the_pairs_of_the_example() -> None:
    script = [sys.executable, str(EXAMPLES / "make_preference.py"), "--check"]
    outcome = subprocess.run(script, check=False, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout


def test_the_sides_of_the_example_are_a_right_and_a_wrong_sum() -> None:
    for name, count in (("train", 2000), ("test", 200)):
        lines = (EXAMPLES / "preference" / f"{name}.jsonl").read_text().splitlines()
        assert len(lines) == count
        for row in map(json.loads, lines):
            right = sum(map(int, row["prompt"].rstrip("=").split("+")))
            assert int(row["chosen"]) == right != int(row["rejected"])
