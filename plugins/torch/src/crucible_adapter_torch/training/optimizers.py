"""AdamW, and its moments as tensors with names: in float32, or in 8 bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import torch
from crucible_kitchen import AdamParams, InvalidInput, Unsupported
from torch import Tensor, nn
from torch.optim.adamw import adamw

from ..models.quiet import quiet

State: TypeAlias = Literal["float32", "8bit"]

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
IN_8_BITS = ("step", "state1", "state2", "absmax1", "absmax2")
"""What bitsandbytes calls them, with a scale for each block; it keeps small ones in float32."""
SMALL = 4096
"""bitsandbytes keeps the moments of a weight of fewer numbers in float32."""
BLOCK = 256
"""Numbers that share a scale in 8 bits."""


class Optimizer:
    """AdamW on weights that stay the same.

    Args:
        weights: by name, all on one device.
        state: of its moments. In 8 bits they are those of bitsandbytes, and a step differs from
            AdamW's by more than rounding.

    Raises:
        Unsupported: bitsandbytes is not installed.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], state: State) -> None:
        self._weights, self._state = weights, state
        self._adamw = _adamw(list(weights.values()), state)
        self._held: list[list[Tensor]] | None = None

    def step(self, learning_rate: float, adam: AdamParams) -> None:
        """Apply the gradients, and clear them."""
        if not self._step_fused(learning_rate, adam):
            self._step_any(learning_rate, adam)
        for weight in self._weights.values():  # `zero_grad` takes 25 us of a small model's 7 ms
            weight.grad = None

    def _step_any(self, learning_rate: float, adam: AdamParams) -> None:
        for group in self._adamw.param_groups:
            group.update(
                lr=learning_rate,
                betas=(adam.beta1, adam.beta2),
                eps=adam.eps,
                weight_decay=adam.weight_decay,
            )
        self._adamw.step()

    @torch.no_grad()
    def _step_fused(self, learning_rate: float, adam: AdamParams) -> bool:
        """Do what `torch.optim.AdamW.step` does once every weight has moments, with lists that are
        made once: collecting them takes 0.1 ms. Return whether it could.
        """
        weights = [*self._weights.values()]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        if self._held is None:
            self._held = self._moments_of(weights)
        if self._held is None or len(gradients) < len(weights):
            return False
        averages, squares, steps = self._held
        adamw(
            weights,  # type: ignore[arg-type]
            gradients,
            averages,
            squares,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=adam.beta1,
            beta2=adam.beta2,
            lr=learning_rate,
            weight_decay=adam.weight_decay,
            eps=adam.eps,
            maximize=False,
        )
        return True

    def _moments_of(self, weights: list[nn.Parameter]) -> list[list[Tensor]] | None:
        if self._state != "float32" or not self._adamw.defaults["fused"]:
            return None
        states = [self._adamw.state.get(weight) for weight in weights]
        if not all(states):
            return None
        return [[state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")]

    def moments(self) -> dict[str, Tensor]:
        """Return the state: for a weight, `<step|exp_avg|exp_avg_sq>.<name>` in float32, or, in 8
        bits, `<step|state1|state2|absmax1|absmax2>.<name>`. The tensors are the optimizer's own.
        """
        return {
            f"{moment}.{name}": torch.as_tensor(state[moment])
            for name, weight in self._weights.items()
            if (state := self._adamw.state.get(weight))
            for moment in (MOMENTS if self._state == "float32" else IN_8_BITS)
            if moment in state
        }

    def check(self, moments: Mapping[str, Tensor]) -> None:
        """Check that moments are of these weights and of this kind.

        Raises:
            InvalidInput: their names, shapes or types are others.
        """
        # A fused AdamW reads and writes beyond the end of a moment that is too small.
        expected = {
            f"{moment}.{name}": kind
            for name, weight in self._weights.items()
            if f"step.{name}" in moments
            for moment, kind in self._kinds(weight)
        }
        if odd := moments.keys() - expected.keys():
            raise InvalidInput(
                f"the checkpoint has a moment without a weight here: {min(odd)!r}, or it is of "
                f"another optimizer_state than {self._state}"
            )
        for key, (dtype, shape) in expected.items():
            found = moments.get(key)
            if found is None or tuple(found.shape) != shape or found.dtype != dtype:
                there = "missing" if found is None else f"{found.dtype} {tuple(found.shape)}"
                raise InvalidInput(
                    f"the checkpoint's moment {key!r} is {there}; it should be {dtype} {shape}: "
                    "the checkpoint was changed, or is damaged"
                )

    def restore(self, moments: Mapping[str, Tensor]) -> None:
        """Take over moments, which must have passed `check`, in place of all there are."""
        self._adamw = _adamw(list(self._weights.values()), self._state)
        self._held = None
        for name, weight in self._weights.items():
            if f"step.{name}" not in moments:
                continue
            state: dict[str, Any] = {
                moment: moments[f"{moment}.{name}"].to(weight.device)
                for moment, _ in self._kinds(weight)
            }
            if self._state == "8bit":
                self._adamw.init_state(self._adamw.param_groups[0], weight, 0, 0)
                state["step"] = int(state["step"])
            self._adamw.state[weight].update(state)

    def _kinds(self, weight: Tensor) -> Iterator[tuple[str, tuple[torch.dtype, tuple[int, ...]]]]:
        """Yield the type and the shape of each moment of a weight."""
        shape = tuple(weight.shape)
        few = self._state == "8bit"
        yield "step", (torch.int64 if few else torch.float32, ())
        small = weight.numel() < SMALL
        for moment in ("state1", "state2") if few else ("exp_avg", "exp_avg_sq"):
            yield moment, (torch.uint8 if few and not small else torch.float32, shape)
        if few and not small:
            for moment in ("absmax1", "absmax2"):
                yield moment, (torch.float32, (-(-weight.numel() // BLOCK),))


def in_8_bits(weights: Iterable[Tensor]) -> int:
    """Return the bytes of the moments of these weights in 8 bits, without their scales."""
    return sum(w.numel() * (8 if w.numel() < SMALL else 2) for w in weights)


def _adamw(weights: list[nn.Parameter], state: State) -> Any:
    # Each step sets every number again. Fused is the fastest where it exists.
    if state == "float32":
        fused = weights[0].device.type in ("cpu", "cuda")
        return torch.optim.AdamW(weights, lr=0.0, fused=fused)
    try:
        with quiet():
            from bitsandbytes import optim
    except ImportError as error:
        raise Unsupported(
            "optimizer_state 8bit needs bitsandbytes: "
            "pip install 'crucible-adapter-torch[bitsandbytes]'"
        ) from error
    return optim.AdamW8bit(weights, lr=0.0, min_8bit_size=SMALL)
