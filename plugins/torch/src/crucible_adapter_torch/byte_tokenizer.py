"""A tokenizer whose tokens are the bytes of UTF-8: what a model made here reads.

Token ids 0 to 255 are the bytes, 256 is the end of the text. It is a Transformers tokenizer, so
`AutoTokenizer.from_pretrained` loads it from the folder that a training client exports.
"""

from __future__ import annotations

from typing import Any

END_OF_TEXT = "<|endoftext|>"
VOCAB_SIZE = 257


def byte_tokenizer() -> Any:
    """Return a new one. It has no chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {_character(byte): byte for byte in range(256)} | {END_OF_TEXT: 256}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, clean_up_tokenization_spaces=False
    )


def _character(byte: int) -> str:
    """Return the character that stands for a byte in byte-level BPE, the scheme of GPT-2.

    Printable bytes of Latin-1 stand for themselves; the n-th of the others is U+0100 + n.
    """
    hidden = [*range(33), *range(127, 161), 173]
    return chr(256 + hidden.index(byte)) if byte in hidden else chr(byte)
