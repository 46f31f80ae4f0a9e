"""The report cards that installed packages bring along, read without importing the packages.

A card is a file `<name>-<version>.dist-info/extra_metadata/crucible/*.json`, written by `crucible
check --card` and put there when the wheel is built. It holds for the files that it lists, the core
and the kit that it was made with; `state` says whether these are the ones installed. A card proves
what its author ran, not that the author is honest.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

from ..files import open_named
from ..messages.printable import printable
from ..version import __version__
from . import kit
from .contents import difference, folders_of, hash_of_bytes
from .discovery import PORT_NAMES, canonical
from .metadata import Package, packages
from .remembered import Memory, is_settled, stamp_of

CARDS = "extra_metadata/crucible"
"""The folder of the cards, in that of the package's metadata. `extra_metadata` is hatchling's."""
LARGEST = 1 << 20
"""Bytes of a card. One of a training client has some 60,000."""

State: TypeAlias = Literal[
    "checked", "older kit", "other kit", "other core", "changed", "partial", "failed", "unreadable"
]
"""What a card says about what is installed.

- `checked`: these files passed, with this core and this kit.
- `older kit`, `other kit`: they passed an older level of the kit, or another kit of some kind.
- `other core`: they passed with another version of the core.
- `changed`: the files, or the package's version, are not those that were checked.
- `partial`: only a part of the suite was run.
- `failed`: a promise is broken.
- `unreadable`: the card is damaged, or is not one.
"""
_WORST: Sequence[State] = (
    "unreadable",
    "failed",
    "changed",
    "partial",
    "older kit",
    "other kit",
    "other core",
    "checked",
)


@dataclass(frozen=True, slots=True)
class InstalledCard:
    """A card of an installed package.

    Args:
        file: the card's file name.
        digest: the SHA-256 of the file, in hexadecimal digits; "" if it cannot be read.
        port: the port of the adapter, or `environment`; "" if the card cannot be read.
        adapter: the adapter's name.
        variant: which of its backends was checked, if it has several.
        core: the version of the core that it was checked with.
        kit: the level of the kit.
        kit_digest: the digest of the kit's sources.
        passed: how many promises are kept.
        failed: how many are broken.
        not_run: how many were not tried.
        changed: how the installed package differs from what was checked; "" if it does not.
        problem: why the card cannot be read; "" if it can.
    """

    file: str
    digest: str = ""
    port: str = ""
    adapter: str = ""
    variant: str = ""
    core: str = ""
    kit: str = ""
    kit_digest: str = ""
    passed: int = 0
    failed: int = 0
    not_run: int = 0
    changed: str = ""
    problem: str = ""

    @property
    def state(self) -> State:
        """The worst that is to be said of it."""
        if self.problem:
            return "unreadable"
        if self.changed:
            return "changed"
        if self.failed:
            return "failed"
        if self.not_run or not self.passed:
            return "partial"
        if self.kit != kit.LEVEL:
            return "older kit" if _level(self.kit) < _level(kit.LEVEL) else "other kit"
        if self.core != __version__:
            return "other core"
        return "checked" if self.kit_digest == kit.digest() else "other kit"

    @property
    def words(self) -> str:
        """The state as a user reads it, in at most 24 characters if numbers are short."""
        return {
            "checked": "checked",
            "older kit": f"checked by older kit {self.kit}",
            "other kit": f"checked by other kit {self.kit}",
            "other core": f"checked with core {self.core}",
            "changed": "changed since its check",
            "partial": "checked in part",
            "failed": f"failed {self.failed} of {self.failed + self.passed} checks",
            "unreadable": "its card is unreadable",
        }[self.state]


def worst(cards: Sequence[InstalledCard]) -> InstalledCard | None:
    """Return the card of which the worst is to be said; None if there is none."""
    return min(cards, key=lambda card: _WORST.index(card.state), default=None)


def cards_of(package: Package | str) -> Sequence[InstalledCard]:
    """Return the cards of an installed package, sorted by file name; none if it has none.

    Args:
        package: what `metadata.packages` yields, or a name.
    """
    if isinstance(package, str):
        found = next(
            (
                each
                for each in packages()
                if isinstance(each, Package) and canonical(each.name) == canonical(package)
            ),
            None,
        )
        if found is None:
            return ()
        package = found
    return Cards().of(package)


class Cards:
    """Reads cards. What it found is remembered when the block ends, if it is used as one."""

    def __init__(self) -> None:
        self._memory = Memory("cards")

    def __enter__(self) -> Cards:
        self._memory.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self._memory.__exit__(*failure)

    def of(self, package: Package) -> Sequence[InstalledCard]:
        """Return the cards of an installed package, sorted by file name; none if it has none."""
        if package.folder is None:
            return ()
        place, about = os.path.split(package.folder)
        entry = self._memory.recall(package.folder)
        match entry:
            case [[*paths], stamp, [*known]]:
                if stamp == stamp_of(f"{place}/{path}" for path in paths):
                    self._memory.keep(package.folder, entry)
                    return [InstalledCard(**fields) for fields in known]
        started = time.time_ns()
        read_from: set[str] = {f"{about}/{CARDS}", f"{about}/RECORD"}
        cards = list(_read(package, place, about, read_from))
        if cards:
            stamp = stamp_of(f"{place}/{path}" for path in sorted(read_from))
            if stamp and is_settled(stamp, started):
                known = [dataclasses.asdict(card) for card in cards]
                self._memory.keep(package.folder, [sorted(read_from), stamp, known])
        return cards


def _read(package: Package, place: str, about: str, read_from: set[str]) -> Iterator[InstalledCard]:
    """Yield the cards of a package; add the paths of what was looked at to `read_from`."""
    try:
        names = sorted(os.listdir(f"{place}/{about}/{CARDS}"))
    except OSError:
        return
    recorded: Mapping[str, str] | None = None
    for name in names:
        if not name.endswith(".json"):
            continue
        if recorded is None:
            recorded = _recorded(f"{place}/{about}/RECORD")
        path = f"{about}/{CARDS}/{name}"
        read_from.add(path)
        digest = ""
        try:
            with open_named(Path(f"{place}/{path}")) as file:
                data = file.read(LARGEST + 1)
            if len(data) > LARGEST:
                raise ValueError(f"it has more than {LARGEST:,} bytes")
            digest = hashlib.sha256(data).hexdigest()
            if recorded.get(path, hash_of_bytes(data)) != hash_of_bytes(data):
                raise ValueError("it was changed after it was installed: RECORD has another hash")
            fields, files = _parsed(data, package)
        except (OSError, ValueError, RecursionError) as error:
            problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
            yield InstalledCard(printable(name), digest, problem=printable(problem))
            continue
        read_from |= {*files, *folders_of(files)}
        if not any(os.path.lexists(f"{place}/{path}") for path in files):
            continue  # an editable install: what is imported is elsewhere, and changes
        changed = difference(place, files) or ""
        if fields.pop("version") != package.version:
            changed = changed or "the package has another version"
        yield InstalledCard(name, digest, changed=printable(changed), **fields)


def _recorded(record: str) -> Mapping[str, str]:
    """Return the hashes of cards in a `RECORD`, by their paths; none if it cannot be read."""
    try:
        with open(record, encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if len(row) == 3 and f"/{CARDS}/" in row[0]]
    except (OSError, ValueError, csv.Error):
        return {}
    return {path: digest for path, digest, _ in rows if digest}


_TEXTS = ("port", "adapter", "variant", "package", "version", "core", "kit", "kit_digest")


def _parsed(data: bytes, package: Package) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Return the fields of an `InstalledCard`, its `version` among them, and the files.

    Raises:
        ValueError: it is not a card, or that of another package.
    """
    card = json.loads(data)
    if not isinstance(card, dict):
        raise ValueError("it is not a JSON object")
    texts = {name: card.get(name) for name in _TEXTS}
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > 200 or not text.isprintable():
            raise ValueError(f"{name!r} is not a short text")
    if texts["port"] not in (*PORT_NAMES, "environment"):
        raise ValueError(f"there is no port {texts['port']!r}")
    of = texts.pop("package")
    if canonical(of) != canonical(package.name):
        raise ValueError(f"it is a card of the package {of!r}")
    if not re.fullmatch(r"\d{1,6}\.\d{1,6}", texts["kit"]):
        raise ValueError(f"the kit has no level {texts['kit']!r}")
    match card:
        case {"verdicts": [*verdicts], "not_run": [*not_run], "files": {**files}} if files:
            outcomes = [each.get("outcome") for each in verdicts if isinstance(each, dict)]
            counts = {name: outcomes.count(name) for name in ("passed", "failed")}
            for path, digest in files.items():
                if not isinstance(digest, str) or not _is_inside(path):
                    raise ValueError(f"{path!r} is not a file of the package")
            return {**texts, **counts, "not_run": len(not_run)}, files
    raise ValueError("it lacks verdicts, or the hashes of files")


def _is_inside(path: str) -> bool:
    """Whether a path is a plain one below the folder that packages are in."""
    pure = PurePosixPath(path)
    plain = str(pure) == path and "\\" not in path and "\0" not in path
    return plain and not pure.is_absolute() and ".." not in pure.parts and path != "."


def _level(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
