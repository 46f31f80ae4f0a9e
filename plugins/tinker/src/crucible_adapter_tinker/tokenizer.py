"""A model's tokenizer, behind Crucible Kitchen's `Tokenizer` protocol."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from crucible_kitchen import InvalidInput, Message, NotFound, Unsupported, end_of_turn

from .options import ServerOptions


class HuggingFaceTokenizer:
    """The part of a Transformers tokenizer that workflows use.

    Args:
        tokenizer: the Transformers tokenizer, also reachable as this attribute.
        model_max_length: the longest input in tokens; None if unknown.
        model_vocab_size: the number of token ids that the model knows; None if unknown.
    """

    def __init__(
        self,
        tokenizer: Any,
        model_max_length: int | None = None,
        model_vocab_size: int | None = None,
    ) -> None:
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

    @cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens that end an answer: the tokenizer's end token, and what ends a turn in its
        chat template, which is what training teaches.
        """
        known = (self.eos_token_id, end_of_turn(self))
        return tuple(dict.fromkeys(token for token in known if token is not None))

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


def load(
    opts: ServerOptions,
    client: Any,
    model_max_length: int | None,
    model_vocab_size: int | None = None,
) -> HuggingFaceTokenizer:
    """Load the tokenizer of a model: that of the option `tokenizer`, otherwise the model's own.

    Args:
        opts: the adapter's options.
        client: a training or sampling client of the SDK, which knows the model.
        model_max_length: the longest input of the model in tokens; None if unknown.
        model_vocab_size: the number of token ids that the model knows; None if unknown.

    Raises:
        NotFound: it is neither a folder nor a repository that can be read.
    """
    try:
        if opts.tokenizer is None:
            # The SDK knows which repository has the tokenizer of a model of the service.
            found = client.get_tokenizer()
        else:
            from transformers import AutoTokenizer

            found = AutoTokenizer.from_pretrained(opts.tokenizer)
    except Exception as error:  # Transformers raises OSError, ValueError, ImportError and others
        what = "of the model" if opts.tokenizer is None else repr(opts.tokenizer)
        reason = NotFound(
            f"the tokenizer {what} could not be loaded: {type(error).__name__}: {error!s:.300}; "
            "name a local folder or a repository of the Hugging Face hub by the option `tokenizer`"
        )
    else:
        return HuggingFaceTokenizer(found, model_max_length, model_vocab_size)
    raise reason
