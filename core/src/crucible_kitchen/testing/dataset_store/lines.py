"""Files of rows: how they may end, what they may not hold, and that they change."""

from __future__ import annotations

from pathlib import Path

import pytest

from ...errors import InvalidInput
from ...ports import DatasetStore
from ..conformance import since, unless_synthetic
from ..refusal import refuses
from .fixtures import DatasetStoreFixtures, open_dataset
from .rows import read, reading, texts

ENDS = {
    "no line end at the end": b'{"n": 0}\n{"n": 1}\n{"n": 2}',
    "empty lines": b'\n{"n": 0}\n\n{"n": 1}\n  \n{"n": 2}\n\n\n',
    "line ends of Windows": b'{"n": 0}\r\n{"n": 1}\r\n{"n": 2}\r\n',
    "spaces": b'  {"n": 0}  \n\t{ "n" : 1 }\n{"n":2}\n',
}

WRONG = {
    "torn": b'{"n": 0}\n{"n": 1}\n{"n": ',
    "no JSON": b'{"n": 0}\n{"n": 1}\nn: 2\n{"n": 3}\n',
    "two in one line": b'{"n": 0}\n{"n": 1}\n{"n": 2}{"n": 3}\n',
    "a list": b'{"n": 0}\n{"n": 1}\n[2]\n{"n": 3}\n',
    "a number": b'{"n": 0}\n{"n": 1}\n2\n{"n": 3}\n',
    "null": b'{"n": 0}\n{"n": 1}\nnull\n{"n": 3}\n',
    "not UTF-8": b'{"n": 0}\n{"n": 1}\n{"n": "\xff"}\n{"n": 3}\n',
}
"""Files with something in the third line that is no row."""


class Lines(DatasetStoreFixtures):
    """Files of JSON Lines. Stores that do not read them skip these."""

    @since("1.5")
    @unless_synthetic
    @pytest.mark.parametrize("ends", ENDS)
    def test_every_row_of_a_file_is_read_however_it_ends(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path, ends: str
    ) -> None:
        """The last row needs no line end; empty lines and white space around a row are nothing.

        Usually broken by splitting at line ends and dropping the last part: one row fewer.
        """
        self.needs_rows_of_the_kit()
        (tmp_path / "rows.jsonl").write_bytes(ENDS[ends])
        handle = open_dataset(dataset_store, str(tmp_path / "rows.jsonl"), None, streaming)
        assert read(dataset_store, handle) == texts([{"n": n} for n in range(3)])

    @since("1.5")
    @unless_synthetic
    @pytest.mark.parametrize("wrong", WRONG)
    def test_what_is_no_row_is_refused_with_its_place(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path, wrong: str
    ) -> None:
        """A line that is not a row, such as one that was torn by a full disk, is `InvalidInput`
        when the data set is opened or read, with the name of the file, and no row is skipped.

        Usually broken by `try: ... except ValueError: continue`, and by a decoder that replaces
        what it cannot read.
        """
        self.needs_rows_of_the_kit()
        (tmp_path / "wrong.jsonl").write_bytes(WRONG[wrong])
        (tmp_path / "right.jsonl").write_bytes(b'{"n": 0}\n')
        open_dataset(dataset_store, str(tmp_path / "right.jsonl"), None, streaming)  # may skip
        opened = reading(dataset_store, dataset_store.load_dataset)
        error = refuses(InvalidInput, opened, str(tmp_path / "wrong.jsonl"), streaming=streaming)
        assert "wrong.jsonl" in str(error)

    @since("1.5")
    @unless_synthetic
    def test_a_file_that_has_changed_is_read_as_it_is(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path
    ) -> None:
        """A data set that is opened again after its file was replaced, by one of the same size
        even, has the new rows; and two files of one name in two folders are two data sets.

        Usually broken by a cache that is keyed by the name: a corrected data set is trained on as
        it was before.
        """
        self.needs_rows_of_the_kit()
        for folder in ("one", "other"):
            (tmp_path / folder).mkdir()
            for number in (10, 20, 30):
                rows = [{"from": folder, "n": number + n} for n in range(3)]
                handle = self.written(
                    dataset_store, streaming, tmp_path / folder / "rows.jsonl", rows
                )
                assert read(dataset_store, handle) == texts(rows)

    @since("1.5")
    @unless_synthetic
    def test_the_order_does_not_depend_on_the_name(
        self, dataset_store: DatasetStore, streaming: bool, tmp_path: Path
    ) -> None:
        """The same rows in another file are shuffled to the same order by the same seed.

        Usually broken by a seed that is mixed with the path: a run cannot be repeated on a machine
        where the data lie elsewhere.
        """
        rows = [{"n": n} for n in range(40)]
        orders = []
        for name in ("one.jsonl", "another name.jsonl"):
            handle = self.written(dataset_store, streaming, tmp_path / name, rows)
            orders.append(read(dataset_store, dataset_store.shuffle(handle, 3, 7)))
        assert orders[0] == orders[1]
