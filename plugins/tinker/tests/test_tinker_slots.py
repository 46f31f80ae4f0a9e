"""Weights to sample from take slots of a SkyRL server, of which it has few."""

from __future__ import annotations

from typing import TYPE_CHECKING

import crucible_adapter_tinker.completer as tinker_completer
import crucible_adapter_tinker.training_client as tinker_training_client
import pytest
from crucible_kitchen import LoraConfig, SessionConfig
from crucible_kitchen.testing import bound
from skyrl_server import BACKEND

if TYPE_CHECKING:
    from skyrl_server import SkyrlServer


@pytest.mark.slow
def test_more_weights_are_sampled_from_than_the_server_has_slots(skyrl: SkyrlServer) -> None:
    """Those of a closed session among them: they were saved with a name."""
    with bound("training_client", tinker_training_client, base_url=skyrl.base_url) as client:
        session = client.start_session(SessionConfig(skyrl.model, lora=LoraConfig(rank=4)))
        named = client.save_weights_for_sampler(session, "kept")
        with bound(
            "completer", tinker_completer, base_url=skyrl.base_url, max_loaded_weights=1
        ) as completer:
            [first] = completer.score([[1, 2, 3]], named)
            for _ in range(BACKEND["max_lora_adapters"]):
                completer.score([[1, 2, 3]], client.save_weights_for_sampler(session))
            client.close_session(session)
            [again] = completer.score([[1, 2, 3]], named)
    assert again.tolist() == first.tolist()
