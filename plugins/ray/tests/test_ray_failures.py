"""Workers that die, or fail alone: the session fails as a whole, and goes on from a checkpoint."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray_processes
import safetensors.numpy
from crucible_kitchen import (
    AdapterError,
    CrucibleWarning,
    Datum,
    InvalidInput,
    Kitchen,
    ModelInput,
    SessionConfig,
    SessionFailed,
    TrainingClient,
    Unavailable,
)
from crucible_kitchen.events import Event, TrainingStep, WorkflowRestart, typed
from crucible_kitchen.workflows import run_in
from rows_in_memory import RowsInMemory

import kitchen_noop

TRIALS = int(os.environ.get("TRIALS", "1"))
TINY = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}
STEPS = 8


def datum(tokens: list[int]) -> Datum:
    row = np.array(tokens)
    weights = np.ones(len(row) - 1, np.float32)
    return Datum(ModelInput.from_ints(row[:-1]), {"target_tokens": row[1:], "weights": weights})


DATUMS = [datum([1, 2, 3, 4]), datum([5, 6, 7]), datum([8, 9]), datum([1, 3, 5, 7, 9])]


def call_on(session: Any, rank: int, change: Any) -> None:
    """Have one worker of a session run a function of its actor, before what is submitted next."""
    session._world._actors[rank].__ray_call__.remote(change)


def ranks_of_the_session() -> list[int]:
    """Return the process ids of the session that was started last; those of other files go on."""
    return ray_processes.ranks()[-2:]


def step(client: TrainingClient, session: Any) -> float:
    future = client.forward_backward(session, DATUMS)
    taken = client.optim_step(session, 1e-2)
    loss = client.await_(future).loss
    client.await_(taken)
    return float(loss)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kitchen]:
    folder = tmp_path_factory.mktemp("checkpoints")
    adapters = {
        "training_client": {
            "use": "ray",
            "workers": 2,
            "strategy": "fsdp",  # where each pass waits for the others
            "models": {"tiny": TINY},
            "checkpoint_dir": str(folder),
            "device": "cpu",
            "reuse_workers": True,
        },
        "dataset_store": {"use": RowsInMemory({"train": rows()})},
        "metrics_store": {"use": kitchen_noop.metrics_store},
        "blob_store": {"use": kitchen_noop.blob_store},
    }
    with Kitchen(adapters=adapters) as kitchen:
        yield kitchen


@pytest.fixture
def client(kitchen: Kitchen) -> TrainingClient:
    return kitchen.training_client


@pytest.fixture
def session(client: TrainingClient) -> Iterator[Any]:
    session = client.start_session(SessionConfig("tiny"))
    yield session
    client.close_session(session)


def rows() -> list[dict[str, str]]:
    return [{"prompt": f"{i}+1=", "completion": str(i + 1)} for i in range(24)]


def test_a_worker_that_dies_fails_the_step_and_ends_the_others(client: TrainingClient) -> None:
    session = client.start_session(SessionConfig("tiny"))
    origin = client.save_checkpoint(session, "origin")
    client.close_session(session)
    session = client.start_session(SessionConfig("tiny", from_checkpoint=origin))
    checkpoint = client.save_checkpoint(session, "before")
    client.delete_checkpoint(origin)  # what it started from is not needed again
    expected = step(client, session)
    before = ranks_of_the_session()
    call_on(session, 1, lambda actor: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(Unavailable, match="a worker died, and the others were ended") as caught:
        step(client, session)
    assert caught.value.retryable
    with pytest.raises(SessionFailed):
        client.forward_backward(session, DATUMS)
    client.load_checkpoint(session, checkpoint)
    assert step(client, session) == expected
    assert not set(before) & set(ray_processes.ranks())
    client.close_session(session)


def test_a_worker_that_fails_alone_passes_its_error_on_and_ends_the_others(
    client: TrainingClient, session: Any
) -> None:
    checkpoint = client.save_checkpoint(session, "before")
    before = ranks_of_the_session()

    def out_of_memory(*args: Any) -> None:
        raise InvalidInput("no memory for this", details={"bytes": 7})

    call_on(session, 1, lambda actor: setattr(actor._rank, "forward_backward", out_of_memory))
    with pytest.raises(InvalidInput, match="no memory for this") as caught:
        step(client, session)
    assert caught.value.details == {"bytes": 7}
    client.load_checkpoint(session, checkpoint)
    step(client, session)
    assert not set(before) & set(ray_processes.ranks())


def test_an_error_that_is_none_of_the_contract_is_named(
    client: TrainingClient, session: Any
) -> None:
    def broken(*args: Any) -> None:
        raise ZeroDivisionError("by zero")

    for rank in range(2):
        call_on(session, rank, lambda actor: setattr(actor._rank, "forward", broken))
    with pytest.raises(AdapterError, match="ZeroDivisionError: by zero") as caught:
        client.await_(client.forward(session, DATUMS))
    assert "in broken" in caught.value.details["traceback"]


def test_what_results_depend_on_is_asked_for_again_after_a_checkpoint_is_loaded(
    client: TrainingClient, session: Any
) -> None:
    checkpoint = client.save_checkpoint(session, "before")

    def with_another_budget(actor: Any) -> None:
        facts = actor._rank.facts()
        changed = dataclasses.replace(facts, info={**facts.info, "micro_batch_tokens": 7})
        actor._rank.facts = lambda: changed

    for rank in range(2):
        call_on(session, rank, with_another_budget)
    client.load_checkpoint(session, checkpoint)
    assert client.get_info(session)["micro_batch_tokens"] == 7


def test_a_failure_of_all_workers_leaves_them_to_be_revived(
    client: TrainingClient, session: Any
) -> None:
    checkpoint = client.save_checkpoint(session, "before")
    before = ray_processes.ranks()
    infinite = Datum(
        ModelInput.from_ints([1]),
        {
            "target_tokens": np.array([2]),
            "logprobs": np.array([-1e4], np.float32),
            "advantages": np.ones(1, np.float32),
        },
    )
    client.forward_backward(session, [infinite], "importance_sampling")
    with pytest.raises(AdapterError, match="not finite"):
        client.await_(client.optim_step(session, 1e-2))
    client.load_checkpoint(session, checkpoint)
    step(client, session)
    assert ray_processes.ranks() == before


def test_a_folder_that_other_machines_do_not_share_is_refused(
    kitchen: Kitchen, session: Any, tmp_path: Path
) -> None:
    world = session._world
    shared = world._opts
    own = os.open(tmp_path, os.O_DIRECTORY)  # a folder that has this path in this process alone
    try:
        world._check_folder(["another machine", "a third one"])
        world._opts = shared.model_copy(update={"checkpoint_dir": Path(f"/proc/self/fd/{own}")})
        with pytest.raises(InvalidInput, match=r"on other machines of the session \(2 of 2\)"):
            world._check_folder(["another machine", "a third one"])
    finally:
        os.close(own)
        world._opts = shared


def test_a_cluster_without_room_is_an_error_that_counts(tmp_path: Path) -> None:
    options = {"models": {"tiny": TINY}, "checkpoint_dir": tmp_path, "start_timeout": 1}
    with (
        Kitchen({"training_client": {"use": "ray", "gpus": 1000, **options}}) as kitchen,
        pytest.warns(CrucibleWarning, match="the Ray cluster has 1024 processors and"),
        pytest.raises(
            Unavailable, match=r"workers = 1 take 1 processors and 1000 GPUs, and after 1 s"
        ),
    ):
        kitchen.training_client.start_session(SessionConfig("tiny"))


def tensors(kitchen: Kitchen, reference: str) -> dict[str, Any]:
    options: Any = kitchen.training_client.options
    folder = options.checkpoint_dir / reference
    return {
        f"{file.name} {name}": array.tobytes()
        for file in folder.glob("*.safetensors")
        for name, array in safetensors.numpy.load_file(file).items()
    }


def trained(kitchen: Kitchen, run_id: str) -> dict[str, Any]:
    config = {
        "run_id": run_id,
        "model": "tiny",
        "dataset": "rows",
        "batch_size": 4,
        "max_steps": STEPS,
        "learning_rate": 1e-2,
        "save_every": 3,
        "max_restarts": 1,
    }
    result = run_in(kitchen, "supervised", config)
    return tensors(kitchen, result.checkpoint)


def kill_a_new_worker(known: set[int]) -> None:
    """Kill a worker as soon as it is there: it is then about to import PyTorch."""
    while not (new := set(ray_processes.ranks()) - known):
        time.sleep(0.02)
    os.kill(min(new), signal.SIGKILL)


def test_a_worker_that_is_killed_while_the_session_starts_is_a_restart(
    kitchen: Kitchen, tmp_path: Path
) -> None:
    options = {"models": {"tiny": TINY}, "workers": 2, "checkpoint_dir": str(tmp_path)}
    adapters = {
        "training_client": {"use": "ray", "device": "cpu", **options},
        "dataset_store": {"use": RowsInMemory({"train": rows()})},
        "metrics_store": {"use": kitchen_noop.metrics_store},
        "blob_store": {"use": kitchen_noop.blob_store},
    }
    killer = threading.Thread(target=kill_a_new_worker, args=[set(ray_processes.ranks())])
    restarts: list[WorkflowRestart] = []

    def note(event: Event) -> None:
        if isinstance(restart := typed(event), WorkflowRestart):
            restarts.append(restart)

    with Kitchen(adapters) as another:
        another.observe(note)
        killer.start()
        assert trained(another, "killed-at-the-start")
    killer.join()
    [restart] = restarts
    assert (restart.callback, restart.step, restart.error) == ("start_session", 0, "Unavailable")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(TRIALS))
def test_a_run_whose_worker_is_killed_at_a_random_step_ends_with_the_same_weights(
    kitchen: Kitchen, seed: int
) -> None:
    expected = trained(kitchen, f"alone-{seed}")
    draw = random.Random(seed)
    at, rank = draw.randrange(1, STEPS), draw.randrange(2)
    restarts: list[Event] = []

    def kill(event: Event) -> None:
        match typed(event):
            case TrainingStep(step=step) if step == at and not restarts:
                os.kill(ranks_of_the_session()[rank], signal.SIGKILL)
            case WorkflowRestart():
                restarts.append(event)

    stop = kitchen.observe(kill)
    try:
        assert trained(kitchen, f"killed-{seed}") == expected
    finally:
        stop()
    assert len(restarts) == 1
