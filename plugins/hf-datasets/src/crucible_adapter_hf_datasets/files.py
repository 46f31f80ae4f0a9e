"""One data file: its name, the format that the name implies, and how it is opened."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any, cast

from crucible_kitchen import AdapterError, InvalidInput, NotFound, Unsupported

COMPRESSIONS = (".bz2", ".gz", ".xz", ".zst")

_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)

_ALWAYS = 16 << 20
"""Bytes to which a compressed file may always expand."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of an untrusted file. A file of this machine has none.

    Args:
        expansion: largest decompressed size as a multiple of the stored size, if above 16 MiB.
        row: largest row in characters of text, and largest value of a file that is read whole.
    """

    expansion: float
    row: int


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of rows.

    Args:
        name: its path or address, whose last suffixes tell format and compression.
        raw: opens the stored bytes, from the start.
        bounds: its limits; None for no limits.
    """

    name: str
    raw: Callable[[], IO[bytes]]
    bounds: Bounds | None = None

    @property
    def suffix(self) -> str:
        """The suffix that tells the format, in lower case: `.csv` of `a.CSV.gz`."""
        return suffixes(self.name)[0]

    @contextmanager
    def open(self) -> Iterator[io.BufferedReader]:
        """Open the decompressed bytes, from the start.

        Raises:
            NotFound: the file does not exist any more.
            InvalidInput: it is damaged, or not compressed as its name says.
            Unsupported: the module that decompresses it is not installed.
        """
        compression = suffixes(self.name)[1]
        try:
            with self.raw() as raw, _buffered(self._bounded(raw, compression)) as binary:
                yield binary
        except _DAMAGED as error:
            raise self._damaged(error) from error
        except FileNotFoundError as error:
            if isinstance(error, AdapterError):
                raise
            raise NotFound(f"file {self.name}: is gone") from error
        except Exception as error:
            # bz2 raises a bare OSError for damaged data, and zstd its own error.
            if compression and (type(error) is OSError or type(error).__name__ == "ZstdError"):
                raise self._damaged(error) from error
            raise

    def check_row(self, length: int, line: int | None = None) -> None:
        """Raise `InvalidInput` if `length` characters are too many for one row."""
        if self.bounds is not None and length > self.bounds.row:
            where = f"file {self.name}" if line is None else f"file {self.name}, line {line}"
            raise InvalidInput(
                f"{where}: a row is longer than {self.bounds.row:,} characters, the option "
                "`max_row_bytes`"
            )

    def check_size(self, stored: int, grown: int) -> None:
        """Raise `InvalidInput` if `stored` bytes may not expand to `grown` bytes."""
        if self.bounds is not None and grown > max(_ALWAYS, self.bounds.expansion * stored):
            raise InvalidInput(
                f"file {self.name}: {stored:,} bytes of it expand to {grown:,} or more, above "
                f"{self.bounds.expansion:g} times as many, the option `max_expansion`"
            )

    def _bounded(self, raw: IO[bytes], compression: str) -> Any:
        if self.bounds is None or not compression:
            return self._decompressed(raw, compression)
        counted = _Counted(raw)
        return _Grown(self, self._decompressed(cast("IO[bytes]", counted), compression), counted)

    def _decompressed(self, raw: IO[bytes], compression: str) -> Any:
        match compression:
            case ".gz":
                return gzip.GzipFile(fileobj=raw)
            case ".bz2":
                return bz2.BZ2File(raw)
            case ".xz":
                return lzma.LZMAFile(raw)
            case ".zst":
                return self._zstd(raw)
        return raw

    def _zstd(self, raw: IO[bytes]) -> Any:
        try:
            zstandard = importlib.import_module("zstandard")
        except ImportError as error:
            raise Unsupported(
                f"file {self.name}: reading .zst needs zstandard: "
                'pip install "crucible-adapter-hf-datasets[zstd]"'
            ) from error
        return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)

    def _damaged(self, error: Exception) -> InvalidInput:
        return InvalidInput(
            f"file {self.name}: is damaged, or not compressed as its name says: {error}"
        )


class _Counted(io.RawIOBase):
    """A file that counts the bytes that were read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.count = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


class _Grown(io.RawIOBase):
    """The decompressed bytes of a file, up to its limits."""

    def __init__(self, file: DataFile, grown: IO[bytes], stored: _Counted) -> None:
        self._file, self._grown, self._stored = file, grown, stored

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._grown.seekable()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._grown.seek(offset, whence)

    def tell(self) -> int:
        return self._grown.tell()

    def readinto(self, buffer: Any) -> int:
        data = self._grown.read(len(buffer))
        buffer[: len(data)] = data
        self._file.check_size(self._stored.count, self._grown.tell())
        return len(data)


def local(path: Path, name: str | None = None, bounds: Bounds | None = None) -> DataFile:
    """Return the file at a path on this machine, named after the path by default."""
    return DataFile(name or str(path), lambda: path.open("rb"), bounds)


def suffixes(name: str) -> tuple[str, str]:
    """Return the suffixes that tell a file's format and its compression, or "" for each."""
    found = [suffix.lower() for suffix in PurePath(name).suffixes]
    compression = found.pop() if found and found[-1] in COMPRESSIONS else ""
    return (found[-1] if found else ""), compression


def _buffered(binary: Any) -> io.BufferedReader:
    return binary if isinstance(binary, io.BufferedReader) else io.BufferedReader(binary, 1 << 17)
