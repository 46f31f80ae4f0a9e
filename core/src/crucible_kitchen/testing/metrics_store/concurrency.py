"""Threads and processes that record at once."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ...ports import MetricsStore
from ..conformance import Reopen, unless_synthetic
from .fixtures import MetricsStoreFixtures


class Concurrency(MetricsStoreFixtures):
    """Several writers."""

    def test_many_threads_lose_nothing(self, metrics_store: MetricsStore, run_id: str) -> None:
        """Sixteen threads record to one run: every row is there, none twice, the rows of a thread
        in its order; a thread reads at once what it has recorded itself.

        Usually broken by a buffer without a lock, or by a flush that empties it while another
        thread adds to it.
        """
        threads, each = 16, 120  # fewer are done before they come between one another
        start = threading.Barrier(threads)

        def work(thread: int) -> None:
            start.wait()
            for number in range(each):
                step = None if number % 4 == 3 else number
                metrics_store.record(run_id, f"thread {thread}", float(number), step)
                if number % 32 == 2 * thread:  # not all of them at one time
                    metrics_store.flush(run_id)
            if thread % 4 == 0:
                assert mine(thread) == [float(number) for number in range(each)]

        def mine(thread: int) -> list[float]:
            rows = metrics_store.read(run_id)
            return [row.value for row in rows if row.metric == f"thread {thread}"]

        with _threads_that_alternate(), ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
        metrics_store.flush(run_id)
        found: dict[str, list[float]] = {}
        for row in metrics_store.read(run_id):
            found.setdefault(row.metric, []).append(row.value)
        expected = [float(number) for number in range(each)]
        assert found == {f"thread {thread}": expected for thread in range(threads)}

    @unless_synthetic
    def test_two_writers_at_once_lose_nothing(
        self, metrics_store: MetricsStore, run_id: str, reopen: Reopen[MetricsStore] | None
    ) -> None:
        """Two writers that have the store open record to one run, which both begin: every row of
        both is there, and a step that both record has one row.

        Usually broken by a lock that is not waited for, by rewriting the whole file, or by two
        runs of the same id, only one of which is found.
        """
        each = 40
        with self.given(reopen, "reopen")() as other:
            start = threading.Barrier(2)

            def work(writer: int, store: MetricsStore) -> None:
                start.wait()
                for step in range(each):
                    store.record(run_id, f"writer {writer}", float(step), step)
                    store.record(run_id, "both", float(writer), step)
                    store.record(run_id, "note", float(writer))
                    if step % 10 == 0:
                        store.flush(run_id)
                store.flush(run_id)

            with _threads_that_alternate(), ThreadPoolExecutor(2) as pool:
                list(pool.map(work, (0, 1), (metrics_store, other)))
            for store in (metrics_store, other):
                rows = store.read(run_id)
                for writer in (0, 1):
                    steps = [row.step for row in rows if row.metric == f"writer {writer}"]
                    assert steps == list(range(each))
                    notes = [row for row in rows if (row.metric, row.value) == ("note", writer)]
                    assert len(notes) == each
                both = sorted(row.step or 0 for row in rows if row.metric == "both")
                assert both == list(range(each))


@contextlib.contextmanager
def _threads_that_alternate() -> Iterator[None]:
    """Let threads take turns all the time, so that one comes between any two steps of another."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
