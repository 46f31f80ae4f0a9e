from pathlib import Path

import pytest
from crucible_adapter_torch.byte_tokenizer import byte_tokenizer
from crucible_adapter_torch.tokenizer import HuggingFaceTokenizer
from crucible_kitchen import SessionConfig, Unsupported
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

TOKENIZER = HuggingFaceTokenizer(byte_tokenizer())


@given(st.text())
def test_any_text_survives(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.text().filter(lambda text: "<|endoftext|>" not in text))
def test_tokens_are_the_bytes_of_utf8(text):
    assert TOKENIZER.encode(text) == list(text.encode())


def test_the_end_of_text_is_the_only_token_beside_the_bytes():
    assert TOKENIZER.vocab_size == 257
    assert TOKENIZER.eos_token_id == 256
    assert TOKENIZER.decode([104, 105, 256], skip_special_tokens=True) == "hi"


@settings(deadline=None)
@given(text=st.text())
def test_transformers_loads_it_from_a_folder(text, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "byte-tokenizer"
    if not Path(folder).exists():
        TOKENIZER.tokenizer.save_pretrained(folder)
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded.encode(text) == TOKENIZER.encode(text)
    assert loaded.decode(loaded.encode(text)) == text
    assert loaded.eos_token_id == 256


def test_the_helper_returns_the_tokenizer_of_the_session(client):
    tokenizer = client.helper("get_tokenizer")(client.start_session(SessionConfig("tiny")))
    assert tokenizer.encode("hi", add_special_tokens=True) == [104, 105]
    assert tokenizer.decode([104, 105]) == "hi"
    assert tokenizer.chat_template is None
    with pytest.raises(Unsupported, match="no chat template"):
        tokenizer.apply_chat_template([{"role": "user", "content": "hi"}])


def test_a_chat_template_gives_a_list_of_ids():
    tokenizer = HuggingFaceTokenizer(byte_tokenizer())
    tokenizer.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    messages = [{"role": "user", "content": "hi"}]
    assert tokenizer.apply_chat_template(messages) == list(b"user:hi;")
    prompted = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert prompted == list(b"user:hi;assistant:")
