"""The file of a report card, which someone else has written: nothing in it is believed unseen."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from ..messages.counts import counted
from .discovery import PORT_NAMES, canonical

CARDS = "extra_metadata/crucible"
"""The folder of the cards, in that of a package's metadata. `extra_metadata` is hatchling's."""
LARGEST = 1 << 20
"""Bytes of a card. One of a training client has some 60,000."""

OUTCOMES = ("passed", "skipped", "excused", "xfailed", "warning", "failed")
"""What may become of a promise, see `testing.report.OUTCOMES`, which needs pytest."""
_TEXTS = ("port", "adapter", "variant", "package", "version", "core", "kit", "level", "kit_digest")


def recorded(record: str) -> Mapping[str, str]:
    """Return the hashes of cards in a `RECORD`, by their paths; none if it cannot be read."""
    try:
        with open(record, encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if len(row) == 3 and f"/{CARDS}/" in row[0]]
    except (OSError, ValueError, csv.Error):
        return {}
    return {path: digest for path, digest, _ in rows if digest}


def parsed(data: bytes, package: str) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Return the fields of an `InstalledCard`, its `version` among them, and the files.

    Raises:
        ValueError: it is not a card, or that of another package.
    """
    card = json.loads(data)
    if not isinstance(card, dict):
        raise ValueError("it is not a JSON object")
    texts: dict[str, str] = {}
    for name in _TEXTS:
        text = card.get(name)
        if not isinstance(text, str) or len(text) > 200 or not text.isprintable():
            raise ValueError(f"{name!r} is not a short text")
        texts[name] = text
    if texts["port"] not in (*PORT_NAMES, "environment"):
        raise ValueError(f"there is no port {texts['port']!r}")
    of = texts.pop("package")
    if canonical(of) != canonical(package):
        raise ValueError(f"it is a card of the package {of!r}")
    for name in ("kit", "level"):
        if not re.fullmatch(r"\d{1,6}\.\d{1,6}", texts[name]):
            raise ValueError(f"the kit has no level {texts[name]!r}")
    match card:
        case {"verdicts": [*verdicts], "not_run": [*not_run], "files": dict() as files} if files:
            found = Counter(str(each["outcome"]) for each in verdicts)
            if not found.keys() <= {*OUTCOMES}:
                raise ValueError("it has an outcome that no test has")
            summary = ", ".join(in_words(found))
            counts = {each: found[each] for each in ("passed", "failed", "xfailed")}
            counts["warnings"] = found["warning"]
            hashes = {
                path: digest
                for path, digest in files.items()
                if isinstance(digest, str) and _is_inside(path)
            }
            if len(hashes) < len(files):
                raise ValueError("its files are not those of a package")
            fields = {**texts, **counts, "summary": summary, "not_run": len(not_run)}
            return fields, hashes
    raise ValueError("it lacks verdicts, or the hashes of files")


def in_words(counts: Mapping[str, int]) -> list[str]:
    """Return how many promises had each outcome that some had, such as `2 warnings`."""
    # Of the outcomes only a warning is a noun.
    return [
        counted(counts[each], each) if each == "warning" else f"{counts[each]} {each}"
        for each in OUTCOMES
        if counts.get(each)
    ]


def _is_inside(path: str) -> bool:
    """Whether it is a plain path below the folder that packages are in."""
    pure = PurePosixPath(path)
    plain = str(pure) == path and "\\" not in path and "\0" not in path
    return plain and not pure.is_absolute() and ".." not in pure.parts and path != "."
