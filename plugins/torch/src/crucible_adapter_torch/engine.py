"""The arithmetic of training: losses, gradients and AdamW steps on one model.

Not thread-safe: one thread uses an engine, see `worker`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from crucible_kitchen import (
    AdamParams,
    AdapterError,
    ForwardBackwardResult,
    InvalidInput,
    OptimStepResult,
    SessionConfig,
)
from torch import Tensor, nn

from . import lora
from .batches import Piece, by_row
from .language_model import LanguageModel
from .losses import LOSSES
from .randomness import seeded
from .scoring import target_logprobs

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Engine:
    """A model, its gradients, its AdamW moments and the state of its randomness.

    Args:
        language: the model, which belongs to the engine from then on.
        config: low-rank or full, and the seed.

    Dropout is a function of the seed and of the number of forward-backward passes so far, so this
    number is the whole state of randomness.
    """

    def __init__(self, language: LanguageModel, config: SessionConfig) -> None:
        self.language = language
        self.model = language.model
        if config.lora is not None:
            lora.add_lora(language, config.lora, config.seed)
        if language.adapter is not None:
            lora.take(self.model, config.lora, language.adapter)
        self.weights: dict[str, nn.Parameter] = {
            name: weight
            for name, weight in self.model.named_parameters()
            if config.lora is None or lora.is_update(name)
        }
        self.base = self._fingerprint(config.lora.alpha) if config.lora is not None else None
        self._seed, self._passes = config.seed, 0
        self._drops = _has_randomness(self.model)
        self._optimizer = self._new_optimizer()

    # --- operations ---

    def forward_backward(
        self, batch: Sequence[Piece], loss_fn: str, config: Mapping[str, float]
    ) -> ForwardBackwardResult:
        """Add the gradient of a loss to the accumulated gradient."""
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
        return self._run(batch, loss_fn, config, backward=False)

    def _run(
        self, batch: Sequence[Piece], loss_fn: str, config: Mapping[str, float], backward: bool
    ) -> ForwardBackwardResult:
        total, flat = 0.0, []
        for piece in batch:
            logprobs = target_logprobs(self.language, piece)
            inputs = {
                name: torch.from_numpy(values).to(logprobs.device)
                for name, values in piece.loss_inputs.items()
            }
            loss = LOSSES[loss_fn](logprobs, inputs, config)
            if backward:
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
            flat.append(logprobs.detach().cpu().numpy())
        outputs = [{"logprobs": values} for values in by_row(batch, flat)]
        return ForwardBackwardResult(loss=total, outputs=outputs)

    def optim_step(self, learning_rate: float, adam: AdamParams) -> OptimStepResult:
        """Clip, apply and clear the accumulated gradient, as `torch.optim.AdamW` does.

        Raises:
            AdapterError: the gradient is not finite; the weights are unchanged.
        """
        gradients = [w.grad for w in self.weights.values() if w.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            raise AdapterError(
                f"the gradient is not finite (its norm is {norm.item()}), so the step was not "
                "taken; lower the learning rate or look at the data"
            )
        if adam.grad_clip_norm > 0:
            nn.utils.clip_grads_with_norm_(self.weights.values(), adam.grad_clip_norm, norm)
        for group in self._optimizer.param_groups:
            group.update(
                lr=learning_rate,
                betas=(adam.beta1, adam.beta2),
                eps=adam.eps,
                weight_decay=adam.weight_decay,
            )
        self._optimizer.step()
        self._optimizer.zero_grad()
        return OptimStepResult(grad_norm=norm.item())

    # --- state ---

    def moments(self) -> dict[str, Tensor]:
        """Return AdamW's state: for a weight, `<step|exp_avg|exp_avg_sq>.<name>`."""
        return {
            f"{moment}.{name}": state[moment]
            for name, weight in self.weights.items()
            if (state := self._optimizer.state.get(weight))
            for moment in MOMENTS
        }

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
                f"these are weights of another model or adaptation: {len(odd)} differ in name, "
                f"shape or type, such as {min(odd)!r}"
            )
        self._check_moments(moments)

    @torch.no_grad()
    def restore(
        self,
        weights: Mapping[str, Tensor],
        moments: Mapping[str, Tensor],
        randomness: Mapping[str, int],
    ) -> None:
        """Take over another state, which must have passed `check`; drop the gradients."""
        optimizer = self._new_optimizer()
        for name, weight in self.weights.items():
            if f"step.{name}" in moments:
                optimizer.state[weight] = {
                    moment: moments[f"{moment}.{name}"].to(weight.device) for moment in MOMENTS
                }
        for name, weight in self.weights.items():
            weight.copy_(weights[name])
            weight.grad = None
        self._optimizer = optimizer
        self._seed, self._passes = randomness["seed"], randomness["passes"]

    @torch.no_grad()
    def snapshot(self) -> LanguageModel:
        """Return a frozen copy of the model as it is now, low-rank updates merged."""
        return dataclasses.replace(
            self.language,
            model=lora.merged_copy(self.model),
            adapter=None,
            lock=threading.Lock(),
        )

    def _new_optimizer(self) -> torch.optim.AdamW:
        # Each step sets every number again. Fused is the fastest where it exists.
        fused = self.language.device.type in ("cpu", "cuda")
        return torch.optim.AdamW(self.weights.values(), lr=0.0, fused=fused)

    def _check_moments(self, moments: Mapping[str, Tensor]) -> None:
        # A fused AdamW reads and writes beyond the end of a moment that is too small.
        for key, tensor in moments.items():
            moment, _, name = key.partition(".")
            if moment not in MOMENTS or name not in self.weights:
                raise InvalidInput(f"the checkpoint has a moment without a weight here: {key!r}")
            shape = () if moment == "step" else tuple(self.weights[name].shape)
            whole = all(f"{other}.{name}" in moments for other in MOMENTS)
            if tuple(tensor.shape) != shape or tensor.dtype != torch.float32 or not whole:
                raise InvalidInput(
                    f"the checkpoint's moment {key!r} is {tensor.dtype} {tuple(tensor.shape)}"
                    f"{'' if whole else ', without the others of its weight'}; it should be "
                    f"{torch.float32} {shape}: the checkpoint was changed, or is damaged"
                )

    def _fingerprint(self, alpha: float) -> str:
        """Identify what gives an update's weights their meaning: the frozen weights and the scale.

        The beginning of every matrix is enough to tell models apart, even random ones.
        """
        digest = hashlib.sha256(str(float(alpha)).encode())
        for name, weight in self.model.named_parameters():
            if name not in self.weights:
                start = weight.detach().flatten()[:256].float().cpu().numpy()
                digest.update(start.tobytes())
        return digest.hexdigest()

    @contextlib.contextmanager
    def _dropout(self) -> Iterator[None]:
        if not self._drops:
            yield
            return
        mixed = np.random.SeedSequence([self._seed % 2**64, self._passes])
        with seeded(int(mixed.generate_state(1, np.uint64)[0]), self.language.device):
            yield


def _kinds(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def _has_randomness(model: Any) -> bool:
    """Whether a pass in training mode draws random numbers, for dropout or a router's noise."""
    settings = model.config.get_text_config().to_dict().items()
    return any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules()) or any(
        isinstance(value, float) and value > 0 and any(w in key for w in ("drop", "noise"))
        for key, value in settings
    )
