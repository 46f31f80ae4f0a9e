"""The supervised workflow, on noops: what it submits, records, saves, and how it goes on."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from crucible_kitchen import (
    AdamParams,
    AdapterError,
    Completion,
    ConfigurationError,
    Event,
    ForwardBackwardResult,
    InvalidInput,
    Kitchen,
    LoraConfig,
    NotFound,
    RateLimited,
    SamplingParams,
    SessionConfig,
    TrainingResult,
    Unavailable,
    hookimpl,
)
from crucible_kitchen.workflows import run_in, runs
from crucible_kitchen.workflows.rows.judge import longest_input
from crucible_kitchen.workflows.runs import Run
from crucible_kitchen.workflows.supervised import (
    SupervisedConfig,
    check,
    preview,
)

import kitchen_noop

CONFIG = {
    "model": "any",
    "dataset": "rows",
    "test_dataset": "rows",
    "test_split": "test",
    "test_size": 20,
    "batch_size": 8,
    "max_steps": 12,
    "learning_rate": 0.01,
    "warmup_ratio": 0.25,
}
NO_TEST: dict[str, Any] = {"test_dataset": None, "test_split": None, "test_size": None}


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    with Kitchen(noops()) as made:
        yield made


def noops(**training_client: Any) -> dict[str, Any]:
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    quick["training_client"] |= training_client
    return quick


def train(kitchen: Kitchen, **changed: Any) -> TrainingResult:
    result = run_in(kitchen, "supervised", {**CONFIG, **changed})
    assert isinstance(result, TrainingResult)
    return result


def calls(kitchen: Kitchen) -> list[str]:
    """Return the callbacks of the training client from now on, as they are told."""
    names: list[str] = []

    def observer(event: Event) -> None:
        if event.name == "adapter.call" and event.attributes["port"] == "training_client":
            names.append(event.attributes["callback"])

    kitchen.observe(observer)
    return names


def rows(kitchen: Kitchen, run_id: str) -> dict[tuple[str, int | None], float]:
    entries = kitchen.metrics_store.read(run_id)
    made = {(entry.metric, entry.step): entry.value for entry in entries}
    assert len(made) == len(entries), "a row was recorded twice"
    return made


def record(kitchen: Kitchen, run_id: str) -> dict[str, Any]:
    return dict(json.loads(kitchen.blob_store.read(f"{run_id}/run.json")))


TIMES = ("time/step", "tokens_per_second")


def test_each_step_has_one_row_of_each_metric_under_the_fields_names(kitchen: Kitchen) -> None:
    result = train(kitchen)
    recorded = rows(kitchen, result.run_id)
    for name in (
        "train_mean_nll",
        "num_tokens",
        "learning_rate",
        "progress",
        "grad_norm",
        *TIMES,
    ):
        assert [step for metric, step in recorded if metric == name] == list(range(1, 13)), name
    assert [step for metric, step in recorded if metric == "test/nll"] == [12]
    assert recorded["progress", 12] == 1.0
    assert recorded["learning_rate", 1] == pytest.approx(0.01 / 3)
    assert result.metrics["test/nll"] == recorded["test/nll", 12]


def test_steps_are_submitted_before_the_last_one_is_awaited(kitchen: Kitchen) -> None:
    told = calls(kitchen)
    train(kitchen, **NO_TEST, max_steps=3, submit_ahead=1)
    submitted = [name for name in told if name in ("forward_backward", "optim_step", "await_")]
    step, wait = ["forward_backward", "optim_step"], ["await_", "await_"]
    assert submitted[:-1] == [*step, *step, *wait, *step, *wait, *wait]
    assert submitted[-1] == "await_"  # of the checkpoint


def test_the_batches_cover_every_row_once_an_epoch_in_an_order_of_the_seed(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def batches(**changed: Any) -> list[list[str]]:
        seen: list[list[str]] = []
        client = kitchen.training_client
        submit = client.forward_backward

        def spy(session: Any, datums: Any, *rest: Any) -> Any:
            seen.append([str(d.model_input.to_ints()) for d in datums])
            return submit(session, datums, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(client, "forward_backward", spy)
            train(kitchen, max_steps=None, epochs=2, batch_size=300, **changed)
        return seen

    first, second = batches(seed=1), batches(seed=2)
    assert [len(batch) for batch in first] == [300, 300, 300, 100] * 2
    one, two = (Counter(row for batch in first[i : i + 4] for row in batch) for i in (0, 4))
    assert one == two
    assert first[:4] != first[4:]
    assert first != second
    assert first == batches(seed=1)


@pytest.mark.parametrize(
    ("reduction", "total"), [("token_mean", 1.0), ("sequence_mean", 1.0), ("sum", None)]
)
def test_the_weights_of_a_step_make_its_loss_what_was_asked_for(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch, reduction: str, total: float | None
) -> None:
    sums = []
    client = kitchen.training_client
    submit = client.forward_backward

    def spy(session: Any, datums: Any, *rest: Any) -> Any:
        sums.append([d.loss_fn_inputs["weights"].sum() for d in datums])
        return submit(session, datums, *rest)

    monkeypatch.setattr(client, "forward_backward", spy)
    train(kitchen, max_steps=2, loss_reduction=reduction)
    for weights in sums:
        if total is None:
            assert all(weight >= 1 and weight == int(weight) for weight in weights)
        else:
            assert sum(weights) == pytest.approx(total)
        if reduction == "sequence_mean":
            assert weights == pytest.approx([1 / 8] * 8)


def test_exact_match_asks_the_completer_with_the_weights_of_the_moment(kitchen: Kitchen) -> None:
    told = calls(kitchen)
    result = train(kitchen, exact_match=True, eval_every=6)
    # Once to try the completer before the first step, twice to evaluate, once to keep.
    assert told.count("save_weights_for_sampler") == 4
    assert told.index("save_weights_for_sampler") < told.index("forward_backward")
    recorded = rows(kitchen, result.run_id)
    assert [s for m, s in recorded if m == "test/exact_match"] == [6, 12]


class Deaf:
    """A completer that knows no model."""

    @hookimpl
    def complete(self, params: SamplingParams, prompt: Any) -> Completion:
        raise NotFound(f"no model {params.model!r}")

    @hookimpl
    def complete_batch(self, params: SamplingParams, prompts: Any) -> list[Any]:
        return [NotFound(f"no model {params.model!r}") for _ in prompts]


def test_a_completer_that_cannot_read_the_weights_shows_before_the_first_step() -> None:
    with Kitchen({**noops(), "completer": Deaf()}) as kitchen:
        told = calls(kitchen)
        with pytest.raises(NotFound, match="no model 'noop://"):
            train(kitchen, exact_match=True)
    assert "forward_backward" not in told


@pytest.mark.parametrize(
    ("told", "limit"),
    [({}, None), ({"model_max_length": 64}, 64), ({"model_max_length": 10**30}, None)],
)
def test_the_longest_input_is_what_the_tokenizer_tells(
    told: dict[str, int], limit: int | None
) -> None:
    assert longest_input(SimpleNamespace(**told)) == limit


def test_a_row_that_is_left_out_is_shown_as_that(kitchen: Kitchen) -> None:
    config = SupervisedConfig(**CONFIG, max_length=1, too_long="drop")
    assert list(preview(kitchen, config, 2)) == [
        "row 0 is left out, too long",
        "row 1 is left out, too long",
    ]


def test_the_record_tells_what_ran_and_how_it_ended(kitchen: Kitchen) -> None:
    result = train(kitchen, save_every=5, keep_checkpoints=2)
    kept = record(kitchen, result.run_id)
    assert kept["status"] == "done"
    standing = {"step": 12, "best": None, "waited": 0}
    assert kept["state"] == {"step": 12, "checkpoint": result.checkpoint, "standing": standing}
    assert kept["config"]["batch_size"] == 8
    assert kept["config"]["seed"] == 0
    assert kept["adapters"]["training_client"]["use"] == "kitchen_noop.training_client"
    assert "crucible-kitchen" in kept["packages"]
    assert kept["metrics"]["test/nll"] == result.metrics["test/nll"]
    assert kept["weights"] == result.weights
    assert list(kitchen.training_client.list_checkpoints()) == kept["checkpoints"]
    assert len(kept["checkpoints"]) == 2


def test_metrics_are_safe_before_the_checkpoint_and_the_state_before_the_old_one_goes(
    kitchen: Kitchen,
) -> None:
    told: list[str] = []
    kitchen.observe(lambda event: told.append(event.attributes.get("callback", event.name)))
    train(kitchen, save_every=6, **NO_TEST)
    last = len(told) - told[::-1].index("save_checkpoint_async") - 1
    assert told[last - 1 : last + 6] == [
        "flush",
        "save_checkpoint_async",
        "await_",
        "read",  # of the lease
        "write",
        "delete_checkpoint",
        "training.checkpoint",
    ]


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


INSTANTS = [
    ("training_client", "forward_backward"),
    ("training_client", "optim_step"),
    ("training_client", "await_"),
    ("metrics_store", "record_many"),
    ("metrics_store", "flush"),
    ("training_client", "save_checkpoint_async"),
    ("blob_store", "write"),
    ("training_client", "delete_checkpoint"),
    ("training_client", "save_weights_for_sampler"),
]
RESUMED: dict[str, Any] = {"save_every": 4, "eval_every": 6, "run_id": "same"}


def stopped(
    kitchen: Kitchen, port: str, callback: str, *, by: type[BaseException], nth: int, after: bool
) -> None:
    """Run until the nth call of a callback, which raises before or after it did its work."""
    bound = getattr(kitchen, port)
    original, count = getattr(bound, callback), 0

    def raises(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == nth and not after:
            raise by
        result = original(*args, **kwargs)
        if count == nth:
            raise by
        return result

    setattr(bound, callback, raises)
    try:
        train(kitchen, **RESUMED)
    except by:
        assert callback == "write" or record(kitchen, "same")["status"] in ("interrupted", "done")
    finally:
        delattr(bound, callback)


def told_of(kitchen: Kitchen) -> dict[str, Any]:
    """Run to the end; return everything that must be as in every other such run."""
    result = train(kitchen, **RESUMED)
    recorded = record(kitchen, "same")
    values = {key: v for key, v in rows(kitchen, "same").items() if key[0] not in TIMES}
    return {
        "steps": result.steps,
        "rows": values,
        "result": {name: v for name, v in result.metrics.items() if name not in TIMES},
        "metrics": {name: v for name, v in recorded["metrics"].items() if name not in TIMES},
        "depends_on": recorded["depends_on"],
        "status": recorded["status"],
    }


@pytest.fixture(scope="module")
def never_stopped() -> dict[str, Any]:
    with Kitchen(noops()) as other:
        return told_of(other)


def assert_goes_on_as(never_stopped: dict[str, Any], kitchen: Kitchen) -> None:
    assert told_of(kitchen) == never_stopped
    left = kitchen.training_client.list_checkpoints()
    assert list(left) == record(kitchen, "same")["checkpoints"]
    assert len(left) == 1
    assert kitchen.blob_store.list("") == ["same/run.json"]


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize(("port", "callback"), INSTANTS)
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_instant_and_resumed_equals_uninterrupted(
    kitchen: Kitchen, never_stopped: Any, port: str, callback: str, after: bool, nth: int
) -> None:
    stopped(kitchen, port, callback, by=Killed, nth=nth, after=after)
    assert_goes_on_as(never_stopped, kitchen)


@pytest.mark.slow
@pytest.mark.parametrize("nth", [1, 6, 7])
@pytest.mark.parametrize(("port", "callback"), [*INSTANTS, ("training_client", "forward")])
@pytest.mark.parametrize("after", [False, True])
def test_interrupted_at_any_instant_and_resumed_equals_uninterrupted(
    kitchen: Kitchen, never_stopped: Any, port: str, callback: str, after: bool, nth: int
) -> None:
    stopped(kitchen, port, callback, by=KeyboardInterrupt, nth=nth, after=after)
    assert_goes_on_as(never_stopped, kitchen)


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupted_run_saves_where_it_is(kitchen: Kitchen, after: bool) -> None:
    told: list[Event] = []
    kitchen.observe(told.append)
    changed = RESUMED | {"save_every": 0}
    bound: Any = kitchen.training_client
    original, count = bound.await_, 0

    def interrupts(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == 9:  # of the fifth step
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    bound.await_ = interrupts
    with pytest.raises(KeyboardInterrupt):
        train(kitchen, **changed)
    kept = record(kitchen, "same")
    assert kept["status"] == "interrupted"
    assert kept["state"]["step"] == 6  # the one that was submitted ahead
    assert kept["checkpoints"] == list(bound.list_checkpoints())
    [event] = [event for event in told if event.name == "workflow.interrupted"]
    assert event.attributes["step"] == 6


def test_a_step_that_was_submitted_by_half_is_not_saved(kitchen: Kitchen) -> None:
    """Nobody knows whether the session took the step: saved as the one before, it would be taken
    twice."""
    stopped(kitchen, "training_client", "optim_step", by=KeyboardInterrupt, nth=2, after=True)
    assert record(kitchen, "same")["state"] == {"step": 0, "checkpoint": None}


def test_a_run_that_is_done_stays_done_whatever_comes_while_that_is_written(
    kitchen: Kitchen,
) -> None:
    bound: Any = kitchen.blob_store
    original = bound.write

    def interrupts(path: str, data: bytes) -> None:
        original(path, data)
        if b'"status": "done"' in data:
            raise KeyboardInterrupt

    bound.write = interrupts
    with pytest.raises(KeyboardInterrupt):
        train(kitchen, **RESUMED)
    assert record(kitchen, "same")["status"] == "done"


def test_a_run_in_use_is_refused_and_left_alone(kitchen: Kitchen) -> None:
    def again(event: Event) -> None:
        if event.name == "training.step" and event.attributes["step"] == 3:
            with pytest.raises(ConfigurationError, match="'same' is in use by this process") as e:
                train(kitchen, **RESUMED)
            refused.append(e.value)

    refused: list[ConfigurationError] = []
    kitchen.observe(again)
    assert train(kitchen, **RESUMED).steps == 12
    assert len(refused) == 1
    assert record(kitchen, "same")["status"] == "done"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_process_that_was_forked_from_a_run_neither_ends_it_nor_frees_it(tmp_path: Path) -> None:
    files = {"blob_store": {"use": "fsspec", "url": str(tmp_path)}}
    with Kitchen(noops() | files) as kitchen:
        config = SupervisedConfig(**CONFIG)
        with Run.open(kitchen, "supervised", config, "r") as run:
            if not (forked := os.fork()):
                try:
                    run.finish(None, {})
                except ConfigurationError as error:
                    run.close()
                    os._exit(0 if f"in use by process {os.getppid()} on" in str(error) else 1)
                finally:
                    os._exit(2)
            assert os.waitpid(forked, 0)[1] == 0
            run._lease.check()


def test_a_run_that_was_taken_over_writes_nothing_more(kitchen: Kitchen) -> None:
    def taken(event: Event) -> None:
        if event.name == "training.checkpoint" and event.attributes["step"] == 4:
            other = {"holder": "other", "pid": 1, "host": "elsewhere", "process": "elsewhere"}
            kitchen.blob_store.write("same/lease.json", json.dumps(other).encode())

    kitchen.observe(taken)
    with pytest.raises(ConfigurationError, match="'same' is in use by process 1 on elsewhere"):
        train(kitchen, **RESUMED)
    kept = record(kitchen, "same")
    assert (kept["status"], kept["state"]["step"]) == ("running", 4)
    assert json.loads(kitchen.blob_store.read("same/lease.json"))["holder"] == "other"


def without_rows_of(kitchen: Kitchen, count: int) -> None:
    """Have the data set lose all but its first rows."""
    store: Any = kitchen.dataset_store
    load = store.load_dataset
    store.load_dataset = lambda *args, **kwargs: store.take(load(*args, **kwargs), count)


def test_a_run_does_not_go_on_with_other_rows(kitchen: Kitchen) -> None:
    stopped(kitchen, "training_client", "optim_step", by=Killed, nth=9, after=True)
    before = kitchen.blob_store.read("same/run.json")
    without_rows_of(kitchen, 60)
    with pytest.raises(
        ConfigurationError, match="train: sequences was 1000 and is 60; train: sha256"
    ):
        train(kitchen, **RESUMED)
    assert kitchen.blob_store.read("same/run.json") == before


def test_a_run_does_not_go_on_with_other_rows_to_evaluate_on(kitchen: Kitchen) -> None:
    stopped(kitchen, "training_client", "optim_step", by=Killed, nth=9, after=True)
    store: Any = kitchen.dataset_store
    load = store.load_dataset

    def load_reversed(dataset: str, split: str, *rest: Any) -> Any:
        handle = load(dataset, split, *rest)
        return handle if split == "train" else store.select(handle, range(99, -1, -1))

    store.load_dataset = load_reversed
    with pytest.raises(ConfigurationError, match="test: sha256 was"):
        train(kitchen, **RESUMED)


@pytest.mark.parametrize("key", ["dtype", "device", "micro_batch_tokens"])
def test_a_run_does_not_go_on_where_its_results_would_be_others(kitchen: Kitchen, key: str) -> None:
    client: Any = kitchen.training_client
    info = {"dtype": "float32", "device": "cpu", "micro_batch_tokens": 4096}
    supports = client.supports
    client.supports = lambda name: name == "get_info" or supports(name)
    client.get_info = lambda session: info
    stopped(kitchen, "training_client", "optim_step", by=Killed, nth=9, after=True)
    was, info[key] = info[key], "another"
    with pytest.raises(
        ConfigurationError, match=f"training_client: {key} was {was!r} and is 'another'"
    ):
        train(kitchen, **RESUMED)
    info[key] = was
    assert train(kitchen, **RESUMED).steps == 12


def test_a_start_that_fails_leaves_nothing_behind(kitchen: Kitchen) -> None:
    with pytest.raises(NotFound):
        train(kitchen, run_id="typo", split="no-such-split")
    assert kitchen.blob_store.list("") == []
    assert train(kitchen, run_id="typo").steps == 12


def test_every_place_is_tried_before_the_first_step(kitchen: Kitchen) -> None:
    tried: list[str] = []
    for name in ("blob_store", "metrics_store", "training_client"):
        port: Any = getattr(kitchen, name)
        port.supports = lambda callback, old=port.supports: (
            callback in ("ping", "check_storage") or old(callback)
        )
        port.ping = lambda name=name: tried.append(name)
    client: Any = kitchen.training_client

    def full(session: Any, checkpoints: int) -> None:
        tried.append(f"{checkpoints} checkpoints")
        raise Unavailable("the disk is full")

    client.check_storage = full
    told = calls(kitchen)
    with pytest.raises(Unavailable, match="full"):
        train(kitchen, run_id="full", save_every=4, keep_checkpoints=7)
    assert tried == ["3 checkpoints"]
    assert "forward_backward" not in told
    client.check_storage = lambda session, checkpoints: None
    train(kitchen, run_id="full", save_every=4, keep_checkpoints=7)
    assert tried == ["3 checkpoints", "blob_store", "metrics_store"]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "EOF"),
        (b"\xff", "JSON"),
        (b"[" * 100_000, "recursion"),
        (b'{"run_id": "r", "workflow": "supervised"}', "status"),
        (b'{"run_id": "r", "workflow": "", "status": "", "config": {}, "state": 3}', "state"),
    ],
)
def test_a_damaged_record_is_named_and_kept(kitchen: Kitchen, content: bytes, named: str) -> None:
    kitchen.blob_store.write("r/run.json", content)
    told = r"the blob 'r/run.json' of the blob store is damaged, or not the record of a run"
    with pytest.raises(ConfigurationError, match=f"{told}.*{named}"):
        train(kitchen, run_id="r")
    assert kitchen.blob_store.read("r/run.json") == content


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"state": {"step": -1, "checkpoint": "a"}}, "state: step: Input should be greater"),
        ({"state": {"step": 3, "checkpoint": None}}, "step 3 does not go with the checkpoint None"),
        ({"state": {"step": 0, "checkpoint": "a"}}, "step 0 does not go with the checkpoint 'a'"),
        (
            {"state": {"step": 3, "checkpoint": "a"}, "checkpoints": ["a"]},
            "has taken 3 steps, and is to take 2",
        ),
        ({"checkpoints": []}, "is not among them all"),
        ({"checkpoint_prefix": ""}, "the checkpoint_prefix '' is not its own"),
        ({"checkpoint_prefix": "other/01234567/"}, "the checkpoint_prefix 'other/01234567/' is"),
        ({"checkpoint_prefix": None}, "checkpoint_prefix: Input should be"),
        ({"workflow": "mine"}, "is one of the workflow 'mine', and not of 'supervised'"),
        ({"metrics": {"nll": None}}, "metrics: nll: "),
        ({"metrics": {"nll": "x"}}, "metrics: nll: "),
        ({"template_date": "yesterday"}, "template_date: Input should be a valid date"),
        ({"depends_on": {"train": 3}}, "depends_on: train: Input should be"),
        ({"weights": 3}, "weights: Input should be"),
    ],
)
def test_a_record_that_does_not_fit_together_is_not_gone_on_from(
    kitchen: Kitchen, changed: dict[str, Any], named: str
) -> None:
    train(kitchen, run_id="r", max_steps=2)
    edited = json.dumps(record(kitchen, "r") | {"status": "failed"} | changed).encode()
    kitchen.blob_store.write("r/run.json", edited)
    there = kitchen.training_client.list_checkpoints()
    with pytest.raises(ConfigurationError, match=named):
        train(kitchen, run_id="r", max_steps=2)
    assert kitchen.blob_store.read("r/run.json") == edited
    assert kitchen.training_client.list_checkpoints() == there


def test_a_copied_record_is_not_gone_on_from_for_its_checkpoints_are_the_originals(
    kitchen: Kitchen,
) -> None:
    train(kitchen, run_id="r", max_steps=2)
    kitchen.blob_store.write("copy/run.json", kitchen.blob_store.read("r/run.json"))
    with pytest.raises(ConfigurationError, match=r"'copy/run\.json'.* of another run, 'r'"):
        train(kitchen, run_id="copy", max_steps=2)


@pytest.mark.parametrize(
    "run_id", ["..", "a/../b", "./r", "r//s", "r/", "/r", "r/run.json", "r/lease.json/s"]
)
def test_an_id_that_is_no_path_or_that_of_a_file_of_another_run_is_refused(
    kitchen: Kitchen, run_id: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"workflow\.run_id: .*no part"):
        train(kitchen, run_id=run_id)
    with pytest.raises(ConfigurationError, match=f"the run id {run_id!r}: .*no part"):
        Run.open(kitchen, "mine", SupervisedConfig(**CONFIG), run_id)


@pytest.mark.parametrize("outputs", [[], [{}] * 8, [{"logprobs": [0.0]}] * 8, [{"x": None}] * 9])
def test_outputs_that_do_not_fit_the_batch_are_an_error_of_the_adapter(
    kitchen: Kitchen, outputs: Any
) -> None:
    client: Any = kitchen.training_client
    client.await_ = lambda future: ForwardBackwardResult(loss=1.0, outputs=outputs)
    with pytest.raises(AdapterError, match=r"training_client\..*\.await_: an output with logprobs"):
        train(kitchen)


def test_what_must_be_in_order_is_tried_and_told(kitchen: Kitchen) -> None:
    config = SupervisedConfig(**CONFIG)
    assert list(check(kitchen, config)) == [
        ("model", "any"),
        ("tokenizer", "CharTokenizer"),
        ("storage", "can be written"),
        ("train rows", "row 0: 40 tokens"),
        ("test rows", "row 0: 40 tokens"),
    ]
    assert kitchen.blob_store.list("") == []
    missing = check(kitchen, config.model_copy(update={"split": "no-such-split"}))
    with pytest.raises(NotFound):
        list(missing)


BEST = {"best_metric": "test/nll", "best_mode": "min"}


@pytest.mark.parametrize(
    ("settings", "checkpoints"),
    [
        ({}, 1),
        ({"save_every": 4}, 3),
        ({"eval_every": 2, **BEST}, 4),
        ({"save_every": 1000, "eval_every": 2, **BEST}, 4),
    ],
)
def test_as_much_space_is_tried_as_a_run_takes(
    kitchen: Kitchen, settings: dict[str, Any], checkpoints: int
) -> None:
    client: Any = kitchen.training_client
    asked: list[int] = []
    client.check_storage = lambda session, checkpoints: asked.append(checkpoints)
    changed = {**settings, "keep_checkpoints": 2}
    list(check(kitchen, SupervisedConfig(**CONFIG | changed)))
    train(kitchen, **changed)
    assert asked == [checkpoints, checkpoints]


def test_a_lease_that_a_store_cannot_delete_is_nothing_to_clean(kitchen: Kitchen) -> None:
    store: Any = kitchen.blob_store
    supports = store.supports
    store.supports = lambda callback: callback != "delete" and supports(callback)
    train(kitchen, run_id="r")
    assert store.list("") == ["r/lease.json", "r/run.json"]
    assert list(runs.clean(kitchen)) == []


@pytest.mark.parametrize("other", ["sweep", "sweep/lr", "sweep/lr1/00000012", "s", "Sweep/lr1"])
def test_a_run_leaves_the_checkpoints_of_other_runs_alone(kitchen: Kitchen, other: str) -> None:
    client = kitchen.training_client
    settings = {"save_every": 5, "keep_checkpoints": 2}
    train(kitchen, run_id="sweep/lr1", **settings)
    before = record(kitchen, "sweep/lr1")["checkpoints"]
    train(kitchen, run_id=other, **settings)
    assert list(client.list_checkpoints()) == [*before, *record(kitchen, other)["checkpoints"]]


def test_a_run_leaves_checkpoints_alone_that_no_record_of_it_names(kitchen: Kitchen) -> None:
    client = kitchen.training_client
    session = client.start_session(SessionConfig("any"))
    by_hand = client.save_checkpoint(session, "exp/00000003")
    before = train(kitchen, run_id="exp").checkpoint
    assert kitchen.blob_store.supports("delete")
    kitchen.blob_store.delete("exp/run.json")  # as with another blob store
    after = train(kitchen, run_id="exp").checkpoint
    assert list(client.list_checkpoints("exp/")) == [by_hand, before, after]


def test_a_run_of_a_version_without_a_checkpoint_prefix_goes_on(kitchen: Kitchen) -> None:
    train(kitchen, run_id="old", max_steps=5)
    earlier = record(kitchen, "old")
    del earlier["checkpoint_prefix"]
    kitchen.blob_store.write("old/run.json", json.dumps(earlier | {"status": "failed"}).encode())
    told = calls(kitchen)
    last = train(kitchen, run_id="old", max_steps=5).checkpoint
    assert "optim_step" not in told  # it started from its checkpoint, which has all steps
    assert list(kitchen.training_client.list_checkpoints()) == [last]


def test_a_run_that_is_done_is_not_run_again(kitchen: Kitchen) -> None:
    first = train(kitchen, run_id="one")
    told = calls(kitchen)
    assert train(kitchen, run_id="one") == first
    assert told == []


def test_a_run_cannot_be_continued_with_another_configuration(kitchen: Kitchen) -> None:
    train(kitchen, run_id="one")
    with pytest.raises(ConfigurationError, match=r"workflow\.batch_size was 8 and is 9"):
        train(kitchen, run_id="one", batch_size=9)


def test_a_failed_session_is_set_back_and_goes_on() -> None:
    with Kitchen(noops()) as calm:
        expected = rows(calm, train(calm, save_every=2, run_id="r").run_id)
    with Kitchen(noops(failure_rate=0.05, seed=3)) as stormy:
        told = calls(stormy)
        train(stormy, save_every=2, run_id="r", max_restarts=50)
        assert told.count("load_checkpoint") + told.count("start_session") > 1
        actual = rows(stormy, "r")
    assert actual.keys() == expected.keys()
    assert all(actual[key] == value for key, value in expected.items() if key[0] not in TIMES)


def test_a_session_that_fails_at_the_very_end_is_set_back_too(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = rows(kitchen, train(kitchen, run_id="calm").run_id)
    client = kitchen.training_client
    forward, failures = client.forward, [Unavailable("the node went away")]

    def once(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return forward(*arguments)

    monkeypatch.setattr(client, "forward", once)
    result = train(kitchen, run_id="stormy", max_restarts=1)
    assert not failures
    actual = rows(kitchen, "stormy")
    assert all(actual[key] == value for key, value in expected.items() if key[0] not in TIMES)
    assert list(client.list_checkpoints("stormy/")) == [result.checkpoint]


def test_a_call_that_was_refused_for_now_is_worth_a_restart(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = kitchen.training_client
    submit, refusals = client.optim_step, [RateLimited("slow down", retry_after=0)]

    def once(*arguments: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return submit(*arguments)

    monkeypatch.setattr(client, "optim_step", once)
    assert train(kitchen, max_restarts=1).steps == 12


def test_a_run_that_failed_and_was_continued_tells_no_old_failure(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def refuse(*arguments: Any) -> Any:
            raise InvalidInput("this step is wrong")

        patch.setattr(kitchen.training_client, "optim_step", refuse)
        with pytest.raises(InvalidInput):
            train(kitchen, run_id="r")
    assert record(kitchen, "r")["error"] == "InvalidInput"
    train(kitchen, run_id="r")
    assert record(kitchen, "r")["status"] == "done"
    assert "error" not in record(kitchen, "r")


def test_an_adapters_option_may_be_infinite() -> None:
    adapters = noops()
    store = ModuleType("store")
    vars(store).update(vars(adapters["blob_store"]["use"]))

    class Options(vars(store)["Options"]):  # type: ignore[misc]
        timeout: float = math.inf

    store.Options = Options  # type: ignore[attr-defined]
    adapters["blob_store"]["use"] = store
    with Kitchen(adapters) as kitchen:
        kept = record(kitchen, train(kitchen, max_steps=1).run_id)
    assert kept["adapters"]["blob_store"]["timeout"] == "inf"


@pytest.mark.parametrize(
    ("epochs", "batch_size", "steps"),
    [(1.1, 100, 11), (0.07, 10, 7), (0.001, 10, 1), (2.5, 1000, 3), (1, 5000, 1)],
)
def test_a_part_of_an_epoch_is_that_part_of_its_steps_rounded_up(
    kitchen: Kitchen, epochs: float, batch_size: int, steps: int
) -> None:
    data = {"max_steps": None, "test_dataset": None, "test_split": None}
    assert train(kitchen, epochs=epochs, batch_size=batch_size, **data).steps == steps


def test_a_warm_up_takes_its_share_of_the_steps(kitchen: Kitchen) -> None:
    recorded = rows(kitchen, train(kitchen, max_steps=10, warmup_ratio=0.7).run_id)
    assert recorded["learning_rate", 7] == pytest.approx(0.01)
    assert recorded["learning_rate", 1] == pytest.approx(0.01 / 7)
    long = rows(kitchen, train(kitchen, max_steps=100, warmup_ratio=0.07).run_id)
    assert long["learning_rate", 1] == pytest.approx(0.01 / 7)


def test_a_test_size_beyond_the_data_evaluates_on_all_of_it(kitchen: Kitchen) -> None:
    events: list[Event] = []
    kitchen.observe(events.append)
    train(kitchen, test_size=10**6, max_steps=1)
    loaded = [event.attributes["rows"] for event in events if event.name == "dataset.load"]
    assert len(loaded) == 2
    assert 0 < loaded[1] < 10**6


def test_a_failed_session_without_restarts_left_fails_the_run() -> None:
    with Kitchen(noops(failure_rate=1.0)) as stormy:
        events: list[Event] = []
        stormy.observe(events.append)
        with pytest.raises(AdapterError) as caught:
            train(stormy, run_id="r", max_restarts=2)
        assert record(stormy, "r")["status"] == "failed"
    told = [event.attributes for event in events if event.name == "workflow.restart"]
    about = {"workflow": "supervised", "run_id": "r", "step": 0}
    failure = {"callback": "optim_step", "error": "SessionFailed"}
    assert told == [{**about, "restart": number, **failure} for number in (1, 2)]
    assert caught.value.__notes__ == ["restarts are used up (workflow.max_restarts=2)"]


@pytest.mark.parametrize(("save_every", "callback"), [(0, "start_session"), (2, "load_checkpoint")])
def test_a_session_that_fails_while_it_is_set_back_is_set_back_again(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch, save_every: int, callback: str
) -> None:
    client, away = kitchen.training_client, Unavailable("the node went away")
    step, restore = client.optim_step, getattr(client, callback)
    taken: list[Any] = []
    failures: list[Exception] = []

    def fail_once(*arguments: Any) -> Any:
        taken.append(arguments)
        if len(taken) == 6:
            failures.append(away)
            raise away
        return step(*arguments)

    def fail_twice(*arguments: Any) -> Any:
        if 0 < len(failures) < 3:
            failures.append(away)
            raise away
        return restore(*arguments)

    monkeypatch.setattr(client, "optim_step", fail_once)
    monkeypatch.setattr(client, callback, fail_twice)
    assert train(kitchen, save_every=save_every, max_restarts=3).steps == 12
    assert len(failures) == 3


def test_wrong_input_is_not_tried_again(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    def refuse(*arguments: Any) -> Any:
        attempts.append(arguments)
        raise InvalidInput("this step is wrong")

    monkeypatch.setattr(kitchen.training_client, "optim_step", refuse)
    with pytest.raises(InvalidInput, match="this step is wrong"):
        train(kitchen, max_restarts=5)
    assert len(attempts) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rat": 1}, "did you mean 'learning_rate'"),
        ({"batch_size": 0}, "workflow.batch_size: Input should be greater than or equal to 1"),
        ({"adam": {"beta3": 1}}, r"workflow\.adam\.beta3"),
        ({"lora": {"rnk": 1}}, r"workflow\.lora\.rnk"),
        ({"exact_match": True, **NO_TEST}, "exact_match needs"),
        ({"epochs": float("inf"), "max_steps": None}, r"workflow\.epochs"),
        ({"train_on": "everything"}, r"workflow\.train_on"),
    ],
)
def test_mistakes_in_the_configuration_are_named_with_their_path(
    kitchen: Kitchen, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        train(kitchen, **changed)


def arguments_of(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch, port: str, callback: str
) -> list[tuple[Any, ...]]:
    """Return what a callback is called with from now on."""
    bound, seen = getattr(kitchen, port), []
    original = getattr(bound, callback)

    def spy(*arguments: Any, **named: Any) -> Any:
        seen.append((*arguments, *named.values()))
        return original(*arguments, **named)

    monkeypatch.setattr(bound, callback, spy)
    return seen


def test_the_session_gets_what_the_configuration_says_of_it(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = arguments_of(kitchen, monkeypatch, "training_client", "start_session")
    train(kitchen, revision="v1", lora={"rank": 4}, seed=5, max_length=2000, max_steps=1)
    assert seen == [
        (SessionConfig("any", revision="v1", lora=LoraConfig(rank=4), seed=5, max_length=2000),)
    ]


def test_adam_is_sent_whole_with_every_step_and_the_rate_follows_the_schedule(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = arguments_of(kitchen, monkeypatch, "training_client", "optim_step")
    schedule = {"lr_schedule": "linear", "min_lr_ratio": 0.5, "warmup_ratio": 0}
    train(kitchen, adam={"beta1": 0.8}, max_steps=4, **schedule)
    assert {adam for _, _, adam in seen} == {AdamParams(beta1=0.8)}
    assert [rate for _, rate, _ in seen] == pytest.approx([0.01, 0.00875, 0.0075, 0.00625])


def test_rows_come_from_the_data_sets_that_the_configuration_names(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = arguments_of(kitchen, monkeypatch, "dataset_store", "load_dataset")
    train(kitchen, dataset_name="main", dataset_revision="v2", test_dataset=None, max_steps=1)
    assert seen == [("rows", "train", "main", "v2"), ("rows", "test", "main", "v2")]


def test_the_record_names_the_packages_and_the_commit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    commit = ["commit", "-q", "--allow-empty", "--no-gpg-sign", "-m", "first"]
    for command in (["git", "init", "-q"], [*git, *commit]):
        subprocess.run(command, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    named = {name: {**table, "use": "noop"} for name, table in noops().items()}
    with Kitchen(named) as kitchen:
        kept = record(kitchen, train(kitchen, max_steps=1).run_id)
    assert kept["packages"].keys() == {"crucible-kitchen", "crucible-adapter-noop"}
    assert kept["git_commit"] == head.stdout.strip()


def test_events_tell_the_whole_run(kitchen: Kitchen) -> None:
    events: list[Event] = []
    kitchen.observe(events.append)
    train(kitchen, eval_every=6, save_every=6)
    told = Counter(event.name for event in events)
    assert told["workflow.start"] == told["workflow.stop"] == 1
    assert told["dataset.load"] == 2
    assert told["training.step"] == 12
    assert told["training.eval"] == told["training.checkpoint"] == 2
    assert told["training.epoch"] == 1


def test_the_ports_are_bound_before_anything_runs() -> None:
    adapters = noops()
    del adapters["metrics_store"]
    with Kitchen(adapters) as kitchen:
        told = calls(kitchen)
        with pytest.raises(ConfigurationError, match="metrics_store"):
            train(kitchen)
        assert told == []


def test_only_exact_match_needs_a_completer() -> None:
    plain = SupervisedConfig(model="m", dataset="d")
    asks = SupervisedConfig(model="m", dataset="d", test_split="test", exact_match=True)
    assert "completer" not in plain.required_ports()
    assert "completer" in asks.required_ports()
