"""Models of a hub, against a hub on this machine."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crucible_adapter_torch.options import TrainingClientOptions
from crucible_adapter_torch.training_client import look_for_model
from crucible_kitchen import (
    AdapterError,
    Completer,
    NotFound,
    SessionConfig,
    TrainingClient,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from huggingface_hub import constants, snapshot_download
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


def test_one_file_is_asked_for_to_find_out_that_a_branch_has_not_moved_or_the_hub_serves(
    client: TrainingClient, hub: LoopbackHub, folders: list[Path]
) -> None:
    commit = hub.commit(REPO, folders[0])
    client.start_session(SessionConfig(REPO))
    for revision in (None, commit):
        hub.requests.clear()
        client.start_session(SessionConfig(REPO, revision=revision))
        asked = [each.path for each in hub.requests if "/resolve/" in each.path]
        assert asked == [f"/{REPO}/resolve/{revision or 'main'}/config.json"]


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
    completer: Completer, hub: LoopbackHub, folders: list[Path], adapter: Path
) -> None:
    hub.commit(REPO, folders[0])
    hub.commit("org/adapter", adapter)
    weights = load_file(folders[0] / "model.safetensors")
    weights["model.layers.0.self_attn.q_proj.weight"] += 1  # B A, of ones
    save_file(weights, folders[0] / "model.safetensors", metadata={"format": "pt"})
    np.testing.assert_allclose(
        completer.score(PROMPT, "org/adapter")[0],
        completer.score(PROMPT, str(folders[0]))[0],
        atol=1e-5,
    )


# --- a cache that holds a part of a model, while the hub is away ---


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter of `REPO`, without a tokenizer."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]}
    base = {"base_model_name_or_path": REPO, "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(settings | base))
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    update = {f"{prefix}.lora_{part}.weight": torch.ones(shape) for part, shape in SHAPES.items()}
    save_file(update, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def forget(repo: str, *patterns: str) -> None:
    """Remove files of a repository from the cache, as if they had not been downloaded yet."""
    cache = Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}", "snapshots")
    files = [file for pattern in patterns for file in cache.glob(f"*/{pattern}")]
    assert files
    for file in files:
        file.unlink()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the library waits to ask again, without waiting them."""
    waits: list[float] = []
    monkeypatch.setattr(_http.time, "sleep", waits.append)
    return waits


TOKENIZER = ["tokenizer_config.json", "tokenizer.json", "chat_template.jinja"]
PARTS = ["model.safetensors", "tokenizer*", "tokenizer.json", "tokenizer_config.json"]


@pytest.mark.parametrize("by_commit", [False, True], ids=["branch", "commit"])
@pytest.mark.parametrize("part", PARTS)
def test_a_model_that_is_cached_in_part_is_unavailable_at_once_while_the_hub_is_away(
    client: TrainingClient,
    hub: LoopbackHub,
    folders: list[Path],
    waits: list[float],
    part: str,
    by_commit: bool,
) -> None:
    commit = hub.commit(REPO, folders[0])
    client.start_session(SessionConfig(REPO))
    forget(REPO, part)
    hub.close()
    waits.clear()
    with pytest.raises(Unavailable, match=f"{commit} is cached in part") as caught:
        client.start_session(SessionConfig(REPO, revision=commit if by_commit else None))
    assert caught.value.retryable
    assert waits == []


def test_every_part_of_the_weights_must_be_in_the_cache_while_the_hub_is_away(
    client: TrainingClient, hub: LoopbackHub, folders: list[Path]
) -> None:
    weights = load_file(folders[0] / "model.safetensors")
    (folders[0] / "model.safetensors").unlink()
    parts = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(weights)}
    for file in {*parts.values()}:
        part = {name: weights[name] for name in weights if parts[name] == file}
        save_file(part, folders[0] / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": parts}
    (folders[0] / "model.safetensors.index.json").write_text(json.dumps(index))
    hub.commit(REPO, folders[0])
    client.start_session(SessionConfig(REPO))
    hub.close()
    client.start_session(SessionConfig(REPO))
    forget(REPO, "model-00002*")
    with pytest.raises(Unavailable, match=r"model-00002-of-00002\.safetensors"):
        client.start_session(SessionConfig(REPO))


def test_a_commit_that_is_cached_whole_is_loaded_where_a_newer_one_is_cached_in_part(
    client: TrainingClient, completer: Completer, hub: LoopbackHub, folders: list[Path]
) -> None:
    old = hub.commit(REPO, folders[0])
    expected = weights_of(client, completer)
    new = hub.commit(REPO, folders[1])
    hub.fail(Cut(0.5), path="/model.safetensors")
    with pytest.raises(Unavailable):
        client.start_session(SessionConfig(REPO))
    hub.close()
    with pytest.raises(Unavailable, match=rf"{new} is cached in part.* name a revision"):
        client.start_session(SessionConfig(REPO))
    np.testing.assert_array_equal(weights_of(client, completer, revision=old), expected)


@pytest.mark.parametrize("part", ["tokenizer*", "tokenizer_config.json", "adapter_model*"])
def test_an_adapter_does_not_get_the_tokenizer_of_its_base_where_its_own_is_not_cached(
    client: TrainingClient, hub: LoopbackHub, folders: list[Path], adapter: Path, part: str
) -> None:
    hub.commit(REPO, folders[0])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folders[0] / name, adapter)
    hub.commit("org/adapter", adapter)
    client.start_session(SessionConfig("org/adapter"))
    forget("org/adapter", part)
    hub.close()
    with pytest.raises(Unavailable, match=r"'org/adapter', of which commit .* in part"):
        client.start_session(SessionConfig("org/adapter"))


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("file", ["model.safetensors", *TOKENIZER])
def test_a_file_that_a_hub_does_not_answer_for_is_not_taken_for_a_missing_one(
    client: TrainingClient, hub: LoopbackHub, folders: list[Path], file: str
) -> None:
    hub.commit(REPO, folders[0])
    hub.fail(Answer(503), path=f"/{file}")
    with pytest.raises(Unavailable, match=f"the hub cannot be reached for model '{REPO}'"):
        client.start_session(SessionConfig(REPO))


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("file", ["adapter_model.safetensors", "tokenizer", *TOKENIZER])
def test_an_adapter_does_not_get_the_tokenizer_of_its_base_where_the_hub_fails_meanwhile(
    client: TrainingClient, hub: LoopbackHub, folders: list[Path], adapter: Path, file: str
) -> None:
    hub.commit(REPO, folders[0])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folders[0] / name, adapter)
    commit = hub.commit("org/adapter", adapter)
    hub.fail(Answer(503), path=f"/org/adapter/resolve/{commit}/{file}")
    with pytest.raises(Unavailable, match="org/adapter"):
        client.start_session(SessionConfig("org/adapter"))


@pytest.mark.parametrize("whole", [False, True], ids=["loaded", "downloaded"])
def test_what_has_no_tokenizer_is_loaded_without_one_while_the_hub_is_away(
    client: TrainingClient, hub: LoopbackHub, folders: list[Path], adapter: Path, whole: bool
) -> None:
    for file in folders[0].glob("tokenizer*"):
        file.unlink()
    hub.commit(REPO, folders[0])
    hub.commit("org/adapter", adapter)
    for name in (REPO, "org/adapter"):
        if whole:
            snapshot_download(name)
        else:
            client.start_session(SessionConfig(name))
    hub.close()
    for name in (REPO, "org/adapter"):
        session = client.start_session(SessionConfig(name))
        with pytest.raises(Unsupported, match="no tokenizer files"):
            client.helper("get_tokenizer")(session)


def test_a_plain_name_is_refused_before_processes_start_only_where_the_hub_says_that_there_is_none(
    hub: LoopbackHub,
) -> None:
    opts, config = TrainingClientOptions(), SessionConfig("small")
    with pytest.raises(NotFound, match="no model 'small'"):
        look_for_model(opts, config)
    hub.fail(Answer(503), path="/", times=1)
    look_for_model(opts, config)
    hub.fail(Answer(403), path="/", times=1)
    look_for_model(opts, config)
    hub.close()
    look_for_model(opts, config)
