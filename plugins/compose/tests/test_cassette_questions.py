"""A replay that cannot tell which answer is right refuses, and gives no other one."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import crucible_adapter_compose.cassette as cassettes
import numpy as np
import pytest
from crucible_adapter_compose.cassette.missing import NotOnCassette
from crucible_adapter_compose.cassette.reading import whole
from crucible_adapter_compose.cassette.tape import Tape
from crucible_kitchen import (
    PORTS,
    AdapterError,
    AdapterOptions,
    AlreadyExists,
    CompletionChunk,
    ConfigurationError,
    CrucibleWarning,
    InvalidInput,
    Kitchen,
    SamplingParams,
    Unavailable,
    Unsupported,
    helper,
    hookimpl,
)
from crucible_kitchen.chat.tokenization import Tokenization
from pydantic import SecretStr

SECRET = "h\u00fcnter2h\u00fcnter2-c4n4ry"
U1, U2, U3, V1, V2 = (f"{n}0000000-0000-4000-8000-000000000000" for n in "123ab")
AMBIGUOUS = "which one is meant is not known"


class Pad:
    """An object that a helper returns."""

    pad = "none"
    asked = 0

    def padded(self, text: str) -> list[str]:
        return [self.pad, text]

    def count(self) -> int:
        self.asked += 1
        return self.asked

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [*text.encode()]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [*map(self.encode, texts)]


class Store:
    """A blob store in memory that refuses to replace."""

    class Options(AdapterOptions):
        key: SecretStr = SecretStr(SECRET)

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.down = False

    @hookimpl
    def write(self, path: str, data: Any) -> None:
        if self.down:
            self.down = False
            raise Unavailable("down", no_effect=True)
        if path in self.blobs:
            raise AlreadyExists("there")
        if path == "impatient":
            for piece in data:
                raise Unavailable(f"after {len(piece)} bytes")
        if hasattr(data, "read"):
            data = data.read()
        self.blobs[path] = data if isinstance(data, bytes) else b"".join(data)

    @hookimpl
    def read(self, path: str) -> bytes:
        return self.blobs[path]

    @hookimpl
    def exists(self, path: str) -> bool:
        return path in self.blobs

    @hookimpl
    def delete(self, path: str) -> None: ...

    @hookimpl
    def list(self, prefix: str) -> list[str]:
        return sorted(self.blobs)

    @hookimpl
    def stream(self, path: str, chunk_size: int) -> Iterator[bytes]:
        blob = self.blobs[path]
        for start in range(0, len(blob), chunk_size):
            yield blob[start : start + chunk_size]

    @helper
    def decode(self, opts: Any, given: Any) -> Any:
        return given if isinstance(given, str) else sorted(given)

    @helper
    def spoken(self, opts: Any) -> Pad:
        return Pad()


class Tapes:
    """Binds the recording of an adapter, then its replay."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._kitchens: list[Kitchen] = []

    def bind(self, port: str, mode: str, inner: Any, **options: Any) -> Any:
        table = {"use": getattr(cassettes, port), "file": self.file, "mode": mode, **options}
        self._kitchens.append(Kitchen({port: {**table, "inner": inner}}))
        return self._kitchens[-1].port(PORTS[port])

    def record(self, inner: Any = None, port: str = "blob_store") -> Any:
        return self.bind(port, "record", Store() if inner is None else inner)

    def replay(self, port: str = "blob_store", **options: Any) -> Any:
        self.close()
        return self.bind(port, "replay", "not-installed", **options)

    def close(self) -> None:
        for kitchen in self._kitchens:
            kitchen.close()
        self._kitchens.clear()

    def edit(self, change: Callable[[list[dict[str, Any]]], Any]) -> None:
        self.close()
        lines = [json.loads(line) for line in self.file.read_text().splitlines()]
        change(lines)
        lines[-1]["end"] = {"lines": len(lines) - 1}
        self.file.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def tapes(tmp_path: Path) -> Iterator[Tapes]:
    made = Tapes(tmp_path / "cassette.jsonl")
    yield made
    made.close()


# --- what varies from run to run ---


@pytest.mark.parametrize(
    ("one", "two", "never"),
    [
        ("logs/20240101/x", "logs/20240102/x", "logs/20251231/x"),
        ("0cc175b9c0f1b6a831c399e269772661", "a" * 32, "b" * 32),
        ("runs/00000001/x", "runs/00000002/x", "runs/00000003/x"),
        (f"{U1}/x", f"{U2}/x", f"{U3}/x"),
    ],
    ids=["dates", "digests", "steps", "UUIDs"],
)
def test_a_name_that_was_recorded_stands_for_itself_and_another_for_none(
    one: str, two: str, never: str, tapes: Tapes
) -> None:
    store = tapes.record()
    store.write(one, b"one")
    store.write(two, b"two")
    assert [store.read(one), store.read(two)] == [b"one", b"two"]
    replayed = tapes.replay()
    with pytest.raises(NotOnCassette):
        replayed.read(never)
    assert [replayed.read(two), replayed.read(one)] == [b"two", b"one"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("logs/20240101/x", "logs/20251231/x"),
        ("runs/00000001/x", "runs/00000002/x"),
        ("0cc175b9c0f1b6a831c399e269772661", "92eb5ffee6ae2fec3ad71c777531578f"),
    ],
    ids=["dates", "steps", "digests"],
)
def test_what_only_looks_random_is_not_taken_for_another_one(
    one: str, other: str, tapes: Tapes
) -> None:
    tapes.record().write(one, b"one")
    with pytest.raises(NotOnCassette, match=f'path is "{one}", and not "{other}"'):
        tapes.replay().write(other, b"one")


def test_what_varies_stands_for_one_recorded_text_from_then_on(tapes: Tapes) -> None:
    store = tapes.record()
    store.write(f"{U1}/a", b"one")
    store.write(f"{U2}/a", b"two")
    assert [store.read(f"{U1}/a"), store.read(f"{U2}/a")] == [b"one", b"two"]
    replayed = tapes.replay()
    replayed.write(f"{V2}/a", b"two")
    assert replayed.read(f"{V2}/a") == b"two"
    with pytest.raises(NotOnCassette):
        replayed.write(f"{V2}/a", b"one")
    assert replayed.read(f"{V1}/a") == b"one"
    with pytest.raises(NotOnCassette):
        replayed.read(f"{U3}/a")


def test_new_names_are_taken_in_order_where_their_answers_are_the_same(tapes: Tapes) -> None:
    def asked(store: Any, *names: str) -> list[Any]:
        before = [store.exists(name) for name in names]
        for name in names:
            store.write(name, b"x")
        return [*before, *(store.exists(name) for name in names)]

    assert (
        asked(tapes.record(), U1, U2) == asked(tapes.replay(), V1, V2) == [False] * 2 + [True] * 2
    )


def test_a_new_name_that_may_be_one_of_several_is_refused(tapes: Tapes) -> None:
    store = tapes.record()
    for name in (U1, U2):
        store.write(name, name.encode())
        store.read(name)
    with pytest.raises(NotOnCassette, match=rf"calls of read \(2 and 4\) .*{AMBIGUOUS}"):
        tapes.replay().read(V1)


def test_a_name_that_an_answer_holds_stands_for_itself(tapes: Tapes) -> None:
    store = tapes.record()
    store.write(U1, b"one")
    store.write(U2, b"two")
    assert store.list("") == [U1, U2]
    store.read(U1)
    tapes.edit(lambda lines: lines.pop(2))  # so that an answer alone holds it
    replayed = tapes.replay()
    assert replayed.list("") == [U1, U2]
    with pytest.raises(NotOnCassette):
        replayed.read(U2)


# --- secrets ---


@pytest.mark.parametrize(
    ("before", "size"), [(4, 1), (4, 7), (4, 10), (70_000, 7), (3990, 4000), (99_990, 50_000)]
)
def test_a_secret_that_crosses_the_pieces_of_a_stream_is_not_on_the_cassette(
    before: int, size: int, tapes: Tapes
) -> None:
    store = tapes.record()
    store.write("a", b"x" * before + f" {SECRET} ".encode() + b"y" * 5000)
    assert SECRET.encode() in b"".join(store.stream("a", size))
    tapes.close()
    lines = [json.loads(line) for line in tapes.file.read_text().splitlines()]
    items = [line["item"] for line in lines if "item" in line]
    text = "".join(each["$bytes"]["text"] for each in items if "text" in each.get("$bytes", ""))
    assert SECRET not in text
    assert "c4n4ry" not in text
    assert len(text) < before + 5000
    with pytest.raises(Unsupported, match="holds a secret that crosses its pieces"):
        list(tapes.replay().stream("a", size))


def test_a_stream_without_a_secret_is_replayed_wherever_its_characters_are_cut(
    tapes: Tapes,
) -> None:
    def pieces(store: Any) -> list[bytes]:
        store.write("a", "\u00fc\u20ac".encode() * 30_000)
        return [*store.stream("a", 1001)]

    assert pieces(tapes.record()) == pieces(tapes.replay())


def test_a_secret_that_crosses_the_tokens_of_a_completion_is_not_on_the_cassette(
    tapes: Tapes,
) -> None:
    class Says:
        class Options(AdapterOptions):
            key: SecretStr = SecretStr("sesame-open-7")

        @hookimpl
        def stream_complete(self, prompt: Any, params: Any) -> Iterator[CompletionChunk]:
            for text in ("it is ses", "", "ame-op", "en-7", "."):
                yield CompletionChunk(text)

        @hookimpl
        def complete(self, prompt: Any, params: Any) -> Any: ...
        @hookimpl
        def complete_batch(self, prompts: Any, params: Any) -> Any: ...

    completer = tapes.record(Says(), "completer")
    said = [chunk.text for chunk in completer.stream_complete([1], SamplingParams(4))]
    assert "".join(said) == "it is sesame-open-7."
    tapes.close()
    assert "ame-op" not in tapes.file.read_text()


def test_a_stream_that_is_open_when_the_recording_ends_is_recorded_up_to_there(
    tapes: Tapes,
) -> None:
    store = tapes.record()
    store.write("a", b"abcdef")
    stream = store.stream("a", 2)
    assert next(stream) == b"ab"
    replayed = tapes.replay().stream("a", 2)
    assert next(replayed) == b"ab"
    with pytest.raises(NotOnCassette, match="was left there"):
        next(replayed)


def prompt(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_questions_that_differ_in_their_secrets_alone_are_refused(tapes: Tapes) -> None:
    noop = {"use": "noop", "latency_scale": 0}
    completer, params = tapes.record(noop, "completer"), SamplingParams(4, seed=0)
    one, two = prompt("api_key=sk-aaaaaaaaaaaa1"), prompt("api_key=sk-bbbbbbbbbbbb2")
    assert completer.complete(one, params).text != completer.complete(two, params).text
    replayed = tapes.replay("completer")
    for each in (two, one, prompt("api_key=sk-ccccccccccccc3")):
        with pytest.raises(NotOnCassette, match=rf"calls of complete \(1 and 2\) .*{AMBIGUOUS}"):
            replayed.complete(each, params)


def test_questions_that_differ_in_their_secrets_alone_may_have_the_same_answer(
    tapes: Tapes,
) -> None:
    def asked(store: Any, *keys: str) -> list[bool]:
        return [store.exists(f"https://me:{key}@host/x") for key in keys]

    assert asked(tapes.record(), "a" * 9, "b" * 9) == asked(tapes.replay(), "none", "none")


def test_answers_that_change_are_refused_where_the_secret_may_be_another(tapes: Tapes) -> None:
    store = tapes.record()
    for key in ("a" * 9, "b" * 9):
        path = f"https://me:{key}@host/x"
        before = store.exists(path)
        store.write(path, b"1")
        assert (before, store.exists(path)) == (False, True)
    with pytest.raises(NotOnCassette, match=AMBIGUOUS):
        tapes.replay().exists("https://me:none@host/x")


def test_the_same_secret_is_asked_about_in_order(tapes: Tapes) -> None:
    def asked(store: Any, key: str) -> list[bool]:
        path = f"https://me:{key}@host/x"
        before = store.exists(path)
        store.write(path, b"1")
        return [before, store.exists(path)]

    assert asked(tapes.record(), "a" * 9) == asked(tapes.replay(), "b" * 9) == [False, True]


def test_a_mask_stands_for_a_part_of_one_text_alone(tapes: Tapes) -> None:
    noop = {"use": "noop", "latency_scale": 0}
    params = SamplingParams(4, seed=0)
    tapes.record(noop, "completer").complete(prompt("api_key=sk-aaaaaaaaaaaa1"), params)
    replayed = tapes.replay("completer")
    with pytest.raises(NotOnCassette):
        replayed.complete([*prompt("api_key=1"), *prompt("more")], params)
    replayed.complete(prompt('api_key="1"'), params)


def test_answers_of_helpers_that_differ_by_secret_are_refused(tapes: Tapes) -> None:
    store = tapes.record()
    decode = store.helper("decode")
    one, two = "my password=aaaa1111", "my password=bbbb2222"
    assert [decode(one), decode(two)] == [one, two]
    replayed = tapes.replay().helper("decode")
    for each in (one, two):
        with pytest.raises(NotOnCassette, match="or asked with another secret"):
            replayed(each)


@pytest.mark.parametrize("size", [10, 3000])
def test_a_long_text_with_a_secret_is_found_by_who_has_another(size: int, tapes: Tapes) -> None:
    def asked(store: Any, key: str) -> list[Any]:
        text = f"{'a' * size} api_key={key} {'b' * size}"
        return [store.exists(text), store.exists("c" * size), len(store.helper("decode")(text))]

    recorded = asked(tapes.record(), "sk-aaaaaaaaaaaaaaaaaaa")
    tapes.close()
    assert "api_key=**********" in tapes.file.read_text()
    assert asked(tapes.replay(), "none-of-them-is-it-so-") == recorded


def test_a_long_text_next_to_one_with_a_secret_is_compared_as_well(tapes: Tapes) -> None:
    params = SamplingParams(4, seed=0)

    def asked(completer: Any, key: str) -> str:
        long = [*prompt("a" * 3000), *prompt("b" * 3000 + f" api_key={key}")]
        return str(completer.complete(long, params).text)

    recorded = asked(tapes.record({"use": "noop", "latency_scale": 0}, "completer"), "sk-aaaaaaaaa")
    assert asked(tapes.replay("completer"), "another-one") == recorded


def test_many_masks_in_a_question_take_no_time(tapes: Tapes) -> None:
    noop = {"use": "noop", "latency_scale": 0}
    params = SamplingParams(4, seed=0)
    log = "a line with api_key=sk-{} and more\\n"
    tapes.record(noop, "completer").complete(prompt(log.format("a" * 9) * 30), params)
    with pytest.raises(NotOnCassette):
        tapes.replay("completer").complete(prompt(log.format("b" * 9) * 60 + "!"), params)


def test_a_cassette_stays_where_it_was_named_when_the_working_directory_changes(
    tapes: Tapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tapes.file = Path("mine.jsonl")
    store = tapes.record()
    store.exists("a")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    tapes.close()
    assert (tmp_path / "mine.jsonl").exists()


def test_what_comes_after_the_end_of_a_recording_leaves_the_cassette_whole(tapes: Tapes) -> None:
    store = tapes.record()
    store.write("a", b"abcdef")
    spoken = store.helper("spoken")()
    with store.stream("a", 2) as stream:
        next(stream)
        tapes.close()
        content = tapes.file.read_bytes()
    spoken.padded("late")
    assert tapes.file.read_bytes() == content
    tapes.replay().write("a", b"abcdef")


def test_a_replay_may_encode_texts_in_other_batches_than_the_recording(tapes: Tapes) -> None:
    for bind, batches in ((tapes.record, ["ab", "c"]), (tapes.replay, ["bc"])):
        tokens = Tokenization(bind().helper("spoken")())
        for batch in batches:
            tokens.encode_ahead([*batch])
            assert [tokens.encode(text) for text in batch] == [[ord(text)] for text in batch]


# --- what cannot be compared ---


@pytest.mark.parametrize(
    "given",
    [lambda *items: {*items}, lambda *items: np.array([*map(str, items)], object)],
    ids=["sets", "objects"],
)
def test_a_question_that_cannot_be_compared_has_no_answer(
    given: Callable[..., Any], tapes: Tapes
) -> None:
    decode = tapes.record().helper("decode")
    with pytest.warns(CrucibleWarning, match="the answer of decode cannot be replayed"):
        assert len(decode(given(1, 2))) == 2
    with pytest.warns(CrucibleWarning):
        assert len(decode(given(3))) == 1
    replayed = tapes.replay().helper("decode")
    with pytest.raises(Unsupported, match="which a cassette cannot compare"):
        replayed(given(1, 2))


class Rows:
    """A data set is its name, so that a handle may come from anywhere."""

    @hookimpl
    def load_dataset(self, dataset_id: str) -> Any:
        return dataset_id

    @hookimpl
    def to_list(self, handle: Any) -> Any:
        return [{"name": handle}]

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


def test_a_handle_from_elsewhere_is_not_taken_for_another_one(tapes: Tapes) -> None:
    store = tapes.record(Rows(), "dataset_store")
    assert store.to_list("one") == [{"name": "one"}]
    with pytest.raises(NotOnCassette):
        tapes.replay("dataset_store").to_list("two")


# --- data in pieces ---


def outcome(call: Callable[..., Any], *arguments: Any) -> str:
    try:
        return repr(call(*arguments))
    except AdapterError as error:
        return f"{type(error).__name__}: {error.reason}"


@pytest.mark.parametrize("pieces", [iter, list], ids=["iterator", "list"])
def test_data_that_was_left_unread_is_compared_as_far_as_it_was_read(
    pieces: Callable[..., Any], tapes: Tapes
) -> None:
    def written(store: Any) -> list[str]:
        return [
            outcome(store.write, path, pieces([b"one", b"two"]))
            for path in ("a", "a", "impatient", "b", "b")
        ]

    recorded = written(tapes.record())
    assert recorded[1:3] == ["AlreadyExists: there", "Unavailable: after 3 bytes"]
    assert written(tapes.replay()) == recorded
    with pytest.raises(NotOnCassette, match="3 bytes, the rest not read, sha256"):
        tapes.replay().write("impatient", pieces([b"other"]))


def test_data_that_was_left_unread_is_left_so_in_a_replay_for_the_next_attempt(
    tapes: Tapes,
) -> None:
    def written(store: Any) -> bytes:
        source = iter([b"one", b"two"])
        with pytest.raises(Unavailable):
            store.write("a", source)
        store.write("a", source)
        return bytes(store.read("a"))

    inner = Store()
    inner.down = True
    assert written(tapes.record(inner)) == written(tapes.replay()) == b"onetwo"


def test_other_data_do_not_get_the_answer_of_data_that_were_left_unread(tapes: Tapes) -> None:
    store = tapes.record()
    store.write("a", iter([b"one"]))
    assert outcome(store.write, "a", iter([b"two"])) == "AlreadyExists: there"
    with pytest.raises(NotOnCassette, match=r"3 bytes, sha256 \w+, and not 5 bytes"):
        tapes.replay().write("a", iter([b"other"]))


def test_data_of_a_wrong_type_is_refused_in_a_replay_as_it_was(tapes: Tapes) -> None:
    def refused(store: Any) -> list[str]:
        return [outcome(store.write, "a", data) for data in ("text", 7, {"a": b""}, [1])]

    assert refused(tapes.record()) == refused(tapes.replay())


# --- objects ---


def test_an_object_cannot_be_changed_while_it_is_recorded_or_replayed(tapes: Tapes) -> None:
    for bind in (tapes.record, tapes.replay):
        spoken = bind().helper("spoken")()
        with pytest.raises(Unsupported, match="pad was to be set"):
            spoken.pad = "P"
        with pytest.raises(Unsupported):
            del spoken.pad
        assert spoken.padded("x") == ["none", "x"]


def test_what_is_answered_otherwise_each_time_is_refused(tapes: Tapes) -> None:
    spoken = tapes.record().helper("spoken")()
    assert [spoken.count(), spoken.count(), spoken.asked] == [1, 2, 2]
    replayed = tapes.replay().helper("spoken")()
    assert replayed.asked == 2
    with pytest.raises(NotOnCassette, match="was not the same each time"):
        replayed.count()


def test_a_helper_may_return_a_new_object_each_time(tapes: Tapes) -> None:
    for bind in (tapes.record, tapes.replay):
        spoken = bind().helper("spoken")
        assert spoken().padded("x") == ["none", "x"]
        assert spoken().padded("y") == ["none", "y"]


# --- order ---


def test_calls_may_have_to_come_in_their_order(tapes: Tapes) -> None:
    store = tapes.record()
    assert not store.exists("a")
    store.write("a", b"1")
    assert store.exists("a")
    assert not tapes.replay().exists("a")
    ordered = tapes.replay(ordered=True)
    with pytest.raises(NotOnCassette, match=r"as call 2, and call 1, exists, comes before it"):
        ordered.write("a", b"1")
    assert not ordered.exists("a")
    ordered.write("a", b"1")
    assert ordered.exists("a")


# --- the file ---


@pytest.mark.parametrize(
    ("place", "name", "said"),
    [
        (0, "callbacks", "line 1: it lacks, or has in a wrong form, 'callbacks'"),
        (1, "returned", "line 2: it lacks, or has in a wrong form, 'returned'"),
        (1, "arguments", "line 2: it lacks, or has in a wrong form, 'arguments'"),
        (2, "raised", "line 3: it lacks, or has in a wrong form, 'returned'"),
        (4, "returned", "line 5: it lacks, or has in a wrong form, 'raised or returned'"),
        (4, "object", "line 5: it lacks, or has in a wrong form, 'object'"),
    ],
)
def test_a_line_that_lacks_something_is_named_when_the_cassette_is_bound(
    place: int, name: str, said: str, tapes: Tapes
) -> None:
    store = tapes.record()
    store.exists("a")
    with pytest.raises(AdapterError):
        store.read("a")
    store.helper("decode")("a")
    tapes.edit(lambda lines: lines[place].pop(name))
    with pytest.raises(ConfigurationError) as raised:
        tapes.replay()
    assert said in str(raised.value)


def test_a_line_that_is_not_json_is_named_when_the_cassette_is_bound(tapes: Tapes) -> None:
    tapes.record().exists("a")
    tapes.edit(lambda lines: None)
    header, call, end, _ = tapes.file.read_text().split("\n")
    tapes.file.write_text("\n".join([header, call[:-1], end, ""]))
    with pytest.raises(ConfigurationError, match="is damaged in line 2: Expecting") as raised:
        tapes.replay()
    assert "it lacks" not in str(raised.value)


def test_an_error_that_lacks_something_is_named_when_the_cassette_is_bound(tapes: Tapes) -> None:
    with pytest.raises(AdapterError):
        tapes.record().read("a")
    tapes.edit(lambda lines: lines[1]["raised"].pop("class"))
    with pytest.raises(ConfigurationError, match=r"line 2: .* 'class'"):
        tapes.replay()


def tape(file: Path, content: str) -> Tape:
    made = Tape(file, {"port": "blob_store", "callbacks": []})
    made.write({"helper": content})
    return made


def test_a_recording_that_was_replaced_does_not_go_on(tmp_path: Path) -> None:
    file = tmp_path / "cassette.jsonl"
    one = tape(file, "one")
    one.finish()
    file.unlink()
    tape(file, "two" * 200).finish()
    two = file.read_bytes()
    with pytest.raises(InvalidInput, match="was removed, or recorded anew"):
        one.write({"helper": "late"})
    one.finish()
    assert file.read_bytes() == two
    whole(file, "blob_store")


def test_a_recording_that_goes_on_leaves_what_was_finished_until_it_is_again(
    tmp_path: Path,
) -> None:
    file = tmp_path / "cassette.jsonl"
    one = tape(file, "one")
    one.finish()
    one.write({"helper": "late"})
    assert len(whole(file, "blob_store")) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one.finish()
    assert len(whole(file, "blob_store")) == 3
    assert [*tmp_path.iterdir()] == [file]


def test_threads_that_write_the_same_path_get_what_each_was_told(tapes: Tapes) -> None:
    def written(store: Any, order: list[int]) -> dict[int, str]:
        found: dict[int, str] = {}

        def one(n: int) -> None:
            found[n] = outcome(store.write, f"p{n % 3}", iter([bytes([n])] * 3))

        for n in order:
            thread = threading.Thread(target=one, args=[n])
            thread.start()
            thread.join()
        return found

    recorded = written(tapes.record(), [*range(9)])
    assert written(tapes.replay(), [2, 1, 0, 5, 4, 3, 8, 7, 6]) == recorded
