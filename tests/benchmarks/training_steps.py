"""A supervised step of the adapter `torch`, against the same step in plain PyTorch.

Both have the same model with the same first weights, read the same NumPy rows, clip the gradient
and wait for the loss of each step. They must find the same losses.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .comparison import Growth, Row, at_least
from .settings import Settings

if TYPE_CHECKING:
    from crucible_kitchen import TrainingClient

RATE, CLIP = 1e-3, 1.0
AGAINST = "raw PyTorch loop, clipping"


@dataclass(frozen=True)
class Shape:
    """A model and its batches.

    Args:
        layers: of a Llama.
        hidden: its width; the MLP is four times as wide.
        vocabulary: its tokens.
        rows: of a batch.
        length: tokens that each row predicts.
        steps: that are measured in a round.
    """

    layers: int
    hidden: int
    vocabulary: int
    rows: int
    length: int
    steps: int

    @property
    def sizes(self) -> dict[str, Any]:
        return {
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.hidden // 32,
            "intermediate_size": 4 * self.hidden,
            "max_position_embeddings": 4096,
            "vocab_size": self.vocabulary,
        }


SHAPES = {
    "tiny: 2 layers h=96, 8x16": Shape(2, 96, 257, 8, 16, 150),
    "small: 4 layers h=128, 8x128": Shape(4, 128, 257, 8, 128, 20),
    "larger: 8 layers h=256, vocabulary 32,000, 4x512": Shape(8, 256, 32000, 4, 512, 1),
}


def rows(settings: Settings) -> Iterator[Row]:
    for name, shape in SHAPES.items():
        steps = 1 if settings.small else shape.steps
        with two_ways(settings, shape) as (ours, theirs):
            found = settings.contest(warm_up=2).run(
                ours=partial(repeat, ours, steps), theirs=partial(repeat, theirs, steps)
            )
        same_losses(found.results, name)
        yield found.row(
            "ours",
            "theirs",
            what=f"supervised step, {name}",
            against=AGAINST,
            goal=at_least(1.0),
            work=steps * shape.rows * shape.length,
            unit="tokens/s",
        )


def growth(settings: Settings) -> Iterator[Growth]:
    """Yield how a step grows with the length of its rows, with their number, and with the size of
    the vocabulary.
    """
    few = (8, 16, 32, 64) if settings.small else (128, 256, 512, 1024)
    yield _curve(settings, "tokens in a row", few, lambda n: Shape(4, 128, 257, 4, n, 4))
    few = (1, 2, 4, 8) if settings.small else (4, 8, 16, 32)
    yield _curve(settings, "rows in a batch", few, lambda n: Shape(4, 128, 257, n, 128, 4))
    few = (250, 500, 1000, 2000) if settings.small else (16000, 32000, 64000, 128000)
    yield _curve(settings, "tokens in the vocabulary", few, lambda n: Shape(4, 128, n, 4, 128, 2))


def _curve(
    settings: Settings, variable: str, values: tuple[int, ...], shape_of: Callable[[int], Shape]
) -> Growth:
    curves: dict[str, list[float]] = {"the adapter": [], "raw PyTorch": []}
    for value in values:
        shape = shape_of(value)
        with two_ways(settings, shape) as (ours, theirs):
            found = settings.contest().run(
                ours=partial(repeat, ours, shape.steps), theirs=partial(repeat, theirs, shape.steps)
            )
        same_losses(found.results, f"{variable}: {value}")
        for curve, way in zip(curves.values(), ("ours", "theirs"), strict=True):
            curve.append(float(np.median(found.seconds[way])) / shape.steps * 1e3)
    return Growth("a supervised step", variable, "ms", values, {**curves})


@contextlib.contextmanager
def new_session(
    settings: Settings, sizes: Mapping[str, Any]
) -> Iterator[tuple[TrainingClient, Any]]:
    """Open the training client `torch`, and a session on a model of these sizes."""
    from crucible_kitchen import Kitchen, SessionConfig

    with tempfile.TemporaryDirectory() as folder:
        options = {
            "use": "torch",
            "models": {"model": sizes},
            "device": settings.device,
            "checkpoint_dir": folder,
        }
        with Kitchen({"training_client": options}) as kitchen:
            client = kitchen.training_client
            yield client, client.start_session(SessionConfig("model"))


@contextlib.contextmanager
def two_ways(
    settings: Settings, shape: Shape
) -> Iterator[tuple[Callable[[], float], Callable[[], float]]]:
    """Open the two ways to make a step, with equal weights; each returns the step's mean loss."""
    import torch
    from crucible_kitchen import AdamParams, Datum, ModelInput
    from torch.nn import functional

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    batches = rng.integers(0, shape.vocabulary, (16, shape.rows, shape.length + 1))
    predicted = shape.rows * shape.length
    weights = np.full(shape.length, 1 / predicted, np.float32)
    adam = AdamParams(grad_clip_norm=CLIP)

    with new_session(settings, shape.sizes) as (client, session):
        model = copy.deepcopy(session.engine.model)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )
        mine, other = itertools.cycle(batches), itertools.cycle(batches)

        def ours() -> float:
            datums = [
                Datum(
                    ModelInput.from_ints(row[:-1]),
                    {"target_tokens": row[1:], "weights": weights},
                )
                for row in next(mine)
            ]
            loss = client.forward_backward(session, datums)
            step = client.optim_step(session, RATE, adam)
            found = client.await_(loss).loss
            client.await_(step)
            return found

        def theirs() -> float:
            tokens = torch.from_numpy(np.stack([*next(other)])).to(model.device)
            logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
            loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
            return loss.item()

        yield ours, theirs


def repeat(step: Callable[[], float], times: int) -> list[float]:
    """Make some steps; return their losses."""
    return [step() for _ in range(times)]


def same_losses(results: dict[str, list[float]], what: str) -> None:
    """Check that both ways have trained alike."""
    ours, theirs = np.array(results["ours"]), np.array(results["theirs"])
    assert np.allclose(ours, theirs, rtol=1e-3), f"{what}: losses {ours} and {theirs} differ"
