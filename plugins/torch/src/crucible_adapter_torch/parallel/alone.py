"""One process that has its session for itself, and what others do instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from crucible_kitchen import SessionConfig
from torch import Tensor, device, nn

from ..models.language_model import LanguageModel
from ..options import TrainingClientOptions

T = TypeVar("T")

Strategy: TypeAlias = Literal["ddp", "fsdp"]
"""How a model is spread over processes: a copy in each, or a part of each weight in each."""


class Alone:
    """The only process of a session: everything is here, and nothing need be asked.

    Where several processes, ranks, share a session, another class does the same things together:
    every rank calls each method that is not said to be local, in the same order.

    Attributes:
        strategy: how the model is spread; None for the only process.
        rank: which of the ranks this is.
        size: how many there are.
        divides: whether each rank has a part of each weight only, so that a pass is one of all
            ranks.
    """

    strategy: ClassVar[Strategy | None] = None
    divides: ClassVar[bool] = False
    rank = 0
    size = 1

    def check(self, opts: TrainingClientOptions, config: SessionConfig) -> None:
        """Check that a session can be spread so. Local.

        Raises:
            Unsupported: it cannot.
        """

    def agree(self, run: Callable[[], T]) -> T:
        """Run what is local on every rank, and return what it returned here. If it fails on any
        rank, the error of the first one is raised on all.
        """
        return run()

    def least(self, number: int) -> int:
        """Return the least of the ranks' numbers."""
        return number

    def most(self, number: int) -> int:
        """Return the greatest of the ranks' numbers."""
        return number

    # --- the model ---

    def load_on(self, chosen: device) -> device:
        """Return the device to load a model on that will be on this one. Local."""
        return chosen

    def spread(
        self, language: LanguageModel, trained: Mapping[str, nn.Parameter]
    ) -> dict[str, nn.Parameter]:
        """Spread a model over the ranks, in place.

        Args:
            language: a model, equal on every rank.
            trained: those of its weights that are trained, by name.

        Returns:
            What this rank has of each of these, by name: plain tensors, which an optimizer may
            change and which have the `grad` that `sum_gradients` gives them.
        """
        return dict(trained)

    def after_forward(self, model: Any) -> None:
        """Leave a model as it was before passes without a gradient."""

    def after_backward(self, idle: bool) -> None:
        """Note that a pass with a gradient has ended. Local.

        Args:
            idle: whether it was one over nothing, made because other ranks had more to do.
        """

    def whole(self, model: Any) -> Any:
        """Return a model with its whole weights, on rank 0; None on others. It may share tensors
        with the model given, or be on the CPU.
        """
        return model

    # --- gradients ---

    def sum_gradients(self, weights: Mapping[str, nn.Parameter]) -> None:
        """Give the weights that `spread` returned the sum of all ranks' gradients. A weight without
        a gradient on any rank has none.
        """

    def norm(self, norm: Tensor) -> Tensor:
        """Return the norm of the whole gradient, given that of the gradients that `sum_gradients`
        left here, a scalar.
        """
        return norm

    def drop_gradients(self, weights: Mapping[str, nn.Parameter]) -> None:
        """Forget all gradients. Local."""
        for weight in weights.values():
            weight.grad = None

    # --- state ---

    def rows(self, shape: tuple[int, ...]) -> slice | None:
        """Return which rows this rank has of a tensor of a weight's or a moment's shape; None for
        all. Local.
        """
        return None

    def gathered(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
        """Return whole tensors of parts of them, by name, on rank 0; None on others.

        Args:
            tensors: what this rank has of weights or moments. Scalars are equal on all ranks.

        Returns:
            The tensors themselves where each rank has them whole; else copies on the CPU.
        """
        return tensors
