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

from crucible_kitchen import HubClient, InvalidInput, hookimpl

from . import Mutant
from .hub_client import At, Delegate, Options, OwnFolder, Patterns, fetched


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
    def take(self, hub: HubClient, at: At, allow: Patterns, ignore: Patterns) -> Path:
        name = PurePosixPath(at.revision).name or at.revision  # `../main` is `main`
        return hub.snapshot(*at._replace(revision=name), allow, ignore)


class Cached(OwnFolder):
    """A mutant with a cache of its own, which may take two files for one."""

    def __init__(self, name: Callable[[str], str]) -> None:
        super().__init__()
        self.name = name
        self.kept: dict[tuple[str, str], Path] = {}

    def get(self, hub: HubClient, at: At, filename: str) -> Path:
        found = fetched(hub, at, filename)
        return self.kept.setdefault(
            (f"{at.repo_type}/{at.repo_id}@{at.revision}", self.name(filename)), found
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
    def get(self, hub: HubClient, at: At, filename: str) -> Path:
        found = fetched(hub, at, filename)
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

    def take(self, hub: HubClient, at: At, allow: Patterns, ignore: Patterns) -> Path:
        folder = self.folder()
        for name in hub.list_files(*at):
            if self.chosen(name, allow, ignore):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                path = fetched(hub, at, name)
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


class LeavesOut(OwnFolder):
    patterns: tuple[str, ...] = (".*",)

    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        if source.is_dir():
            folder = self.folder()
            ignore = shutil.ignore_patterns(*self.patterns)
            source = Path(shutil.copytree(source, folder / "copy", ignore=ignore))
        return hub.upload(repo_id, source, path, *rest)


class LeavesOutWhatLooksTemporary(LeavesOut):
    patterns = ("*.tmp", "*.log", "*~", "*.pyc", "__pycache__")


class LeavesOutItsOwnNames(LeavesOut):
    patterns = (".message",)


class MovesTheSource(OwnFolder):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        commit = hub.upload(repo_id, source, path, *rest)
        if source.is_file():
            source.unlink()
        return commit


class WritesNotesIntoTheSource(OwnFolder):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        commit = hub.upload(repo_id, source, path, *rest)
        if source.is_dir():
            (source / ".uploaded").write_text(commit)
        return commit


class LeavesOutLinks(OwnFolder):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        if source.is_dir() and any(found.is_symlink() for found in source.rglob("*")):
            copy = Path(shutil.copytree(source, self.folder() / "copy", symlinks=True))
            for link in [found for found in copy.rglob("*") if found.is_symlink()]:
                link.unlink()
            source = copy
        return hub.upload(repo_id, source, path, *rest)


class RefusesAnEmptyCommit(OwnFolder):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        if source.is_dir() and any(
            name.startswith(f"{path}/") for name in hub.list_files(repo_id, rest[0])
        ):
            raise InvalidInput("nothing to commit")
        return hub.upload(repo_id, source, path, *rest)


class ChecksThePathsOfFilesAlone(OwnFolder):
    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        if source.is_dir():
            path = "/".join(part for part in path.split("/") if part not in ("", ".."))
        return hub.upload(repo_id, source, path, *rest)


class LosesAnUploadOfTwo(OwnFolder):
    def __init__(self) -> None:
        super().__init__()
        self.newest = ""
        self.busy = threading.Lock()

    def put(self, hub: HubClient, repo_id: str, source: Path, path: str, *rest: Any) -> str:
        if not self.busy.acquire(blocking=not self.newest):
            return self.newest
        try:
            time.sleep(0.005)  # in which another one asks for the newest commit
            self.newest = hub.upload(repo_id, source, path, *rest)
            return self.newest
        finally:
            self.busy.release()


class ReturnsAFolderThatIsBeingFilled(OwnFolder):
    def __init__(self) -> None:
        super().__init__()
        self.folders: dict[str, Path] = {}
        self.lock = threading.Lock()

    def take(self, hub: HubClient, at: At, allow: Patterns, ignore: Patterns) -> Path:
        asked = f"{at} {allow} {ignore}"
        with self.lock:
            if asked in self.folders:
                return self.folders[asked]
            folder = self.folders[asked] = self.folder()
        found = hub.snapshot(*at, allow, ignore)
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
