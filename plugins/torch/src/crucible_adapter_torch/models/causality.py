"""Whether a model predicts each token only from those before it, found out by trying.

Training reads rows side by side, padded on the right and without a mask, and learns to predict
each token. A model that sees later tokens would learn to copy them.
"""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from crucible_kitchen import InvalidInput, Unsupported
from torch import Tensor

from .language_model import LanguageModel

LENGTH = 8
"""Tokens of the rows that are tried. Half as many follow them."""


@torch.no_grad()
def check(language: LanguageModel) -> None:
    """Read a short random row, then the same row with other tokens after it and rows next to it.

    Takes three passes over some 40 tokens in all.

    Raises:
        Unsupported: a later token or another row changes what is predicted, or the model cannot
            be run on token ids alone.
        InvalidInput: the output is not finite.
    """
    alone, elsewhere = try_rows(language)
    if not torch.isfinite(alone).all():
        raise InvalidInput(
            f"model {language.name!r}: its output is not finite; its weights have diverged"
        )
    influence = distance(alone[1:], try_rows(language, changed=True)[0][1:])
    leak = max(distance(alone, row) for row in elsewhere)
    if leak > tolerance(language) * influence and leak > noise(language):
        raise Unsupported(
            f"model {language.name!r} ({type(language.model).__name__}) is not causal: what it "
            "predicts depends on later tokens, or on other rows, so it would learn to copy what "
            f"it is to predict (log probabilities of earlier tokens change by {leak:.2g}, "
            f"relative to their spread; an earlier token changes them by {influence:.2g})"
        )


def try_rows(language: LanguageModel, changed: bool = False) -> tuple[Tensor, Tensor]:
    """Return log probabilities `(LENGTH, V)` of a row alone, and `(3, LENGTH, V)` of it in a batch:
    padded in two ways, and followed by other tokens.

    Raises:
        Unsupported: the model does not run on token ids alone.
    """
    rng = np.random.default_rng(0)
    high = language.vocab_size
    ids = rng.integers(0, high, (4, LENGTH + LENGTH // 2))
    ids[:3, :LENGTH] = ids[0, :LENGTH]
    ids[0, LENGTH:] = 0  # as `batches` pads
    pad = getattr(language.model.config.get_text_config(), "pad_token_id", None)
    if isinstance(pad, int) and 0 <= pad < high:
        ids[1, LENGTH:] = pad
    if changed:
        ids[:, 0] = (ids[:, 0] + 1) % high
    room = min(ids.shape[1], language.context or ids.shape[1])
    rows = torch.from_numpy(ids[:, :room]).to(language.device)
    try:
        alone = logprobs(language, rows[:1, :LENGTH])[0]
        if changed:
            return alone, alone[None]
        return alone, logprobs(language, rows)[:3, :LENGTH]
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # each architecture has its own checks and exceptions
        raise Unsupported(
            f"model {language.name!r} ({type(language.model).__name__}) cannot be run on token "
            f"ids alone: {type(error).__name__}: {error}"
        ) from error


def logprobs(language: LanguageModel, ids: Tensor) -> Tensor:
    """Return log probabilities `(B, T, V)`, in the precision of the weights."""
    precise = language.model.dtype == torch.float32
    with contextlib.nullcontext() if precise else language.autocast():
        return language.logits(ids).float().log_softmax(-1)


def distance(left: Tensor, right: Tensor) -> float:
    """Return how far apart log probabilities are, relative to their spread over the vocabulary.

    Infinite if the output is not finite.
    """
    spread = (left - left.mean(-1, keepdim=True)).norm()
    apart = ((left - right).norm() / spread).item()
    return apart if np.isfinite(apart) else float("inf")


def tolerance(language: LanguageModel) -> float:
    """Return the part of an earlier token's influence that counts as rounding."""
    return 0.01 if _is_precise(language) else 0.2


def noise(language: LanguageModel) -> float:
    """Return the distance that counts as rounding in any case."""
    return 1e-5 if _is_precise(language) else 0.02


def _is_precise(language: LanguageModel) -> bool:
    # Frozen weights of few bytes may be computed with in float32, see `frozen`.
    return torch.float32 in (language.model.dtype, language.dtype)
