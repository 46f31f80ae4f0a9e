"""The arithmetic of training: losses, gradients and AdamW steps on one model.

Not thread-safe: one thread uses an engine, see `worker`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from crucible_kitchen import (
    LOSS_FUNCTIONS,
    AdamParams,
    AdapterError,
    ForwardBackwardResult,
    InvalidInput,
    OptimStepResult,
    SessionConfig,
)
from torch import Tensor, nn

from ..adaptation import lora, merging, sharing
from ..models.frozen import whole_bytes
from ..models.language_model import LanguageModel
from ..parallel.alone import Alone
from ..passes.batches import Piece, by_row, idle_piece
from ..passes.scoring import Loss, add_gradient, target_logprobs
from ..passes.unembedding import tail_of
from ..randomness import in_64_bits, seeded
from .losses import LOSSES
from .optimizers import Optimizer, State


class Engine:
    """A model, its gradients, its AdamW moments and the state of its randomness.

    Args:
        language: the model, which belongs to the engine from then on.
        config: low-rank or full, and the seed.
        optimizer_state: see `Optimizer`.
        parallel: what is done together with the other processes of the session.

    Dropout is a function of the seed, of the number of forward-backward passes so far, and of the
    rank; so this number is the whole state of randomness.
    """

    def __init__(
        self,
        language: LanguageModel,
        config: SessionConfig,
        optimizer_state: State = "float32",
        parallel: Alone | None = None,
    ) -> None:
        self._parallel = parallel or Alone()
        self.language = language
        self.model = language.model
        self.update: Any = None
        """PEFT's configuration of the low-rank update that is trained, if one is."""
        if config.lora is not None:
            self.update = lora.add_lora(language, config.lora, config.seed)
        if language.adapter is not None:
            lora.take(self.model, config.lora, language.adapter)
        trained = {
            name: weight
            for name, weight in self.model.named_parameters()
            if config.lora is None or lora.is_update(name)
        }
        self.base: str | None = None
        """Identifies what gives the weights of an update their meaning; None without one."""
        if config.lora is not None:
            frozen = (w for name, w in self.model.named_parameters() if name not in trained)
            self.base = _fingerprint(config.lora.alpha, frozen)
        self.trained_bytes = sum(weight.nbytes for weight in trained.values())
        self.whole_bytes = whole_bytes(self.model)
        if self._parallel.divides:
            tail_of(language)  # found out by a pass, for which a rank cannot wait for the others
        self.weights = self._parallel.spread(language, trained)
        """The trained weights by name, or this process's parts of them."""
        self._snapshots: weakref.WeakSet[LanguageModel] = weakref.WeakSet()
        self._seed, self._passes = config.seed, 0
        self._drops = _has_randomness(self.model)
        self._optimizer = Optimizer(self.weights, optimizer_state)

    # --- operations ---

    def forward_backward(
        self, batch: Sequence[Piece], loss_fn: str, config: Mapping[str, float]
    ) -> ForwardBackwardResult:
        """Add the gradient of a loss to the accumulated gradient."""
        if not self.model.training:  # walking through all modules takes 0.2 ms
            self.model.train()
        with self._dropout():
            self._passes += 1
            return self._run(batch, loss_fn, config, backward=True)

    @torch.no_grad()
    def forward(
        self, batch: Sequence[Piece], loss_fn: str, config: Mapping[str, float]
    ) -> ForwardBackwardResult:
        """Compute a loss without a gradient and without dropout."""
        self.model.eval()
        result = self._run(batch, loss_fn, config, backward=False)
        self._parallel.after_forward(self.model)
        return result

    def _run(
        self, batch: Sequence[Piece], loss_fn: str, config: Mapping[str, float], backward: bool
    ) -> ForwardBackwardResult:
        losses, flat, own = [], [], len(batch)
        for place, piece in enumerate(self._with_idle(batch, loss_fn)):
            loss = self._loss(piece, loss_fn, config)
            if backward:
                value, logprobs = add_gradient(self.language, piece, loss)
                self._parallel.after_backward(idle=place >= own)
            else:
                logprobs = target_logprobs(self.language, piece)
                value = loss(logprobs, slice(None))
            losses.append(value)
            flat.append(logprobs)
        # Asked for once: a GPU must finish what it was given before it answers.
        total = sum(torch.stack(losses[:own]).tolist()) if own else 0.0
        values = [logprobs.cpu().numpy() for logprobs in flat[:own]]
        outputs = [{"logprobs": each} for each in by_row(batch, values)]
        return ForwardBackwardResult(loss=total, outputs=outputs)

    def _with_idle(self, batch: Sequence[Piece], loss_fn: str) -> Sequence[Piece]:
        """Add pieces of nothing, where a pass is one of all ranks and others have more to do."""
        if not self._parallel.divides:
            return batch
        missing = self._parallel.most(len(batch)) - len(batch)
        return [*batch, *[idle_piece(LOSS_FUNCTIONS[loss_fn].inputs)] * missing]

    def _loss(self, piece: Piece, loss_fn: str, config: Mapping[str, float]) -> Loss:
        inputs = {
            name: torch.from_numpy(values).to(self.language.device)
            for name, values in piece.loss_inputs.items()
        }
        return lambda logprobs, part: LOSSES[loss_fn](
            logprobs, {name: values[part] for name, values in inputs.items()}, config
        )

    def optim_step(self, learning_rate: float, adam: AdamParams) -> OptimStepResult:
        """Clip, apply and clear the accumulated gradient, as `torch.optim.AdamW` does.

        Raises:
            AdapterError: the gradient is not finite; the weights are unchanged.
        """
        self._parallel.sum_gradients(self.weights)
        gradients = [w.grad for w in self.weights.values() if w.grad is not None]
        norm = self._parallel.norm(nn.utils.get_total_norm(gradients))
        found = norm.item()
        if not math.isfinite(found):
            raise AdapterError(
                f"the gradient is not finite (its norm is {found}), so the step was not "
                "taken; lower the learning rate or look at the data"
            )
        if 0 < adam.grad_clip_norm < found + 1e-6:  # else the gradient would be multiplied by 1
            nn.utils.clip_grads_with_norm_(self.weights.values(), adam.grad_clip_norm, norm)
        self._leave_snapshots()
        self._optimizer.step(learning_rate, adam)
        return OptimStepResult(grad_norm=found)

    # --- state ---

    def moments(self) -> dict[str, Tensor]:
        """Return AdamW's state by name; see `Optimizer.moments`."""
        return self._optimizer.moments()

    def randomness(self) -> dict[str, int]:
        """Return the numbers that the randomness of the next pass is a function of."""
        return {"seed": self._seed, "passes": self._passes}

    def check(self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor]) -> None:
        """Check that another state fits this model.

        Raises:
            InvalidInput: the weights, or the moments, have other names, shapes or types than
                this model's.
        """
        if _kinds(weights) != _kinds(self.weights):
            odd = dict(_kinds(weights).items() ^ _kinds(self.weights).items())
            raise InvalidInput(
                "these are weights of another model or adaptation (different in name, shape or "
                f"type: {len(odd)}, such as {min(odd)!r})"
            )
        self._optimizer.check(moments)

    @torch.no_grad()
    def restore(
        self,
        weights: Mapping[str, Tensor],
        moments: Mapping[str, Tensor],
        randomness: Mapping[str, int],
    ) -> None:
        """Take over another state, which must have passed `check`; drop the gradients."""
        self._optimizer.restore(moments)
        self._leave_snapshots()
        for name, weight in self.weights.items():
            weight.copy_(weights[name])
        self._parallel.drop_gradients(self.weights)
        self._seed, self._passes = randomness["seed"], randomness["passes"]

    @torch.no_grad()
    def snapshot(self) -> LanguageModel:
        """Return the model as it is now, frozen, to sample from: on the same tensors, until these
        weights change and get others. So it costs no memory before that, and then that of the
        weights that are trained.
        """
        snapshot = self._frozen(merging.live_copy(self.model))
        self._snapshots.add(snapshot)
        return snapshot

    def plain(self) -> LanguageModel | None:
        """Return the model as other programs know it, frozen, low-rank updates merged. It shares
        the tensors of what has no update, so that it is right until the weights change. Of several
        processes, the first one has it; others return None.
        """
        whole = self._parallel.whole(self.model)
        return None if whole is None else self._frozen(merging.merged_copy(whole))

    def _frozen(self, model: Any) -> LanguageModel:
        return dataclasses.replace(self.language, model=model, adapter=None, lock=threading.Lock())

    def _leave_snapshots(self) -> None:
        """Give the weights other tensors if a snapshot has these, before they change."""
        if self._snapshots:
            sharing.move(self.weights.values())
            self._snapshots.clear()

    @contextlib.contextmanager
    def _dropout(self) -> Iterator[None]:
        if not self._drops:
            yield
            return
        where = [self._parallel.rank] if self._parallel.rank else []  # other masks on each rank
        mixed = np.random.SeedSequence([in_64_bits(self._seed), self._passes, *where])
        with seeded(int(mixed.generate_state(1, np.uint64)[0]), self.language.device):
            yield


def _fingerprint(alpha: float, frozen: Iterable[Tensor]) -> str:
    """Identify what gives an update's weights their meaning: the frozen weights and the scale.

    The beginning of every matrix is enough to tell models apart, even random ones.
    """
    digest = hashlib.sha256(str(float(alpha)).encode())
    for weight in frozen:
        start = weight.detach().flatten()[:256].float().cpu().numpy()
        digest.update(start.tobytes())
    return digest.hexdigest()


def is_randomness(value: Any) -> TypeGuard[dict[str, int]]:
    """Whether this is what `Engine.randomness` returns."""
    return (
        isinstance(value, dict)
        and all(type(value.get(key)) is int for key in ("seed", "passes"))
        and value["passes"] >= 0
    )


def _kinds(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def _has_randomness(model: Any) -> bool:
    """Whether a pass in training mode draws random numbers, for dropout or a router's noise."""
    settings = model.config.get_text_config().to_dict().items()
    return any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules()) or any(
        isinstance(value, float) and value > 0 and any(w in key for w in ("drop", "noise"))
        for key, value in settings
    )
