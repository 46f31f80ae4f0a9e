"""Faults in checkpoints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from crucible_kitchen import InvalidInput, NotFound, SessionConfig, hookimpl

from .bases import BIGRAM, Delayed, Delegate, Options, mutants
from .futures import StepsWhenAwaited


class ForgetsTheOptimizer(Delegate):
    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        opts.inner.load_checkpoint(session, path, with_optimizer=False)


class RestoresTheOptimizerAnyway(Delegate):
    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        opts.inner.load_checkpoint(session, path, with_optimizer=True)


class ClearsTheMomentsButNotTheSteps(Delegate):
    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        opts.inner.load_checkpoint(session, path, with_optimizer=True)
        if not with_optimizer:
            zeros = np.zeros_like(session.state.mean)
            session.state = replace(session.state, mean=zeros, variance=zeros)


class StartsWithTheOptimizer(Delegate):
    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        return opts.inner.start_session(replace(config, with_optimizer=True))


class SavesInHalfPrecision(Delegate):
    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        opts.inner.load_checkpoint(session, path, with_optimizer)
        half = session.state.weights.astype(np.float16).astype(np.float64)
        session.state = replace(session.state, weights=half)


class KeepsTheGradientWhenItLoads(Delayed):
    pass


class SavesPendingGradients(Delegate):
    @hookimpl
    def save_checkpoint(self, opts: Options, session: Any, path: str) -> str:
        try:
            return opts.inner.save_checkpoint(session, path)
        except InvalidInput:
            opts.inner.optim_step(session, 0.0)
            return opts.inner.save_checkpoint(session, path)


class SavesUnderItsLabel(Delegate):
    def __init__(self) -> None:
        self.saved: dict[str, str] = {}

    @hookimpl
    def save_checkpoint(self, opts: Options, session: Any, path: str) -> str:
        self.saved[path] = opts.inner.save_checkpoint(session, path)
        return path

    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        opts.inner.load_checkpoint(session, self.saved.get(path, path), with_optimizer)


class TakesSimpleLabelsOnly(Delegate):
    @hookimpl
    def save_checkpoint(self, opts: Options, session: Any, path: str) -> str:
        if ".." in path:
            raise InvalidInput("use letters and digits")
        return opts.inner.save_checkpoint(session, path)


class DoesNotMissWhatIsMissing(Delegate):
    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        try:
            opts.inner.load_checkpoint(session, path, with_optimizer)
        except NotFound:
            return


class ClearsBeforeItLooks(Delegate):
    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        session.check(revives=True)
        session.accumulated = False
        opts.inner.load_checkpoint(session, path, with_optimizer)


class ListsNewestFirst(Delegate):
    @hookimpl
    def list_checkpoints(self, opts: Options, prefix: str) -> list[str]:
        return list(opts.inner.list_checkpoints(prefix))[::-1]


class ListsWhatContains(Delegate):
    def __init__(self) -> None:
        self.labels: dict[str, str] = {}

    @hookimpl
    def save_checkpoint(self, opts: Options, session: Any, path: str) -> str:
        reference = opts.inner.save_checkpoint(session, path)
        self.labels[reference] = path
        return reference

    @hookimpl
    def list_checkpoints(self, opts: Options, prefix: str) -> list[str]:
        return [r for r in opts.inner.list_checkpoints() if prefix in self.labels.get(r, "")]


class SavesAroundTheQueue(StepsWhenAwaited):
    pass


class KeepsReferencesInMemory(Delegate):
    def __init__(self) -> None:
        self.known: set[tuple[int, str]] = set()
        self.kept: list[Options] = []  # so that no id is used again

    @hookimpl
    def save_checkpoint(self, opts: Options, session: Any, path: str) -> str:
        reference = opts.inner.save_checkpoint(session, path)
        self.known.add((id(opts), reference))
        self.kept.append(opts)
        return reference

    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        if config.from_checkpoint and (id(opts), config.from_checkpoint) not in self.known:
            raise NotFound(config.from_checkpoint)
        return opts.inner.start_session(config)


class DeletesCheckpointsWithTheirSession(Delegate):
    def __init__(self) -> None:
        self.saved: dict[Any, list[str]] = defaultdict(list)

    @hookimpl
    def save_checkpoint(self, opts: Options, session: Any, path: str) -> str:
        reference = opts.inner.save_checkpoint(session, path)
        self.saved[session].append(reference)
        return reference

    @hookimpl
    def close_session(self, opts: Options, session: Any) -> None:
        for reference in self.saved.pop(session, []):
            opts.inner.delete_checkpoint(reference)
        opts.inner.close_session(session)


class DeletesTwiceWithAnError(Delegate):
    @hookimpl
    def delete_checkpoint(self, opts: Options, path: str) -> None:
        if path not in opts.inner.list_checkpoints():
            raise NotFound(path)
        opts.inner.delete_checkpoint(path)


@dataclass(frozen=True)
class Later:
    """A future of what happens when it is awaited."""

    act: Callable[[], str]


class SavesMeanwhile(Delegate):
    """Saves meanwhile, rightly: what mutants that break it are made of, and their base."""

    def submit(self, opts: Options, session: Any, path: str) -> Any:
        reference = opts.inner.save_checkpoint(session, path)
        return Later(lambda: reference)

    @hookimpl
    def save_checkpoint_async(self, opts: Options, session: Any, path: str) -> Any:
        return self.submit(opts, session, path)

    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        if isinstance(future, Later):
            return future.act()
        return opts.inner.await_(future, timeout)


class SavesMeanwhileWhenAwaited(SavesMeanwhile):
    def submit(self, opts: Options, session: Any, path: str) -> Any:
        saved: list[str] = []

        def act() -> str:
            if not saved:
                saved.append(opts.inner.save_checkpoint(session, path))
            return saved[0]

        return Later(act)


class NamesWhatItSavesMeanwhileBeforeItIsThere(SavesMeanwhile):
    def submit(self, opts: Options, session: Any, path: str) -> Any:
        whole = opts.inner.save_checkpoint(session, path)
        opts.inner.delete_checkpoint(whole)
        return Later(lambda: whole)


class SavesAgainWhenAwaitedAgain(SavesMeanwhile):
    def submit(self, opts: Options, session: Any, path: str) -> Any:
        return Later(lambda: opts.inner.save_checkpoint(session, path))


class SavesPendingGradientsMeanwhile(SavesMeanwhile):
    def submit(self, opts: Options, session: Any, path: str) -> Any:
        try:
            return super().submit(opts, session, path)
        except InvalidInput:
            opts.inner.optim_step(session, 0.0)
            return super().submit(opts, session, path)


MEANWHILE = {"use": SavesMeanwhile(), "inner": BIGRAM}

MUTANTS = mutants(
    BIGRAM,
    (ForgetsTheOptimizer(), "with_the_optimizer_its_state_is_kept"),
    (RestoresTheOptimizerAnyway(), "without_the_optimizer_its_state_starts_afresh"),
    (ClearsTheMomentsButNotTheSteps(), "without_the_optimizer_its_state_starts_afresh"),
    (StartsWithTheOptimizer(), "without_the_optimizer_its_state_starts_afresh"),
    (SavesInHalfPrecision(), "training_continues_from_a_checkpoint"),
    (KeepsTheGradientWhenItLoads(), "loading_drops_pending_gradients"),
    (SavesPendingGradients(), "saving_with_gradients_pending_is_refused"),
    (SavesUnderItsLabel(), "saving_never_replaces"),
    (TakesSimpleLabelsOnly(), "any_label_works"),
    (DoesNotMissWhatIsMissing(), "an_unknown_checkpoint_is_not_found"),
    (ClearsBeforeItLooks(), "an_unknown_checkpoint_is_not_found"),
    (ListsNewestFirst(), "checkpoints_are_listed_by_label_oldest_first"),
    (ListsWhatContains(), "checkpoints_are_listed_by_label_oldest_first"),
    (SavesAroundTheQueue(), "saving_waits_for_what_is_queued"),
    (KeepsReferencesInMemory(), "another_process_continues"),
    (DeletesCheckpointsWithTheirSession(), "a_checkpoint_outlives_its_session"),
    (DeletesTwiceWithAnError(), "a_deleted_checkpoint_is_gone"),
) + mutants(
    MEANWHILE,
    (
        SavesMeanwhileWhenAwaited(),
        "a_checkpoint_saved_meanwhile_holds_the_state_of_its_place_in_the_queue",
    ),
    (
        NamesWhatItSavesMeanwhileBeforeItIsThere(),
        "what_was_saved_meanwhile_is_a_checkpoint_like_any_other",
    ),
    (SavesAgainWhenAwaitedAgain(), "what_was_saved_meanwhile_is_a_checkpoint_like_any_other"),
    (SavesPendingGradientsMeanwhile(), "saving_meanwhile_with_gradients_pending_is_refused"),
)
