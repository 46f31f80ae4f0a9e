"""Training continues in another process, and a process ends whatever it has left open."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import crucible_adapter_torch.training_client as torch_training_client
import pytest
import tiny_torch
from crucible_adapter_torch.options import TrainingClientOptions
from crucible_kitchen import Kitchen, TrainingClient
from tiny_torch import (
    CONTINUED,
    MODELS,
    assert_equal_to_the_bit,
    random_datums,
    state,
    train_on_parts,
)

# One process for both, since importing Transformers is most of what it takes.
CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
import crucible_adapter_torch.training_client as adapter
from crucible_kitchen import Kitchen, SessionConfig
from tiny_torch import CONTINUED, MODELS, datum, random_datums, train_on_parts
options = {"use": adapter, "models": MODELS, "checkpoint_dir": sys.argv[2], "device": "cpu"}
with Kitchen(adapters={"training_client": options}) as kitchen:
    client = kitchen.training_client
    for kind, reference in zip(CONTINUED, sys.argv[3:], strict=True):
        config = replace(CONTINUED[kind], from_checkpoint=reference, with_optimizer=True)
        session = client.start_session(config)
        train_on_parts(client, session, random_datums())
        print(client.save_checkpoint(session, "child"))

forgotten = Kitchen(adapters={"training_client": {**options, "deterministic": True}})
client = forgotten.training_client
session = client.start_session(SessionConfig("deep"))
for _ in range(100):
    future = client.forward_backward(session, [datum(range(31))] * 9)
client.forward(session, [datum(range(31))])
"""


Done: TypeAlias = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingClient]:
    folder = tmp_path_factory.mktemp("checkpoints")
    options = {"use": torch_training_client, "models": MODELS, "device": "cpu"}
    with Kitchen(adapters={"training_client": {**options, "checkpoint_dir": folder}}) as kitchen:
        yield kitchen.training_client


@pytest.fixture(scope="module")
def straight(client: TrainingClient) -> dict[str, tuple[Any, str]]:
    """For each kind, a session that was trained without a break, and its checkpoint of halfway."""
    sessions = {}
    for kind, config in CONTINUED.items():
        session = client.start_session(config)
        train_on_parts(client, session, random_datums())
        halfway = client.save_checkpoint(session, "half")
        train_on_parts(client, session, random_datums())
        sessions[kind] = session, halfway
    return sessions


@pytest.fixture(scope="module")
def child(client: TrainingClient, straight: dict[str, tuple[Any, str]]) -> Done:
    """A process that continued the sessions, and then ended without closing another one."""
    assert isinstance(client.options, TrainingClientOptions)
    support = Path(tiny_torch.__file__).parent
    references = [reference for _, reference in straight.values()]
    return subprocess.run(
        [sys.executable, "-c", CHILD, support, client.options.checkpoint_dir, *references],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_process_that_forgets_its_session_exits_in_peace(child: Done) -> None:
    assert (child.returncode, child.stderr) == (0, "")


@pytest.mark.parametrize("kind", CONTINUED)
def test_training_continues_to_the_bit_in_another_process(
    client: TrainingClient, straight: dict[str, tuple[Any, str]], child: Done, kind: str
) -> None:
    assert child.returncode == 0, child.stderr
    reference = dict(zip(CONTINUED, child.stdout.split(), strict=True))[kind]
    other = client.start_session(CONTINUED[kind])
    client.load_checkpoint(other, reference)
    assert_equal_to_the_bit(state(other), state(straight[kind][0]))
