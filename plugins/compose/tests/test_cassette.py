"""What a cassette holds, and what a replay answers."""

from __future__ import annotations

import base64
import io
import json
import threading
import urllib.parse
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import crucible_adapter_compose.cassette as cassettes
import numpy as np
import pytest
from crucible_adapter_compose.cassette.failures import error_of, plain_error
from crucible_adapter_compose.cassette.missing import NotOnCassette
from crucible_adapter_compose.cassette.values import RECORDS, Plain, value_of
from crucible_kitchen import (
    PORTS,
    AdapterError,
    AdapterOptions,
    BlobStore,
    ConfigurationError,
    CrucibleWarning,
    Datum,
    InvalidInput,
    Kitchen,
    ModelInput,
    NotFound,
    RateLimited,
    SamplingParams,
    SessionConfig,
    TrainingClient,
    Unavailable,
    Unsupported,
    helper,
    hookimpl,
)
from pydantic import SecretStr

NOOP: dict[str, Any] = {"use": "noop", "latency_scale": 0}
NOT_INSTALLED = {"use": "not-installed", "key": "not read"}
CANARY = "c4n4ry-Xy-58"


class Tapes:
    """Binds the recording of an adapter, then its replay."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._kitchens: list[Kitchen] = []

    def bind(self, port: str, mode: str, inner: Any, **options: Any) -> Any:
        table = {"use": getattr(cassettes, port), "file": self.file, "mode": mode, **options}
        self._kitchens.append(Kitchen({port: {**table, "inner": inner}}))
        return self._kitchens[-1].port(PORTS[port])

    def record(self, port: str, inner: Any = NOOP, **options: Any) -> Any:
        return self.bind(port, "record", inner, **options)

    def replay(self, port: str, inner: Any = NOT_INSTALLED, **options: Any) -> Any:
        self.close()
        return self.bind(port, "replay", inner, **options)

    def close(self) -> None:
        for kitchen in self._kitchens:
            kitchen.close()
        self._kitchens.clear()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()]


@pytest.fixture
def tapes(tmp_path: Path) -> Iterator[Tapes]:
    made = Tapes(tmp_path / "cassette.jsonl")
    yield made
    made.close()


def datums(*tokens: int) -> list[Datum]:
    row = np.array(tokens)
    weights = np.ones(len(row) - 1, np.float32)
    return [Datum(ModelInput.from_ints(row[:-1]), {"target_tokens": row[1:], "weights": weights})]


# --- answers ---


@pytest.mark.parametrize("port", PORTS)
def test_a_replay_serves_the_callbacks_that_the_recorded_adapter_did(
    port: str, tapes: Tapes
) -> None:
    recorded = tapes.record(port)
    served = [name for name in recorded.callbacks() if recorded.supports(name)]
    with_calls = {
        "training_client": lambda p: p.start_session(SessionConfig("any")),
        "dataset_store": lambda p: p.load_dataset("any"),
        "blob_store": lambda p: p.exists("a"),
        "hub_client": lambda p: p.list_files("any/any"),
        "metrics_store": lambda p: p.read("r"),
        "completer": lambda p: p.complete([1, 2], SamplingParams(2, seed=0)),
    }
    with_calls[port](recorded)
    replayed = tapes.replay(port)
    assert [name for name in replayed.callbacks() if replayed.supports(name)] == served


def test_the_backend_is_neither_imported_nor_bound_in_a_replay(tapes: Tapes) -> None:
    tapes.record("blob_store").write("a", b"1")
    replayed = tapes.replay("blob_store", {"use": "nothing-of-this-name", "wrong": object()})
    replayed.write("a", b"1")


def test_a_step_of_training_is_replayed_to_the_bit(tapes: Tapes) -> None:
    def step(client: Any) -> list[Any]:
        session = client.start_session(SessionConfig("any"))
        loss = client.forward_backward(session, datums(1, 2, 3))
        update = client.optim_step(session, 1e-3)
        found = client.await_(loss), client.await_(update)
        tokenizer = client.helper("get_tokenizer")(session)
        return [
            found[0].loss,
            found[0].outputs[0]["logprobs"].tobytes(),
            found[1],
            client.save_checkpoint(session, "mine"),
            client.get_info(session),
            tokenizer.encode("a b"),
            tokenizer.eos_token_id,
            getattr(tokenizer, "chat_template", "absent"),
        ]

    assert step(tapes.record("training_client")) == step(tapes.replay("training_client"))


def test_an_error_is_replayed_with_all_that_it_says(tapes: Tapes) -> None:
    class Fails:
        class Options(AdapterOptions):
            inner: BlobStore

        @hookimpl
        def around(self, call: Any) -> Any:
            raise RateLimited(
                "slow down", retry_after=7.5, no_effect=False, details={"codes": (4, 2)}
            )

    def failure(store: Any) -> AdapterError:
        with pytest.raises(RateLimited) as raised:
            store.read("a")
        return raised.value

    first = failure(tapes.record("blob_store", {"use": Fails(), "inner": NOOP}))
    again = failure(tapes.replay("blob_store"))
    assert {**vars(again), "retryable": None} == {**vars(first), "retryable": None}
    assert str(again) == str(first) == "blob_store.Fails.read: slow down"
    assert again.retryable


def test_an_error_of_a_class_of_its_own_is_replayed_as_the_nearest_one_of_ours() -> None:
    class Busy(Unavailable): ...

    made = error_of(plain_error(Busy("b"), Plain(str)), value_of)
    assert type(made) is Unavailable
    assert made.reason == "b"


def test_a_batch_is_replayed_with_the_errors_in_it(tapes: Tapes) -> None:
    def batch(completer: Any) -> list[str]:
        found = completer.complete_batch([[1], [2], [3]], SamplingParams(3, seed=1))
        return [
            str(each) if isinstance(each, AdapterError) else f"{each.text} {each.tokens}"
            for each in found
        ]

    failing = {"use": "noop", "latency_scale": 0, "fault_rate": 0.5, "seed": 3}
    try:
        recorded = batch(tapes.record("completer", failing))
    except ConfigurationError:
        recorded = batch(tapes.record("completer"))
    assert batch(tapes.replay("completer")) == recorded


def test_a_stream_is_replayed_piece_by_piece(tapes: Tapes) -> None:
    store = tapes.record("blob_store")
    store.write("a", bytes(range(256)))
    pieces = [*store.stream("a", 100)]
    assert [*map(len, pieces)] == [100, 100, 56]
    assert [*tapes.replay("blob_store").stream("a", 100)] == pieces


def test_a_stream_that_was_left_early_is_replayed_up_to_there(tapes: Tapes) -> None:
    store = tapes.record("blob_store")
    store.write("a", b"abcdef")
    with store.stream("a", 2) as stream:
        assert next(stream) == b"ab"
    replayed = tapes.replay("blob_store").stream("a", 2)
    assert next(replayed) == b"ab"
    with pytest.raises(NotOnCassette, match=r"1 items? of this stream, which was left there"):
        next(replayed)


def test_a_stream_that_fails_is_replayed_with_its_failure(tapes: Tapes) -> None:
    store = tapes.record("blob_store")
    with pytest.raises(NotFound) as recorded:
        [*store.stream("nothing")]
    with pytest.raises(NotFound) as replayed:
        [*tapes.replay("blob_store").stream("nothing")]
    assert str(replayed.value) == str(recorded.value)


@pytest.mark.parametrize(
    "data",
    [
        lambda: b"abcdef",
        lambda: iter([b"abc", b"def"]),
        lambda: [b"abc", b"def"],
        lambda: io.BytesIO(b"abcdef"),
    ],
    ids=["bytes", "iterator", "list", "file"],
)
def test_a_blob_is_written_whatever_it_comes_as(data: Callable[[], Any], tapes: Tapes) -> None:
    store = tapes.record("blob_store")
    store.write("a", data())
    assert store.read("a") == b"abcdef"
    replayed = tapes.replay("blob_store")
    replayed.write("a", data())
    assert replayed.read("a") == b"abcdef"


def test_a_blob_of_other_content_is_not_on_the_cassette(tapes: Tapes) -> None:
    tapes.record("blob_store").write("a", iter([b"abc"]))
    with pytest.raises(NotOnCassette, match=r"data is 3 bytes, sha256 \w+, and not 4 bytes"):
        tapes.replay("blob_store").write("a", iter([b"abcd"]))


def test_a_blob_whose_iterator_fails_is_replayed_as_that_failure(tapes: Tapes) -> None:
    def failing() -> Iterator[bytes]:
        yield b"abc"
        raise KeyError("gone")

    for bind in (tapes.record, tapes.replay):
        with pytest.raises(AdapterError, match="gone"):
            bind("blob_store").write("a", failing())
        tapes.close()


def test_rows_keep_their_types(tapes: Tapes) -> None:
    import datetime
    import decimal

    row: dict[str, Any] = {
        "text": "a\u2028b\ud800",
        "bytes": b"\xff\x00",
        "float": float("inf"),
        "none": None,
        "time": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        "date": datetime.date(2026, 1, 2),
        "decimal": decimal.Decimal("1.10"),
        "array": np.array([[1.5, np.nan]], np.float32),
        "$odd": {"1": [True, 2**80, -0.0]},
        "pair": (1, "b"),
        "span": datetime.timedelta(1, 2, 3),
        "range": range(1, 9, 2),
        "keys": {1: "one"},
    }
    made = value_of(json.loads(json.dumps(Plain(str)(row), allow_nan=False)))
    assert made["array"].tobytes() == row["array"].tobytes()
    assert made["array"].dtype == np.float32
    assert {**made, "array": 0} == {**row, "array": 0}
    assert str(made["$odd"]["1"][2]) == "-0.0"


def test_every_value_of_the_ports_can_be_recorded() -> None:
    import dataclasses

    import crucible_kitchen

    exported = {name: getattr(crucible_kitchen, name) for name in crucible_kitchen.__all__}
    values = {
        name
        for name, kind in exported.items()
        if isinstance(kind, type)
        and dataclasses.is_dataclass(kind)
        and kind.__module__ == "crucible_kitchen.types"
    }
    assert values <= RECORDS.keys()


def test_what_a_cassette_cannot_hold_is_unsupported_in_a_replay(tapes: Tapes) -> None:
    class Rows:
        @hookimpl
        def load_dataset(self, dataset_id: str) -> Any:
            return [{"image": object()}]

        @hookimpl
        def to_list(self, handle: Any) -> Any:
            return handle

        @hookimpl
        def get_split(self, handle: Any, split: str) -> Any: ...
        @hookimpl
        def shuffle(self, handle: Any, seed: int) -> Any: ...
        @hookimpl
        def take(self, handle: Any, count: int) -> Any: ...
        @hookimpl
        def skip(self, handle: Any, count: int) -> Any: ...
        @hookimpl
        def select(self, handle: Any, selection: Any) -> Any: ...

    store = tapes.record("dataset_store", Rows())
    assert len(store.to_list(store.load_dataset("any"))) == 1
    replayed = tapes.replay("dataset_store")
    with pytest.raises(Unsupported, match=r"holds a builtins.object, which a cassette cannot"):
        replayed.to_list(replayed.load_dataset("any"))


# --- files ---


def test_downloaded_files_are_kept_next_to_the_cassette(tapes: Tapes) -> None:
    def contents(hub: Any) -> dict[str, bytes]:
        [first, *_] = hub.list_files("any/any")
        folder = hub.snapshot("any/any")
        one = hub.download("any/any", first)
        inside = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*.*")}
        return {**inside, "one": one.read_bytes(), "name": one.name.encode()}

    recorded = contents(tapes.record("hub_client"))
    assert len(recorded) > 2
    assert contents(tapes.replay("hub_client")) == recorded


def test_files_that_are_too_large_are_not_kept(tapes: Tapes) -> None:
    tapes.record("hub_client", max_file_bytes=1).snapshot("any/any")
    with pytest.raises(Unsupported, match="more than its option max_file_bytes"):
        tapes.replay("hub_client").snapshot("any/any")


def test_files_that_were_changed_are_an_error(tapes: Tapes) -> None:
    hub = tapes.record("hub_client")
    [first, *_] = hub.list_files("any/any")
    hub.download("any/any", first)
    tapes.close()
    [kept] = [f for f in Path(f"{tapes.file}.files").rglob("*") if f.is_file()]
    kept.write_bytes(b"other")
    with pytest.raises(AdapterError, match="missing, or were changed"):
        tapes.replay("hub_client").download("any/any", first)


def test_exported_weights_are_put_back(tapes: Tapes, tmp_path: Path) -> None:
    def exported(client: Any, folder: Path) -> dict[str, bytes]:
        folder.mkdir()
        session = client.start_session(SessionConfig("any"))
        client.export_weights(session, folder)
        return {file.name: file.read_bytes() for file in folder.iterdir()}

    recorded = exported(tapes.record("training_client"), tmp_path / "a")
    assert recorded
    assert exported(tapes.replay("training_client"), tmp_path / "b") == recorded


# --- matching ---


def test_the_nearest_call_and_the_first_difference_are_named(tapes: Tapes) -> None:
    client = tapes.record("training_client")
    session = client.start_session(SessionConfig("any"))
    client.forward_backward(session, datums(1, 2, 3))
    replayed = tapes.replay("training_client")
    session = replayed.start_session(SessionConfig("any"))
    with pytest.raises(NotOnCassette) as raised:
        replayed.forward_backward(session, datums(1, 2, 4))
    assert "does not have this call of forward_backward. The nearest is call 2" in str(raised.value)
    assert (
        "datums[0].loss_fn_inputs.target_tokens is int64 of shape (2,), [2, 3], and not int64 of "
        "shape (2,), [2, 4]" in str(raised.value)
    )
    assert not raised.value.retryable
    assert raised.value.no_effect


@pytest.mark.parametrize(
    ("place", "recorded", "given", "said"),
    [
        (37, 0.0, 1.0, "weights[37] is 0.0, and not 1.0; "),
        (37, 0.0, -0.0, "weights[37] is 0.0, and not -0.0; "),
        (70, 0.0, 1.0, "weights is float32 of shape (99,), sha256 "),  # a digest has no elements
    ],
)
def test_the_first_element_in_which_arrays_differ_is_named(
    place: int, recorded: float, given: float, said: str, tapes: Tapes
) -> None:
    def weighted(weight: float) -> list[Datum]:
        [datum] = datums(*range(40 if place < 40 else 100))
        weights = np.zeros(len(datum.loss_fn_inputs["weights"]), np.float32)
        weights[place] = weight
        return [Datum(datum.model_input, {**datum.loss_fn_inputs, "weights": weights})]

    client = tapes.record("training_client")
    client.forward_backward(client.start_session(SessionConfig("any")), weighted(recorded))
    replayed = tapes.replay("training_client")
    session = replayed.start_session(SessionConfig("any"))
    with pytest.raises(NotOnCassette) as raised:
        replayed.forward_backward(session, weighted(given))
    assert f"where datums[0].loss_fn_inputs.{said}" in str(raised.value)
    one, _, other = str(raised.value).partition(" is ")[2].partition(", and not ")
    assert one != other.partition(";")[0]


def test_where_long_texts_begin_to_differ_is_said_and_not_shown(tapes: Tapes) -> None:
    tapes.record("blob_store").write("a" * 80 + "bcd", b"1")
    with pytest.raises(NotOnCassette, match=r'path is "a+\.\.\., and differs after character 81;'):
        tapes.replay("blob_store").write("a" * 80 + "xyz", b"1")


def test_a_call_is_answered_as_often_as_it_was_recorded(tapes: Tapes) -> None:
    store = tapes.record("blob_store")
    store.write("a", b"1")
    assert store.read("a") == b"1"
    store.write("a", b"2")
    assert store.read("a") == b"2"
    replayed = tapes.replay("blob_store")
    assert [replayed.read("a"), replayed.read("a")] == [b"1", b"2"]
    with pytest.raises(NotOnCassette, match="has 2 calls of read, all asked for before"):
        replayed.read("a")
    with pytest.raises(NotOnCassette, match="has no call of list"):
        replayed.list("")


def test_the_calls_of_a_session_are_answered_in_their_order_alone(tapes: Tapes) -> None:
    client = tapes.record("training_client")
    session = client.start_session(SessionConfig("any"))
    for tokens in ((1, 2, 3), (4, 5, 6)):
        client.forward_backward(session, datums(*tokens))
        client.optim_step(session, 1e-3)
    replayed = tapes.replay("training_client")
    session = replayed.start_session(SessionConfig("any"))
    with pytest.raises(NotOnCassette, match=r"but after other calls \(it is call 4\)"):
        replayed.forward_backward(session, datums(4, 5, 6))


def test_a_session_may_be_closed_earlier_than_it_was(tapes: Tapes) -> None:
    client = tapes.record("training_client")
    session = client.start_session(SessionConfig("any"))
    client.forward_backward(session, datums(1, 2, 3))
    client.close_session(session)
    replayed = tapes.replay("training_client")
    replayed.close_session(replayed.start_session(SessionConfig("any")))


def test_threads_that_download_the_same_keep_it_once(tapes: Tapes) -> None:
    hub = tapes.record("hub_client")
    threads = [threading.Thread(target=hub.snapshot, args=["any/any"]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([*Path(f"{tapes.file}.files").iterdir()]) == 1


def test_futures_may_be_awaited_in_any_order_from_any_thread_and_again(tapes: Tapes) -> None:
    client = tapes.record("training_client")
    session = client.start_session(SessionConfig("any"))
    futures = [client.forward_backward(session, datums(1, 2, n)) for n in range(3, 9)]
    losses = [client.await_(future).loss for future in futures]
    replayed = tapes.replay("training_client")
    session = replayed.start_session(SessionConfig("any"))
    futures = [replayed.forward_backward(session, datums(1, 2, n)) for n in range(3, 9)]
    found: dict[int, float] = {}

    def wait(place: int) -> None:
        found[place] = replayed.await_(futures[place], timeout=3.0).loss

    threads = [threading.Thread(target=wait, args=[n]) for n in (5, 3, 0, 1, 4, 2, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[n] for n in range(6)] == losses


def test_calls_of_threads_are_replayed_whoever_is_first(tapes: Tapes) -> None:
    def ask(completer: Any, order: list[int]) -> dict[int, str]:
        found: dict[int, str] = {}

        def one(n: int) -> None:
            found[n] = completer.complete([1, n], SamplingParams(4, seed=n)).text

        threads = [threading.Thread(target=one, args=[n]) for n in order]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    recorded = ask(tapes.record("completer"), [*range(12)])
    assert ask(tapes.replay("completer"), [*range(11, -1, -1)]) == recorded


def test_a_replay_has_no_checkpoints_to_list_or_to_delete_but_those_of_the_recording(
    tapes: Tapes,
) -> None:
    client = tapes.record("training_client")
    reference = client.save_checkpoint(client.start_session(SessionConfig("any")), "run/1")
    assert client.list_checkpoints("run/") == [reference]
    replayed = tapes.replay("training_client")
    assert replayed.list_checkpoints("run/") == [reference]
    assert replayed.list_checkpoints("another/") == []
    assert replayed.helper("keeps_checkpoints")().startswith("a replay deletes no checkpoints")
    with pytest.warns(CrucibleWarning, match="a replay deletes no checkpoints: those of"):
        replayed.delete_checkpoint(reference)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once is enough
        replayed.delete_checkpoint(f"{reference}/2")


def test_checkpoints_that_were_listed_later_are_not_said_to_be_none(tapes: Tapes) -> None:
    client = tapes.record("training_client")
    client.save_checkpoint(client.start_session(SessionConfig("any")), "run/1")
    client.list_checkpoints("run/")
    with pytest.raises(NotOnCassette, match="start_session, comes before it"):
        tapes.replay("training_client", ordered=True).list_checkpoints("run/")


def test_a_list_that_was_not_recorded_has_what_was_saved_so_far(tapes: Tapes) -> None:
    def program(client: Any, *, lists: bool) -> Iterator[list[str]]:
        session = client.start_session(SessionConfig("any"))
        first = client.save_checkpoint(session, "run/1")
        client.await_(client.save_checkpoint_async(session, "run/2"))
        yield client.list_checkpoints("run/") if lists else []
        client.save_checkpoint(session, "other/1")
        client.delete_checkpoint(first)
        yield client.list_checkpoints("run/") if lists else []

    assert [*program(tapes.record("training_client"), lists=False)] == [[], []]
    both, second = program(tapes.replay("training_client"), lists=True)
    assert [each.rpartition("/")[2] for each in both] == ["run%2F1", "run%2F2"]
    assert second == both[1:]


def test_where_no_session_is_replayed_the_list_has_what_the_recording_left(tapes: Tapes) -> None:
    client = tapes.record("training_client")
    session = client.start_session(SessionConfig("any"))
    saved = [client.save_checkpoint(session, f"run/{step}") for step in (1, 2, 10)]
    client.delete_checkpoint(saved[0])
    replayed = tapes.replay("training_client")
    assert replayed.list_checkpoints("run/") == saved[1:]
    assert replayed.list_checkpoints("run/1") == saved[2:]
    assert replayed.list_checkpoints("run/3") == []


def test_a_list_that_is_asked_for_once_more_does_not_become_empty(tapes: Tapes) -> None:
    client = tapes.record("training_client")
    session = client.start_session(SessionConfig("any"))
    lists = []
    for step in (1, 2):
        client.save_checkpoint(session, f"run/{step}")
        lists.append(client.list_checkpoints("run/"))
    replayed = tapes.replay("training_client")
    asked = [replayed.list_checkpoints("run/") for _ in range(4)]
    assert asked == [*lists, lists[-1], lists[-1]]


def test_a_list_finds_the_labels_of_a_run_with_another_id(tapes: Tapes) -> None:
    ids = [str(uuid.uuid4()) for _ in range(3)]
    client = tapes.record("training_client")
    saved = client.save_checkpoint(client.start_session(SessionConfig("any")), f"{ids[0]}/1")
    replayed = tapes.replay("training_client")
    session = replayed.start_session(SessionConfig("any"))
    assert replayed.list_checkpoints(f"{ids[1]}/") == []
    assert replayed.save_checkpoint(session, f"{ids[1]}/1") == saved
    assert replayed.list_checkpoints(f"{ids[1]}/") == [saved]
    assert replayed.list_checkpoints(f"{ids[2]}/") == []


def test_all_checkpoints_are_not_known_where_they_were_not_listed(tapes: Tapes) -> None:
    client = tapes.record("training_client")
    client.save_checkpoint(client.start_session(SessionConfig("any")), "run/1")
    with pytest.raises(NotOnCassette, match="has no call of list_checkpoints"):
        tapes.replay("training_client").list_checkpoints()


class HasOlder:
    """A training client in which a checkpoint is from before."""

    class Options(AdapterOptions):
        inner: TrainingClient
        token: str = CANARY

    @hookimpl
    def list_checkpoints(self, opts: Options, prefix: str) -> list[str]:
        return ["older", *opts.inner.list_checkpoints(prefix)]


def test_a_list_is_not_known_where_others_saved_checkpoints_before(tapes: Tapes) -> None:
    client = tapes.record("training_client", {"use": HasOlder(), "inner": NOOP})
    client.save_checkpoint(client.start_session(SessionConfig("any")), "run/1")
    client.list_checkpoints("run/")
    replayed = tapes.replay("training_client")
    assert len(replayed.list_checkpoints("run/")) == 2
    for prefix in ("run/", "run", "run/1", ""):
        with pytest.raises(NotOnCassette):
            replayed.list_checkpoints(prefix)
    assert replayed.list_checkpoints("other/") == []


def test_a_list_is_not_known_where_a_label_that_may_be_meant_is_masked(tapes: Tapes) -> None:
    client = tapes.record("training_client", {"use": HasOlder(), "inner": NOOP})
    session = client.start_session(SessionConfig("any"))
    saved = client.save_checkpoint(session, f"run/{CANARY}/1")
    replayed = tapes.replay("training_client")
    with pytest.raises(NotOnCassette):
        replayed.list_checkpoints(f"run/{CANARY}/")
    [listed] = replayed.list_checkpoints("run/")
    assert listed.replace("*" * 10, CANARY) == saved
    assert replayed.list_checkpoints("other/") == []


def test_a_result_that_was_not_there_yet_is_there_in_a_replay(tapes: Tapes) -> None:
    client = tapes.record("training_client", {"use": "noop", "latency_scale": 50})
    session = client.start_session(SessionConfig("any"))
    future = client.forward_backward(session, datums(1, 2, 3))
    with pytest.raises(TimeoutError):
        client.await_(future, timeout=0.0)
    loss = client.await_(future).loss
    replayed = tapes.replay("training_client")
    session = replayed.start_session(SessionConfig("any"))
    future = replayed.forward_backward(session, datums(1, 2, 3))
    assert replayed.await_(future, timeout=0.0).loss == loss


def test_what_is_random_in_the_labels_of_runs_is_not_compared(tapes: Tapes) -> None:
    client = tapes.record("training_client")
    session = client.start_session(SessionConfig("any"))
    reference = client.save_checkpoint(session, "run/0a1b2c3d/00000003")
    tapes.close()
    replayed = tapes.replay("training_client")
    session = replayed.start_session(SessionConfig("any"))
    with pytest.raises(NotOnCassette, match="path is "):
        replayed.save_checkpoint(session, "run/ffffffff/00000004")
    assert replayed.save_checkpoint(session, "run/ffffffff/00000003") == reference


def test_what_else_differs_from_run_to_run_can_be_named(tapes: Tapes) -> None:
    tapes.record("blob_store").write("/tmp-17/a".lstrip("/"), b"1")
    tapes.replay("blob_store", varying=[r"tmp-\d+"]).write("tmp-4/a", b"1")


def test_a_handle_of_another_adapter_is_not_taken_for_one_of_the_cassette(tapes: Tapes) -> None:
    store = tapes.record("dataset_store")
    store.to_list(store.take(store.load_dataset("any", "train"), 2))
    replayed = tapes.replay("dataset_store")
    with pytest.raises(NotOnCassette, match="handle is handle 1, and not a str, which is not"):
        replayed.take("a foreign one", 2)


# --- the file ---


def test_once_records_what_is_not_there_and_replays_what_is(tapes: Tapes) -> None:
    tapes.bind("blob_store", "once", NOOP).write("a", b"1")
    tapes.close()
    again = tapes.bind("blob_store", "once", NOT_INSTALLED)
    again.write("a", b"1")
    with pytest.raises(NotOnCassette):
        again.write("a", b"2")


def mistake(tapes: Tapes, port: str = "blob_store", **options: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        tapes.replay(port, **options)
    return str(raised.value)


def test_a_cassette_that_does_not_exist_is_a_mistake_that_says_how_to_record(tapes: Tapes) -> None:
    said = mistake(tapes)
    assert said.startswith("adapters.blob_store.file: ")
    assert "not-installed" not in said
    assert 'cassette.jsonl does not exist; record it with mode = "record" or "once"' in said


def test_a_kept_cassette_is_whole_or_refused(tapes: Tapes) -> None:
    store = tapes.record("blob_store")
    store.write("a", b"1")
    store.read("a")
    tapes.close()
    whole = tapes.file.read_bytes()
    for end in range(len(whole) - 1):
        tapes.file.write_bytes(whole[:end])
        mistake(tapes)
    for damaged in (
        whole.replace(b'"text": "1"', b'"text": "2"'),
        whole.replace(b'"write"', b'"wrote"'),
        b"\xff" + whole,
        whole + b"more\n",
    ):
        tapes.file.write_bytes(damaged)
        mistake(tapes)
    tapes.file.write_bytes(whole)
    tapes.replay("blob_store")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"cassette": 1', '"cassette": 2', "is a cassette of version 2, and this package reads"),
        ('"port": "blob_store"', '"port": "completer"', "of a completer, not of a blob_store"),
        ('{"end"', '{"not"', "is unfinished"),
        ('{"cassette"', '{"tape"', "is not a cassette"),
        ('"text": "1"', '"text": "2"', "was changed since it was recorded"),
    ],
)
def test_what_is_wrong_with_a_cassette_is_said(old: str, new: str, said: str, tapes: Tapes) -> None:
    store = tapes.record("blob_store")
    store.write("a", b"1")
    store.read("a")
    tapes.close()
    tapes.file.write_text(tapes.file.read_text().replace(old, new))
    assert said in mistake(tapes)


def test_a_cassette_without_a_digest_at_its_end_may_be_edited(tapes: Tapes) -> None:
    store = tapes.record("blob_store")
    store.write("a", b"1")
    store.read("a")
    tapes.close()
    *lines, _ = tapes.file.read_text().replace('"text": "1"', '"text": "2"').splitlines()
    end = json.dumps({"end": {"lines": len(lines)}})
    tapes.file.write_text("\n".join([*lines, end]) + "\n")
    assert tapes.replay("blob_store").read("a") == b"2"


@pytest.mark.parametrize(
    "answer",
    [
        {"$pickle": "gASVBQAAAAAAAABLAS4="},
        {"$object": 1},
        {"$array": {"dtype": "O", "shape": [1], "numbers": [1]}},
        {"$array": {"dtype": "int64", "shape": [3], "numbers": [1]}},
        {"$Datum": {"nothing": 1}},
        {"$float": "much"},
        {"$decimal": "x"},
        {"$bytes": 7},
    ],
)
def test_an_answer_of_no_known_type_is_an_error(answer: Any, tapes: Tapes) -> None:
    store = tapes.record("blob_store")
    store.write("a", b"1")
    store.read("a")
    tapes.close()
    *lines, _ = tapes.lines()
    lines[-1]["returned"] = answer
    lines.append({"end": {"lines": len(lines)}})
    tapes.file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(AdapterError, match=r"holds something else|is not known|an array of"):
        tapes.replay("blob_store").read("a")


def test_a_recording_goes_on_after_its_adapter_was_closed(tapes: Tapes) -> None:
    store = tapes.record("blob_store")
    store.write("a", b"1")
    store.close()
    assert "end" in tapes.lines()[-1]
    store.write("b", b"2")
    assert len(tapes.lines()) == 3
    store.close()
    store.close()
    replayed = tapes.replay("blob_store")
    replayed.write("a", b"1")
    replayed.write("b", b"2")


def test_nothing_is_written_before_the_first_call(tapes: Tapes) -> None:
    tapes.record("blob_store")
    tapes.close()
    assert not tapes.file.exists()


def test_of_two_recordings_that_overlap_both_stay_and_the_last_says_so(tapes: Tapes) -> None:
    one, two = tapes.record("blob_store"), tapes.record("blob_store")
    one.write("a", b"1")
    two.write("b", b"2")
    one.close()
    with pytest.warns(CrucibleWarning, match="was recorded by another process meanwhile") as said:
        two.close()
    two.write("c", b"3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tapes.replay("blob_store").write("a", b"1")
    [kept] = tapes.file.parent.glob("cassette.jsonl.*")
    assert f"this recording is {kept.name}, next to it" in str(said[0].message)
    replayed = tapes.replay("blob_store", file=kept)
    replayed.write("b", b"2")
    replayed.write("c", b"3")


def test_a_cassette_is_not_recorded_over(tapes: Tapes) -> None:
    early = tapes.record("blob_store")  # before there is one
    tapes.record("blob_store").write("a", b"1")
    tapes.close()
    with pytest.raises(InvalidInput, match="a recording replaces no cassette") as at_a_call:
        early.write("b", b"2")
    assert at_a_call.value.no_effect
    kept = tapes.file.read_bytes()
    with pytest.raises(ConfigurationError) as raised:
        tapes.record("blob_store")
    assert str(raised.value).startswith("adapters.blob_store.file: ")
    assert (
        "cassette.jsonl exists, and a recording replaces no cassette; delete it to record it "
        'again, or set mode = "once" to replay what exists' in str(raised.value)
    )
    assert tapes.file.read_bytes() == kept
    tapes.file.unlink()
    tapes.record("blob_store").write("b", b"2")
    tapes.replay("blob_store").write("b", b"2")


@pytest.mark.parametrize("mode", ["record", "once"])
def test_two_ports_that_record_to_one_file_are_a_mistake_that_names_both(
    mode: str, tapes: Tapes
) -> None:
    def kitchen(completer: Path) -> Kitchen:
        def table(port: str, file: Path) -> dict[str, Any]:
            return {"use": getattr(cassettes, port), "file": file, "mode": mode, "inner": NOOP}

        adapters = {
            "training_client": table("training_client", tapes.file),
            "completer": table("completer", completer),
        }
        return Kitchen(adapters)

    wrong = kitchen(tapes.file)
    with wrong, pytest.raises(ConfigurationError) as raised:
        assert wrong.training_client.adapter == wrong.completer.adapter
    assert str(raised.value).startswith("adapters.completer: ")
    assert "completer and training_client would both record to " in str(raised.value)
    with kitchen(tapes.file.with_name("other.jsonl")) as right:
        right.training_client.start_session(SessionConfig("any"))
        right.completer.complete([1], SamplingParams(1, seed=0))


@pytest.mark.parametrize("mode", ["record", "once"])
@pytest.mark.parametrize("wrapper", ["fallback", "tee"])
def test_two_cassettes_of_one_port_that_record_to_one_file_are_a_mistake(
    wrapper: str, mode: str, tapes: Tapes
) -> None:
    def kitchen(second: Path) -> Kitchen:
        table = {"use": cassettes.blob_store, "mode": mode, "inner": NOOP}
        inner = [{**table, "file": file} for file in (tapes.file, second)]
        return Kitchen({"blob_store": {"use": wrapper, "inner": inner}})

    folder = tapes.file.parent / "same"  # a second name of it
    folder.symlink_to(tapes.file.parent)
    for file in (tapes.file, folder / tapes.file.name):
        with kitchen(file) as wrong, pytest.raises(ConfigurationError) as raised:
            wrong.blob_store  # noqa: B018
        assert str(raised.value).startswith("adapters.blob_store.inner: two cassettes would both")
        assert f"record to {tapes.file}; give each a file of its own" in str(raised.value)
    with kitchen(tapes.file.with_name("other.jsonl")) as right:
        right.blob_store.write("a", b"1")
    assert tapes.file.exists()


def test_a_cassette_around_another_one_records_to_another_file(tapes: Tapes) -> None:
    inner = {"use": cassettes.blob_store, "mode": "record", "file": tapes.file, "inner": NOOP}
    with pytest.raises(ConfigurationError, match="two cassettes would both record to"):
        tapes.record("blob_store", {"use": "retry", "inner": inner})


def test_two_cassettes_may_replay_one_file_and_each_has_all_of_its_calls(tapes: Tapes) -> None:
    tapes.record("blob_store").write("a", b"1")
    tapes.close()
    table = {"use": cassettes.blob_store, "file": tapes.file}
    with (
        Kitchen({"blob_store": {"use": "tee", "inner": [table, table]}}) as kitchen,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")  # the second one is reported by a warning
        kitchen.blob_store.write("a", b"1")


def test_a_closed_adapter_records_to_its_file_no_more(tapes: Tapes) -> None:
    tapes.record("blob_store").close()
    tapes.record("completer").complete([1], SamplingParams(1, seed=0))


def test_a_place_that_cannot_be_written_is_said_at_the_first_call(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    tapes = Tapes(tmp_path / "file" / "cassette.jsonl")
    with pytest.raises(InvalidInput, match="cannot record to"):
        tapes.record("blob_store").write("a", b"1")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "none"}, "what VCR.py calls 'none' is 'replay' here"),
        (
            {"mode": "new_episodes"},
            "what VCR.py calls 'new_episodes' is 'record' here, after the older",
        ),
        ({"mode": "recrod"}, "Input should be 'replay', 'record' or 'once'"),
        ({"varying": ["("]}, "is not a regular expression"),
        ({"varying": ["x*"]}, "matches the empty text"),
        ({"mode": "record", "inner": None}, 'name the adapter to record: inner = "<name>"'),
        ({"mode": "record", "inner": "fsspecc"}, "inner: no blob_store adapter is named 'fsspecc'"),
    ],
)
def test_a_mistake_in_the_options_is_worded(
    options: dict[str, Any], said: str, tapes: Tapes
) -> None:
    table = {"use": cassettes.blob_store, "file": tapes.file, "inner": NOOP, **options}
    with pytest.raises(ConfigurationError) as raised:
        Kitchen({"blob_store": table}).blob_store  # noqa: B018
    assert said in str(raised.value)


# --- secrets ---


class Leaks:
    """Says its secret wherever it can."""

    class Options(AdapterOptions):
        inner: BlobStore
        api_key: str = CANARY

    @hookimpl
    def around(self, opts: Any, call: Any) -> Any:
        if call.name == "read":
            return f"key {opts.api_key}".encode() + bytes(call.arguments["path"] == "b") + b"\xff"
        if call.name == "list":
            return [f"a/{opts.api_key}"]
        if call.name == "exists":
            raise Unavailable(f"no {opts.api_key}", details={"url": f"http://u:{opts.api_key}@h"})
        return call()


def test_no_secret_is_on_a_cassette(tapes: Tapes) -> None:
    from crucible_adapter_compose.cassette.masks import MASK

    store = tapes.record("blob_store", {"use": Leaks(), "inner": NOOP})
    store.write(f"u/{CANARY}", f"is {CANARY}".encode())
    assert CANARY in str(store.read("a"))
    store.list(f"https://user:{CANARY}-2@host/x?token=abcdefgh")
    with pytest.raises(Unavailable):
        store.exists(CANARY)
    tapes.close()
    found = tapes.file.read_text()
    assert CANARY not in found
    assert "abcdefgh" not in found
    assert MASK in found
    replayed = tapes.replay("blob_store")
    # Whoever replays it has another secret, or none.
    replayed.list("https://user:other@host/x?token=none")
    assert CANARY.encode() not in replayed.read("a")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", f'{{"key": "{CANARY}"}}', "one of them holds a secret"),
        (f"{CANARY}.json", "{}", "the name of one holds a secret"),
    ],
)
def test_files_that_hold_a_secret_are_not_kept(
    name: str, content: str, said: str, tapes: Tapes, tmp_path: Path
) -> None:
    class Hub:
        class Options(AdapterOptions):
            token: str = CANARY

        @hookimpl
        def download(self, repo_id: str, filename: str) -> Path:
            return tmp_path / "files" / name

        @hookimpl
        def snapshot(self, repo_id: str) -> Path:
            return tmp_path / "files"

        @hookimpl
        def list_files(self, repo_id: str) -> list[str]:
            return []

    (tmp_path / "files").mkdir()
    (tmp_path / "files" / name).write_text(content)
    hub = tapes.record("hub_client", Hub())
    hub.download("a/b", "config.json")
    hub.snapshot("a/b")
    replayed = tapes.replay("hub_client")
    with pytest.raises(Unsupported, match=said):
        replayed.download("a/b", "config.json")
    with pytest.raises(Unsupported, match=said):
        replayed.snapshot("a/b")
    assert CANARY not in tapes.file.read_text()
    assert not Path(f"{tapes.file}.files").exists()


HARD = f"a/{CANARY} @b#?c"
FORMS: list[Callable[[str], str]] = [
    str,
    repr,
    json.dumps,
    lambda s: json.dumps({"x": [repr(s)]}),
    lambda s: urllib.parse.quote(s, safe=""),
    lambda s: base64.b64encode(s.encode()).decode(),
    lambda s: base64.urlsafe_b64encode(f"me:{s}".encode()).decode(),
    lambda s: f"https://me:{s}@host/x",
    lambda s: f"Authorization: Bearer {s}",
    lambda s: s.encode().hex(),
    str.upper,
]


class LeaksInAForm:
    """Returns, raises and offers its secret in a form that libraries write."""

    class Options(AdapterOptions):
        inner: BlobStore
        password: SecretStr = SecretStr(HARD)

    def __init__(self, form: Callable[[str], str]) -> None:
        self._form = form

    @hookimpl
    def around(self, opts: Any, call: Any) -> Any:
        said = self._form(opts.password.get_secret_value())
        if call.name == "read":
            return said.encode()
        if call.name == "stream":
            return iter([said.encode(), b"\xff" + said.encode()])
        if call.name == "list":
            return [said]
        raise Unavailable(said, details={said: [said]})

    @helper
    def describe(self, opts: Any, said: str) -> dict[str, str]:
        return {said: said}


@pytest.mark.parametrize("form", FORMS, ids=range(len(FORMS)))
def test_no_secret_is_on_a_cassette_in_any_form(form: Callable[[str], str], tapes: Tapes) -> None:
    store = tapes.record("blob_store", {"use": LeaksInAForm(form), "inner": NOOP})
    said = form(HARD)
    store.read(said)
    list(store.stream("a"))
    store.list(said)
    store.helper("describe")(said)
    for call in (store.exists, store.delete):
        with pytest.raises(Unavailable):
            call(said)
    tapes.close()
    found = tapes.file.read_bytes().lower()
    coded = [base64.b64encode(b"\0" * n + CANARY.encode())[4:-4].lower() for n in range(3)]
    for shown in (CANARY.encode(), CANARY.encode().hex().encode(), *coded):
        assert shown.lower() not in found
    replayed = tapes.replay("blob_store")
    assert CANARY not in str(replayed.helper("describe")(said))


class Spoken:
    """As tokenizers are: it can be called, has methods, and holds another object."""

    pad = None

    class Inner:
        name = "inner"

        def __call__(self, text: str, *, times: int = 1) -> list[str]:
            return [text] * times

    def __init__(self) -> None:
        self.inner = self.Inner()

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"ids": [len(text)]}

    def encode(self, text: str) -> list[int]:
        if not text:
            raise ValueError("nothing to encode")
        return [*text.encode()]


class Speaks:
    class Options(AdapterOptions):
        inner: BlobStore

    @helper
    def spoken(self, opts: Any) -> Spoken:
        return Spoken()


def test_an_object_that_a_helper_returns_answers_as_it_did(tapes: Tapes) -> None:
    def asked(store: Any) -> list[Any]:
        spoken = store.helper("spoken")()
        with pytest.raises(ValueError, match="nothing to encode"):
            spoken.encode("")
        return [
            callable(spoken.encode),
            spoken.encode("ab"),
            spoken("abc"),
            spoken.inner.name,
            spoken.inner("x", times=2),
            spoken.pad,
            getattr(spoken, "absent", "nothing"),
            type(spoken).__qualname__,
        ]

    recorded = asked(tapes.record("blob_store", {"use": Speaks(), "inner": NOOP}))
    replayed = tapes.replay("blob_store")
    assert asked(replayed) == asked(replayed) == recorded
    spoken = replayed.helper("spoken")()
    with pytest.raises(NotOnCassette, match=r"has no answer of encode to \["):
        spoken.encode("other")
    with pytest.raises(NotOnCassette, match=r"does not say whether .* has 'eos'"):
        getattr(spoken, "eos", None)


def test_a_helper_that_the_adapter_lacks_is_lacking_while_it_is_recorded_and_replayed(
    tapes: Tapes,
) -> None:
    for bind in (tapes.record, tapes.replay):
        store = bind("blob_store")
        store.write("a", b"1")
        with pytest.raises(Unsupported, match="has no helper 'get_tokenizer'"):
            store.helper("get_tokenizer")
