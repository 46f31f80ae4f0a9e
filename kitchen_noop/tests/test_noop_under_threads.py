"""64 threads on every port at once: nothing is lost, nothing is torn."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from crucible_kitchen import (
    AdapterError,
    Completion,
    Datum,
    InvalidInput,
    Kitchen,
    ModelInput,
    SamplingParams,
    SessionConfig,
)

import kitchen_noop

pytestmark = pytest.mark.slow

THREADS = 64
ROUNDS = 5


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    quiet = {port: {**table, "latency_scale": 0} for port, table in kitchen_noop.ADAPTERS.items()}
    with Kitchen(adapters=quiet) as kitchen:
        yield kitchen


@pytest.fixture(autouse=True)
def _threads_change_anywhere() -> Iterator[None]:
    """Let go of the interpreter between any two instructions of the adapters, now and then.

    By itself CPython changes threads only where loops turn and functions begin, so most of what
    locks are for would never happen here.
    """
    source = str(Path(kitchen_noop.__file__).parent)
    now_and_then = itertools.cycle([False] * 4 + [True])

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(source):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and next(now_and_then):
            time.sleep(0)
        return trace

    before = threading.gettrace()
    threading.settrace(trace)
    yield
    threading.settrace(before)


def at_once(work: Callable[[int], Any]) -> list[Any]:
    """Run `work(0)` to `work(63)` in as many threads, started together."""
    barrier = threading.Barrier(THREADS)

    def run(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def datum(weight: float) -> Datum:
    inputs = {"target_tokens": np.asarray([2]), "weights": np.asarray([weight], np.float32)}
    return Datum(ModelInput.from_ints([1]), inputs)


def test_sessions_of_their_own(kitchen: Kitchen) -> None:
    client = kitchen.training_client

    def train(number: int) -> list[float]:
        session = client.start_session(SessionConfig("m", seed=number))
        losses = []
        for _ in range(ROUNDS):
            future = client.forward_backward(session, [datum(1.0)])
            client.await_(client.optim_step(session, 1e-3))
            losses.append(client.await_(future).loss)
            client.save_checkpoint(session, f"{number}/")
        assert len(client.list_checkpoints(f"{number}/")) == ROUNDS
        client.close_session(session)
        return losses

    together = at_once(train)
    assert len(set(map(tuple, together))) == THREADS
    assert len(set(client.list_checkpoints())) == THREADS * ROUNDS
    other = Kitchen(adapters={"training_client": {"use": "noop", "latency_scale": 0}})
    client = other.training_client
    assert together == [train(number) for number in range(THREADS)]


def test_one_session(kitchen: Kitchen) -> None:
    client = kitchen.training_client
    session = client.start_session(SessionConfig("m"))
    at_once(lambda number: [client.forward_backward(session, [datum(1.0)]) for _ in range(ROUNDS)])
    norm = client.await_(client.optim_step(session, 1e-3)).grad_norm
    single = client.start_session(SessionConfig("m"))
    client.forward_backward(single, [datum(1.0)])
    one = client.await_(client.optim_step(single, 1e-3)).grad_norm
    assert norm is not None
    assert one is not None
    assert norm == pytest.approx(THREADS * ROUNDS * one, rel=1e-12)


def test_steps_of_one_session(kitchen: Kitchen) -> None:
    client = kitchen.training_client
    session = client.start_session(SessionConfig("m"))

    def steps(number: int) -> list[float]:
        done = []
        for _ in range(ROUNDS):
            client.forward_backward(session, [datum(1.0)])
            with contextlib.suppress(InvalidInput):  # another thread's step took this gradient
                future = client.optim_step(session, 1e-3)
                done.append(client.await_(future).metrics["optimizer_steps"])
        return done

    counted = sorted(step for done in at_once(steps) for step in done)
    assert counted == list(range(1, len(counted) + 1))
    assert session.state.weights.steps == len(counted)


def test_one_gradient_is_applied_once(kitchen: Kitchen) -> None:
    client = kitchen.training_client
    session = client.start_session(SessionConfig("m"))

    def applied(number: int) -> bool:
        with contextlib.suppress(InvalidInput):  # another thread's step took the gradient
            client.await_(client.optim_step(session, 1e-3))
            return True
        return False

    for _ in range(ROUNDS):
        client.forward_backward(session, [datum(1.0)])
        assert sum(at_once(applied)) == 1
    assert session.state.weights.steps == ROUNDS


def test_one_future(kitchen: Kitchen) -> None:
    client = kitchen.training_client
    future = client.forward(client.start_session(SessionConfig("m")), [datum(1.0)])
    assert len({id(result) for result in at_once(lambda number: client.await_(future))}) == 1


def test_one_failed_future(kitchen: Kitchen) -> None:
    failing = {**kitchen_noop.ADAPTERS["training_client"], "latency_scale": 0, "failure_rate": 1}
    client = Kitchen(adapters={"training_client": failing}).training_client
    future = client.forward(client.start_session(SessionConfig("m")), [datum(1.0)])

    def ask(number: int) -> AdapterError:
        with pytest.raises(AdapterError) as caught:
            client.await_(future)
        return caught.value

    errors = at_once(ask)
    assert len({id(error) for error in errors}) == THREADS
    assert {error.callback for error in errors} == {"await_"}


def test_ephemeral_weights(kitchen: Kitchen) -> None:
    client = kitchen.training_client

    def publish(number: int) -> None:
        session = client.start_session(SessionConfig("m"))
        for _ in range(ROUNDS):
            reference = client.save_weights_for_sampler(session)
            kitchen.completer.complete([1], SamplingParams(1, model=reference))

    at_once(publish)


def test_blobs(kitchen: Kitchen) -> None:
    store = kitchen.blob_store

    def write(number: int) -> None:
        content = bytes([number]) * 1000
        for step in range(ROUNDS):
            store.write(f"own/{number}/{step}", content)
            store.write("shared", (content[i : i + 100] for i in range(0, 1000, 100)))
            assert len(set(store.read("shared"))) == 1
            assert len(set(b"".join(store.stream("shared", 7)))) == 1
            assert store.read(f"own/{number}/{step}") == content
            assert len(store.list(f"own/{number}/")) == step + 1
            store.write("deleted", content)
            store.delete("deleted")

    at_once(write)
    assert len(store.list("own/")) == THREADS * ROUNDS
    assert len(store.read("shared")) == 1000


def test_metrics(kitchen: Kitchen) -> None:
    store = kitchen.metrics_store

    def record(number: int) -> None:
        for step in range(ROUNDS):
            store.record(f"own {number}", "x", step, step)
            store.record("log", "unstepped", number)
            store.record_many("shared", {"a": number, "b": number}, step)
            store.flush("shared")
            pairs: dict[int | None, list[float]] = {}
            for row in store.read("shared"):
                pairs.setdefault(row.step, []).append(row.value)
            assert all(len(pair) == 2 and pair[0] == pair[1] for pair in pairs.values())
            assert f"own {number}" in store.runs()

    at_once(record)
    assert len(store.runs()) == THREADS + 2
    log = [row.value for row in store.read("log")]
    assert sorted(log) == sorted(list(range(THREADS)) * ROUNDS)
    assert len(store.read("shared")) == 2 * ROUNDS
    for number in range(THREADS):
        assert [row.step for row in store.read(f"own {number}")] == list(range(ROUNDS))


def test_data_sets(kitchen: Kitchen) -> None:
    store = kitchen.dataset_store
    shared = store.take(store.load_dataset("a", "test"), 12)
    expected = store.to_list(store.shuffle(shared, 1))

    def read(number: int) -> bool:
        ours = store.shuffle(shared, number)
        parts = [store.take(ours, 7), store.skip(ours, 7)]
        rows = [row for part in parts for batch in store.stream(part, 3) for row in batch]
        return rows == store.to_list(ours) and store.to_list(store.shuffle(shared, 1)) == expected

    assert all(at_once(read))


def test_the_hub(kitchen: Kitchen, tmp_path: Path) -> None:
    hub = kitchen.hub_client
    for number in range(THREADS):
        (tmp_path / f"{number}").write_text(str(number))

    def use(number: int) -> str:
        folder = hub.snapshot("other")
        assert all((folder / name).read_bytes() for name in hub.list_files("other"))
        commit = hub.upload("shared", tmp_path / f"{number}", f"uploads/{number}")
        path = hub.download("shared", f"uploads/{number}")
        assert path.read_text() == str(number)
        return commit

    assert len(set(at_once(use))) == THREADS
    uploads = hub.snapshot("shared", allow_patterns=["uploads/"]) / "uploads"
    assert {file.read_text() for file in uploads.iterdir()} == {str(n) for n in range(THREADS)}


def test_completions(kitchen: Kitchen) -> None:
    def texts(number: int) -> list[str]:
        results = kitchen.completer.complete_batch(
            [[1], [number + 2]], SamplingParams(9, seed=number, n=2)
        )
        return [result.text for result in results if isinstance(result, Completion)]

    together = at_once(texts)
    assert all(len(each) == 4 for each in together)
    assert together == [texts(number) for number in range(THREADS)]


def test_failures() -> None:
    """The generator behind them is shared, and draws neither more nor less than it should."""
    from kitchen_noop import conditions

    def failed(run: Callable[[Callable[[int], int]], list[int]]) -> int:
        opts = conditions.Conditions(failure_rate=0.5, seed=1)
        return sum(run(lambda n: sum(conditions.fault(opts) is not None for _ in range(ROUNDS))))

    assert failed(at_once) == failed(lambda work: [work(number) for number in range(THREADS)])
