"""Hub clients that are right while one process uses them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crucible_kitchen import AdapterOptions, HubClient, hookimpl

from .. import Mutant
from .places import FOLDER


class Options(AdapterOptions):
    inner: HubClient


class Delegate:
    """Base of the mutants: an adapter that leaves everything to `inner`."""

    Options = Options


class ListsASet(Delegate):
    @hookimpl
    def list_files(self, opts: Options, repo_id: str, repo_type: str, revision: str) -> Any:
        return [*{*opts.inner.list_files(repo_id, repo_type, revision)}]


class GoesIntoTheSnapshot(Delegate):
    @hookimpl
    def snapshot(
        self,
        opts: Options,
        repo_id: str,
        repo_type: str,
        revision: str,
        allow_patterns: Sequence[str] | None,
        ignore_patterns: Sequence[str] | None,
    ) -> Path:
        folder = opts.inner.snapshot(repo_id, repo_type, revision, allow_patterns, ignore_patterns)
        os.chdir(folder)
        return folder


class Cached(Delegate):
    """Base of mutants that keep snapshots in a folder, which all processes have."""

    def __init__(self) -> None:
        self.cache = FOLDER / type(self).__name__

    def keep(self, folder: Path, target: Path) -> None:
        raise NotImplementedError

    @hookimpl
    def snapshot(
        self,
        opts: Options,
        repo_id: str,
        repo_type: str,
        revision: str,
        allow_patterns: Sequence[str] | None,
        ignore_patterns: Sequence[str] | None,
    ) -> Path:
        target = self.cache / repo_id
        if not target.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            asked = (repo_id, repo_type, revision, allow_patterns, ignore_patterns)
            self.keep(opts.inner.snapshot(*asked), target)
        return target


class TakesAFolderForASnapshot(Cached):
    def keep(self, folder: Path, target: Path) -> None:
        def copy(source: str, place: str) -> None:
            time.sleep(0.1)
            shutil.copy(source, place)

        shutil.copytree(folder, target, copy_function=copy, dirs_exist_ok=True)


class FetchesToOneTemporaryFolder(Cached):
    def keep(self, folder: Path, target: Path) -> None:
        temporary = target.with_name("temporary")
        shutil.copytree(folder, temporary, dirs_exist_ok=True)
        time.sleep(0.5)
        temporary.rename(target)


MUTANTS = [
    Mutant("hub_client", adapter, killed_by)
    for adapter, killed_by in [
        (ListsASet(), "test_another_process_lists_and_downloads_the_same"),
        (TakesAFolderForASnapshot(), "test_processes_that_fetch_at_once_get_whole_files"),
        (FetchesToOneTemporaryFolder(), "test_processes_that_fetch_at_once_get_whole_files"),
        (GoesIntoTheSnapshot(), "test_the_process_stays_as_it_was"),
    ]
]
