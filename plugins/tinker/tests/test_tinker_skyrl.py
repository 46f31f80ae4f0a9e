"""What the adapter makes up for on a SkyRL server: its behaviours, on a real one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import crucible_adapter_tinker.training_client as training_client
import numpy as np
import pytest
from crucible_kitchen import (
    AdamParams,
    AdapterError,
    CrucibleWarning,
    Datum,
    ImageChunk,
    InvalidInput,
    LoraConfig,
    ModelInput,
    NotFound,
    SessionConfig,
    SessionFailed,
    TrainingClient,
    Unsupported,
)
from crucible_kitchen.testing import bound

if TYPE_CHECKING:
    from skyrl_server import SkyrlServer

pytestmark = pytest.mark.slow


@pytest.fixture
def client(skyrl: SkyrlServer) -> Iterator[TrainingClient]:
    with bound("training_client", training_client, base_url=skyrl.base_url) as client:
        yield client


@pytest.fixture
def config(skyrl: SkyrlServer) -> SessionConfig:
    return SessionConfig(skyrl.model, lora=LoraConfig(rank=4))


def datum(*tokens: int, **inputs: list[float]) -> Datum:
    given = {name: np.array(values, np.float32) for name, values in inputs.items()}
    given = given or {"weights": np.ones(len(tokens) - 1, np.float32)}
    return Datum(
        ModelInput.from_ints(list(tokens[:-1])), {"target_tokens": np.array(tokens[1:]), **given}
    )


def norm(client: TrainingClient, session: Any, *batches: list[Datum]) -> float:
    for each in batches:
        client.forward_backward(session, each)
    found = client.await_(client.optim_step(session, 0.0)).grad_norm
    assert found is not None
    return found


def test_the_server_is_known_by_what_it_says(client: TrainingClient, config: SessionConfig) -> None:
    session = client.start_session(config)
    assert client.get_info(session) == {"server": "skyrl", "lora_init": "server"}


def test_a_gradient_that_was_left_in_a_slot_reaches_nobody(
    client: TrainingClient, config: SessionConfig
) -> None:
    session = client.start_session(config)
    expected = norm(client, session, [datum(1, 2, 3)])
    client.await_(client.forward_backward(session, [datum(4, 5, weights=[1000.0])]))
    # As if the program had been killed, and the server had noticed.
    server = session._server
    server.routes.post("unload_model", {"model_id": session._model.id})
    other = client.start_session(config)
    assert norm(client, other, [datum(1, 2, 3)]) == pytest.approx(expected, rel=1e-5)


def test_a_gradient_in_a_slot_that_is_not_finite_spoils_no_second_session(
    client: TrainingClient, config: SessionConfig
) -> None:
    session = client.start_session(config)
    expected = norm(client, session, [datum(1, 2, 3)])
    reference = client.save_checkpoint(session, "x")
    client.close_session(session)

    def leave() -> None:
        killed = client.start_session(config)
        far = datum(1, 2, logprobs=[-1e4], advantages=[1.0])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(killed._server, "abandon", lambda model: None)  # it had no time to
            with pytest.raises(AdapterError, match="is not finite"):
                client.await_(client.forward_backward(killed, [far], "importance_sampling"))
        killed._server.routes.post("unload_model", {"model_id": killed._model.id})

    leave()
    restored = client.start_session(replace(config, from_checkpoint=reference))
    assert norm(client, restored, [datum(1, 2, 3)]) == pytest.approx(expected, rel=1e-5)
    client.close_session(restored)
    leave()
    spoiled = client.start_session(config)
    with pytest.raises(AdapterError, match="a program that was killed left such a gradient"):
        client.await_(client.forward_backward(spoiled, [datum(1, 2, 3)]))
    client.close_session(spoiled)
    again = client.start_session(config)
    assert norm(client, again, [datum(1, 2, 3)]) == pytest.approx(expected, rel=1e-5)


def test_what_is_accumulated_is_a_sum(client: TrainingClient, config: SessionConfig) -> None:
    session = client.start_session(config)
    batches = [[datum(1, 2, 3)], [datum(4, 5), datum(6, 7, 8, weights=[-1.0, 2.0])], [datum(9, 1)]]
    whole = norm(client, session, [each for batch in batches for each in batch])
    assert norm(client, session, *batches) == pytest.approx(whole, rel=1e-5)


def test_a_number_that_is_not_finite_fails_its_session_at_once(
    client: TrainingClient, config: SessionConfig
) -> None:
    session = client.start_session(config)
    reference = client.save_checkpoint(session, "x")
    far = datum(1, 2, logprobs=[-1e4], advantages=[1.0])
    passed = client.forward_backward(session, [far], "importance_sampling")
    with pytest.raises(AdapterError, match="answers so if a number is not finite"):
        client.await_(passed, timeout=60)
    with pytest.raises(SessionFailed):
        client.optim_step(session, 1e-3)
    client.load_checkpoint(session, reference)
    assert np.isfinite(norm(client, session, [datum(1, 2)]))


def test_what_the_server_ignores_is_unsupported(
    client: TrainingClient, config: SessionConfig
) -> None:
    with pytest.raises(Unsupported, match=r"lora\.targets must be"):
        client.start_session(SessionConfig(config.model, lora=LoraConfig(targets=("attn",))))
    with pytest.raises(InvalidInput, match="must be between 1 and 8"):
        client.start_session(SessionConfig(config.model, lora=LoraConfig(rank=9)))
    session = client.start_session(config)
    client.forward_backward(session, [datum(1, 2)])
    with pytest.raises(Unsupported, match="does not clip gradients"):
        client.optim_step(session, 1e-3, AdamParams(grad_clip_norm=1.0))
    with pytest.raises(Unsupported, match="decays the weights of every slot"):
        client.optim_step(session, 1e-3, AdamParams(weight_decay=0.1))
    seen = ModelInput((ImageChunk(b"", "png", 1),))
    inputs = {"target_tokens": np.array([1]), "weights": np.ones(1, np.float32)}
    with pytest.raises((Unsupported, InvalidInput)):
        client.forward_backward(session, [Datum(seen, inputs)])


def test_what_is_deleted_is_forgotten_with_a_warning(
    client: TrainingClient, config: SessionConfig
) -> None:
    session = client.start_session(config)
    kept, deleted = (client.save_checkpoint(session, "run/x") for _ in range(2))
    with pytest.warns(CrucibleWarning, match="deletes no checkpoint"):
        client.delete_checkpoint(deleted)
    with pytest.raises(NotFound, match="was deleted"):
        client.load_checkpoint(session, deleted)
    assert kept in client.list_checkpoints("run/")
    assert deleted not in client.list_checkpoints("run/")
