"""Text to token ids and back, as training and sampling need it: nothing doubled, nothing joined."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from functools import cached_property

from ..errors import InvalidInput
from ..types import Tokenizer

# Texts to put before another, so that a tokenizer that begins every text with a space
# (SentencePiece's "dummy prefix") begins these with it. The first that stays apart is used.
_ANCHORS = ("", "a", "\n", ".", "0", "|")

_WORD_ENDS = re.compile(r".*[A-Za-z](?= [A-Za-z])", re.DOTALL)


class Tokenization:
    """What workflows know about a tokenizer beyond its protocol.

    Args:
        tokenizer: the model's.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special: dict[int, bool] = {}
        self._plain: set[int] = set()
        self._blank: dict[int, bool] = {}
        self._ahead: dict[str, list[int]] = {}

    @cached_property
    def eos(self) -> int | None:
        """The end-of-sequence token."""
        return self._tokenizer.eos_token_id

    def encode(self, text: str) -> list[int]:
        """Return the ids of the text alone, without a begin or end token.

        Raises:
            InvalidInput: it has half of a surrogate pair, which is not a character.
        """
        if (ahead := self._ahead.get(text)) is not None:
            return ahead
        try:
            return self._tokenizer.encode(text, add_special_tokens=False)
        except (TypeError, UnicodeError):
            check_characters(text)
            raise

    def encode_ahead(self, texts: Sequence[str]) -> None:
        """Encode the texts that are asked for next, all at once where the tokenizer can."""
        self._ahead = {}
        at_once = getattr(self._tokenizer, "encode_batch", None)
        if at_once is not None:
            with contextlib.suppress(TypeError, UnicodeError):  # `encode` says which text it is
                self._ahead = dict(zip(texts, at_once(texts), strict=True))

    def parts(self, before: str, text: str) -> list[str]:
        """Return the texts that `continued` encodes."""
        cut = self._last_word(before)
        return [before[:cut], before[cut:], before[cut:] + text]

    def continued(self, before: str, text: str) -> tuple[list[int], list[int]]:
        """Return the ids of a text alone, and those of what continues it; see `after`.

        Where words are apart, all but the last one of `before` is encoded only once.

        Raises:
            InvalidInput: the tokenizer has no tokens for the text in this place.
        """
        cut = self._last_word(before)
        head = self.encode(before[:cut]) if cut else []
        last = self.encode(before[cut:])
        return [*head, *last], self.after(before[cut:], text, last)

    def _last_word(self, text: str) -> int:
        """Return where a text can be cut before its last word, at the latest; 0 if nowhere."""
        if not getattr(self._tokenizer, "words_apart", False):
            return 0
        found = _WORD_ENDS.match(text)
        return found.end() if found else 0

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text, special tokens included."""
        return self._tokenizer.decode(ids)

    @cached_property
    def _begin(self) -> list[int]:
        """The tokens that the tokenizer puts before a text. What it puts behind one (an end token,
        where `add_eos_token` is set) has no place after a prompt.
        """
        alone, framed = self.encode("a"), self._tokenizer.encode("a", add_special_tokens=True)
        for start in range(len(framed) - len(alone) + 1):
            if framed[start : start + len(alone)] == alone:
                return framed[:start]
        return []

    @cached_property
    def _eos_text(self) -> str:
        return "" if self.eos is None else self.decode([self.eos])

    def begin(self, text: str, ids: list[int] | None = None) -> list[int]:
        """Return the ids of a text that begins a sequence: with the begin token, once.

        Args:
            text: it may have been rendered beforehand, with a begin token.
            ids: of the text alone, if they are known.
        """
        ids = self.encode(text) if ids is None else ids
        begun = ids[: len(self._begin)] == self._begin
        return ids if begun else [*self._begin, *ids]

    def after(self, before: str, text: str, start: Sequence[int] | None = None) -> list[int]:
        """Return the ids of `text` as the continuation of `before`, whose ids stay as they are.

        Tokens are never joined across the border, for a model that is asked to continue begins
        with a new token. No space is added that the text does not have.

        Args:
            before: what comes before, back to the last special token at least.
            text: what follows.
            start: the ids of `before` alone, if they are known.

        Raises:
            InvalidInput: the tokenizer has no tokens for the text in this place.
        """
        start = self.encode(before) if start is None else list(start)
        whole = self.encode(before + text)
        if whole[: len(start)] == start:
            return whole[len(start) :]
        expected = self.decode(whole)
        for anchor in _ANCHORS:
            known, joined = self.encode(anchor), self.encode(anchor + text)
            if joined[: len(known)] == known:
                found = joined[len(known) :]
                if self.decode([*start, *found]) == expected:
                    return found
        raise InvalidInput(
            f"the tokenizer joins the end of {before[-20:]!r} and the beginning of {text[:20]!r} "
            "in one token; end the prompt elsewhere"
        )

    def ended(self, ids: list[int], text: str) -> list[int]:
        """Return the ids of a text with the end token behind them, once."""
        if self.eos is None or (self._eos_text and text.rstrip().endswith(self._eos_text)):
            return ids
        return [*ids, self.eos] if ids[-1:] != [self.eos] else ids

    def is_special(self, token: int) -> bool:
        """Whether the token is not text: the end, or one that `skip_special_tokens` leaves out."""
        if token not in self._special:
            self._special[token] = token == self.eos or (
                self.decode([token]) != ""
                and self._tokenizer.decode([token], skip_special_tokens=True) == ""
            )
        return self._special[token]

    def special_among(self, ids: Sequence[int]) -> set[int]:
        """Return those ids that are special, asking the tokenizer only about ones it has not seen.

        Args:
            ids: of a text, in any number.
        """
        new = set(ids) - self._plain
        found = {token for token in new if self._special.get(token)}
        rest = sorted(new - found)
        # All at once: to leave out a special token shortens the text.
        if rest and (
            self.eos in rest
            or self.decode(rest) != self._tokenizer.decode(rest, skip_special_tokens=True)
        ):
            found |= {token for token in rest if self.is_special(token)}
        self._plain |= new - found
        return found

    def is_blank(self, token: int) -> bool:
        """Whether the token is white space."""
        if token not in self._blank:
            self._blank[token] = self.decode([token]).strip() == ""
        return self._blank[token]


def check_characters(text: str) -> None:
    """Refuse half of a surrogate pair: JSON can write one, and it is not a character.

    Raises:
        InvalidInput: the text has one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise InvalidInput(
            f"its text has {half!r}, half of a surrogate pair, which is not a character"
        ) from None
