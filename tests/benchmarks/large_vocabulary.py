"""A step with a large vocabulary and a tenth of the tokens trained, as after a long prompt.

Against a plain PyTorch loop that makes logits where a token is trained alone; the same losses, and
the peak of memory of each way in a process of its own.
"""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .comparison import Row, at_least, at_most
from .settings import Settings, Skipped
from .training_steps import CLIP, RATE, new_session, same_losses

AGAINST = "raw PyTorch loop, logits at trained tokens"
VOCABULARY = 151_936  # of Qwen 2.5
SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "intermediate_size": 1024,
    "max_position_embeddings": 4096,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": True,
}
ROWS, LENGTH = 4, 512
TRAINED = LENGTH // 10


def rows(settings: Settings) -> Iterator[Row]:
    steps = 1 if settings.small else 2
    with two_ways(settings) as (ours, theirs):
        found = settings.contest().run(
            ours=lambda: [ours() for _ in range(steps)],
            theirs=lambda: [theirs() for _ in range(steps)],
        )
    same_losses(found.results, "a large vocabulary")
    what = f"step, vocabulary {VOCABULARY:,}, a tenth trained"
    yield found.row(
        "ours",
        "theirs",
        what=what,
        against=AGAINST,
        goal=at_least(1.0),
        work=steps * ROWS * LENGTH,
        unit="tokens/s",
    )
    mine, other = (_peak(settings, index) for index in (0, 1))
    yield Row(f"{what}: peak memory", AGAINST, at_most(1.05), mine / other, mine, other, unit="MiB")


@contextlib.contextmanager
def two_ways(settings: Settings) -> Iterator[tuple[Callable[[], float], Callable[[], float]]]:
    """Open the two ways to make a step, with equal weights; each returns the step's mean loss."""
    with _adapter(settings) as (ours, model), _raw(settings, copy.deepcopy(model)) as theirs:
        yield ours, theirs


def _batches() -> Iterator[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    while True:
        yield rng.integers(0, VOCABULARY, (ROWS, LENGTH + 1))


@contextlib.contextmanager
def _adapter(settings: Settings) -> Iterator[tuple[Callable[[], float], Any]]:
    import torch
    from crucible_kitchen import AdamParams, Datum, ModelInput

    torch.set_num_threads(1)
    weights = np.zeros(LENGTH, np.float32)
    weights[-TRAINED:] = 1 / (ROWS * TRAINED)
    adam, batches = AdamParams(grad_clip_norm=CLIP), _batches()
    with new_session(settings, SIZES) as (client, session):

        def step() -> float:
            datums = [
                Datum(
                    ModelInput.from_ints(row[:-1]),
                    {"target_tokens": row[1:], "weights": weights},
                )
                for row in next(batches)
            ]
            loss = client.forward_backward(session, datums)
            client.await_(client.optim_step(session, RATE, adam))
            return client.await_(loss).loss

        yield step, session.engine.model


@contextlib.contextmanager
def _raw(settings: Settings, model: Any = None) -> Iterator[Callable[[], float]]:
    import torch
    from torch.nn import functional
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.set_num_threads(1)
    if model is None:
        model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES)).to(settings.device)
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    batches = _batches()

    def step() -> float:
        tokens = torch.from_numpy(next(batches)).to(model.device)
        states = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
        logits = model.lm_head(states[:, -TRAINED:])
        loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:][:, -TRAINED:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    yield step


def _peak(settings: Settings, way: int) -> float:
    """Return by how much three steps and their model raise the memory of a process, in MiB."""
    status = Path("/proc/self/status")
    if not status.exists():
        raise Skipped("the peak of memory is read from /proc")
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_measure_peak, args=(settings, way, send))
    process.start()
    send.close()
    try:
        return float(receive.recv())
    finally:
        process.join()


def _measure_peak(settings: Settings, way: int, send: Any) -> None:
    import crucible_kitchen
    import torch
    import transformers

    for loaded in (crucible_kitchen.Kitchen, torch, transformers.AutoModelForCausalLM):
        assert loaded  # libraries are not counted
    before = _status("VmRSS")
    with contextlib.ExitStack() as stack:
        if way == 0:
            step, _ = stack.enter_context(_adapter(settings))
        else:
            step = stack.enter_context(_raw(settings))
        for _ in range(3):
            step()
        send.send((_status("VmHWM") - before) / 1024)


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])  # kB
    raise Skipped(f"/proc/self/status has no {key}")
