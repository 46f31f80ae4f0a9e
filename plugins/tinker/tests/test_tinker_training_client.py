"""The training client on a server that computes nothing, but does what a real one does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tinker")

import crucible_adapter_tinker.training_client as training_client
from crucible_adapter_tinker.servers import connection
from crucible_adapter_tinker.training import operations
from crucible_kitchen import (
    AdamParams,
    AdapterError,
    AdapterTimeout,
    Datum,
    InvalidInput,
    LoraConfig,
    ModelInput,
    NotFound,
    SessionClosed,
    SessionConfig,
    SessionFailed,
    TrainingClient,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from crucible_kitchen.testing import bound
from fake_tinker import LOGPROB, MODEL, FakeServer, fake_server

CONFIG = SessionConfig(MODEL, lora=LoraConfig(rank=4))
REFUSED = {"error": "the batch is cursed", "category": "user"}


@pytest.fixture(scope="module")
def running() -> Iterator[FakeServer]:
    with fake_server() as fake:
        yield fake


@pytest.fixture(scope="module")
def shared(running: FakeServer) -> Iterator[TrainingClient]:
    with opened(running) as client:
        yield client


@pytest.fixture
def fake(running: FakeServer) -> FakeServer:
    running.forget()
    return running


@pytest.fixture
def client(shared: TrainingClient, fake: FakeServer) -> TrainingClient:
    """One for all tests, since the SDK takes a while to connect."""
    return shared


def opened(fake: FakeServer, **options: Any) -> Any:
    given = {"base_url": fake.base_url, "api_key": "tml-secret", "connect_timeout": 5, **options}
    return bound("training_client", training_client, **given)


def datum(*tokens: int, **inputs: list[float]) -> Datum:
    given = {name: np.array(values, np.float32) for name, values in inputs.items()}
    given = given or {"weights": np.ones(len(tokens) - 1, np.float32)}
    return Datum(
        ModelInput.from_ints(list(tokens[:-1])), {"target_tokens": np.array(tokens[1:]), **given}
    )


# --- sessions ---


def test_a_session_is_a_model_of_the_server(client: TrainingClient, fake: FakeServer) -> None:
    client.start_session(CONFIG)
    made = fake.sent("create_model")
    assert made["base_model"] == MODEL
    assert made["lora_config"]["rank"] == 4
    assert made["lora_config"]["seed"] == 0
    assert made["lora_config"]["train_unembed"] is False


def test_a_model_that_the_server_lacks_is_not_found(client: TrainingClient) -> None:
    with pytest.raises(NotFound, match=r"no model 'other'; it has acme/tiny"):
        client.start_session(SessionConfig("other", lora=LoraConfig()))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (SessionConfig(MODEL), "set `lora`"),
        (SessionConfig(MODEL, revision="main", lora=LoraConfig()), "revision"),
        (SessionConfig(MODEL, lora=LoraConfig(alpha=16)), "lora.alpha itself: to 32 here, not"),
        (SessionConfig(MODEL, lora=LoraConfig(dropout=0.1)), "dropout"),
        (SessionConfig(MODEL, lora=LoraConfig(targets=("q_proj",))), "not 'q_proj'"),
    ],
)
def test_what_the_server_cannot_honour_is_unsupported(
    client: TrainingClient, fake: FakeServer, config: SessionConfig, said: str
) -> None:
    with pytest.raises(Unsupported, match=said):
        client.start_session(config)
    assert "create_model" not in fake.received


def test_a_refused_key_is_unauthorized_and_not_shown(fake: FakeServer) -> None:
    fake.failing["config"] = [(401, {"detail": "who are you"})]
    with opened(fake) as client, pytest.raises(Unauthorized, match="who are you") as caught:
        client.start_session(CONFIG)
    assert "tml-secret" not in repr(caught.getrepr(style="long"))


def test_a_key_of_another_shape_is_unauthorized(fake: FakeServer) -> None:
    with opened(fake, api_key="sk-1") as client, pytest.raises(Unauthorized, match="api_key"):
        client.start_session(CONFIG)


def test_a_server_that_is_not_there_is_unavailable_at_once() -> None:
    with fake_server() as gone:
        pass
    with opened(gone, api_key=None) as client, pytest.raises(Unavailable) as caught:
        client.start_session(CONFIG)
    assert "cannot reach" in caught.value.reason
    [note] = caught.value.__notes__
    assert "`base_url` says where" in note
    assert "neither `api_key` nor TINKER_API_KEY" in note


def test_an_address_without_the_api_is_not_found(fake: FakeServer) -> None:
    fake.failing["healthz"] = [(404, {"detail": "Not Found"})]
    with opened(fake) as client, pytest.raises(NotFound, match="is `base_url` the root"):
        client.ping()


def test_an_sdk_that_a_skyrl_server_cannot_read_is_told_before_anything_is_sent(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.failing["/openapi.json"] = [(200, {"info": {"title": "Tinker API Mock"}})]
    monkeypatch.setattr(connection, "sends_json", lambda: False)
    with opened(fake) as client, pytest.raises(Unsupported, match=r"pip install 'tinker<0\.25'"):
        client.start_session(CONFIG)
    assert "create_session" not in fake.received


# --- operations ---


def test_the_loss_is_computed_where_the_server_does_not_return_it(client: TrainingClient) -> None:
    session = client.start_session(CONFIG)
    batch = [datum(1, 2, 3, weights=[1.0, 2.0]), datum(4, 5, weights=[-1.0])]
    result = client.await_(client.forward_backward(session, batch))
    assert result.loss == pytest.approx(-LOGPROB * 2)
    assert [each["logprobs"].shape for each in result.outputs] == [(2,), (1,)]
    assert result.metrics == {"acme:mean": 2.0}


def test_a_step_has_the_norm_of_the_gradient(client: TrainingClient) -> None:
    session = client.start_session(CONFIG)
    client.forward_backward(session, [datum(1, 2)])
    assert client.await_(client.optim_step(session, 1e-3)).grad_norm == 0.5


def test_every_field_of_adam_is_sent(client: TrainingClient, fake: FakeServer) -> None:
    session = client.start_session(CONFIG)
    client.forward_backward(session, [datum(1, 2)])
    adam = AdamParams(eps=1e-7, weight_decay=0.1, grad_clip_norm=0.5)
    client.await_(client.optim_step(session, 1e-3, adam))
    sent = fake.sent("optim_step")
    params = sent.get("adam_params") or sent["optim_params"]
    expected = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-7, "weight_decay": 0.1}
    expected |= {"learning_rate": 1e-3, "grad_clip_norm": 0.5}
    assert {name: params[name] for name in expected} == expected


def test_a_loss_that_is_not_finite_fails_its_pass(client: TrainingClient) -> None:
    session = client.start_session(CONFIG)
    far = datum(1, 2, logprobs=[-1e4], advantages=[1.0])
    with pytest.raises(AdapterError, match="the loss is not finite"):
        client.await_(client.forward_backward(session, [far], "importance_sampling"))


def test_an_output_of_other_datums_is_an_error(client: TrainingClient, fake: FakeServer) -> None:
    nothing = {"loss_fn_output_type": "ArrayRecord", "loss_fn_outputs": [], "metrics": {}}
    fake.results["forward_backward"] = [nothing]
    session = client.start_session(CONFIG)
    with pytest.raises(AdapterError, match="1 datums were sent, 0 outputs came back"):
        client.await_(client.forward_backward(session, [datum(1, 2)]))


def test_the_step_behind_a_pass_that_failed_is_worth_nothing(
    client: TrainingClient, fake: FakeServer
) -> None:
    session = client.start_session(CONFIG)
    reference = client.save_checkpoint(session, "x")
    fake.results["forward_backward"] = [REFUSED]
    passed = client.forward_backward(session, [datum(1, 2)])
    stepped = client.optim_step(session, 1e-3)
    with pytest.raises(SessionFailed, match="cursed"):
        client.await_(stepped)
    with pytest.raises(AdapterError, match=r"a forward_backward failed: .*cursed") as caught:
        client.await_(passed)
    assert not isinstance(caught.value, InvalidInput | SessionFailed)
    client.load_checkpoint(session, reference)
    client.await_(client.forward_backward(session, [datum(1, 2)]))


def test_an_sdk_that_the_server_does_not_understand_is_told(
    client: TrainingClient, fake: FakeServer
) -> None:
    session = client.start_session(CONFIG)
    fake.failing["forward_backward"] = [(422, {"detail": "a field is missing"})] * 3
    with pytest.raises(Unsupported, match=r"422: .* missing; the installed SDK is tinker 0\.\d+"):
        client.await_(client.forward_backward(session, [datum(1, 2)]))


def test_a_connection_that_is_cut_does_not_show(client: TrainingClient, fake: FakeServer) -> None:
    session = client.start_session(CONFIG)
    fake.failing["forward_backward"] = [None]
    fake.failing["retrieve_future"] = [None, (503, {"detail": "later"})]
    passed = client.forward_backward(session, [datum(1, 2)])
    stepped = client.optim_step(session, 1e-3)
    assert client.await_(passed).loss == pytest.approx(-LOGPROB)
    assert client.await_(stepped).grad_norm == 0.5


def test_a_limit_of_requests_is_waited_for(client: TrainingClient, fake: FakeServer) -> None:
    session = client.start_session(CONFIG)
    fake.failing["optim_step"] = [(429, {"detail": "slow down"})]
    client.forward_backward(session, [datum(1, 2)])
    assert client.await_(client.optim_step(session, 1e-3)).grad_norm == 0.5
    assert fake.count()["optim_step"] == 2


def test_a_timeout_leaves_the_operation_running(client: TrainingClient, fake: FakeServer) -> None:
    session = client.start_session(CONFIG)
    fake.paused.set()
    passed = client.forward_backward(session, [datum(1, 2)])
    with pytest.raises(AdapterTimeout):
        client.await_(passed, timeout=0.05)
    fake.paused.clear()
    with ThreadPoolExecutor(2) as pool:
        losses = [result.loss for result in pool.map(client.await_, [passed] * 4)]
    assert losses == pytest.approx([-LOGPROB] * 4)


def test_a_server_that_disappears_fails_what_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "LOOK_AFTER", 0.05)
    with fake_server() as fake, opened(fake, lost_after=0.2) as client:
        session = client.start_session(CONFIG)
        fake.failing["healthz"] = [None] * 100
        fake.paused.set()
        passed = client.forward_backward(session, [datum(1, 2)])
        with pytest.raises(Unavailable, match=r"out of reach for 0\.2 s") as caught:
            client.await_(passed)
        assert caught.value.retryable
        with pytest.raises(SessionFailed):
            client.optim_step(session, 1e-3)


def test_closing_ends_what_the_server_does_not_answer(
    client: TrainingClient, fake: FakeServer
) -> None:
    session = client.start_session(CONFIG)
    fake.paused.set()
    passed = client.forward_backward(session, [datum(1, 2)])
    stepped = client.optim_step(session, 1e-3)
    client.close_session(session)
    for future in (passed, stepped):
        with pytest.raises(SessionClosed):
            client.await_(future)


def test_closing_a_client_ends_its_sessions(fake: FakeServer) -> None:
    before = {*threading.enumerate()}
    with opened(fake) as client:
        session = client.start_session(CONFIG)
    new = {thread.name for thread in {*threading.enumerate()} - before}
    assert "crucible-tinker-session" not in new
    with opened(fake) as client, pytest.raises(SessionClosed):
        client.optim_step(session, 1e-3)


# --- checkpoints ---


def test_loading_swaps_the_model_of_the_server(client: TrainingClient, fake: FakeServer) -> None:
    session = client.start_session(CONFIG)
    reference = client.save_checkpoint(session, "x")
    client.forward_backward(session, [datum(1, 2)])
    client.load_checkpoint(session, reference)
    with pytest.raises(InvalidInput, match="no gradient"):
        client.optim_step(session, 1e-3)
    assert fake.sent("load_weights")["optimizer"] is True
    client.load_checkpoint(session, reference, with_optimizer=False)
    assert fake.sent("load_weights")["optimizer"] is False
    before = fake.sent("optim_step")["model_id"] if "optim_step" in fake.received else None
    client.forward_backward(session, [datum(1, 2)])
    client.await_(client.optim_step(session, 1e-3))
    assert fake.sent("optim_step")["model_id"] != before
    assert reference.startswith("tinker://")
    assert fake.sent("optim_step")["model_id"] not in reference


def test_a_checkpoint_of_another_rank_is_refused(client: TrainingClient) -> None:
    reference = client.save_checkpoint(client.start_session(CONFIG), "x")
    other = SessionConfig(MODEL, lora=LoraConfig(rank=8), from_checkpoint=reference)
    with pytest.raises(InvalidInput, match="rank 4, and the session one of 8"):
        client.start_session(other)


@pytest.mark.parametrize("reference", ["", "x", "tinker://run/weights/none", "../x", "é\0"])
def test_what_is_no_checkpoint_is_not_found(client: TrainingClient, reference: str) -> None:
    session = client.start_session(CONFIG)
    with pytest.raises(NotFound):
        client.load_checkpoint(session, reference)
    client.await_(client.forward_backward(session, [datum(1, 2)]))


def test_checkpoints_are_listed_by_label_and_deleted(client: TrainingClient) -> None:
    session = client.start_session(CONFIG)
    labels = ["run/step-9", "run/step-10", "rune/1", "run/step-9"]
    saved = [client.save_checkpoint(session, label) for label in labels]
    assert client.list_checkpoints("run/") == [saved[0], saved[1], saved[3]]
    assert client.list_checkpoints() == saved
    client.delete_checkpoint(saved[1])
    client.delete_checkpoint(saved[1])
    client.delete_checkpoint("nothing")
    assert client.list_checkpoints("run/") == [saved[0], saved[3]]


def test_cleaning_removes_what_is_not_kept(client: TrainingClient) -> None:
    session = client.start_session(CONFIG)
    kept, lost, other = (client.save_checkpoint(session, x) for x in ("run/a", "run/b", "other"))
    weights = client.save_weights_for_sampler(session, "run/w")
    assert client.clean("run/", [kept], dry_run=True) == [lost, weights]
    assert client.clean("run/", [kept]) == [lost, weights]
    assert client.clean("run/", [kept]) == []
    assert client.clean() == []
    assert client.list_checkpoints() == [kept, other]


# --- weights to sample from ---


def test_references_of_weights_are_never_reused(client: TrainingClient) -> None:
    session = client.start_session(CONFIG)
    names = [None, "same", "same", None]
    assert len({client.save_weights_for_sampler(session, name) for name in names}) == 4
