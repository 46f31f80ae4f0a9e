"""Rendered sequences as flat arrays in a file, which is mapped into memory and not read whole."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, overload

import numpy as np
import numpy.typing as npt

from ...errors import InvalidInput
from ...types import IntArray
from .rendering import Example

_MAGIC = b"crucible-rows-1\n"
_BITS = 31
_LARGEST_TOKEN = 2**_BITS - 1


class Sequences(Sequence[Example]):
    """Sequences in a file. Each access makes a new `Example`.

    Args:
        packed: uint32 `(t,)`, every token of every sequence: twice its id, and 1 more if it is
            trained on.
        table: int64 `(n, 3)`, for each sequence where it ends in `packed`, its `prompt_length` and
            its `end_token`; -1 stands for None.
        about: what was written with them.
        fingerprint: what `fingerprint` returns for them.
    """

    def __init__(
        self,
        packed: npt.NDArray[np.uint32],
        table: IntArray,
        about: Mapping[str, Any],
        fingerprint: Mapping[str, Any],
    ) -> None:
        self._packed, self._table = packed, table
        self.about, self.fingerprint = about, fingerprint

    def __len__(self) -> int:
        return len(self._table)

    @property
    def trained_tokens(self) -> int:
        """How many tokens of all of them are trained on."""
        return int((self._packed & 1).sum(dtype=np.int64))

    @property
    def longest(self) -> int:
        """The tokens of the longest of them; 0 if there is none."""
        return int(np.diff(self._table[:, 0], prepend=0).max(initial=0))

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]
        end, prompt_length, end_token = self._table[place].tolist()
        start = int(self._table[place - 1, 0]) if place else 0
        packed = self._packed[start:end]
        return Example(
            (packed >> 1).astype(np.int64),
            (packed & 1).astype(np.float32),
            None if prompt_length < 0 else prompt_length,
            None if end_token < 0 else end_token,
        )


class Writer:
    """Writes sequences to a file, in order, holding 24 bytes for each in memory. A file that is not
    finished cannot be read.

    Args:
        file: an empty file, open for reading and writing.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._checksum, self._identity = hashlib.sha256(), hashlib.sha256()
        self._table = array("q")
        self._end = 0

    def append(self, example: Example) -> None:
        """Add a sequence whose weights are 0 or 1.

        Raises:
            InvalidInput: a token is not one of a model's.
        """
        tokens = example.tokens
        if (tokens >> _BITS).any():  # for one that is negative, too
            raise InvalidInput(f"its tokens are not from 0 to {_LARGEST_TOKEN}")
        packed = (tokens << 1 | (example.weights != 0)).astype("<u4")
        self._write(packed.tobytes())
        self._end += len(tokens)
        about = (example.prompt_length, example.end_token)
        self._table.extend([self._end, *(-1 if value is None else value for value in about)])
        identify(self._identity, example)

    def finish(self, about: Mapping[str, Any]) -> Sequences:
        """Write the end of the file, and return what was written.

        Args:
            about: plain data that is kept with the sequences.
        """
        count = len(self._table) // 3
        if self._end % 2:
            self._write(bytes(4))  # the table begins at a multiple of 8 bytes
        self._write(np.array(self._table, "<i8").tobytes())
        footer = {
            "sequences": count,
            "tokens": self._end,
            "checksum": self._checksum.hexdigest(),
            "sha256": self._identity.hexdigest(),
            "about": dict(about),
        }
        text = json.dumps(footer).encode()
        self._file.write(text + len(text).to_bytes(8, "little") + _MAGIC)
        self._file.flush()
        return read(self._file, verify=False)

    def _write(self, data: bytes) -> None:
        self._checksum.update(data)
        self._file.write(data)


def read(file: IO[bytes], *, verify: bool = True) -> Sequences:
    """Return the sequences of a file that a `Writer` has finished. The file may then be closed.

    Args:
        file: open for reading.
        verify: whether to compare its bytes with their checksum.

    Raises:
        ValueError: the file is not one, not whole, or damaged.
    """
    size = os.fstat(file.fileno()).st_size
    if size < len(_MAGIC) + 8:
        raise ValueError("it has no end")
    data = memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
    if bytes(data[size - len(_MAGIC) :]) != _MAGIC:
        raise ValueError("it has no end")
    stop = size - len(_MAGIC) - 8
    start = stop - int.from_bytes(data[stop : stop + 8], "little")
    if start < 0:
        raise ValueError("it is damaged")
    footer = json.loads(bytes(data[start:stop]))
    tokens, count = int(footer["tokens"]), int(footer["sequences"])
    table = tokens * 4 + tokens % 2 * 4
    if table + count * 24 != start or (
        verify and hashlib.sha256(data[:start]).hexdigest() != footer["checksum"]
    ):
        raise ValueError("it is damaged")
    return Sequences(
        np.frombuffer(data, "<u4", tokens),
        np.frombuffer(data, "<i8", count * 3, table).reshape(-1, 3),
        footer["about"],
        {"sequences": count, "sha256": footer["sha256"]},
    )


def fingerprint(examples: Sequence[Example]) -> dict[str, Any]:
    """Return what identifies sequences in their order: their number, and a digest of all."""
    digest = hashlib.sha256()
    for example in examples:
        identify(digest, example)
    return {"sequences": len(examples), "sha256": digest.hexdigest()}


def identify(digest: hashlib._Hash, example: Example) -> None:
    """Add everything that an example says to a digest."""
    digest.update(b"%d %d " % (len(example.tokens), example.prompt_length or 0))
    digest.update(example.tokens.astype("<i8").tobytes())
    digest.update(example.weights.astype("<f4").tobytes())


def duplicates(train: Sequence[Example], test: Sequence[Example]) -> int:
    """Return how many sequences of `test` are also in `train`."""
    wanted = [example.tokens.tobytes() for example in test]
    found = _among(train, set(wanted))
    return sum(tokens in found for tokens in wanted)


def _among(examples: Sequence[Example], wanted: set[bytes]) -> set[bytes]:
    each: Iterator[bytes] = (example.tokens.tobytes() for example in examples)
    return {tokens for tokens in each if tokens in wanted}
