"""Which items a step learns from: a function of the seed and the step alone, on every machine."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from ..types import IntArray

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@runtime_checkable
class Batches(Protocol[T_co]):
    """The batches of a run, whose order is their own: `Shuffled` items, or those of a stream."""

    @property
    def per_epoch(self) -> int | None:
        """The batches in an epoch; None where that is not known."""
        ...

    def between(
        self, start: int, stop: int
    ) -> Generator[tuple[int, int, Sequence[T_co]], None, None]:
        """Yield the epoch, the step and the items of each step from `start` to `stop`.

        The same for a step wherever `start` is.
        """
        ...


@dataclass(frozen=True, slots=True)
class Shuffled(Generic[T]):
    """Batches of items in another order in each epoch.

    Args:
        items: in their stored order.
        size: items in a batch; the last batch of an epoch may have fewer.
        seed: the order of an epoch is a function of it and of the number of items.
    """

    items: Sequence[T]
    size: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """The batches in an epoch."""
        return math.ceil(len(self.items) / self.size)

    def between(self, start: int, stop: int) -> Generator[tuple[int, int, list[T]], None, None]:
        """Yield the epoch, the step and the items of each step from `start` to `stop`."""
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(start, stop):
            if step // self.per_epoch != epoch:
                epoch = step // self.per_epoch
                order = permutation(len(self.items), self.seed, epoch)
            at = step % self.per_epoch * self.size
            yield epoch, step, [self.items[index] for index in order[at : at + self.size]]


def in_batches(items: Sequence[T] | Batches[T], size: int, seed: int) -> Batches[T]:
    """Return batches as they are, and items as `Shuffled`."""
    return items if isinstance(items, Batches) else Shuffled(items, size, seed)


def share(ratio: float, of: int) -> int:
    """Return `ratio * of` rounded up, the ratio taken as it is written.

    In floating point 0.07 times 100 is a bit more than 7, which would be 8 steps.
    """
    return math.ceil(Fraction(repr(ratio)) * of)


def permutation(count: int, *seeds: int) -> IntArray:
    """Return an order of `count` rows, int64 `(count,)`: a function of the arguments alone.

    The sorting order of PCG64's raw output: NumPy keeps the stream of a bit generator stable, but
    not what `Generator.permutation` makes of it (NEP 19).
    """
    keys = np.random.PCG64(np.random.SeedSequence(seeds)).random_raw(count)
    return np.argsort(keys, kind="stable")
