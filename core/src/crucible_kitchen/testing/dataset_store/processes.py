"""Several processes read one data set."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import pytest

from ...errors import InvalidInput, Unsupported
from ...ports import DatasetStore
from ..conformance import since
from ..processes import Elsewhere
from ..processes.places import absolute
from ..processes.state import left_alone
from .fixtures import DatasetStoreFixtures, open_dataset
from .rows import read

SEEDS = (0, 1, 3, -1, -3, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 3, 2**63 - 1)
"""Seeds of which several would be one to an adapter that takes their sign, their remainder or
their last 32 bits."""
ROUND = (100, 120, 256, 1000, 1024, 10_000, 2**16, 10**6)
"""Numbers by which a seed may be divided, for its remainder."""


class Processes(DatasetStoreFixtures):
    """What is the same in every process."""

    @since("1.5")
    def test_another_process_reads_the_same_rows(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        split: str | None,
        streaming: bool,
        handle: Any,
        elsewhere: Elsewhere,
    ) -> None:
        """A process with another working directory reads the same rows in the same order, whole,
        and those that are taken, skipped or selected.

        Usually broken by the order of a set, or of the files of a folder, or by a row that is made
        of the process's own time or randomness.
        """
        where = absolute(dataset_id), split, streaming
        assert elsewhere.run(_rows, *where) == _rows(dataset_store, dataset_id, split, streaming)

    @since("1.5")
    def test_another_process_shuffles_alike(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        split: str | None,
        streaming: bool,
        handle: Any,
        elsewhere: Elsewhere,
    ) -> None:
        """Each seed, whatever its sign and size, gives the same order in every process; a seed that
        cannot be used is `InvalidInput` in every process.

        Usually broken by `hash`, which is salted in each process, by a seed that is mixed with the
        process id, the time or a path, and by a generator that only the first process has used.
        """
        for buffer_size in (None, 7):
            asked = split, streaming, SEEDS, buffer_size
            theirs = elsewhere.run(_orders, absolute(dataset_id), *asked)
            assert theirs == _orders(dataset_store, dataset_id, *asked), buffer_size

    @since("1.5")
    def test_another_process_goes_on_where_one_stopped(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        split: str | None,
        streaming: bool,
        handle: Any,
        elsewhere: Elsewhere,
    ) -> None:
        """`skip(shuffle(handle, seed), n)` in another process begins with the row that would have
        come next here, shuffled once or twice.

        Usually broken by a position within a buffer, which is counted in what was read and not in
        what was returned.
        """
        once = dataset_store.shuffle(handle, 5, 7)
        twice = dataset_store.shuffle(once, 6)
        for position in (1, 7, 11):
            mine = [read(dataset_store, each)[position:] for each in (once, twice)]
            theirs = elsewhere.run(_rest, absolute(dataset_id), split, streaming, position)
            assert theirs == mine, position

    @since("1.5")
    def test_no_two_seeds_are_one(
        self, dataset_store: DatasetStore, handle: Any, stored: list[str]
    ) -> None:
        """Seeds that differ in their sign, by the number of rows, or above their last 32 bits give
        different orders; one that the store cannot use is `InvalidInput`.

        Usually broken by `abs(seed)`, `seed % n`, and a cast to 32 bits: two runs of a comparison
        are then one.
        """
        found: dict[tuple[str, ...], int] = {}
        seeds = sorted({*SEEDS, *ROUND, len(stored), len(stored) + 1})
        for seed in seeds:
            with contextlib.suppress(InvalidInput):
                order = tuple(read(dataset_store, dataset_store.shuffle(handle, seed)))
                assert order not in found, f"{seed} and {found[order]} give one order"
                found[order] = seed
        assert len(found) > 4, "nearly every seed is refused"

    @since("1.5")
    def test_two_processes_that_open_a_data_set_for_the_first_time_both_read_it(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        split: str | None,
        streaming: bool,
        elsewhere: Elsewhere,
    ) -> None:
        """Processes that open a data set at once, which none has opened before, all read it whole,
        and this one afterwards.

        Usually broken by a cache to which both write the same file, and by a lock that is left
        behind.
        """
        where = absolute(dataset_id), split, streaming
        both = elsewhere.submit_together(_rows, [where, where])
        try:
            one, other = (each.result() for each in both)
        except Unsupported as error:
            if not streaming:
                raise
            pytest.skip(f"opens no data set that streams: {error.reason}")
        assert one == other == _rows(dataset_store, dataset_id, split, streaming)

    @since("1.5")
    def test_the_process_stays_as_it_was(
        self,
        dataset_store: DatasetStore,
        dataset_id: str,
        split: str | None,
        streaming: bool,
        handle: Any,
        elsewhere: Elsewhere,
    ) -> None:
        """No call changes the umask or the working directory, or seeds the generators of `random`
        and NumPy, which all threads share.

        Usually broken by `random.seed(seed)` before a shuffle: all that the program draws
        afterwards is the same in every run, and a second thread changes the order of the first.
        """
        changed = elsewhere.run(_changed, absolute(dataset_id), split, streaming)
        assert not changed, "what the calls have changed"


# --- in any process ---


def _rows(
    store: DatasetStore, dataset_id: str, split: str | None, streaming: bool
) -> list[list[str]]:
    """Return the rows, and parts of them."""
    handle = store.load_dataset(dataset_id, split, streaming=streaming)
    parts = [handle, store.take(handle, 5), store.skip(handle, 5)]
    with contextlib.suppress(Unsupported):  # reported by the tests of `select`
        parts.append(store.select(handle, [7, 3, 3]))
    return [read(store, part) for part in parts]


def _orders(
    store: DatasetStore,
    dataset_id: str,
    split: str | None,
    streaming: bool,
    seeds: Sequence[int],
    buffer_size: int | None,
) -> dict[int, list[str] | str]:
    """Return the order that each seed gives, or the name of the error."""
    handle = store.take(open_dataset(store, dataset_id, split, streaming), 40)
    found: dict[int, list[str] | str] = {}
    for seed in seeds:
        try:
            found[seed] = read(store, store.shuffle(handle, seed, buffer_size))
        except InvalidInput:
            found[seed] = "InvalidInput"
    return found


def _rest(
    store: DatasetStore, dataset_id: str, split: str | None, streaming: bool, position: int
) -> list[list[str]]:
    once = store.shuffle(open_dataset(store, dataset_id, split, streaming), 5, 7)
    twice = store.shuffle(once, 6)
    return [read(store, store.skip(each, position)) for each in (once, twice)]


def _changed(
    store: DatasetStore, dataset_id: str, split: str | None, streaming: bool
) -> dict[str, Any]:
    """Return what the calls of a store change of its process."""

    def calls() -> None:
        handle = store.take(open_dataset(store, dataset_id, split, streaming), 20)
        read(store, store.shuffle(handle, 3))
        read(store, store.skip(handle, 3))

    return left_alone(calls)
