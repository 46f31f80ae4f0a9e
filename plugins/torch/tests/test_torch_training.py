"""What the training client of this adapter does beyond the promises of its port."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import numpy as np
import pytest
import torch
from crucible_kitchen import (
    AdapterError,
    Datum,
    ImageChunk,
    InvalidInput,
    ModelInput,
    SessionClosed,
    SessionConfig,
    SessionFailed,
    TrainingClient,
    Unsupported,
)
from tiny_torch import (
    TINY,
    Gate,
    MakeKitchen,
    assert_equal_to_the_bit,
    break_next_pass,
    datum,
    tensors,
    train,
)

# --- futures ---


def test_a_call_returns_at_once_while_another_thread_saves(
    client: TrainingClient, datums: list[Datum]
) -> None:
    session = client.start_session(TINY)
    gate = Gate(session)
    client.forward_backward(session, datums)
    assert gate.entered.wait(30)
    client.optim_step(session, 1e-2)
    saving = threading.Thread(target=client.save_checkpoint, args=(session, "x"))
    saving.start()
    while session.worker._jobs.qsize() < 2:  # the step and the save, behind the gate
        saving.join(0.001)
    calling = threading.Thread(target=client.forward_backward, args=(session, datums))
    calling.start()
    calling.join(10)
    returned = not calling.is_alive()
    gate.open.set()
    saving.join()
    calling.join()
    assert returned


def test_arrays_may_be_reused_as_soon_as_the_call_returns(client: TrainingClient) -> None:
    session, other = client.start_session(TINY), client.start_session(TINY)
    tokens, weights = np.array([1, 2, 3, 4]), np.ones(4, np.float32)
    targets = np.array([2, 3, 4, 5])
    row = Datum(ModelInput.from_ints(tokens), {"target_tokens": targets, "weights": weights})
    expected = client.await_(client.forward_backward(other, [row])).loss
    gate = Gate(session)
    future = client.forward_backward(session, [row])
    tokens[:], targets[:], weights[:] = 0, 0, 0
    gate.open.set()
    assert client.await_(future).loss == expected


# --- bad input ---


def test_an_image_is_unsupported_with_its_reason(client: TrainingClient) -> None:
    session = client.start_session(TINY)
    image = Datum(ModelInput((ImageChunk(b"", "png", 2),)), datum([1, 2, 3]).loss_fn_inputs)
    with pytest.raises(Unsupported, match="text only, not images"):
        client.forward_backward(session, [image])


def test_max_length_does_not_lift_the_limit_of_the_model(client: TrainingClient) -> None:
    session = client.start_session(SessionConfig("tiny", max_length=100))
    with pytest.raises(InvalidInput, match="the limit is 32"):
        client.forward_backward(session, [datum([1] * 34)])


@pytest.mark.parametrize(("asked", "longest"), [(None, 32), (20, 20), (1000, 32)])
def test_the_tokenizer_knows_the_longest_input(
    client: TrainingClient, asked: int | None, longest: int
) -> None:
    session = client.start_session(SessionConfig("tiny", max_length=asked))
    assert client.helper("get_tokenizer")(session).model_max_length == longest


# --- failure ---


def test_a_pass_that_fails_midway_leaves_the_weights_and_can_be_recovered_from(
    client: TrainingClient, datums: list[Datum]
) -> None:
    session = client.start_session(TINY)
    reference = client.save_checkpoint(session, "start")
    before = tensors(session)
    gate = Gate(session)
    first = client.forward_backward(session, datums)
    assert gate.entered.wait(30)  # the next pass is behind it
    break_next_pass(session)
    failing, step = client.forward_backward(session, datums), client.optim_step(session, 1e-2)
    gate.open.set()
    client.await_(first)
    with pytest.raises(AdapterError, match="out of memory") as own:
        client.await_(failing)
    assert not isinstance(own.value, SessionFailed)
    with pytest.raises(SessionFailed, match="out of memory"):
        client.await_(step)
    assert_equal_to_the_bit(tensors(session), before)  # no step on half a gradient
    client.load_checkpoint(session, reference)
    train(client, session, datums)
    client.close_session(session)


def test_closing_frees_the_model_though_the_handle_is_kept(
    client: TrainingClient, datums: list[Datum]
) -> None:
    session = client.start_session(TINY)
    train(client, session, datums)
    model = weakref.ref(session.engine.model)
    client.close_session(session)
    gc.collect()
    assert model() is None


def test_closing_the_kitchen_closes_its_sessions(
    make_kitchen: MakeKitchen, datums: list[Datum]
) -> None:
    before = set(threading.enumerate())
    kitchen = make_kitchen()
    session = kitchen.training_client.start_session(TINY)
    assert set(threading.enumerate()) > before
    kitchen.close()
    assert set(threading.enumerate()) <= before
    with pytest.raises(SessionClosed):
        kitchen.training_client.forward(session, datums)


# --- the process ---


def test_deterministic_algorithms_are_used_on_demand(
    make_kitchen: MakeKitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    client = make_kitchen(deterministic=True).training_client
    try:
        session = client.start_session(TINY)
        assert torch.are_deterministic_algorithms_enabled()
        assert client.get_info(session)["deterministic"] is True
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)


def test_weights_and_moments_stay_float32_in_bfloat16(
    make_kitchen: MakeKitchen, datums: list[Datum]
) -> None:
    exact, rounded = (
        make_kitchen(dtype=dtype).training_client for dtype in ("float32", "bfloat16")
    )
    reference = exact.await_(exact.forward(exact.start_session(TINY), datums)).loss
    session = rounded.start_session(TINY)
    loss = rounded.await_(rounded.forward_backward(session, datums)).loss
    rounded.await_(rounded.optim_step(session, 1e-2))
    assert loss != reference
    assert loss == pytest.approx(reference, rel=1e-2)
    engine = session.engine
    assert {w.dtype for w in engine.weights.values()} == {torch.float32}
    assert {m.dtype for m in engine.moments().values()} == {torch.float32}
