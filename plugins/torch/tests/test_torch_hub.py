"""Models of a hub, against a hub on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crucible_kitchen import (
    AdapterError,
    Completer,
    NotFound,
    SessionConfig,
    TrainingClient,
    Unauthorized,
    Unavailable,
)
from huggingface_hub.utils import _http
from loopback_hub import Answer, Cut, Fault, LoopbackHub, redirect
from safetensors.torch import load_file, save_file

REPO = "org/tiny"
PROMPT = [[1, 2, 3, 4]]
SHAPES = {"A": (1, 16), "B": (16, 1)}  # of an update of rank 1


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        redirect(hub, tmp_path / "home", monkeypatch)
        yield hub


@pytest.fixture
def folders(client: TrainingClient) -> list[Path]:
    """Two models with their tokenizer, of one architecture and of different weights."""
    sessions = [client.start_session(SessionConfig("tiny", seed=seed)) for seed in (1, 2)]
    return [
        Path(client.save_weights_for_sampler(session, f"model-{i}"))
        for i, session in enumerate(sessions)
    ]


def test_a_model_and_its_tokenizer_are_loaded_from_a_hub_at_a_revision(
    client: TrainingClient, completer: Completer, hub: LoopbackHub, folders: list[Path]
) -> None:
    hub.tag(REPO, "v1", hub.commit(REPO, folders[0]))
    hub.commit(REPO, folders[1])
    for revision, folder in (("v1", folders[0]), (None, folders[1])):
        session = client.start_session(SessionConfig(REPO, revision=revision))
        assert client.helper("get_tokenizer")(session).encode("hi") == [104, 105]
        loaded = client.save_weights_for_sampler(session, "loaded")
        np.testing.assert_array_equal(
            completer.score(PROMPT, loaded), completer.score(PROMPT, str(folder))
        )


def test_what_the_hub_does_not_have_is_not_found(
    client: TrainingClient, hub: LoopbackHub, folders: list[Path]
) -> None:
    hub.commit(REPO, folders[0])
    for config in (SessionConfig("org/none"), SessionConfig(REPO, revision="v9")):
        with pytest.raises(NotFound, match=config.revision or config.model):
            client.start_session(config)


def test_every_request_is_for_the_revision_of_the_session(
    client: TrainingClient, hub: LoopbackHub, folders: list[Path]
) -> None:
    hub.tag(REPO, "v1", hub.commit(REPO, folders[0]))
    hub.fail(Answer(404, "RevisionNotFound"), path="/resolve/")
    with pytest.raises(NotFound):
        client.start_session(SessionConfig(REPO, revision="v1"))
    asked = [request.path for request in hub.requests if "/resolve/" in request.path]
    assert asked
    assert all("/v1/" in path for path in asked)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Answer(403, "GatedRepo"), Unauthorized),
        (Answer(401, "GatedRepo"), Unauthorized),
        (Answer(403), Unauthorized),
        (Answer(429), Unavailable),
        (Answer(500), Unavailable),
    ],
    ids=["gated-403", "gated-401", "403", "429", "500"],
)
def test_a_hub_that_refuses_or_fails_is_not_taken_for_a_missing_model(
    client: TrainingClient,
    hub: LoopbackHub,
    folders: list[Path],
    fault: Fault,
    kind: type[AdapterError],
) -> None:
    hub.commit(REPO, folders[0])
    hub.fail(fault, path="/resolve/")
    with pytest.raises(kind, match=REPO):
        client.start_session(SessionConfig(REPO))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_connection_that_is_cut_is_unavailable(
    client: TrainingClient, hub: LoopbackHub, folders: list[Path], name: str
) -> None:
    hub.commit(REPO, folders[0])
    hub.fail(Cut(), path=f"/{name}")
    with pytest.raises(Unavailable, match=REPO) as caught:
        client.start_session(SessionConfig(REPO))
    assert caught.value.retryable


def test_a_hub_that_cannot_be_reached_is_unavailable(
    client: TrainingClient, hub: LoopbackHub
) -> None:
    hub.close()
    with pytest.raises(Unavailable, match=REPO) as caught:
        client.start_session(SessionConfig(REPO))
    assert caught.value.retryable


def test_a_hub_that_is_away_is_reported_at_once_and_by_one_error(
    client: TrainingClient, hub: LoopbackHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.close()
    start = time.monotonic()
    with pytest.raises(Unavailable, match="the hub cannot be reached for model 'org/tiny'"):
        client.start_session(SessionConfig(REPO))
    assert time.monotonic() - start < 5  # the library itself would ask again for 23 s
    assert caplog.records == []


def test_a_hub_that_is_away_does_not_matter_for_what_is_in_the_cache(
    client: TrainingClient, hub: LoopbackHub, folders: list[Path]
) -> None:
    hub.commit(REPO, folders[0])
    client.start_session(SessionConfig(REPO))
    hub.close()
    client.start_session(SessionConfig(REPO))


def weights_of(client: TrainingClient, completer: Completer, **config: Any) -> Any:
    session = client.start_session(SessionConfig(REPO, **config))
    return completer.score(PROMPT, client.save_weights_for_sampler(session, "loaded"))


@pytest.mark.parametrize("away", [None, Answer(503), Answer(429)], ids=["closed", "503", "429"])
def test_a_cached_model_is_loaded_without_waiting_where_the_hub_does_not_serve(
    client: TrainingClient,
    completer: Completer,
    hub: LoopbackHub,
    folders: list[Path],
    away: Fault | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.commit(REPO, folders[0])
    expected = weights_of(client, completer)
    if away is None:
        hub.close()
    else:
        hub.fail(away, path="/")
    waits: list[float] = []
    monkeypatch.setattr(_http.time, "sleep", waits.append)
    np.testing.assert_array_equal(weights_of(client, completer), expected)
    assert waits == []  # the library waits 23 s for each file that the model does not have


def test_one_file_is_asked_for_to_find_out_that_a_branch_has_not_moved(
    client: TrainingClient, hub: LoopbackHub, folders: list[Path]
) -> None:
    commit = hub.commit(REPO, folders[0])
    client.start_session(SessionConfig(REPO))
    for revision, asked in ((None, [f"/{REPO}/resolve/main/config.json"]), (commit, [])):
        hub.requests.clear()
        client.start_session(SessionConfig(REPO, revision=revision))
        assert [each.path for each in hub.requests if "/resolve/" in each.path] == asked


def test_a_branch_that_has_moved_is_noticed_and_remembered(
    client: TrainingClient, completer: Completer, hub: LoopbackHub, folders: list[Path]
) -> None:
    hub.commit(REPO, folders[0])
    first = weights_of(client, completer)
    hub.commit(REPO, folders[1])
    moved = weights_of(client, completer)
    assert not np.array_equal(moved, first)
    hub.close()
    np.testing.assert_array_equal(weights_of(client, completer), moved)


def test_an_adapter_of_a_hub_is_merged_into_its_base_model(
    client: TrainingClient,
    completer: Completer,
    hub: LoopbackHub,
    folders: list[Path],
    tmp_path: Path,
) -> None:
    hub.commit(REPO, folders[0])
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]}
    base = {"base_model_name_or_path": REPO, "task_type": "CAUSAL_LM"}
    (adapter / "adapter_config.json").write_text(json.dumps(settings | base))
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    update = {f"{prefix}.lora_{part}.weight": torch.ones(shape) for part, shape in SHAPES.items()}
    save_file(update, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    hub.commit("org/adapter", adapter)
    weights = load_file(folders[0] / "model.safetensors")
    weights["model.layers.0.self_attn.q_proj.weight"] += 1  # B A, of ones
    save_file(weights, folders[0] / "model.safetensors", metadata={"format": "pt"})
    np.testing.assert_allclose(
        completer.score(PROMPT, "org/adapter")[0],
        completer.score(PROMPT, str(folders[0]))[0],
        atol=1e-5,
    )
