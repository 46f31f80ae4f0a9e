"""Text between special tokens is encoded once, and just as Transformers encodes it."""

from __future__ import annotations

from typing import Any

import pytest
from crucible_adapter_torch.models.tokenizer import HuggingFaceTokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|im_end|>\n", "</s>")
CORPUS = ["user\nhello world, hello there", "assistant\nthe answer is 42\n\n  well"] * 3


def tokenizer(kind: str) -> Any:
    backend = Tokenizer(models.BPE())
    trained: dict[str, Any] = {"vocab_size": 320, "show_progress": False}
    if kind == "byte level":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trained["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
    elif kind == "prepending":  # Llama 2
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        backend.normalizer = normalizers.NFKC()
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind)
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(**trained))
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    backend.add_tokens([AddedToken("<think>", normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


KINDS = ("byte level", "prepending", "always", "first", "never")
TOKENIZERS = {kind: HuggingFaceTokenizer(tokenizer(kind)) for kind in KINDS}
PIECES = st.sampled_from([*SPECIAL, "<think>", "user", "hello", " ", "\n", "  ", "ﬁ", "é", "4"])


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_the_ids_are_those_of_transformers(kind: str, text: str) -> None:
    ours = TOKENIZERS[kind]
    assert ours.encode(text, add_special_tokens=False) == ours.tokenizer.encode(
        text, add_special_tokens=False
    )


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_are_remembered_where_they_do_not_depend_on_each_other(kind: str) -> None:
    assert (TOKENIZERS[kind]._segments is None) == (kind == "first")


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word", "normalized"])
def test_a_token_that_takes_text_around_it_is_left_to_transformers(flag: str) -> None:
    plain = tokenizer("byte level")
    plain.add_tokens([AddedToken("<|end|>", special=True, **{"normalized": False, flag: True})])
    ours = HuggingFaceTokenizer(plain)
    assert ours._segments is None
    text = "hello <|end|>  \nhello"
    assert ours.encode(text, add_special_tokens=False) == plain.encode(
        text, add_special_tokens=False
    )


def test_ids_that_a_caller_changes_are_not_remembered() -> None:
    ours = TOKENIZERS["byte level"]
    first = ours.encode("<|im_end|>hello", add_special_tokens=False)
    expected = list(first)
    first.clear()
    assert ours.encode("<|im_end|>hello", add_special_tokens=False) == expected


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.lists(PIECES, max_size=12).map("".join), max_size=4))
def test_texts_that_are_encoded_together_have_the_ids_of_each_alone(
    kind: str, texts: list[str]
) -> None:
    ours = TOKENIZERS[kind]
    assert ours.encode_batch(texts) == [ours.encode(t, add_special_tokens=False) for t in texts]


def split(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CUT = {"GPT-2": pre_tokenizers.ByteLevel(add_prefix_space=False), "Qwen": split(QWEN)}


def of_bytes(pre_tokenizer: Any) -> HuggingFaceTokenizer:
    plain = tokenizer("byte level")
    plain.backend_tokenizer.pre_tokenizer = pre_tokenizer
    return HuggingFaceTokenizer(plain)


@pytest.mark.parametrize("name", CUT)
@given(before=st.lists(PIECES).map("".join), after=st.lists(PIECES).map("".join))
def test_a_text_may_be_cut_between_words_where_the_pre_tokenizer_cuts_it(
    name: str, before: str, after: str
) -> None:
    ours = of_bytes(CUT[name])
    assert ours.words_apart
    parts = f"{before}hello", f" world{after}"
    ids = [ours.encode(part, add_special_tokens=False) for part in parts]
    assert ours.encode("".join(parts), add_special_tokens=False) == [*ids[0], *ids[1]]


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.Metaspace(),
        split(r"\w+ \w+|."),  # two words at a time
        split(r"[^q] [^q]|."),  # all letters but one
    ],
    ids=["a space in front", "SentencePiece", "two words", "a letter"],
)
def test_no_text_is_cut_where_the_pre_tokenizer_may_not_cut_it(pre_tokenizer: Any) -> None:
    assert not of_bytes(pre_tokenizer).words_apart


def test_no_text_is_cut_where_an_added_token_may_reach_across() -> None:
    plain = tokenizer("byte level")
    plain.add_tokens([AddedToken("o w", normalized=False)])
    assert not HuggingFaceTokenizer(plain).words_apart
