"""The machines of a world, and checkpoints on their way to them and from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray

from .checkpoints import CHUNK
from .world import World


class WorldNodes:
    """See `Nodes`: the machines of the workers of a world, one worker on each.

    Args:
        world: the workers.
        folder: where each machine has checkpoints.
    """

    def __init__(self, world: World, folder: Path) -> None:
        self._world, self._folder = world, folder

    def files(self, reference: str) -> Mapping[str, int]:
        sizes: Mapping[str, int] = self._first("sizes", reference)
        return sizes

    def read(self, reference: str, name: str, size: int) -> Iterator[bytes]:
        for start in range(0, size, CHUNK):
            yield self._first("read", reference, name, start, CHUNK)

    def write(self, reference: str, name: str, content: Iterable[bytes]) -> None:
        start = 0
        self._all("write", reference, name, start, b"")
        for data in content:
            shared = ray.put(data)  # it goes to each machine once
            self._all("write", reference, name, start, shared)
            start += len(data)

    def forget(self, reference: str) -> None:
        self._all("forget", reference)

    def _first(self, function: str, *args: Any) -> Any:
        asked = [self._world.ask_for_files(0, function, self._folder, *args)]
        return self._world.wait(asked, "inquiry")[0]

    def _all(self, function: str, *args: Any) -> None:
        ranks = self._world.one_of_each_machine
        asked = [self._world.ask_for_files(r, function, self._folder, *args) for r in ranks]
        self._world.wait(asked, "inquiry")
