"""Training sessions that several processes share, for packages that start the processes.

`crucible-adapter-ray` runs a `Rank` in each of its workers, and a `Replica` where it samples. The
names of this module may be used by any package. A process that only passes `Facts`, `LiveWeights`
or a tokenizer on need not import PyTorch for them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from crucible_kitchen import (
    AdamParams,
    Datum,
    ForwardBackwardResult,
    OptimStepResult,
    SessionConfig,
)

from . import live_weights
from .models.tokenizer import HuggingFaceTokenizer
from .options import TrainingClientOptions
from .parallel.alone import Alone, Strategy
from .parallel.strategies import choose
from .training.facts import Facts
from .training.live import LiveWeights
from .training.part import Part

__all__ = ["Facts", "LiveWeights", "Rank", "Replica", "Strategy"]


class Rank:
    """One rank's part of a session that several processes share.

    All methods but those said to be local are collective: every rank calls them, in the same order,
    and none of them returns before all have called it. If an operation fails on one rank alone, the
    others may wait for it for ever; whoever started the processes ends them. `torch.distributed`
    must be initialised, with a backend for the device, if there is more than one rank; one process
    needs none of it. The ranks need not be on one machine, but each must find the model under its
    name, and `checkpoint_dir` must be one folder for all.

    One thread uses a rank.

    Args:
        opts: of the training client, the same on every rank; `device` is this rank's own.
        config: of the session, the same on every rank.
        strategy: `ddp` keeps a copy of the model on each rank, and adds up the gradients at each
            `optim_step`; `fsdp` keeps a part of each weight, gradient and moment on each rank
            (FSDP2), and collects those of a layer where it is computed.

    Raises:
        NotFound, Unauthorized, Unavailable, InvalidInput: see `start_session`; on every rank, if on
            one.
        Unsupported: the same; or the strategy cannot do what the options or the config ask for.
    """

    def __init__(
        self, opts: TrainingClientOptions, config: SessionConfig, *, strategy: Strategy = "ddp"
    ) -> None:
        self._part = Part(opts, config, choose(opts, strategy))

    @property
    def tokenizer(self) -> HuggingFaceTokenizer:
        """The model's tokenizer, which can be pickled. Local.

        Raises:
            Unsupported: the model has none.
        """
        return self._part.tokenizer

    # --- operations ---

    def forward_backward(
        self, datums: Sequence[Datum], loss_fn: str, loss_fn_config: Mapping[str, float]
    ) -> ForwardBackwardResult:
        """Add the gradient of this rank's datums to the accumulated gradient.

        Args:
            datums: this rank's part of the batch, maybe none, which `Facts.check_datums` accepted.
            loss_fn: the loss.
            loss_fn_config: the complete config of the loss, as `Facts.check_datums` returned it.

        Returns:
            The loss, a sum over this rank's datums, and their outputs, in their order.
        """
        return self._part.forward_backward(self._part.cut(datums, loss_fn), loss_fn, loss_fn_config)

    def forward(
        self, datums: Sequence[Datum], loss_fn: str, loss_fn_config: Mapping[str, float]
    ) -> ForwardBackwardResult:
        """Compute the same without a gradient and without dropout."""
        return self._part.forward(self._part.cut(datums, loss_fn), loss_fn, loss_fn_config)

    def optim_step(self, learning_rate: float, adam: AdamParams) -> OptimStepResult:
        """Apply the sum of all ranks' accumulated gradients, and clear them.

        Args:
            learning_rate: see `Facts.check_learning_rate`.
            adam: of the step.

        Returns:
            The norm of the whole gradient, the same on every rank.

        Raises:
            AdapterError: the gradient is not finite; no weight has changed on any rank.
        """
        return self._part.optim_step(learning_rate, adam)

    # --- state ---

    def save_checkpoint(self, label: str) -> Future[str] | None:
        """Have the state as it is now written to `checkpoint_dir`, where any training client of
        this package can load it, with any number of ranks.

        Returns:
            On rank 0, the future of its reference, which another thread writes; else None.
        """
        return self._part.save(label)

    def load_checkpoint(self, reference: str, with_optimizer: bool) -> None:
        """Take over the state of a checkpoint, and drop the gradients.

        Raises:
            NotFound, InvalidInput, Unauthorized, Unavailable: it cannot be loaded on some rank; on
                every rank, and nothing has changed on any.
        """
        self._part.load_checkpoint(reference, with_optimizer)

    def save_weights(self, name: str) -> str | None:
        """Save the weights with a name, for samplers; on rank 0, return their reference, which is
        the path of a folder.
        """
        return self._part.save_weights(name)

    def live(self) -> LiveWeights | None:
        """Return the trained weights as they are now, for a `Replica`, on rank 0; else None."""
        return self._part.live()

    def export(self, folder: Path, merge: bool) -> None:
        """Write the weights to an empty folder as other programs know them. Rank 0 writes.

        Raises:
            InvalidInput: there is no update to export alone, or it updates a model that no other
                program can load.
            Unauthorized, Unavailable, NotFound: the file system refuses, on rank 0.
        """
        self._part.export(folder, merge)

    # --- facts ---

    def facts(self) -> Facts:
        """Return what a submission is checked by, and what `get_info` answers now. Local."""
        return self._part.facts()

    def get_info(self) -> dict[str, str | int | float | bool | None]:
        """Return what results depend on. Local."""
        return self._part.get_info()

    def storage_needed(self) -> dict[str, int]:
        """Return the bytes of a checkpoint and of the weights saved with a name. Local."""
        return self._part.storage_needed()

    def check_storage(self, checkpoints: int) -> None:
        """Check that so many checkpoints, and the weights once, can be written from here. Local.

        Raises:
            Unauthorized, InvalidInput: nothing can be written there.
            Unavailable: there is no space for all of it.
        """
        self._part.check_storage(checkpoints)

    def close(self) -> None:
        """Wait for the checkpoint that is being written, and free the model. Local."""
        self._part.close()


class Replica:
    """A model like a session's, to sample from in another process.

    Args:
        opts: of the session's training client; `device` is that of this process.
        config: of the session. The replica starts with the weights that such a session starts with,
            without the checkpoint.

    Raises:
        NotFound, Unauthorized, Unavailable, InvalidInput, Unsupported: see `start_session`.
    """

    def __init__(self, opts: TrainingClientOptions, config: SessionConfig) -> None:
        plain = {"gradient_checkpointing": False, "optimizer_state": "float32"}
        opts = opts.model_copy(update={**plain, "micro_batch_tokens": 1})
        self._part = Part(opts, dataclasses.replace(config, from_checkpoint=None), Alone())
        self._published: str | None = None

    def take(self, weights: LiveWeights) -> str:
        """Take over the weights of a session, and withdraw those taken before.

        Returns:
            A reference that the `torch` completers of this process take as `SamplingParams.model`,
            and `published.find`. Samplers that use the weights before may finish.

        Raises:
            InvalidInput: they are weights of another model, or updates of one; those before stay.
        """
        self._part.check_live(weights)
        # First withdrawn: who still samples from the weights before keeps copies of them.
        live_weights.withdraw(self._published)
        self._published = None
        self._part.take(weights)
        self._published = live_weights.publish(self._part.engine.snapshot())
        return self._published

    def close(self) -> None:
        """Withdraw the weights, and free the model."""
        live_weights.withdraw(self._published)
        self._published = None
        self._part.close()
