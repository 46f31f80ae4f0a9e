"""What a hub client promises."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ..errors import AdapterError, InvalidInput, NotFound, Unauthorized, Unsupported
from ..ports import HubClient
from .conformance import Conformance, needs, synthetic, unless_synthetic

Reopen: TypeAlias = Callable[[], contextlib.AbstractContextManager[HubClient]]
GoOffline: TypeAlias = Callable[[], contextlib.AbstractContextManager[HubClient | None]]


class HubClientConformance(Conformance):
    """Tests of a hub client. Override the fixture `hub_client`, and as many of the others as the
    hub allows: `files` above all, without which the kit believes the adapter's own downloads.
    Uploads go below folders of their own, which stay, since a hub client cannot delete.
    """

    port = HubClient

    @pytest.fixture
    def hub_client(self) -> Any:
        """The adapter, bound. Required: `bound("hub_client", <name or module>, ...)`."""
        raise NotImplementedError(
            "give the fixture `hub_client`, which yields the adapter to be tested; "
            "crucible_kitchen.testing.bound makes one"
        )

    @pytest.fixture
    def repo_id(self) -> str:
        """A repository of several small files. The default is one of the Hugging Face Hub."""
        return "sshleifer/tiny-gpt2"

    @pytest.fixture
    def repo_type(self) -> str:
        """The type of that repository, and of the one for uploads."""
        return "model"

    @pytest.fixture
    def revision(self) -> str:
        """The revision to fetch. Uploads go to the branch `main`."""
        return "main"

    @pytest.fixture
    def files(self) -> Mapping[str, bytes] | str | None:
        """What the repository truly holds at the revision, or a local folder that holds the same.
        Optional: with it the kit does not have to believe the adapter.
        """
        return None

    @pytest.fixture
    def revisions(self) -> Mapping[str, Mapping[str, bytes]]:
        """What the repository holds at further revisions, branches, tags or commits. Optional."""
        return {}

    @pytest.fixture
    def missing_repo_id(self, hub_client: HubClient) -> str | None:
        """A repository that does not exist; None where every one does, as with a synthetic hub."""
        return None if synthetic(hub_client) else "sshleifer/crucible-conformance-missing"

    @pytest.fixture
    def gated_repo_id(self) -> str | None:
        """A repository that exists, but not for the credentials of `hub_client`. Optional."""
        return None

    @pytest.fixture
    def upload_repo_id(self, hub_client: HubClient) -> str | None:
        """A repository that may be written to, without uploads None. A synthetic hub has one."""
        return "conformance/uploads" if synthetic(hub_client) else None

    @pytest.fixture
    def commits(self) -> Callable[[], int] | None:
        """A function that counts the commits of the repository for uploads, around the adapter.
        Optional.
        """
        return None

    @pytest.fixture
    def go_offline(self) -> GoOffline | None:
        """A function that makes a context in which the hub cannot be reached. What the context
        yields is the client to be asked inside, for adapters with an option to stay offline; None
        is `hub_client`. Optional.
        """
        return None

    @pytest.fixture
    def cache_is_ours(self, hub_client: HubClient) -> bool | str:
        """Whether the kit may damage files that the adapter returned, to see it find out. By
        default only where the adapter is synthetic, for a cache may be one that others use.
        """
        return synthetic(hub_client) is not None

    @pytest.fixture
    def reopen(self) -> Reopen | None:
        """A function that binds the adapter once more, under equal options, as another process
        would. Optional.
        """
        return None

    @pytest.fixture
    def where(self, repo_type: str, revision: str) -> dict[str, str]:
        """The arguments that most calls share."""
        return {"repo_type": repo_type, "revision": revision}

    @pytest.fixture
    def names(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        files: Mapping[str, bytes] | str | None,
    ) -> list[str]:
        """The paths of the repository's files, sorted."""
        known = _known(files)
        found = sorted(hub_client.list_files(repo_id, **where) if known is None else known)
        assert len(found) > 1, f"{repo_id} has {found}: the kit needs one with several files"
        return found

    @pytest.fixture
    def contents(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
        files: Mapping[str, bytes] | str | None,
    ) -> Mapping[str, bytes]:
        """What the repository holds: what is known, else what the adapter downloads."""
        known = _known(files)
        if known is not None:
            return known
        return {name: hub_client.download(repo_id, name, **where).read_bytes() for name in names}

    # --- listings and files ---

    def test_a_listing_names_every_file_sorted(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
    ) -> None:
        """`list_files` returns the path of every file of the revision, in every folder, sorted,
        with `/` between its parts; folders are not listed.

        Usually broken by a listing of one level or of one page, or in the order of the backend.
        """
        listed = list(hub_client.list_files(repo_id, **where))
        assert listed == sorted(listed)
        assert listed == list(names)
        assert len(set(listed)) == len(listed)
        for name in listed:
            assert str(PurePosixPath(name)) == name
            assert not any(other.startswith(f"{name}/") for other in listed), f"{name} is a folder"

    def test_a_downloaded_file_is_that_of_the_repository(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
        contents: Mapping[str, bytes],
    ) -> None:
        """`download` returns the path of a file that exists and has the content of the one in the
        repository, for every file that is listed.

        Usually broken by a text mode, by a pointer of Git LFS in the place of the file, and by
        returning before the file is written.
        """
        for name in names:
            path = hub_client.download(repo_id, name, **where)
            assert isinstance(path, Path)
            assert path.is_absolute(), f"{path} depends on the working directory"
            assert path.is_file()
            assert path.read_bytes() == contents[name], name

    def test_a_file_downloaded_again_is_the_same(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
        reopen: Reopen | None,
    ) -> None:
        """A second download has the same content as the first, and so has that of another process.

        Usually broken by a cache that is written differently from how it is read.
        """
        first = {name: hub_client.download(repo_id, name, **where).read_bytes() for name in names}
        again = {name: hub_client.download(repo_id, name, **where).read_bytes() for name in names}
        assert again == first
        if reopen is not None:
            with reopen() as other:
                theirs = {
                    name: other.download(repo_id, name, **where).read_bytes() for name in names
                }
            assert theirs == first

    # --- snapshots ---

    def test_a_snapshot_holds_every_file_and_no_other(
        self, hub_client: HubClient, repo_id: str, where: Mapping[str, str], names: Sequence[str]
    ) -> None:
        """`snapshot` returns a folder with each file that `list_files` names, and nothing else.

        Usually broken by files that are skipped because of their name, and by files that belong
        to another revision or to the adapter.
        """
        folder = hub_client.snapshot(repo_id, **where)
        assert isinstance(folder, Path)
        assert folder.is_absolute(), f"{folder} depends on the working directory"
        assert sorted(_read(folder)) == list(names)

    def test_a_snapshot_and_downloads_agree(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        contents: Mapping[str, bytes],
    ) -> None:
        """Each file of a snapshot has the content that the repository has, and `download` returns.

        Usually broken by two ways to fetch a file, of which one is tested.
        """
        snapshot = _read(hub_client.snapshot(repo_id, **where))
        assert {name: snapshot.get(name) for name in contents} == contents
        for name in contents:
            assert hub_client.download(repo_id, name, **where).read_bytes() == snapshot[name], name

    def test_a_snapshot_is_whole_after_one_download(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
    ) -> None:
        """A snapshot has every file, also where some of them were fetched before.

        Usually broken by taking a folder that exists for a snapshot that was finished.
        """
        hub_client.download(repo_id, names[0], **where)
        assert sorted(_read(hub_client.snapshot(repo_id, **where))) == list(names)
        hub_client.snapshot(repo_id, allow_patterns=[names[-1]], **where)
        assert sorted(_read(hub_client.snapshot(repo_id, **where))) == list(names)

    def test_patterns_choose_the_files_of_a_snapshot(
        self, hub_client: HubClient, repo_id: str, where: Mapping[str, str], names: Sequence[str]
    ) -> None:
        """A snapshot holds what one of `allow_patterns` matches and none of `ignore_patterns`
        does; others are not fetched. Patterns are the shell's, on the whole path, as those of the
        Hugging Face Hub are: `*` matches `/`, too, and case counts. Where nothing matches, the
        folder is there, without new files.

        Usually broken by one of the two being dropped, which fetches a hundred gigabytes of
        checkpoints for a tokenizer; and by patterns on the last part of the path.
        """
        # What is there already may stay, in the folder that a snapshot shares with downloads.
        first = hub_client.download(repo_id, names[0], **where)
        shared = first.parents[names[0].count("/")]
        there = set(_read(shared)) if shared / names[0] == first else set()
        last, *inside = names[-1], *(PurePosixPath(name).name for name in names if "/" in name)
        kind = f"*{PurePosixPath(last).suffix or last}"
        # From few files to all.
        cases: list[tuple[list[str] | None, list[str] | None]] = [
            ([], None),
            (
                [last.swapcase(), "no-such-file", *(name for name in inside if name not in names)],
                [],
            ),
            (["*"], ["*"]),
            ([kind], [last]),
            ([last], None),
            ([kind, names[0]], []),
            (["*/*"], None),
            (None, [kind]),
            (None, [names[0], "*/*"]),
            (None, []),
        ]
        for allow, ignore in cases:
            folder = hub_client.snapshot(
                repo_id, allow_patterns=allow, ignore_patterns=ignore, **where
            )
            found, matching = set(_read(folder)), _matching(names, allow, ignore)
            assert found >= matching, f"allow={allow}, ignore={ignore}"
            if folder == shared:
                assert found - there <= matching, f"allow={allow}, ignore={ignore}"
            there |= found

    def test_any_patterns_choose_what_they_match(
        self, hub_client: HubClient, repo_id: str, where: Mapping[str, str], names: Sequence[str]
    ) -> None:
        """Whatever the patterns, and whatever was fetched before, every file that matches is in
        the snapshot.

        Usually broken by a record of what was fetched that forgets under which patterns.
        """
        parts = {part for name in names for part in PurePosixPath(name).parts}
        patterns = sorted({*names, *(f"{part}*" for part in parts), *(f"*{p}" for p in parts)})
        chosen = st.none() | st.lists(st.sampled_from([*patterns, "*", "*.*", "?*"]), max_size=3)

        @self.hypothesis_settings()
        @given(allow=chosen, ignore=chosen)
        def check(allow: list[str] | None, ignore: list[str] | None) -> None:
            folder = hub_client.snapshot(
                repo_id, allow_patterns=allow, ignore_patterns=ignore, **where
            )
            assert set(_read(folder)) >= _matching(names, allow, ignore)

        check()

    # --- what is not there, and what may not be ---

    def test_a_missing_repository_is_not_found(
        self,
        hub_client: HubClient,
        repo_type: str,
        missing_repo_id: str | None,
    ) -> None:
        """Whatever is asked of a repository that does not exist is `NotFound` and names it.

        Usually broken by a hub that answers 401, so as not to tell whether it exists.
        """
        missing = _given(missing_repo_id, "missing_repo_id")
        with pytest.raises(NotFound, match=re.escape(missing)):
            hub_client.list_files(missing, repo_type)
        with pytest.raises(NotFound, match=re.escape(missing)):
            hub_client.snapshot(missing, repo_type)
        with pytest.raises(NotFound, match=re.escape(missing)):
            hub_client.download(missing, "config.json", repo_type)

    def test_a_missing_revision_is_not_found(
        self, hub_client: HubClient, repo_id: str, repo_type: str, names: Sequence[str]
    ) -> None:
        """Whatever is asked of a revision that does not exist, a branch or a commit, is `NotFound`
        and names it.

        Usually broken by falling back to the default branch: a run that was to be reproduced then
        trains on other weights.
        """
        for missing in ("conformance-missing", f"{0:040x}"):
            with pytest.raises(NotFound, match=missing):
                hub_client.list_files(repo_id, repo_type, missing)
            with pytest.raises(NotFound, match=missing):
                hub_client.snapshot(repo_id, repo_type, missing)
            with pytest.raises(NotFound, match=missing):
                hub_client.download(repo_id, names[0], repo_type, missing)

    def test_a_missing_file_is_not_found(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
    ) -> None:
        """`download` of a file that the repository does not have is `NotFound` and names it; a
        folder is no file, and case counts.

        Usually broken by the backend's own exception, which callers cannot know.
        """
        folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
        other_case = {name.swapcase() for name in names} - set(names)
        for name in ("conformance-missing.json", *sorted(other_case), *sorted(folders - {"."})):
            with pytest.raises(NotFound, match=re.escape(name)):
                hub_client.download(repo_id, name, **where)

    def test_a_missing_repository_revision_and_file_are_told_apart(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
        missing_repo_id: str | None,
    ) -> None:
        """The three `NotFound`s say which of the three is missing: beside the names they do not
        read alike.

        Usually broken by passing on "404: not found", after which people look for a typing error
        in the wrong name.
        """
        file = "conformance-missing.json"
        asked = {
            "revision": (repo_id, names[0], where["repo_type"], "conformance-missing"),
            "file": (repo_id, file, where["repo_type"], where["revision"]),
        }
        if missing_repo_id is not None:
            asked["repository"] = (missing_repo_id, file, where["repo_type"], where["revision"])
        messages = {}
        for missing, arguments in asked.items():
            with pytest.raises(NotFound) as failure:
                hub_client.download(*arguments)
            reason = failure.value.reason
            for name in sorted(arguments, key=len, reverse=True):
                reason = reason.replace(name, "?")
            messages[missing] = reason
        assert len(set(messages.values())) == len(asked), messages

    def test_an_unknown_repo_type_is_refused(
        self, hub_client: HubClient, repo_id: str, names: Sequence[str], tmp_path: Path
    ) -> None:
        """A `repo_type` that no hub has is `InvalidInput`, in every callback.

        Usually broken by a type that becomes a part of a URL, or by taking it for a model.
        """
        (tmp_path / "file").write_bytes(b"content")
        for repo_type in ("models", "conformance", ""):
            with pytest.raises(InvalidInput):
                hub_client.list_files(repo_id, repo_type)
            with pytest.raises(InvalidInput):
                hub_client.snapshot(repo_id, repo_type)
            with pytest.raises(InvalidInput):
                hub_client.download(repo_id, names[0], repo_type)
            if hub_client.supports("upload"):
                with pytest.raises(InvalidInput):
                    hub_client.upload(repo_id, tmp_path / "file", repo_type=repo_type)

    def test_a_repository_of_another_type_is_another(
        self, hub_client: HubClient, repo_id: str, where: Mapping[str, str], repo_type: str
    ) -> None:
        """A model and a data set of one name are two repositories.

        Usually broken by a cache whose key leaves the type out.
        """
        folder = hub_client.snapshot(repo_id, **where)
        held = _read(folder)
        for other in sorted({"model", "dataset", "space"} - {repo_type}):
            try:
                theirs = hub_client.snapshot(repo_id, other)
            except NotFound:
                continue
            assert theirs != folder, other
            assert sorted(_read(theirs)) == list(hub_client.list_files(repo_id, other))
        assert _read(folder) == held

    def test_a_filename_that_leaves_the_repository_gets_nothing(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
        tmp_path: Path,
    ) -> None:
        """A filename with `..`, an absolute one, and an empty one are `InvalidInput` or
        `NotFound`, whether or not there is a file on this machine where they lead.

        Usually broken by joining paths and trusting the result: a name from the network then
        reads any file.
        """
        bait = tmp_path / "bait"
        bait.write_bytes(b"not of the repository")
        folder = hub_client.snapshot(repo_id, **where)
        beside = hub_client.download(repo_id, names[0], **where).parent
        for name in (
            str(bait),
            os.path.relpath(bait, folder),
            os.path.relpath(bait, beside),
            f"{PurePosixPath(names[0]).parts[0]}/../{os.path.relpath(bait, folder)}",
            f"../{folder.name}/{names[0]}",
            f"./../{names[0]}",
            "..",
            ".",
            "",
        ):
            with pytest.raises((InvalidInput, NotFound)):
                hub_client.download(repo_id, name, **where)

    def test_no_access_is_unauthorized(
        self,
        hub_client: HubClient,
        repo_type: str,
        gated_repo_id: str | None,
    ) -> None:
        """Files of a repository that exists, but not for these credentials, are `Unauthorized`.

        Usually broken by `NotFound`, after which people look for a typing error instead of asking
        for access.
        """
        gated = _given(gated_repo_id, "gated_repo_id")
        with pytest.raises(Unauthorized):
            hub_client.snapshot(gated, repo_type)
        name = "config.json"
        with contextlib.suppress(Unauthorized):  # a listing may be for everyone
            name = hub_client.list_files(gated, repo_type)[0]
        with pytest.raises(Unauthorized):
            hub_client.download(gated, name, repo_type)

    # --- whole and right, whatever happens ---

    def test_many_threads_fetch_the_same_at_once(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
    ) -> None:
        """Whoever is returned a path finds the whole file there, and goes on finding it, while
        others fetch the same.

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
                    found.append(_read(hub_client.snapshot(repo_id, **where)))
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
            assert _read(folder) == contents

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
                assert _read(hub_client.snapshot(repo_id, repo_type, revision)) == held, revision
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
        leave = _given(go_offline, "go_offline")

        def whole_or_error() -> None:
            with leave() as offline, contextlib.suppress(AdapterError):
                found = (offline or hub_client).snapshot(repo_id, **where)
                assert sorted(_read(found)) == list(names)

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

        Usually broken by a cache that is believed: huggingface_hub 2.4.0 returns such a file
        without a word, and a model with a flipped bit is found by nobody.
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

    # --- uploads ---

    @pytest.fixture
    def uploads(self, upload_repo_id: str | None, repo_type: str) -> tuple[str, str]:
        """The id and type of the repository for uploads."""
        return _given(upload_repo_id, "upload_repo_id"), repo_type

    @pytest.fixture
    def below(self) -> str:
        """A folder in a repository that no other test uploads to."""
        return f"conformance-{uuid.uuid4().hex}"

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
        """`upload` returns the id of its commit, a revision for ever: it has what was uploaded,
        and keeps it when the branch moves on. Whoever holds a path of the older commit keeps its
        content, too.

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
            assert _read(folder / below) == {"file": content}
            with pytest.raises(NotFound):
                hub_client.download(repo_id, f"{below}/another", repo_type, commit)

    @needs("upload")
    @unless_synthetic
    def test_another_process_sees_what_was_uploaded(
        self,
        hub_client: HubClient,
        uploads: tuple[str, str],
        below: str,
        tmp_path: Path,
        reopen: Reopen | None,
    ) -> None:
        """An upload is there for whoever asks for the branch, at once.

        Usually broken by a cache that asks the hub once for the commit of a branch.
        """
        repo_id, repo_type = uploads
        with _given(reopen, "reopen")() as other:
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

        Usually broken by a loop over the files: whoever fetches meanwhile gets a part.
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
            assert _read(folder / below / "in") == held

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
        """A `message` of any text is that of the commit; an adapter that has no use for it says
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
        """A source that is not there is `InvalidInput` or `NotFound`, a `path_in_repo` that leaves
        the repository is `InvalidInput`, a branch or repository that is not there is `NotFound`;
        the files of the repository stay as they are.

        Usually broken by making what is missing, and by an empty commit.
        """
        repo_id, repo_type = uploads
        (tmp_path / "file").write_bytes(b"content")
        before = list(hub_client.list_files(repo_id, repo_type))
        with pytest.raises((InvalidInput, NotFound)):
            hub_client.upload(repo_id, tmp_path / "missing", repo_type=repo_type)
        for path in ("../conformance", "/conformance", "conformance/../../up"):
            with pytest.raises(InvalidInput):
                hub_client.upload(repo_id, tmp_path / "file", path, repo_type)
        with pytest.raises(NotFound):
            hub_client.upload(
                repo_id, tmp_path / "file", repo_type=repo_type, revision="conformance-missing"
            )
        if missing_repo_id is not None:
            with pytest.raises(NotFound):
                hub_client.upload(missing_repo_id, tmp_path / "file", repo_type=repo_type)
        assert list(hub_client.list_files(repo_id, repo_type)) == before


def _matching(names: Sequence[str], allow: list[str] | None, ignore: list[str] | None) -> set[str]:
    """Return the names that the patterns choose."""

    def matches(name: str, patterns: list[str]) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    return {
        name
        for name in names
        if (allow is None or matches(name, allow)) and not matches(name, ignore or [])
    }


def _known(files: Mapping[str, bytes] | str | None) -> Mapping[str, bytes] | None:
    return _read(Path(files)) if isinstance(files, str) else files


def _read(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, by its path with `/`."""
    assert folder.is_dir(), f"{folder} is no folder"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _given(value: Any, name: str) -> Any:
    """Return the value of a fixture, or skip the test where it is not given."""
    if value is None:
        pytest.skip(f"the fixture `{name}` is not given")
    return value
