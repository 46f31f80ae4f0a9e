"""What the hub client promises about what it returns, against a hub on this machine."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from crucible_adapter_hf_hub import downloads
from crucible_adapter_hf_hub.listings import Checker, Entry
from crucible_kitchen import HubClient, InvalidInput, NotFound, Unavailable
from filelock import FileLock
from huggingface_hub import constants
from loopback_hub import Answer, Cut, LoopbackHub, Request, Truncated, WrongBytes

FILES = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "README.md": b"# Tiny\n",
    "config.json": b'{"model_type": "llama"}',
    "empty": b"",
    "model.safetensors": bytes(range(256)) * 40,  # in Git LFS
    "tokenizer/ünï code.txt": "größe 🦜".encode(),
}
NEWER = {**FILES, "config.json": b'{"model_type": "gpt2!"}', "model.safetensors": b"newer" * 2048}
REPO = "org/tiny"

# Takes a snapshot in a process of its own and prints the hash of its files.
CODE = """
import hashlib, sys
import crucible_adapter_hf_hub.hub_client as hf_hub
from crucible_kitchen import Kitchen
options = {"use": hf_hub, "endpoint": sys.argv[1], "cache_dir": sys.argv[2]}
with Kitchen(adapters={"hub_client": options}) as kitchen:
    folder = kitchen.hub_client.snapshot("org/tiny")
    names = kitchen.hub_client.list_files("org/tiny")
    print(hashlib.sha256(b"".join((folder / name).read_bytes() for name in names)).hexdigest())
"""
SNAPSHOT = [sys.executable, "-c", CODE]


@pytest.fixture(autouse=True)
def commit(hub: LoopbackHub) -> str:
    return hub.commit(REPO, FILES)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def asked(hub: LoopbackHub, method: str = "", path: str = "") -> list[str]:
    return [r.path for r in hub.requests if method in r.method and path in r.path]


# --- what is returned ---


@pytest.mark.parametrize("name", FILES)
def test_a_downloaded_file_is_the_hubs(client: HubClient, name: str) -> None:
    assert client.download(REPO, name).read_bytes() == FILES[name]


def test_a_snapshot_holds_every_file(client: HubClient) -> None:
    assert contents(client.snapshot(REPO)) == FILES


@pytest.mark.parametrize("repo_type", ["model", "dataset", "space"])
def test_repositories_of_one_name_differ_by_their_type(
    client: HubClient, hub: LoopbackHub, repo_type: str
) -> None:
    files = {"what": repo_type.encode(), "rows.parquet": b"PAR1" * 9}
    hub.commit("org/same", files, repo_type)
    assert contents(client.snapshot("org/same", repo_type)) == files
    assert client.download("org/same", "what", repo_type).read_bytes() == repo_type.encode()
    assert client.list_files("org/same", repo_type) == ["rows.parquet", "what"]


def test_a_revision_is_a_branch_a_tag_or_a_commit(
    client: HubClient, hub: LoopbackHub, commit: str
) -> None:
    hub.tag(REPO, "v1", commit)
    hub.commit(REPO, NEWER, branch="dev/next")
    for revision, files in {"v1": FILES, commit: FILES, "main": FILES, "dev/next": NEWER}.items():
        assert contents(client.snapshot(REPO, revision=revision)) == files
        path = client.download(REPO, "config.json", revision=revision)
        assert path.read_bytes() == files["config.json"]


def test_a_branch_that_moves_is_followed(client: HubClient, hub: LoopbackHub) -> None:
    client.snapshot(REPO)
    hub.commit(REPO, NEWER)
    assert contents(client.snapshot(REPO)) == NEWER
    assert client.download(REPO, "config.json").read_bytes() == NEWER["config.json"]


def test_a_branch_that_moves_during_a_call_does_not_mix_two_commits(
    client: HubClient, hub: LoopbackHub
) -> None:
    def move(request: Request) -> None:
        if "/tree/" in request.path:
            hub.commit(REPO, NEWER)

    hub.before = move
    assert contents(client.snapshot(REPO)) == FILES


def test_files_are_listed_sorted_over_many_pages(client: HubClient, hub: LoopbackHub) -> None:
    names = [f"part-{i:04}/rows" for i in range(2100)]
    hub.commit("org/many", dict.fromkeys(names, b""), "dataset")
    assert client.list_files("org/many", "dataset") == names
    assert len(asked(hub, path="/tree/")) > 1


@pytest.mark.parametrize(
    ("allow", "ignore", "expected"),
    [
        (["*.json", "*.md"], None, {"config.json", "README.md"}),
        (
            None,
            ["*.safetensors", "tokenizer/*"],
            {".gitattributes", "README.md", "config.json", "empty"},
        ),
        (["*"], ["*.*"], {"empty"}),
        (["tokenizer/"], None, {"tokenizer/ünï code.txt"}),
        ("*.json", None, {"config.json"}),
        (("e*",), (), {"empty"}),
        (["*.JSON"], None, set()),
        ([], None, set()),
    ],
)
def test_patterns_choose_files(
    client: HubClient, hub: LoopbackHub, allow: list[str], ignore: list[str], expected: set[str]
) -> None:
    folder = client.snapshot(REPO, allow_patterns=allow, ignore_patterns=ignore)
    assert contents(folder).keys() == expected
    assert len(asked(hub, "GET", "/resolve/")) <= len(expected)


def test_what_is_in_the_cache_is_not_fetched_again(client: HubClient, hub: LoopbackHub) -> None:
    client.snapshot(REPO)
    hub.requests.clear()
    client.snapshot(REPO)
    client.download(REPO, "config.json")
    assert asked(hub) == [f"/api/models/{REPO}/revision/main"] * 2


def test_the_cache_is_that_of_huggingface_hub(client: HubClient, cache: Path) -> None:
    from huggingface_hub import hf_hub_download

    path = client.download(REPO, "model.safetensors")
    theirs = hf_hub_download(REPO, "model.safetensors", cache_dir=cache, local_files_only=True)
    assert Path(theirs) == path


# --- checked ---


def overwrite(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def replace_the_link(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"?" * len(FILES[path.name]))


def lose_the_content(path: Path) -> None:
    path.resolve().unlink()


DAMAGES = [overwrite, shorten, lengthen, replace_the_link, lose_the_content]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_file_of_the_cache_is_fetched_again(
    client: HubClient, name: str, damage: Callable[[Path], None]
) -> None:
    damage(client.snapshot(REPO) / name)
    assert client.download(REPO, name).read_bytes() == FILES[name]
    damage(client.download(REPO, name))
    assert contents(client.snapshot(REPO)) == FILES


@pytest.mark.parametrize("damage", DAMAGES)
def test_offline_a_damaged_file_is_named(
    client: HubClient, offline: HubClient, damage: Callable[[Path], None]
) -> None:
    damage(client.snapshot(REPO) / "config.json")
    for call in (
        partial(offline.snapshot, REPO),
        partial(offline.download, REPO, "config.json"),
    ):
        with pytest.raises(Unavailable, match=r"damaged.*'config\.json'.*`offline = false`"):
            call()
    assert offline.download(REPO, "README.md").read_bytes() == FILES["README.md"]


def test_a_damaged_record_is_asked_for_again(client: HubClient, cache: Path) -> None:
    client.snapshot(REPO)
    [record] = cache.glob("*/crucible/*.json")
    record.write_text(record.read_text()[:-9])
    assert contents(client.snapshot(REPO)) == FILES


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_wrong_bytes_are_asked_for_again(client: HubClient, hub: LoopbackHub, name: str) -> None:
    hub.fail(WrongBytes(), path="/resolve/", method="GET", times=1)
    assert client.download(REPO, name).read_bytes() == FILES[name]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_hub_that_sends_other_bytes_than_it_lists_is_an_error_and_none_are_kept(
    client: HubClient, offline: HubClient, hub: LoopbackHub, cache: Path, name: str
) -> None:
    hub.fail(WrongBytes(), path=name, method="GET")
    with pytest.raises(Unavailable, match=f"content for {name!r} that differs") as caught:
        client.snapshot(REPO)
    assert caught.value.retryable
    with pytest.raises(Unavailable, match="missing or damaged"):
        offline.snapshot(REPO)
    wrong = bytes(byte ^ 1 for byte in FILES[name])
    assert wrong not in contents(cache).values()


def test_a_body_that_ends_early_is_an_error(client: HubClient, hub: LoopbackHub) -> None:
    hub.fail(Truncated(), path="model.safetensors", method="GET")
    with pytest.raises(Unavailable, match="size 10240 but has size 5120") as caught:
        client.download(REPO, "model.safetensors")
    assert caught.value.retryable


def test_a_cut_download_is_continued_where_it_stopped(
    client: HubClient, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # what is kept, in place of 10 MB
    hub.fail(Cut(after=0.5), path="model.safetensors", method="GET", times=1)
    content = client.download(REPO, "model.safetensors").read_bytes()
    assert content == FILES["model.safetensors"]
    gets = [r for r in hub.requests if r.method == "GET" and "model.safetensors" in r.path]
    assert [r.headers.get("range") for r in gets] == [None, "bytes=5120-"]


def test_a_file_that_was_found_right_is_not_read_again_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    entry = Entry(7, "sha256", hashlib.sha256(b"content").hexdigest())
    reads = []
    digest = hashlib.file_digest

    def counted(*args: Any) -> Any:
        reads.append(1)
        return digest(*args)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    now = file.stat().st_ctime_ns
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**6)
    checker = Checker()
    # It may change again within the same tick of the clock, which would go unnoticed.
    assert [checker.is_right(file, entry) for _ in range(2)] == [True, True]
    assert len(reads) == 2
    monkeypatch.setattr(time, "time_ns", lambda: now + 2 * 10**9)
    assert [checker.is_right(file, entry) for _ in range(3)] == [True, True, True]
    assert len(reads) == 3
    os.utime(file, ns=(0, 0))
    file.write_bytes(b"c0ntent")
    assert not checker.is_right(file, entry)


# --- whole ---


def whole_sequence(client: HubClient, hub: LoopbackHub) -> list[Request]:
    client.snapshot(REPO)
    return list(hub.requests)


COUNT = 2 + 2 * len(FILES) - 1  # the revision, the tree, HEAD and GET of each, none of the empty


def test_a_snapshot_is_this_many_requests(client: HubClient, hub: LoopbackHub) -> None:
    assert len(whole_sequence(client, hub)) == COUNT


@pytest.mark.parametrize("fault", [Cut(), Cut(after=0.5), Cut(after=0.0), Answer(500)])
@pytest.mark.parametrize("k", range(COUNT))
def test_a_snapshot_interrupted_at_any_request_is_an_error_offline_and_whole_when_asked_again(
    client: HubClient,
    offline: HubClient,
    hub: LoopbackHub,
    monkeypatch: pytest.MonkeyPatch,
    fault: Cut | Answer,
    k: int,
) -> None:
    monkeypatch.setattr(downloads, "_CONCURRENCY", 1)  # so that request k is the same each time
    hub.fail(fault, skip=k)
    with pytest.raises(Unavailable) as caught:
        client.snapshot(REPO)
    assert caught.value.retryable
    with pytest.raises(Unavailable, match="offline = false"):
        offline.snapshot(REPO)
    hub.mend()
    assert contents(client.snapshot(REPO)) == FILES
    assert contents(offline.snapshot(REPO)) == FILES


@pytest.mark.parametrize("k", range(COUNT))
def test_an_interrupted_newer_snapshot_never_mixes_with_the_older(
    client: HubClient,
    offline: HubClient,
    hub: LoopbackHub,
    monkeypatch: pytest.MonkeyPatch,
    k: int,
) -> None:
    monkeypatch.setattr(downloads, "_CONCURRENCY", 1)
    client.snapshot(REPO)
    hub.commit(REPO, NEWER)
    hub.fail(Cut(), skip=k)
    interrupted = True
    try:
        client.snapshot(REPO)
        interrupted = False  # k is beyond: unchanged files have the same content, in the cache
    except Unavailable:
        pass
    try:
        assert contents(offline.snapshot(REPO)) == (FILES if interrupted else NEWER)
    except Unavailable:
        assert interrupted


@pytest.mark.parametrize("k", [1, 3, COUNT - 1])
def test_a_snapshot_killed_at_a_request_is_an_error_offline_and_whole_when_asked_again(
    client: HubClient, offline: HubClient, hub: LoopbackHub, cache: Path, k: int
) -> None:
    def kill(request: Request) -> None:
        if len(hub.requests) == k + 1:
            process.kill()

    hub.before = kill
    with subprocess.Popen([*SNAPSHOT, hub.url, str(cache)]) as process:
        assert process.wait() == -signal.SIGKILL
    hub.before = lambda request: None
    with pytest.raises(Unavailable, match="offline = false"):
        offline.snapshot(REPO)
    assert contents(client.snapshot(REPO)) == FILES


def test_one_downloaded_file_is_not_a_snapshot(client: HubClient, offline: HubClient) -> None:
    client.download(REPO, "config.json")
    with pytest.raises(Unavailable, match=r"'README\.md'") as caught:
        offline.snapshot(REPO)
    assert not caught.value.retryable
    assert caught.value.details["files"] == sorted(FILES.keys() - {"config.json"})
    assert offline.snapshot(REPO, allow_patterns=["*.json"]).is_dir()


def test_files_that_others_put_into_the_cache_are_no_snapshot(
    hub: LoopbackHub, cache: Path, offline: HubClient
) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(REPO, "config.json", cache_dir=cache, endpoint=hub.url)
    with pytest.raises(Unavailable, match="does not say which files it has"):
        offline.snapshot(REPO)


def test_what_others_put_into_the_cache_is_good_once_the_files_were_listed(
    hub: LoopbackHub, cache: Path, client: HubClient, offline: HubClient
) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(REPO, cache_dir=cache, endpoint=hub.url)
    hub.requests.clear()
    client.list_files(REPO)
    assert asked(hub, path="/resolve/") == []
    assert contents(offline.snapshot(REPO)) == FILES


# --- offline ---


def test_offline_no_request_is_made(
    client: HubClient, offline: HubClient, hub: LoopbackHub
) -> None:
    client.snapshot(REPO)
    hub.requests.clear()
    assert contents(offline.snapshot(REPO)) == FILES
    assert offline.download(REPO, "empty").read_bytes() == b""
    assert offline.list_files(REPO) == sorted(FILES)
    offline.ping()
    assert asked(hub) == []


def test_offline_a_branch_is_the_last_commit_that_it_was_resolved_to(
    client: HubClient, offline: HubClient, hub: LoopbackHub, commit: str
) -> None:
    client.snapshot(REPO)
    hub.commit(REPO, NEWER)
    assert contents(offline.snapshot(REPO)) == FILES
    client.snapshot(REPO)
    assert contents(offline.snapshot(REPO)) == NEWER
    assert contents(offline.snapshot(REPO, revision=commit)) == FILES


def test_offline_without_anything_in_the_cache_is_an_error_that_says_how_to_get_it(
    offline: HubClient, cache: Path
) -> None:
    for call in (
        lambda: offline.snapshot(REPO),
        lambda: offline.download(REPO, "config.json"),
        lambda: offline.list_files(REPO),
        lambda: offline.list_files(REPO, revision="0" * 40),
    ):
        with pytest.raises(Unavailable, match=r"call once with `offline = false`") as caught:
            call()
        assert not caught.value.retryable
    assert not cache.exists()


def test_offline_a_file_that_the_commit_does_not_have_is_not_found(
    client: HubClient, offline: HubClient
) -> None:
    client.list_files(REPO)
    with pytest.raises(NotFound, match=r"no file 'confg\.json'"):
        offline.download(REPO, "confg.json")
    with pytest.raises(Unavailable, match="missing or damaged"):
        offline.download(REPO, "config.json")


def test_a_hub_that_is_down_is_an_error_whatever_is_in_the_cache(
    client: HubClient, hub: LoopbackHub, commit: str
) -> None:
    client.snapshot(REPO)
    hub.close()
    for call in (
        lambda: client.snapshot(REPO),
        lambda: client.download(REPO, "config.json"),
        lambda: client.list_files(REPO),
    ):
        with pytest.raises(Unavailable, match=r"cannot be reached.*offline = true") as caught:
            call()
        assert caught.value.retryable
    # A commit is the same for ever, so there is nothing to ask.
    assert contents(client.snapshot(REPO, revision=commit)) == FILES


# --- many at once ---


def test_threads_may_share_a_client(client: HubClient) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: client.snapshot(REPO), range(8)))
        files = list(pool.map(lambda name: client.download(REPO, name).read_bytes(), FILES))
    assert all(contents(folder) == FILES for folder in folders)
    assert files == list(FILES.values())


def test_threads_that_find_damage_do_not_take_files_from_each_other(client: HubClient) -> None:
    name = "model.safetensors"

    def read(_: int) -> bytes:
        path = client.download(REPO, name)
        return path.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            overwrite(client.download(REPO, name))
            assert set(pool.map(read, range(8))) == {FILES[name]}


def test_a_file_that_another_process_fetched_meanwhile_is_not_fetched_again(
    client: HubClient, hub: LoopbackHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "model.safetensors"
    path = client.download(REPO, name)
    overwrite(path)
    hub.requests.clear()
    judged, mended = threading.Event(), threading.Event()
    in_time: list[bool] = []
    is_right = Checker.is_right

    def watched(checker: Checker, path: Path, entry: Entry) -> bool:
        in_time.append(mended.is_set())
        right = is_right(checker, path, entry)
        judged.set()
        return right

    monkeypatch.setattr(Checker, "is_right", watched)
    locks = cache / "models--org--tiny" / "crucible" / "locks"
    with ThreadPoolExecutor(1) as pool:
        with FileLock(locks / hashlib.sha256(FILES[name]).hexdigest()):  # as the other process
            fetched = pool.submit(client.download, REPO, name)
            judged.wait()
            path.write_bytes(FILES[name])
            mended.set()
        assert fetched.result() == path
    assert in_time == [False, True]
    assert asked(hub, path="/resolve/") == []


@pytest.mark.parametrize("damaged", [False, True])
def test_processes_may_share_a_cache(
    client: HubClient, hub: LoopbackHub, cache: Path, damaged: bool
) -> None:
    if damaged:
        folder = client.snapshot(REPO)
        for name in ("config.json", "model.safetensors"):
            overwrite(folder / name)
    processes = [
        subprocess.Popen([*SNAPSHOT, hub.url, str(cache)], stdout=subprocess.PIPE) for _ in range(3)
    ]
    hashes = {process.communicate()[0].strip().decode() for process in processes}
    assert hashes == {hashlib.sha256(b"".join(FILES[name] for name in sorted(FILES))).hexdigest()}


# --- uploads ---

# huggingface_hub 2.4.0 gives httpx2 the body of a file in Git LFS under a deprecated name.
lfs_upload = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "upload"
    for name, content in {
        "README.md": b"# New\n",
        "model.safetensors": b"new weights",
        "deep/er/file.txt": b"text",
        ".git/HEAD": b"ref",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


NEW = {"README.md": b"# New\n", "model.safetensors": b"new weights", "deep/er/file.txt": b"text"}


def test_a_commit_has_an_address(client: HubClient, hub: LoopbackHub) -> None:
    address = client.helper("commit_url")
    assert address(REPO, "abc") == f"{hub.url}/{REPO}/commit/abc"
    assert address(REPO, "abc", "dataset") == f"{hub.url}/datasets/{REPO}/commit/abc"


@lfs_upload
def test_a_folder_is_uploaded_as_one_commit(
    make: Callable[..., HubClient], hub: LoopbackHub, folder: Path
) -> None:
    client = make(token=hub.token)
    commit = client.upload(REPO, folder, message="Better")
    assert hub.files(REPO, commit) == {**FILES, **NEW}
    assert len(asked(hub, "POST", "/commit/")) == 1
    assert contents(client.snapshot(REPO)) == {**FILES, **NEW}


@lfs_upload
def test_a_folder_may_go_below_a_path(
    make: Callable[..., HubClient], hub: LoopbackHub, folder: Path
) -> None:
    make(token=hub.token).upload(REPO, folder, "some/where")
    assert hub.files(REPO) == {**FILES, **{f"some/where/{name}": NEW[name] for name in NEW}}


@pytest.mark.parametrize(("path", "name"), [("", "file.txt"), ("a/b.txt", "a/b.txt")])
def test_a_file_is_uploaded_under_its_own_name_or_another(
    make: Callable[..., HubClient], hub: LoopbackHub, folder: Path, path: str, name: str
) -> None:
    hub.commit(REPO, FILES, "dataset", branch="dev")
    client = make(token=hub.token)
    commit = client.upload(REPO, folder / "deep/er/file.txt", path, "dataset", "dev")
    assert hub.files(REPO, commit, "dataset") == {**FILES, name: b"text"}


def test_an_upload_without_a_source_or_a_repository_says_which_is_missing(
    make: Callable[..., HubClient], hub: LoopbackHub, folder: Path
) -> None:
    client = make(token=hub.token)
    with pytest.raises(NotFound, match="no file or folder"):
        client.upload(REPO, folder / "nowhere")
    with pytest.raises(NotFound, match="no such repository"):
        client.upload("org/none", folder)
    with pytest.raises(InvalidInput, match="path_in_repo"):
        client.upload(REPO, folder, "../up")


def test_offline_nothing_is_uploaded(offline: HubClient, hub: LoopbackHub, folder: Path) -> None:
    with pytest.raises(Unavailable, match="offline"):
        offline.upload(REPO, folder)
    assert asked(hub) == []


@lfs_upload
@pytest.mark.parametrize("path", ["/preupload/", "/objects/batch", "/lfs/", "/commit/"])
def test_a_failed_upload_is_not_a_commit(
    make: Callable[..., HubClient], hub: LoopbackHub, folder: Path, path: str
) -> None:
    hub.fail(Answer(503), path=path)
    with pytest.raises(Unavailable) as caught:
        make(token=hub.token).upload(REPO, folder)
    assert caught.value.retryable
    assert not caught.value.no_effect
    assert hub.files(REPO) == FILES
