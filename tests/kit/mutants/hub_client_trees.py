"""Hub clients with one fault each in what they do with trees of files."""

from __future__ import annotations

import fnmatch
import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from crucible_kitchen import InvalidInput, hookimpl

from . import Mutant
from .hub_client import Delegate, Options, OwnFolder, Patterns


class ListsFolderByFolder(Delegate):
    @hookimpl
    def list_files(self, opts: Options, repo_id: str, repo_type: str, revision: str) -> list[str]:
        found = opts.inner.list_files(repo_id, repo_type, revision)
        return sorted(found, key=lambda name: name.split("/"))


class ListsNoHiddenFiles(Delegate):
    @hookimpl
    def list_files(self, opts: Options, repo_id: str, repo_type: str, revision: str) -> list[str]:
        found = opts.inner.list_files(repo_id, repo_type, revision)
        return [name for name in found if not PurePosixPath(name).name.startswith(".")]


class TakesNothingForTheBranch(Delegate):
    @hookimpl
    def list_files(
        self, opts: Options, repo_id: str, repo_type: str, revision: str
    ) -> Sequence[str]:
        return opts.inner.list_files(repo_id, repo_type, revision or "main")


class JoinsRevisions(Delegate):
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
        name = PurePosixPath(revision).name or revision  # `../main` is `main`
        return opts.inner.snapshot(repo_id, repo_type, name, allow_patterns, ignore_patterns)


class Cached(OwnFolder):
    """A mutant with a cache of its own, which may take two files for one."""

    def __init__(self, name: Callable[[str], str]) -> None:
        super().__init__()
        self.name = name
        self.kept: dict[tuple[str, str], Path] = {}

    @hookimpl
    def download(
        self, opts: Options, repo_id: str, filename: str, repo_type: str, revision: str
    ) -> Path:
        found = opts.inner.download(repo_id, filename, repo_type, revision)
        return self.kept.setdefault(
            (f"{repo_type}/{repo_id}@{revision}", self.name(filename)), found
        )


class CachesByTheLastPart(Cached):
    def __init__(self) -> None:
        super().__init__(lambda name: PurePosixPath(name).name)


class CachesByAFlatName(Cached):
    def __init__(self) -> None:
        super().__init__(lambda name: name.replace("/", "_"))


class CachesWithoutCase(Cached):
    def __init__(self) -> None:
        super().__init__(str.lower)


class ReturnsABlobOfItsCache(OwnFolder):
    @hookimpl
    def download(
        self, opts: Options, repo_id: str, filename: str, repo_type: str, revision: str
    ) -> Path:
        found = opts.inner.download(repo_id, filename, repo_type, revision)
        blob = self.folder() / hashlib.sha256(found.read_bytes()).hexdigest()
        return Path(shutil.copyfile(found, blob))


# --- patterns ---


class Matching(OwnFolder):
    """A mutant that decides itself what matches, by another rule."""

    def matches(self, name: str, pattern: str) -> bool:
        return fnmatch.fnmatchcase(name, pattern)

    def chosen(self, name: str, allow: Patterns, ignore: Patterns) -> bool:
        allowed = allow is None or any(self.matches(name, pattern) for pattern in allow)
        return allowed and not any(self.matches(name, pattern) for pattern in ignore or ())

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
        folder = self.folder()
        for name in opts.inner.list_files(repo_id, repo_type, revision):
            if self.chosen(name, allow_patterns, ignore_patterns):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                path = opts.inner.download(repo_id, name, repo_type, revision)
                shutil.copyfile(path, folder / name)
        return folder


class FoldsTheCaseOfPatterns(Matching):
    def matches(self, name: str, pattern: str) -> bool:
        return fnmatch.fnmatchcase(name.lower(), pattern.lower())


class MatchesBeginnings(Matching):
    def matches(self, name: str, pattern: str) -> bool:
        return fnmatch.fnmatchcase(name, pattern) or name.startswith(pattern)


class MatchesAnyLastPart(Matching):
    def matches(self, name: str, pattern: str) -> bool:
        last = PurePosixPath(name).name
        return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(last, pattern)


class KnowsNoSetsOfLetters(Matching):
    def matches(self, name: str, pattern: str) -> bool:
        return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


class TakesAnEmptyListForAll(Matching):
    def chosen(self, name: str, allow: Patterns, ignore: Patterns) -> bool:
        return super().chosen(name, allow or None, ignore)


class LetsAllowedFilesWin(Matching):
    def chosen(self, name: str, allow: Patterns, ignore: Patterns) -> bool:
        return super().chosen(name, allow, None if allow else ignore)


# --- uploads ---


class Uploads(OwnFolder):
    """A mutant that uploads something else."""

    def upload_of(self, opts: Options, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        return opts.inner.upload(repo_id, source, path, *rest)

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
        rest = repo_type, revision, message
        return self.upload_of(opts, repo_id, source, path_in_repo, *rest)


class LeavesOut(Uploads):
    patterns: tuple[str, ...] = (".*",)

    def upload_of(self, opts: Options, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        if source.is_dir():
            folder = self.folder()
            ignore = shutil.ignore_patterns(*self.patterns)
            source = Path(shutil.copytree(source, folder / "copy", ignore=ignore))
        return opts.inner.upload(repo_id, source, path, *rest)


class LeavesOutWhatLooksTemporary(LeavesOut):
    patterns = ("*.tmp", "*.log", "*~", "*.pyc", "__pycache__")


class LeavesOutItsOwnNames(LeavesOut):
    patterns = (".message",)


class MovesTheSource(Uploads):
    def upload_of(self, opts: Options, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        commit = opts.inner.upload(repo_id, source, path, *rest)
        if source.is_file():
            source.unlink()
        return commit


class WritesNotesIntoTheSource(Uploads):
    def upload_of(self, opts: Options, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        commit = opts.inner.upload(repo_id, source, path, *rest)
        if source.is_dir():
            (source / ".uploaded").write_text(commit)
        return commit


class LeavesOutLinks(Uploads):
    def upload_of(self, opts: Options, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        if source.is_dir() and any(found.is_symlink() for found in source.rglob("*")):
            copy = Path(shutil.copytree(source, self.folder() / "copy", symlinks=True))
            for link in [found for found in copy.rglob("*") if found.is_symlink()]:
                link.unlink()
            source = copy
        return opts.inner.upload(repo_id, source, path, *rest)


class RefusesAnEmptyCommit(Uploads):
    def upload_of(self, opts: Options, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        if source.is_dir() and any(
            name.startswith(f"{path}/") for name in opts.inner.list_files(repo_id, rest[0])
        ):
            raise InvalidInput("nothing to commit")
        return opts.inner.upload(repo_id, source, path, *rest)


class ChecksThePathsOfFilesAlone(Uploads):
    def upload_of(self, opts: Options, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        if source.is_dir():
            path = "/".join(part for part in path.split("/") if part not in ("", ".."))
        return opts.inner.upload(repo_id, source, path, *rest)


class LosesAnUploadOfTwo(Uploads):
    def __init__(self) -> None:
        super().__init__()
        self.newest = ""
        self.busy = threading.Lock()

    def upload_of(self, opts: Options, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        if not self.busy.acquire(blocking=not self.newest):
            return self.newest
        try:
            time.sleep(0.005)  # in which another one asks for the newest commit
            self.newest = opts.inner.upload(repo_id, source, path, *rest)
            return self.newest
        finally:
            self.busy.release()


class ReturnsAFolderThatIsBeingFilled(OwnFolder):
    def __init__(self) -> None:
        super().__init__()
        self.folders: dict[str, Path] = {}
        self.lock = threading.Lock()

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
        asked = f"{repo_type} {repo_id} {revision} {allow_patterns} {ignore_patterns}"
        with self.lock:
            if asked in self.folders:
                return self.folders[asked]
            folder = self.folders[asked] = self.folder()
        found = opts.inner.snapshot(repo_id, repo_type, revision, allow_patterns, ignore_patterns)
        shutil.copytree(found, folder, dirs_exist_ok=True)
        return folder


_NAMES = "any_name_works_in_a_repository"
_PATTERNS = "patterns_choose_exactly_what_they_match"
_REVISION = "what_is_no_name_of_a_revision_is_not_found"
_SOURCE = "an_upload_leaves_its_source_alone"

MUTANTS = [
    Mutant("hub_client", adapter, f"test_{killed_by}")
    for adapter, killed_by in (
        (ListsFolderByFolder(), _NAMES),
        (ListsNoHiddenFiles(), _NAMES),
        (CachesByTheLastPart(), _NAMES),
        (CachesByAFlatName(), _NAMES),
        (CachesWithoutCase(), _NAMES),
        (LeavesOut(), _NAMES),
        (LeavesOutWhatLooksTemporary(), _NAMES),
        (LeavesOutItsOwnNames(), _NAMES),
        (ReturnsABlobOfItsCache(), "a_downloaded_file_has_its_name"),
        (TakesNothingForTheBranch(), _REVISION),
        (JoinsRevisions(), _REVISION),
        (FoldsTheCaseOfPatterns(), _PATTERNS),
        (MatchesBeginnings(), _PATTERNS),
        (MatchesAnyLastPart(), _PATTERNS),
        (KnowsNoSetsOfLetters(), _PATTERNS),
        (TakesAnEmptyListForAll(), _PATTERNS),
        (LetsAllowedFilesWin(), _PATTERNS),
        (MovesTheSource(), _SOURCE),
        (WritesNotesIntoTheSource(), _SOURCE),
        (LeavesOutLinks(), "a_snapshot_can_be_uploaded"),
        (RefusesAnEmptyCommit(), "uploading_the_same_again_is_fine"),
        (ChecksThePathsOfFilesAlone(), "a_folder_is_not_uploaded_out_of_the_repository"),
        (LosesAnUploadOfTwo(), "uploads_at_once_lose_nothing"),
        (
            ReturnsAFolderThatIsBeingFilled(),
            "many_threads_take_the_first_snapshot_of_a_commit",
        ),
    )
]
