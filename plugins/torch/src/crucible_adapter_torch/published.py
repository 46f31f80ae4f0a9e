"""Live weights for the inference engines of other packages.

`crucible-adapter-vllm` hands them to an engine in processes of its own. The names of this module
may be used by any package.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import live_weights
from .adaptation import merging
from .models.language_model import LanguageModel

PREFIX = live_weights.PREFIX
"""What the reference of live weights begins with, and that of nothing else."""


@dataclass(frozen=True, eq=False)
class Published:
    """The model of a reference that `save_weights_for_sampler` returned.

    Args:
        language: the model. Training leaves its weights alone as long as it is referred to.
    """

    language: LanguageModel

    @property
    def model(self) -> Any:
        """The Transformers model, which must not be changed; an update is not merged into it."""
        return self.language.model

    @property
    def tokenizer(self) -> Any:
        """Its Transformers tokenizer; None if it has none."""
        return self.language.tokenizer and self.language.tokenizer.tokenizer

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which the trainer computes with it."""
        return self.language.dtype

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        return self.language.end_tokens

    @torch.no_grad()
    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each weight once, by the name that it has in a checkpoint of this architecture,
        with its low-rank update added. No weight is copied, but those with an update and those
        that a checkpoint cuts or joins differently.
        """
        from transformers.core_model_loading import revert_weight_conversion

        plain = merging.merged_copy(self.model)
        state = plain.state_dict()
        kept = dict(plain.named_parameters())
        tied = dict(plain.named_parameters(remove_duplicate=False)).keys() - kept.keys()
        once = {name: tensor for name, tensor in state.items() if name not in tied}
        yield from revert_weight_conversion(plain, once).items()


def find(reference: str) -> Published:
    """Return what a reference names.

    Raises:
        NotFound: it was withdrawn, or it was published in another process.
    """
    return Published(live_weights.find(reference))
