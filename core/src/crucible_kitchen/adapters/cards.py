"""The report cards that installed packages bring along, read without importing the packages.

A card is a file `<name>-<version>.dist-info/extra_metadata/crucible/*.json`, written by `crucible
check --card` and put there when the wheel is built. It holds for the files that it lists, the core
and the kit that it was made with; `InstalledCard.state` says whether these are the ones installed.
A card proves what its author ran, not that the author is honest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import described
from ..files import open_named
from ..messages.printable import printable
from .card_files import CARDS, LARGEST, parsed, recorded
from .contents import difference, folders_of, hash_of_bytes, recorded_files
from .discovery import Installed, canonical
from .installed_card import InstalledCard
from .metadata import Package, packages
from .remembered import Memory, is_settled, stamp_of

_FIELDS = {field.name for field in dataclasses.fields(InstalledCard)}


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
