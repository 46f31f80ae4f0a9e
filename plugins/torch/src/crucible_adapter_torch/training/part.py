"""One process's part of a training session: operations as they are run, one after another.

A session that is in one process alone has one part, and so has each rank of one that several
processes share. One thread uses a part.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import torch
from crucible_kitchen import (
    LOSS_FUNCTIONS,
    AdamParams,
    Datum,
    ForwardBackwardResult,
    InvalidInput,
    OptimStepResult,
    SessionConfig,
)

from ..checkpoints import exports, inspection, stored
from ..checkpoints.background import CheckpointWriter
from ..checkpoints.folders import translated
from ..devices import choose_device, choose_dtype, use_threads
from ..models import layers, loading
from ..models.frozen import choose_storage
from ..models.language_model import LanguageModel, without_tokenizer
from ..models.tokenizer import HuggingFaceTokenizer
from ..options import TrainingClientOptions
from ..parallel.alone import Alone
from ..passes.batches import Piece, datum_pieces
from . import budget, handover
from .engine import Engine, is_randomness
from .facts import Facts
from .live import LiveWeights
from .optimizers import in_8_bits


class Part:
    """A model, its optimizer, and what is written of them.

    Args:
        opts: of the training client.
        config: of the session.
        parallel: what is done together with the session's other processes.

    Attributes:
        config: what the session was started with.
        commit: the hub's commit of its model, if it came from the hub.
        engine: the model and its optimizer. Gone once the part is closed.
        writer: writes checkpoints while the operations behind them run.

    Raises:
        NotFound, Unauthorized, Unavailable, InvalidInput, Unsupported: see `loading.load`; the same
            for a checkpoint to start from; and see `Alone.check`.
    """

    def __init__(self, opts: TrainingClientOptions, config: SessionConfig, parallel: Alone) -> None:
        use_threads(opts.threads)
        if opts.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
            torch.use_deterministic_algorithms(True)
        parallel.check(opts, config)
        self.config = config
        self._opts, self._parallel = opts, parallel
        computed_in = choose_dtype(opts.dtype, choose_device(opts.device))
        self._storage = choose_storage(opts.base_dtype, config, computed_in)
        language = parallel.agree(self._load)
        self.commit = language.commit
        limits = [limit for limit in (config.max_length, language.context) if limit is not None]
        self._max_length = min(limits, default=None)
        self._vocab_size = language.vocab_size
        self._steady = language.steady
        self._tokenizer = language.tokenizer and HuggingFaceTokenizer(
            language.tokenizer.tokenizer, self._max_length, self._vocab_size
        )
        self._budget = 0 if opts.micro_batch_tokens == "auto" else opts.micro_batch_tokens
        self._model_config = loading.fingerprint(opts, language.name)
        self._folder = opts.checkpoint_dir
        self.engine = Engine(language, config, opts.optimizer_state, parallel)
        if opts.gradient_checkpointing:
            layers.checkpoint_gradients(language.model)
        if opts.compile:
            layers.compile_layers(language.model)
        self.writer = CheckpointWriter()
        if config.from_checkpoint is not None:
            self.load_checkpoint(config.from_checkpoint, config.with_optimizer)
        if not self._budget:
            shards = parallel.size if parallel.divides else 1
            find = partial(budget.find, opts, config, self.engine, shards)
            self._budget = parallel.least(parallel.agree(find))

    def _load(self) -> LanguageModel:
        opts, config = self._opts, self.config
        device = choose_device(opts.device)
        if (first := self._parallel.load_on(device)) != device:
            precision = str(choose_dtype(opts.dtype, device)).removeprefix("torch.")
            opts = opts.model_copy(update={"device": str(first), "dtype": precision})
        return loading.load(
            opts,
            config.model,
            revision=config.revision,
            seed=config.seed,
            precise=True,
            keep_adapter=opts.adapter == "continue",
            storage=self._storage,
            attention=opts.attn_implementation,
        )

    @property
    def tokenizer(self) -> HuggingFaceTokenizer:
        """The model's tokenizer.

        Raises:
            Unsupported: the model has none.
        """
        if self._tokenizer is None:
            raise without_tokenizer(self.config.model)
        return self._tokenizer

    # --- operations ---

    def cut(self, datums: Sequence[Datum], loss_fn: str) -> list[Piece]:
        """Copy checked datums into pieces to compute at a time. Any thread may do so."""
        inputs = LOSS_FUNCTIONS[loss_fn].inputs
        return datum_pieces(datums, inputs, self._budget, self._steady)

    def forward_backward(
        self, batch: Sequence[Piece], loss_fn: str, config: Mapping[str, float]
    ) -> ForwardBackwardResult:
        """See `Engine.forward_backward`."""
        return self.engine.forward_backward(batch, loss_fn, config)

    def forward(
        self, batch: Sequence[Piece], loss_fn: str, config: Mapping[str, float]
    ) -> ForwardBackwardResult:
        """See `Engine.forward`."""
        return self.engine.forward(batch, loss_fn, config)

    def optim_step(self, learning_rate: float, adam: AdamParams) -> OptimStepResult:
        """See `Engine.optim_step`. What is being written of the weights stays as it was."""
        self.writer.detach()
        return self.engine.optim_step(learning_rate, adam)

    # --- state ---

    def save(self, label: str) -> Future[str] | None:
        """Have the state as it is now written by another thread; on rank 0, return the future of
        its reference.
        """
        engine = self.engine
        facts: dict[str, Any] = {
            "randomness": engine.randomness(),
            "micro_batch_tokens": self._budget,
            "base": engine.base,
            "base_dtype": self._storage,
            "model": self.config.model,
            "commit": self.commit,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }
        if self._parallel.divides:
            self.writer.wait()  # for the memory of the copy before
        weights = self._parallel.gathered(engine.weights)
        moments = self._parallel.gathered(engine.moments())
        if weights is None or moments is None:
            return None
        tensors = stored.snapshot(weights, moments)
        save = partial(stored.save, self._folder, label, tensors, facts)
        return self.writer.start(tensors, save)

    def find(self, reference: str) -> Path:
        """Return the folder of a checkpoint. Any thread may do so.

        Raises:
            NotFound: no checkpoint has this reference.
        """
        return stored.find(self._folder, reference)

    def load_checkpoint(self, reference: str, with_optimizer: bool) -> None:
        """Take over the state of a checkpoint, and drop the gradients.

        Raises:
            NotFound: no checkpoint has this reference.
            InvalidInput: it is of another model, or damaged; nothing has changed.
            Unauthorized, Unavailable: the file system refuses.
        """
        checkpoint = self._parallel.agree(lambda: self._read(reference, with_optimizer))
        facts = checkpoint.facts
        fresh = {"seed": self.config.seed, "passes": 0}
        self.engine.restore(
            checkpoint.weights,
            checkpoint.moments,
            facts["randomness"] if with_optimizer else fresh,
        )
        budget_then = facts.get("micro_batch_tokens")
        if self._opts.micro_batch_tokens == "auto" and with_optimizer and _is_count(budget_then):
            self._budget = budget_then

    def _read(self, reference: str, with_optimizer: bool) -> stored.Checkpoint:
        """Read what this process has of a checkpoint, and check it."""
        path = self.find(reference)
        checkpoint = stored.read(path, with_moments=with_optimizer, rows=self._parallel.rows)
        facts = checkpoint.facts
        if facts.get("base") != self.engine.base:
            raise InvalidInput(
                f"checkpoint {path.name!r} holds a low-rank update of other weights "
                f"(model {facts.get('model')!r}, base_dtype {facts.get('base_dtype')}): a session "
                "needs the same model, seed of its random weights, lora configuration and "
                f"base_dtype, which is {self._storage} here"
            )
        randomness = facts.get("randomness")
        if not is_randomness(randomness):
            raise stored.damage(path, stored.STATE, f"'randomness' is {randomness!r:.80}")
        self.engine.check(checkpoint.weights, checkpoint.moments)
        self.writer.wait()
        stored.verify(path, facts, with_moments=with_optimizer)
        return checkpoint

    def live(self) -> LiveWeights | None:
        """Return the trained weights as they are now, on rank 0; None on others."""
        tensors = self._parallel.gathered(self.engine.weights)
        return None if tensors is None else LiveWeights.of(tensors, self.engine.base)

    def check_live(self, weights: LiveWeights) -> None:
        """Check that `take` can take these weights.

        Raises:
            InvalidInput: they are of another model, or of another low-rank update.
        """
        if weights.base != self.engine.base:
            raise InvalidInput(
                f"these weights are updates of other weights than those of {self.config.model!r} "
                "here: the same model, seed, lora configuration and base_dtype are needed"
            )
        self.engine.check(weights.tensors(), {})

    def take(self, weights: LiveWeights) -> None:
        """Take over weights that passed `check_live`, and nothing else of their session."""
        self.engine.restore(weights.tensors(), {}, {"seed": self.config.seed, "passes": 0})

    def save_weights(self, name: str) -> str | None:
        """Save the weights with a name, for samplers; on rank 0, return their reference."""
        plain = self.engine.plain()
        return None if plain is None else handover.save(self._folder, name, plain)

    def export(self, folder: Path, merge: bool) -> None:
        """Write the weights to an empty folder as other programs know them, on rank 0.

        Args:
            folder: where to; it exists.
            merge: the whole model, rather than its low-rank update alone.

        Raises:
            InvalidInput: there is no update, or no other program can load what it updates.
            Unauthorized, Unavailable, NotFound: the file system refuses.
        """
        engine, first = self.engine, self._parallel.rank == 0
        with translated(f"the weights cannot be exported to {folder}"):
            self._parallel.agree(partial(handover.check, engine, folder if first else None, merge))
            if merge:
                if (plain := engine.plain()) is not None:
                    exports.write_model(folder, plain)
            elif (weights := self._parallel.gathered(engine.weights)) is not None:
                handover.write_update(folder, engine, weights)

    # --- facts ---

    def facts(self) -> Facts:
        """Return what a submission is checked by."""
        return Facts(
            config=self.config,
            vocab_size=self._vocab_size,
            max_length=self._max_length,
            device=self.engine.language.device.type,
            info=self.get_info(),
            storage=self.storage_needed(),
            ranks=self._parallel.size,
        )

    def get_info(self) -> dict[str, str | int | float | bool | None]:
        """Return what results depend on; any thread may ask."""
        language, parallel = self.engine.language, self._parallel
        on_cpu = language.device.type == "cpu"
        return {
            "dtype": str(language.dtype).removeprefix("torch."),
            "device": language.device.type,
            "attention": getattr(language.model.config, "_attn_implementation", None),
            "micro_batch_tokens": self._budget,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "threads": self._opts.threads if on_cpu else None,  # sums are cut between them
            "adapter": self._opts.adapter,
            "base_dtype": self._storage,
            "compile": self._opts.compile,
            "optimizer_state": self._opts.optimizer_state,
            "model_commit": self.commit,
            "model_config": self._model_config,
            "ranks": parallel.size,
            "strategy": parallel.strategy,
        }

    def storage_needed(self) -> dict[str, int]:
        """Return the bytes of a checkpoint, `checkpoint`, and of the weights saved with a name,
        `weights`; a little more than they take. Any thread may ask.
        """
        engine = self.engine
        trained = engine.trained_bytes
        moments = 2 * trained if self.config.trainable else 0
        if moments and self._opts.optimizer_state == "8bit":
            moments = in_8_bits(engine.weights.values())
        # For the headers and for what is JSON; a tokenizer takes some 100 bytes per token.
        rest = 64 * 1024 + 400 * len(engine.weights)
        text = 100 * self._vocab_size if self._tokenizer is not None else 0
        return {
            "checkpoint": trained + moments + rest,
            "weights": engine.whole_bytes + rest + text,
        }

    def check_storage(self, checkpoints_to_come: int) -> None:
        """Check that so many checkpoints, and the weights once, can be written.

        Raises:
            Unauthorized, InvalidInput, Unavailable: see `inspection.check_storage`.
        """
        needed = self.storage_needed()
        inspection.check_storage(
            {
                self._folder: checkpoints_to_come * needed["checkpoint"],
                exports.exports_in(self._folder): needed["weights"],
            }
        )

    def close(self) -> None:
        """Wait for what is being written, and free the model, even if a caller keeps the part."""
        self.writer.close()
        self.__dict__.pop("engine", None)
        if self._parallel.divides:
            self._parallel = Alone()
            gc.collect()  # what divides a model is in a circle with it, and memory may be short


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and value > 0
