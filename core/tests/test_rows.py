"""Rows are judged before the first step: each that cannot be trained on is named."""

from __future__ import annotations

from typing import Any

import pytest
from character_tokenizers import Characters
from crucible_kitchen import InvalidInput
from crucible_kitchen.workflows import splits
from crucible_kitchen.workflows.examples import RowReader
from crucible_kitchen.workflows.rendering import Renderer
from crucible_kitchen.workflows.rows import Counts, Judge, duplicates, hold_out, marked
from hypothesis import given
from hypothesis import strategies as st

LONG = [{"text": "ab"}, {"text": "abcdef"}]


def numbered(rows: list[dict[str, Any]]) -> list[splits.NumberedRow]:
    return [(f"row {number}", row) for number, row in enumerate(rows)]


def judge(tokenizer: Characters | None = None, **settings: Any) -> Judge:
    return Judge(RowReader(), Renderer(tokenizer or Characters()), **settings)


def test_a_row_that_is_too_long_is_an_error_that_names_it() -> None:
    with pytest.raises(InvalidInput, match="row 1 of x: it has 6 tokens, the longest input is 4"):
        judge(max_length=4).examples(numbered(LONG), "x")


def test_a_row_that_is_too_long_can_be_dropped_and_is_counted() -> None:
    dropping = judge(max_length=4, too_long="drop")
    assert len(dropping.examples(numbered(LONG), "x")) == 1
    assert dropping.counts == Counts(rows=2, sequences=1, tokens=3, too_long=1)


def test_that_nothing_is_left_is_an_error_only_of_a_whole_data_set() -> None:
    dropping = judge(max_length=4, too_long="drop")
    assert dropping.kept(numbered(LONG[1:]), "x") == []
    with pytest.raises(InvalidInput, match="nothing to learn from x: every row is too long"):
        dropping.examples(numbered(LONG[1:]), "x")


def test_a_row_that_is_too_long_can_be_cut_and_is_counted() -> None:
    cutting = judge(max_length=4, too_long="truncate")
    cut = cutting.examples(numbered(LONG), "x")[1]
    assert cut.datum().model_input.length == 4
    assert cut.tokens.tolist() == Characters().encode("abcde")
    assert cutting.counts == Counts(rows=2, sequences=2, tokens=8, truncated=1)


def test_a_cut_that_leaves_nothing_to_train_on_leaves_the_row_out_and_is_counted() -> None:
    cutting = judge(max_length=4, too_long="truncate")
    rows = [{"prompt": "abcdef", "completion": "g"}, {"prompt": "a", "completion": "b"}]
    assert len(cutting.examples(numbered(rows), "x")) == 1
    assert cutting.counts == Counts(rows=2, sequences=1, tokens=3, truncated=1, nothing_left=1)


def test_the_limit_of_the_model_holds_whatever_is_asked_for() -> None:
    class Small(Characters):
        model_max_length = 4

    with pytest.raises(InvalidInput, match=r"row 1 of x: .* the longest input is 4"):
        judge(Small(), max_length=100).examples(numbered(LONG), "x")
    assert judge(Small(), max_length=3).limit == 3
    assert judge(Small()).limit == 4


def test_a_token_that_the_model_does_not_know_is_named_with_its_row() -> None:
    class Grown(Characters):
        model_vocab_size = ord("z")

    rows = numbered([{"text": "ab"}, {"text": "az"}])
    with pytest.raises(InvalidInput, match="row 1 of x: its token 123, 'z', is beyond the 122"):
        judge(Grown()).examples(rows, "x")


def test_every_bad_row_is_named_with_its_reason() -> None:
    rows = [{"text": "ok"}, {"a": 1}, {"text": ""}, {"a": 1}]
    with pytest.raises(InvalidInput) as caught:
        judge().examples(numbered(rows), "x")
    said = str(caught.value).splitlines()
    assert said[0] == "3 rows of x cannot be trained on:"
    assert said[1].startswith("  row 1, row 3: it has no field 'messages'")
    assert said[2] == "  row 2: it has fewer than two tokens"


def test_of_many_bad_rows_the_first_are_named_and_the_rest_counted() -> None:
    rows = [{"text": "x" * (5 + number)} for number in range(40)] + [{"a": 1}] * 100
    with pytest.raises(InvalidInput) as caught:
        judge(max_length=2).examples(numbered(rows), "x")
    said = str(caught.value).splitlines()
    assert said[0] == "140 rows of x cannot be trained on:"
    assert len(said) == 8
    assert said[-1].endswith("and 128 more: for such reasons, too")


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([], {}, "nothing to learn from x: it has no rows"),
        (LONG, {"max_length": 1, "too_long": "drop"}, "every row is too long"),
        ([{"text": ""}], {}, "row 0 of x: it has fewer than two tokens"),
        ([{"messages": [{"role": "user", "content": "a"}]}], {}, "no assistant message"),
    ],
)
def test_rows_that_cannot_be_learned_from_are_refused(rows, settings, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        judge(**settings).examples(numbered(rows), "x")


def test_duplicates_are_counted_by_what_is_trained_on() -> None:
    train = judge().examples(numbered([{"text": "a"}, {"text": "b"}]), "x")
    test = judge().examples(numbered([{"text": "b"}, {"text": "c"}, {"text": "b"}]), "x")
    assert duplicates(train, test) == 2


def test_a_sequence_is_shown_with_what_is_trained_on_marked() -> None:
    row = {"prompt": "2+2=", "completion": "4"}
    (example,) = judge().examples(numbered([row]), "x")
    assert marked(example, Characters()) == "2+2=⟦4$⟧"


# --- parts of a data set ---


@pytest.mark.parametrize(
    ("split", "numbers"),
    [
        ("train", range(10)),
        ("train[:3]", range(3)),
        ("train[-2:]", range(8, 10)),
        ("train[:90%]", range(9)),
        ("train[90%:]", range(9, 10)),
        ("train[-25%:]", range(8, 10)),
        ("train[25%:75%]", range(2, 8)),
        ("train[5:5]", range(0)),
    ],
)
def test_a_part_of_a_split_is_written_as_datasets_writes_it(split: str, numbers: range) -> None:
    rows = splits.read(split, lambda name: [{"split": name, "n": n} for n in range(10)])
    assert [row["n"] for _, row in rows] == list(numbers)
    assert [name for name, _ in rows] == [f"row {number}" for number in numbers]


def test_parts_are_joined_and_rows_named_by_their_split() -> None:
    rows = splits.read("train[:1]+test[1:]", lambda name: [{"split": name}] * 2)
    assert [name for name, _ in rows] == ["row 0 of train", "row 1 of test"]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train[:11]", "'train\\[:11\\]' goes beyond the 10 rows"),
        ("train[:120%]", "more than 100 %"),
        ("train[1]", "not of the form"),
        ("train[:1.5%]", "not of the form"),
        ("train[", "not of the form"),
    ],
)
def test_a_part_that_there_is_not_is_refused(split: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        splits.read(split, lambda name: [{}] * 10)


@given(
    st.integers(2, 200),
    st.integers(1, 45),
    st.integers(0, 2**32),
)
def test_a_held_out_part_is_the_same_each_time_and_shares_no_row(
    count: int, percent: int, seed: int
) -> None:
    size = percent / 100
    rows = numbered([{"n": n} for n in range(count)])
    train, test = hold_out(rows, size, seed)
    assert (train, test) == hold_out(rows, size, seed)
    assert sorted(train + test, key=lambda row: row[1]["n"]) == rows
    assert len(test) == -(-count * percent // 100)
    assert len(hold_out(rows, 1, seed)[1]) == 1


def test_to_hold_out_everything_is_refused() -> None:
    with pytest.raises(InvalidInput, match="test_size = 2 leaves nothing of 2 rows"):
        hold_out(numbered(LONG), 2, 0)
