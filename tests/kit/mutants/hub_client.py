"""Hub clients with one fault each."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from crucible_kitchen import (
    AdapterOptions,
    HubClient,
    InvalidInput,
    NotFound,
    Unavailable,
    hookimpl,
)

from . import Mutant

Patterns = Sequence[str] | None


class At(NamedTuple):
    """A revision of a repository."""

    repo_id: str
    repo_type: str
    revision: str


def fetched(hub: HubClient, at: At, filename: str) -> Path:
    return hub.download(at.repo_id, filename, at.repo_type, at.revision)


class Options(AdapterOptions):
    inner: HubClient


class Delegate:
    """Base of the mutants: an adapter that leaves everything to `inner`.

    Those that change a download, a snapshot or an upload override `get`, `take` or `put`.
    """

    Options = Options

    @hookimpl
    def download(
        self, opts: Any, repo_id: str, filename: str, repo_type: str, revision: str
    ) -> Path:
        return self.get(opts.inner, At(repo_id, repo_type, revision), filename)

    def get(self, hub: HubClient, at: At, filename: str) -> Path:
        return fetched(hub, at, filename)

    @hookimpl
    def snapshot(
        self,
        opts: Any,
        repo_id: str,
        repo_type: str,
        revision: str,
        allow_patterns: Patterns,
        ignore_patterns: Patterns,
    ) -> Path:
        at = At(repo_id, repo_type, revision)
        return self.take(opts.inner, at, allow_patterns, ignore_patterns)

    def take(self, hub: HubClient, at: At, allow: Patterns, ignore: Patterns) -> Path:
        return hub.snapshot(*at, allow, ignore)

    @hookimpl
    def upload(
        self,
        opts: Any,
        repo_id: str,
        source: Path,
        path_in_repo: str,
        repo_type: str,
        revision: str,
        message: str | None,
    ) -> str:
        return self.put(opts.inner, repo_id, source, path_in_repo, repo_type, revision, message)

    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        return hub.upload(repo_id, source, path, *rest)


class OwnFolder(Delegate):
    """A mutant that returns files of its own making."""

    def __init__(self) -> None:
        self._made: list[tempfile.TemporaryDirectory[str]] = []  # removed with the process

    def folder(self) -> Path:
        self._made.append(tempfile.TemporaryDirectory(prefix="conformance-mutant-"))
        return Path(self._made[-1].name)


# --- listings ---


class ListsUnsorted(Delegate):
    @hookimpl
    def list_files(self, opts: Options, repo_id: str, repo_type: str, revision: str) -> list[str]:
        return list(reversed(opts.inner.list_files(repo_id, repo_type, revision)))


class ListsOneLevel(Delegate):
    @hookimpl
    def list_files(self, opts: Options, repo_id: str, repo_type: str, revision: str) -> list[str]:
        return [f for f in opts.inner.list_files(repo_id, repo_type, revision) if "/" not in f]


class ListsFoldersToo(Delegate):
    @hookimpl
    def list_files(self, opts: Options, repo_id: str, repo_type: str, revision: str) -> list[str]:
        files = opts.inner.list_files(repo_id, repo_type, revision)
        folders = {str(parent) for file in files for parent in PurePosixPath(file).parents}
        return sorted({*files, *folders} - {"."})


# --- files ---


class TruncatesAFile(OwnFolder):
    def get(self, hub: HubClient, at: At, filename: str) -> Path:
        content = fetched(hub, at, filename).read_bytes()
        path = self.folder() / PurePosixPath(filename).name
        path.write_bytes(content[:-1])
        return path


class ReadsFilesAsText(OwnFolder):
    def get(self, hub: HubClient, at: At, filename: str) -> Path:
        content = fetched(hub, at, filename).read_bytes()
        path = self.folder() / PurePosixPath(filename).name
        path.write_bytes(content.replace(b"\r\n", b"\n"))
        return path


class ReturnsARelativePath(Delegate):
    def get(self, hub: HubClient, at: At, filename: str) -> Path:
        return Path(os.path.relpath(fetched(hub, at, filename)))


class FollowsDots(Delegate):
    def get(self, hub: HubClient, at: At, filename: str) -> Path:
        path = hub.snapshot(*at) / filename
        if not path.is_file():
            raise NotFound(f"no file {filename!r} in {at.repo_id!r} at {at.revision!r}")
        return path


class IgnoresTheRevision(Delegate):
    def get(self, hub: HubClient, at: At, filename: str) -> Path:
        hub.list_files(*at)  # it must be there
        return fetched(hub, at._replace(revision="main"), filename)


class FallsBackToTheDefaultBranch(Delegate):
    def get(self, hub: HubClient, at: At, filename: str) -> Path:
        try:
            return fetched(hub, at, filename)
        except NotFound:
            return fetched(hub, at._replace(revision="main"), filename)


class HasOneFolderForAllRevisions(OwnFolder):
    def __init__(self) -> None:
        super().__init__()
        self.one = self.folder()

    def get(self, hub: HubClient, at: At, filename: str) -> Path:
        path = self.one / at.repo_type / at.repo_id / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(fetched(hub, at, filename), path)
        return path


class TrustsTheCache(Delegate):
    def __init__(self) -> None:
        self.cached: dict[Any, Path] = {}

    def get(self, hub: HubClient, at: At, filename: str) -> Path:
        commit = tuple(hub.list_files(*at))
        key = (id(hub), at, filename, commit)
        if key not in self.cached or not self.cached[key].is_file():
            self.cached[key] = fetched(hub, at, filename)
        return self.cached[key]


class ComparesSizesAlone(TrustsTheCache):
    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[Path, int] = {}

    def get(self, hub: HubClient, at: At, filename: str) -> Path:
        path = super().get(hub, at, filename)
        right = self.sizes.setdefault(path, path.stat().st_size)
        if path.stat().st_size == right:
            return path
        return fetched(hub, at, filename)


class CannotBeSharedByThreads(Delegate):
    def __init__(self) -> None:
        self.busy = threading.Lock()

    def get(self, hub: HubClient, at: At, filename: str) -> Path:
        if not self.busy.acquire(blocking=False):
            raise Unavailable("the lock of this file is held")
        try:
            return fetched(hub, at, filename)
        finally:
            self.busy.release()


# --- snapshots ---


class ReturnsAPartOfASnapshot(Delegate):
    def take(self, hub: HubClient, at: At, allow: Patterns, ignore: Patterns) -> Path:
        if allow is None and ignore is None:
            allow = hub.list_files(*at)[1:]
        return hub.snapshot(*at, allow, ignore)


class TakesOneFileForTheSnapshot(Delegate):
    def __init__(self) -> None:
        self.begun: set[Any] = set()

    def get(self, hub: HubClient, at: At, filename: str) -> Path:
        self.begun.add((id(hub), *at))
        return fetched(hub, at, filename)

    def take(self, hub: HubClient, at: At, allow: Patterns, ignore: Patterns) -> Path:
        if (id(hub), *at) in self.begun:
            allow = []  # the folder is there, so it must be whole
        return hub.snapshot(*at, allow, ignore)


class LeavesItsOwnFileInASnapshot(Delegate):
    def take(self, hub: HubClient, at: At, allow: Patterns, ignore: Patterns) -> Path:
        folder = hub.snapshot(*at, allow, ignore)
        (folder / ".complete").touch()
        return folder


class DropsAllowPatterns(Delegate):
    def take(self, hub: HubClient, at: At, allow: Patterns, ignore: Patterns) -> Path:
        return hub.snapshot(*at, None, ignore)


class DropsIgnorePatterns(Delegate):
    def take(self, hub: HubClient, at: At, allow: Patterns, ignore: Patterns) -> Path:
        return hub.snapshot(*at, allow, None)


class TakesNoPatternsForAll(Delegate):
    def take(self, hub: HubClient, at: At, allow: Patterns, ignore: Patterns) -> Path:
        return hub.snapshot(*at, allow or None, ignore)


class MatchesTheLastPartOfAPath(Delegate):
    def take(self, hub: HubClient, at: At, allow: Patterns, ignore: Patterns) -> Path:
        wider = allow and [*allow, *(f"*/{each}" for each in allow)]
        narrower = ignore and [p for p in ignore if "/" not in p]
        return hub.snapshot(*at, wider or allow, narrower or None)


class TakesASnapshotOfTheBranch(Delegate):
    def take(self, hub: HubClient, at: At, allow: Patterns, ignore: Patterns) -> Path:
        hub.list_files(*at)  # it must be there
        return hub.snapshot(*at._replace(revision="main"), allow, ignore)


class EmptiesTheFolderFirst(Delegate):
    def take(self, hub: HubClient, at: At, allow: Patterns, ignore: Patterns) -> Path:
        if allow is not None:
            shutil.rmtree(hub.snapshot(*at, []))
        return hub.snapshot(*at, allow, ignore)


# --- errors ---


class SaysOnlyNotFound(Delegate):
    def get(self, hub: HubClient, at: At, filename: str) -> Path:
        try:
            return fetched(hub, at, filename)
        except NotFound:
            raise NotFound(
                f"404: {at.repo_type} {at.repo_id}, revision {at.revision}, file {filename}"
            ) from None


class DoesNotNameTheFile(Delegate):
    def get(self, hub: HubClient, at: At, filename: str) -> Path:
        if filename not in hub.list_files(*at):
            raise NotFound(f"no such file in {at.repo_id!r}")
        return fetched(hub, at, filename)


class RaisesTheBackendsError(Delegate):
    @hookimpl
    def list_files(self, opts: Options, repo_id: str, repo_type: str, revision: str) -> list[str]:
        try:
            return list(opts.inner.list_files(repo_id, repo_type, revision))
        except NotFound as error:
            raise FileNotFoundError(error.reason) from error


class TakesAnyTypeForAModel(Delegate):
    @hookimpl
    def list_files(self, opts: Options, repo_id: str, repo_type: str, revision: str) -> list[str]:
        known = repo_type if repo_type in ("dataset", "space") else "model"
        return list(opts.inner.list_files(repo_id, known, revision))


class ForgetsTheType(Delegate):
    def take(self, hub: HubClient, at: At, allow: Patterns, ignore: Patterns) -> Path:
        hub.list_files(*at)
        return hub.snapshot(*at._replace(repo_type="model"), allow, ignore)


# --- uploads ---


class DropsPathInRepo(Delegate):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        if ".." in path or path.startswith("/"):
            raise InvalidInput(path)
        return hub.upload(repo_id, source, "", *rest)


class UploadsOneFileOfAFolder(Delegate):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        if source.is_dir():
            first = min(file for file in source.rglob("*") if file.is_file())
            return hub.upload(repo_id, first, f"{path}/{first.relative_to(source)}", *rest)
        return hub.upload(repo_id, source, path, *rest)


class UploadsOneLevelOfAFolder(Delegate):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        if not source.is_dir():
            return hub.upload(repo_id, source, path, *rest)
        with tempfile.TemporaryDirectory() as flat:
            for file in source.iterdir():
                if file.is_file():
                    shutil.copy(file, flat)
            return hub.upload(repo_id, Path(flat), path, *rest)


class ReturnsTheFirstOfManyCommits(Delegate):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        if not source.is_dir():
            return hub.upload(repo_id, source, path, *rest)
        files = sorted(file for file in source.rglob("*") if file.is_file())
        names = [f"{path}/{file.relative_to(source)}" for file in files]
        commits = [
            hub.upload(repo_id, file, name, *rest) for file, name in zip(files, names, strict=True)
        ]
        return commits[0]


class ReturnsTheBranch(Delegate):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        hub.upload(repo_id, source, path, *rest)
        return str(rest[1])


class CachesTheBranch(Delegate):
    def __init__(self) -> None:
        self.listed: dict[Any, list[str]] = {}

    @hookimpl
    def list_files(self, opts: Options, repo_id: str, repo_type: str, revision: str) -> list[str]:
        key = (id(opts), repo_id, repo_type, revision)
        if key not in self.listed:
            self.listed[key] = list(opts.inner.list_files(repo_id, repo_type, revision))
        return self.listed[key]


class UsesTheLocalPath(Delegate):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        return hub.upload(repo_id, source, path or str(source).lstrip("/"), *rest)


class MakesTheMissingBranch(Delegate):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        kind, _, message = rest
        return hub.upload(repo_id, source, path, kind, "main", message)


class RefusesAMessageAfterTheCommit(Delegate):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        commit = hub.upload(repo_id, source, path, *rest)
        str(rest[-1] or "").encode("latin-1")  # as a header is
        return commit


MUTANTS = [
    Mutant("hub_client", adapter, f"test_{killed_by}")
    for adapter, killed_by in (
        (ListsUnsorted(), "a_listing_names_every_file_sorted"),
        (ListsOneLevel(), "a_snapshot_holds_every_file_and_no_other"),
        (ListsFoldersToo(), "a_listing_names_every_file_sorted"),
        (TruncatesAFile(), "a_snapshot_and_downloads_agree"),
        (ReadsFilesAsText(), "what_was_uploaded_is_downloaded"),
        (ReturnsARelativePath(), "a_downloaded_file_is_that_of_the_repository"),
        (FollowsDots(), "a_filename_that_leaves_the_repository_gets_nothing"),
        (IgnoresTheRevision(), "an_upload_returns_the_commit_that_has_it"),
        (FallsBackToTheDefaultBranch(), "a_missing_revision_is_not_found"),
        (HasOneFolderForAllRevisions(), "an_upload_returns_the_commit_that_has_it"),
        (TrustsTheCache(), "a_file_that_was_damaged_on_disk_is_noticed"),
        (ComparesSizesAlone(), "a_file_that_was_damaged_on_disk_is_noticed"),
        (ReturnsAPartOfASnapshot(), "a_snapshot_holds_every_file_and_no_other"),
        (TakesOneFileForTheSnapshot(), "a_snapshot_is_whole_after_one_download"),
        (LeavesItsOwnFileInASnapshot(), "a_snapshot_holds_every_file_and_no_other"),
        (DropsAllowPatterns(), "patterns_choose_the_files_of_a_snapshot"),
        (DropsIgnorePatterns(), "patterns_choose_the_files_of_a_snapshot"),
        (TakesNoPatternsForAll(), "patterns_choose_the_files_of_a_snapshot"),
        (MatchesTheLastPartOfAPath(), "patterns_choose_the_files_of_a_snapshot"),
        (TakesASnapshotOfTheBranch(), "an_upload_returns_the_commit_that_has_it"),
        (EmptiesTheFolderFirst(), "what_was_returned_is_left_alone_by_later_calls"),
        (SaysOnlyNotFound(), "a_missing_repository_revision_and_file_are_told_apart"),
        (DoesNotNameTheFile(), "a_missing_file_is_not_found"),
        (RaisesTheBackendsError(), "a_missing_revision_is_not_found"),
        (TakesAnyTypeForAModel(), "an_unknown_repo_type_is_refused"),
        (ForgetsTheType(), "a_repository_of_another_type_is_another"),
        (DropsPathInRepo(), "what_was_uploaded_is_downloaded"),
        (UploadsOneFileOfAFolder(), "a_folder_is_uploaded_whole_as_one_commit"),
        (UploadsOneLevelOfAFolder(), "a_folder_is_uploaded_whole_as_one_commit"),
        (ReturnsTheFirstOfManyCommits(), "a_folder_is_uploaded_whole_as_one_commit"),
        (ReturnsTheBranch(), "an_upload_returns_the_commit_that_has_it"),
        (CachesTheBranch(), "what_was_uploaded_is_downloaded"),
        (UsesTheLocalPath(), "a_file_without_a_path_goes_to_the_root_under_its_own_name"),
        (MakesTheMissingBranch(), "an_upload_that_cannot_be_is_refused_and_commits_nothing"),
        (RefusesAMessageAfterTheCommit(), "a_message_may_be_given"),
    )
]
MUTANTS.append(
    Mutant(
        "hub_client",
        CannotBeSharedByThreads(),
        "test_many_threads_fetch_the_same_at_once",
        inner={"use": "noop", "latency_scale": 0.1},  # requests that overlap
    )
)
