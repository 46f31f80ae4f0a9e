"""What a data set's id names: local files, a local folder, or a data set of the Hub."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crucible_kitchen import InvalidInput, NotFound

_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".jsonl": ("json", {}),
    ".ndjson": ("json", {}),
    ".json": ("json", {}),
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".parquet": ("parquet", {}),
    ".txt": ("text", {}),
}
_COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst"})


@dataclass(frozen=True, slots=True)
class Source:
    """Where a data set comes from.

    Args:
        label: what it is called in messages.
        path: the first argument of `datasets.load_dataset`.
        arguments: further ones that follow from the kind of source.
        files: the local files, if they were named.
        local: whether it is on this machine.
    """

    label: str
    path: str
    arguments: dict[str, Any]
    files: tuple[Path, ...] = ()
    local: bool = True


def find(dataset_id: str) -> Source:
    """Say what an id names.

    Raises:
        NotFound: it looks like a path, and there is nothing.
        InvalidInput: files of no known format, or of several.
    """
    path = Path(dataset_id).expanduser()
    if path.is_dir():
        return Source(f"folder {path.absolute()}", str(path.absolute()), {})
    if path.is_file():
        return _of_files(f"file {path.absolute()}", [path.absolute()])
    if glob.has_magic(dataset_id):
        matches = [Path(match).absolute() for match in sorted(glob.glob(str(path), recursive=True))]
        if files := [match for match in matches if match.is_file()]:
            return _of_files(f"files {path.absolute()}", files)
    elif not dataset_id.startswith((".", "/", "~")) and not _format(path):
        return Source(f"data set {dataset_id!r}", dataset_id, {}, local=False)
    raise NotFound(
        f"there is no file {path.absolute()} (from {dataset_id!r}, working directory {Path.cwd()})"
    )


def _of_files(label: str, files: list[Path]) -> Source:
    formats = {_format(file) for file in files}
    if len(formats) > 1:
        raise InvalidInput(f"{label}: of several formats: {', '.join(sorted(formats))}")
    [suffix] = formats
    if not suffix:
        raise InvalidInput(
            f"{label}: its format is not known by its name; there are {', '.join(_FORMATS)}, "
            f"each also with {', '.join(sorted(_COMPRESSED))}"
        )
    builder, arguments = _FORMATS[suffix]
    # `datasets` takes names for patterns, and fails on a file named `a[1].jsonl`.
    escaped = [glob.escape(str(file)) for file in files]
    return Source(label, builder, {**arguments, "data_files": escaped}, tuple(files))


def _format(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in _FORMATS else ""
