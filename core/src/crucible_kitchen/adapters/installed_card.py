"""A report card of an installed package, and what it says about the package that is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..messages.counts import counted
from ..version import __version__
from . import kit

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
            "known failures": f"{to}, {counted(self.xfailed, 'known failure')}",
            "lower level": f"checked to level {self.level}",
            "older kit": f"checked by older kit {self.kit}",
            "other kit": f"checked by other kit {self.kit}",
            "other core": f"checked with core {self.core}",
            "changed": "changed since its check",
            "partial": "checked in part",
            "failed": f"failed {self.failed} of {self.failed + self.passed} checks",
            "unreadable": "its card is unreadable",
        }[self.state]


NOT_CHECKED = "not checked"
"""What is said of an adapter without a card."""


def words_of(cards: Sequence[InstalledCard]) -> str:
    """Return the worst that is to be said of an adapter with these cards, as a user reads it."""
    worst = min(cards, key=lambda card: _WORST.index(card.state), default=None)
    return worst.words if worst else NOT_CHECKED


def _level(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
