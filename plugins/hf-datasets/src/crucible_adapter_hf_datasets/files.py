"""One data file: what it is called, what its name says it is, and how it is opened."""

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
from typing import IO, Any

from crucible_kitchen import AdapterError, InvalidInput, NotFound, Unsupported

COMPRESSIONS = (".bz2", ".gz", ".xz", ".zst")

_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of rows.

    Args:
        name: its path or address, of which the last suffixes tell format and compression.
        raw: opens it from its start, as it is stored.
    """

    name: str
    raw: Callable[[], IO[bytes]]

    @property
    def suffix(self) -> str:
        """The suffix that tells the format, in small letters: `.csv` of `a.CSV.gz`."""
        return suffixes(self.name)[0]

    @contextmanager
    def open(self) -> Iterator[io.BufferedReader]:
        """Open it from its start, decompressed.

        Raises:
            NotFound: it is gone.
            InvalidInput: what is read is not compressed as its name says, or is damaged.
            Unsupported: the module that decompresses it is not installed.
        """
        compression = suffixes(self.name)[1]
        try:
            with self.raw() as raw, _buffered(self._decompressed(raw, compression)) as binary:
                yield binary
        except _DAMAGED as error:
            raise self._damaged(error) from error
        except FileNotFoundError as error:
            if isinstance(error, AdapterError):
                raise
            raise NotFound(f"file {self.name}: is gone") from error
        except Exception as error:
            # bz2 raises a bare OSError of damaged data, and zstd an error of its own.
            if compression and (type(error) is OSError or type(error).__name__ == "ZstdError"):
                raise self._damaged(error) from error
            raise

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


def local(path: Path) -> DataFile:
    """Return the file of a path on this machine."""
    return DataFile(str(path), lambda: path.open("rb"))


def suffixes(name: str) -> tuple[str, str]:
    """Return the suffixes that tell a file's format and its compression; "" where there is none."""
    found = [suffix.lower() for suffix in PurePath(name).suffixes]
    compression = found.pop() if found and found[-1] in COMPRESSIONS else ""
    return (found[-1] if found else ""), compression


def _buffered(binary: Any) -> io.BufferedReader:
    return binary if isinstance(binary, io.BufferedReader) else io.BufferedReader(binary, 1 << 17)
