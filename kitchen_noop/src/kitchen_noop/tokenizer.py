"""A tokenizer with one token for each character."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crucible_kitchen import InvalidInput, Message

SPECIAL_TOKENS = ("<|im_start|>", "<|im_end|>")
"""Their ids are their indices here; code point c has the id `c + len(SPECIAL_TOKENS)`."""

_START, _END = range(2)
_FIRST = len(SPECIAL_TOKENS)


class CharTokenizer:
    """Token ids are Unicode code points, shifted to make room for two special tokens.

    Every string survives `decode(encode(text))`. Text never becomes a special token, and special
    tokens are only added by the chat template.
    """

    @property
    def eos_token_id(self) -> int:
        return _END

    @property
    def vocab_size(self) -> int:
        return _FIRST + sys.maxunicode + 1

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [ord(character) + _FIRST for character in text]

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text; special tokens are written as in `SPECIAL_TOKENS`, or skipped.

        Raises:
            InvalidInput: an id outside of the vocabulary.
        """
        pieces = []
        for token in token_ids:
            if not 0 <= token < self.vocab_size:
                raise InvalidInput(f"no token {token}; the ids go from 0 to {self.vocab_size - 1}")
            if token >= _FIRST:
                pieces.append(chr(token - _FIRST))
            elif not skip_special_tokens:
                pieces.append(SPECIAL_TOKENS[token])
        return "".join(pieces)

    def apply_chat_template(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = False, **kwargs: Any
    ) -> list[int]:
        """Return a conversation as ChatML.

        A turn is `<|im_start|>`, the role, a newline, the content, `<|im_end|>` and a newline.

        Args:
            messages: the turns.
            add_generation_prompt: append the start of the assistant's turn.
            kwargs: variables of other templates, ignored.

        Raises:
            InvalidInput: a message without a role or content that is text.
        """
        tokens: list[int] = []
        for index, message in enumerate(messages):
            try:
                turn = message["role"] + "\n" + message["content"]
            except (KeyError, TypeError):
                raise InvalidInput(
                    f"message {index} needs a role and content that are text: {message!r}"
                ) from None
            tokens += [_START, *self.encode(turn), _END, *self.encode("\n")]
        if add_generation_prompt:
            tokens += [_START, *self.encode("assistant\n")]
        return tokens


TOKENIZER = CharTokenizer()
"""It has no state, so one is enough."""


if TYPE_CHECKING:
    from crucible_kitchen import Tokenizer

    _: Tokenizer = TOKENIZER
