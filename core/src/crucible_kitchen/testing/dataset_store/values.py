"""Every text, every number, every name of a field."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ...errors import InvalidInput
from ...ports import DatasetStore
from ..conformance import since, unless_synthetic
from .fixtures import DatasetStoreFixtures, open_dataset
from .rows import read, texts

TEXTS = (
    "e\u0301 is not \u00e9",
    "\ufb01 \uff21 \u212b",
    "&lt;br&gt; &amp; <p>",
    " in front",
    "behind ",
    "a line\n",
    "\n\n",
    "\t",
    "a\rb\r\nc",
    "\ufeffbyte order",
    "zero\u200bwidth\u200d",
    "nul\0nul",
    "\x1b[31mred",
    "back\\slash \\n \\u0041",
    "'single' and \"double\"",
    "Infinity",
    "-inf",
    "1e5",
    "0x1F",
    "1_000",
    "TRUE",
    "no",
    "N/A",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "{{ template }} ${variable} %s",
)
"""Texts that something on the way may change."""

LONG = "long text. " * 20_000

NUMBERS = (0.1, 0.1 + 0.2, 1.0, -0.0, 1e22, 1.7976931348623157e308, 5e-324, 1 / 3, 123456789.125)

FIELDS = ("b", "a", "B", "A", " a", "a.b", "a/b", "naïve-数据", "0", "Unnamed: 0", "index", "")
"""Names of fields, in no order."""


class Values(DatasetStoreFixtures):
    """What the kit writes comes out, character by character. Stores that do not read files of
    JSON Lines skip these.
    """

    @since("1.5")
    @unless_synthetic
    def test_a_text_keeps_every_character(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path
    ) -> None:
        """No character of a text is added, dropped or replaced: white space at the ends, line
        ends, invisible characters, entities, letters that have two spellings; and none is cut off
        behind the longest that a cell of a table may have.

        Usually broken by `strip`, by a step of "cleaning", and by Unicode that is normalised: the
        model learns to answer what nobody wrote.
        """
        for number, given in enumerate((TEXTS, [LONG])):
            rows = [{"text": text, "inner": [{"text": text}]} for text in given]
            handle = self._lines(dataset_store, streaming, tmp_path / f"{number}.jsonl", rows)
            assert read(dataset_store, handle) == texts(rows)

    @since("1.5")
    @unless_synthetic
    def test_a_float_keeps_every_digit(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path
    ) -> None:
        """A float is the float that was stored, to its last bit, and stays one if it is whole.

        Usually broken by 32 bits, and by a column of floats that looks like integers.
        """
        rows = [{"x": number, "all": list(NUMBERS)} for number in NUMBERS]
        handle = self._lines(dataset_store, streaming, tmp_path / "floats.jsonl", rows)
        assert read(dataset_store, handle) == texts(rows)

    @since("1.5")
    @unless_synthetic
    def test_what_is_not_a_number_is_that_or_refused(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path
    ) -> None:
        """`NaN` and `Infinity`, which Python writes although JSON does not know them, are these
        floats, or `InvalidInput`.

        Usually broken by a parser that makes null of them: a reward that went wrong then looks
        like one that was never given.
        """
        rows = [{"x": 1.0}, {"x": math.nan}, {"x": math.inf}, {"x": -math.inf}]
        try:
            handle = self._lines(dataset_store, streaming, tmp_path / "nan.jsonl", rows)
            found = dataset_store.to_list(handle)
        except InvalidInput:
            return
        assert texts(found) == texts(rows)

    @since("1.5")
    @unless_synthetic
    def test_fields_have_their_names_and_their_order(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path
    ) -> None:
        """A field has the name that was stored, to the character, and the fields of a row, and of
        an object in it, come in the stored order.

        Usually broken by sorting keys, or by the columns of a table: the arguments of a tool call
        are then rendered, and learned, in an order that no model writes.
        """
        rows: list[dict[str, Any]] = [
            dict.fromkeys(names, "x") | {"inner": dict.fromkeys(names, 1)}
            for names in (FIELDS, FIELDS[::-1], FIELDS[3:7])
        ]
        handle = self._lines(dataset_store, streaming, tmp_path / "fields.jsonl", rows * 4)
        found = dataset_store.to_list(handle)
        assert texts(found) == texts(rows * 4)
        assert [list(row) for row in found] == [list(row) for row in rows * 4]
        assert [list(row["inner"]) for row in found] == [list(row["inner"]) for row in rows * 4]

    def _lines(
        self, store: DatasetStore, streaming: bool, file: Path, rows: list[dict[str, Any]]
    ) -> Any:
        """Write rows as JSON Lines in UTF-8, and open them."""
        self.needs_rows_of_the_kit()
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        file.write_bytes("".join(f"{line}\n" for line in lines).encode())
        return open_dataset(store, str(file), None, streaming)
