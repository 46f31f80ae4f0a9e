"""Rendered sequences in a file are what was written, or the file is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from crucible_kitchen import InvalidInput
from crucible_kitchen.workflows.rows.rendering import Example
from crucible_kitchen.workflows.rows.sequences import (
    Sequences,
    Writer,
    duplicates,
    fingerprint,
    read,
)
from hypothesis import given
from hypothesis import strategies as st


@st.composite
def examples(draw: st.DrawFn) -> Example:
    pairs = draw(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), max_size=9))
    tokens, flags = zip(*pairs, strict=True) if pairs else ((), ())
    length = draw(st.none() | st.integers(0, len(pairs)))
    end = draw(st.none() | st.integers(0, 2**31 - 1))
    return Example(np.array(tokens, np.int64), np.array(flags, np.float32), length, end)


def written(found: list[Example], path: Path) -> Sequences:
    with path.open("w+b") as file:
        writer = Writer(file)
        for example in found:
            writer.append(example)
        return writer.finish({"rows": len(found)})


def plain(example: Example) -> tuple[object, ...]:
    assert example.tokens.dtype == np.int64
    assert example.weights.dtype == np.float32
    tokens, weights = example.tokens.tolist(), example.weights.tolist()
    return tokens, weights, example.prompt_length, example.end_token


@given(st.lists(examples(), max_size=6))
def test_sequences_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, found: list[Example]
) -> None:
    path = tmp_path_factory.mktemp("sequences") / "file"
    made = written(found, path)
    with path.open("rb") as file:
        again = read(file)
    for sequences in (made, again):
        assert list(map(plain, sequences)) == list(map(plain, found))
        assert [*map(plain, sequences[1:3])] == [*map(plain, found[1:3])]
        assert sequences.fingerprint == fingerprint(found)
        assert sequences.about == {"rows": len(found)}
    with pytest.raises(IndexError):
        made[len(found)]


@pytest.mark.parametrize("token", [-1, 2**31])
def test_what_is_not_a_token_is_refused(token: int) -> None:
    example = Example(np.array([token]), np.zeros(1, np.float32))
    with pytest.raises(InvalidInput, match="not from 0 to 2147483647"):
        Writer(io.BytesIO()).append(example)


def test_a_file_that_was_cut_or_changed_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    one = Example(np.array([5, 6, 7]), np.array([0, 1, 1], np.float32), 1, 7)
    written([one, one], path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with path.open("rb") as file, pytest.raises(ValueError, match=r"end|damaged|Extra|Expect"):
            read(file)
    table = 2 * 3 * 4 + 2 * 24
    for place in range(table):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with path.open("rb") as file, pytest.raises(ValueError, match="damaged"):
            read(file)


def test_duplicates_are_counted_by_their_tokens() -> None:
    def of(*tokens: int) -> Example:
        return Example(np.array(tokens), np.ones(len(tokens), np.float32))

    assert duplicates([of(1, 2), of(3)], [of(3), of(4), of(3)]) == 2
    assert duplicates([], [of(1)]) == 0
