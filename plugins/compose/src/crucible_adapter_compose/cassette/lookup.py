"""Finds what was recorded by the text of a question.

The text as it was recorded comes first. Where it is not on the cassette, two kinds of parts may
differ: a mask, which hides a secret, stands for any text of one value, since a replay need not have
the secrets of the recording; and what varies from run to run, such as a UUID, stands for one other
text, and for that one in all questions from then on. What is on the cassette stands for itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .values import MASK

T = TypeVar("T")

_GAP = "\0"
"""In place of what varies. JSON has no such character."""
_HIDDEN = r'(?:[^"\\]|\\.)*?'
"""What a mask stands for: a part of one text in JSON, and never what is around it."""
_NOTHING = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True)
class Match(Generic[T]):
    """What is kept for a question.

    Args:
        kept: it.
        masked: whether the question holds a mask.
        aliases: what varies in the question, and what was recorded in its place, where that is not
            known yet.
    """

    kept: T
    masked: bool
    aliases: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Shape:
    """A recorded text as it is compared: without what varies, and with any text for a mask."""

    text: str
    varying: tuple[str, ...]
    pattern: re.Pattern[str] | None

    def varying_in(self, text: str, values: Sequence[str]) -> Sequence[str] | None:
        """Return what varies in another text, of which `text` is without it; None if it is not
        of this shape. What varies within a secret is left out.
        """
        if self.pattern is None:
            return values if text == self.text else None
        if (found := self.pattern.fullmatch(text)) is None:
            return None
        gaps = (found.start(group) for group in range(1, self.pattern.groups + 1))
        return [values[text.count(_GAP, 0, gap)] for gap in gaps]


class Lookup(Generic[T]):
    """What is kept for texts.

    Args:
        varying: finds what differs from run to run.
        others: returns further texts of the cassette, such as those of answers.
    """

    def __init__(
        self,
        varying: re.Pattern[str] = _NOTHING,
        others: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._varying = varying
        self._others = others
        self._kept: dict[str, dict[int, T]] = {}
        self._on_cassette: set[str] = set()
        self._recorded_as: dict[str, str] = {}
        self._shapes: dict[str, list[tuple[str, _Shape]]] | None = None  # when it is needed
        self._masked: list[tuple[str, _Shape]] = []

    def add(self, text: str, kept: T, secrets: int = 0) -> T:
        """Keep something for a text; return it, or what is kept for the text already.

        Args:
            text: a question, as it was recorded.
            kept: what is kept.
            secrets: tells questions apart that differ in their secrets alone.
        """
        self._shapes = None
        return self._kept.setdefault(text, {}).setdefault(secrets, kept)

    def find(self, text: str) -> list[Match[T]]:
        """Return what is kept for a text: for that as it is; if there is none, for all that it may
        stand for.
        """
        if (found := self._kept.get(text)) is not None:
            return [Match(kept, MASK in text) for kept in found.values()]
        return [
            Match(kept, MASK in recorded, aliases)
            for recorded, aliases in self._like(text)
            for kept in self._kept[recorded].values()
        ]

    def settle(self, match: Match[T]) -> None:
        """From now on, what varies stands for what it stood for in this match."""
        self._recorded_as.update(match.aliases)

    def same(self, recorded: str, given: str) -> bool:
        """Return whether a text may stand for a recorded one."""
        if recorded == given:
            return True
        return self._aliases(self._shape(recorded), *self._without_varying(given)) is not None

    def __iter__(self) -> Iterator[T]:
        return (kept for each in self._kept.values() for kept in each.values())

    def _like(self, text: str) -> Iterator[tuple[str, dict[str, str]]]:
        without, values = self._without_varying(text)
        if self._shapes is None:
            self._shapes = self._all_shapes()
        for recorded, shape in (*self._shapes.get(without, ()), *self._masked):
            if (aliases := self._aliases(shape, without, values)) is not None:
                yield recorded, aliases

    def _all_shapes(self) -> dict[str, list[tuple[str, _Shape]]]:
        shapes: dict[str, list[tuple[str, _Shape]]] = defaultdict(list)
        self._masked.clear()
        for recorded in self._kept:
            shape = self._shape(recorded)
            self._on_cassette.update(shape.varying)
            if shape.pattern is not None:
                self._masked.append((recorded, shape))
            elif shape.varying:
                shapes[shape.text].append((recorded, shape))
        for text in self._others():
            self._on_cassette.update(found[0] for found in self._varying.finditer(text))
        return shapes

    def _shape(self, recorded: str) -> _Shape:
        text, varying = self._without_varying(recorded)
        if MASK not in text:
            return _Shape(text, varying, None)
        parts = (re.escape(part).replace(re.escape(_GAP), f"({_GAP})") for part in text.split(MASK))
        first, *between, last = parts
        # Atomic, since the first place of a part is as good as any; else it takes exponential time.
        pattern = "".join([first, *(f"(?>{_HIDDEN}{part})" for part in between), _HIDDEN, last])
        return _Shape(text, varying, re.compile(pattern, re.DOTALL))

    def _without_varying(self, text: str) -> tuple[str, tuple[str, ...]]:
        values: list[str] = []

        def gap(found: re.Match[str]) -> str:
            values.append(found[0])
            return _GAP

        return self._varying.sub(gap, text), tuple(values)

    def _aliases(self, shape: _Shape, text: str, values: Sequence[str]) -> dict[str, str] | None:
        """Return what would be new if a text stood for that of a shape; None if it cannot."""
        if (given := shape.varying_in(text, values)) is None:
            return None
        known, new = self._recorded_as, dict[str, str]()
        for recorded, each in zip(shape.varying, given, strict=True):
            if recorded == each:
                continue
            if each in self._on_cassette:
                return None
            if (before := known.get(each, new.get(each))) is None:
                if recorded in new.values() or recorded in known.values():
                    return None
                new[each] = recorded
            elif before != recorded:
                return None
        return new
