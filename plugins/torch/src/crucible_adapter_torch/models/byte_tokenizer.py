"""The tokenizer of models made here: its tokens are the bytes of UTF-8.

Token ids 0 to 255 are the bytes; those from 256 on are special tokens, and the last one ends a
text. It is a Transformers tokenizer, so `AutoTokenizer.from_pretrained` loads it from the folder
that a training client exports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..options import END_OF_TEXT

BYTES = 256


def byte_tokenizer(
    special_tokens: Sequence[str] = (END_OF_TEXT,), chat_template: str | None = None
) -> Any:
    """Return a new tokenizer.

    Args:
        special_tokens: the tokens with ids from 256 on; the last one is the end token.
        chat_template: the Jinja source of its chat template; None for none.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {_character(byte): byte for byte in range(BYTES)}
    vocab |= {token: BYTES + index for index, token in enumerate(special_tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    *others, end = special_tokens
    options: dict[str, Any] = {"extra_special_tokens": others} if others else {}
    if chat_template is not None:
        options["chat_template"] = chat_template
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, clean_up_tokenization_spaces=False, **options
    )


def _character(byte: int) -> str:
    """Return the character that stands for a byte in byte-level BPE, the scheme of GPT-2.

    Printable bytes of Latin-1 stand for themselves; for the n-th of the others it is U+0100 + n.
    """
    hidden = [*range(33), *range(127, 161), 173]
    return chr(256 + hidden.index(byte)) if byte in hidden else chr(byte)
