"""Training clients like the exact one of docs/examples: as right as it is, or wrong in one way.

Every number of a bigram model is known, so what a comparison must say of each is, too.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import bigram_training_client as bigram
import numpy as np
from crucible_kitchen import (
    AdamParams,
    AdapterOptions,
    Datum,
    ForwardBackwardResult,
    OptimStepResult,
    SessionConfig,
    Tokenizer,
    Unavailable,
    helper,
    hookimpl,
)
from kitchen_noop.tokenizer import TOKENIZER

MODELS = {"any": 256}


class Options(bigram.Options):
    address: str = "here"
    """Another adapter may mean something else by it."""


class Exact:
    """Right in every number. It also has a tokenizer, facts, and low-rank updates that are none."""

    Options: type[AdapterOptions] = Options
    facts: Mapping[str, Any] = {"dtype": "float32"}

    forward_backward = staticmethod(bigram.forward_backward)
    forward = staticmethod(bigram.forward)
    optim_step = staticmethod(bigram.optim_step)
    await_ = staticmethod(bigram.await_)
    save_checkpoint = staticmethod(bigram.save_checkpoint)
    load_checkpoint = staticmethod(bigram.load_checkpoint)
    list_checkpoints = staticmethod(bigram.list_checkpoints)
    delete_checkpoint = staticmethod(bigram.delete_checkpoint)
    close_session = staticmethod(bigram.close_session)
    close = staticmethod(bigram.close)

    @hookimpl
    def start_session(self, opts: bigram.Options, config: SessionConfig) -> Any:
        return bigram.start_session(opts, dataclasses.replace(config, lora=None))

    @hookimpl
    def get_info(self, opts: bigram.Options, session: Any) -> Mapping[str, Any]:
        return self.facts

    @helper
    def get_tokenizer(self, opts: bigram.Options, session: Any) -> Tokenizer:
        return TOKENIZER


class Counts(Exact):
    """Counts the sessions that are open, and the passes that only evaluations need.

    Args:
        breaks: whether every gradient fails.
    """

    def __init__(self, breaks: bool = False) -> None:
        self.open = self.passes = 0
        self._breaks = breaks

    @hookimpl
    def start_session(self, opts: bigram.Options, config: SessionConfig) -> Any:
        session = super().start_session(opts, config)
        self.open += 1
        return session

    @hookimpl
    def close_session(self, opts: bigram.Options, session: Any) -> None:
        self.open -= not session.closed
        bigram.close_session(opts, session)

    @hookimpl
    def forward_backward(
        self, opts: bigram.Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        if self._breaks:
            raise Unavailable("the cluster is away")
        return bigram.forward_backward(opts, session, datums, loss_fn, loss_fn_config)

    @hookimpl
    def forward(
        self, opts: bigram.Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        self.passes += 1
        return bigram.forward(opts, session, datums, loss_fn, loss_fn_config)


class Changed(Exact):
    """Passes on other results."""

    def loss(self, result: ForwardBackwardResult) -> ForwardBackwardResult:
        return result

    def step(self, result: OptimStepResult) -> OptimStepResult:
        return result

    @hookimpl
    def await_(self, opts: bigram.Options, future: Any, timeout: float | None) -> Any:
        result = bigram.await_(opts, future, timeout)
        return self.step(result) if isinstance(result, OptimStepResult) else self.loss(result)


class MeanLoss(Changed):
    """Returns the mean over the datums."""

    def loss(self, result: ForwardBackwardResult) -> ForwardBackwardResult:
        return dataclasses.replace(result, loss=result.loss / len(result.outputs))


class Silent(Changed):
    """Does not say the norm of a gradient."""

    def step(self, result: OptimStepResult) -> OptimStepResult:
        return OptimStepResult(None)


class LeavesOut(Changed):
    """Does not compute the logprobs of prompts, which count for nothing."""

    def loss(self, result: ForwardBackwardResult) -> ForwardBackwardResult:
        return result  # they are 0.0 once `forward_backward` has noted where

    @hookimpl
    def forward_backward(
        self,
        opts: bigram.Options,
        session: Any,
        datums: Sequence[Datum],
        loss_fn: str,
        loss_fn_config: Any,
    ) -> Any:
        future = bigram.forward_backward(opts, session, datums, loss_fn, loss_fn_config)
        masks = [datum.loss_fn_inputs["weights"] != 0 for datum in datums]
        session.worker.submit(_blank, future, masks).result()
        return future


def _blank(future: Any, masks: Sequence[Any]) -> None:
    for output, mask in zip(future.result().outputs, masks, strict=True):
        output["logprobs"][:] = np.where(mask, output["logprobs"], 0.0)


class Rounds(Changed):
    """Computes in bfloat16, and says so."""

    facts: Mapping[str, Any] = {"dtype": "bfloat16"}

    def loss(self, result: ForwardBackwardResult) -> ForwardBackwardResult:
        outputs = [{"logprobs": o["logprobs"] + np.float32(1e-3)} for o in result.outputs]
        return dataclasses.replace(result, outputs=outputs)


class RoundsSilently(Rounds):
    facts: Mapping[str, Any] = {}


class Clips(Exact):
    """Clips every gradient, whether it was asked to or not."""

    @hookimpl
    def optim_step(
        self, opts: bigram.Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        clipping = dataclasses.replace(adam, grad_clip_norm=1e-3)
        return bigram.optim_step(opts, session, learning_rate, clipping)


class Stale(Exact):
    """Leaves the weights as they are."""

    @hookimpl
    def optim_step(
        self, opts: bigram.Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        return bigram.optim_step(opts, session, 0.0, adam)


class Draws(Changed):
    """Agrees before anything is trained, and not to the digit later, as its random numbers are
    others.
    """

    facts: Mapping[str, Any] = {"lora_init": "server"}

    def step(self, result: OptimStepResult) -> OptimStepResult:
        assert result.grad_norm is not None
        return OptimStepResult(result.grad_norm * 1.1)

    @hookimpl
    def optim_step(
        self, opts: bigram.Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        return bigram.optim_step(opts, session, learning_rate * 1.1, adam)


class DrawsSilently(Draws):
    facts: Mapping[str, Any] = {}


class Breaks(Exact):
    """Is away from its third step on."""

    @hookimpl
    def forward_backward(
        self, opts: bigram.Options, session: Any, datums: Any, loss_fn: str, loss_fn_config: Any
    ) -> Any:
        if session.state.steps == 2:
            raise Unavailable("the cluster is away")
        return bigram.forward_backward(opts, session, datums, loss_fn, loss_fn_config)

    @hookimpl
    def optim_step(
        self, opts: bigram.Options, session: Any, learning_rate: float, adam: AdamParams
    ) -> Any:
        future = bigram.optim_step(opts, session, learning_rate, adam)
        concurrent.futures.wait([future])  # so that the next call knows how many were taken
        return future


def of(adapter: Any, **options: Any) -> dict[str, Any]:
    """Return the table of a training client."""
    return {"use": adapter, "models": MODELS, **options}


class OtherOptions(AdapterOptions):
    checkpoint_dir: str = "there"
    """Not the folder of the engine, whatever it is called."""
    address: str = "elsewhere"
    """Of another service."""


class Other(Exact):
    """An adapter of another service, which shows what it was given."""

    Options = OtherOptions

    @hookimpl
    def start_session(self, opts: Any, config: SessionConfig) -> Any:
        raise Unavailable(f"given {opts}")


exact, stale, silent, breaks, other = Exact(), Stale(), Silent(), Breaks(), Other()
draws, rounds = DrawsSilently(), Rounds()
"""What entry points name."""
