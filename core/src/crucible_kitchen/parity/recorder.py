"""A training client around another one that writes down the steps a workflow takes."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from ..calls.call import Call
from ..errors import AdapterError
from ..hookspecs import hookimpl
from ..options.adapter_options import AdapterOptions
from ..ports import TrainingClient
from ..types import Datum, SessionConfig
from .steps import Measured, Pass, Step, Submitted, facts_of


class RecorderOptions(AdapterOptions):
    inner: TrainingClient
    """Where the calls go."""


class Enough(AdapterError):
    """Every step that was wanted is recorded; ends the workflow."""

    no_effect = True


class Recorder:
    """Passes calls on and keeps the first steps of the session that is trained.

    After them the next call that does not wait ends the workflow by `Enough`. Nothing is written:
    checkpoints, and weights with a name, get references that lead nowhere.

    Args:
        wanted: how many steps.
        told: called with the number of steps that were submitted, after each.

    Attributes:
        config: of the session that is trained; None before it has begun.
        facts: what the client says of it.
        steps: those that were submitted, in order.
        measured: the answer to each, once the session has ended.
        enough: whether the workflow was ended because it had taken every step that was wanted.
    """

    Options = RecorderOptions

    def __init__(self, wanted: int, told: Callable[[int], None]) -> None:
        self._wanted, self._told = wanted, told
        self._session: Any = None
        self._configs: list[tuple[Any, SessionConfig]] = []
        self._pending: list[tuple[Pass, Any]] = []
        self._submitted: list[Submitted] = []
        self._references = 0
        self.config: SessionConfig | None = None
        self.facts: dict[str, Any] = {}
        self.measured: list[Measured] = []
        self.enough = False

    @property
    def steps(self) -> list[Step]:
        return [each.step for each in self._submitted]

    @hookimpl
    def around(self, opts: RecorderOptions, call: Call) -> Any:
        given, client = call.arguments, opts.inner
        if call.name in _AFTER and len(self._submitted) == self._wanted:
            self._measure(client)
            self.enough = True
            raise Enough("every step that was wanted is recorded")
        match call.name:
            case "start_session":
                session = call()
                self._configs.append((session, given["config"]))
                return session
            case "forward_backward":
                return self._forward_backward(client, call)
            case "optim_step" if given["session"] is self._session:
                return self._optim_step(call)
            case "close_session" if given["session"] is self._session:
                with contextlib.suppress(AdapterError):  # which the workflow hears of itself
                    self._measure(client)
                return call()
            case "save_checkpoint" | "save_checkpoint_async":
                return self._reference()
            case "save_weights_for_sampler" if given["name"] is not None:  # else they are no files
                return self._reference()
            case "await_" if isinstance(given["future"], _NotSaved):
                return str(given["future"])
            case "check_storage" | "delete_checkpoint" | "export_weights":
                return None
        return call()

    def _forward_backward(self, client: TrainingClient, call: Call) -> Any:
        given = call.arguments
        if self._session is None:
            self._session = given["session"]
            self.config = next(c for s, c in self._configs if s is self._session)
            self.facts = facts_of(client, self._session)
        if given["session"] is not self._session:
            return call()
        config = given["loss_fn_config"]
        made = Pass(
            tuple(_copy(datum) for datum in given["datums"]),
            given["loss_fn"],
            None if config is None else dict(config),
        )
        future = call()
        self._pending.append((made, future))
        return future

    def _optim_step(self, call: Call) -> Any:
        update = call()
        passes, futures = zip(*self._pending, strict=True)
        self._pending = []
        step = Step(passes, call.arguments["learning_rate"], call.arguments["adam"])
        self._submitted.append(Submitted(step, futures, update))
        self._told(len(self._submitted))
        return update

    def _measure(self, client: TrainingClient) -> None:
        """Await what was submitted."""
        for each in self._submitted[len(self.measured) :]:
            self.measured.append(each.measured(client))

    def _reference(self) -> str:
        self._references += 1
        return _NotSaved(f"not-saved-{self._references}")


def _copy(datum: Datum) -> Datum:
    """Return a datum with arrays of its own: a workflow may refill its own for each step."""
    inputs = {name: np.array(value) for name, value in datum.loss_fn_inputs.items()}
    return Datum(copy.deepcopy(datum.model_input), inputs)


class _NotSaved(str):
    """The reference of a checkpoint that was not saved, which is also a future of itself."""

    __slots__ = ()


_AFTER = frozenset(
    {
        "forward_backward",
        "forward",
        "optim_step",
        "save_checkpoint",
        "save_checkpoint_async",
        "load_checkpoint",
        "save_weights_for_sampler",
    }
)
"""Calls that belong to no recorded step once every one is submitted."""
