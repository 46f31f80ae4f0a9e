"""Texts without their secrets, and whether any was hidden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MASK = "**********"
"""What stands for a secret."""


@dataclass(slots=True)
class Masking:
    """Hides the secrets in the texts of one question, and takes note of it.

    Args:
        masked: returns a text without secrets.
    """

    masked: Callable[[str], str]
    hidden: list[str] = field(default_factory=list)
    """The texts in which something was hidden, as they were."""
    _asterisks: bool = False

    def __call__(self, text: str) -> str:
        """Return a text without secrets."""
        if (without := self.masked(text)) != text:
            self.hidden.append(text)
        elif MASK in text:
            self._asterisks = True
        return without

    def about(self) -> dict[str, Any]:
        """Return what the line of the question says: that what looks like a mask is none."""
        return {"literal": True} if self._asterisks and not self.hidden else {}


def has_masks(line: Any, text: str) -> bool:
    """Return whether a question holds masks.

    Args:
        line: its line on the cassette.
        text: its arguments in JSON.
    """
    return MASK in text and not line.get("literal", False)
