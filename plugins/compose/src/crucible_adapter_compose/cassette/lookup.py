"""Finds what was recorded by a question: the name of what is asked, and the arguments in JSON.

The text as it was recorded comes first. Where it is not on the cassette, two kinds of parts may
differ: a mask, which hides a secret, stands for any text of one value, since a replay need not have
the secrets of the recording; and what varies from run to run, such as a UUID, stands for one other
text, and for that one in all questions from then on. What is on the cassette stands for itself.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .masks import MASK
from .varying import GAP, Varying, json_of

T = TypeVar("T")

_HIDDEN = r'(?:[^"\\]|\\.)*?'
"""What a mask stands for: a part of one text in JSON, and never what is around it."""


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


@dataclass(slots=True)
class _Recorded(Generic[T]):
    """What is kept for a text: one thing, or several that differ in their secrets."""

    masked: bool
    kept: dict[int, T] = field(default_factory=dict)


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
        return [values[text.count(GAP, 0, gap)] for gap in gaps]


class Lookup(Generic[T]):
    """What is kept for questions.

    Args:
        varying: finds what differs from run to run; None if nothing does.
        others: returns further texts of the cassette, such as those of answers.
    """

    def __init__(
        self, varying: Varying | None = None, others: Callable[[], Iterable[str]] = tuple
    ) -> None:
        self._varying = varying
        self._others = others
        self._kept: dict[str, dict[str, _Recorded[T]]] = defaultdict(dict)
        self._recorded_as: dict[str, str] = {}
        self._shapes: dict[str, dict[str, list[tuple[str, _Shape]]]] = {}  # when they are needed
        self._is_on_cassette = functools.cache(self._look_for)

    def add(self, name: str, text: str, kept: T, secrets: int = 0, masked: bool = False) -> T:
        """Keep something for a question; return it, or what is kept for the question already.

        Args:
            name: what is asked; it is compared as it is.
            text: the arguments, as they were recorded.
            kept: what is kept.
            secrets: tells questions apart that differ in their secrets alone.
            masked: whether the text holds masks.
        """
        recorded = self._kept[name].setdefault(text, _Recorded(masked))
        recorded.masked |= masked
        self._shapes.pop(name, None)
        return recorded.kept.setdefault(secrets, kept)

    def find(self, name: str, text: str) -> list[Match[T]]:
        """Return what is kept for a question: for that as it is; if there is none, for all that it
        may stand for.
        """
        if (of_name := self._kept.get(name)) is None:
            return []
        if (recorded := of_name.get(text)) is not None:
            return [Match(kept, recorded.masked) for kept in recorded.kept.values()]
        return [
            Match(kept, of_name[like].masked, aliases)
            for like, aliases in self._like(name, text)
            for kept in of_name[like].kept.values()
        ]

    def settle(self, match: Match[T]) -> None:
        """From now on, what varies stands for what it stood for in this match."""
        self._recorded_as.update(match.aliases)

    def recorded(self, text: str) -> str:
        """Return JSON in which what varies is as it was recorded, where that was settled."""
        first, *parts = self._split(text)[0].split(GAP)
        values = (self._recorded_as.get(each, each) for each in self._split(text)[1])
        pairs = zip(values, parts, strict=True)
        return first + "".join(json_of(value) + part for value, part in pairs)

    def same(self, recorded: str, given: str, masked: bool) -> bool:
        """Return whether a text may stand for a recorded one, which may hold masks."""
        if recorded == given:
            return True
        return self._aliases(self._shape(recorded, masked), *self._split(given)) is not None

    def __iter__(self) -> Iterator[T]:
        for of_name in self._kept.values():
            for recorded in of_name.values():
                yield from recorded.kept.values()

    def _like(self, name: str, text: str) -> Iterator[tuple[str, dict[str, str]]]:
        if (shapes := self._shapes.get(name)) is None:
            shapes = self._shapes[name] = self._shapes_of(name)
        if shapes:
            without, values = self._split(text)
            for recorded, shape in (*shapes.get(without, ()), *shapes.get(MASK, ())):
                if (aliases := self._aliases(shape, without, values)) is not None:
                    yield recorded, aliases

    def _shapes_of(self, name: str) -> dict[str, list[tuple[str, _Shape]]]:
        """Return the questions that others may stand for, by their text without what varies; at
        `MASK` those with one.
        """
        shapes: dict[str, list[tuple[str, _Shape]]] = defaultdict(list)
        for recorded, about in self._kept[name].items():
            if about.masked or self._varying is not None:
                shape = self._shape(recorded, about.masked)
                if shape.pattern is not None or shape.varying:
                    at = shape.text if shape.pattern is None else MASK
                    shapes[at].append((recorded, shape))
        return shapes

    def _look_for(self, value: str) -> bool:
        """Return whether the cassette has a value where something varies."""
        texts = (text for of_name in self._kept.values() for text in of_name)
        varying = self._varying
        return varying is not None and (
            any(varying.is_in(value, text) for text in texts)
            or any(varying.is_in(value, text) for text in self._others())
        )

    def _split(self, text: str) -> tuple[str, tuple[str, ...]]:
        return (text, ()) if self._varying is None else self._varying.split(text)

    def _shape(self, recorded: str, masked: bool) -> _Shape:
        text, varying = self._split(recorded)
        if not masked or MASK not in text:
            return _Shape(text, varying, None)
        parts = (re.escape(part).replace(re.escape(GAP), f"({GAP})") for part in text.split(MASK))
        first, *between, last = parts
        # Atomic, since the first place of a part is as good as any; else it takes exponential time.
        pattern = "".join([first, *(f"(?>{_HIDDEN}{part})" for part in between), _HIDDEN, last])
        return _Shape(text, varying, re.compile(pattern, re.DOTALL))

    def _aliases(self, shape: _Shape, text: str, values: Sequence[str]) -> dict[str, str] | None:
        """Return what would be new if a text stood for that of a shape; None if it cannot."""
        if (given := shape.varying_in(text, values)) is None:
            return None
        known, new = self._recorded_as, dict[str, str]()
        for recorded, each in zip(shape.varying, given, strict=True):
            if recorded == each:
                continue
            if self._is_on_cassette(each):
                return None
            if (before := known.get(each, new.get(each))) is None:
                if recorded in new.values() or recorded in known.values():
                    return None
                new[each] = recorded
            elif before != recorded:
                return None
        return new
