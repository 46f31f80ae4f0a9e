"""A run trains on the same rows in the same order, rendered beforehand or ahead of their step."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from character_tokenizers import Characters, Thinking, marked_text
from crucible_kitchen import InvalidInput, Kitchen
from crucible_kitchen.workflows import RowsConfig, TrainingConfig
from crucible_kitchen.workflows.batches import Batches, Shuffled, permutation
from crucible_kitchen.workflows.rows.ahead import AHEAD, StreamedBatches, ahead
from crucible_kitchen.workflows.rows.first_rows import show_rows, try_rows
from crucible_kitchen.workflows.rows.prepare import RenderedRows, prepare_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_in_memory import Row, RowsInMemory, StreamedRows


class Config(RowsConfig, TrainingConfig):
    model: str = "any"
    dataset: str = "x"


def texts(*said: str) -> list[Row]:
    return [{"text": text} for text in said]


def pairs(count: int) -> list[Row]:
    return [{"prompt": f"{n}+{n}=", "completion": str(2 * n)} for n in range(count)]


CHAT = [{"role": role, "content": "hi"} for role in ("user", "assistant") * 2]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("CRUCIBLE_CACHE", str(folder))
        yield folder


def kitchen_of(store: RowsInMemory, tokenizer: Characters | None = None) -> Kitchen:
    kitchen = Kitchen({"dataset_store": store, "training_client": "noop"})
    client: Any = kitchen.training_client
    client.helper = lambda name: lambda session: tokenizer or Characters()
    return kitchen


def prepared(
    store: RowsInMemory,
    tokenizer: Characters | None = None,
    *,
    batch_size: int = 3,
    **config: Any,
) -> RenderedRows:
    return prepare_rows(kitchen_of(store, tokenizer), None, Config(**config), batch_size)


def heard_of(name: str, heard: list[Any]) -> Callable[[Any], None]:
    def hear(event: Any) -> None:
        if event.name == name:
            heard.append(event)

    return hear


def batches(
    rows: RenderedRows, start: int, stop: int, size: int = 3, seed: int = 0
) -> list[tuple[int, int, list[str]]]:
    items = rows.train
    found = items if isinstance(items, Batches) else Shuffled(items, size, seed)
    return [
        (epoch, step, [marked_text(example) for example in batch])
        for epoch, step, batch in found.between(start, stop)
    ]


# --- all rows beforehand, or most of them ahead of a step ---


@settings(deadline=None, max_examples=30)
@given(
    # Without the tokenizer's own marks of the beginning and the end.
    st.lists(st.text("abc 0é中", min_size=1, max_size=5), min_size=1, max_size=9),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(0, 9),
    st.sampled_from(["first", 2, 100]),
    st.sampled_from([RowsInMemory, StreamedRows]),
)
def test_rows_and_order_are_those_of_rendering_all_at_once(
    said: list[str],
    size: int,
    seed: int,
    start: int,
    check: str | int,
    kind: type[RowsInMemory],
) -> None:
    store = kind({"train": texts(*said)})
    given: dict[str, Any] = {"batch_size": size, "seed": seed}
    at_once = prepared(store, render_cache=False, **given)
    lazily = prepared(store, check_rows=check, **given)
    assert isinstance(at_once.train, Sequence)
    assert [marked_text(e) for e in at_once.train] == [f"[{text}$]" for text in said]
    assert batches(lazily, start, start + 6, size, seed) == batches(
        at_once, start, start + 6, size, seed
    )


def test_a_second_start_reads_what_the_first_rendered(cache: Path) -> None:
    class Counting(Characters):
        encoded = 0

        def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
            Counting.encoded += text.startswith("once upon")
            return super().encode(text)

    store = RowsInMemory({"train": texts("once upon", "once upon a time")})
    first, second = (prepared(store, Counting()) for _ in range(2))
    assert Counting.encoded == 2
    assert first.depends_on == second.depends_on
    assert first.facts == second.facts
    assert batches(first, 0, 4) == batches(second, 0, 4)
    prepared(store, Counting(), render_cache=False)
    assert Counting.encoded == 4
    prepared(RowsInMemory({"train": texts("once upon", "once upon a day")}), Counting())
    assert Counting.encoded == 6


@pytest.mark.parametrize(
    ("rows", "config", "message"),
    [
        ([], {}, r"nothing to learn from x \[train\]: it has no rows"),
        ([], {"check_rows": "first"}, "it has no rows"),
        ([], {"streaming": True, "max_steps": 1}, "it has no rows"),
        (texts("abc"), {"max_length": 1, "too_long": "drop"}, "every row is too long"),
        (texts("a", ""), {}, r"row 1 of x \[train\]: it has fewer than two tokens"),
        (texts("", "a"), {"check_rows": "first"}, "row 0 of x"),
        (texts("", "a", ""), {"check_rows": 3}, "(?s)2 rows of x.*row 0, row 2: it has fewer"),
        (texts("", "a"), {"streaming": True, "max_steps": 1}, "row 0 of x"),
    ],
)
def test_what_can_be_known_to_be_wrong_is_refused_before_the_first_step(
    rows: list[Row], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        prepared(RowsInMemory({"train": rows}), **config)


@pytest.mark.parametrize("more", [{}, {"streaming": True, "max_steps": 9, "shuffle_buffer": 1}])
def test_a_bad_row_that_was_not_checked_ends_the_run_at_its_step_by_name(
    more: dict[str, Any],
) -> None:
    rows = prepared(
        RowsInMemory({"train": texts(*"abcdefg", "", "h")}),
        check_rows="first",
        batch_size=1,
        **more,
    )
    assert isinstance(rows.train, Batches)
    steps = rows.train.between(0, 9)
    at = 7 if more else permutation(9, 0, 0).tolist().index(7)
    assert [step for _, step, _ in itertools.islice(steps, at)] == list(range(at))
    with pytest.raises(InvalidInput, match=r"row 7 (of epoch 0 )?of x \[train\]: it has fewer"):
        next(steps)


def test_no_more_rows_are_read_than_are_soon_needed() -> None:
    store = StreamedRows({"train": pairs(1000)})
    rows = prepared(store, check_rows="first", batch_size=2)
    assert store.read == 1000 + 1
    assert isinstance(rows.train, Batches)
    steps = rows.train.between(0, 500)
    next(steps)
    steps.close()
    assert store.read <= 1001 + 2 * (AHEAD + 2)


def test_a_step_learns_from_every_sequence_of_its_rows() -> None:
    store = RowsInMemory({"train": [{"messages": CHAT}] * 3})
    rows = prepared(store, Thinking(), check_rows="first", batch_size=2)
    assert [len(batch) for _, _, batch in batches(rows, 0, 2)] == [4, 2]
    assert rows.facts["rows"]["train"]["sequences"] == 2


def test_rows_that_are_left_out_at_a_step_are_reported() -> None:
    store = RowsInMemory({"train": texts("a", "b", "long")})
    heard: list[Any] = []
    kitchen = kitchen_of(store)
    kitchen.observe(heard_of("dataset.left_out", heard))
    config = Config(check_rows="first", too_long="drop", max_length=2)
    rows = prepare_rows(kitchen, None, config, 3)
    assert sorted(batches(rows, 0, 1)[0][2]) == ["[a$]", "[b$]"]
    assert [event.attributes["rows"] for event in heard] == [["row 2"]]
    rows = prepare_rows(kitchen, None, config, 1)
    with pytest.raises(InvalidInput, match=r"nothing to learn from x \[train\] in row 2"):
        batches(rows, 0, 3)


def test_changed_rows_are_known_by_their_digests() -> None:
    first = prepared(RowsInMemory({"train": texts("a", "b")}), check_rows="first")
    last = prepared(RowsInMemory({"train": texts("a", "c")}), check_rows="first")
    kept = first.depends_on["train"]
    assert kept == {**last.depends_on["train"], "rows_sha256": kept["rows_sha256"]}
    assert kept["rows_sha256"] != last.depends_on["train"]["rows_sha256"]
    template = prepared(
        RowsInMemory({"train": texts("a", "b")}),
        check_rows="first",
        prompt="{text}",
        completion="!",
    )
    assert template.depends_on["train"]["rows_sha256"] == kept["rows_sha256"]
    assert template.depends_on["train"]["checked_sha256"] != kept["checked_sha256"]


def test_progress_is_reported_a_few_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=0.1)
    monkeypatch.setattr(
        "crucible_kitchen.workflows.rows.prepare.time.monotonic", lambda: next(clock)
    )
    heard: list[Any] = []
    kitchen = kitchen_of(RowsInMemory({"train": pairs(10)}))
    kitchen.observe(
        lambda event: heard.append(event) if event.name == "dataset.rendering" else None
    )
    prepare_rows(kitchen, None, Config(render_cache=False), 1)
    about = {"purpose": "train", "dataset": "x", "split": "train", "total": 10}
    assert [event.attributes for event in heard] == [{**about, "rows": n} for n in (2, 5, 8)]


# --- rows to evaluate on ---


@pytest.mark.parametrize("config", [{}, {"check_rows": "first"}])
def test_rows_to_evaluate_on_are_rendered_whole_and_compared(config: dict[str, Any]) -> None:
    store = RowsInMemory({"train": texts("a", "b"), "test": texts("b", "c", "b")})
    rows = prepared(store, test_split="test", **config)
    assert [marked_text(example) for example in rows.test] == ["[b$]", "[c$]", "[b$]"]
    assert rows.facts["rows"]["test"]["also_in_train"] == 2
    assert rows.depends_on["test"]["sequences"] == 3
    few = prepared(store, test_split="test", test_size=2, **config)
    assert len(few.test) == 2


@pytest.mark.parametrize("config", [{}, {"check_rows": "first"}])
def test_rows_that_are_held_out_are_not_trained_on(config: dict[str, Any]) -> None:
    rows = prepared(RowsInMemory({"train": texts(*"abcdef")}), test_size=2, **config)
    trained = {text for _, _, batch in batches(rows, 0, 2) for text in batch}
    assert len(trained) == 4
    assert trained.isdisjoint(map(marked_text, rows.test))


# --- streams ---


STREAM: dict[str, Any] = {"streaming": True, "max_steps": 99}


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(0, 14),
    st.integers(0, 3),
    st.sampled_from([RowsInMemory, StreamedRows]),
)
def test_a_stream_goes_on_where_it_was_left(
    count: int, size: int, start: int, seed: int, kind: type[RowsInMemory]
) -> None:
    store = kind({"train": pairs(count)})
    given: dict[str, Any] = {"batch_size": size, "seed": seed, **STREAM}
    whole = batches(prepared(store, **given), 0, 15)
    per_epoch = -(-count // size)
    assert batches(prepared(store, **given), start, 15) == whole[start:]
    for epoch in range(15 // per_epoch):
        part = whole[epoch * per_epoch : (epoch + 1) * per_epoch]
        seen = [text for _, _, batch in part for text in batch]
        assert {each for each, _, _ in part} == {epoch}
        assert len(seen) == count == len(set(seen))


def test_each_epoch_of_a_stream_has_another_order() -> None:
    rows = prepared(RowsInMemory({"train": pairs(20)}), batch_size=20, **STREAM)
    (_, _, first), (_, _, second) = batches(rows, 0, 2)
    assert sorted(first) == sorted(second)
    assert first != second


def test_a_restart_within_a_process_knows_where_an_epoch_ended() -> None:
    rows = prepared(StreamedRows({"train": pairs(10)}), **STREAM)
    assert isinstance(rows.train, StreamedBatches)
    whole = batches(rows, 0, 12)
    assert rows.train.per_epoch == 4
    assert batches(rows, 7, 12) == whole[7:]


def test_a_stream_that_ends_before_where_it_was_left_is_refused() -> None:
    store = StreamedRows({"train": pairs(10)})
    rows = prepared(store, **STREAM)
    assert isinstance(rows.train, StreamedBatches)
    batches(rows, 0, 5)
    rows.train.handle = rows.train.handle[:3]
    with pytest.raises(InvalidInput, match=r"nothing to learn from x \[train\]: after 9 rows"):
        batches(rows, 3, 5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"streaming": True}, "streaming needs max_steps"),
        ({**STREAM, "check_rows": "all"}, "a stream cannot be checked whole"),
        ({**STREAM, "test_size": 3}, "which a stream does not allow"),
        ({"shuffle_buffer": 3}, "shuffle_buffer is of a stream"),
        ({"check_rows": 0}, "greater than or equal to 1"),
        ({"check_rows": "some"}, "all"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(
    config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**config)


def test_a_stream_has_rows_to_evaluate_on_of_another_split() -> None:
    rows = prepared(
        RowsInMemory({"train": pairs(5), "test": pairs(2)}), test_split="test", **STREAM
    )
    assert len(rows.test) == 2


# --- the first rows, for `crucible doctor` and `--show-rows` ---


def test_the_first_rows_are_shown_without_reading_the_others() -> None:
    store = StreamedRows({"train": pairs(1000), "test": pairs(500)})
    config = Config(test_split="test")
    tried = list(try_rows(kitchen_of(store), None, config))
    assert tried == [("train rows", "row 0: 6 tokens"), ("test rows", "row 0: 6 tokens")]
    shown = show_rows(kitchen_of(store), None, config, 2)
    assert list(shown) == ["row 0, 6 tokens\n0+0=⟦0$⟧", "row 1, 6 tokens\n1+1=⟦2$⟧"]
    assert store.read == 4


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"split": "train[5:]"}, ["row 5", "row 6"]),
        ({"split": "train[50%:]"}, ["row 5", "row 6"]),
        ({"split": "test+train"}, ["row 0 of test", "row 0 of train"]),
        ({"max_length": 1, "too_long": "drop"}, ["row 0 is left out", "row 1 is left out"]),
    ],
)
def test_the_first_rows_are_those_of_the_part(config: dict[str, Any], names: list[str]) -> None:
    store = RowsInMemory({"train": pairs(10), "test": pairs(1)})
    given = Config(**config)
    shown = show_rows(kitchen_of(store), None, given, 2)
    assert [text.partition(",")[0] for text in shown] == names


def test_the_first_rows_of_what_holds_rows_out_are_not_the_held_out_ones() -> None:
    kitchen = kitchen_of(RowsInMemory({"train": pairs(4)}))
    config = Config(test_size=2, seed=1)
    (_, train), (_, test) = try_rows(kitchen, None, config)
    assert train.partition(":")[0] != test.partition(":")[0]


def test_a_data_set_without_rows_is_not_in_order() -> None:
    with pytest.raises(InvalidInput, match="it has no rows"):
        list(try_rows(kitchen_of(RowsInMemory({"train": []})), None, Config()))


# --- threads ---


def test_jobs_are_done_ahead_of_what_is_asked_for_and_no_further() -> None:
    done: list[int] = []

    def job(number: int) -> int:
        done.append(number)
        return number

    results = ahead((partial(job, number) for number in range(100)), 1)
    assert next(results) == 0
    assert next(results) == 1
    results.close()
    assert len(done) <= AHEAD + 2


def test_results_come_in_order_and_an_error_in_its_place() -> None:
    gate = threading.Event()

    def slow() -> int:
        gate.wait(10)
        return 0

    def quick() -> int:
        gate.set()
        return 1

    def fails() -> int:
        raise InvalidInput("here")

    results = ahead(iter([slow, quick, fails, quick]), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(InvalidInput, match="here"):
        next(results)
