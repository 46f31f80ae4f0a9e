"""The loop that runs any algorithm: what an algorithm of one's own gets for three methods."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from counting import TIMES, Counting, datum
from crucible_kitchen import (
    ConfigurationError,
    Event,
    InvalidInput,
    Kitchen,
    Measure,
    NotFound,
    Prepared,
    RateLimited,
    Run,
    RunRecord,
    SessionFailed,
    TrainingConfig,
    TrainingResult,
    Unavailable,
    train,
)
from crucible_kitchen.workflows import Shuffled, find, run_in
from crucible_kitchen.workflows.supervised import SupervisedConfig, check, preview

import kitchen_noop

BEST_OF_N = str(Path(__file__).resolve().parents[2] / "docs" / "examples" / "best_of_n.py")
CONFIG: dict[str, Any] = {"model": "any", "batch_size": 3, "max_steps": 7, "save_every": 2}


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    with Kitchen(quick) as made:
        yield made


def count(kitchen: Kitchen, algorithm: Any = Counting, **changed: Any) -> TrainingResult:
    return train(kitchen, "counting", TrainingConfig(**{**CONFIG, **changed}), algorithm)


def rows(kitchen: Kitchen, run_id: str) -> dict[tuple[str, int | None], float]:
    entries = kitchen.metrics_store.read(run_id)
    made = {(entry.metric, entry.step): entry.value for entry in entries}
    assert len(made) == len(entries), "a row was recorded twice"
    return {key: value for key, value in made.items() if key[0] not in TIMES}


def test_an_algorithm_gets_the_metrics_of_every_loop(kitchen: Kitchen) -> None:
    result = count(kitchen, eval_every=3)
    recorded = kitchen.metrics_store.read(result.run_id)
    of_steps = {entry.metric for entry in recorded if entry.step == 1}
    assert of_steps == {
        *("loss", "num_tokens", "learning_rate", "progress", "grad_norm"),
        *TIMES,
    }
    assert [e.step for e in recorded if e.metric == "test/loss"] == [3, 6, 7]
    assert result.steps == 7


class Stopped(BaseException):
    pass


class Stopping(Counting):
    """Is killed at step 5."""

    def submit(self, session: Any, batch: Sequence[int], step: int) -> Measure:
        if step == 5:
            raise Stopped
        return super().submit(session, batch, step)


@pytest.mark.parametrize("at", range(7))
def test_an_algorithm_that_is_killed_and_run_again_ends_as_if_it_had_not_been(
    kitchen: Kitchen, at: int
) -> None:
    whole = count(kitchen, run_id="whole")

    class Killed(Counting):
        def submit(self, session: Any, batch: Sequence[int], step: int) -> Measure:
            if step == at:
                raise Stopped
            return super().submit(session, batch, step)

    with pytest.raises(Stopped):
        count(kitchen, Killed, run_id="killed")
    result = count(kitchen, run_id="killed")
    assert rows(kitchen, "killed") == rows(kitchen, "whole")
    different = {*TIMES}
    assert {k: v for k, v in result.metrics.items() if k not in different} == {
        k: v for k, v in whole.metrics.items() if k not in different
    }


def test_a_failed_session_is_restored_for_any_algorithm(kitchen: Kitchen) -> None:
    failures = iter([4])

    class Failing(Counting):
        def submit(self, session: Any, batch: Sequence[int], step: int) -> Measure:
            if step == next(failures, None):
                raise SessionFailed("the device is gone")
            return super().submit(session, batch, step)

    count(kitchen, run_id="whole")
    count(kitchen, Failing, run_id="failed", max_restarts=1)
    assert rows(kitchen, "failed") == rows(kitchen, "whole")


def starting(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> list[Event]:
    """Have the first starts of a session fail; return the restarts, as they come."""
    start, left, restarts = kitchen.training_client.start_session, list(errors), list[Event]()

    def failing(config: Any) -> Any:
        if left:
            raise left.pop(0)
        return start(config)

    def observer(event: Event) -> None:
        if event.name == "workflow.restart":
            restarts.append(event)

    monkeypatch.setattr(kitchen.training_client, "start_session", failing)
    kitchen.observe(observer)
    return restarts


def test_a_first_start_that_fails_is_repeated_as_a_restart(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    count(kitchen, run_id="whole")
    restarts = starting(kitchen, monkeypatch, Unavailable("a worker died"), Unavailable("again"))
    count(kitchen, run_id="failed", max_restarts=2)
    assert [(e.attributes["restart"], e.attributes["step"]) for e in restarts] == [(1, 0), (2, 0)]
    assert rows(kitchen, "failed") == rows(kitchen, "whole")


def test_starts_beyond_the_restarts_fail_the_run(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting(kitchen, monkeypatch, Unavailable("a worker died"), Unavailable("again"))
    with pytest.raises(Unavailable, match="again") as caught:
        count(kitchen, max_restarts=1)
    assert caught.value.__notes__ == ["restarts are used up (workflow.max_restarts=1)"]


def test_a_first_start_that_would_fail_again_is_not_repeated(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    restarts = starting(kitchen, monkeypatch, NotFound("no model of this name"))
    with pytest.raises(NotFound, match="no model of this name"):
        count(kitchen, max_restarts=3)
    assert restarts == []


def test_a_first_load_of_a_continued_run_that_fails_is_repeated_as_a_restart(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    count(kitchen, run_id="whole")
    with pytest.raises(Stopped):
        count(kitchen, Stopping, run_id="failed", max_restarts=1)
    load, failures = kitchen.training_client.load_checkpoint, [Unavailable("a worker died")]

    def failing(session: Any, path: str, *more: Any) -> None:
        if failures:
            raise failures.pop()
        load(session, path, *more)

    monkeypatch.setattr(kitchen.training_client, "load_checkpoint", failing)
    count(kitchen, run_id="failed", max_restarts=1)
    assert rows(kitchen, "failed") == rows(kitchen, "whole")


def test_a_restart_waits_as_long_as_the_backend_asks_for(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("crucible_kitchen.workflows.restarts.sleep", waits.append)
    starting(kitchen, monkeypatch, RateLimited("busy", retry_after=20), Unavailable("again"))
    count(kitchen, max_restarts=2)
    assert waits == [20, 0]


def test_what_an_algorithm_depends_on_may_not_change(kitchen: Kitchen) -> None:
    class Digested(Counting):
        digest = "a"

        def prepare(self, session: Any) -> Prepared[int]:
            return Prepared(range(8), {"items": {"sha256": self.digest}}, {"noticed": [1]})

    class Stopping(Digested):
        def submit(self, session: Any, batch: Sequence[int], step: int) -> Measure:
            if step == 5:
                raise Stopped
            return super().submit(session, batch, step)

    with pytest.raises(Stopped):
        count(kitchen, Stopping, run_id="r")
    assert json.loads(kitchen.blob_store.read("r/run.json"))["noticed"] == [1]
    Digested.digest = "b"
    with pytest.raises(ConfigurationError, match="items: sha256 was 'a' and is 'b'"):
        count(kitchen, Digested, run_id="r")


def test_batches_of_their_own_are_taken_as_they_come_and_say_when_an_epoch_begins(
    kitchen: Kitchen,
) -> None:
    class InOrder:
        per_epoch = None

        def between(self, start: int, stop: int) -> Any:
            for step in range(start, stop):
                yield step // 3, step, [step]

    seen: list[int] = []

    class Ordered(Counting):
        evaluates = False

        def prepare(self, session: Any) -> Prepared[int]:
            return Prepared(InOrder())

        def submit(self, session: Any, batch: Sequence[int], step: int) -> Measure:
            seen.extend(batch)
            return super().submit(session, batch, step)

    epochs: list[int] = []

    def observer(event: Event) -> None:
        if event.name == "training.epoch":
            epochs.append(event.attributes["epoch"])

    kitchen.observe(observer)
    count(kitchen, Ordered)
    assert seen == list(range(7))
    assert epochs == [0, 1, 2]
    with pytest.raises(ConfigurationError, match=r"workflow\.max_steps: it is needed where"):
        count(kitchen, Ordered, max_steps=None)


def test_the_steps_before_a_bad_row_are_saved(kitchen: Kitchen) -> None:
    class Bad:
        per_epoch = None

        def between(self, start: int, stop: int) -> Any:
            yield from Shuffled(range(8), 3, 0).between(start, 5)
            raise InvalidInput("row 17 of rows: it has no text")

    class Late(Counting):
        def prepare(self, session: Any) -> Prepared[int]:
            return Prepared(Bad())

    with pytest.raises(InvalidInput, match="row 17"):
        count(kitchen, Late, run_id="late", save_every=0)
    record = RunRecord.from_json(kitchen.blob_store.read("late/run.json"))
    assert (record.status, record.error, record.state.step) == ("failed", "InvalidInput", 5)


# --- where a run starts ---


def probe(kitchen: Kitchen) -> list[float]:
    """Return the loss of the weights that an algorithm is prepared with, for each run so far."""
    losses: list[float] = []

    class Probing(Counting):
        def prepare(self, session: Any) -> Sequence[int]:
            losses.append(self.client.await_(self.client.forward(session, [datum(0)])).loss)
            return range(8)

    count(kitchen, Probing, run_id="fresh")
    checkpoint = count(kitchen, run_id="first").checkpoint
    count(kitchen, Probing, run_id="from-run", from_checkpoint="first")
    count(kitchen, Probing, run_id="from-reference", from_checkpoint=checkpoint)
    return losses


def test_a_run_starts_from_the_weights_of_another_run_or_of_a_checkpoint(kitchen: Kitchen) -> None:
    fresh, from_run, from_reference = probe(kitchen)
    assert from_run == from_reference != fresh
    record = RunRecord.from_json(kitchen.blob_store.read("from-run/run.json"))
    first = RunRecord.from_json(kitchen.blob_store.read("first/run.json"))
    assert record.from_checkpoint == first.state.checkpoint
    assert record.config["from_checkpoint"] == "first"


def test_a_resumed_run_starts_from_the_weights_of_its_beginning(kitchen: Kitchen) -> None:
    starts: list[float] = []

    class Probing(Counting):
        stops_at: int | None = 5

        def prepare(self, session: Any) -> Sequence[int]:
            starts.append(self.client.await_(self.client.forward(session, [datum(0)])).loss)
            return range(8)

        def submit(self, session: Any, batch: Sequence[int], step: int) -> Measure:
            if step == self.stops_at:
                raise Stopped
            return super().submit(session, batch, step)

    count(kitchen, run_id="first", max_steps=2)
    with pytest.raises(Stopped):
        count(kitchen, Probing, run_id="second", from_checkpoint="first")
    # The other run has another checkpoint meanwhile; the old one is still there.
    record = RunRecord.from_json(kitchen.blob_store.read("first/run.json"))
    other = count(kitchen, run_id="third").checkpoint
    assert other is not None
    state = {"step": 7, "checkpoint": other}
    moved = record.with_(state=state, checkpoints=[*record.checkpoints, other])
    kitchen.blob_store.write("first/run.json", moved.to_json())
    Probing.stops_at = None
    count(kitchen, Probing, run_id="second", from_checkpoint="first")
    assert starts[0] == starts[1]


def test_a_resumed_run_whose_starting_weights_are_gone_says_which(kitchen: Kitchen) -> None:
    class Stopping(Counting):
        def submit(self, session: Any, batch: Sequence[int], step: int) -> Measure:
            raise Stopped

    first = count(kitchen, run_id="first").checkpoint
    assert first is not None
    with pytest.raises(Stopped):
        count(kitchen, Stopping, run_id="r", from_checkpoint="first")
    kitchen.training_client.delete_checkpoint(first)
    with pytest.raises(NotFound) as found:
        count(kitchen, run_id="r", from_checkpoint="first")
    assert any(
        f"starts from the checkpoint {first!r}: keep it" in note for note in found.value.__notes__
    )


def test_what_is_tried_before_a_run_starts_from_the_same_weights(kitchen: Kitchen) -> None:
    count(kitchen, run_id="first")
    config = SupervisedConfig(model="any", dataset="rows", from_checkpoint="first", max_steps=1)
    assert ("model", "any") in list(check(kitchen, config))
    assert list(preview(kitchen, config, 1))


def test_a_run_without_a_checkpoint_is_nothing_to_start_from(kitchen: Kitchen) -> None:
    class Stopping(Counting):
        def submit(self, session: Any, batch: Sequence[int], step: int) -> Measure:
            raise Stopped

    with pytest.raises(Stopped):
        count(kitchen, Stopping, run_id="first")
    with pytest.raises(ConfigurationError, match="the run 'first', which is interrupted, has no"):
        count(kitchen, run_id="second", from_checkpoint="first")
    assert not kitchen.blob_store.exists("second/run.json")


@pytest.mark.parametrize(
    "changed",
    [{"save_every": 3}, {"keep_checkpoints": 2}, {"max_restarts": 1}, {"submit_ahead": 0}],
)
def test_settings_that_change_no_result_may_differ_when_a_run_is_continued(
    kitchen: Kitchen, changed: dict[str, int]
) -> None:
    count(kitchen, run_id="whole")
    with pytest.raises(Stopped):
        count(kitchen, Stopping, run_id="r")
    count(kitchen, run_id="r", **changed)
    assert rows(kitchen, "r") == rows(kitchen, "whole")
    record = RunRecord.from_json(kitchen.blob_store.read("r/run.json"))
    assert record.config.items() >= changed.items()


def test_a_run_that_is_open_knows_its_settings_as_they_were_at_its_start(kitchen: Kitchen) -> None:
    first = count(kitchen, run_id="first")
    config = TrainingConfig(**CONFIG, from_checkpoint="first")
    with Run.open(kitchen, "counting", config, "r") as run:
        assert run.config.from_checkpoint == first.checkpoint
        assert not run.resumed


# --- the example of the documentation ---


@pytest.mark.parametrize("steps", [1, 4])
def test_the_algorithm_of_the_documentation_is_resumed_like_any_other(
    kitchen: Kitchen, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = find(f"{BEST_OF_N}:best_of_n")
    config = {"model": "m", "dataset": "d", "batch_size": 4, "max_steps": 5, "save_every": 2}
    run_in(kitchen, workflow, {**config, "run_id": "whole"})
    client: Any = kitchen.training_client
    original, calls = client.optim_step, iter(range(100))

    def killed(*args: Any) -> Any:
        if next(calls) == steps:
            raise Stopped
        return original(*args)

    monkeypatch.setattr(client, "optim_step", killed)
    with pytest.raises(Stopped):
        run_in(kitchen, workflow, {**config, "run_id": "killed"})
    monkeypatch.undo()
    run_in(kitchen, workflow, {**config, "run_id": "killed"})
    recorded = rows(kitchen, "killed")
    assert recorded == rows(kitchen, "whole")
    assert [step for name, step in recorded if name == "reward"] == [1, 2, 3, 4, 5]


# --- interruptions, and what is not the session's failure ---


@pytest.mark.parametrize("submitted", [False, True])
def test_an_interruption_while_an_algorithm_waits_saves_the_steps_before_it(
    kitchen: Kitchen, submitted: bool
) -> None:
    class Waiting(Counting):
        def submit(self, session: Any, batch: Sequence[int], step: int) -> Measure:
            if step == 5 and not submitted:
                raise KeyboardInterrupt  # while it samples, say
            measure = super().submit(session, batch, step)
            if step == 5:
                raise KeyboardInterrupt  # its gradient is pending
            return measure

    with pytest.raises(KeyboardInterrupt):
        count(kitchen, Waiting, run_id="r", save_every=0)
    record = RunRecord.from_json(kitchen.blob_store.read("r/run.json"))
    assert record.state.step == (0 if submitted else 5)
    count(kitchen, run_id="whole", save_every=0)
    count(kitchen, run_id="r", save_every=0)
    assert rows(kitchen, "r") == rows(kitchen, "whole")


def test_a_dataset_store_that_is_away_for_a_moment_costs_no_step(kitchen: Kitchen) -> None:
    away = iter([Unavailable("the hub is away")])

    class Interrupted:
        per_epoch = None

        def between(self, start: int, stop: int) -> Any:
            for each in Shuffled(range(8), 3, 0).between(start, stop):
                if each[1] == 5 and (error := next(away, None)):
                    raise error
                yield each

    class Reading(Counting):
        def prepare(self, session: Any) -> Prepared[int]:
            return Prepared(Interrupted())

    restarts: list[int] = []

    def observer(event: Event) -> None:
        if event.name == "workflow.restart":
            restarts.append(event.attributes["step"])

    kitchen.observe(observer)
    count(kitchen, run_id="whole", save_every=0)
    count(kitchen, Reading, run_id="r", save_every=0, max_restarts=1)
    assert restarts == [5]
    assert rows(kitchen, "r") == rows(kitchen, "whole")


def test_nothing_to_train_on_is_said_before_a_record_is_written(kitchen: Kitchen) -> None:
    class Empty(Counting):
        def prepare(self, session: Any) -> Sequence[int]:
            return []

    with pytest.raises(InvalidInput, match="there is nothing to train on"):
        count(kitchen, Empty, run_id="r")
    assert not kitchen.blob_store.exists("r/run.json")


def test_what_is_depended_on_may_hold_tuples_and_nan(kitchen: Kitchen) -> None:
    class Shaped(Counting):
        stops = True

        def prepare(self, session: Any) -> Prepared[int]:
            return Prepared(range(8), {"items": {"shape": (1, 2), "scale": float("nan")}})

        def submit(self, session: Any, batch: Sequence[int], step: int) -> Measure:
            if step == 5 and self.stops:
                raise Stopped
            return super().submit(session, batch, step)

    with pytest.raises(Stopped):
        count(kitchen, Shaped, run_id="r")
    Shaped.stops = False
    assert count(kitchen, Shaped, run_id="r").steps == 7
