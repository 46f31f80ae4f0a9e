"""A training session: what may be submitted, and when."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from crucible_kitchen import (
    AdamParams,
    Datum,
    ForwardBackwardResult,
    InvalidInput,
    NotFound,
    OptimStepResult,
    SessionConfig,
    Unsupported,
    validate_datums,
)

from .. import facts, live, passes, tokenizer
from ..names import new_name
from ..passes import Batch
from ..servers.server import Model, Server
from .operations import Operations


class Session:
    """The handle of a training session. Callbacks of the training client are its methods.

    Attributes:
        config: what the session was started with.
        operations: what the server has not finished.

    Raises:
        NotFound: the server has no such model, or no such checkpoint to start from.
        Unsupported: the server cannot honour a field of the config.
    """

    def __init__(self, server: Server, config: SessionConfig) -> None:
        server.check(config)
        offered = server.models()
        if config.model not in offered:
            raise NotFound(
                f"the server has no model {config.model!r}; it has {', '.join(sorted(offered))}"
            )
        self.config = config
        self._server = server
        self._facts = facts.of_model(config.model)
        limits = (config.max_length, offered[config.model], self._facts.context)
        self._max_length = min((limit for limit in limits if limit is not None), default=None)
        if config.from_checkpoint is None:
            self._model = server.create(config)
        else:
            self._model = self._restored(config.from_checkpoint, config.with_optimizer)
        self._accumulated = 0  # forward_backward operations submitted since the last optim_step
        self._published: str | None = None
        self._tokenizer: tokenizer.HuggingFaceTokenizer | None = None
        self._submitting = threading.RLock()
        self.operations = Operations(
            server.routes.check_reachable,
            server.opts.lost_after,
            server.ahead,
            lambda: server.abandon(self._model),
        )

    # --- operations ---

    def forward_backward(
        self, datums: Sequence[Datum], loss_fn: str, loss_fn_config: Mapping[str, float] | None
    ) -> Future[ForwardBackwardResult]:
        self.operations.check()
        if not self.config.trainable:
            raise InvalidInput("the session was started with trainable=False")
        batch = self._checked(datums, loss_fn, loss_fn_config, require_weights=True)
        with self._submitting:
            future = self.operations.submit(
                "a forward_backward failed",
                lambda: self._server.forward_backward(self._model, batch),
                batch.result,
            )
            self._accumulated += 1
        return future

    def forward(
        self, datums: Sequence[Datum], loss_fn: str, loss_fn_config: Mapping[str, float] | None
    ) -> Future[ForwardBackwardResult]:
        self.operations.check()
        batch = self._checked(datums, loss_fn, loss_fn_config, require_weights=False)
        with self._submitting:
            return self.operations.submit(
                "a forward failed", lambda: self._server.forward(self._model, batch), batch.result
            )

    def optim_step(self, learning_rate: float, adam: AdamParams) -> Future[OptimStepResult]:
        self.operations.check()
        if not (learning_rate >= 0 and math.isfinite(learning_rate)):
            raise InvalidInput(
                f"learning_rate must be finite and not negative, not {learning_rate}"
            )
        self._server.check_step(adam)
        with self._submitting:
            if not self._accumulated:
                raise InvalidInput("no gradient: run forward_backward before optim_step")
            future = self.operations.submit(
                "an optim_step failed",
                lambda: self._server.optim_step(self._model, learning_rate, adam),
                passes.step_result,
            )
            self._accumulated = 0
        return future

    def _checked(
        self,
        datums: Sequence[Datum],
        loss_fn: str,
        loss_fn_config: Mapping[str, float] | None,
        require_weights: bool,
    ) -> Batch:
        config = validate_datums(
            datums,
            loss_fn,
            loss_fn_config,
            vocab_size=self._facts.vocab_size,
            max_length=self._max_length,
            require_weights=require_weights,
        )
        if self._server.kind == "skyrl" and passes.has_images(datums):
            raise Unsupported("SkyRL 0.3 trains on text alone, and a datum has an image")
        return Batch.of(datums, loss_fn, config)

    # --- state ---

    def save_checkpoint(self, label: str) -> Future[str]:
        with self._submitting:
            self.operations.check()
            if self._accumulated:
                raise InvalidInput(
                    "gradients are pending, and a checkpoint does not hold them; run optim_step "
                    "before saving one"
                )
            return self.operations.submit(
                f"checkpoint {label!r} was not saved",
                lambda: self._server.save(self._model, new_name("c", label, self._model.clock)),
                lambda saved: str(saved.path),
                "inquiry",
            )

    def load_checkpoint(self, reference: str, with_optimizer: bool) -> None:
        """Swap the model for one made of the checkpoint."""
        self.operations.check("rescue")
        self._server.find(reference, self.config)
        with self._submitting:
            old = self._model
            self._model = self.operations.submit(
                f"{reference!r} was not restored",
                tuple,
                lambda _: self._restored(reference, with_optimizer),
                "rescue",
            ).result()
            self._accumulated = 0
            self._server.release(old)

    def publish(self, name: str | None) -> str:
        if name is not None:
            return self._save_weights(name).result()
        with self._submitting:
            weights = self.operations.submit(
                "the weights were not published",
                tuple,
                lambda _: self._server.publish(self._model),
                "inquiry",
            ).result()
            live.withdraw(self._published)
            self._published = live.publish(weights)
            return self._published

    def _save_weights(self, label: str) -> Future[str]:
        with self._submitting:
            return self.operations.submit(
                f"the weights {label!r} were not saved",
                lambda: self._server.save_weights(
                    self._model, new_name("w", label, self._model.clock)
                ),
                lambda saved: str(saved.path),
                "inquiry",
            )

    def get_info(self) -> dict[str, str | int | float | bool | None]:
        self.operations.check()
        return {"server": self._server.kind, "lora_init": "server"}

    def get_tokenizer(self) -> tokenizer.HuggingFaceTokenizer:
        self.operations.check()
        if self._tokenizer is None:
            self._tokenizer = tokenizer.load(
                self._server.opts, self._model.client, self._max_length, self._facts.vocab_size
            )
        return self._tokenizer

    def close(self) -> None:
        live.withdraw(self._published)
        self.operations.close()
        self._server.release(self._model)

    def _restored(self, reference: str, with_optimizer: bool) -> Model:
        path = self._server.find(reference, self.config)
        return self._server.restore(self.config, path, reference, with_optimizer)
