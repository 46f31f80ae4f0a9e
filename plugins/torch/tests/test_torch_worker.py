"""The thread of a session: the order of its jobs, and what a failure does to those behind it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
from crucible_adapter_torch.worker import Kind, Worker
from crucible_kitchen import SessionClosed, SessionFailed


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(lambda: None)
    yield worker
    worker.close()


def fail() -> None:
    raise RuntimeError("out of memory")


def test_jobs_run_one_by_one_in_the_order_of_submission() -> None:
    done: list[object] = []
    worker = Worker(lambda: done.append("prepared"))
    futures = [worker.submit(lambda index=index: done.append(index)) for index in range(20)]  # type: ignore[misc]
    futures[-1].result(10)
    worker.close()
    assert done == ["prepared", *range(20)]


def test_submitting_does_not_wait(worker: Worker) -> None:
    go_on = threading.Event()
    first, second = worker.submit(lambda: go_on.wait(10)), worker.submit(lambda: 2)
    assert not first.done()
    go_on.set()
    assert (first.result(10), second.result(10)) == (True, 2)


def test_a_job_cannot_be_cancelled(worker: Worker) -> None:
    go_on = threading.Event()
    futures = [worker.submit(lambda: go_on.wait(10)), worker.submit(lambda: True)]
    assert not any(future.cancel() for future in futures)
    go_on.set()
    assert all(future.result(10) for future in futures)


@pytest.mark.parametrize("kind", ["operation", "inquiry"])
def test_a_failed_operation_fails_what_is_behind_it_and_an_inquiry_does_not(
    worker: Worker, kind: Kind
) -> None:
    go_on = threading.Event()
    worker.submit(lambda: go_on.wait(10))
    failing, behind = worker.submit(fail, kind), worker.submit(lambda: "done")
    go_on.set()
    with pytest.raises(RuntimeError, match="out of memory"):
        failing.result(10)
    if kind == "inquiry":
        assert behind.result(10) == "done"
        return
    with pytest.raises(SessionFailed, match=r"RuntimeError: out of memory"):
        behind.result(10)
    refused: list[Kind] = ["operation", "inquiry"]
    for each in refused:
        with pytest.raises(SessionFailed, match="load a checkpoint"):
            worker.submit(lambda: None, each)


def test_a_rescue_revives_a_failed_worker_if_it_succeeds(worker: Worker) -> None:
    failed: Future[None] = worker.submit(fail)
    assert isinstance(failed.exception(10), RuntimeError)
    assert isinstance(worker.submit(fail, "rescue").exception(10), RuntimeError)
    with pytest.raises(SessionFailed):
        worker.check()
    worker.submit(lambda: None, "rescue").result(10)
    assert worker.submit(lambda: "on").result(10) == "on"


def test_closing_waits_for_the_running_job_and_refuses_the_rest(worker: Worker) -> None:
    started, go_on = threading.Event(), threading.Event()

    def run() -> str:
        started.set()
        assert go_on.wait(10)
        return "ran"

    running, queued = worker.submit(run), worker.submit(lambda: "ran")
    assert started.wait(10)
    closing = threading.Thread(target=worker.close)
    closing.start()
    while True:  # until it is marked as closed
        try:
            worker.check()
        except SessionClosed:
            break
        closing.join(0.001)
    assert closing.is_alive()
    go_on.set()
    closing.join(10)
    assert running.result(0) == "ran"
    assert isinstance(queued.exception(0), SessionClosed)
    kinds: list[Kind] = ["operation", "inquiry", "rescue"]
    for kind in kinds:
        with pytest.raises(SessionClosed):
            worker.submit(lambda: None, kind)
    worker.close()  # again
