"""Tensors in memory that the processes of a machine share, a chunk at a time.

No file is written, and nothing remains of it when a process dies.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

_ALIGNMENT = 64


@dataclass
class Chunk:
    """Tensors in memory that another process of this machine shares.

    Args:
        path: the memory, as a file that can be mapped.
        names: of the tensors.
        dtypes: names of their types in torch, such as `bfloat16`.
        shapes: their shapes.
        offsets: where each begins, in bytes.
    """

    path: str = ""
    names: list[str] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    shapes: list[list[int]] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)


def in_chunks(
    tensors: Iterable[tuple[str, Tensor]], size: int
) -> Iterator[list[tuple[str, Tensor]]]:
    """Yield tensors in their order, in lists of at most `size` bytes or of one tensor."""
    chunk: list[tuple[str, Tensor]] = []
    held = 0
    for name, tensor in tensors:
        if chunk and held + tensor.nbytes > size:
            yield chunk
            chunk, held = [], 0
        chunk.append((name, tensor))
        held += tensor.nbytes
    if chunk:
        yield chunk


@contextlib.contextmanager
def shared(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[Chunk]:
    """Yield a copy of these tensors, which may be on any device, in memory that other processes of
    this user can map. It is freed when the block is left and none of them maps it any more.
    """
    chunk, size = Chunk(), 0
    held = list(tensors)
    for name, tensor in held:
        size += -size % _ALIGNMENT
        chunk.names.append(name)
        chunk.dtypes.append(str(tensor.dtype).removeprefix("torch."))
        chunk.shapes.append([*tensor.shape])
        chunk.offsets.append(size)
        size += tensor.nbytes
    # Unlike files in /dev/shm, not bound by the 64 MB that containers often have there.
    descriptor = os.memfd_create("crucible-weights", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, max(size, 1))
        chunk.path = f"/proc/{os.getpid()}/fd/{descriptor}"
        memory = mmap.mmap(descriptor, 0)
        for (_, tensor), (_, place) in zip(held, _tensors(memory, chunk), strict=True):
            place.copy_(tensor.detach())
        yield chunk
    finally:
        os.close(descriptor)


def mapped(chunk: Chunk) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a chunk by name. They share its memory, which stays while they do;
    changing them changes no other process's.
    """
    descriptor = os.open(chunk.path, os.O_RDONLY)
    try:
        memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    finally:
        os.close(descriptor)
    yield from _tensors(memory, chunk)


def _tensors(memory: Any, chunk: Chunk) -> Iterator[tuple[str, Tensor]]:
    described = zip(chunk.names, chunk.dtypes, chunk.shapes, chunk.offsets, strict=True)
    for name, dtype, shape, offset in described:
        kind: torch.dtype = getattr(torch, dtype)
        count = torch.Size(shape).numel()
        flat = torch.empty(0, dtype=kind)
        if count:
            flat = torch.frombuffer(memory, dtype=kind, count=count, offset=offset)
        yield name, flat.reshape(shape)
