"""Hub clients with one fault each."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

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


class Options(AdapterOptions):
    inner: HubClient


class Delegate:
    """Base of the mutants: an adapter that leaves everything to `inner`."""

    Options = Options


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
    @hookimpl
    def download(
        self, opts: Options, repo_id: str, filename: str, repo_type: str, revision: str
    ) -> Path:
        content = opts.inner.download(repo_id, filename, repo_type, revision).read_bytes()
        path = self.folder() / PurePosixPath(filename).name
        path.write_bytes(content[:-1])
        return path


class ReadsFilesAsText(OwnFolder):
    @hookimpl
    def download(
        self, opts: Options, repo_id: str, filename: str, repo_type: str, revision: str
    ) -> Path:
        content = opts.inner.download(repo_id, filename, repo_type, revision).read_bytes()
        path = self.folder() / PurePosixPath(filename).name
        path.write_bytes(content.replace(b"\r\n", b"\n"))
        return path


class ReturnsARelativePath(Delegate):
    @hookimpl
    def download(
        self, opts: Options, repo_id: str, filename: str, repo_type: str, revision: str
    ) -> Path:
        return Path(os.path.relpath(opts.inner.download(repo_id, filename, repo_type, revision)))


class FollowsDots(Delegate):
    @hookimpl
    def download(
        self, opts: Options, repo_id: str, filename: str, repo_type: str, revision: str
    ) -> Path:
        path = opts.inner.snapshot(repo_id, repo_type, revision) / filename
        if not path.is_file():
            raise NotFound(f"no file {filename!r} in {repo_id!r} at {revision!r}")
        return path


class IgnoresTheRevision(Delegate):
    @hookimpl
    def download(
        self, opts: Options, repo_id: str, filename: str, repo_type: str, revision: str
    ) -> Path:
        opts.inner.list_files(repo_id, repo_type, revision)  # it must be there
        return opts.inner.download(repo_id, filename, repo_type, "main")


class FallsBackToTheDefaultBranch(Delegate):
    @hookimpl
    def download(
        self, opts: Options, repo_id: str, filename: str, repo_type: str, revision: str
    ) -> Path:
        try:
            return opts.inner.download(repo_id, filename, repo_type, revision)
        except NotFound:
            return opts.inner.download(repo_id, filename, repo_type, "main")


class HasOneFolderForAllRevisions(OwnFolder):
    def __init__(self) -> None:
        super().__init__()
        self.one = self.folder()

    @hookimpl
    def download(
        self, opts: Options, repo_id: str, filename: str, repo_type: str, revision: str
    ) -> Path:
        path = self.one / repo_type / repo_id / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(opts.inner.download(repo_id, filename, repo_type, revision), path)
        return path


class TrustsTheCache(Delegate):
    def __init__(self) -> None:
        self.cached: dict[Any, Path] = {}

    @hookimpl
    def download(
        self, opts: Options, repo_id: str, filename: str, repo_type: str, revision: str
    ) -> Path:
        commit = tuple(opts.inner.list_files(repo_id, repo_type, revision))
        key = (id(opts), repo_id, filename, repo_type, revision, commit)
        if key not in self.cached or not self.cached[key].is_file():
            self.cached[key] = opts.inner.download(repo_id, filename, repo_type, revision)
        return self.cached[key]


class ComparesSizesAlone(TrustsTheCache):
    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[Path, int] = {}

    @hookimpl
    def download(
        self, opts: Options, repo_id: str, filename: str, repo_type: str, revision: str
    ) -> Path:
        path = super().download(opts, repo_id, filename, repo_type, revision)
        right = self.sizes.setdefault(path, path.stat().st_size)
        if path.stat().st_size == right:
            return path
        return opts.inner.download(repo_id, filename, repo_type, revision)


class CannotBeSharedByThreads(Delegate):
    def __init__(self) -> None:
        self.busy = threading.Lock()

    @hookimpl
    def download(
        self, opts: Options, repo_id: str, filename: str, repo_type: str, revision: str
    ) -> Path:
        if not self.busy.acquire(blocking=False):
            raise Unavailable("the lock of this file is held")
        try:
            return opts.inner.download(repo_id, filename, repo_type, revision)
        finally:
            self.busy.release()


# --- snapshots ---


class ReturnsAPartOfASnapshot(Delegate):
    @hookimpl
    def snapshot(
        self,
        opts: Options,
        repo_id: str,
        repo_type: str,
        revision: str,
        allow_patterns: Patterns,
        ignore_patterns: Patterns,
    ) -> Path:
        if allow_patterns is None and ignore_patterns is None:
            allow_patterns = opts.inner.list_files(repo_id, repo_type, revision)[1:]
        return opts.inner.snapshot(repo_id, repo_type, revision, allow_patterns, ignore_patterns)


class TakesOneFileForTheSnapshot(Delegate):
    def __init__(self) -> None:
        self.begun: set[Any] = set()

    @hookimpl
    def download(
        self, opts: Options, repo_id: str, filename: str, repo_type: str, revision: str
    ) -> Path:
        self.begun.add((id(opts), repo_id, repo_type, revision))
        return opts.inner.download(repo_id, filename, repo_type, revision)

    @hookimpl
    def snapshot(
        self,
        opts: Options,
        repo_id: str,
        repo_type: str,
        revision: str,
        allow_patterns: Patterns,
        ignore_patterns: Patterns,
    ) -> Path:
        if (id(opts), repo_id, repo_type, revision) in self.begun:
            allow_patterns = []  # the folder is there, so it must be whole
        return opts.inner.snapshot(repo_id, repo_type, revision, allow_patterns, ignore_patterns)


class LeavesItsOwnFileInASnapshot(Delegate):
    @hookimpl
    def snapshot(
        self,
        opts: Options,
        repo_id: str,
        repo_type: str,
        revision: str,
        allow_patterns: Patterns,
        ignore_patterns: Patterns,
    ) -> Path:
        folder = opts.inner.snapshot(repo_id, repo_type, revision, allow_patterns, ignore_patterns)
        (folder / ".complete").touch()
        return folder


class DropsAllowPatterns(Delegate):
    @hookimpl
    def snapshot(
        self,
        opts: Options,
        repo_id: str,
        repo_type: str,
        revision: str,
        allow_patterns: Patterns,
        ignore_patterns: Patterns,
    ) -> Path:
        return opts.inner.snapshot(repo_id, repo_type, revision, None, ignore_patterns)


class DropsIgnorePatterns(Delegate):
    @hookimpl
    def snapshot(
        self,
        opts: Options,
        repo_id: str,
        repo_type: str,
        revision: str,
        allow_patterns: Patterns,
        ignore_patterns: Patterns,
    ) -> Path:
        return opts.inner.snapshot(repo_id, repo_type, revision, allow_patterns, None)


class TakesNoPatternsForAll(Delegate):
    @hookimpl
    def snapshot(
        self,
        opts: Options,
        repo_id: str,
        repo_type: str,
        revision: str,
        allow_patterns: Patterns,
        ignore_patterns: Patterns,
    ) -> Path:
        return opts.inner.snapshot(
            repo_id, repo_type, revision, allow_patterns or None, ignore_patterns
        )


class MatchesTheLastPartOfAPath(Delegate):
    @hookimpl
    def snapshot(
        self,
        opts: Options,
        repo_id: str,
        repo_type: str,
        revision: str,
        allow_patterns: Patterns,
        ignore_patterns: Patterns,
    ) -> Path:
        wider = allow_patterns and [*allow_patterns, *(f"*/{each}" for each in allow_patterns)]
        narrower = ignore_patterns and [p for p in ignore_patterns if "/" not in p]
        return opts.inner.snapshot(
            repo_id, repo_type, revision, wider or allow_patterns, narrower or None
        )


class TakesASnapshotOfTheBranch(Delegate):
    @hookimpl
    def snapshot(
        self,
        opts: Options,
        repo_id: str,
        repo_type: str,
        revision: str,
        allow_patterns: Patterns,
        ignore_patterns: Patterns,
    ) -> Path:
        opts.inner.list_files(repo_id, repo_type, revision)  # it must be there
        return opts.inner.snapshot(repo_id, repo_type, "main", allow_patterns, ignore_patterns)


class EmptiesTheFolderFirst(Delegate):
    @hookimpl
    def snapshot(
        self,
        opts: Options,
        repo_id: str,
        repo_type: str,
        revision: str,
        allow_patterns: Patterns,
        ignore_patterns: Patterns,
    ) -> Path:
        if allow_patterns is not None:
            shutil.rmtree(opts.inner.snapshot(repo_id, repo_type, revision, []))
        return opts.inner.snapshot(repo_id, repo_type, revision, allow_patterns, ignore_patterns)


# --- errors ---


class SaysOnlyNotFound(Delegate):
    @hookimpl
    def download(
        self, opts: Options, repo_id: str, filename: str, repo_type: str, revision: str
    ) -> Path:
        try:
            return opts.inner.download(repo_id, filename, repo_type, revision)
        except NotFound:
            raise NotFound(
                f"404: {repo_type} {repo_id}, revision {revision}, file {filename}"
            ) from None


class DoesNotNameTheFile(Delegate):
    @hookimpl
    def download(
        self, opts: Options, repo_id: str, filename: str, repo_type: str, revision: str
    ) -> Path:
        if filename not in opts.inner.list_files(repo_id, repo_type, revision):
            raise NotFound(f"no such file in {repo_id!r}")
        return opts.inner.download(repo_id, filename, repo_type, revision)


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
    @hookimpl
    def snapshot(
        self,
        opts: Options,
        repo_id: str,
        repo_type: str,
        revision: str,
        allow_patterns: Patterns,
        ignore_patterns: Patterns,
    ) -> Path:
        opts.inner.list_files(repo_id, repo_type, revision)
        return opts.inner.snapshot(repo_id, "model", revision, allow_patterns, ignore_patterns)


# --- uploads ---


class ChangedUpload(Delegate):
    """The base of the mutants that upload."""

    @hookimpl
    def upload(
        self,
        opts: Options,
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


class DropsPathInRepo(ChangedUpload):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        if ".." in path or path.startswith("/"):
            raise InvalidInput(path)
        return hub.upload(repo_id, source, "", *rest)


class UploadsOneFileOfAFolder(ChangedUpload):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        if source.is_dir():
            first = min(file for file in source.rglob("*") if file.is_file())
            return hub.upload(repo_id, first, f"{path}/{first.relative_to(source)}", *rest)
        return hub.upload(repo_id, source, path, *rest)


class UploadsOneLevelOfAFolder(ChangedUpload):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        if not source.is_dir():
            return hub.upload(repo_id, source, path, *rest)
        with tempfile.TemporaryDirectory() as flat:
            for file in source.iterdir():
                if file.is_file():
                    shutil.copy(file, flat)
            return hub.upload(repo_id, Path(flat), path, *rest)


class ReturnsTheFirstOfManyCommits(ChangedUpload):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        if not source.is_dir():
            return hub.upload(repo_id, source, path, *rest)
        files = sorted(file for file in source.rglob("*") if file.is_file())
        names = [f"{path}/{file.relative_to(source)}" for file in files]
        commits = [
            hub.upload(repo_id, file, name, *rest) for file, name in zip(files, names, strict=True)
        ]
        return commits[0]


class ReturnsTheBranch(ChangedUpload):
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


class UsesTheLocalPath(ChangedUpload):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        return hub.upload(repo_id, source, path or str(source).lstrip("/"), *rest)


class MakesTheMissingBranch(ChangedUpload):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        kind, _, message = rest
        return hub.upload(repo_id, source, path, kind, "main", message)


class RefusesAMessageAfterTheCommit(ChangedUpload):
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
