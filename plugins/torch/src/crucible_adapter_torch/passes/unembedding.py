"""The way from hidden states to logits, for some of the positions at a time.

A Transformers model makes logits for every position, and those of a large vocabulary are most of a
training step's memory. Its output layer is a module, so a hook takes what it would read. What an
architecture does to the layer's output, a scale or a soft limit, is found out by trying: where the
way is not this one, logits are made for all positions as before.
"""

from __future__ import annotations

import contextlib
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..models.causality import distance, noise
from ..models.language_model import Caching, LanguageModel

LENGTH = 8
"""Tokens of the row that is tried."""


@dataclass(frozen=True, slots=True)
class Tail:
    """What an architecture does to its output layer's output to make logits of it.

    Args:
        scale: the output is multiplied with it.
        limit: a soft limit c of the size of a logit, c tanh(x / c); None if there is none.
    """

    scale: float = 1.0
    limit: float | None = None

    def __call__(self, values: Tensor) -> Tensor:
        if self.limit is not None:
            return (values * (self.scale / self.limit)).tanh() * self.limit
        return values if self.scale == 1 else values * self.scale


_KNOWN: weakref.WeakKeyDictionary[Caching, Tail | None] = weakref.WeakKeyDictionary()
"""What was found out, by an object that a model shares with its snapshots."""
_LOCK = threading.Lock()


def tail_of(language: LanguageModel) -> Tail | None:
    """Return what the model does to its output layer's output, and remember it.

    None if its logits are made in another way than `logits` makes them.
    """
    with _LOCK:
        if language.caching not in _KNOWN:
            _KNOWN[language.caching] = _find(language)
        return _KNOWN[language.caching]


def assume_plain(language: LanguageModel) -> None:
    """Take it that a model does nothing to its output layer's output, without trying."""
    with _LOCK:
        _KNOWN[language.caching] = Tail()


def hidden_states(language: LanguageModel, ids: Tensor) -> Tensor:
    """Read rows from their beginning, as `LanguageModel.logits` does, and return what the output
    layer reads: `(B, T, H)`.

    Args:
        language: a model that has a `Tail`.
        ids: token ids, `(B, T)`.
    """
    caught: list[Tensor] = []

    def catch(module: Any, inputs: tuple[Any, ...]) -> Any:
        caught.append(inputs[0])
        return (inputs[0][:, :0], *inputs[1:])

    with _hook(_head(language).register_forward_pre_hook, catch):
        language.logits(ids)
    [states] = caught
    return states


def logits(language: LanguageModel, tail: Tail, states: Tensor) -> Tensor:
    """Return the logits of hidden states `(k, H)`: `(k, V)`, in the precision of the layer."""
    return tail(_head(language)(states))


def _head(language: LanguageModel) -> Any:
    return language.model.get_output_embeddings()


@torch.no_grad()
def _find(language: LanguageModel) -> Tail | None:
    model = language.model
    training = model.training
    model.eval()
    try:
        with language.autocast():
            return _try(language)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception:  # the output layer is missing, or is used in another way
        return None
    finally:
        model.train(training)


def _try(language: LanguageModel) -> Tail | None:
    ids = torch.arange(LENGTH, device=language.device)[None] % language.vocab_size
    expected = language.logits(ids).float()
    states = hidden_states(language, ids)
    outputs = _head(language)(states)
    if states.shape[:2] != ids.shape or outputs.shape != expected.shape:
        return None
    tail = _fit(lambda values: _after_head(language, ids, values), outputs.shape[-1])
    if tail is None:
        return None
    found = logits(language, tail, states.flatten(0, 1)).float()
    apart = distance(expected[0].log_softmax(-1), found.log_softmax(-1))
    return tail if apart <= noise(language) else None


def _after_head(language: LanguageModel, ids: Tensor, values: Tensor) -> Tensor:
    """Return the logits of a position at which the output layer returns these values, `(V,)`; they
    stay float32 whatever the layer computes in, for what it rounds to is not of the architecture.
    """

    def replace(module: Any, inputs: Any, output: Tensor) -> Tensor:
        return values.to(output.device).expand_as(output)

    with _hook(_head(language).register_forward_hook, replace):
        return language.logits(ids)[0, -1]


def _fit(tail: Callable[[Tensor], Tensor], size: int) -> Tail | None:
    """Find the scale a and the limit c of a function x -> c tanh(a x / c), or a x without limit."""
    grid = torch.cat([torch.logspace(-3, 3, (size + 1) // 2), -torch.logspace(-3, 3, size // 2)])
    found = tail(grid).float().cpu()
    grid = grid.to(tail(grid).dtype).float()
    ends = tail(torch.full((size,), 1e9)).float().cpu()
    near = grid.abs() < 2e-3
    scale = float((found[near] / grid[near]).mean())
    limit = float(ends.mean())
    candidate = Tail(scale, None if math.isclose(limit, scale * 1e9, rel_tol=1e-2) else limit)
    exact = 1e-5 if tail(grid).dtype == torch.float32 else 2e-2
    if not (math.isfinite(scale) and scale > 0 and math.isfinite(limit) and limit > 0):
        return None
    if math.isclose(scale, 1, rel_tol=exact):
        candidate = Tail(1.0, candidate.limit)
    return candidate if torch.allclose(candidate(grid), found, rtol=exact, atol=0) else None


@contextlib.contextmanager
def _hook(register: Callable[[Callable[..., Any]], Any], run: Callable[..., Any]) -> Iterator[None]:
    """Have a function run as a hook, in this thread alone: others may use the model meanwhile."""
    mine = threading.get_ident()

    def here(*args: Any) -> Any:
        return run(*args) if threading.get_ident() == mine else None

    handle = register(here)
    try:
        yield
    finally:
        handle.remove()
