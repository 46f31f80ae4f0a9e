"""Hub clients that are right while one process uses them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crucible_kitchen import AdapterOptions, HubClient, hookimpl

from .. import Mutant


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


MUTANTS = [
    Mutant("hub_client", adapter, killed_by)
    for adapter, killed_by in [
        (ListsASet(), "test_another_process_lists_and_downloads_the_same"),
        (GoesIntoTheSnapshot(), "test_the_process_stays_as_it_was"),
    ]
]
