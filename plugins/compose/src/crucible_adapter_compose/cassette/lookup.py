"""Finds what was recorded by the text of a question, in which secrets were masked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Generic, TypeVar

from .values import MASK

T = TypeVar("T")


class Lookup(Generic[T]):
    """What is kept for texts. In place of a mask, which hides a secret, any text is right: a replay
    need not have the secrets of the recording, and often has others in their place.
    """

    def __init__(self) -> None:
        self._exact: dict[str, T] = {}
        self._masked: list[tuple[re.Pattern[str], T]] = []

    def add(self, text: str, kept: T) -> T:
        """Keep something for a text; return it, or what is kept for the text already."""
        if (before := self._exact.get(text)) is not None:
            return before
        self._exact[text] = kept
        if MASK in text:
            pattern = ".*?".join(map(re.escape, text.split(MASK)))
            self._masked.append((re.compile(pattern, re.DOTALL), kept))
        return kept

    def find(self, text: str) -> Iterator[T]:
        """Yield what is kept for a text, the exact one first."""
        if (found := self._exact.get(text)) is not None:
            yield found
        for pattern, kept in self._masked:
            if kept is not found and pattern.fullmatch(text):
                yield kept

    def __iter__(self) -> Iterator[T]:
        return iter(self._exact.values())
