"""What a run makes of its evaluations: the best checkpoint, early stopping, samples; its end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
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
    RunRecord,
    TrainingConfig,
    TrainingResult,
    Unavailable,
    train,
)
from crucible_kitchen.workflows import Evaluation, Sample

import kitchen_noop

CONFIG: dict[str, Any] = {
    "model": "any",
    "batch_size": 3,
    "max_steps": 6,
    "run_id": "r",
    "lr_schedule": "constant",
}
SCORES = (0.1, 0.5, 0.9, 0.7, 0.8, 0.6, 0.95, 0.2)
"""What is measured after each step; the one after no step is first."""
BEST: dict[str, Any] = {"eval_every": 1, "best_metric": "test/score", "best_mode": "max"}


class Scored(Counting):
    """An algorithm whose evaluations are known beforehand."""

    def evaluate(self, session: Any) -> Any:
        score = SCORES[session.state.moments % len(SCORES)]
        return Evaluation({"test/score": score}, [Sample("2 + 2", "five", score, "4")])


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    with Kitchen(quick) as made:
        yield made


def score(kitchen: Kitchen, algorithm: Any = Scored, **changed: Any) -> TrainingResult:
    return train(kitchen, "scored", TrainingConfig(**{**CONFIG, **changed}), algorithm)


def record(kitchen: Kitchen, run_id: str = "r") -> RunRecord:
    return RunRecord.from_json(kitchen.blob_store.read(f"{run_id}/run.json"))


def rows(kitchen: Kitchen, run_id: str = "r") -> dict[tuple[str, int | None], float]:
    return {
        (entry.metric, entry.step): entry.value
        for entry in kitchen.metrics_store.read(run_id)
        if entry.metric not in TIMES
    }


def weights(kitchen: Kitchen, checkpoint: str | None) -> float:
    """Return a number that depends on the weights of a checkpoint alone."""
    assert checkpoint is not None
    client = kitchen.training_client
    config = TrainingConfig(model="any", from_checkpoint=checkpoint)
    session = client.start_session(config.session())
    return client.await_(client.forward(session, [datum(0)])).loss


def test_an_evaluation_on_start_is_recorded_before_the_first_step(kitchen: Kitchen) -> None:
    score(kitchen, eval_on_start=True)
    assert rows(kitchen)["test/score", 0] == SCORES[0]


@pytest.mark.parametrize("key", ["eval_every", "eval_on_start"])
def test_evaluating_without_anything_to_evaluate_on_is_refused(kitchen: Kitchen, key: str) -> None:
    class Blind(Scored):
        evaluates = False

    with pytest.raises(ConfigurationError, match=f"workflow.{key}: .*nothing to evaluate on"):
        score(kitchen, Blind, **{key: True})
    assert not kitchen.blob_store.exists("r/run.json")


def test_the_best_checkpoint_is_kept_beyond_those_after_it(kitchen: Kitchen) -> None:
    score(kitchen, **BEST, save_every=1, max_steps=5)
    kept = record(kitchen)
    assert kept.state.standing.best is not None
    assert (kept.state.standing.best.step, kept.state.standing.best.value) == (2, 0.9)
    assert ["00000002" in kept.checkpoints[0], "00000005" in kept.checkpoints[-1]] == [True, True]
    assert len(kept.checkpoints) == 2
    assert sorted(kitchen.training_client.list_checkpoints()) == sorted(kept.checkpoints)


def test_the_best_checkpoint_is_saved_where_no_other_is_due(kitchen: Kitchen) -> None:
    score(kitchen, **BEST, max_steps=5)
    assert len(record(kitchen).checkpoints) == 2


def test_the_weights_of_a_run_are_those_of_its_best_checkpoint(kitchen: Kitchen) -> None:
    score(kitchen, **BEST, max_steps=5)
    score(kitchen, run_id="short", max_steps=2)
    assert weights(kitchen, record(kitchen).chosen) == weights(
        kitchen, record(kitchen, "short").chosen
    )
    assert weights(kitchen, record(kitchen).chosen) != weights(
        kitchen, record(kitchen).state.checkpoint
    )


def test_a_run_that_starts_from_another_starts_from_its_best_checkpoint(kitchen: Kitchen) -> None:
    score(kitchen, **BEST, max_steps=5)
    score(kitchen, run_id="next", from_checkpoint="r", max_steps=1)
    assert record(kitchen, "next").from_checkpoint == record(kitchen).chosen


def test_a_misspelt_run_to_start_from_is_named_with_the_nearest(kitchen: Kitchen) -> None:
    score(kitchen, run_id="good", max_steps=1)
    with pytest.raises(NotFound) as raised:
        score(kitchen, run_id="next", from_checkpoint="god")
    note = "workflow.from_checkpoint: there is no run 'god' either; did you mean 'good'?"
    assert raised.value.__notes__ == [note]


@pytest.mark.parametrize(
    ("mode", "patience", "steps", "best"), [("max", 2, 4, 2), ("max", 4, 6, 6), ("min", 1, 2, 1)]
)
def test_a_run_ends_when_its_patience_is_over(
    kitchen: Kitchen, mode: str, patience: int, steps: int, best: int
) -> None:
    events: list[Event] = []
    kitchen.observe(events.append)
    settings = {**BEST, "best_mode": mode, "early_stopping_patience": patience}
    result = score(kitchen, **settings)
    assert (result.steps, result.best_step) == (steps, best)
    standing = record(kitchen).state.standing
    assert standing.best is not None
    assert standing.best.step == best
    assert record(kitchen).status == "done"
    stops = [event for event in events if event.name == "training.early_stop"]
    assert len(stops) == (steps < 6)


def test_an_evaluation_before_the_first_step_is_never_the_best(kitchen: Kitchen) -> None:
    score(kitchen, **BEST | {"best_mode": "min"}, eval_on_start=True, max_steps=3)
    standing = record(kitchen).state.standing
    assert standing.best is not None
    assert standing.best.step == 1


class Interrupted(Scored):
    """Is asked to end when it evaluates, or awaits, the last of six steps."""

    asked = False
    where = "evaluate"

    def submit(self, session: Any, batch: Sequence[int], step: int) -> Any:
        return partial(self.measured, super().submit(session, batch, step), step)

    def measured(self, measure: Measure, step: int) -> Any:
        self.ask("await" if step == 5 else "")
        return measure()

    def evaluate(self, session: Any) -> Any:
        self.ask("evaluate" if session.state.moments == 6 else "")
        return super().evaluate(session)

    def ask(self, where: str) -> None:
        if where == self.where and not type(self).asked:
            type(self).asked = True
            raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["evaluate", "await"])
def test_a_run_interrupted_at_its_end_stands_for_the_same_checkpoint(
    kitchen: Kitchen, where: str
) -> None:
    kind = type("Once", (Interrupted,), {"where": where})
    with pytest.raises(KeyboardInterrupt):
        score(kitchen, kind, **BEST)
    assert record(kitchen).state.step == 6
    score(kitchen, kind, **BEST)
    score(kitchen, run_id="whole", **BEST)
    for run_id in ("r", "whole"):
        standing = record(kitchen, run_id).state.standing
        assert standing.best is not None
        assert (standing.best.step, standing.best.value, standing.waited) == (6, 0.95, 0)
    assert rows(kitchen) == rows(kitchen, "whole")
    assert len(record(kitchen).checkpoints) == len(record(kitchen, "whole").checkpoints) == 1


@pytest.mark.parametrize("at", [2, 6])
def test_what_was_learned_is_saved_when_an_evaluation_fails(kitchen: Kitchen, at: int) -> None:
    class Fails(Scored):
        def evaluate(self, session: Any) -> Any:
            if session.state.moments == at:
                raise InvalidInput("the completer is away")
            return super().evaluate(session)

    with pytest.raises(InvalidInput, match="away"):
        score(kitchen, Fails, eval_every=2)
    assert record(kitchen).state.step == at
    names: list[str] = []
    kitchen.observe(lambda event: names.append(event.attributes.get("callback", "")))
    score(kitchen, eval_every=2)
    assert names.count("optim_step") == 6 - at
    score(kitchen, run_id="whole", eval_every=2)
    assert {k: v for k, v in rows(kitchen).items() if k[0] != "test/score"} == {
        k: v for k, v in rows(kitchen, "whole").items() if k[0] != "test/score"
    }
    assert rows(kitchen).keys() == rows(kitchen, "whole").keys()


@pytest.mark.parametrize("error", [InvalidInput("an environment"), Unavailable("a completer")])
def test_what_was_learned_is_saved_when_a_step_cannot_be_prepared(
    kitchen: Kitchen, error: Exception
) -> None:
    class Fails(Scored):
        def submit(self, session: Any, batch: Sequence[int], step: int) -> Any:
            if step == 4:
                raise error
            return super().submit(session, batch, step)

    with pytest.raises(type(error)):
        score(kitchen, Fails)
    assert record(kitchen).state.step == 4
    score(kitchen)
    score(kitchen, run_id="whole")
    assert rows(kitchen) == rows(kitchen, "whole")


def test_a_misspelt_best_metric_may_be_mended(kitchen: Kitchen) -> None:
    wrong = {**BEST, "eval_every": 0, "best_metric": "test/scores"}
    with pytest.raises(ConfigurationError, match="does not measure 'test/scores'"):
        score(kitchen, **wrong)
    assert record(kitchen).state.step == 6
    score(kitchen, **wrong | {"best_metric": "test/score"})
    standing = record(kitchen).state.standing
    assert standing.best is not None
    assert standing.best.step == 6


def test_a_run_that_stopped_early_goes_on_with_more_patience_only(kitchen: Kitchen) -> None:
    settings = {**BEST, "early_stopping_patience": 2}
    assert score(kitchen, **settings).steps == 4
    with pytest.raises(ConfigurationError, match=r"raise workflow\.early_stopping_patience"):
        score(kitchen, **settings, max_steps=7)
    assert score(kitchen, **settings | {"early_stopping_patience": 5}, max_steps=7).steps == 7


def test_an_evaluation_that_could_not_be_recorded_is_made_again(kitchen: Kitchen) -> None:
    score(kitchen, run_id="whole", eval_every=2)
    store, record_many = kitchen.metrics_store, kitchen.metrics_store.record_many
    failed: list[int] = []

    def fails_once(run_id: str, metrics: Any, step: Any = None, metadata: Any = None) -> None:
        if "test/score" in metrics and not failed:
            failed.append(step)
            raise KeyboardInterrupt
        record_many(run_id, metrics, step, metadata)

    store.record_many = fails_once  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        score(kitchen, eval_every=2)
    score(kitchen, eval_every=2)
    assert rows(kitchen) == rows(kitchen, "whole")


@pytest.mark.parametrize("at", range(1, 5))
@pytest.mark.parametrize("save_every", [0, 1, 3])
def test_a_killed_run_stops_early_where_it_would_have_anyway(
    kitchen: Kitchen, at: int, save_every: int
) -> None:
    settings = {**BEST, "early_stopping_patience": 2, "save_every": save_every}

    class Killed(BaseException):
        pass

    class Dies(Scored):
        def evaluate(self, session: Any) -> Any:
            if session.state.moments == at:
                raise Killed
            return super().evaluate(session)

    with pytest.raises(Killed):
        score(kitchen, Dies, **settings)
    assert score(kitchen, **settings).steps == 4
    score(kitchen, run_id="whole", **settings)
    assert rows(kitchen) == rows(kitchen, "whole")
    assert record(kitchen).state.standing.waited == record(kitchen, "whole").state.standing.waited
    assert weights(kitchen, record(kitchen).chosen) == weights(
        kitchen, record(kitchen, "whole").chosen
    )


def test_a_best_metric_that_is_not_measured_is_named_with_those_that_are(kitchen: Kitchen) -> None:
    with pytest.raises(ConfigurationError, match=r"'test/scor'; it measures test/score"):
        score(kitchen, **BEST | {"best_metric": "test/scor"})


@pytest.mark.parametrize(
    "table",
    [
        {"best_metric": "test/nll"},
        {"best_mode": "min"},
        {"early_stopping_patience": 1, "eval_every": 1},
        {"early_stopping_patience": 1, "best_metric": "a", "best_mode": "min"},
    ],
)
def test_settings_of_the_best_checkpoint_that_lack_another_are_refused(
    table: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match=r"best_metric|eval_every"):
        TrainingConfig(model="any", **table)


def test_a_finished_run_goes_on_as_if_it_had_been_longer(kitchen: Kitchen) -> None:
    score(kitchen, max_steps=3)
    assert score(kitchen, max_steps=7).steps == 7
    score(kitchen, run_id="whole", max_steps=7)
    extended, whole = rows(kitchen), rows(kitchen, "whole")
    for step in (1, 2, 3):
        whole["progress", step] = step / 3  # of a run of three steps
    assert extended == whole | {("test/score", 3): SCORES[3]}
    assert weights(kitchen, record(kitchen).chosen) == weights(
        kitchen, record(kitchen, "whole").chosen
    )
    assert record(kitchen).status == "done"
    assert len(kitchen.training_client.list_checkpoints()) == 2


def test_a_finished_run_of_epochs_goes_on_for_more_of_them(kitchen: Kitchen) -> None:
    assert score(kitchen, max_steps=None, epochs=1).steps == 3
    assert score(kitchen, max_steps=None, epochs=2).steps == 6


def test_a_finished_run_that_cannot_go_on_stays_finished(kitchen: Kitchen) -> None:
    score(kitchen, max_steps=3)
    before = kitchen.blob_store.read("r/run.json")
    [checkpoint] = record(kitchen).checkpoints
    kitchen.training_client.delete_checkpoint(checkpoint)
    with pytest.raises(NotFound):
        score(kitchen, max_steps=7)
    assert kitchen.blob_store.read("r/run.json") == before


def test_a_finished_run_is_not_made_shorter(kitchen: Kitchen) -> None:
    score(kitchen, max_steps=3)
    with pytest.raises(ConfigurationError, match="has taken 3 steps, and is to take 2 in all"):
        score(kitchen, max_steps=2)
    assert record(kitchen).status == "done"


def test_an_interrupted_run_is_not_made_longer(kitchen: Kitchen) -> None:
    class Fails(Scored):
        def submit(self, session: Any, batch: Sequence[int], step: int) -> Any:
            if step == 3:
                raise InvalidInput("bad")
            return super().submit(session, batch, step)

    with pytest.raises(InvalidInput):
        score(kitchen, Fails, save_every=1)
    with pytest.raises(ConfigurationError, match=r"workflow.max_steps was 6 and is 7"):
        score(kitchen, save_every=1, max_steps=7)


def test_samples_of_an_evaluation_are_kept_under_the_runs_id(kitchen: Kitchen) -> None:
    events: list[Event] = []
    kitchen.observe(events.append)
    score(kitchen, eval_every=4)
    assert [*kitchen.blob_store.list("r/samples/")] == [
        "r/samples/00000004.jsonl",
        "r/samples/00000006.jsonl",
    ]
    [line] = kitchen.blob_store.read("r/samples/00000004.jsonl").splitlines()
    kept = {"prompt": "2 + 2", "completion": "five", "reward": SCORES[4], "answer": "4"}
    assert json.loads(line) == kept
    reported = [event for event in events if event.name == "training.samples"]
    assert [event.attributes["step"] for event in reported] == [4, 6]
    assert reported[0].attributes["samples"] == [kept]


class Twice(Scored):
    """Takes two updates a step, the first on half of the batch."""

    def submit(self, session: Any, batch: Sequence[int], step: int) -> Any:
        for number, part in enumerate((batch[:1], batch)):
            measure = super().submit(session, part, step)
            yield partial(self.marked, measure, f"update_{number}")

    @staticmethod
    def marked(measure: Measure, name: str) -> dict[str, float]:
        return {**measure(), name: 1.0}


def test_a_step_of_several_updates_takes_an_optimizer_step_after_each(kitchen: Kitchen) -> None:
    names: list[str] = []
    kitchen.observe(lambda event: names.append(event.attributes.get("callback", "")))
    assert score(kitchen, Twice, max_steps=3).steps == 3
    calls = [name for name in names if name in ("forward_backward", "optim_step")]
    assert calls == ["forward_backward", "optim_step"] * 6


def test_later_updates_of_a_step_decide_what_it_measured(kitchen: Kitchen) -> None:
    score(kitchen, Twice, max_steps=1)
    found = rows(kitchen)
    assert found["update_0", 1] == found["update_1", 1] == 1.0
    assert found["num_tokens", 1] == 6.0


@pytest.mark.parametrize("at", range(1, 5))
def test_a_step_of_several_updates_that_is_killed_within_is_taken_again(
    kitchen: Kitchen, at: int
) -> None:
    class Killed(BaseException):
        pass

    class Dies(Twice):
        def submit(self, session: Any, batch: Sequence[int], step: int) -> Any:
            for number, measure in enumerate(super().submit(session, batch, step)):
                if step == at and number == 1:
                    raise Killed
                yield measure

    with pytest.raises(Killed):
        score(kitchen, Dies, save_every=2)
    score(kitchen, Twice, save_every=2)
    score(kitchen, Twice, save_every=2, run_id="whole")
    assert rows(kitchen) == rows(kitchen, "whole")


def test_a_step_without_a_gradient_is_refused(kitchen: Kitchen) -> None:
    class Idle(Scored):
        def submit(self, session: Any, batch: Sequence[int], step: int) -> Any:
            yield from ()

    with pytest.raises(InvalidInput, match="no gradient in step 1"):
        score(kitchen, Idle)
