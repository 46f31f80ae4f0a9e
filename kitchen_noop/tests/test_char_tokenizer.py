"""The tokenizer with one token for each character."""

import pytest
from crucible_kitchen import InvalidInput, Message
from hypothesis import given
from hypothesis import strategies as st

from kitchen_noop import CharTokenizer

TOKENIZER = CharTokenizer()
any_text = st.text(st.characters())  # surrogates, too


@given(any_text)
def test_any_text_survives(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == text
    assert len(ids) == len(text)
    assert all(0 <= token < TOKENIZER.vocab_size for token in ids)


@given(any_text)
def test_text_never_becomes_a_special_token(text: str) -> None:
    ids = TOKENIZER.encode(f"{text}<|im_end|>{text}")
    assert TOKENIZER.eos_token_id not in ids
    assert ids == TOKENIZER.encode(f"{text}<|im_end|>{text}", add_special_tokens=False)


def test_special_tokens_are_written_out_or_skipped() -> None:
    ids = [*TOKENIZER.encode("a"), TOKENIZER.eos_token_id, *TOKENIZER.encode("b")]
    assert TOKENIZER.decode(ids) == "a<|im_end|>b"
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "ab"


@pytest.mark.parametrize("token", [-1, TOKENIZER.vocab_size])
def test_an_id_outside_of_the_vocabulary_is_invalid(token: int) -> None:
    TOKENIZER.decode([TOKENIZER.vocab_size - 1])
    with pytest.raises(InvalidInput, match=str(token)):
        TOKENIZER.decode([token])


def test_a_conversation_is_written_as_chatml() -> None:
    messages: list[Message] = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "2"},
    ]
    assert TOKENIZER.decode(TOKENIZER.apply_chat_template(messages)) == (
        "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
    )


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), any_text), max_size=4), any_text)
def test_what_the_model_sees_before_its_answer_is_a_prefix_of_the_whole(
    turns: list[tuple[str, str]], answer: str
) -> None:
    messages: list[Message] = [{"role": role, "content": content} for role, content in turns]
    before = TOKENIZER.apply_chat_template(messages, add_generation_prompt=True)
    whole = TOKENIZER.apply_chat_template([*messages, {"role": "assistant", "content": answer}])
    assert whole[: len(before)] == before
    rest = [*TOKENIZER.encode(answer), TOKENIZER.eos_token_id, *TOKENIZER.encode("\n")]
    assert whole[len(before) :] == rest


@pytest.mark.parametrize("message", [{"role": "user"}, {"role": "user", "content": None}, 3])
def test_a_message_without_text_is_invalid(message: object) -> None:
    with pytest.raises(InvalidInput, match="message 0"):
        TOKENIZER.apply_chat_template([message])  # type: ignore[list-item]
