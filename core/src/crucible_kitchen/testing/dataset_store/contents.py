"""Rows are those that are stored, to the last value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ...ports import DatasetStore
from ..conformance import since, unless_synthetic
from .fixtures import DatasetStoreFixtures
from .rows import read, rows_given, texts

LOOKALIKES = (
    ("01001", "01040"),
    ("1.10", "2.50"),
    ("1e3", "2E-7"),
    ("0.1234567890123456789012", "123456789012345678901234567890"),
    ("true", "false"),
    ("NA", "null"),
    ("None", "nan"),
    ("", " "),
    ("2024-01-05", "2023-12-31"),
    ("2024-01-05T10:00:00Z", "2024-01-05 10:00:00"),
    ("10:30", "23:59:59"),
    ("[1, 2]", '{"a": 1}'),
)
"""Pairs of texts that look like something else."""


class Contents(DatasetStoreFixtures):
    """What is stored comes out."""

    @unless_synthetic
    def test_the_rows_are_those_that_are_stored(
        self, dataset_store: DatasetStore, handle: Any, rows: Any
    ) -> None:
        """`to_list` returns every row of the data set as a dictionary, in the stored order, with
        every value as it was: Unicode, line separators within a text, large integers, floats,
        lists of dictionaries, and text that looks like a number.

        Usually broken by `splitlines`, which also splits at U+2028, and by readers that guess
        types.
        """
        expected = rows_given(self.given(rows, "rows"))
        found = dataset_store.to_list(handle)
        assert isinstance(found, list)
        assert all(isinstance(row, dict) for row in found)
        assert texts(found) == texts(expected)

    @unless_synthetic
    def test_text_that_looks_like_a_date_stays_text(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path
    ) -> None:
        """A text is a text, whatever it may mean to a reader of tables.

        Usually broken by pyarrow's reader of JSON, which makes times of a column of dates: a
        prompt that is a date is then no longer text, and cannot be written as JSON.
        """
        days = [{"day": f"2024-02-{1 + number:02}"} for number in range(28)]
        handle = self.written(dataset_store, streaming, tmp_path / "days.jsonl", days)
        assert read(dataset_store, handle) == texts(days)

    @since("1.1")
    @unless_synthetic
    def test_text_stays_text(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path
    ) -> None:
        """A column of texts has the texts that were stored, even if every one of them looks
        like a number, a date, a time, a truth value or a missing one.

        Usually broken by readers of tables, which guess a type for a column: the zip code `01001`
        becomes 1001, the price `1.10` 1.1, and the answer `NA` nothing at all.
        """
        for number, (first, second) in enumerate(LOOKALIKES):
            rows = [{"text": (first, second)[n % 2]} for n in range(20)]
            handle = self.written(dataset_store, streaming, tmp_path / f"{number}.jsonl", rows)
            assert read(dataset_store, handle) == texts(rows)

    @since("1.1")
    @unless_synthetic
    def test_integers_have_all_their_digits(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path
    ) -> None:
        """An integer is that integer, even one of 30 digits, next to small ones and by itself.

        Usually broken by columns of 64 bits, and by floats, which keep 15 digits.
        """
        rows = [{"n": sign * (10**n + 1)} for n in range(31) for sign in (1, -1)]
        handle = self.written(dataset_store, streaming, tmp_path / "integers.jsonl", rows)
        assert read(dataset_store, handle) == texts(rows)

    @since("1.1")
    @unless_synthetic
    def test_a_value_is_what_it_is_wherever_it_lies(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path
    ) -> None:
        """A value that is of another type than those of thousands of rows before it, or a field
        that none of them has, is read as it was stored.

        Usually broken by a type that is taken from the first rows: the rest are changed to fit,
        left out, or refused.
        """
        rows: list[dict[str, Any]] = [{"answer": n} for n in range(6000)]
        late = ["006000", "2024-01-05", None, True, 1.5, ["a", 1], {"a": None}, "NA"]
        rows += [{"answer": value} for value in late] + [{"answer": "", "late": "x"}]
        handle = self.written(dataset_store, streaming, tmp_path / "late.jsonl", rows)
        assert read(dataset_store, handle) == texts(rows)

    @since("1.1")
    @unless_synthetic
    def test_a_row_and_what_is_in_it_have_the_fields_that_were_stored(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path
    ) -> None:
        """An object has the fields that were stored with it, at any depth, and no other; a null
        that was stored is None.

        Usually broken by columns of structs, in which each has the fields of all: the arguments
        of every tool call then have the names of every tool's, with null.
        """
        arguments: list[Any] = [{"x": 1}, {"city": None}, {}, {"to": [{"a": 1}, {"b": None}]}, None]
        rows: list[dict[str, Any]] = [
            {"messages": [{"role": "tool", "call": {"arguments": given}}]} for given in arguments
        ]
        rows += [{"messages": [], "extra": None}, {"other": "x"}]
        handle = self.written(dataset_store, streaming, tmp_path / "fields.jsonl", rows * 3)
        assert read(dataset_store, handle) == texts(rows * 3)

    @unless_synthetic
    def test_missing_values_and_empty_texts_stay(
        self, dataset_store: DatasetStore, handle: Any, rows: Any
    ) -> None:
        """A value that is None is None, and its key is there; an empty text is an empty text, an
        empty list an empty list, and zero and False are not None.

        Usually broken by readers that drop nulls, or take "" for a missing value, or turn a
        column of integers with a gap into floats.
        """
        expected = rows_given(self.given(rows, "rows"))
        found = dataset_store.to_list(handle)
        assert [sorted(row) for row in found] == [sorted(row) for row in expected]
        falsy = 0
        for row, right in zip(found, expected, strict=True):
            for key, value in right.items():
                if not value:
                    falsy += 1
                    assert (row[key], type(row[key])) == (value, type(value)), (key, right)
        if not falsy:
            pytest.skip("no value of `rows` is None, empty or zero")
