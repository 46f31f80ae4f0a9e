"""A training session: what may be submitted, and when."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
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
    validate_datums,
)
from transformers.utils import CONFIG_NAME

from . import checkpoints, exports, inspection, live_weights, models
from .batches import Piece, datum_pieces
from .checkpoints import Checkpoint
from .devices import use_threads
from .engine import Engine
from .folders import new_folder
from .language_model import without_tokenizer
from .options import TrainingClientOptions
from .quiet import quiet
from .tokenizer import HuggingFaceTokenizer
from .weights import ADAPTER_CONFIG
from .worker import Worker


class Session:
    """The handle of a training session. Callbacks of the training client are its methods.

    Attributes:
        config: what the session was started with.
        commit: the hub's commit of its model, if it came from the hub.
        engine: the model and its optimizer. Only the worker's thread may change them; others may
            look at them while nothing is queued. Gone once the session is closed.
        worker: the thread that runs the operations.

    Raises:
        NotFound, Unauthorized, Unavailable, InvalidInput, Unsupported: see `models.load`; the same
            for a checkpoint to start from.
    """

    def __init__(self, opts: TrainingClientOptions, config: SessionConfig) -> None:
        use_threads(opts.threads)
        if opts.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
            torch.use_deterministic_algorithms(True)
        language = models.load(
            opts,
            config.model,
            revision=config.revision,
            seed=config.seed,
            precise=True,
            keep_adapter=opts.adapter == "continue",
        )
        limits = [limit for limit in (config.max_length, language.context) if limit is not None]
        self.config = config
        self.commit = language.commit
        self._vocab_size = language.vocab_size
        self._steady = language.steady
        self._max_length = min(limits, default=None)
        self._tokenizer = language.tokenizer and HuggingFaceTokenizer(
            language.tokenizer.tokenizer, self._max_length, self._vocab_size
        )
        self._budget = opts.micro_batch_tokens
        self._threads = opts.threads
        self._adapter = opts.adapter
        self._model_config = _fingerprint(opts, language.name)
        self._folder = opts.checkpoint_dir
        self.engine = Engine(language, config)
        if config.from_checkpoint is not None:
            path = checkpoints.find(self._folder, config.from_checkpoint)
            self._restore(path, config.with_optimizer)
        self._published: str | None = None
        self._accumulated = 0  # forward_backward operations submitted since the last optim_step
        self._submitting = threading.Lock()
        self.worker = Worker(functools.partial(use_threads, opts.threads))

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

    def forward_backward(
        self, datums: Sequence[Datum], loss_fn: str, loss_fn_config: Mapping[str, float] | None
    ) -> Future[ForwardBackwardResult]:
        self.worker.check()
        if not self.config.trainable:
            raise InvalidInput("the session was started with trainable=False")
        batch, config = self._prepare(datums, loss_fn, loss_fn_config, require_weights=True)
        with self._submitting:
            future = self.worker.submit(
                lambda: self.engine.forward_backward(batch, loss_fn, config)
            )
            self._accumulated += 1
        return future

    def forward(
        self, datums: Sequence[Datum], loss_fn: str, loss_fn_config: Mapping[str, float] | None
    ) -> Future[ForwardBackwardResult]:
        batch, config = self._prepare(datums, loss_fn, loss_fn_config, require_weights=False)
        return self.worker.submit(lambda: self.engine.forward(batch, loss_fn, config))

    def optim_step(self, learning_rate: float, adam: AdamParams) -> Future[OptimStepResult]:
        self.worker.check()
        if not (learning_rate >= 0 and math.isfinite(learning_rate)):
            raise InvalidInput(
                f"learning_rate must be finite and not negative, not {learning_rate}"
            )
        with self._submitting:
            if not self._accumulated:
                raise InvalidInput("no gradient: run forward_backward before optim_step")
            future = self.worker.submit(lambda: self.engine.optim_step(learning_rate, adam))
            self._accumulated = 0
        return future

    def _prepare(
        self,
        datums: Sequence[Datum],
        loss_fn: str,
        loss_fn_config: Mapping[str, float] | None,
        require_weights: bool,
    ) -> tuple[list[Piece], dict[str, float]]:
        """Check the datums and copy them, since the caller may reuse the arrays at once."""
        self.worker.check()
        config = validate_datums(
            datums,
            loss_fn,
            loss_fn_config,
            vocab_size=self._vocab_size,
            max_length=self._max_length,
            require_weights=require_weights,
        )
        inputs = LOSS_FUNCTIONS[loss_fn].inputs
        return datum_pieces(datums, inputs, self._budget, self._steady), config

    # --- state ---

    def save_checkpoint(self, label: str) -> str:
        with self._submitting:
            self.worker.check()
            if self._accumulated:
                raise InvalidInput(
                    "gradients are pending, and a checkpoint does not hold them; run optim_step "
                    "before save_checkpoint"
                )
            saved = self.worker.submit(lambda: self._save(label), "inquiry")
        return saved.result()  # other threads may submit meanwhile

    def load_checkpoint(self, reference: str, with_optimizer: bool) -> None:
        self.worker.check("rescue")
        path = checkpoints.find(self._folder, reference)
        with self._submitting:
            self.worker.submit(lambda: self._restore(path, with_optimizer), "rescue").result()
            self._accumulated = 0

    def publish(self, name: str | None) -> str:
        publish = self._publish if name is None else functools.partial(self._export, name)
        return self.worker.submit(publish, "inquiry").result()

    def get_info(self) -> dict[str, str | int | float | bool | None]:
        self.worker.check()
        language = self.engine.language
        on_cpu = language.device.type == "cpu"
        return {
            "dtype": str(language.dtype).removeprefix("torch."),
            "device": language.device.type,
            "attention": getattr(language.model.config, "_attn_implementation", None),
            "micro_batch_tokens": self._budget,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "threads": self._threads if on_cpu else None,  # sums are cut between them
            "adapter": self._adapter,
            "model_commit": self.commit,
            "model_config": self._model_config,
        }

    def check_storage(self, checkpoints_to_come: int) -> None:
        self.worker.check()
        engine = self.engine
        trained = sum(weight.nbytes for weight in engine.weights.values())
        moments = 2 * trained if self.config.trainable else 0
        whole = sum(weight.nbytes for weight in engine.model.parameters())
        # For the headers and for what is JSON; a tokenizer takes some 100 bytes per token.
        rest = 64 * 1024 + 400 * len(engine.weights)
        text = 100 * self._vocab_size if self._tokenizer is not None else 0
        inspection.check_storage(
            {
                self._folder: checkpoints_to_come * (trained + moments + rest),
                exports.exports_in(self._folder): whole + rest + text,
            }
        )

    def close(self) -> None:
        self.worker.close()
        live_weights.withdraw(self._published)
        self.__dict__.pop("engine", None)  # free the model, even if a caller keeps the handle

    def _save(self, label: str) -> str:
        engine = self.engine
        facts: dict[str, Any] = {
            "randomness": engine.randomness(),
            "base": engine.base,
            "model": self.config.model,
            "commit": self.commit,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }
        return checkpoints.save(
            self._folder, label, Checkpoint(engine.weights, engine.moments(), facts)
        )

    def _restore(self, path: Path, with_optimizer: bool) -> None:
        checkpoint = checkpoints.read(path, with_moments=with_optimizer)
        facts = checkpoint.facts
        if facts.get("base") != self.engine.base:
            raise InvalidInput(
                f"checkpoint {path.name!r} holds a low-rank update of other weights "
                f"(model {facts.get('model')!r}): a session needs the same model, seed of "
                "its random weights and lora configuration"
            )
        randomness = facts.get("randomness")
        if not _is_randomness(randomness):
            raise checkpoints.damage(path, checkpoints.STATE, f"'randomness' is {randomness!r:.80}")
        self.engine.check(checkpoint.weights, checkpoint.moments)
        checkpoints.verify(path, facts, with_moments=with_optimizer)
        fresh = {"seed": self.config.seed, "passes": 0}
        self.engine.restore(
            checkpoint.weights,
            checkpoint.moments,
            randomness if with_optimizer else fresh,
        )

    def _publish(self) -> str:
        snapshot = self.engine.snapshot()
        live_weights.withdraw(self._published)
        self._published = live_weights.publish(snapshot)
        return self._published

    def _export(self, name: str) -> str:
        snapshot = self.engine.snapshot()
        if (ends := snapshot.end_tokens) and snapshot.model.generation_config is not None:
            snapshot.model.generation_config.eos_token_id = ends[0] if len(ends) == 1 else [*ends]
        with new_folder(exports.exports_in(self._folder), name) as (partial, final):
            exports.write_name(partial, name)
            with quiet():
                snapshot.model.save_pretrained(partial)
            if snapshot.tokenizer is not None:
                snapshot.tokenizer.tokenizer.save_pretrained(partial)
        return exports.reference_of(final)


def _is_randomness(value: Any) -> TypeGuard[dict[str, int]]:
    return (
        isinstance(value, dict)
        and all(type(value.get(key)) is int for key in ("seed", "passes"))
        and value["passes"] >= 0
    )


def _fingerprint(opts: TrainingClientOptions, name: str) -> str | None:
    """Identify what a model computes with its weights; None if its commit identifies it.

    A digest of what the user or the model's author wrote: Transformers adds to that with each
    version.
    """
    if name in opts.models:
        written = opts.models[name].model_dump(
            mode="json", exclude={"chat_template"}, exclude_defaults=True
        )
        content = json.dumps(written, sort_keys=True).encode()
    else:
        files = (Path(name, file) for file in (CONFIG_NAME, ADAPTER_CONFIG))
        if (file := next(filter(Path.is_file, files), None)) is None:
            return None
        content = file.read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]
