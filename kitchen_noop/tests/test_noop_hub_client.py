"""The hub where everything exists keeps every promise of its port."""

import gc
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import HubClient, InvalidInput, Kitchen, NotFound, Unavailable

from kitchen_noop import hub_client


@pytest.fixture
def hub() -> Iterator[HubClient]:
    with noop() as kitchen:
        yield kitchen.hub_client


def noop(**options: Any) -> Kitchen:
    return Kitchen(adapters={"hub_client": {"use": hub_client, "latency_scale": 0, **options}})


def files_in(folder: Path) -> list[str]:
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())


@pytest.mark.parametrize("repo_type", ["model", "dataset", "space"])
def test_every_repository_exists_and_all_its_files_can_be_had(
    hub: HubClient, repo_type: str
) -> None:
    names = hub.list_files("any/name", repo_type)
    assert names == sorted(names)
    assert len(names) > 1
    for name in names:
        assert hub.download("any/name", name, repo_type).read_bytes()
    assert files_in(hub.snapshot("any/name", repo_type)) == names


@pytest.mark.parametrize(
    ("allow", "ignore", "expected"),
    [
        (["*.json"], None, ["config.json", "tokenizer/chars.json"]),
        (["*.json"], ["tokenizer/"], ["config.json"]),
        (["tokenizer/"], None, ["tokenizer/chars.json"]),
        (None, ["*.safetensors", "*.json"], ["README.md"]),
        (["README.MD"], None, []),
        ([], None, []),
    ],
)
def test_a_snapshot_holds_what_matches(
    hub: HubClient, allow: list[str] | None, ignore: list[str] | None, expected: list[str]
) -> None:
    folder = hub.snapshot("a", allow_patterns=allow, ignore_patterns=ignore)
    assert folder.is_dir()
    assert files_in(folder) == expected


def test_a_file_is_replaced_whole_so_that_readers_continue(hub: HubClient) -> None:
    path = hub.download("a", "config.json")
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        hub.download("a", "config.json")
        assert reader.read() == b"old"


def test_a_missing_repository_revision_and_file_are_distinguished() -> None:
    with noop(repositories=["here"], revisions=["main", "dev"]) as kitchen:
        hub = kitchen.hub_client
        with pytest.raises(NotFound, match="no repository 'gone'; there are here"):
            hub.list_files("gone")
        with pytest.raises(NotFound, match=r"no revision 'gone'.*main, dev"):
            hub.snapshot("here", revision="gone")
        with pytest.raises(NotFound, match=r"no file 'gone'.*config\.json"):
            hub.download("here", "gone")
        with pytest.raises(InvalidInput, match="no repo_type 'gone'"):
            hub.list_files("here", "gone")
        assert hub.list_files("here", revision="dev")


def test_what_was_uploaded_is_seen_on_its_branch_and_under_its_commit(
    hub: HubClient, tmp_path: Path
) -> None:
    (tmp_path / "Aü.txt").write_text("one")
    before = hub.list_files("a")
    first = hub.upload("a", tmp_path / "Aü.txt")
    assert re.fullmatch("[0-9a-f]{40}", first)
    (tmp_path / "Aü.txt").write_text("two")
    second = hub.upload("a", tmp_path / "Aü.txt", "Aü.txt", message="again")
    assert hub.download("a", "Aü.txt").read_text() == "two"
    assert hub.download("a", "Aü.txt", revision=first).read_text() == "one"
    assert hub.download("a", "Aü.txt", revision=second).read_text() == "two"
    assert hub.list_files("a") == ["Aü.txt", *before]
    assert "Aü.txt" not in hub.list_files("a", "dataset")
    assert "Aü.txt" not in hub.list_files("b")


def test_each_upload_is_a_commit_of_its_own(hub: HubClient, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    assert len({hub.upload("a", tmp_path / "x") for _ in range(3)}) == 3


def test_an_upload_that_cannot_be_is_refused(hub: HubClient, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with pytest.raises(InvalidInput, match="no file or folder"):
        hub.upload("a", tmp_path / "missing")
    for path in ("../x", "/x"):
        with pytest.raises(InvalidInput, match="path_in_repo"):
            hub.upload("a", tmp_path / "x", path)
    with pytest.raises(NotFound, match="no branch 'gone'"):
        hub.upload("a", tmp_path / "x", revision="gone")


def test_closing_removes_what_was_fetched_and_a_later_call_fetches_again(hub: HubClient) -> None:
    path = hub.download("a", "config.json")
    root = path.parents[3]
    assert root.name.startswith("kitchen-noop-hub-")
    hub.close()
    hub.close()
    assert not root.exists()
    assert hub.download("a", "config.json").is_file()


def test_what_was_fetched_is_removed_with_a_kitchen_that_was_not_closed() -> None:
    path = noop().hub_client.download("a", "config.json")
    gc.collect()
    assert not path.exists()


def test_a_child_process_removes_nothing(hub: HubClient) -> None:
    path = hub.download("a", "config.json")
    hub_client._remove(path.parents[3], os.getpid() + 1)
    assert path.exists()


def test_a_failing_hub_is_unavailable() -> None:
    with noop(failure_rate=1) as kitchen, pytest.raises(Unavailable):
        kitchen.hub_client.list_files("a")
