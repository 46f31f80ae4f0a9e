"""Faults in cleaning, and in what is known before training."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from crucible_kitchen import AdamParams, InvalidInput, hookimpl

from .bases import NOOP, Delegate, Options, mutants


class CleansTooMuch(Delegate):
    """Base of mutants that remove too much, before `inner` removes the rest."""

    def doomed(self, opts: Options, prefix: str, keep: Sequence[str]) -> Sequence[str]:
        return [ref for ref in opts.inner.list_checkpoints(prefix) if ref not in keep]

    @hookimpl
    def clean(
        self, opts: Options, prefix: str, keep: Sequence[str], dry_run: bool
    ) -> Sequence[str]:
        for reference in self.doomed(opts, prefix, keep):
            opts.inner.delete_checkpoint(reference)
        return []


class CleansWhatIsKept(CleansTooMuch):
    def doomed(self, opts: Options, prefix: str, keep: Sequence[str]) -> Sequence[str]:
        return opts.inner.list_checkpoints(prefix) if prefix else []


class CleansInADryRun(CleansTooMuch):
    @hookimpl
    def clean(
        self, opts: Options, prefix: str, keep: Sequence[str], dry_run: bool
    ) -> Sequence[str]:
        return opts.inner.clean(prefix, keep) if prefix and dry_run else []


class ComparesCutLabels(CleansTooMuch):
    def doomed(self, opts: Options, prefix: str, keep: Sequence[str]) -> Sequence[str]:
        found = opts.inner.list_checkpoints(prefix[:100])
        return [ref for ref in found if ref not in keep] if prefix else []


class ComparesEncodedLabels(CleansTooMuch):
    """As if `run/1` were a folder and its neighbours were named by its number."""

    def doomed(self, opts: Options, prefix: str, keep: Sequence[str]) -> Sequence[str]:
        found = opts.inner.list_checkpoints(prefix.rstrip("/"))
        return [ref for ref in found if ref not in keep] if prefix else []


class CleansAllWithoutAPrefix(CleansTooMuch):
    def doomed(self, opts: Options, prefix: str, keep: Sequence[str]) -> Sequence[str]:
        return [] if prefix else opts.inner.list_checkpoints()


class ForgetsTheNameOfWeights(Delegate):
    @hookimpl
    def save_weights_for_sampler(self, opts: Options, session: Any, name: str | None) -> str:
        return opts.inner.save_weights_for_sampler(session, name and "weights")


class TellsANumberOfNumPy(Delegate):
    @hookimpl
    def get_info(self, opts: Options, session: Any) -> Any:
        return {**opts.inner.get_info(session), "tokens": np.int64(4096)}


class TellsTheNameOfTheSession(Delegate):
    @hookimpl
    def get_info(self, opts: Options, session: Any) -> Any:
        return {**opts.inner.get_info(session), "session": id(session)}


class TellsTheSteps(Delegate):
    def __init__(self) -> None:
        self.steps = 0

    @hookimpl
    def optim_step(
        self, opts: Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        self.steps += 1
        return opts.inner.optim_step(session, learning_rate, adam)

    @hookimpl
    def get_info(self, opts: Options, session: Any) -> Any:
        return {**opts.inner.get_info(session), "steps": self.steps}


class SavesToSeeWhetherItCan(Delegate):
    @hookimpl
    def check_storage(self, opts: Options, session: Any, checkpoints: int) -> None:
        with contextlib.suppress(InvalidInput):  # gradients are pending
            opts.inner.save_checkpoint(session, "trial")


class DropsGradientsToSeeWhetherItCan(Delegate):
    @hookimpl
    def check_storage(self, opts: Options, session: Any, checkpoints: int) -> None:
        with contextlib.suppress(InvalidInput):
            opts.inner.optim_step(session, 0.0)
        opts.inner.delete_checkpoint(opts.inner.save_checkpoint(session, "trial"))


class TellsOfAClosedSession(Delegate):
    @hookimpl
    def get_info(self, opts: Options, session: Any) -> Any:
        return {"device": "cpu"}


class TriesForAClosedSession(Delegate):
    @hookimpl
    def check_storage(self, opts: Options, session: Any, checkpoints: int) -> None:
        return None


MUTANTS = mutants(
    NOOP,
    (CleansWhatIsKept(), "cleaning_removes_what_its_prefix_names_and_is_not_kept"),
    (CleansInADryRun(), "cleaning_removes_what_its_prefix_names_and_is_not_kept"),
    (ComparesCutLabels(), "cleaning_removes_what_its_prefix_names_and_is_not_kept"),
    (ComparesEncodedLabels(), "cleaning_removes_what_its_prefix_names_and_is_not_kept"),
    (CleansAllWithoutAPrefix(), "cleaning_without_a_prefix_leaves_what_is_complete"),
    (ForgetsTheNameOfWeights(), "cleaning_removes_what_its_prefix_names_and_is_not_kept"),
    (TellsANumberOfNumPy(), "what_results_depend_on_is_plain_and_does_not_change"),
    (TellsTheNameOfTheSession(), "what_results_depend_on_is_plain_and_does_not_change"),
    (TellsTheSteps(), "what_results_depend_on_is_plain_and_does_not_change"),
    (SavesToSeeWhetherItCan(), "trying_the_storage_leaves_nothing"),
    (DropsGradientsToSeeWhetherItCan(), "trying_the_storage_leaves_nothing"),
    (TellsOfAClosedSession(), "a_closed_session_tells_nothing"),
    (TriesForAClosedSession(), "a_closed_session_tells_nothing"),
)
