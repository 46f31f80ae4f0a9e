"""Data parallelism by copies: each rank has the whole model, and gradients are added up.

PyTorch's DistributedDataParallel does so within each backward pass, and divides by the number of
ranks. Here several passes may come before a step, in other numbers on each rank, or none at all; so
the accumulated gradients are added up once, at the step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..models.language_model import LanguageModel
from .alone import Strategy
from .group import Group

BUCKET = 25 << 20
"""Bytes that are added up at a time, since each message costs some time of its own. PyTorch's
DistributedDataParallel takes as many."""
IN_FLIGHT = 3
"""Buckets at a time: one is filled and one emptied while one is on its way."""


class Replicated(Group):
    """Ranks that each have the whole model."""

    strategy: ClassVar[Strategy | None] = "ddp"

    def spread(
        self, language: LanguageModel, trained: Mapping[str, nn.Parameter]
    ) -> dict[str, nn.Parameter]:
        self._check_equal(language.model)
        return dict(trained)

    def whole(self, model: Any) -> Any:
        return model if self.rank == 0 else None

    def sum_gradients(self, weights: Mapping[str, nn.Parameter]) -> None:
        present = torch.tensor(
            [weight.grad is not None for weight in weights.values()],
            dtype=torch.int32,
            device=self._device,
        )
        dist.all_reduce(present, dist.ReduceOp.MAX)
        gradients = []
        for weight, anywhere in zip(weights.values(), present.tolist(), strict=True):
            if anywhere:
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
                gradients.append(weight.grad)
        add_up(gradients)

    def gathered(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
        return tensors if self.rank == 0 else None


def add_up(tensors: Iterable[Tensor]) -> None:
    """Replace tensors of one type by their sums over all ranks, which are equal to the bit."""
    waiting: deque[Callable[[], None]] = deque()
    for bucket in _buckets(tensors):
        if len(waiting) == IN_FLIGHT:
            waiting.popleft()()
        waiting.append(_start(bucket))
    for finish in waiting:
        finish()


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if tensor.nbytes >= BUCKET:
            yield [tensor]
            continue
        if size + tensor.nbytes > BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket


def _start(bucket: list[Tensor]) -> Callable[[], None]:
    """Begin to add up a bucket; return what waits for it. A single tensor is not copied."""
    alone = len(bucket) == 1 and bucket[0].is_contiguous()
    flat = bucket[0] if alone else torch.cat([tensor.reshape(-1) for tensor in bucket])
    work = dist.all_reduce(flat, async_op=True)
    assert work is not None

    def finish() -> None:
        work.wait()
        if not alone:
            parts = torch.split(flat, [tensor.numel() for tensor in bucket])
            whole = [part.view(tensor.shape) for part, tensor in zip(parts, bucket, strict=True)]
            torch._foreach_copy_(bucket, whole)

    return finish
