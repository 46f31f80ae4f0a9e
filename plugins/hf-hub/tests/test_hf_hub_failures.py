"""What the hub client says when something is wrong: with the arguments, the token, or the hub."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import crucible_adapter_hf_hub.hub_client as hf_hub
import pytest
from crucible_adapter_hf_hub.failures import translated
from crucible_kitchen import (
    AdapterError,
    AdapterTimeout,
    ConfigurationError,
    HubClient,
    InvalidInput,
    Kitchen,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
)
from huggingface_hub import constants, get_session
from loopback_hub import Answer, Cut, LoopbackHub, Silent

pytestmark = pytest.mark.slow

REPO = "org/tiny"
FILES = {"config.json": b"{}", "model.safetensors": b"weights" * 999, "tokenizer.json": b"[]"}
STAGES = {
    "revision": ("GET", "/revision/"),
    "tree": ("GET", "/tree/"),
    "head": ("HEAD", "/resolve/"),
    "get": ("GET", "/resolve/"),
}

MakeClient = Callable[..., HubClient]


@pytest.fixture(autouse=True)
def commit(hub: LoopbackHub) -> str:
    return hub.commit(REPO, FILES)


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Which request of a download fails."""
    method, path = STAGES[request.param]
    return {"method": method, "path": path}


# --- what does not exist ---


def test_a_missing_repository_a_missing_revision_and_a_missing_file_are_distinguished(
    client: HubClient,
) -> None:
    for missing, call in {
        "repository": partial(client.download, "org/none", "config.json"),
        "revision": partial(client.download, REPO, "config.json", revision="v9"),
        "file": partial(client.download, REPO, "weights.bin"),
    }.items():
        with pytest.raises(NotFound, match=f"has no|no such {missing}") as caught:
            call()
        assert caught.value.details == {"missing": missing}
        assert not caught.value.retryable


@pytest.mark.parametrize("repo_type", ["dataset", "space"])
def test_a_repository_of_another_type_is_not_found(client: HubClient, repo_type: str) -> None:
    with pytest.raises(NotFound, match=f"{repo_type} 'org/tiny'.*no such repository.*repo_type"):
        client.snapshot(REPO, repo_type)


def test_a_commit_that_does_not_exist_is_a_missing_revision(client: HubClient) -> None:
    with pytest.raises(NotFound, match=f"revision '{'0' * 40}'.*no such revision"):
        client.snapshot(REPO, revision="0" * 40)


def test_near_names_of_a_missing_file_are_listed(client: HubClient) -> None:
    with pytest.raises(NotFound, match=r"no file 'tokeniser\.json'.*mean 'tokenizer\.json'"):
        client.download(REPO, "tokeniser.json")


# --- what is no name ---


@pytest.mark.parametrize("repo_type", ["models", "bucket", "", "kernel"])
def test_an_unknown_type_is_invalid(client: HubClient, repo_type: str) -> None:
    with pytest.raises(InvalidInput, match="model, dataset, space"):
        client.list_files(REPO, repo_type)


@pytest.mark.parametrize("repo_id", ["", "a/b/c", "../up", "org/", "a b", "org/x..y", "http://x/y"])
def test_an_id_that_no_repository_can_have_is_invalid(
    client: HubClient, hub: LoopbackHub, repo_id: str
) -> None:
    with pytest.raises(InvalidInput, match=re.escape(repr(repo_id))):
        client.snapshot(repo_id)
    assert hub.requests == []


@pytest.mark.parametrize(
    "path", ["", "../config.json", "/etc/passwd", "a/../../b", "a//b", ".", "a\0"]
)
def test_a_name_that_leaves_the_repository_is_invalid(
    client: HubClient, hub: LoopbackHub, path: str
) -> None:
    with pytest.raises(InvalidInput, match="filename"):
        client.download(REPO, path)
    with pytest.raises(InvalidInput, match="revision"):
        client.download(REPO, "config.json", revision=path)
    assert hub.requests == []


@pytest.mark.parametrize("pattern", ["../*", "/etc/*", "a/../../*"])
def test_a_pattern_that_leaves_the_repository_is_invalid(client: HubClient, pattern: str) -> None:
    with pytest.raises(InvalidInput, match=r"allow_patterns.*leaves the repository"):
        client.snapshot(REPO, allow_patterns=["*.json", pattern])
    with pytest.raises(InvalidInput, match=r"ignore_patterns.*leaves the repository"):
        client.snapshot(REPO, ignore_patterns=[pattern])


def test_a_hub_that_lists_a_file_outside_of_the_repository_is_not_followed(
    client: HubClient, hub: LoopbackHub, tmp_path: Path
) -> None:
    hub.commit("org/evil", {"../../../../evil": b"!"})
    with pytest.raises(Unavailable, match="bad name"):
        client.snapshot("org/evil")
    assert not list(tmp_path.rglob("evil"))


# --- who may have it ---


def test_a_gated_repository_needs_a_token(make: MakeClient, hub: LoopbackHub) -> None:
    hub.gate(REPO)
    with pytest.raises(Unauthorized, match=r"ask for it.*`token`"):
        make().snapshot(REPO)
    assert make(token=hub.token).download(REPO, "config.json").read_bytes() == b"{}"


def test_a_private_repository_is_not_found_without_its_token(
    make: MakeClient, hub: LoopbackHub
) -> None:
    hub.hide(REPO)
    with pytest.raises(NotFound, match=r"or it is private.*`token`"):
        make().snapshot(REPO)
    assert make(token=hub.token).snapshot(REPO).is_dir()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_at_any_request_is_unauthorized(
    client: HubClient, hub: LoopbackHub, stage: dict[str, Any], status: int
) -> None:
    hub.fail(Answer(status), **stage)
    with pytest.raises(Unauthorized, match=f"org/tiny.*refuses.*{status}"):
        client.download(REPO, "config.json")


@pytest.mark.parametrize("status", [401, 403])
def test_a_gate_at_any_request_is_unauthorized(
    client: HubClient, hub: LoopbackHub, stage: dict[str, Any], status: int
) -> None:
    hub.fail(Answer(status, "GatedRepo"), **stage)
    with pytest.raises(Unauthorized, match="access is granted to each user"):
        client.download(REPO, "config.json")


def test_an_upload_needs_a_token(client: HubClient, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Unauthorized):
        client.upload(REPO, tmp_path / "file")


def test_no_message_holds_the_token(make: MakeClient, hub: LoopbackHub) -> None:
    token = "hf_verysecretindeed"
    client = make(token=token)
    messages: list[str] = []
    for fault in (Answer(401), Answer(403), Answer(429), Answer(500), Answer(404), Cut(), Cut(0.5)):
        hub.fail(fault)
        for call in (client.ping, lambda: client.snapshot(REPO), lambda: client.list_files(REPO)):
            with pytest.raises(AdapterError) as caught:
                call()
            messages += traceback.format_exception(caught.value)
        hub.mend()
    assert any(
        request.headers.get("authorization") == f"Bearer {token}" for request in hub.requests
    )
    assert not [message for message in messages if token in message]
    assert token not in repr(client.options)


# --- what passes ---


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"RateLimit": '"api";r=0;t=55'}, 55.0),
        ({}, None),
        ({"Retry-After": "soon"}, None),
    ],
)
def test_a_rate_limit_at_any_request_is_raised_at_once_with_the_time_to_wait(
    client: HubClient,
    hub: LoopbackHub,
    stage: dict[str, Any],
    headers: dict[str, str],
    wait: float | None,
) -> None:
    hub.fail(Answer(429, headers=headers), **stage)
    with pytest.raises(RateLimited) as caught:
        client.download(REPO, "config.json")
    assert caught.value.retry_after == wait
    assert caught.value.retryable
    assert (
        len([r for r in hub.requests if stage["path"] in r.path and r.method == stage["method"]])
        == 1
    )


def test_the_time_to_wait_may_be_a_date(client: HubClient, hub: LoopbackHub) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    hub.fail(Answer(429, headers={"Retry-After": format_datetime(at, usegmt=True)}))
    with pytest.raises(RateLimited) as caught:
        client.snapshot(REPO)
    assert caught.value.retry_after == pytest.approx(3600, abs=60)


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_hub_that_fails_at_any_request_is_unavailable(
    client: HubClient, hub: LoopbackHub, stage: dict[str, Any], status: int
) -> None:
    hub.fail(Answer(status), **stage)
    with pytest.raises(Unavailable, match=rf"org/tiny.*{status}.*offline = true") as caught:
        client.download(REPO, "config.json")
    assert caught.value.retryable
    hub.mend()
    assert client.download(REPO, "config.json").read_bytes() == b"{}"


def test_a_cut_at_any_request_is_unavailable(
    client: HubClient, hub: LoopbackHub, stage: dict[str, Any]
) -> None:
    hub.fail(Cut(), **stage)
    with pytest.raises(Unavailable, match=r"org/tiny.*cannot be reached") as caught:
        client.download(REPO, "config.json")
    assert caught.value.retryable


def test_silence_at_any_request_is_a_timeout(
    make: MakeClient, hub: LoopbackHub, stage: dict[str, Any]
) -> None:
    hub.fail(Silent(), **stage)
    with pytest.raises(AdapterTimeout, match=r"org/tiny.*answer") as caught:
        make(timeout=0.2).download(REPO, "config.json")
    assert caught.value.retryable
    tried = [r for r in hub.requests if stage["path"] in r.path and r.method == stage["method"]]
    assert len(tried) == (6 if stage == {"method": "GET", "path": "/resolve/"} else 1)


def test_an_address_without_a_server_is_unavailable_at_once(
    make: MakeClient, hub: LoopbackHub, commit: str, waits: list[float]
) -> None:
    client = make()
    hub.close()
    for call in (
        client.ping,
        make(token=hub.token).ping,
        lambda: client.snapshot(REPO),
        lambda: client.snapshot(REPO, revision=commit),
    ):
        with pytest.raises(Unavailable, match=rf"{hub.url}.*cannot be reached"):
            call()
    assert waits == []


def test_an_address_that_is_not_a_hub_is_unavailable(make: MakeClient, hub: LoopbackHub) -> None:
    for body in (b"<html>Log in</html>", b"{}", b"[]", b'{"id": "org/tiny", "sha": null}'):
        hub.fail(Answer(200, body=body), path="/revision/")
        with pytest.raises(Unavailable, match=r"org/tiny.* hub"):
            make().download(REPO, "config.json")
        hub.mend()
    hub.fail(Answer(200), path="/resolve/")
    with pytest.raises(Unavailable, match=r"'config\.json'"):
        make().download(REPO, "config.json")


def test_calls_of_other_libraries_keep_their_own_patience(
    client: HubClient, hub: LoopbackHub
) -> None:
    client.snapshot(REPO)
    hub.fail(Answer(429))
    assert get_session().get(hub.url).status_code == 429


def test_one_client_gets_one_pair_of_hooks(client: HubClient) -> None:
    client.list_files(REPO)
    before = {name: list(hooks) for name, hooks in get_session().event_hooks.items()}
    client.list_files(REPO)
    assert get_session().event_hooks == before


def test_a_cache_that_may_not_be_written_is_unauthorized_and_a_full_disk_unavailable() -> None:
    for number, kind in ((errno.EACCES, Unauthorized), (errno.ENOSPC, Unavailable)):
        with pytest.raises(kind, match=r"org/tiny.*/cache/refs"), translated("org/tiny"):
            raise OSError(number, os.strerror(number), "/cache/refs")


# --- options ---


def test_a_ping_asks_for_the_owner_of_the_token(make: MakeClient, hub: LoopbackHub) -> None:
    make().ping()
    make(token=hub.token).ping()
    assert [r.path.split("?")[0] for r in hub.requests] == ["/api/models", "/api/whoami-v2"]
    with pytest.raises(Unauthorized):
        make(token="hf_wrongwrong").ping()


def test_a_ping_gives_up_in_seconds(make: MakeClient, hub: LoopbackHub) -> None:
    hub.fail(Silent())
    with pytest.raises(AdapterTimeout):
        make(timeout=0.1).ping()


def test_defaults_come_from_the_variables_of_hugging_face(
    hub: LoopbackHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.hide(REPO)
    monkeypatch.setenv("HF_ENDPOINT", hub.url + "/")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))

    def client() -> HubClient:
        return Kitchen(adapters={"hub_client": {"use": hf_hub}}).hub_client

    assert client().snapshot(REPO).is_relative_to(cache)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()
    assert client().snapshot(REPO).is_dir()
    assert hub.requests == []


def test_hf_hub_offline_with_offline_false_is_explained(
    client: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # what the variable does at import
    with pytest.raises(Unavailable, match="HF_HUB_OFFLINE forbids") as caught:
        client.snapshot(REPO)
    assert not caught.value.retryable


@pytest.mark.parametrize("options", [{"endpoint": "127.0.0.1:80"}, {"timeout": 0}])
def test_a_bad_option_is_an_error_before_any_call(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Kitchen(adapters={"hub_client": {"use": hf_hub, **options}}).hub_client  # noqa: B018


def test_the_hub_learns_nothing_about_this_machine_and_no_other_host_is_asked(
    client: HubClient, hub: LoopbackHub
) -> None:
    client.snapshot(REPO)
    agents = {request.headers["user-agent"] for request in hub.requests}
    assert len(agents) == 1
    assert re.fullmatch(r"crucible-adapter-hf-hub; hf_hub/[\d.]+", agents.pop())


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # by huggingface_hub 2.4.0
def test_nothing_is_printed(
    make: MakeClient,
    hub: LoopbackHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TQDM_POSITION", "-1")  # with which huggingface_hub draws bars anywhere
    client = make(token=hub.token)
    client.snapshot(REPO)
    (tmp_path / "new.bin").write_bytes(b"weights" * 99)
    client.upload(REPO, tmp_path / "new.bin")
    assert capfd.readouterr() == ("", "")


def test_importing_the_adapter_does_not_import_huggingface_hub() -> None:
    code = "import sys, crucible_adapter_hf_hub.hub_client; print('huggingface_hub' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
