"""The report cards that installed packages bring along, read without importing the packages.

A card is a file `<name>-<version>.dist-info/extra_metadata/crucible/*.json`, written by `crucible
check --card` and put there when the wheel is built. It holds for the files that it lists, the core
and the kit that it was made with; `state` says whether these are the ones installed. A card proves
what its author ran, not that the author is honest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..errors import described
from ..files import open_named
from ..messages.printable import printable
from ..version import __version__
from . import kit
from .card_files import CARDS, LARGEST, parsed, recorded
from .contents import difference, folders_of, hash_of_bytes, recorded_files
from .discovery import Installed, canonical
from .metadata import Package, packages
from .remembered import Memory, is_settled, stamp_of

State: TypeAlias = Literal[
    "checked",
    "lower level",
    "known failures",
    "older kit",
    "other kit",
    "other core",
    "changed",
    "partial",
    "failed",
    "unreadable",
]
"""What a card says about what is installed.

- `checked`: these files passed, with this core and this kit.
- `lower level`: they keep the promises of an older level alone, to which their author held them.
- `known failures`: they break promises, for which their author gives reasons.
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
    "known failures",
    "lower level",
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
        level: the level that it was held to.
        kit_digest: the digest of the kit's sources.
        passed: how many promises are kept.
        failed: how many are broken.
        warnings: how many are broken that are newer than the level.
        xfailed: how many are broken for reasons that the author gives.
        summary: how many promises had each outcome, in words.
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
    level: str = ""
    kit_digest: str = ""
    passed: int = 0
    failed: int = 0
    warnings: int = 0
    xfailed: int = 0
    summary: str = ""
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
        if self.xfailed:
            return "known failures"
        if self.warnings:
            return "lower level"
        if self.kit != kit.LEVEL:
            return "older kit" if _level(self.kit) < _level(kit.LEVEL) else "other kit"
        if self.core != __version__:
            return "other core"
        return "checked" if self.kit_digest == kit.digest() else "other kit"

    @property
    def words(self) -> str:
        """The state as a user reads it, in at most 28 characters if numbers are short."""
        to = f"level {self.level}" if self.warnings else "checked"
        return {
            "checked": "checked",
            "known failures": f"{to}, {self.xfailed} known failure{'s' * (self.xfailed != 1)}",
            "lower level": f"checked to level {self.level}",
            "older kit": f"checked by older kit {self.kit}",
            "other kit": f"checked by other kit {self.kit}",
            "other core": f"checked with core {self.core}",
            "changed": "changed since its check",
            "partial": "checked in part",
            "failed": f"failed {self.failed} of {self.failed + self.passed} checks",
            "unreadable": "its card is unreadable",
        }[self.state]


_FIELDS = {field.name for field in dataclasses.fields(InstalledCard)}

NOT_CHECKED = "not checked"
"""What is said of an adapter without a card."""


def words_of(cards: Sequence[InstalledCard]) -> str:
    """Return the worst that is to be said of an adapter with these cards, as a user reads it."""
    worst = min(cards, key=lambda card: _WORST.index(card.state), default=None)
    return worst.words if worst else NOT_CHECKED


def _level(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


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
    return Cards().of(package.name, package.version, package.folder)


class Cards:
    """Reads cards. What it found is remembered when the block ends, if it is used as one."""

    def __init__(self) -> None:
        self._memory = Memory("cards")
        self._known: dict[str, Sequence[InstalledCard]] = {}

    def __enter__(self) -> Cards:
        self._memory.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self._memory.__exit__(*failure)

    def of_adapter(self, entry: Installed) -> Sequence[InstalledCard]:
        """Return the cards of an installed adapter or environment, one for each variant."""
        name = f"{entry.port or 'environment'}.{entry.name}"
        return [
            card
            for card in self.of(entry.package, entry.version, entry.folder)
            if (f"{card.port}.{card.adapter}" == name)
            or (card.problem and card.file.startswith(f"{name}."))
        ]

    def of(self, name: str, version: str | None, folder: str | None) -> Sequence[InstalledCard]:
        """Return the cards of an installed package, sorted by file name; none if it has none.

        Args:
            name: the package's name.
            version: its version.
            folder: where its metadata is.
        """
        if folder is None:
            return ()
        if folder not in self._known:
            self._known[folder] = self._recalled(folder) or self._read(name, version, folder)
        return self._known[folder]

    def _recalled(self, folder: str) -> Sequence[InstalledCard] | None:
        """Return what was found out before, if nothing has changed since."""
        place = os.path.dirname(folder)
        entry = self._memory.recall(folder)
        match entry:
            case [[*paths], stamp, [*known]]:
                if stamp == stamp_of(f"{place}/{path}" for path in paths):
                    try:
                        cards = [InstalledCard(**fields) for fields in known]
                    except TypeError:  # another release of the core has kept other fields
                        return None
                    if any(fields.keys() != _FIELDS for fields in known):
                        return None
                    self._memory.keep(folder, entry)
                    return cards
        return None

    def _read(self, name: str, version: str | None, folder: str) -> Sequence[InstalledCard]:
        place, about = os.path.split(folder)
        started = time.time_ns()
        read_from = {f"{about}/{file}" for file in (CARDS, "RECORD", "METADATA")}
        cards = list(_read(name, version, place, about, read_from))
        if cards:
            stamp = stamp_of(f"{place}/{path}" for path in sorted(read_from))
            if stamp and is_settled(stamp, started):
                known = [dataclasses.asdict(card) for card in cards]
                self._memory.keep(folder, [sorted(read_from), stamp, known])
        return cards


def _read(
    package: str, version: str | None, place: str, about: str, read_from: set[str]
) -> Iterator[InstalledCard]:
    """Yield the cards of a package; add the paths of what was looked at to `read_from`."""
    try:
        names = sorted(os.listdir(f"{place}/{about}/{CARDS}"))
    except OSError:
        return
    hashes: Mapping[str, str] | None = None
    for name in names:
        if not name.endswith(".json"):
            continue
        if hashes is None:
            hashes = recorded(f"{place}/{about}/RECORD")
        path = f"{about}/{CARDS}/{name}"
        read_from.add(path)
        digest = ""
        try:
            with open_named(Path(f"{place}/{path}")) as file:
                data = file.read(LARGEST + 1)
            if len(data) > LARGEST:
                raise ValueError(f"it has more than {LARGEST:,} bytes")
            digest = hashlib.sha256(data).hexdigest()
            if hashes.get(path, hash_of_bytes(data)) != hash_of_bytes(data):
                raise ValueError("it was changed after it was installed: RECORD has another hash")
            fields, files = parsed(data, package)
        except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
            said = str(error) if isinstance(error, ValueError) else described(error)
            problem = getattr(error, "strerror", None) or said
            yield InstalledCard(printable(name), digest, problem=printable(problem))
            continue
        read_from |= {*files, *folders_of(files)}
        if not any(os.path.lexists(f"{place}/{path}") for path in files):
            continue  # an editable install: what is imported is elsewhere, and changes
        changed = difference(place, files) or ""
        if unknown := [each for each in recorded_files(f"{place}/{about}") if each not in files]:
            changed = changed or f"{unknown[0]} was not checked"
        if fields.pop("version") != version:
            changed = changed or "the package has another version"
        yield InstalledCard(name, digest, changed=printable(changed), **fields)
