"""Rows of a data set through the dataset store, against `datasets` used directly.

Each way ends with the same rows, as dictionaries. `datasets` gives columns; the fastest way from
them to rows is taken, slices in Arrow's format and `to_pylist`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .comparison import Growth, Row, at_least
from .settings import Settings, Skipped

BATCH = 1000
AGAINST = "datasets, used directly"
TIMES = 20
"""How often what takes milliseconds is done in a round."""
NOTES = {
    "load, JSON Lines": (
        "Python's JSON decoder, which keeps every digit and notices a name that an object has "
        "twice, takes 1.0 of 1.4 us a row; next: a faster one for lines that it reads alike."
    ),
    "in order, by batch, JSON Lines": (
        "0.31 us a row are marshal's, which makes the dictionaries, and 0.07 us the port's check "
        "of what the adapter returns; as Arrow's columns they would take longer to load than that "
        "saves."
    ),
    "in order, by batch, Parquet": (
        "Both convert alike; 0.07 us a row are the port's check of what the adapter returns."
    ),
}


def rows(settings: Settings) -> Iterator[Row]:
    count = 5000 if settings.small else 1_000_000
    with ways(count) as pairs:
        for what, (ours, theirs) in pairs.items():
            times = TIMES if what.startswith(("shuffle,", "select,")) else 1
            contest = settings.contest(clock="wall" if settings.small else None).run(
                ours=partial(_last, ours, times), theirs=partial(_last, theirs, times)
            )
            found = contest.results
            assert found["ours"] == found["theirs"], f"{what}: other rows"
            yield contest.row(
                "ours",
                "theirs",
                what=f"{count:,} rows: {what}",
                against=AGAINST,
                goal=at_least(0.95),
                work=count * times,
                unit="rows/s",
                note=NOTES.get(what, ""),
            )


def growth(settings: Settings) -> Iterator[Growth]:
    counts = [1000, 2000, 4000, 8000] if settings.small else [62_500, 125_000, 250_000, 500_000]
    for what in ("load, JSON Lines", "in order, by batch, JSON Lines"):
        curves: dict[str, list[float]] = {"ours": [], "datasets": []}
        for count in counts:
            with ways(count) as pairs:
                ours, theirs = pairs[what]
                contest = settings.contest(clock="wall" if settings.small else None).run(
                    ours=ours, theirs=theirs
                )
            for name, way in zip(curves, ("ours", "theirs"), strict=True):
                curves[name].append(count / float(np.median(contest.seconds[way])))
        yield Growth(f"Rows of a data set: {what}", "rows", "rows/s", counts, {**curves})


Way = Callable[[], Any]


def _last(way: Way, times: int) -> Any:
    """Do the work a number of times; return the last result."""
    for _ in range(times - 1):
        way()
    return way()


@contextmanager
def ways(count: int) -> Iterator[dict[str, tuple[Way, Way]]]:
    """Yield for each kind of work our way and that of `datasets`, which return what is compared."""
    try:
        import datasets
        import pyarrow as pa
        import pyarrow.parquet as pq
        from crucible_kitchen import Kitchen
    except ImportError as error:
        raise Skipped(f"it needs datasets and crucible-adapter-hf-datasets: {error}") from error
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = [
            {"prompt": f"What is {n} + {n + 7}?", "completion": f" It is {2 * n + 7}.", "n": n}
            for n in range(count)
        ]
        lines, table = folder / "rows.jsonl", folder / "rows.parquet"
        lines.write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")
        pq.write_table(pa.Table.from_pylist(made), table)
        del made
        options = {"use": "hf-datasets", "cache_dir": str(folder / "cache")}
        with Kitchen({"dataset_store": options}) as kitchen:
            yield {
                f"{what}, {format_}": pair
                for format_, file in (("JSON Lines", lines), ("Parquet", table))
                for what, pair in _of(Ours(kitchen.dataset_store, file), Theirs(file)).items()
            }


def _of(ours: Ours, theirs: Theirs) -> dict[str, tuple[Way, Way]]:
    return {
        "load": (ours.load, theirs.load),
        "shuffle": (ours.shuffle, theirs.shuffle),
        "select": (ours.select, theirs.select),
        "in order, by batch": (ours.in_order, theirs.in_order),
        "shuffled, by batch": (ours.shuffled, theirs.shuffled),
        "to_list": (ours.to_list, theirs.to_list),
        "streamed, by batch": (ours.stream, theirs.stream),
    }


@dataclass
class Ours:
    """Through the port."""

    store: Any
    file: Path

    def __post_init__(self) -> None:
        self.handle = self.store.load_dataset(str(self.file), "train")
        self.mixed = self.store.shuffle(self.handle, seed=0)
        self.count = sum(map(len, self.store.stream(self.handle, BATCH)))

    def load(self) -> Any:
        handle = self.store.load_dataset(str(self.file), "train")
        return self.store.to_list(self.store.take(handle, 3))

    def shuffle(self) -> Any:
        return len(self.store.to_list(self.store.take(self.store.shuffle(self.handle, seed=7), 3)))

    def select(self) -> Any:
        chosen = self.store.select(self.handle, range(self.count // 2, self.count))
        return self.store.to_list(self.store.take(chosen, 3))

    def in_order(self) -> Any:
        return _summary(self.store.stream(self.handle, BATCH))

    def shuffled(self) -> Any:
        return _unordered(self.store.stream(self.mixed, BATCH))

    def to_list(self) -> Any:
        return _ends(self.store.to_list(self.handle))

    def stream(self) -> Any:
        handle = self.store.load_dataset(str(self.file), "train", streaming=True)
        return _summary(self.store.stream(handle, BATCH))


@dataclass
class Theirs:
    """By hand."""

    file: Path

    def __post_init__(self) -> None:
        self._cache = tempfile.TemporaryDirectory()
        self.handle = self._load(self._cache.name)
        self.mixed = self.handle.shuffle(seed=0, keep_in_memory=True)

    def _load(self, cache: str, **how: Any) -> Any:
        import datasets

        kind = "json" if self.file.suffix == ".jsonl" else "parquet"
        return datasets.load_dataset(
            kind, data_files=str(self.file), split="train", cache_dir=cache, **how
        )

    def load(self) -> Any:
        with tempfile.TemporaryDirectory() as cache:
            return self._load(cache).take(3).to_list()

    def shuffle(self) -> Any:
        return len(self.handle.shuffle(seed=7, keep_in_memory=True).take(3).to_list())

    def select(self) -> Any:
        count = len(self.handle)
        return self.handle.select(range(count // 2, count)).take(3).to_list()

    def in_order(self) -> Any:
        tables = self.handle.with_format("arrow").iter(BATCH)
        return _summary(table.to_pylist() for table in tables)

    def shuffled(self) -> Any:
        tables = self.mixed.with_format("arrow").iter(BATCH)
        return _unordered(table.to_pylist() for table in tables)

    def to_list(self) -> Any:
        return _ends(self.handle.to_list())

    def stream(self) -> Any:
        with tempfile.TemporaryDirectory() as cache:
            stream = self._load(cache, streaming=True).with_format("arrow")
            return _summary(table.to_pylist() for table in stream.iter(BATCH))


def _summary(batches: Any) -> Any:
    """Return what tells rows apart, at little cost: their number, and the ends of each batch."""
    return [(len(batch), *_ends(batch)) for batch in batches]


def _ends(some: list[Any]) -> tuple[int, Any, Any]:
    return len(some), some[0], some[-1]


def _unordered(batches: Any) -> tuple[int, int]:
    count = total = 0
    for batch in batches:
        count += len(batch)
        total += sum(row["n"] for row in batch)
    return count, total
