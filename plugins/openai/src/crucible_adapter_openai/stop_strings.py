"""End a text that arrives in pieces at the first of several strings.

OpenAI, vLLM and SGLang omit the stop string; `transformers serve` (5.23.0) keeps it, together with
the rest of its last token.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes on a text up to the first stop string, and holds back what may be the start of one.

    The first stop string is the one that is complete first; of two that end together, the longer.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = strings
        self._held = ""
        self.found = False

    def feed(self, piece: str) -> str:
        """Take the next piece; return the text that is certain to precede any stop string."""
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
        """Return what was held back, at the end of the text."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, text: str) -> int:
        """Return how many of the last characters may be the start of a stop string."""
        return max(
            (
                length
                for stop in self._strings
                for length in range(1, len(stop))
                if text.endswith(stop[:length])
            ),
            default=0,
        )
