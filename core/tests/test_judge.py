"""Rows are judged: each that cannot be trained on is named, and what is left out is counted."""

from __future__ import annotations

from typing import Any

import pytest
from character_tokenizers import Characters
from crucible_kitchen import InvalidInput, NotRecorded
from crucible_kitchen.workflows.rows.examples import RowReader
from crucible_kitchen.workflows.rows.judge import Counts, Judge
from crucible_kitchen.workflows.rows.rendering import Example, Renderer, marked
from crucible_kitchen.workflows.rows.stored import NumberedRow

LONG = [{"text": "ab"}, {"text": "abcdef"}]


def numbered(rows: list[dict[str, Any]]) -> list[NumberedRow]:
    return [(f"row {number}", row) for number, row in enumerate(rows)]


def judge(tokenizer: Characters | None = None, **settings: Any) -> Judge:
    return Judge(RowReader(), Renderer(tokenizer or Characters()), **settings)


def kept(judge: Judge, rows: list[NumberedRow]) -> list[Example]:
    return list(judge.all_of(rows, "x"))


def test_a_row_that_is_too_long_is_an_error_that_names_it() -> None:
    with pytest.raises(InvalidInput, match="row 1 of x: it has 6 tokens, the longest input is 4"):
        kept(judge(max_length=4), numbered(LONG))


def test_a_row_that_is_too_long_can_be_dropped_and_is_counted() -> None:
    dropping = judge(max_length=4, too_long="drop")
    assert len(kept(dropping, numbered(LONG))) == 1
    assert dropping.counts == Counts(rows=2, sequences=1, tokens=3, too_long=1)


def test_a_row_that_is_too_long_can_be_cut_and_is_counted() -> None:
    cutting = judge(max_length=4, too_long="truncate")
    cut = kept(cutting, numbered(LONG))[1]
    assert cut.datum().model_input.length == 4
    assert cut.tokens.tolist() == Characters().encode("abcde")
    assert cutting.counts == Counts(rows=2, sequences=2, tokens=8, truncated=1)


def test_a_cut_that_leaves_nothing_to_train_on_leaves_the_row_out_and_is_counted() -> None:
    cutting = judge(max_length=4, too_long="truncate")
    rows = [{"prompt": "abcdef", "completion": "g"}, {"prompt": "a", "completion": "b"}]
    assert len(kept(cutting, numbered(rows))) == 1
    assert cutting.counts == Counts(rows=2, sequences=1, tokens=3, truncated=1, nothing_left=1)


def test_the_limit_of_the_model_holds_whatever_is_asked_for() -> None:
    class Small(Characters):
        model_max_length = 4

    with pytest.raises(InvalidInput, match=r"row 1 of x: .* the longest input is 4"):
        kept(judge(Small(), max_length=100), numbered(LONG))
    assert judge(Small(), max_length=3).limit == 3
    assert judge(Small()).limit == 4


def test_a_token_that_the_model_does_not_know_is_named_with_its_row() -> None:
    class Grown(Characters):
        model_vocab_size = ord("z")

    rows = numbered([{"text": "ab"}, {"text": "az"}])
    with pytest.raises(InvalidInput, match="row 1 of x: its token 123, 'z', is beyond the 122"):
        kept(judge(Grown()), rows)


def test_every_bad_row_is_named_with_its_reason() -> None:
    rows: list[dict[str, Any]] = [{"text": "ok"}, {"a": 1}, {"text": ""}, {"a": 1}]
    with pytest.raises(InvalidInput) as caught:
        kept(judge(), numbered(rows))
    said = str(caught.value).splitlines()
    assert said[0] == "3 rows of x cannot be trained on:"
    assert said[1].startswith("  row 1, row 3: it has no field 'messages'")
    assert said[2] == "  row 2: it has fewer than two tokens"


def test_what_a_recording_lacks_is_not_put_down_to_the_row() -> None:
    class Recorded(Characters):
        def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
            raise NotRecorded("no answer")

    with pytest.raises(NotRecorded, match=r"^no answer$"):
        kept(judge(Recorded()), numbered([{"text": "ab"}]))


def test_of_many_bad_rows_the_first_are_named_and_the_rest_counted() -> None:
    rows: list[dict[str, Any]] = [{"text": "x" * (5 + number)} for number in range(40)] + [
        {"a": 1}
    ] * 100
    with pytest.raises(InvalidInput) as caught:
        kept(judge(max_length=2), numbered(rows))
    said = str(caught.value).splitlines()
    assert said[0] == "140 rows of x cannot be trained on:"
    assert len(said) == 8
    assert said[-1].endswith("and 128 more: for other reasons like these")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": ""}, "row 0 of x: it has fewer than two tokens"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no assistant message"),
        ({"a": 1}, "row 0 of x: it has no field"),
    ],
)
def test_a_row_that_cannot_be_learned_from_is_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        kept(judge(), numbered([row]))


def test_a_sequence_is_shown_with_what_is_trained_on_marked() -> None:
    row = {"prompt": "2+2=", "completion": "4"}
    (example,) = kept(judge(), numbered([row]))
    assert marked(example, Characters()) == "2+2=⟦4$⟧"
