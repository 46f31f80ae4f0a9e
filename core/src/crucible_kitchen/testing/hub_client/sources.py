"""What is uploaded, and what an upload does to it."""

from __future__ import annotations

import shutil
from collections import ChainMap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from ...errors import AdapterError, InvalidInput
from ...ports import HubClient
from ..conformance import needs, since
from ..refusal import refuses
from .fixtures import HubClientFixtures, read_folder, write_folder


class Sources(HubClientFixtures):
    """Sources that stay, links, the same again, several at once."""

    @since("1.5")
    @needs("upload")
    def test_an_upload_leaves_its_source_alone(
        self, hub_client: HubClient, uploads: tuple[str, str], below: str, tmp_path: Path
    ) -> None:
        """The source of an upload, a file or a folder, is what it was: nothing is moved, changed
        or added to it.

        Usually broken by `rename`, and by a folder of notes about what was uploaded.
        """
        repo_id, repo_type = uploads
        source = write_folder(tmp_path / "source", {"a": b"a", "sub/b": b"b" * 99, ".c": b"c"})
        before = _tree(source)
        hub_client.upload(repo_id, source, below, repo_type)
        hub_client.upload(repo_id, source / "a", f"{below}/again", repo_type)
        assert _tree(source) == before

    @since("1.5")
    @needs("upload")
    def test_a_snapshot_can_be_uploaded(
        self, hub_client: HubClient, uploads: tuple[str, str], below: str, tmp_path: Path
    ) -> None:
        """A link to a file is uploaded as what it leads to. So a snapshot, whose files are often
        links into a cache, can be uploaded as a folder.

        Usually broken by copying links: in the repository they lead nowhere.
        """
        repo_id, repo_type = uploads
        held = {"a": b"a", "sub/b": b"b" * 99}
        source = write_folder(tmp_path / "source", held)
        commit = hub_client.upload(repo_id, source, below, repo_type)
        linked = tmp_path / "linked"
        for name in held:
            (linked / name).parent.mkdir(parents=True, exist_ok=True)
            (linked / name).symlink_to(source / name)
        snapshot = hub_client.snapshot(repo_id, repo_type, commit, [f"{below}/*"]) / below
        for number, folder in enumerate((linked, snapshot)):
            commit = hub_client.upload(repo_id, folder, f"{below}/{number}", repo_type)
        shutil.rmtree(source)  # which a link would need
        for number in range(2):
            for name, content in held.items():
                path = hub_client.download(repo_id, f"{below}/{number}/{name}", repo_type, commit)
                assert path.read_bytes() == content, name

    @since("1.5")
    @needs("upload")
    def test_uploading_the_same_again_is_fine(
        self, hub_client: HubClient, uploads: tuple[str, str], below: str, tmp_path: Path
    ) -> None:
        """An upload that changes nothing returns a commit that has what was uploaded: a new one,
        or the one that had it already.

        Usually broken by a backend that refuses empty commits: a run that is repeated after it
        had published its weights fails at its very end.
        """
        repo_id, repo_type = uploads
        source = write_folder(tmp_path / "source", {"a": b"a", "sub/b": b"b"})
        for _ in range(2):
            commit = hub_client.upload(repo_id, source, below, repo_type)
            for name in ("a", "sub/b"):
                path = hub_client.download(repo_id, f"{below}/{name}", repo_type, commit)
                assert path.read_bytes() == name[-1:].encode()

    @since("1.5")
    @needs("upload")
    def test_a_folder_is_not_uploaded_out_of_the_repository(
        self, hub_client: HubClient, uploads: tuple[str, str], tmp_path: Path
    ) -> None:
        """A `path_in_repo` that is absolute, or leaves the repository, is `InvalidInput` for a
        folder as for a file, and nothing is committed.

        Usually broken by a check in one of two branches.
        """
        repo_id, repo_type = uploads
        source = write_folder(tmp_path / "source", {"conformance": b""})
        before = list(hub_client.list_files(repo_id, repo_type))
        for path in ("/conformance", "..", "../conformance", "conformance/../../up"):
            refuses(InvalidInput, hub_client.upload, repo_id, source, path, repo_type)
        assert list(hub_client.list_files(repo_id, repo_type)) == before

    @since("1.5")
    @needs("upload")
    def test_uploads_at_once_lose_nothing(
        self, hub_client: HubClient, uploads: tuple[str, str], below: str, tmp_path: Path
    ) -> None:
        """Of uploads of several threads, each is in the branch once all have returned, unless it
        was refused by an error; one at least is not.

        Usually broken by reading the newest commit, adding to it and making that the newest: of
        two which do so at once, one is lost without a word.
        """
        repo_id, repo_type = uploads
        start = Barrier(6)

        def upload(number: int) -> dict[str, bytes]:
            held = {f"{number}/{turn}": f"{number} {turn}".encode() for turn in range(3)}
            source = write_folder(tmp_path, held)
            start.wait()
            done = {}
            for name, content in held.items():
                try:
                    hub_client.upload(repo_id, source / name, f"{below}/{name}", repo_type)
                except AdapterError:
                    continue
                done[name] = content
            return done

        with ThreadPoolExecutor(6) as pool:
            done = dict(ChainMap(*pool.map(upload, range(6))))
        assert done, "every one of them was refused"
        folder = hub_client.snapshot(repo_id, repo_type, "main", [f"{below}/*"]) / below
        assert read_folder(folder) == done


def _tree(folder: Path) -> dict[str, bytes | None]:
    """Return everything below a folder: files with their contents, folders with None."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }
