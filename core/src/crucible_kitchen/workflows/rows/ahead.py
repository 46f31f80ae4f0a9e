"""Batches of rows, rendered by threads ahead of the step that needs them."""

from __future__ import annotations

import contextvars
import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np

from ...errors import AdapterError, InvalidInput
from ...events import DatasetLeftOut
from ...kitchen import Kitchen
from ...ports import DatasetStore
from ..batches import permutation
from .judge import Judge
from .rendering import Example
from .stored import NumberedRow, StoredRows, batches_of

T = TypeVar("T")

AHEAD = 8
"""Batches that are rendered before the step that needs them is there."""

_READERS = 4
"""Threads that read rows from where they are stored."""

Batch: TypeAlias = tuple[int, int, list[Example]]
"""An epoch, a step, and the sequences that it learns from."""


@dataclass(slots=True)
class Rendering:
    """Renders the rows of a batch. Threads take turns: Python runs one at a time anyway, and not
    every tokenizer may be called by two.

    Args:
        kitchen: its observers hear which rows are left out.
        judge: renders the rows.
        what: the data set, for messages.
    """

    kitchen: Kitchen
    judge: Judge
    what: str
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def batch(self, rows: Sequence[NumberedRow]) -> list[Example]:
        """Return what is learned from rows: all their sequences, however many each has.

        Raises:
            InvalidInput: a row cannot be trained on, or nothing is left of all of them.
        """
        examples: list[Example] = []
        left_out = []
        with self._turn:
            rendered = self.judge.sequences([row for _, row in rows])
            for (name, _), found in zip(rows, rendered, strict=True):
                if isinstance(found, AdapterError):
                    raise InvalidInput(f"{name} of {self.what}: {found.reason}") from found
                if not found:
                    left_out.append(name)
                examples += found
        if left_out:
            self.kitchen.observers.emit(DatasetLeftOut(dataset=self.what, rows=left_out))
        if not examples:
            raise InvalidInput(
                f"nothing to learn from {self.what} in {', '.join(left_out)}: every row of a step "
                "is too long"
            )
        return examples


@dataclass(slots=True)
class StoredBatches:
    """Batches of rows in the order that a seed gives: that of rows that were rendered beforehand,
    where each row is one sequence. A batch has `size` rows, the last one of an epoch fewer.

    Args:
        rows: where they are.
        rendering: renders them.
        size: rows in a batch.
        seed: the order of an epoch is a function of it and of the number of rows.
    """

    rows: StoredRows
    rendering: Rendering
    size: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """The batches in an epoch."""
        return math.ceil(len(self.rows) / self.size)

    def between(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """Yield the batches of the steps from `start` to `stop`.

        Raises:
            InvalidInput: at the step of a row that cannot be trained on.
        """
        return ahead(self._jobs(start, stop), _READERS)

    def _jobs(self, start: int, stop: int) -> Iterator[Callable[[], Batch]]:
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(start, stop):
            if step // self.per_epoch != epoch:
                epoch = step // self.per_epoch
                order = permutation(len(self.rows), self.seed, epoch)
            at = step % self.per_epoch * self.size
            yield self._job(epoch, step, order[at : at + self.size])

    def _job(self, epoch: int, step: int, chosen: Any) -> Callable[[], Batch]:
        return lambda: (epoch, step, self.rendering.batch(self.rows.read(chosen)))


@dataclass(slots=True)
class StreamedBatches:
    """Batches of a stream that is shuffled a buffer at a time, with another seed in each epoch.

    An epoch ends where the stream does. Since a batch has `size` rows, the last one of an epoch
    fewer, the step is the exact position in the stream.

    Args:
        store: the dataset store.
        handle: its stream, in its stored order.
        rendering: renders the rows.
        size: rows in a batch.
        seed: the order of an epoch is a function of it, of the buffer and of the rows.
        buffer: rows that are shuffled at a time; None is the dataset store's choice.
    """

    store: DatasetStore
    handle: Any
    rendering: Rendering
    size: int
    seed: int
    buffer: int | None
    per_epoch: int | None = None
    """The batches in an epoch; None until its end was reached."""

    def between(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """Yield the batches of the steps from `start` to `stop`.

        Raises:
            InvalidInput: at the step of a row that cannot be trained on; or there are no rows.
        """
        return ahead(self._jobs(start, stop), 1)

    def _jobs(self, start: int, stop: int) -> Iterator[Callable[[], Batch]]:
        batches = self._batches(start)
        for step in range(start, stop):
            yield lambda step=step: self._next(batches, step)  # type: ignore[misc]

    def _next(self, batches: Iterator[tuple[int, int, list[dict[str, Any]]]], step: int) -> Batch:
        epoch, place, rows = next(batches)
        first = place * self.size
        named = [(f"row {first + n} of epoch {epoch}", row) for n, row in enumerate(rows)]
        return epoch, step, self.rendering.batch(named)

    def _batches(self, start: int) -> Iterator[tuple[int, int, list[dict[str, Any]]]]:
        """Yield rows from the batch `start` on, with their epoch and their batch in it."""
        epoch, place = divmod(start, self.per_epoch) if self.per_epoch else (0, start)
        while True:
            begun_at = place
            shuffled = self.store.shuffle(self.handle, seed_of(self.seed, epoch), self.buffer)
            rest = self.store.skip(shuffled, place * self.size) if place else shuffled
            for rows in batches_of(self.store, rest, self.size):
                yield epoch, place, rows
                place += 1
            if place > begun_at:
                self.per_epoch = place
                epoch, place = epoch + 1, 0
                continue
            if begun_at and self.per_epoch is None:  # the stream ended before `start`: where?
                self.per_epoch = sum(1 for _ in batches_of(self.store, self.handle, self.size))
                if self.per_epoch:
                    epoch, place = divmod(begun_at, self.per_epoch)
                    continue
            after = f"after {begun_at * self.size:,} rows" if begun_at else "it has no rows"
            raise InvalidInput(f"nothing to learn from {self.rendering.what}: {after}")


def seed_of(*seeds: int) -> int:
    """Return a seed below 2 ** 63 that is a function of seeds."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]) >> 1


def ahead(jobs: Iterator[Callable[[], T]], workers: int) -> Generator[T, None, None]:
    """Yield what jobs return, in their order, while threads work on the next `AHEAD`.

    What a job raises is raised in its place, and the jobs after it are not waited for.
    """
    pool = ThreadPoolExecutor(workers, "crucible-rows")
    context = contextvars.copy_context()
    started: deque[Future[T]] = deque()

    def start() -> None:
        for job in jobs:
            # A context can be entered by one thread at a time.
            started.append(pool.submit(context.copy().run, job))
            if len(started) > AHEAD:
                return

    try:
        start()
        while started:
            result = started.popleft().result()
            start()
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
