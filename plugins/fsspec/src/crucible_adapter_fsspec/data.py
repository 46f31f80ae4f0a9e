"""The data of a `write`, in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, TypeAlias

from crucible_kitchen import InvalidInput

Data: TypeAlias = bytes | Iterable[bytes] | BinaryIO

PIECE = 1 << 20
"""Bytes that are moved at a time."""


def pieces(data: Data) -> Iterator[bytes]:
    """Yield the data in pieces.

    Raises:
        InvalidInput: the data is not bytes, or a piece is not.
    """
    if isinstance(data, bytes | bytearray | memoryview):
        yield bytes(data)
        return
    read = getattr(data, "read", None)
    # A file would iterate by lines of any length.
    source = data if read is None else iter(lambda: read(PIECE), b"")
    if not isinstance(source, Iterable) or isinstance(source, str):
        raise InvalidInput(
            f"a blob is bytes, pieces of bytes or a binary file, not {type(data).__name__}"
        )
    for piece in source:
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise InvalidInput(f"a blob is made of bytes, not of {type(piece).__name__}")
        yield bytes(piece)
