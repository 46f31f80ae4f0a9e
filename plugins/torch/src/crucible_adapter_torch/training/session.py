"""A training session: what may be submitted, and when."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from crucible_kitchen import (
    AdamParams,
    Datum,
    ForwardBackwardResult,
    InvalidInput,
    OptimStepResult,
    SessionConfig,
)

from .. import live_weights
from ..checkpoints.background import chained
from ..devices import use_threads
from ..models.tokenizer import HuggingFaceTokenizer
from ..options import TrainingClientOptions
from ..parallel.alone import Alone
from ..passes.batches import Piece
from ..worker import Worker
from .engine import Engine
from .part import Part


class Session:
    """The handle of a training session. Callbacks of the training client are its methods.

    Attributes:
        config: what the session was started with.
        part: the operations themselves. Only the worker's thread may change what they change.
        worker: the thread that runs them.

    Raises:
        NotFound, Unauthorized, Unavailable, InvalidInput, Unsupported: see `Part`.
    """

    def __init__(self, opts: TrainingClientOptions, config: SessionConfig) -> None:
        self.config = config
        self.part = Part(opts, config, Alone())
        self._facts = self.part.facts()
        self._published: str | None = None
        self._accumulated = 0  # forward_backward operations submitted since the last optim_step
        self._submitting = threading.Lock()
        self.worker = Worker(functools.partial(use_threads, opts.threads))

    @property
    def engine(self) -> Engine:
        """The model and its optimizer; others than the worker may look while nothing is queued."""
        return self.part.engine

    @property
    def tokenizer(self) -> HuggingFaceTokenizer:
        """The model's tokenizer.

        Raises:
            Unsupported: the model has none.
        """
        return self.part.tokenizer

    # --- operations ---

    def forward_backward(
        self, datums: Sequence[Datum], loss_fn: str, loss_fn_config: Mapping[str, float] | None
    ) -> Future[ForwardBackwardResult]:
        batch, config = self._prepare(datums, loss_fn, loss_fn_config, backward=True)
        with self._submitting:
            future = self.worker.submit(lambda: self.part.forward_backward(batch, loss_fn, config))
            self._accumulated += 1
        return future

    def forward(
        self, datums: Sequence[Datum], loss_fn: str, loss_fn_config: Mapping[str, float] | None
    ) -> Future[ForwardBackwardResult]:
        batch, config = self._prepare(datums, loss_fn, loss_fn_config, backward=False)
        return self.worker.submit(lambda: self.part.forward(batch, loss_fn, config))

    def optim_step(self, learning_rate: float, adam: AdamParams) -> Future[OptimStepResult]:
        self.worker.check()
        self._facts.check_learning_rate(learning_rate)
        with self._submitting:
            if not self._accumulated:
                raise InvalidInput("no gradient: run forward_backward before optim_step")
            future = self.worker.submit(lambda: self.part.optim_step(learning_rate, adam))
            self._accumulated = 0
        return future

    def _prepare(
        self,
        datums: Sequence[Datum],
        loss_fn: str,
        loss_fn_config: Mapping[str, float] | None,
        backward: bool,
    ) -> tuple[list[Piece], dict[str, float]]:
        """Check the datums and copy them, since the caller may reuse the arrays at once."""
        self.worker.check()
        config = self._facts.check_datums(datums, loss_fn, loss_fn_config, backward=backward)
        return self.part.cut(datums, loss_fn), config

    # --- state ---

    def save_checkpoint(self, label: str) -> Future[str]:
        with self._submitting:
            self.worker.check()
            if self._accumulated:
                raise InvalidInput(
                    "gradients are pending, and a checkpoint does not hold them; run optim_step "
                    "before saving one"
                )
            return chained(self.worker.submit(lambda: self._save(label), "inquiry"))

    def _save(self, label: str) -> Future[str]:
        written = self.part.save(label)
        assert written is not None  # nobody else would write it
        return written

    def load_checkpoint(self, reference: str, with_optimizer: bool) -> None:
        self.worker.check("rescue")
        self.part.find(reference)
        with self._submitting:
            load = functools.partial(self.part.load_checkpoint, reference, with_optimizer)
            self.worker.submit(load, "rescue").result()
            self._accumulated = 0

    def publish(self, name: str | None) -> str:
        publish = self._publish if name is None else functools.partial(self._save_weights, name)
        return self.worker.submit(publish, "inquiry").result()

    def _publish(self) -> str:
        snapshot = self.part.engine.snapshot()
        live_weights.withdraw(self._published)
        self._published = live_weights.publish(snapshot)
        return self._published

    def _save_weights(self, name: str) -> str:
        saved = self.part.save_weights(name)
        assert saved is not None  # nobody else would save them
        return saved

    def export(self, folder: Path, merge: bool) -> None:
        export = functools.partial(self.part.export, folder, merge)
        self.worker.submit(export, "inquiry").result()

    def get_info(self) -> dict[str, str | int | float | bool | None]:
        self.worker.check()
        return self.part.get_info()

    def storage_needed(self) -> dict[str, int]:
        self.worker.check()
        return self.part.storage_needed()

    def check_storage(self, checkpoints_to_come: int) -> None:
        self.worker.check()
        self.part.check_storage(checkpoints_to_come)

    def close(self) -> None:
        self.worker.close()
        self.part.close()
        live_weights.withdraw(self._published)
