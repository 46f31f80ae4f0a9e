"""The supervised workflow, on noops: what it submits, records, saves, and how it goes on."""

from __future__ import annotations

import json
import math
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
    InvalidInput,
    Kitchen,
    LoraConfig,
    NotFound,
    RateLimited,
    SamplingParams,
    SessionConfig,
    Unavailable,
    hookimpl,
)
from crucible_kitchen.workflows import run_in
from crucible_kitchen.workflows.rows import longest_input
from crucible_kitchen.workflows.supervised import SupervisedConfig, SupervisedResult, preview

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


def train(kitchen: Kitchen, **changed: Any) -> SupervisedResult:
    result = run_in(kitchen, "supervised", {**CONFIG, **changed})
    assert isinstance(result, SupervisedResult)
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
    assert submitted == [*step, *step, *wait, *step, *wait, *wait]


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
    assert kept["state"] == {"step": 12, "checkpoint": result.checkpoint}
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
    last = len(told) - told[::-1].index("save_checkpoint") - 1
    assert told[last - 1 : last + 5] == [
        "flush",
        "save_checkpoint",
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
    ("training_client", "save_checkpoint"),
    ("blob_store", "write"),
    ("training_client", "delete_checkpoint"),
    ("training_client", "save_weights_for_sampler"),
]


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize(("port", "callback"), INSTANTS)
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_instant_and_resumed_equals_uninterrupted(
    kitchen: Kitchen, port: str, callback: str, after: bool, nth: int
) -> None:
    settings: dict[str, Any] = {"save_every": 4, "eval_every": 6, "run_id": "same"}
    with Kitchen(noops()) as other:
        whole = train(other, **settings)
        expected = rows(other, "same")

    bound = getattr(kitchen, port)
    original, count = getattr(bound, callback), 0

    def dies(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == nth and not after:
            raise Killed
        result = original(*args, **kwargs)
        if count == nth:
            raise Killed
        return result

    setattr(bound, callback, dies)
    try:
        train(kitchen, **settings)
    except Killed:
        assert callback == "write" or record(kitchen, "same")["status"] in ("interrupted", "done")
    finally:
        delattr(bound, callback)
    resumed = train(kitchen, **settings)

    assert resumed.steps == whole.steps == 12
    actual = rows(kitchen, "same")
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        if key[0] not in TIMES:
            assert actual[key] == value, key
    left = kitchen.training_client.list_checkpoints()
    assert list(left) == record(kitchen, "same")["checkpoints"]
    assert len(left) == 1


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
