"""A supervised step of the adapter `ray`: one worker against `torch`, two against one.

Each way has a session on the same model with the same first weights, and reads the same rows; they
must find the same losses. A worker computes with one thread, as the session of `torch` does.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .comparison import Row, at_least
from .settings import Settings, Skipped
from .training_steps import CLIP, RATE, Shape, repeat

if TYPE_CHECKING:
    from crucible_kitchen import Kitchen

SHAPES = {
    "tiny: 2 layers h=96, 8x16": Shape(2, 96, 257, 8, 16, 50),
    "small: 4 layers h=128, 8x128": Shape(4, 128, 257, 8, 128, 20),
    "small, a larger batch: 32x128": Shape(4, 128, 257, 32, 128, 5),
}
GOALS = {"tiny: 2 layers h=96, 8x16": (None, None), "small: 4 layers h=128, 8x128": (0.9, None)}
"""Of one worker against `torch`, and of two against one; the ratios are only shown where a step is
shorter than what a call to another process takes.
"""
HELD_TO = (0.9, 1.5)


def rows(settings: Settings) -> Iterator[Row]:
    if importlib.util.find_spec("crucible_adapter_ray") is None:
        raise Skipped("crucible-adapter-ray is not installed")
    from crucible_adapter_ray.cluster import connect
    from crucible_adapter_ray.options import ClusterOptions

    cluster = connect(ClusterOptions(object_store_memory=500_000_000))
    try:
        for name, shape in SHAPES.items():
            yield from _rows(settings, name, shape)
    finally:
        cluster.close()


def _rows(settings: Settings, name: str, shape: Shape) -> Iterator[Row]:
    steps = 1 if settings.small else shape.steps
    with contextlib.ExitStack() as stack:
        ways = {
            "torch": stack.enter_context(_way(settings, shape, use="torch")),
            "one": stack.enter_context(_way(settings, shape, use="ray")),
            "two": stack.enter_context(_way(settings, shape, use="ray", workers=2)),
        }
        found = settings.contest(warm_up=2, clock="wall").run(
            **{way: partial(repeat, step, steps) for way, step in ways.items()}
        )
    losses = [np.array(each) for each in found.results.values()]
    # Hundreds of steps on the same few batches make much of the order in which numbers are added.
    assert all(np.allclose(each, losses[0], rtol=1e-2) for each in losses), losses
    for what, ours, theirs, against, bound in zip(
        ("1 worker", "2 workers"),
        ("one", "two"),
        ("torch", "one"),
        ("training_client.torch", "1 worker of ray"),
        GOALS.get(name, HELD_TO),
        strict=True,
    ):
        goal = None if bound is None else at_least(bound)
        yield found.row(
            ours,
            theirs,
            what=f"{what} of ray, {name}",
            against=against,
            goal=goal,
            work=steps * shape.rows * shape.length,
            unit="tokens/s",
        )


@contextlib.contextmanager
def _way(settings: Settings, shape: Shape, **chosen: Any) -> Iterator[Callable[[], float]]:
    """Open a session; return a function that makes a step, and returns its loss."""
    from crucible_kitchen import Kitchen

    with tempfile.TemporaryDirectory() as folder:
        models = {"model": shape.sizes}
        options = {"models": models, "device": settings.device, "checkpoint_dir": folder, **chosen}
        with Kitchen({"training_client": options}) as kitchen:
            yield _stepping(kitchen, shape)


def _stepping(kitchen: Kitchen, shape: Shape) -> Callable[[], float]:
    from crucible_kitchen import AdamParams, Datum, ModelInput, SessionConfig

    client = kitchen.training_client
    session = client.start_session(SessionConfig("model"))
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, shape.vocabulary, (16, shape.rows, shape.length + 1))
    batches = itertools.cycle(drawn)
    weights = np.full(shape.length, 1 / (shape.rows * shape.length), np.float32)
    adam = AdamParams(grad_clip_norm=CLIP)

    def step() -> float:
        datums = [
            Datum(ModelInput.from_ints(row[:-1]), {"target_tokens": row[1:], "weights": weights})
            for row in next(batches)
        ]
        loss = client.forward_backward(session, datums)
        taken = client.optim_step(session, RATE, adam)
        found = client.await_(loss).loss
        client.await_(taken)
        return found

    return step
