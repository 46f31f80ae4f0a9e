"""Checkpoints that are saved while the next steps run, on noops: what is committed, and when."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from crucible_kitchen import AdapterError, Event, Kitchen, TrainingResult, Unavailable
from crucible_kitchen.workflows import run_in

import kitchen_noop

CONFIG: dict[str, Any] = {
    "model": "any",
    "dataset": "rows",
    "batch_size": 8,
    "max_steps": 12,
    "learning_rate": 0.01,
    "save_every": 4,
    "run_id": "same",
}


class Slow:
    """Makes the checkpoints of a training client durable only when the test says so.

    Attributes:
        steps: how many were taken when each checkpoint was submitted.
        durable: set it to let all of them end.
        failures: raised by those that end next, one each.
        taken: optimizer steps so far.
    """

    def __init__(self, client: Any) -> None:
        self.durable, self.steps, self.taken = threading.Event(), list[int](), 0
        self.failures: list[Exception] = []
        self._futures: list[Any] = []
        self._save, self._step, self._wait = (
            client.save_checkpoint_async,
            client.optim_step,
            client.await_,
        )
        client.save_checkpoint_async = self.save_checkpoint_async
        client.optim_step, client.await_ = self.optim_step, self.await_

    def join(self) -> None:
        """Wait until the run could know that what is durable is durable."""
        for thread in threading.enumerate():
            if thread.name == "crucible-checkpoint":
                thread.join(30)

    def save_checkpoint_async(self, session: Any, path: str) -> Any:
        self.steps.append(self.taken)
        self._futures.append(self._save(session, path))
        return self._futures[-1]

    def optim_step(self, *args: Any) -> Any:
        self.taken += 1
        return self._step(*args)

    def await_(self, future: Any, timeout: float | None = None) -> Any:
        if any(future is each for each in self._futures):
            assert self.durable.wait(30)
            if self.failures:
                raise self.failures.pop()
        return self._wait(future, timeout)


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    quick = {name: {**table, "latency_scale": 0} for name, table in kitchen_noop.ADAPTERS.items()}
    with Kitchen(quick) as made:
        yield made


@pytest.fixture
def slow(kitchen: Kitchen) -> Iterator[Slow]:
    made = Slow(kitchen.training_client)
    yield made
    made.durable.set()


def train(kitchen: Kitchen, **changed: Any) -> TrainingResult:
    result = run_in(kitchen, "supervised", {**CONFIG, **changed})
    assert isinstance(result, TrainingResult)
    return result


def record(kitchen: Kitchen) -> dict[str, Any]:
    return dict(json.loads(kitchen.blob_store.read("same/run.json")))


def after(kitchen: Kitchen, step: int, act: Any) -> None:
    """Do something when a step is done for the first time."""
    left = [act]

    def observer(event: Event) -> None:
        if left and event.name == "training.step" and event.attributes["step"] == step:
            left.pop()()

    kitchen.observe(observer)


def raises(error: BaseException) -> Any:
    """Return a function that raises an error, the first time."""
    left = [error]

    def act(*_: Any, **__: Any) -> None:
        if left:
            raise left.pop()

    return act


def interrupted(kitchen: Kitchen, step: int, error: BaseException) -> None:
    """Run until the metrics of a step were recorded, where an error is raised."""
    store: Any = kitchen.metrics_store
    recorded, fail = store.record_many, raises(error)

    def record_many(run_id: str, metrics: Any, at: int) -> None:
        recorded(run_id, metrics, at)
        if at == step:
            fail()

    store.record_many = record_many
    try:
        with pytest.raises(type(error)):
            train(kitchen)
    finally:
        del store.record_many


def test_what_is_committed_is_the_state_when_the_checkpoint_was_submitted(
    kitchen: Kitchen, slow: Slow
) -> None:
    records = []

    def observer(event: Event) -> None:
        if event.name == "training.step" and event.attributes["step"] == 6:
            records.append(record(kitchen))
            slow.durable.set()
            slow.join()
        elif event.name == "training.step" and event.attributes["step"] == 7:
            records.append(record(kitchen))

    kitchen.observe(observer)
    train(kitchen)
    before, committed = records
    assert before["state"] == {"step": 0, "checkpoint": None}
    assert committed["state"]["step"] == slow.steps[0] == 4
    assert committed["metrics"]["progress"] == pytest.approx(4 / 12)
    assert committed["checkpoints"] == [committed["state"]["checkpoint"]]
    assert record(kitchen)["state"]["step"] == 12


def test_the_next_checkpoint_waits_for_the_one_before(kitchen: Kitchen, slow: Slow) -> None:
    told: list[str] = []
    kitchen.observe(lambda event: told.append(event.attributes.get("callback", event.name)))
    after(kitchen, 8, slow.durable.set)
    train(kitchen, keep_checkpoints=3)
    assert slow.steps == [4, 8, 12]
    second = [i for i, name in enumerate(told) if name == "save_checkpoint_async"][1]
    assert told.index("training.checkpoint") < second
    assert len(record(kitchen)["checkpoints"]) == 3


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("error", [Killed(), KeyboardInterrupt(), ValueError()], ids=repr)
def test_stopped_while_a_checkpoint_is_saved_and_resumed_equals_uninterrupted(
    kitchen: Kitchen, slow: Slow, error: BaseException
) -> None:
    after(kitchen, 5, slow.durable.set if not isinstance(error, Killed) else lambda: None)
    interrupted(kitchen, 6, error)
    steps = {Killed: 0, KeyboardInterrupt: 7, ValueError: 4}
    assert record(kitchen)["state"]["step"] == steps[type(error)]
    slow.durable.set()
    result = train(kitchen)
    rows = {(e.metric, e.step) for e in kitchen.metrics_store.read("same")}
    assert {step for metric, step in rows if metric == "grad_norm"} == {*range(1, 13)}
    assert list(kitchen.training_client.list_checkpoints()) == [result.checkpoint]
    assert record(kitchen)["checkpoints"] == [result.checkpoint]


def test_an_interruption_while_old_ones_are_deleted_commits_a_checkpoint_once(
    kitchen: Kitchen,
) -> None:
    client: Any = kitchen.training_client
    delete, fail = client.delete_checkpoint, raises(KeyboardInterrupt())

    def delete_checkpoint(path: str) -> None:
        fail()
        delete(path)

    client.delete_checkpoint = delete_checkpoint
    with pytest.raises(KeyboardInterrupt):
        train(kitchen, keep_checkpoints=2)
    committed = record(kitchen)
    assert [each[-2:] for each in committed["checkpoints"]] == ["08", "12"]
    assert committed["checkpoints"][-1] == committed["state"]["checkpoint"]


def test_an_interruption_of_a_later_step_commits_a_checkpoint_once(
    kitchen: Kitchen, slow: Slow
) -> None:
    client: Any = kitchen.training_client
    delete, fail = client.delete_checkpoint, raises(KeyboardInterrupt())

    def delete_checkpoint(path: str) -> None:
        fail()
        delete(path)

    def hold() -> None:
        slow.join()
        slow.durable.clear()

    def release() -> None:
        slow.durable.set()
        slow.join()

    client.delete_checkpoint = delete_checkpoint
    slow.durable.set()
    after(kitchen, 12, hold)
    after(kitchen, 14, release)  # then the third checkpoint is committed, and the first deleted
    with pytest.raises(KeyboardInterrupt):
        train(kitchen, keep_checkpoints=2, max_steps=20)
    assert slow.steps == [4, 8, 12, 15]
    assert [each[-2:] for each in record(kitchen)["checkpoints"]] == ["12", "15"]
    assert {each[-2:] for each in client.list_checkpoints()} >= {"12", "15"}


def test_a_checkpoint_that_fails_meanwhile_fails_the_run_which_goes_on_from_the_one_before(
    kitchen: Kitchen, slow: Slow
) -> None:
    slow.durable.set()
    after(kitchen, 7, lambda: slow.failures.append(Unavailable("the disk is full")))
    with pytest.raises(AdapterError, match="the disk is full"):
        train(kitchen, max_restarts=0)
    assert record(kitchen)["state"]["step"] == 4
    assert train(kitchen).steps == 12


def test_a_checkpoint_that_fails_meanwhile_is_worth_a_restart(kitchen: Kitchen, slow: Slow) -> None:
    slow.durable.set()
    after(kitchen, 7, lambda: slow.failures.append(Unavailable("the disk was away")))
    assert train(kitchen, max_restarts=1).steps == 12
    assert slow.steps[:2] == [4, 8]
    assert len(record(kitchen)["checkpoints"]) == 1


def test_a_session_that_fails_meanwhile_goes_on_from_the_checkpoint_that_is_being_saved(
    kitchen: Kitchen, slow: Slow
) -> None:
    loaded: list[str] = []
    client: Any = kitchen.training_client
    load, step = client.load_checkpoint, client.optim_step

    def load_checkpoint(session: Any, path: str) -> None:
        loaded.append(path)
        load(session, path)

    client.load_checkpoint = load_checkpoint
    fail = raises(Unavailable("the session is lost"))

    def optim_step(*args: Any) -> Any:
        if slow.taken == 6:
            slow.durable.set()
            fail()
        return step(*args)

    client.optim_step = optim_step
    train(kitchen, keep_checkpoints=3, max_restarts=1)
    [reference] = loaded
    assert reference == record(kitchen)["checkpoints"][0]
    assert reference.endswith("00000004")


def test_without_the_callback_a_checkpoint_is_saved_between_two_steps(kitchen: Kitchen) -> None:
    client: Any = kitchen.training_client
    supports = client.supports
    client.supports = lambda name: name != "save_checkpoint_async" and supports(name)
    told: list[str] = []
    kitchen.observe(lambda event: told.append(event.attributes.get("callback", event.name)))
    train(kitchen)
    assert told.count("save_checkpoint") == 3
    assert "save_checkpoint_async" not in told
