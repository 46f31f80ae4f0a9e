"""The arguments of a call as JSON: what a recording keeps, and a replay compares."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .contract import signature
from .files import digest_of
from .handles import plain_handle
from .masks import Masking
from .values import Json, Plain, digested

_PIECE = 1 << 20


@dataclass(slots=True)
class Digest:
    """What was read of a blob in pieces so far."""

    length: int = 0
    sha256: Any = field(default_factory=hashlib.sha256)
    ended: bool = False
    """Whether all of it was read."""
    raised: str | None = None
    """The type of the error that ended it early."""
    lengths: Sequence[int] = ()
    """Of beginnings that are wanted as well."""
    beginnings: dict[int, str] = field(default_factory=dict)
    """Their digests, as far as they were read."""

    def add(self, piece: Any) -> Any:
        """Take note of a piece, and return it. What is not bytes is the adapter's to refuse."""
        if isinstance(piece, bytes | bytearray | memoryview):
            view = memoryview(piece).cast("B")
            for length in self.lengths:
                if self.length < length <= self.length + view.nbytes:
                    beginning = self.sha256.copy()
                    beginning.update(view[: length - self.length])
                    self.beginnings[length] = beginning.hexdigest()
            self.length += view.nbytes
            self.sha256.update(view)
        return piece

    def plain(self) -> Json:
        """Return it as JSON, as that of bytes in one piece."""
        about = digested(self.length, self.sha256.hexdigest())
        if self.raised is not None:
            return {**about, "raised": self.raised}
        return about if self.ended else {**about, "left": True}

    def beginning(self, length: int) -> Json:
        """Return the first bytes as JSON, as those of what was left there."""
        sha256 = self.beginnings.get(length, _EMPTY)
        return {**digested(length, sha256), "left": True}


_EMPTY = hashlib.sha256().hexdigest()


class PiecesOnce(Iterator[bytes]):
    """An iterator of pieces, noted as they are read."""

    def __init__(self, source: Iterator[Any], digest: Digest) -> None:
        self._source, self._digest = source, digest

    def __next__(self) -> bytes:
        try:
            piece: bytes = self._digest.add(next(self._source))
        except StopIteration:
            self._digest.ended = True
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
        self._digest.__init__(lengths=self._digest.lengths)  # type: ignore[misc]
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
        if not read or size is None or size < 0:
            self._digest.ended = size != 0
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
        masking: what was hidden in texts.
    """

    plain: dict[str, Json]
    passed: dict[str, Any]
    masking: Masking
    _digest: Digest

    @classmethod
    def of(
        cls,
        port: str,
        callback: str,
        given: Mapping[str, Any],
        handles: Numbering,
        masked: Callable[[str], str],
        texts: bool = False,
    ) -> Arguments:
        """Look at the arguments of a call, before it is made.

        Args:
            port: the port.
            callback: the callback.
            given: the arguments by name.
            handles: numbers handles.
            masked: returns a text without secrets.
            texts: write long texts as they are, in place of their digests. So are all those of a
                call in which something was masked.
        """
        made, known = cls({}, {}, Masking(masked), Digest()), signature(port, callback)
        plain = Plain(made.masking, briefly=True, texts=texts)
        for name, value in given.items():
            if name in known.handles:
                made.plain[name] = plain_handle(handles.find(value), value)
            elif name == "data" and (read := _noted(value, made._digest)) is not None:
                made.passed[name] = read
                made.plain[name] = None
            elif isinstance(value, Path):
                made.plain[name] = {"$files": digest_of(value)}
            else:
                made.plain[name] = plain(value)
        if made.masking.hidden and not texts:
            return cls.of(port, callback, given, handles, masked, texts=True)
        return made

    def complete(self) -> dict[str, Json]:
        """Return the arguments as JSON, after the call."""
        return {**self.plain, **dict.fromkeys(self.passed, self._digest.plain())}

    def beginnings(self, lengths: Sequence[int]) -> Iterator[dict[str, Json]]:
        """Yield the arguments as if an adapter had left data in pieces after so many bytes, and
        had not read the rest; last, the whole of them. Nothing is read before it is needed.

        Args:
            lengths: in ascending order.
        """
        for name, value in self.passed.items():
            self._digest.lengths = lengths
            pieces = iter(value)
            for length in lengths:
                while self._digest.length < length and self._reads(pieces):
                    pass
                if self._digest.length >= length:
                    yield {**self.plain, name: self._digest.beginning(length)}
            while self._reads(pieces):
                pass
        yield self.complete()

    def _reads(self, pieces: Iterator[bytes]) -> bool:
        try:
            next(pieces)
        except Exception:  # the end; or noted, and the adapter's answer is on the cassette
            return False
        return True


def _noted(value: Any, digest: Digest) -> Any:
    if isinstance(value, bytes | bytearray | memoryview | str):
        return None
    if hasattr(value, "read"):
        return FileOfPieces(value, digest)
    if isinstance(value, Iterator):
        return PiecesOnce(value, digest)
    return Pieces(value, digest) if isinstance(value, Iterable) else None
