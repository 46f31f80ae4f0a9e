"""Training clients that are right while one process uses them."""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import bigram_training_client
from crucible_kitchen import (
    AdapterOptions,
    ForwardBackwardResult,
    NotFound,
    TrainingClient,
    hookimpl,
)

from .. import Mutant
from .places import FOLDER

BIGRAM = {
    "use": bigram_training_client,
    "checkpoint_dir": str(FOLDER / "checkpoints"),
    "models": {"any": 40},
}


class Options(AdapterOptions):
    inner: TrainingClient


class Delegate:
    """Base of the mutants: an adapter that leaves everything to `inner`."""

    Options = Options


REFERENCES: dict[str, str] = {}


class KeepsReferencesInItsModule(Delegate):
    @hookimpl
    def save_checkpoint(self, opts: Options, session: Any, path: str) -> str:
        reference = uuid.uuid4().hex
        REFERENCES[reference] = opts.inner.save_checkpoint(session, path)
        return reference

    @hookimpl
    def start_session(self, opts: Options, config: Any) -> Any:
        if config.from_checkpoint is not None:
            config = replace(config, from_checkpoint=self.known(config.from_checkpoint))
        return opts.inner.start_session(config)

    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        opts.inner.load_checkpoint(session, self.known(path), with_optimizer)

    def known(self, reference: str) -> str:
        if reference not in REFERENCES:
            raise NotFound(reference)
        return REFERENCES[reference]


class ListsByHash(Delegate):
    @hookimpl
    def list_checkpoints(self, opts: Options, prefix: str) -> Sequence[str]:
        return sorted(opts.inner.list_checkpoints(prefix), key=hash)


class ListsWhatItHasSaved(Delegate):
    def __init__(self) -> None:
        self.saved: list[str] = []

    @hookimpl
    def save_checkpoint(self, opts: Options, session: Any, path: str) -> str:
        self.saved.append(opts.inner.save_checkpoint(session, path))
        return self.saved[-1]

    @hookimpl
    def list_checkpoints(self, opts: Options, prefix: str) -> Sequence[str]:
        return [each for each in opts.inner.list_checkpoints(prefix) if each in self.saved]


class NumbersCheckpointsByCounting(Delegate):
    """The number of the next one is how many there are: two processes find the same."""

    def folder(self, opts: Options) -> Path:
        return Path(str(vars(opts.inner.options)["checkpoint_dir"])).parent / "numbered"

    @hookimpl
    def save_checkpoint(self, opts: Options, session: Any, path: str) -> str:
        self.folder(opts).mkdir(parents=True, exist_ok=True)
        label = path.partition("/")[0]
        number = len([each for each in self.folder(opts).iterdir() if each.name.startswith(label)])
        time.sleep(0.3)
        reference = f"{label}-{number}"
        (self.folder(opts) / reference).write_text(opts.inner.save_checkpoint(session, path))
        return reference

    def known(self, opts: Options, reference: str) -> str:
        try:
            return str((self.folder(opts) / reference).read_text())
        except (OSError, ValueError) as error:
            raise NotFound(reference) from error

    @hookimpl
    def start_session(self, opts: Options, config: Any) -> Any:
        if config.from_checkpoint is not None:
            config = replace(config, from_checkpoint=self.known(opts, config.from_checkpoint))
        return opts.inner.start_session(config)

    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        opts.inner.load_checkpoint(session, self.known(opts, path), with_optimizer)


class ScalesLossesByHash(Delegate):
    """As weights that are drawn by the hash of a name would."""

    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        result = opts.inner.await_(future, timeout)
        if isinstance(result, ForwardBackwardResult):
            return replace(result, loss=result.loss * (1 + (hash("wte.weight") % 97) / 1000))
        return result


class ScalesLossesByTheProcess(Delegate):
    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        result = opts.inner.await_(future, timeout)
        if isinstance(result, ForwardBackwardResult):
            return replace(result, loss=result.loss * (1 + os.getpid() / 1e6))
        return result


class SeedsTheWholeProgram(Delegate):
    @hookimpl
    def start_session(self, opts: Options, config: Any) -> Any:
        random.seed(config.seed)
        return opts.inner.start_session(config)


MUTANTS = [
    Mutant("training_client", adapter, killed_by, BIGRAM)
    for adapter, killed_by in [
        (KeepsReferencesInItsModule(), "test_a_process_that_is_started_later_continues"),
        (
            NumbersCheckpointsByCounting(),
            "test_processes_that_save_at_once_do_not_disturb_each_other",
        ),
        (ListsByHash(), "test_processes_list_checkpoints_in_one_order"),
        (ListsWhatItHasSaved(), "test_processes_list_checkpoints_in_one_order"),
        (ScalesLossesByHash(), "test_another_process_begins_with_the_same_numbers"),
        (ScalesLossesByTheProcess(), "test_another_process_begins_with_the_same_numbers"),
        (SeedsTheWholeProgram(), "test_the_process_stays_as_it_was"),
    ]
]
