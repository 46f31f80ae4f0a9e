"""Uploads to a repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...errors import InvalidInput, NotFound, Unsupported
from ...ports import HubClient
from ..conformance import Reopen, needs, unless_synthetic
from ..refusal import refuses
from .fixtures import HubClientFixtures, read_folder


class Uploads(HubClientFixtures):
    """`upload`."""

    @needs("upload")
    def test_what_was_uploaded_is_downloaded(
        self, hub_client: HubClient, uploads: tuple[str, str], below: str, tmp_path: Path
    ) -> None:
        """When `upload` of a file returns, the branch has it under `path_in_repo`, with its
        content, and every other file as before.

        Usually broken by a cache that holds the branch as it was, and by a commit of the new file
        alone.
        """
        repo_id, repo_type = uploads
        content = bytes(range(256)) * 9 + b"\r\n\n\0"
        (tmp_path / "local name").write_bytes(content)
        before = list(hub_client.list_files(repo_id, repo_type))
        path = f"{below}/ünï code/in the repository.bin"
        hub_client.upload(repo_id, tmp_path / "local name", path, repo_type)
        assert hub_client.list_files(repo_id, repo_type) == sorted([*before, path])
        assert hub_client.download(repo_id, path, repo_type).read_bytes() == content
        folder = hub_client.snapshot(repo_id, repo_type, allow_patterns=[f"{below}/*"])
        assert (folder / path).read_bytes() == content

    @needs("upload")
    def test_an_upload_returns_the_commit_that_has_it(
        self, hub_client: HubClient, uploads: tuple[str, str], below: str, tmp_path: Path
    ) -> None:
        """`upload` returns the id of its commit, a permanent revision: it has what was uploaded,
        and keeps it when the branch moves on. A path that was returned for the older commit keeps
        its content as well.

        Usually broken by resolving every revision as the branch, and by one folder for all
        revisions.
        """
        repo_id, repo_type = uploads
        source = tmp_path / "file"
        path = f"{below}/file"
        held = {}
        for content in (b"first", b"other"):
            source.write_bytes(content)
            commit = hub_client.upload(repo_id, source, path, repo_type)
            assert isinstance(commit, str)
            held[commit] = content, hub_client.download(repo_id, path, repo_type)
        source.write_bytes(b"a third")
        newest = hub_client.upload(repo_id, source, f"{below}/another", repo_type)
        assert len({*held, newest}) == 3
        for commit, (content, earlier) in held.items():
            assert earlier.read_bytes() == content
            assert hub_client.download(repo_id, path, repo_type, commit).read_bytes() == content
            listed = hub_client.list_files(repo_id, repo_type, commit)
            assert [name for name in listed if name.startswith(f"{below}/")] == [path]
            folder = hub_client.snapshot(repo_id, repo_type, commit, [f"{below}/*"])
            assert read_folder(folder / below) == {"file": content}
            refuses(NotFound, hub_client.download, repo_id, f"{below}/another", repo_type, commit)

    @needs("upload")
    @unless_synthetic
    def test_another_process_sees_what_was_uploaded(
        self,
        hub_client: HubClient,
        uploads: tuple[str, str],
        below: str,
        tmp_path: Path,
        reopen: Reopen[HubClient] | None,
    ) -> None:
        """An upload is there at once for any process that asks for the branch.

        Usually broken by a cache that asks the hub once for the commit of a branch.
        """
        repo_id, repo_type = uploads
        with self.given(reopen, "reopen")() as other:
            for content in (b"first", b"other"):
                (tmp_path / "file").write_bytes(content)
                hub_client.upload(repo_id, tmp_path / "file", f"{below}/file", repo_type)
                path = other.download(repo_id, f"{below}/file", repo_type)
                assert path.read_bytes() == content

    @needs("upload")
    def test_a_folder_is_uploaded_whole_as_one_commit(
        self,
        hub_client: HubClient,
        uploads: tuple[str, str],
        below: str,
        tmp_path: Path,
        commits: Callable[[], int] | None,
    ) -> None:
        """`upload` of a folder adds every file in it, however deep, below `path_in_repo`; the
        commit that is returned has them all, and it is the only one.

        Usually broken by a loop over the files: fetching meanwhile returns a part.
        """
        repo_id, repo_type = uploads
        held = {"a.txt": b"a", "empty": b"", "sub/deep er/b.bin": b"\0\xff" * 99, "sub/c": b"c"}
        for name, content in held.items():
            (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "source" / name).write_bytes(content)
        before = commits() if commits else 0
        commit = hub_client.upload(repo_id, tmp_path / "source", f"{below}/in", repo_type)
        if commits:
            assert commits() - before == 1
        for revision in (commit, "main"):
            listed = hub_client.list_files(repo_id, repo_type, revision)
            mine = [name for name in listed if name.startswith(f"{below}/")]
            assert mine == [f"{below}/in/{name}" for name in sorted(held)]
            folder = hub_client.snapshot(repo_id, repo_type, revision, [f"{below}/*"])
            assert read_folder(folder / below / "in") == held

    @needs("upload")
    def test_a_file_without_a_path_goes_to_the_root_under_its_own_name(
        self, hub_client: HubClient, uploads: tuple[str, str], below: str, tmp_path: Path
    ) -> None:
        """Without `path_in_repo` a file has its own name in the repository.

        Usually broken by an empty name, or by the local path.
        """
        repo_id, repo_type = uploads
        (tmp_path / f"{below}.txt").write_bytes(b"content")
        hub_client.upload(repo_id, tmp_path / f"{below}.txt", repo_type=repo_type)
        assert f"{below}.txt" in hub_client.list_files(repo_id, repo_type)
        assert hub_client.download(repo_id, f"{below}.txt", repo_type).read_bytes() == b"content"

    @needs("upload")
    def test_a_message_may_be_given(
        self, hub_client: HubClient, uploads: tuple[str, str], below: str, tmp_path: Path
    ) -> None:
        """A `message` of any text is that of the commit; an adapter that cannot use it raises
        `Unsupported`, and commits nothing.

        Usually broken by a message that goes into a header or a command line unquoted.
        """
        repo_id, repo_type = uploads
        (tmp_path / "file").write_bytes(b"content")
        message = "Conformance: two lines,\n“quotes” and 🙂; $(nothing) -m"
        try:
            commit = hub_client.upload(
                repo_id, tmp_path / "file", f"{below}/file", repo_type, message=message
            )
        except Unsupported:
            assert f"{below}/file" not in hub_client.list_files(repo_id, repo_type)
        else:
            assert f"{below}/file" in hub_client.list_files(repo_id, repo_type, commit)

    @needs("upload")
    def test_an_upload_that_cannot_be_is_refused_and_commits_nothing(
        self,
        hub_client: HubClient,
        uploads: tuple[str, str],
        tmp_path: Path,
        missing_repo_id: str | None,
    ) -> None:
        """A missing source is `InvalidInput` or `NotFound`, a `path_in_repo` that leaves the
        repository is `InvalidInput`, a missing branch or repository is `NotFound`;
        the files of the repository stay as they are.

        Usually broken by making what is missing, and by an empty commit.
        """
        repo_id, repo_type = uploads
        (tmp_path / "file").write_bytes(b"content")
        before = list(hub_client.list_files(repo_id, repo_type))
        refuses(
            (InvalidInput, NotFound),
            hub_client.upload,
            repo_id,
            tmp_path / "missing",
            repo_type=repo_type,
        )
        for path in ("../conformance", "/conformance", "conformance/../../up"):
            refuses(InvalidInput, hub_client.upload, repo_id, tmp_path / "file", path, repo_type)
        refuses(
            NotFound,
            hub_client.upload,
            repo_id,
            tmp_path / "file",
            repo_type=repo_type,
            revision="conformance-missing",
        )
        if missing_repo_id is not None:
            refuses(
                NotFound, hub_client.upload, missing_repo_id, tmp_path / "file", repo_type=repo_type
            )
        assert list(hub_client.list_files(repo_id, repo_type)) == before
