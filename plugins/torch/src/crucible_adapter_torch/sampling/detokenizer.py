"""Tokens become text while they arrive, and stop strings are found in it."""

from __future__ import annotations

from collections.abc import Sequence

from ..models.tokenizer import HuggingFaceTokenizer

UNFINISHED = "\ufffd"
"""What a decoder makes of a part of a character."""


class Detokenizer:
    """The text of one answer, growing with its tokens.

    Args:
        tokenizer: turns tokens into text; special tokens are left out.
        stops: the text ends at the first of these strings.
    """

    def __init__(self, tokenizer: HuggingFaceTokenizer, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        self._tokens: list[int] = []
        self._text = ""  # settled: complete characters only
        self._pending = ""  # may still change with the next token
        self._context = 0  # decoding starts here, since some decoders look at the token before
        self._settled = 0  # the tokens before this one made `_text`
        self._searched = 0
        self._end: int | None = None

    @property
    def text(self) -> str:
        """The text so far, without the stop string."""
        return (self._text + self._pending)[: self._end]

    @property
    def shown(self) -> str:
        """The text that no later token can change: without half a character, and without what may
        turn out to be the beginning of a stop string.
        """
        if self._end is not None:
            return self.text
        return self._text[: len(self._text) - self._withheld()]

    def add(self, token: int) -> bool:
        """Take the next token; return whether the text has reached a stop string."""
        self._tokens.append(token)
        known = self._decode(self._context, self._settled)
        window = self._decode(self._context, len(self._tokens))
        self._pending = window[len(known) :]
        if self._pending and not self._pending.endswith(UNFINISHED):
            self._text += self._pending
            self._pending = ""
            self._context, self._settled = self._settled, len(self._tokens)
        if self._stops:
            self._search()
        return self._end is not None

    def _decode(self, start: int, end: int) -> str:
        return self._tokenizer.decode(self._tokens[start:end], skip_special_tokens=True)

    def _search(self) -> None:
        text = self._text + self._pending
        start = max(0, self._searched - max(map(len, self._stops)))
        found = [at for stop in self._stops if (at := text.find(stop, start)) >= 0]
        self._end = min(found, default=None)
        self._searched = len(self._text)

    def _withheld(self) -> int:
        """Return the length of the longest end of the text that begins a stop string."""
        return max(
            (
                size
                for stop in self._stops
                for size in range(1, len(stop))
                if self._text.endswith(stop[:size])
            ),
            default=0,
        )
