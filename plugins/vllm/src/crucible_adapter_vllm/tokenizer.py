"""A Transformers tokenizer behind Crucible Kitchen's `Tokenizer` protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crucible_kitchen import InvalidInput, Message, Unsupported


class HuggingFaceTokenizer:
    """The part of a Transformers tokenizer that workflows use.

    Args:
        tokenizer: the Transformers tokenizer, also reachable as this attribute.
        model_max_length: the longest input in tokens; None for no limit.
        model_vocab_size: the number of token ids that the model knows.
    """

    def __init__(self, tokenizer: Any, model_max_length: int | None, model_vocab_size: int) -> None:
        self.tokenizer = tokenizer
        self.model_max_length = model_max_length
        self.model_vocab_size = model_vocab_size

    @property
    def eos_token_id(self) -> int | None:
        return self.tokenizer.eos_token_id  # type: ignore[no-any-return]

    @property
    def vocab_size(self) -> int:
        """The number of tokens, added ones included."""
        return len(self.tokenizer)

    @property
    def chat_template(self) -> str | None:
        """The Jinja template of conversations, if the model has one."""
        return self.tokenizer.chat_template  # type: ignore[no-any-return]

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=add_special_tokens))

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        ids = [int(token) for token in token_ids]
        return str(self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))

    def apply_chat_template(self, messages: Sequence[Message], **kwargs: Any) -> Any:
        """Return the token ids of a conversation; its text with `tokenize=False`; and with
        `return_dict=True` what Transformers returns.

        Raises:
            Unsupported: the model has no chat template.
            InvalidInput: the template refuses these messages.
        """
        if self.chat_template is None:
            raise Unsupported(
                "this model's tokenizer has no chat template, so it cannot render messages; "
                "pass token ids"
            )
        # Without return_dict=False, Transformers 5 returns a dictionary.
        kwargs = {"tokenize": True, "return_dict": False, **kwargs}
        try:
            rendered = self.tokenizer.apply_chat_template(list(messages), **kwargs)
        except Exception as error:  # each template has its own checks and exceptions
            raise InvalidInput(f"the chat template refuses these messages: {error}") from error
        return rendered if isinstance(rendered, str) or kwargs["return_dict"] else list(rendered)
