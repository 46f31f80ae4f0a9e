"""What the id of a data set names: local files, a local folder, or a data set of the Hub."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from crucible_kitchen import InvalidInput, NotFound, expand_home

from . import formats
from .files import suffixes

_PAPERS = frozenset(
    [
        "changelog",
        "citation",
        "contributing",
        "copying",
        "license",
        "licence",
        "notice",
        "readme",
        "requirements",
    ]
)
_RECORDS = frozenset(
    ["config.json", "dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"]
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a data set comes from.

    Args:
        label: its name in messages.
        path: the folder, or the name of the data set on the Hub.
        files: the local files, if they were named.
        local: whether it is on this machine.
    """

    label: str
    path: str
    files: tuple[Path, ...] = ()
    local: bool = True


def find(dataset_id: str) -> Source:
    """Return the source that an id names.

    Raises:
        NotFound: it looks like a path, but nothing exists there.
        InvalidInput: the files have an unknown format, or several formats.
    """
    try:
        path = expand_home(dataset_id)
    except ValueError as error:
        raise NotFound(f"no data set {dataset_id!r}: {error}") from None
    if path.is_dir():
        return Source(f"folder {path.absolute()}", str(path.absolute()))
    if path.is_file():
        source = Source(f"file {path.absolute()}", "", (path.absolute(),))
        kind_of_all(source.label, [str(path)])
        return source
    if glob.has_magic(dataset_id):
        matches = [Path(match).absolute() for match in sorted(glob.glob(str(path), recursive=True))]
        files = [match for match in matches if match.is_file()]
        if files := [file for file in files if is_data(file.name)] or files:
            source = Source(f"files {path.absolute()}", "", tuple(files))
            kind_of_all(source.label, [str(file) for file in files])
            return source
    elif not dataset_id.startswith((".", "/", "~")) and not formats.kind_of(suffixes(path.name)[0]):
        return Source(f"data set {dataset_id!r}", dataset_id, local=False)
    raise NotFound(
        f"there is no file {path.absolute()} (from {dataset_id!r}, working directory {Path.cwd()})"
    )


def is_data(name: str) -> bool:
    """Say whether a file of this name in a folder of data may hold rows. Licences, Markdown and the
    metadata that `datasets` writes do not.
    """
    paper = name.split(".")[0].lower() in _PAPERS or name.lower().endswith(".md")
    return name not in _RECORDS and not paper


def kind_of_all(label: str, names: Iterable[str]) -> str:
    """Return the kind of files with these names.

    Raises:
        InvalidInput: their format is unknown, or they have several.
    """
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(formats.kind_of(suffixes(name)[0]), []).append(PurePosixPath(name).name)
    if unknown := kinds.get(""):
        raise InvalidInput(
            f"{label}: the format of {unknown[0]} is not known by its name; known are "
            f"{formats.NAMES}"
        )
    if len(kinds) > 1:
        each = ", ".join(f"{kind} ({_some(found)})" for kind, found in sorted(kinds.items()))
        raise InvalidInput(
            f"{label}: holds files of several formats: {each}; name the files of one, as in "
            "'folder/*.jsonl'"
        )
    [kind] = kinds
    return kind


def _some(names: list[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
