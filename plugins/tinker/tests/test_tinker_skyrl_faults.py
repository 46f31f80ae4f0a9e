"""What the adapter makes up for on SkyRL, where no real server gets into trouble on request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tinker")

import crucible_adapter_tinker.training_client as training_client
from crucible_adapter_tinker.names import Clock, parsed_name, parsed_path
from crucible_adapter_tinker.servers import connection
from crucible_kitchen import (
    AdapterError,
    Datum,
    LoraConfig,
    ModelInput,
    SessionConfig,
    SessionFailed,
    TrainingClient,
    Unsupported,
)
from crucible_kitchen.testing import bound
from fake_tinker import MODEL, FakeServer, fake_server

pytestmark = pytest.mark.skipif(not connection.sends_json(), reason="SkyRL reads older SDKs")

CONFIG = SessionConfig(MODEL, lora=LoraConfig(rank=4, targets=("attn", "mlp")))
FOREIGN = "tinker://theirs/weights/step-1000"


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeServer]:
    with fake_server() as running:
        yield running


@pytest.fixture(scope="module")
def shared(fake: FakeServer) -> Iterator[TrainingClient]:
    """One for all tests, since the SDK takes a while to connect."""
    options = {"base_url": fake.base_url, "server": "skyrl", "connect_timeout": 5}
    with bound("training_client", training_client, **options) as client:
        yield client


@pytest.fixture
def client(shared: TrainingClient, fake: FakeServer) -> TrainingClient:
    fake.forget()
    return shared


def datum(*tokens: int) -> Datum:
    weights = np.ones(len(tokens) - 1, np.float32)
    inputs = {"target_tokens": np.array(tokens[1:]), "weights": weights}
    return Datum(ModelInput.from_ints(list(tokens[:-1])), inputs)


def step(client: TrainingClient, session: Any) -> None:
    client.forward_backward(session, [datum(1, 2)])
    client.await_(client.optim_step(session, 1e-3))


def clock_in(reference: str) -> Clock | None:
    path = parsed_path(reference)
    name = path and parsed_name(path.name)
    assert name
    return name.clock


# --- the count of steps ---


def test_the_count_of_steps_is_known_from_the_first_on(client: TrainingClient) -> None:
    session = client.start_session(CONFIG)
    assert clock_in(client.save_checkpoint(session, "x")) == Clock(0, 0)
    step(client, session)
    reference = client.save_checkpoint(session, "x")
    assert clock_in(reference) == Clock(3, 1)  # two empty the slot
    client.load_checkpoint(session, reference)
    assert clock_in(client.save_checkpoint(session, "x")) == Clock(3, 1)
    client.load_checkpoint(session, reference, with_optimizer=False)
    assert clock_in(client.save_checkpoint(session, "x")) == Clock(4, 0)


def test_a_count_that_nobody_knows_stays_unknown_through_later_checkpoints(
    client: TrainingClient, fake: FakeServer
) -> None:
    fake.checkpoints[FOREIGN] = "2026-01-01T00:00:00Z"
    session = client.start_session(CONFIG)
    reference = FOREIGN
    for _ in range(2):
        with pytest.raises(Unsupported, match=r"how many steps the optimizer .* is not known"):
            client.load_checkpoint(session, reference, with_optimizer=False)
        client.load_checkpoint(session, reference)
        step(client, session)
        assert fake.sent("optim_step")["adam_params"]["learning_rate"] == 1e-3
        reference = client.save_checkpoint(session, "x")
        assert clock_in(reference) is None


# --- results that cannot be fetched ---


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_that_starts_again_is_asked_again(
    client: TrainingClient, fake: FakeServer, status: int
) -> None:
    session = client.start_session(CONFIG)
    step(client, session)
    fake.failing["retrieve_future"] = [(status, {"detail": "in a moment"})] * 9
    step(client, session)
    assert not fake.failing["retrieve_future"]


def test_a_result_that_the_server_cannot_send_fails_its_operation(
    client: TrainingClient, fake: FakeServer
) -> None:
    session = client.start_session(CONFIG)
    step(client, session)
    fake.failing["retrieve_future"] = [(500, {"detail": "oh"})] * 9
    with pytest.raises(AdapterError, match=r"oh.* \(500; SkyRL answers so if a number is not fin"):
        step(client, session)


# --- requests that the SDK does not send ---


def refuse(patch: pytest.MonkeyPatch, session: Any, method: str) -> None:
    def refused(*_: Any) -> None:
        raise ValueError("the SDK does not send this")

    patch.setattr(session._model.client, method, refused)


def test_a_pass_that_was_not_sent_is_not_one_of_the_step(
    client: TrainingClient, fake: FakeServer
) -> None:
    session = client.start_session(CONFIG)
    step(client, session)
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, session, "forward_backward")
        with pytest.raises(AdapterError, match="does not send this"):
            client.forward_backward(session, [datum(1, 2)])
    before = fake.count()
    step(client, session)
    assert fake.count()["forward_backward"] == before["forward_backward"] + 1
    assert fake.count()["forward"] == before["forward"]


def test_a_step_that_was_not_sent_can_be_made_again(client: TrainingClient) -> None:
    session = client.start_session(CONFIG)
    client.await_(client.forward_backward(session, [datum(1, 2)]))
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, session, "optim_step")
        with pytest.raises(AdapterError, match="does not send this"):
            client.optim_step(session, 1e-3)
    client.await_(client.optim_step(session, 1e-3))
    assert clock_in(client.save_checkpoint(session, "x")) == Clock(3, 1)


def test_a_step_of_which_a_part_was_sent_fails_the_session(client: TrainingClient) -> None:
    session = client.start_session(CONFIG)
    reference = client.save_checkpoint(session, "x")
    for _ in range(2):
        client.await_(client.forward_backward(session, [datum(1, 2)]))
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, session, "optim_step")
        with pytest.raises(AdapterError, match="does not send this"):
            client.optim_step(session, 1e-3)
    with pytest.raises(SessionFailed, match="does not send this"):
        client.await_(client.optim_step(session, 1e-3))
    client.load_checkpoint(session, reference)
    step(client, session)


# --- gradients that programs left in slots ---

NOT_SENT = (500, {"detail": "Out of range float values are not JSON compliant"})


def test_a_checkpoint_is_restored_to_another_model_if_the_slot_spoiled_the_first(
    client: TrainingClient, fake: FakeServer
) -> None:
    session = client.start_session(CONFIG)
    reference = client.save_checkpoint(session, "x")
    spoiled = len(fake.received["create_model"])
    fake.results["optim_step"] = [NOT_SENT]
    client.load_checkpoint(session, reference)
    assert len(fake.received["create_model"]) == spoiled + 2
    emptied = [each["model_id"] for each in fake.received["optim_step"]]
    assert fake.received["unload_model"][0]["model_id"] == emptied[0]
    assert fake.sent("load_weights")["model_id"] == emptied[1] != emptied[0]


def test_a_slot_that_stays_spoiled_is_an_error_and_not_a_session(
    client: TrainingClient, fake: FakeServer
) -> None:
    reference = client.save_checkpoint(client.start_session(CONFIG), "x")
    fake.results["optim_step"] = [NOT_SENT] * 2
    with pytest.raises(AdapterError, match="the slot was not emptied"):
        client.start_session(replace(CONFIG, from_checkpoint=reference))
    assert "load_weights" not in fake.received
    assert len(fake.received["unload_model"]) == 2


def test_a_first_pass_in_a_spoiled_slot_says_how_to_go_on(
    client: TrainingClient, fake: FakeServer
) -> None:
    session = client.start_session(CONFIG)
    fake.results["optim_step"] = [NOT_SENT]
    with pytest.raises(AdapterError, match="a program that was killed left such a gradient"):
        client.await_(client.forward_backward(session, [datum(1, 2)]))
    assert len(fake.received["optim_step"]) == 3  # two before the pass, and one when it failed
    assert fake.sent("unload_model")["model_id"] == fake.sent("optim_step")["model_id"]
    client.close_session(session)
    step(client, client.start_session(CONFIG))


# --- what follows a failure ---


def test_nothing_is_sent_behind_an_operation_that_may_fail(
    client: TrainingClient, fake: FakeServer
) -> None:
    session = client.start_session(CONFIG)
    step(client, session)
    before = fake.count()
    fake.results["forward_backward"] = [NOT_SENT]
    first = client.forward_backward(session, [datum(1, 2)])
    second = client.optim_step(session, 1e-3)
    with pytest.raises(AdapterError, match="Out of range"):
        client.await_(first)
    with pytest.raises(SessionFailed):
        client.await_(second)
    dropped = fake.received["optim_step"][before["optim_step"] :]
    assert [each["adam_params"]["learning_rate"] for each in dropped] == [0.0]
    assert fake.sent("unload_model")["model_id"] == dropped[0]["model_id"]
