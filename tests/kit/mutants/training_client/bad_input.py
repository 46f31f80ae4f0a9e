"""Faults in what is refused, and in what a session honours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from crucible_kitchen import Datum, ModelInput, SessionConfig, hookimpl

from .bases import BIGRAM, ChangedPass, Delegate, Options, mutants


class TruncatesLongInput(Delegate):
    def __init__(self) -> None:
        self.max_length: dict[Any, int | None] = {}

    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        session = opts.inner.start_session(replace(config, max_length=None))
        self.max_length[session] = config.max_length
        return session

    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        end, cut = self.max_length[session], []
        for datum in datums:
            tokens = ModelInput.from_ints(datum.model_input.to_ints()[:end])
            cut.append(Datum(tokens, {k: v[:end] for k, v in datum.loss_fn_inputs.items()}))
        return opts.inner.forward_backward(session, cut, loss_fn, loss_fn_config)


class TakesOnlyGoodDatums(ChangedPass):
    def change(self, datums: Sequence[Datum]) -> list[Datum]:
        return [d for d in datums if d.model_input.length and "target_tokens" in d.loss_fn_inputs]


class IgnoresUnknownSettings(Delegate):
    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        known = {k: v for k, v in (loss_fn_config or {}).items() if k != "clip_range"}
        return opts.inner.forward_backward(session, datums, loss_fn, known)


class TakesAnyModel(Delegate):
    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        return opts.inner.start_session(replace(config, model="any"))


class DropsWhatItDoesNotKnow(Delegate):
    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        return opts.inner.start_session(replace(config, revision=None, lora=None))


class TrainsWhatIsNotTrainable(Delegate):
    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        return opts.inner.start_session(replace(config, trainable=True))


class DrawsASeed(Delegate):
    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        seed = int(np.random.default_rng().integers(2**31))
        return opts.inner.start_session(replace(config, seed=seed))


class SharesOneModel(Delegate):
    def __init__(self) -> None:
        self.sessions: dict[SessionConfig, Any] = {}

    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        if config not in self.sessions:
            self.sessions[config] = opts.inner.start_session(config)
        return self.sessions[config]


MUTANTS = mutants(
    BIGRAM,
    (TruncatesLongInput(), "an_input_beyond_max_length_is_refused"),
    (TakesOnlyGoodDatums(), "bad_input_is_refused_at_submission"),
    (IgnoresUnknownSettings(), "bad_input_is_refused_at_submission"),
    (TakesAnyModel(), "an_unknown_model_is_not_found"),
    (DropsWhatItDoesNotKnow(), "what_a_session_cannot_honour_is_refused"),
    (TrainsWhatIsNotTrainable(), "a_session_that_is_not_trainable_only_evaluates"),
    (DrawsASeed(), "a_seed_makes_one_session"),
    (SharesOneModel(), "two_sessions_do_not_disturb_each_other"),
)
