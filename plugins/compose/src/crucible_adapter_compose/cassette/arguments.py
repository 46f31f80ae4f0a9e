"""The arguments of a call as JSON: what a recording keeps, and a replay compares."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .contract import signature
from .files import digest_of
from .handles import plain_handle
from .values import Json, Plain, digested

_PIECE = 1 << 20


@dataclass(slots=True)
class Digest:
    """What was read of a blob in pieces so far."""

    length: int = 0
    sha256: Any = field(default_factory=hashlib.sha256)
    raised: str | None = None
    """The type of the error that ended it early."""

    def add(self, piece: Any) -> Any:
        """Take note of a piece, and return it. What is not bytes is the adapter's to refuse."""
        if isinstance(piece, bytes | bytearray | memoryview):
            self.length += memoryview(piece).nbytes
            self.sha256.update(piece)
        return piece

    def plain(self) -> Json:
        """Return it as JSON, as that of bytes in one piece."""
        about = digested(self.length, self.sha256.hexdigest())
        return about if self.raised is None else {**about, "raised": self.raised}


class PiecesOnce(Iterator[bytes]):
    """An iterator of pieces, noted as they are read."""

    def __init__(self, source: Iterator[Any], digest: Digest) -> None:
        self._source, self._digest = source, digest

    def __next__(self) -> bytes:
        try:
            piece: bytes = self._digest.add(next(self._source))
        except StopIteration:
            raise
        except BaseException as error:
            self._digest.raised = type(error).__name__
            raise
        return piece


class Pieces(Iterable[bytes]):
    """A list of pieces, say, which may be read again."""

    def __init__(self, source: Iterable[Any], digest: Digest) -> None:
        self._source, self._digest = source, digest

    def __iter__(self) -> Iterator[bytes]:
        self._digest.__init__()  # type: ignore[misc]
        return PiecesOnce(iter(self._source), self._digest)


class FileOfPieces(Iterator[bytes]):
    """An open file, noted as it is read."""

    def __init__(self, file: Any, digest: Digest) -> None:
        self._file, self._digest = file, digest

    def __next__(self) -> bytes:
        if not (piece := self.read(_PIECE)):
            raise StopIteration
        return piece

    def read(self, size: int = -1, /) -> bytes:
        """Read at most `size` bytes; all by default."""
        try:
            read: bytes = self._digest.add(self._file.read(size))
        except BaseException as error:
            self._digest.raised = type(error).__name__
            raise
        return read


class Numbering(Protocol):
    """Finds the number of a handle."""

    def find(self, thing: Any, /) -> int | None:
        """Return it; None for what is not one."""
        ...


@dataclass(slots=True)
class Arguments:
    """The arguments of one call.

    Args:
        plain: them as JSON.
        passed: those that the adapter gets in place of the caller's, so that they are noted as they
            are read.
    """

    plain: dict[str, Json]
    passed: dict[str, Any]
    _digests: dict[str, Digest]

    @classmethod
    def of(
        cls,
        port: str,
        callback: str,
        given: Mapping[str, Any],
        handles: Numbering,
        masked: Callable[[str], str],
    ) -> Arguments:
        """Look at the arguments of a call, before it is made.

        Args:
            port: the port.
            callback: the callback.
            given: the arguments by name.
            handles: numbers handles.
            masked: returns a text without secrets.
        """
        plain, known = Plain(masked, briefly=True), signature(port, callback)
        made = cls({}, {}, {})
        for name, value in given.items():
            if name in known.handles:
                made.plain[name] = plain_handle(handles.find(value), value)
            elif name == "data" and (read := _noted(value, digest := Digest())) is not None:
                made.passed[name], made._digests[name] = read, digest
                made.plain[name] = None
            elif isinstance(value, Path):
                made.plain[name] = {"$files": digest_of(value)}
            else:
                made.plain[name] = plain(value)
        return made

    def read_to_the_end(self) -> None:
        """Read what the adapter would have read."""
        for value in self.passed.values():
            try:
                for _ in value:
                    pass
            except Exception:  # noted, and the adapter's answer is on the cassette
                continue

    def complete(self) -> dict[str, Json]:
        """Return the arguments as JSON, after the call."""
        for name, digest in self._digests.items():
            self.plain[name] = digest.plain()
        return self.plain


def _noted(value: Any, digest: Digest) -> Any:
    if isinstance(value, bytes | bytearray | memoryview | str):
        return None
    if hasattr(value, "read"):
        return FileOfPieces(value, digest)
    if isinstance(value, Iterator):
        return PiecesOnce(value, digest)
    return Pieces(value, digest) if isinstance(value, Iterable) else None
