"""Faults in how datums, settings and labels are taken."""

from __future__ import annotations

import math
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from crucible_kitchen import (
    AdamParams,
    AdapterError,
    AdapterTimeout,
    Datum,
    InvalidInput,
    SessionConfig,
    hookimpl,
)

from .bases import BIGRAM, NOOP, ChangedPass, ChangedStep, Delegate, Options, mutants

NATIVE = "<" if sys.byteorder == "little" else ">"


class TakesBytesAsTheyLie(ChangedPass):
    def change_input(self, name: str, values: Any) -> Any:
        foreign = isinstance(values, np.ndarray) and not values.dtype.isnative
        return values.view(values.dtype.newbyteorder(NATIVE)) if foreign else values


class TakesMemoryAsItLies(ChangedPass):
    """It reads on from the first element, as if there were no strides."""

    def change_input(self, name: str, values: Any) -> Any:
        if not isinstance(values, np.ndarray) or values.flags.c_contiguous or values.ndim != 1:
            return values
        assert values.base is not None
        return values.base.reshape(-1)[: len(values)].astype(values.dtype)


class WantsToWrite(ChangedPass):
    def change_input(self, name: str, values: Any) -> Any:
        if isinstance(values, np.ndarray) and not values.flags.writeable:
            raise InvalidInput(f"{name} is read-only")
        return values


class TakesTargetsOf64BitsAlone(ChangedPass):
    def change_input(self, name: str, values: Any) -> Any:
        if name == "target_tokens" and getattr(values, "dtype", None) in (np.int32, np.uint8):
            raise InvalidInput("targets must be int64")
        return values


class CopiesLists(Delegate):
    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        return opts.inner.forward_backward(session, datums.copy(), loss_fn, loss_fn_config)

    @hookimpl
    def forward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        return opts.inner.forward(session, datums.copy(), loss_fn, loss_fn_config)


class ReadsDatumsWhenItIsTheirTurn(Delegate):
    """It passes on what was submitted when the next thing is asked of it."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], Any]] = []

    def pass_on(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()

    @hookimpl
    def forward_backward(
        self, opts: Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        self.pass_on()
        made: list[Any] = []
        given = list(datums)

        def submit() -> Any:
            if not made:
                future = opts.inner.forward_backward(session, given, loss_fn, loss_fn_config)
                made.append(future)
            return made[0]

        self.waiting.append(submit)
        return submit

    @hookimpl
    def optim_step(
        self, opts: Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        self.pass_on()
        return opts.inner.optim_step(session, learning_rate, adam)

    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        self.pass_on()
        return opts.inner.await_(future() if callable(future) else future, timeout)


class ScalesWeightsInPlace(ChangedPass):
    def weights(self, values: Any) -> Any:
        scaled = values.copy()
        if isinstance(values, np.ndarray) and values.flags.writeable and values.dtype.kind == "f":
            values /= max(float(np.abs(values).max(initial=0.0)), 1e-9)
        return scaled


class SortsTheCallersList(ChangedPass):
    def change(self, datums: Any) -> list[Datum]:
        given = list(datums)
        if isinstance(datums, list):
            datums.sort(key=lambda datum: datum.model_input.length)
        return given


class TakesSeedsOf32Bits(Delegate):
    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        if not 0 <= config.seed < 2**32:
            raise ValueError("Seed must be between 0 and 2**32 - 1")
        return opts.inner.start_session(config)


class AddsEpsBeforeTheCorrection(ChangedStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        correction = math.sqrt(1 - adam.beta2 ** (session.state.steps + 1))
        return rate, replace(adam, eps=adam.eps / correction)


class WantsAFloat(ChangedStep):
    def change(self, session: Any, rate: float, adam: AdamParams) -> tuple[float, AdamParams]:
        if type(rate) is int and rate:
            raise AdapterError(f"the rate is {rate}, which is no float")
        return rate, adam


class GivesUpBeforeItLooks(Delegate):
    @hookimpl
    def await_(self, opts: Options, future: Any, timeout: float | None) -> Any:
        if timeout == 0:
            raise AdapterTimeout("not done within 0 s")
        return opts.inner.await_(future, timeout)


class KeepsFloatsOf32Bits(Delegate):
    """Its checkpoints are half as large as what is in memory."""

    def rounded(self, session: Any) -> None:
        state = session.state
        session.state = replace(
            state,
            weights=state.weights.astype(np.float32).astype(np.float64),
            mean=state.mean.astype(np.float32).astype(np.float64),
            variance=state.variance.astype(np.float32).astype(np.float64),
        )

    @hookimpl
    def start_session(self, opts: Options, config: SessionConfig) -> Any:
        session = opts.inner.start_session(config)
        if config.from_checkpoint is not None:
            self.rounded(session)
        return session

    @hookimpl
    def load_checkpoint(self, opts: Options, session: Any, path: str, with_optimizer: bool) -> None:
        opts.inner.load_checkpoint(session, path, with_optimizer)
        self.rounded(session)


class ChangesLabels(Delegate):
    """Base of mutants that compare labels otherwise than they were given."""

    def label(self, text: str) -> str:
        return text

    @hookimpl
    def save_checkpoint(self, opts: Options, session: Any, path: str) -> str:
        return opts.inner.save_checkpoint(session, self.label(path))

    @hookimpl
    def list_checkpoints(self, opts: Options, prefix: str) -> Any:
        return opts.inner.list_checkpoints(self.label(prefix))


class StripsLabels(ChangesLabels):
    def label(self, text: str) -> str:
        return text.strip()


class NormalisesLabels(ChangesLabels):
    def label(self, text: str) -> str:
        return unicodedata.normalize("NFC", text)


class EscapesLabels(ChangesLabels):
    def label(self, text: str) -> str:
        return text.replace("/", "%2F")


FORM = "an_array_of_any_form_is_read_as_it_is"
LABELS = "labels_are_compared_as_they_were_given"

MUTANTS = [
    *mutants(
        BIGRAM,
        (TakesBytesAsTheyLie(), FORM),
        (TakesMemoryAsItLies(), FORM),
        (WantsToWrite(), FORM),
        (TakesTargetsOf64BitsAlone(), FORM),
        (CopiesLists(), "datums_come_in_any_sequence"),
        (ReadsDatumsWhenItIsTheirTurn(), "datums_are_read_when_they_are_submitted"),
        (ScalesWeightsInPlace(), "datums_are_left_as_they_were"),
        (SortsTheCallersList(), "datums_are_left_as_they_were"),
        (TakesSeedsOf32Bits(), "a_seed_of_any_size_and_sign_makes_one_session"),
        (AddsEpsBeforeTheCorrection(), "eps_is_added_to_the_corrected_moment"),
        (WantsAFloat(), "a_rate_may_be_an_integer"),
        (GivesUpBeforeItLooks(), "what_is_done_is_returned_whatever_the_timeout"),
        (KeepsFloatsOf32Bits(), "training_continues_to_the_bit_where_it_is_deterministic"),
        (StripsLabels(), LABELS),
        (EscapesLabels(), LABELS),
    ),
    *mutants(
        NOOP,
        (NormalisesLabels(), LABELS),
    ),
]
