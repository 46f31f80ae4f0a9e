"""What a session needs in memory, and how many tokens fit into it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from crucible_adapter_torch import capacity
from crucible_adapter_torch.distributed import Rank
from crucible_adapter_torch.models import loading
from crucible_adapter_torch.options import TrainingClientOptions as Options
from crucible_adapter_torch.training import budget, memory
from crucible_kitchen import (
    CrucibleWarning,
    Datum,
    InvalidInput,
    LoraConfig,
    NotFound,
    SessionConfig,
    TrainingClient,
)
from crucible_kitchen.workflows.config import ModelConfig
from crucible_kitchen.workflows.planning.memory import DoesNotFit, estimate_memory, refine_memory
from crucible_kitchen.workflows.supervised import SupervisedConfig, plan
from hypothesis import given
from hypothesis import strategies as st
from tiny_torch import MODELS, MakeKitchen, state, train

MEDIUM = {
    "model_type": "llama",
    "hidden_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
    "vocab_size": 8000,
}
LORA = LoraConfig(rank=8)


def needed(lora: LoraConfig | None = None, **options: Any) -> dict[str, int]:
    opts = Options(models={"medium": MEDIUM}, device="cpu", **options)
    return memory.needed(opts, SessionConfig("medium", lora=lora), 1024)


def test_weights_gradients_and_moments_are_those_of_the_session(make_kitchen: MakeKitchen) -> None:
    for lora in (None, LORA):
        client = make_kitchen(models={"medium": MEDIUM}).training_client
        session = client.start_session(SessionConfig("medium", lora=lora))
        trained = sum(weight.nbytes for weight in session.engine.weights.values())
        found = needed(lora)
        buffers = sum(buffer.nbytes for buffer in session.engine.model.buffers())
        weights = sum(weight.nbytes for weight in session.engine.model.parameters())
        assert found["weights"] == weights + buffers
        assert (found["gradients"], found["moments"]) == (trained, 2 * trained)


def test_each_option_that_saves_memory_is_seen_to_do_so() -> None:
    usual = needed(LORA)
    few = needed(LORA, base_dtype="bfloat16")
    assert few["weights"] < 0.6 * usual["weights"]
    largest = 4 * 8000 * 512  # the one weight that is dense at a time
    assert few["activations"] <= usual["activations"] + 2 * largest
    assert needed(LORA, base_dtype="int8")["weights"] < 0.4 * usual["weights"]
    checkpointed = needed(LORA, gradient_checkpointing=True)
    assert checkpointed["activations"] < 0.6 * usual["activations"]
    assert {**checkpointed, "activations": 0} == {**usual, "activations": 0}


def test_nothing_is_loaded_to_know_it(
    client: TrainingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = client.start_session(SessionConfig("deep"))
    folder = Path(client.save_weights_for_sampler(session, "x"))
    (folder / "model.safetensors").unlink()
    found = memory.needed(Options(device="cpu"), SessionConfig(str(folder)), 64)
    weights = [*session.engine.model.parameters(), *session.engine.model.buffers()]
    assert found["weights"] == sum(each.nbytes for each in weights)


GROWTH = """
import json, sys
import numpy as np
from pathlib import Path
from crucible_adapter_torch.options import TrainingClientOptions
from crucible_adapter_torch.training.session import Session
from crucible_kitchen import AdamParams, Datum, LoraConfig, ModelInput, SessionConfig

models, options, rank = json.loads(sys.argv[1])
opts = TrainingClientOptions(models=models, device="cpu", micro_batch_tokens=1024, **options)
ids = np.arange(513)
inputs = {"target_tokens": ids[1:], "weights": np.ones(512, np.float32)}
row = Datum(ModelInput.from_ints(ids[:-1]), inputs)

def read(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

def run(name):
    session = Session(opts, SessionConfig(name, lora=LoraConfig(rank=rank) if rank else None))
    for _ in range(2):
        session.forward_backward([row, row], "cross_entropy", None).result()
        session.optim_step(1e-3, AdamParams()).result()
    session.close()

run("small")  # what libraries take once
before = read("VmRSS")
run("medium")
print(read("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of a process")
@pytest.mark.parametrize(
    ("options", "lora"),
    [({}, False), ({}, True), ({"gradient_checkpointing": True, "base_dtype": "bfloat16"}, True)],
)
def test_a_process_grows_by_about_what_was_estimated(options: dict[str, Any], lora: bool) -> None:
    """Within a factor of 1.25, and 32 MB of libraries' own, where the allocator keeps nothing."""
    small = {**MEDIUM, "num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 16}
    given = [{"medium": MEDIUM, "small": small}, options, LORA.rank if lora else 0]
    ran = subprocess.run(
        [sys.executable, "-c", GROWTH, json.dumps(given)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "1048576"},
    )
    grown = int(ran.stdout)
    found = needed(LORA if lora else None, **options)
    estimated = max(found.pop("loading"), sum(found.values()))
    assert estimated / 1.25 - 32e6 <= grown <= estimated * 1.25 + 32e6


# --- a budget that is found ---


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_number_is_doubled_until_memory_runs_out(room: int, most: int) -> None:
    tried = []

    def attempt(tokens: int) -> None:
        tried.append(tokens)
        if tokens > room:
            raise torch.OutOfMemoryError

    found = budget.largest(attempt, 1, most)
    assert found == 1 << (min(room, most).bit_length() - 1)
    assert len(tried) <= most.bit_length()


def test_no_memory_for_the_least_names_what_saves_some() -> None:
    def attempt(tokens: int) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(InvalidInput, match="256 tokens at a time; set base_dtype"):
        budget.largest(attempt, 256, 1024)


def test_on_the_cpu_what_fits_into_the_machine_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    opts = Options(models={"medium": MEDIUM}, device="cpu")
    config = SessionConfig("medium", lora=LORA)
    assert budget.fitting(opts, config, 10**12) == 4096
    found = memory.needed(opts, config, 1024)
    room = sum(found.values()) - found["loading"]
    assert budget.fitting(opts, config, room) == 1024
    assert budget.fitting(opts, config, 1) == 256


@pytest.mark.parametrize(("lora", "copies"), [(None, 2), (LORA, 1)])
def test_room_is_left_for_what_a_process_has_whole_of_divided_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lora: LoraConfig | None, copies: int
) -> None:
    opts = Options(models=MODELS, device="cpu", checkpoint_dir=tmp_path)
    config = SessionConfig("deep", lora=lora)
    session = Rank(opts, config)
    rooms: list[int] = []
    monkeypatch.setattr(budget, "fitting", lambda opts, config, room, shards: rooms.append(room))
    engine, vocab_size = session._part.engine, session.facts().vocab_size
    for shards in (1, 2):
        budget.find(opts, config, engine, shards)
    session.close()
    outside = 4 * (2 * vocab_size * 16 + 16)
    layer = 4 * (4 * 16 * 16 + 3 * 16 * 32 + 2 * 16)
    update = sum(w.nbytes for w in engine.weights.values()) if lora else 0  # in two layers
    assert rooms[0] - rooms[1] == copies * (outside + 2 * layer) + 2 * update


def test_a_checkpoint_hands_on_the_budget_that_was_found(
    make_kitchen: MakeKitchen, datums: list[Datum], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [16, 32, 32]
    monkeypatch.setattr(budget, "find", lambda *_: found.pop(0))
    client = make_kitchen(micro_batch_tokens="auto").training_client

    def tokens(session: Any) -> Any:
        return client.get_info(session)["micro_batch_tokens"]

    session = client.start_session(SessionConfig("tiny"))
    train(client, session, datums)
    reference = client.save_checkpoint(session, "x")
    resumed = client.start_session(
        SessionConfig("tiny", from_checkpoint=reference, with_optimizer=True)
    )
    loaded = client.start_session(SessionConfig("tiny"))
    assert (tokens(session), tokens(resumed), tokens(loaded)) == (16, 16, 32)
    client.load_checkpoint(loaded, reference, with_optimizer=True)
    assert tokens(loaded) == 16
    # Weights alone are not continued from, but started from.
    fresh = client.start_session(SessionConfig("tiny", from_checkpoint=reference))
    assert tokens(fresh) == 32


def test_a_budget_that_is_given_stays(make_kitchen: MakeKitchen, datums: list[Datum]) -> None:
    client = make_kitchen(micro_batch_tokens=16).training_client
    reference = client.save_checkpoint(client.start_session(SessionConfig("tiny")), "x")
    other = make_kitchen(micro_batch_tokens=32).training_client
    session = other.start_session(
        SessionConfig("tiny", from_checkpoint=reference, with_optimizer=True)
    )
    assert other.get_info(session)["micro_batch_tokens"] == 32


def test_a_budget_is_found_on_this_machine(make_kitchen: MakeKitchen) -> None:
    client = make_kitchen(micro_batch_tokens="auto").training_client
    before = state(make_kitchen().training_client.start_session(SessionConfig("drops")))
    session = client.start_session(SessionConfig("drops"))
    assert client.get_info(session)["micro_batch_tokens"] == 4096
    assert all(torch.equal(before[name], tensor) for name, tensor in state(session).items())


def test_a_client_says_what_a_session_would_need(make_kitchen: MakeKitchen) -> None:
    client = make_kitchen(models=MODELS).training_client
    found = client.helper("memory_needed")(SessionConfig("tiny"))
    assert found.keys() == {
        "weights",
        "gradients",
        "moments",
        "activations",
        "loading",
        "available",
    }
    assert found["available"] <= capacity.total(torch.device("cpu"))


def test_before_weights_become_few_bits_they_take_more() -> None:
    found = needed(LORA, base_dtype="int8")
    assert found["loading"] > 2 * found["weights"]


def test_rows_that_are_known_bound_what_is_computed_at_a_time(make_kitchen: MakeKitchen) -> None:
    ask = make_kitchen(models={"medium": MEDIUM}).training_client.helper("memory_needed")

    def activations(length: int | None, rows: int) -> int:
        return int(ask(SessionConfig("medium", max_length=length), rows)["activations"])

    assert activations(32, 4) < 0.1 * activations(None, 0)
    assert activations(32, 4) < activations(32, 8)
    assert activations(32, 4096) == activations(32, 8192)


def test_a_dry_run_shows_it_and_warns_where_it_does_not_fit(
    make_kitchen: MakeKitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    kitchen, config = make_kitchen(), ModelConfig(model="tiny")
    fits = estimate_memory(kitchen, config)
    assert fits is not None
    assert fits.needed == fits.weights + fits.gradients + fits.moments + fits.activations
    monkeypatch.setattr(capacity, "free", lambda device: fits.needed - 1)
    before = estimate_memory(kitchen, config)
    with pytest.warns(CrucibleWarning, match=r"needs about \S+ GB of memory, and \S+ GB are free"):
        refine_memory(kitchen, config, before, 0, None)
    less = refine_memory(kitchen, config, before, 1, 8)
    assert less is not None
    assert less.activations < fits.activations


def test_a_dry_run_ends_before_a_model_is_loaded_that_does_not_fit(
    make_kitchen: MakeKitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "free", lambda device: 1000)
    monkeypatch.setattr(loading, "load", None)  # a call fails
    config = SupervisedConfig(model="tiny", dataset="rows")
    with pytest.raises(DoesNotFit, match=r"does not fit: .* it was not loaded") as caught:
        plan(make_kitchen(), config)
    assert caught.value.memory.available == 1000


def test_a_folder_that_is_not_there_is_named_before_anything_is_loaded() -> None:
    with pytest.raises(NotFound, match=r"there is no folder './llama-100n'"):
        memory.needed(Options(device="cpu"), SessionConfig("./llama-100n"), 64)


def test_a_container_limits_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(capacity, "LIMITS", (str(limit), str(tmp_path / "missing")))
    whole = capacity.total(torch.device("cpu"))
    limit.write_text("max\n")
    assert capacity.total(torch.device("cpu")) == whole
    limit.write_text("1000000\n")
    assert capacity.total(torch.device("cpu")) == capacity.free(torch.device("cpu")) == 10**6
