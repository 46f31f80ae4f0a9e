"""Encode the text between special tokens only once.

The conversations of a data set are rendered repeatedly, each time with one more turn, and encoding
is most of the work. `tokenizers` splits a text at its added tokens before anything else, and
encodes each piece separately; so a piece that was encoded before need not be encoded again.
"""

from __future__ import annotations

import json
import re
import string
from functools import lru_cache
from typing import Any

REMEMBERED = 4096
"""The most pieces that are remembered."""


class Segments:
    """Encodes as a tokenizer of `tokenizers` does when it adds no special tokens.

    Args:
        backend: the tokenizer, without truncation and padding.
    """

    def __init__(self, backend: Any) -> None:
        added = backend.get_added_tokens_decoder()
        self._ids = {token.content: [number] for number, token in added.items()}
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, longest_first))})").split

        @lru_cache(REMEMBERED)
        def piece(text: str) -> list[int]:
            return list(backend.encode(text, add_special_tokens=False).ids)

        self._piece = piece

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        ids: list[int] = []
        for piece in self._split(text):
            if piece:
                ids += self._ids.get(piece) or self._piece(piece)
        return ids


def segments(backend: Any) -> Segments | None:
    """Return an encoder by pieces, or None if the ids of a piece depend on the text around it."""
    added = backend.get_added_tokens_decoder().values()
    if not added or any(t.normalized or t.lstrip or t.rstrip or t.single_word for t in added):
        return None  # such tokens absorb text around them, or are found in other text
    states = [part.__getstate__() for part in (backend.pre_tokenizer,) if part is not None]
    if any(b'"first"' in state for state in states):
        return None  # a space is put before the first piece only
    return Segments(backend)


def splits_at_words(backend: Any) -> bool:
    """Say whether a tokenizer encodes what comes before the space between two words of ASCII
    letters, and what comes from that space on, as it does each alone.

    It does if its pre-tokenizer cuts there, by a pattern and so without looking back, and no added
    token and no normalizer reaches across. Those of GPT, Llama 3, Qwen and DeepSeek do;
    SentencePiece's, which have no pattern, do not.
    """
    parts = json.loads(backend.to_str())
    normalizer, added = parts["normalizer"], parts["added_tokens"]
    if normalizer is not None and normalizer["type"] != "NFC":
        return False
    if any(" " in token["content"] for token in added) or not _has_pattern(parts["pre_tokenizer"]):
        return False
    letters = [*string.ascii_letters]
    pairs = [*zip(letters, letters[::-1], strict=True), *zip(letters, letters, strict=True)]
    text = "".join(f"\n{left}{left} {right}{right}" for left, right in pairs)
    found = backend.pre_tokenizer.pre_tokenize_str(text)
    starts = {start for _, (start, _) in found}
    return all(place in starts for place, letter in enumerate(text) if letter == " ")


def _has_pattern(part: Any) -> bool:
    """Whether a pre-tokenizer is made of patterns, none of which puts a space before a text."""
    if part is None:
        return False
    if part["type"] == "Sequence":
        inner = part["pretokenizers"]
        return any(map(_has_pattern, inner)) and all(map(_is_known, inner))
    if part["type"] == "ByteLevel":
        return bool(part["use_regex"]) and not part["add_prefix_space"]
    return part["type"] == "Split" and "Regex" in part["pattern"]


def _is_known(part: Any) -> bool:
    byte_level = part["type"] == "ByteLevel" and not part["add_prefix_space"]
    return byte_level or part["type"] == "Digits" or _has_pattern(part)
