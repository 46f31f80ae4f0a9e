"""The kit's other processes: what is different there, what arrives, and how they end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import other_process
import pytest
from crucible_kitchen import BlobStore, ConfigurationError, NotFound
from crucible_kitchen.testing import bound
from crucible_kitchen.testing.processes import Elsewhere, Interpreter, Interpreters, ProcessDied
from crucible_kitchen.testing.processes import interpreter as interpreter_module

pytestmark = pytest.mark.slow

SECRET = "sk-very-secret-0123456789"


@pytest.fixture(scope="module")
def interpreters() -> Iterator[Interpreters]:
    started = Interpreters()
    yield started
    started.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlobStore]:
    with bound("blob_store", "fsspec", url=str(tmp_path / "blobs")) as store:
        yield store


@pytest.fixture
def elsewhere(store: BlobStore, interpreters: Interpreters) -> Iterator[Elsewhere]:
    elsewhere = Elsewhere(store, interpreters)
    yield elsewhere
    elsewhere.close()


def test_it_is_another_process_with_other_hashes_folder_umask_and_zone(
    elsewhere: Elsewhere,
) -> None:
    here, there = other_process.surroundings(None), elsewhere.run(other_process.surroundings)
    for name in ("pid", "salt", "hash", "folder", "umask", "zone"):
        assert here[name] != there[name], name


def test_it_imports_from_the_same_places(elsewhere: Elsewhere) -> None:
    there = elsewhere.run(other_process.surroundings)["path"]
    assert there == [os.path.abspath(place) for place in sys.path]


def test_an_adapter_around_another_one_is_bound_there_again(
    interpreters: Interpreters, tmp_path: Path
) -> None:
    inner = {"use": "fsspec", "url": str(tmp_path)}
    with bound("blob_store", "retry", inner=inner) as store:
        elsewhere = Elsewhere(store, interpreters)
        outer, inside = elsewhere.run(other_process.wrapped)
        assert (outer, inside) == (store.module.__name__, store.inner.module.__name__)
        elsewhere.run(BlobStore.write, "a", b"content")
        elsewhere.close()
    assert (tmp_path / "a").read_bytes() == b"content"


def test_a_secret_arrives_and_is_not_seen_from_outside(
    interpreters: Interpreters, tmp_path: Path
) -> None:
    inner = {"use": "fsspec", "url": str(tmp_path)}
    with bound("blob_store", other_process.Keyed(), inner=inner, key=SECRET) as store:
        elsewhere = Elsewhere(store, interpreters)
        assert elsewhere.run(other_process.secret) == SECRET
        process = Path(f"/proc/{elsewhere.run(other_process.pid)}")
        elsewhere.close()
    for name in ("cmdline", "environ"):
        seen = (process / name).read_bytes()
        assert seen
        assert SECRET.encode() not in seen


def test_a_relative_path_leads_to_the_same_place_there(
    interpreters: Interpreters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        bound("metrics_store", "jsonl", path="runs/metrics") as metrics,
        bound("blob_store", "fsspec", url="runs/blobs") as blobs,
    ):
        for port in (metrics, blobs):
            elsewhere = Elsewhere(port, interpreters)
            if port is metrics:
                metrics.record("run", "loss", 1.0, 1)
                metrics.flush("run")
                assert len(elsewhere.run(type(metrics).read, "run")) == 1
            else:
                assert elsewhere.run(other_process.write_and_return, "a", b"content") == "a"
                assert blobs.read("a") == b"content"
            elsewhere.close()


def test_an_error_arrives_as_it_was_with_its_traceback(elsewhere: Elsewhere) -> None:
    with pytest.raises(NotFound, match=r"there is no blob 'missing'") as failure:
        elsewhere.run(BlobStore.read, "missing")
    assert failure.value.callback == "read"
    [note] = failure.value.__notes__
    assert "in another process:\nTraceback" in note


def test_what_cannot_come_back_is_an_error(elsewhere: Elsewhere) -> None:
    with pytest.raises(Exception, match=r"cannot pickle '_thread.lock'"):
        elsewhere.run(other_process.a_lock)
    assert elsewhere.run(other_process.pid)


def test_a_process_that_ends_says_what_it_wrote(elsewhere: Elsewhere) -> None:
    first = elsewhere.run(other_process.pid)
    with pytest.raises(ProcessDied, match=r"ended with 3; it wrote:\nout of luck"):
        elsewhere.run(other_process.ended)
    assert elsewhere.run(other_process.pid) != first


def test_a_process_that_does_not_answer_is_ended_and_says_where_it_was(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = elsewhere.run(other_process.pid)
    monkeypatch.setattr(interpreter_module, "TIMEOUT", 0.3)
    with pytest.raises(ProcessDied, match=r"did not answer within 0.3 s(.|\n)*in hanging"):
        elsewhere.run(other_process.hanging)
    assert not other_process.is_running(first)


def test_every_call_that_waits_ends_with_its_process(elsewhere: Elsewhere) -> None:
    waiting = [elsewhere.submit(other_process.hanging) for _ in range(3)]
    with pytest.raises(ProcessDied):
        elsewhere.run(other_process.ended)
    for each in waiting:
        with pytest.raises(ProcessDied):
            each.result()


def test_a_process_is_killed_the_moment_its_last_function_returns(
    store: BlobStore, elsewhere: Elsewhere
) -> None:
    first = elsewhere.run(other_process.pid)
    assert elsewhere.run_and_die(other_process.write_and_return, "a", b"content") == "a"
    assert store.read("a") == b"content"
    assert elsewhere.run(other_process.pid) != first
    assert _ends(first)


def test_a_restart_is_a_fresh_process(elsewhere: Elsewhere) -> None:
    first = elsewhere.run(other_process.pid)
    elsewhere.restart()
    assert elsewhere.run(other_process.pid) != first
    assert not other_process.is_running(first)


def test_another_one_is_one_more_process(elsewhere: Elsewhere) -> None:
    others = [elsewhere, elsewhere.another(), elsewhere.another()]
    assert len({each.run(other_process.pid) for each in others}) == 3


def test_a_process_serves_one_test_after_the_other(store: BlobStore) -> None:
    interpreters, pids = Interpreters(), []
    for _ in range(2):
        elsewhere = Elsewhere(store, interpreters)
        pids.append(elsewhere.run(other_process.pid))
        elsewhere.close()
    interpreters.close()
    assert pids[0] == pids[1]


def test_a_few_processes_serve_the_next_class_of_tests(store: BlobStore) -> None:
    interpreters, pids = Interpreters(), []
    for _ in range(2):
        elsewhere = Elsewhere(store, interpreters)
        pids.append([each.run(other_process.pid) for each in elsewhere.processes(4)])
        elsewhere.close()
        interpreters.rest()
    interpreters.close()
    assert len({*pids[0]} & {*pids[1]}) == 2
    assert all(map(_ends, {*pids[0], *pids[1]}))


def test_processes_that_begin_together_are_the_same_each_time(elsewhere: Elsewhere) -> None:
    twice = [
        [each.result() for each in elsewhere.submit_together(other_process.pid, [(), ()])]
        for _ in range(2)
    ]
    assert twice[0] == twice[1]
    assert [each.run(other_process.pid) for each in elsewhere.processes(2)] == twice[0]


def test_no_process_begins_if_what_another_is_to_be_given_cannot_be_sent(
    elsewhere: Elsewhere, tmp_path: Path
) -> None:
    file = tmp_path / "begun"
    with open(tmp_path / "a", "w") as unsent, pytest.raises(pytest.skip.Exception):
        elsewhere.submit_together(other_process.touch, [(file,), (unsent,)])
    elsewhere.run(other_process.pid)
    assert not file.exists()


def test_those_that_begin_together_do_not_wait_for_ever(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        """Takes 2 s to arrive, and is None then."""

        def __reduce__(self) -> Any:
            return time.sleep, (2,)

    monkeypatch.setattr("crucible_kitchen.testing.processes.elsewhere.TIMEOUT", 0.1)
    futures = elsewhere.submit_together(other_process.given, [(1,), (Slow(),)])
    assert not futures[1].done()
    assert [each.result() for each in futures] == [1, None]


def test_with_another_environment_it_is_another_process(
    store: BlobStore, interpreters: Interpreters, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = []
    for value in ("one", "two"):
        monkeypatch.setenv("SOME_SETTING", value)
        elsewhere = Elsewhere(store, interpreters)
        pids.append(elsewhere.run(other_process.pid))
        elsewhere.close()
    assert pids[0] != pids[1]


def test_at_the_end_nothing_runs_any_more() -> None:
    with Interpreter() as interpreter:
        pids = [
            interpreter.run(other_process.pid, None),
            interpreter.run(other_process.child, None),
        ]
        assert all(map(other_process.is_running, pids))
    assert all(map(_ends, pids))


def test_an_adapter_that_does_not_pickle_skips_the_test_and_says_why(
    interpreters: Interpreters, tmp_path: Path
) -> None:
    adapter: Any = other_process.Keyed()
    adapter.connection = open(tmp_path / "a", "w")  # noqa: SIM115
    inner = {"use": "fsspec", "url": str(tmp_path)}
    with adapter.connection, bound("blob_store", adapter, inner=inner) as store:
        elsewhere = Elsewhere(store, interpreters)
        with pytest.raises(pytest.skip.Exception, match="cannot be started in another process"):
            elsewhere.run(other_process.pid)


def test_what_cannot_be_bound_there_is_an_error_each_time(tmp_path: Path) -> None:
    interpreters = Interpreters()
    inner = {"use": "fsspec", "url": str(tmp_path)}
    with bound("blob_store", other_process.OnlyHere(), inner=inner) as store:
        elsewhere = Elsewhere(store, interpreters)
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="this is another process"):
                elsewhere.run(other_process.pid)
        elsewhere.close()
    interpreters.close()


def _ends(number: int) -> bool:
    """Whether a process that was killed is gone within seconds."""
    deadline = time.monotonic() + 10
    while other_process.is_running(number):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
