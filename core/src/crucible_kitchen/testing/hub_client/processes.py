"""Several processes use one hub, and one cache."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...ports import HubClient
from ..conformance import needs, since, unless_synthetic
from ..processes import Elsewhere
from ..processes.state import left_alone
from .fixtures import HubClientFixtures, read_folder


class Processes(HubClientFixtures):
    """What holds between processes that use one hub under equal options."""

    # `uploads` and `below` are fixtures of the section `Uploads`.

    @since("1.5")
    def test_another_process_lists_and_downloads_the_same(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
        contents: Mapping[str, bytes],
        elsewhere: Elsewhere,
    ) -> None:
        """`list_files` has one order in every process; a file that one has downloaded is the same
        for another, in another working directory.

        Usually broken by the order of a set, and by a cache below the working directory, or in a
        dictionary of the module.
        """
        for name in names:
            hub_client.download(repo_id, name, **where)
        listed, found = elsewhere.run(_download, repo_id, names, where)
        assert listed == list(names)
        assert found == contents

    @since("1.5")
    def test_processes_that_fetch_at_once_get_whole_files(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
        contents: Mapping[str, bytes],
        elsewhere: Elsewhere,
    ) -> None:
        """Two processes that fetch a snapshot and its files at the same time, and this one
        meanwhile, all get every file whole.

        Usually broken by a temporary file of one name, by a lock that is not waited for, and by a
        file that is found while another process still writes it.
        """
        both = elsewhere.submit_together(_snapshot_and_download, [(repo_id, names, where)] * 2)
        with ThreadPoolExecutor() as pool:
            mine = []
            for _ in range(4):  # one after the other has begun, and before it ends
                mine.append(pool.submit(_snapshot, hub_client, repo_id, where))
                time.sleep(0.02)
            assert [each.result() for each in mine] == [contents] * 4
        for downloads, snapshot in (each.result() for each in both):
            assert downloads == contents
            assert snapshot == contents

    @since("1.5")
    @unless_synthetic
    def test_what_was_fetched_survives_a_kill(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
        contents: Mapping[str, bytes],
        elsewhere: Elsewhere,
    ) -> None:
        """A file whose path was returned is complete at that path although its process was killed
        at that very moment, and can be fetched by others as before.

        Usually broken by a file that is deleted or completed at exit, and by the lock of the dead
        process.
        """
        path = elsewhere.run_and_die(_path_of_download, repo_id, names[0], where)
        assert path.read_bytes() == contents[names[0]]
        assert _snapshot(hub_client, repo_id, where) == contents

    @since("1.5")
    @needs("upload")
    @unless_synthetic
    def test_two_processes_see_what_either_uploads(
        self,
        hub_client: HubClient,
        uploads: tuple[str, str],
        below: str,
        tmp_path: Path,
        elsewhere: Elsewhere,
    ) -> None:
        """While both have asked for the branch before, each sees what the other has uploaded.

        Usually broken by a process that asks once for the commit of a branch, and by an upload onto
        the commit that it knew, which takes back what others have uploaded since.
        """
        repo_id, repo_type = uploads
        source = tmp_path / "file"
        path = f"{below}/file"
        for number in range(2):
            source.write_bytes(f"here {number}".encode())
            hub_client.upload(repo_id, source, path, repo_type)
            assert elsewhere.run(_read, repo_id, path, repo_type) == f"here {number}".encode()
            source.write_bytes(f"there {number}".encode())
            other = f"{below}/there {number}"
            elsewhere.run(HubClient.upload, repo_id, source, other, repo_type)
            assert _read(hub_client, repo_id, other, repo_type) == f"there {number}".encode()
            assert _read(hub_client, repo_id, path, repo_type) == f"here {number}".encode()

    @since("1.5")
    def test_the_process_stays_as_it_was(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
        elsewhere: Elsewhere,
    ) -> None:
        """No call changes the umask or the working directory, or seeds the generators of `random`
        and NumPy, which all threads share.

        Usually broken by `os.chdir` into the folder of a snapshot.
        """
        changed = elsewhere.run(_changed, repo_id, names, where)
        assert not changed, "what the calls have changed"


# --- in any process ---


def _download(
    client: HubClient, repo_id: str, names: Sequence[str], where: Mapping[str, str]
) -> tuple[list[str], dict[str, bytes]]:
    listed = [*client.list_files(repo_id, **where)]
    return listed, {name: client.download(repo_id, name, **where).read_bytes() for name in names}


def _snapshot_and_download(
    client: HubClient, repo_id: str, names: Sequence[str], where: Mapping[str, str]
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    with ThreadPoolExecutor() as pool:
        snapshot = pool.submit(_snapshot, client, repo_id, where)
        return _download(client, repo_id, names, where)[1], snapshot.result()


def _snapshot(client: HubClient, repo_id: str, where: Mapping[str, str]) -> dict[str, bytes]:
    return read_folder(client.snapshot(repo_id, **where))


def _path_of_download(client: HubClient, repo_id: str, name: str, where: Mapping[str, str]) -> Path:
    return client.download(repo_id, name, **where)


def _read(client: HubClient, repo_id: str, path: str, repo_type: str) -> bytes:
    return client.download(repo_id, path, repo_type).read_bytes()


def _changed(
    client: HubClient, repo_id: str, names: Sequence[str], where: Mapping[str, str]
) -> dict[str, Any]:
    """Return what the calls of a client change of its process."""

    def calls() -> None:
        client.list_files(repo_id, **where)
        client.snapshot(repo_id, **where)
        client.download(repo_id, names[0], **where)

    return left_alone(calls)
