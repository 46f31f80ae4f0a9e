"""The loss functions of a training client, and what they may be given.

All are **sums over tokens, never means**; the workflow normalises by choosing the weights. With p
the current log probability of each target token, q the `logprobs` that were recorded when it was
sampled, A its advantage, w its weight, r = exp(p - q), and sg a stop-gradient:

| loss_fn | inputs besides target_tokens | loss | config |
| --- | --- | --- | --- |
| `cross_entropy` | weights | -sum w p | |
| `importance_sampling` | logprobs, advantages | -sum r A | |
| `ppo` | logprobs, advantages | -sum min(r A, clip(r, lo, hi) A) | 0.8, 1.2 |
| `cispo` | logprobs, advantages | -sum sg(clip(r, lo, hi)) p A | 0.0, 4.0 |

The config is `clip_low_threshold` (lo) and `clip_high_threshold` (hi), the column their defaults.
PPO: Schulman et al. 2017 (arXiv 1707.06347). CISPO: MiniMax-M1 2025 (arXiv 2506.13585). Names,
inputs and the two thresholds are those of the Tinker API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import InvalidInput, Unsupported
from .messages.spelling import did_you_mean
from .types import Array, Datum


@dataclass(frozen=True, slots=True)
class LossFunction:
    """What a loss takes: per-token inputs besides `target_tokens`, and config with defaults."""

    inputs: tuple[str, ...]
    config: Mapping[str, float]


LOSS_FUNCTIONS: Mapping[str, LossFunction] = {
    "cross_entropy": LossFunction(("weights",), {}),
    "importance_sampling": LossFunction(("logprobs", "advantages"), {}),
    "ppo": LossFunction(
        ("logprobs", "advantages"), {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}
    ),
    "cispo": LossFunction(
        ("logprobs", "advantages"), {"clip_low_threshold": 0.0, "clip_high_threshold": 4.0}
    ),
}


def loss_config(loss_fn: str, config: Mapping[str, float] | None) -> dict[str, float]:
    """Return the loss's config, complete, so that a backend's own defaults never apply.

    Raises:
        Unsupported: there is no such loss.
        InvalidInput: the config has a key that the loss does not know, or a value not finite.
    """
    try:
        loss = LOSS_FUNCTIONS[loss_fn]
    except KeyError:
        raise Unsupported(f"no loss {loss_fn!r}; there are {', '.join(LOSS_FUNCTIONS)}") from None
    complete = dict(loss.config)
    for key, value in (config or {}).items():
        if key not in complete:
            known = f"it has {', '.join(complete)}" if complete else "it has none"
            raise InvalidInput(f"loss {loss_fn!r} has no config {key!r}; {known}")
        if not np.isfinite(value):
            raise InvalidInput(f"{key} of loss {loss_fn!r} is not finite: {value}")
        complete[key] = float(value)
    return complete


def validate_datums(
    datums: Sequence[Datum],
    loss_fn: str,
    loss_fn_config: Mapping[str, float] | None = None,
    *,
    vocab_size: int | None = None,
    max_length: int | None = None,
    require_weights: bool = True,
) -> dict[str, float]:
    """Check a batch as every training client must at submission; return the complete config.

    Args:
        datums: the batch.
        loss_fn: a name from `LOSS_FUNCTIONS`.
        loss_fn_config: thresholds that differ from the defaults.
        vocab_size: token ids must be below it, if given.
        max_length: the longest model input in tokens, if given.
        require_weights: False in `forward`, where the per-token inputs of the loss may be
            missing altogether: missing weights are ones.

    Raises:
        InvalidInput: an empty batch, or in a datum a wrong shape or dtype, a number that is not
            finite, a token outside of the vocabulary, an input too long, a missing or unknown
            loss input. The message says which datum.
        Unsupported: an unknown loss.
    """
    config = loss_config(loss_fn, loss_fn_config)
    if not len(datums):
        raise InvalidInput("no datums: a batch needs at least one")
    needed = LOSS_FUNCTIONS[loss_fn].inputs
    optional = not require_weights and loss_fn == "cross_entropy"
    if _is_right(datums, needed, vocab_size, max_length, optional):
        return config
    for index, datum in enumerate(datums):
        _validate(f"datum {index}", datum, loss_fn, needed, vocab_size, max_length, require_weights)
    return config


def _is_right(
    datums: Sequence[Datum],
    needed: tuple[str, ...],
    vocab_size: int | None,
    max_length: int | None,
    optional: bool,
) -> bool:
    """Whether a batch is certainly right, from one look at all its numbers together; if not, or if
    it is unusual, each datum must be looked at. A look takes 3 us, and three a datum add up.
    """
    names = {"target_tokens", *needed}
    tokens: list[Array] = []
    numbers: list[Array] = []
    for datum in datums:
        if type(datum) is not Datum:
            return False
        inputs, length = datum.loss_fn_inputs, datum.model_input.length
        if length == 0 or (max_length is not None and length > max_length):
            return False
        if inputs.keys() != names and not (optional and inputs.keys() == {"target_tokens"}):
            return False
        for name, array in inputs.items():
            if type(array) is not np.ndarray or array.shape != (length,):
                return False
            kinds, kept = ("iu", tokens) if name == "target_tokens" else ("f", numbers)
            if array.dtype.kind not in kinds:
                return False
            kept.append(array)
        tokens += [chunk.tokens for chunk in datum.model_input.chunks if hasattr(chunk, "tokens")]
    if numbers and not np.abs(np.concatenate(numbers)).max() <= np.finfo(np.float32).max:
        return False
    ids = np.concatenate(tokens)
    return vocab_size is None or bool(ids.min() >= 0 and ids.max() < vocab_size)


def _validate(
    where: str,
    datum: Datum,
    loss_fn: str,
    needed: tuple[str, ...],
    vocab_size: int | None,
    max_length: int | None,
    require_weights: bool,
) -> None:
    if not isinstance(datum, Datum):
        raise InvalidInput(f"{where} is a {type(datum).__name__}, not a Datum")
    length = datum.model_input.length
    if length == 0:
        raise InvalidInput(f"{where} has no tokens")
    if max_length is not None and length > max_length:
        raise InvalidInput(
            f"{where} has {length} tokens, the limit is {max_length}; nothing is ever truncated "
            "here, so cut or drop it before"
        )
    inputs = datum.loss_fn_inputs
    for name in inputs:
        if name not in ("target_tokens", *needed):
            hint = did_you_mean(name, ("target_tokens", *needed))
            raise InvalidInput(f"{where}: loss {loss_fn!r} takes no input {name!r}{hint}")
    for name in ("target_tokens", *needed):
        if name in inputs:
            validate_array(f"{where}: {name}", inputs[name], length, name == "target_tokens")
        elif name == "target_tokens" or require_weights or loss_fn != "cross_entropy":
            raise InvalidInput(f"{where} lacks {name!r}, which loss {loss_fn!r} needs")
    if vocab_size is not None:
        tokens = [chunk.tokens for chunk in datum.model_input.chunks if hasattr(chunk, "tokens")]
        for ids in (*tokens, inputs["target_tokens"]):
            if len(ids) and (ids.min() < 0 or ids.max() >= vocab_size):
                bad = int(ids.min() if ids.min() < 0 else ids.max())
                raise InvalidInput(
                    f"{where} has token {bad}; the vocabulary is 0 to {vocab_size - 1}"
                )


def validate_array(what: str, array: Any, length: int, integers: bool) -> None:
    """Check a loss input of one datum.

    Args:
        what: what it is, for messages.
        array: must be a NumPy array `(length,)`.
        length: tokens of the model input.
        integers: whether it holds integers, or floating point numbers within float32's range.

    Raises:
        InvalidInput: it is something else.
    """
    if not isinstance(array, np.ndarray):
        raise InvalidInput(f"{what} is a {type(array).__name__}, not a numpy array")
    if array.shape != (length,):
        raise InvalidInput(f"{what} has shape {array.shape}, not ({length},) as the model input")
    kinds, expected = ("iu", "integers") if integers else ("f", "floating point")
    if array.dtype.kind not in kinds:
        raise InvalidInput(f"{what} is {array.dtype}, not {expected}")
    # float32 is what a backend computes in: a larger float64 would become infinite there
    if not integers and not (np.abs(array) <= np.finfo(np.float32).max).all():
        raise InvalidInput(f"{what} holds a number that is not finite")
