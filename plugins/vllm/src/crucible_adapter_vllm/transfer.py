"""Weights go from this process to those of the engine, through vLLM's own weight transfer.

Memory that both share carries them: both are on one machine, on whatever devices.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from torch import Tensor
from vllm.distributed.weight_transfer.base import (
    WeightTransferInitRequest,
    WeightTransferUpdateRequest,
)

from .shared_memory import in_chunks, shared

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

CHUNK = 2**28
"""Bytes handed over at a time, unless one tensor is larger."""


async def connect(engine: AsyncLLM) -> None:
    """Make an engine ready for `hand_over`."""
    await engine.init_weight_transfer_engine(WeightTransferInitRequest({}))


async def hand_over(engine: AsyncLLM, weights: Iterable[tuple[str, Tensor]], version: str) -> None:
    """Replace the weights of a running engine that has nothing to do, and forget what it has cached
    of the old ones. If this fails, the engine is of no use any more.

    Args:
        engine: made with the backend of `receiver`.
        weights: all weights by their names in a checkpoint, on any device.
        version: the name that answers give to these weights from now on.
    """
    await engine.pause_generation(mode="abort", clear_cache=True)
    await engine.start_weight_update()
    chunks = in_chunks(weights, CHUNK)
    while chunk := await asyncio.to_thread(next, chunks, None):
        with contextlib.ExitStack() as stack:
            described = await asyncio.to_thread(stack.enter_context, shared(chunk))
            await engine.update_weights(WeightTransferUpdateRequest(asdict(described)))
    await engine.finish_weight_update(version)
    await engine.resume_generation()
