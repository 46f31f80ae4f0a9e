"""Dataset stores that are right while one process uses them."""

from __future__ import annotations

import os
import random
from typing import Any

from crucible_kitchen import AdapterOptions, DatasetStore, hookimpl

from .. import Mutant


class Options(AdapterOptions):
    inner: DatasetStore


class Delegate:
    """Base of the mutants: an adapter that leaves everything to `inner`."""

    Options = Options


class OtherSeed(Delegate):
    """Base of mutants that shuffle by another seed than they are given."""

    def seed(self, seed: int) -> int:
        raise NotImplementedError

    @hookimpl
    def shuffle(self, opts: Options, handle: Any, seed: int, buffer_size: int | None) -> Any:
        return opts.inner.shuffle(handle, self.seed(seed), buffer_size)


class SaltsItsSeed(OtherSeed):
    def seed(self, seed: int) -> int:
        return hash(f"shuffle {seed}") & 0xFFFF


class MixesInTheProcess(OtherSeed):
    def seed(self, seed: int) -> int:
        return seed ^ os.getpid()


class MixesInAPath(OtherSeed):
    def seed(self, seed: int) -> int:
        return seed + sum(os.getcwd().encode())


class TakesTheSizeOfASeed(OtherSeed):
    def seed(self, seed: int) -> int:
        return abs(seed)


class TakesTheRemainderOfASeed(OtherSeed):
    def seed(self, seed: int) -> int:
        return seed % 120


class TakesThreeDigitsOfASeed(OtherSeed):
    def seed(self, seed: int) -> int:
        return seed % 1000


class TakesTheLastBitsOfASeed(OtherSeed):
    def seed(self, seed: int) -> int:
        return seed & 0xFFFFFFFF


class SeedsTheWholeProgram(OtherSeed):
    def seed(self, seed: int) -> int:
        random.seed(seed)
        return random.getrandbits(32)


class ReadsASet(Delegate):
    @hookimpl
    def to_list(self, opts: Options, handle: Any) -> list[dict[str, Any]]:
        return sorted(opts.inner.to_list(handle), key=lambda row: hash(str(row)))


SHUFFLES = "test_another_process_shuffles_alike"
SEEDS = "test_no_two_seeds_are_one"
MUTANTS = [
    Mutant("dataset_store", adapter, killed_by)
    for adapter, killed_by in [
        (SaltsItsSeed(), SHUFFLES),
        (MixesInTheProcess(), SHUFFLES),
        (MixesInAPath(), SHUFFLES),
        (TakesTheSizeOfASeed(), SEEDS),
        (TakesTheRemainderOfASeed(), SEEDS),
        (TakesThreeDigitsOfASeed(), SEEDS),
        (TakesTheLastBitsOfASeed(), SEEDS),
        (SeedsTheWholeProgram(), "test_the_process_stays_as_it_was"),
        (ReadsASet(), "test_another_process_reads_the_same_rows"),
    ]
]
