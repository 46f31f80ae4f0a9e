"""A Transformers tokenizer behind Crucible Kitchen's `Tokenizer` protocol."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from crucible_kitchen import InvalidInput, Message, Unsupported, end_of_turn

from .segments import segments, splits_at_words


class HuggingFaceTokenizer:
    """The part of a Transformers tokenizer that workflows use.

    Args:
        tokenizer: the Transformers tokenizer, also reachable as this attribute.
        model_max_length: the longest input in tokens; None for no limit.
        model_vocab_size: the number of token ids that the model knows, rows of its embedding; None
            if unknown. The tokenizer may have more tokens, or fewer.
    """

    def __init__(
        self,
        tokenizer: Any,
        model_max_length: int | None = None,
        model_vocab_size: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        # What Transformers calls after a good deal of work: five times as fast, measured, 5.23.
        self._backend = _backend(tokenizer)
        self._segments = None if self._backend is None else segments(self._backend)
        self.model_max_length = model_max_length
        self.model_vocab_size = model_vocab_size

    def __reduce__(self) -> Any:
        return HuggingFaceTokenizer, (self.tokenizer, self.model_max_length, self.model_vocab_size)

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

    @cached_property
    def end_of_turn(self) -> int | None:
        """The token that ends an assistant's turn in the chat template."""
        return end_of_turn(self)

    @cached_property
    def words_apart(self) -> bool:
        """Whether a text may be cut before a space between words of ASCII letters, and its parts
        encoded separately.
        """
        return self._segments is not None and splits_at_words(self._backend)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode many texts, without special tokens; all cores of the machine share the work."""
        if not self._is_fast:
            return [self.encode(text, add_special_tokens=False) for text in texts]
        found = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    @property
    def _is_fast(self) -> bool:
        backend = self._backend
        return backend is not None and backend.truncation is None and backend.padding is None

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        backend = self._backend
        if not self._is_fast:
            return list(self.tokenizer.encode(text, add_special_tokens=add_special_tokens))
        if self._segments is not None and not add_special_tokens:
            return self._segments.encode(text)
        return list(backend.encode(text, add_special_tokens=add_special_tokens).ids)

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


def _backend(tokenizer: Any) -> Any:
    """Return the tokenizer of `tokenizers` that encodes exactly as this one does, or None."""
    from transformers import PreTrainedTokenizerFast

    as_it_comes = all(
        getattr(type(tokenizer), name, None) is getattr(PreTrainedTokenizerFast, name, None)
        for name in ("encode", "_encode_plus", "__call__")
    )
    if not as_it_comes or tokenizer.split_special_tokens:
        return None
    return tokenizer.backend_tokenizer
