"""Leases: one process at a time, and none for ever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from crucible_kitchen import BlobStore, ConfigurationError, Kitchen, Unauthorized, Unavailable
from crucible_kitchen.workflows.runs.lease import Lease, process

PATH = "run/lease.json"

needs_proc = pytest.mark.skipif(process(os.getpid()) is None, reason="the system has no /proc")


@pytest.fixture
def store() -> Iterator[BlobStore]:
    with Kitchen({"blob_store": {"use": "noop", "latency_scale": 0}}) as kitchen:
        yield kitchen.blob_store


def lease(store: BlobStore, term: float = 60.0) -> Lease:
    return Lease(store, PATH, "the run 'r'", term)


def left_by(store: BlobStore, **changed: Any) -> dict[str, Any]:
    """Leave the lease of a process on another machine, as a kill does."""
    about = {"holder": "0", "count": 7, "host": "elsewhere", "pid": 1, "process": "b pid:[1] 1 9"}
    store.write(PATH, json.dumps(about | changed).encode())
    return about | changed


def test_what_is_in_use_is_refused_and_says_by_whom(store: BlobStore) -> None:
    with (
        lease(store).acquire(),
        pytest.raises(ConfigurationError, match="the run 'r' is in use by this process"),
    ):
        lease(store).acquire()
    lease(store).acquire().release()


def test_a_released_lease_leaves_nothing_behind(store: BlobStore) -> None:
    lease(store).acquire().release()
    assert not store.exists(PATH)


@needs_proc
def test_a_process_here_that_was_killed_holds_nothing(store: BlobStore) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        left_by(store, pid=child.pid, process=process(child.pid))
        with pytest.raises(ConfigurationError, match=f"in use by process {child.pid} on elsewhere"):
            lease(store).acquire()
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and a zombie still
        lease(store).acquire().release()


@needs_proc
def test_what_this_process_could_not_release_is_free_for_it(store: BlobStore) -> None:
    held = lease(store).acquire()
    delete, store.delete = store.delete, refused  # type: ignore[method-assign]
    with pytest.raises(Unauthorized):
        held.release()
    store.delete = delete  # type: ignore[method-assign]
    lease(store).acquire().release()


def refused(path: str) -> None:
    raise Unauthorized("read-only for now")


@needs_proc
def test_another_process_that_got_the_same_id_later_holds_nothing(store: BlobStore) -> None:
    *same, _ = str(process(os.getpid())).split()
    left_by(store, pid=os.getpid(), process=" ".join([*same, "1"]))
    lease(store).acquire().release()


def test_a_silent_holder_elsewhere_has_lost_it_after_a_term(store: BlobStore) -> None:
    left_by(store)
    told: list[str] = []
    with lease(store, term=0.05).acquire(told.append) as taken:
        taken.check()
    assert told == ["process 1 on elsewhere"]


def test_a_holder_elsewhere_that_renews_keeps_it(store: BlobStore) -> None:
    about = left_by(store)

    def renew(_: str) -> None:
        store.write(PATH, json.dumps(about | {"count": 8}).encode())

    with pytest.raises(ConfigurationError, match="in use by process 1 on elsewhere"):
        lease(store).acquire(renew)


def test_holders_elsewhere_that_were_looked_at_first_are_waited_for_together(
    store: BlobStore,
) -> None:
    left_by(store)
    store.write("other/lease.json", store.read(PATH))
    both = [lease(store, term=0.2), Lease(store, "other/lease.json", "the run 'other'", 0.2)]
    for each in reversed(both):  # so that the term of the second is over with that of the first
        with pytest.raises(ConfigurationError, match="in use by process 1 on elsewhere"):
            each.look()
    told: list[str] = []
    for each in both:
        each.acquire(told.append)
    assert told == ["process 1 on elsewhere"]  # for the second one the term is over
    for each in both:
        each.release()


def test_a_holder_elsewhere_that_has_renewed_since_the_last_look_keeps_it(store: BlobStore) -> None:
    about = left_by(store)
    mine = lease(store)
    with pytest.raises(ConfigurationError):
        mine.look()
    store.write(PATH, json.dumps(about | {"count": 8}).encode())
    with pytest.raises(ConfigurationError, match="in use by process 1 on elsewhere"):
        mine.acquire(lambda holder: pytest.fail(f"it waits for {holder}"))


def test_a_holder_elsewhere_that_ends_meanwhile_gives_way_at_once(store: BlobStore) -> None:
    left_by(store)

    def end(_: str) -> None:
        assert store.supports("delete")
        store.delete(PATH)

    lease(store, term=0.5).acquire(end).release()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"pid": [], "process": 5, "host": null}']
)
def test_a_damaged_lease_is_free_after_a_term(store: BlobStore, content: bytes) -> None:
    store.write(PATH, content)
    lease(store, term=0.05).acquire().release()


def test_a_holder_whose_lease_was_taken_finds_out_and_does_not_take_it_back(
    store: BlobStore,
) -> None:
    mine = lease(store).acquire()
    left_by(store)  # somebody who thought that this process was gone
    with pytest.raises(ConfigurationError, match="in use by process 1 on elsewhere"):
        mine.check()
    mine.release()
    assert json.loads(store.read(PATH))["host"] == "elsewhere"


def test_a_lease_that_was_deleted_is_held_no_longer(store: BlobStore) -> None:
    held = lease(store).acquire()
    assert store.supports("delete")
    store.delete(PATH)
    with pytest.raises(ConfigurationError, match=r"the blob 'run/lease.json', was deleted"):
        held.check()
    held.release()


def test_it_is_renewed_well_before_its_term_is_over(store: BlobStore) -> None:
    renewed = threading.Event()
    write = store.write

    def told(path: str, data: Any) -> None:
        write(path, data)
        if json.loads(data)["count"] == 3:
            renewed.set()

    store.write = told  # type: ignore[method-assign]
    with lease(store, term=0.03).acquire() as held:
        assert renewed.wait(30)
        held.check()


def test_a_store_that_is_away_for_a_while_costs_no_lease(store: BlobStore) -> None:
    failed, renewed = threading.Event(), threading.Event()
    read = store.read

    def away(path: str) -> bytes:
        if not failed.is_set():
            failed.set()
            raise Unavailable("away")
        renewed.set()
        return read(path)

    held = lease(store, term=0.03)
    held._write()
    store.read = away  # type: ignore[method-assign]
    threading.Thread(target=held._renew, daemon=True).start()
    assert renewed.wait(30)
    held.check()
    held.release()


def test_of_many_that_start_at_once_one_goes_on(store: BlobStore) -> None:
    start, held, refused = threading.Barrier(8), [], []

    def contend() -> None:
        start.wait()
        try:
            taken = lease(store).acquire()
        except ConfigurationError as error:
            refused.append(error)
            return
        held.append(taken)

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = []
    for taken in held:  # more than one may think so, until the next look
        try:
            taken.check()
        except ConfigurationError:
            continue
        last.append(taken)
    assert len(last) == 1
    for taken in held:
        taken.release()
    assert not store.exists(PATH)
