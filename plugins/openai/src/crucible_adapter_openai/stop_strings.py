"""End a text at the first of several strings, though it comes in pieces.

OpenAI, vLLM and SGLang leave the stop string out; `transformers serve` (5.23.0) leaves it in, and
with it whatever else its last token holds.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes a text on up to the first stop string, and holds back what may be the start of one.

    The first is the one that is complete first; of two that end together it is the longer one.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = strings
        self._held = ""
        self.found = False

    def feed(self, piece: str) -> str:
        """Take the next piece; return what is certain to come before any stop string."""
        if self.found:
            return ""
        text = self._held + piece
        ends = [
            (start + len(stop), start) for stop in self._strings if (start := text.find(stop)) >= 0
        ]
        if ends:
            self.found = True
            self._held = ""
            return text[: min(ends)[1]]
        certain = len(text) - self._beginning(text)
        self._held = text[certain:]
        return text[:certain]

    def flush(self) -> str:
        """Return what was held back, now that there is no more to come."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, text: str) -> int:
        """Return how many of the last characters a stop string may begin with."""
        return max(
            (
                length
                for stop in self._strings
                for length in range(1, len(stop))
                if text.endswith(stop[:length])
            ),
            default=0,
        )
