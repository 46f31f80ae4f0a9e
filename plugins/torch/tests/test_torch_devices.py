"""The device, the precision and the threads are those of the options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from crucible_adapter_torch import completer as torch_completer
from crucible_adapter_torch import live_weights
from crucible_adapter_torch.devices import choose_device, choose_dtype
from crucible_adapter_torch.options import CompleterOptions
from crucible_kitchen import Datum, InvalidInput, SamplingParams, TrainingClient
from tiny_torch import TINY, MakeKitchen


def test_an_unknown_device_is_invalid_input(make_kitchen: MakeKitchen) -> None:
    with pytest.raises(InvalidInput, match="no device 'gpu9'"):
        make_kitchen(device="gpu9").training_client.start_session(TINY)


def test_an_unknown_device_is_answered_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InvalidInput, match="no device 'gpu' here; there is cpu, cuda:0, cuda:1, "):
        choose_device("gpu")


def test_a_device_that_is_not_there_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(
        InvalidInput, match="no device 'cuda' here; there is cpu, and auto takes cpu"
    ):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_an_automatic_device_is_the_first_there_is(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto").type == expected


def test_an_automatic_precision_is_bfloat16_where_the_device_is_fast_at_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **kwargs: True)
    assert choose_dtype("auto", torch.device("cuda")) is torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **kwargs: False)
    assert choose_dtype("auto", torch.device("cuda")) is torch.float32
    assert choose_dtype("auto", torch.device("cpu")) is torch.float32


# --- threads ---


@pytest.fixture
def two_threads() -> Iterator[dict[str, Any]]:
    yield {"threads": 2}
    torch.set_num_threads(1)


def threads_of(model: Any) -> list[int]:
    """Return a list that grows by the number of threads at each forward pass."""
    found: list[int] = []
    model.register_forward_pre_hook(lambda *_: found.append(torch.get_num_threads()))
    return found


def test_training_uses_the_threads_that_were_asked_for(
    make_kitchen: MakeKitchen, datums: list[Datum], two_threads: dict[str, Any]
) -> None:
    client = make_kitchen(**two_threads).training_client
    session = client.start_session(TINY)
    torch.set_num_threads(1)  # the number of the caller's own thread does not count
    found = threads_of(session.engine.model)
    client.await_(client.forward(session, datums))
    assert found == [2]


def test_sampling_uses_the_threads_that_were_asked_for(
    client: TrainingClient, two_threads: dict[str, Any]
) -> None:
    reference = client.save_weights_for_sampler(client.start_session(TINY))
    found = threads_of(live_weights.find(reference).model)
    options = CompleterOptions(model=reference, **two_threads)
    torch_completer.complete(options, [1], SamplingParams(1))
    assert set(found) == {2}
