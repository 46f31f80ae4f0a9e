"""Files are whole and right, whatever happens."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from ...errors import AdapterError
from ...ports import HubClient
from .fixtures import GoOffline, HubClientFixtures, read_folder


class Integrity(HubClientFixtures):
    """With threads, later calls, other revisions, no network, a damaged disk."""

    def test_many_threads_fetch_the_same_at_once(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
    ) -> None:
        """A returned path holds the whole file, and keeps holding it, while other threads fetch
        the same.

        Usually broken by writing in place, by a temporary file with a fixed name, and by a client
        that is not safe under threads.
        """
        threads = 8
        start = threading.Barrier(threads)

        def fetch(number: int) -> list[dict[str, bytes]]:
            start.wait()
            found = []
            for turn in range(2):
                if (number + turn) % 2:
                    found.append(read_folder(hub_client.snapshot(repo_id, **where)))
                else:
                    paths = {name: hub_client.download(repo_id, name, **where) for name in names}
                    found.append({name: path.read_bytes() for name, path in paths.items()})
            return found

        with ThreadPoolExecutor(threads) as pool:
            found = [each for several in pool.map(fetch, range(threads)) for each in several]
        alone = {name: hub_client.download(repo_id, name, **where).read_bytes() for name in names}
        assert all(each == alone for each in found)

    def test_what_was_returned_is_left_alone_by_later_calls(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
        contents: Mapping[str, bytes],
    ) -> None:
        """Paths stay good: no later download, and no snapshot of fewer files, changes or removes
        what was returned.

        Usually broken by a snapshot that empties its folder first.
        """
        folder = hub_client.snapshot(repo_id, **where)
        paths = {name: hub_client.download(repo_id, name, **where) for name in names}
        for later in (
            lambda: hub_client.snapshot(repo_id, allow_patterns=[names[-1]], **where),
            lambda: hub_client.snapshot(repo_id, ignore_patterns=["*"], **where),
            lambda: hub_client.download(repo_id, names[0], **where),
            lambda: hub_client.snapshot(repo_id, **where),
            lambda: hub_client.list_files(repo_id, **where),
        ):
            later()
            assert {name: path.read_bytes() for name, path in paths.items()} == contents
            assert read_folder(folder) == contents

    def test_each_revision_has_files_of_its_own(
        self,
        hub_client: HubClient,
        repo_id: str,
        repo_type: str,
        revisions: Mapping[str, Mapping[str, bytes]],
    ) -> None:
        """A branch, a tag and a commit each have the files that they have, and snapshots of one
        hold none of another.

        Usually broken by one folder for all revisions of a repository.
        """
        if not revisions:
            pytest.skip("the fixture `revisions` is not given")
        for _ in range(2):  # the second time out of a cache
            for revision, held in revisions.items():
                assert list(hub_client.list_files(repo_id, repo_type, revision)) == sorted(held)
                snapshot = hub_client.snapshot(repo_id, repo_type, revision)
                assert read_folder(snapshot) == held, revision
                for name, content in held.items():
                    path = hub_client.download(repo_id, name, repo_type, revision)
                    assert path.read_bytes() == content, (revision, name)

    def test_without_the_hub_a_snapshot_is_whole_or_an_error(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
        go_offline: GoOffline | None,
    ) -> None:
        """Where the hub cannot be reached, what was fetched may be returned, never a part of what
        was asked for.

        Usually broken by a cache that takes what it has for all there is: huggingface_hub 2.4.0
        returns, offline, a folder with the one file that was downloaded before.
        """
        leave = self.given(go_offline, "go_offline")

        def whole_or_error() -> None:
            with leave() as offline, contextlib.suppress(AdapterError):
                found = (offline or hub_client).snapshot(repo_id, **where)
                assert sorted(read_folder(found)) == list(names)

        first = hub_client.download(repo_id, names[0], **where).read_bytes()
        whole_or_error()
        hub_client.snapshot(repo_id, allow_patterns=names[:-1], **where)
        whole_or_error()
        hub_client.snapshot(repo_id, **where)
        whole_or_error()
        with leave() as offline, contextlib.suppress(AdapterError):
            path = (offline or hub_client).download(repo_id, names[0], **where)
            assert path.read_bytes() == first

    def test_a_file_that_was_damaged_on_disk_is_noticed(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
        contents: Mapping[str, bytes],
        cache_is_ours: bool | str,
    ) -> None:
        """A file in the cache with wrong bytes, of the right size or another, is fetched again:
        the next `download` or `snapshot` returns right ones.

        Usually broken by a cache that is believed: huggingface_hub 2.4.0 silently
        returns such a file, and a model with a flipped bit goes unnoticed.
        """
        if cache_is_ours is False or str(cache_is_ours).lower() in ("", "0", "false", "no"):
            pytest.skip("the fixture `cache_is_ours` is not true")
        name = max(names, key=lambda name: len(contents[name]))
        right = contents[name]
        flipped = bytes([right[0] ^ 1]) + right[1:]
        for damaged in (flipped, right[:-1], right + b"\0"):
            path = hub_client.download(repo_id, name, **where)
            path.write_bytes(damaged)
            assert hub_client.download(repo_id, name, **where).read_bytes() == right
            path = hub_client.snapshot(repo_id, **where) / name
            path.write_bytes(damaged)
            assert (hub_client.snapshot(repo_id, **where) / name).read_bytes() == right
