"""How many tokens are computed at a time, where the user leaves it to the machine.

What is found depends on the machine alone, not on time: a plan of micro-batches is a function of
the datums and of this number, which checkpoints hold.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
from crucible_kitchen import InvalidInput, SessionConfig, Unsupported
from torch import nn

from .. import capacity
from ..devices import choose_device
from ..models.layers import layers_of
from ..options import TrainingClientOptions
from ..randomness import seeded
from . import memory
from .engine import Engine

LEAST = 256
MOST_ON_A_GPU = 16_384
"""Tokens that keep any GPU busy: more at a time are hardly faster."""
MOST_ELSEWHERE = 4_096
SPARE = 0.05
"""The part of a GPU's memory that stays free for what a trial does not see."""


def find(
    opts: TrainingClientOptions, config: SessionConfig, engine: Engine, shards: int = 1
) -> int:
    """Return how many tokens, padding included, a session should compute at a time.

    Args:
        opts: of the training client.
        config: of the session.
        engine: the session's, at its start: it has no gradients, and no moments.
        shards: how many processes share its weights. What they have together cannot be tried by one
            alone, so it is counted.

    Raises:
        InvalidInput: there is no memory for `LEAST` tokens.
    """
    device = engine.language.device
    if device.type == "cuda" and shards == 1:
        with _reserved(engine):
            return largest(lambda tokens: _try(engine, config, tokens), LEAST, MOST_ON_A_GPU)
    try:
        room = capacity.total(device) - (_whole(engine, config) if shards > 1 else 0)
        return fitting(opts, config, room, shards)
    except Unsupported:  # it cannot be known for this architecture
        return MOST_ELSEWHERE


def outlook(opts: TrainingClientOptions, config: SessionConfig, rows: int) -> dict[str, int]:
    """Return what `memory.needed` does for the budget of the options, and what is `available`. On a
    GPU, where the budget is found by trying, it is taken to be `MOST_ELSEWHERE`.

    Args:
        opts: of the training client.
        config: of the session.
        rows: of at most `config.max_length` tokens, in a batch; 0 if that is not known.
    """
    device = choose_device(opts.device)
    given = opts.micro_batch_tokens
    tokens = fitting(opts, config, capacity.total(device)) if given == "auto" else given
    if rows and config.max_length:
        tokens = max(config.max_length, min(tokens, rows * config.max_length))
    return {**memory.needed(opts, config, tokens), "available": capacity.free(device)}


def largest(attempt: Callable[[int], None], least: int, most: int) -> int:
    """Double a number until an attempt with it runs out of memory, up to `most`; return the last
    that did not.

    Raises:
        InvalidInput: `least` is too many.
    """
    found, tokens = 0, least
    while tokens <= most:
        try:
            attempt(tokens)
        except torch.OutOfMemoryError:
            break
        found, tokens = tokens, 2 * tokens
    if not found:
        raise InvalidInput(
            f"there is no memory to compute {least} tokens at a time; set base_dtype, "
            "gradient_checkpointing or optimizer_state, a smaller lora, or another device"
        )
    return found


def fitting(opts: TrainingClientOptions, config: SessionConfig, room: int, shards: int = 1) -> int:
    """Halve `MOST_ELSEWHERE` until what a session needs is in `room` bytes, or to `LEAST`.

    Raises:
        Unsupported: see `memory.needed`.
    """
    tokens = MOST_ELSEWHERE
    while tokens > LEAST and _in_training(memory.needed(opts, config, tokens), shards) > room:
        tokens //= 2
    return tokens


def _in_training(needed: dict[str, int], shards: int) -> int:
    shared = needed["weights"] + needed["gradients"] + needed["moments"]
    return shared // shards + needed["activations"]


def _whole(engine: Engine, config: SessionConfig) -> int:
    """Return the bytes of what a process has whole of divided weights, at most: weights outside of
    the layers, two layers, since the next one is collected while one is computed, and the gradients
    of all these.
    """

    def size(weights: Iterable[nn.Parameter]) -> int:
        return sum(w.nbytes * (1 + (w.requires_grad and config.trainable)) for w in weights)

    model = engine.model
    layers = [list(m.parameters()) for m in layers_of(model)]
    inside = {id(weight) for layer in layers for weight in layer}
    outside = [weight for weight in model.parameters() if id(weight) not in inside]
    return size(outside) + 2 * max(map(size, layers), default=0)


def _try(engine: Engine, config: SessionConfig, tokens: int) -> None:
    model = engine.model
    try:
        with seeded(0, engine.language.device):
            memory.run_pass(engine.language, config, tokens, config.trainable)
    finally:
        model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()


@contextlib.contextmanager
def _reserved(engine: Engine) -> Iterator[None]:
    """Hold as much memory as the moments will take, which come with the first step, and `SPARE`."""
    device = engine.language.device
    size = int(SPARE * capacity.total(device))
    size += 2 * sum(weight.nbytes for weight in engine.weights.values())
    held = torch.empty(size, dtype=torch.uint8, device=device)
    training = engine.model.training
    engine.model.train()
    try:
        yield
    finally:
        engine.model.train(training)
        del held
