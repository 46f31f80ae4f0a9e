"""The tokenizer of models made here, and what such a model knows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crucible_adapter_torch.models.byte_tokenizer import byte_tokenizer
from crucible_adapter_torch.models.tokenizer import HuggingFaceTokenizer
from crucible_adapter_torch.options import RandomModel
from crucible_kitchen import (
    InvalidInput,
    Kitchen,
    Message,
    NotFound,
    SamplingParams,
    SessionConfig,
    TrainingClient,
    Unsupported,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_torch import LLAMA, MakeKitchen
from transformers import AutoTokenizer

TOKENIZER = HuggingFaceTokenizer(byte_tokenizer())


@given(st.text())
def test_any_text_survives(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.text().filter(lambda text: "<|endoftext|>" not in text))
def test_tokens_are_the_bytes_of_utf8(text: str) -> None:
    assert TOKENIZER.encode(text) == list(text.encode())


def test_the_end_of_text_is_the_only_token_besides_the_bytes() -> None:
    assert TOKENIZER.vocab_size == 257
    assert TOKENIZER.eos_token_id == 256
    assert TOKENIZER.decode([104, 105, 256], skip_special_tokens=True) == "hi"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tokenizer as Transformers loads it from a folder."""
    folder = tmp_path_factory.mktemp("byte-tokenizer")
    TOKENIZER.tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@given(text=st.text())
def test_transformers_loads_it_from_a_folder(text: str, loaded: Any) -> None:
    assert loaded.encode(text) == TOKENIZER.encode(text)
    assert loaded.decode(loaded.encode(text)) == text
    assert loaded.eos_token_id == 256


def test_the_helper_returns_the_tokenizer_of_the_session(client: TrainingClient) -> None:
    tokenizer = client.helper("get_tokenizer")(client.start_session(SessionConfig("tiny")))
    assert tokenizer.encode("hi", add_special_tokens=True) == [104, 105]
    assert tokenizer.decode([104, 105]) == "hi"
    assert tokenizer.chat_template is None
    with pytest.raises(Unsupported, match="no chat template"):
        tokenizer.apply_chat_template([{"role": "user", "content": "hi"}])


def test_special_tokens_follow_the_bytes_and_the_last_ends_a_text() -> None:
    tokenizer = HuggingFaceTokenizer(byte_tokenizer(["<|im_start|>", "<|im_end|>"]))
    assert tokenizer.encode("<|im_start|>hé<|im_end|>") == [256, *"hé".encode(), 257]
    assert (tokenizer.vocab_size, tokenizer.eos_token_id) == (258, 257)
    assert tokenizer.decode([256, 104, 105, 257], skip_special_tokens=True) == "hi"


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        ([], "the last one is the end token"),
        (["<|end|>", "\n"], "two characters or more"),
        (["<|end|>", "<|end|>"], "twice"),
    ],
)
def test_special_tokens_that_cannot_be_ones_are_refused(tokens: list[int], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        RandomModel(special_tokens=tokens)


TEMPLATE = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@pytest.fixture
def chatting(make_kitchen: MakeKitchen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kitchen:
    """A kitchen with the model `chatty`; its template lies in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("chat.jinja").write_text(TEMPLATE, "utf-8")
    special = ["<|im_start|>", "<|im_end|>"]
    chatty = {**LLAMA, "chat_template": "chat.jinja", "special_tokens": special}
    return make_kitchen(models={"chatty": chatty})


def test_a_model_made_here_knows_its_special_tokens(chatting: Kitchen) -> None:
    session = chatting.training_client.start_session(SessionConfig("chatty"))
    config = session.engine.model.config
    assert (config.vocab_size, config.eos_token_id) == (258, 257)


def test_an_exported_folder_has_the_template_and_the_special_tokens(chatting: Kitchen) -> None:
    client = chatting.training_client
    folder = client.save_weights_for_sampler(client.start_session(SessionConfig("chatty")), "mine")
    loaded = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "hi"}]
    ids = loaded.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == [256, *b"user\nhi", 257, *b"\n", 256, *b"assistant\n"]
    assert (len(loaded), loaded.eos_token, loaded.chat_template) == (258, "<|im_end|>", TEMPLATE)


def test_the_completer_renders_messages_for_a_model_made_here(chatting: Kitchen) -> None:
    client = chatting.training_client
    weights = client.save_weights_for_sampler(client.start_session(SessionConfig("chatty")), "mine")
    messages: list[Message] = [{"role": "user", "content": "hi"}]
    params = SamplingParams(max_tokens=4, temperature=0.0, model=weights)
    completer = chatting.completer
    ids = [256, *b"user\nhi", 257, *b"\n", 256, *b"assistant\n"]
    rendered, given = completer.complete(messages, params), completer.complete(ids, params)
    assert rendered.tokens is not None
    np.testing.assert_array_equal(rendered.tokens, given.tokens)


def test_a_home_folder_in_the_path_of_a_template_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RandomModel(chat_template="~/chat.jinja").chat_template == tmp_path / "chat.jinja"


def test_a_template_that_is_not_there_is_named(make_kitchen: MakeKitchen, tmp_path: Path) -> None:
    path = tmp_path / "chat.jinja"
    client = make_kitchen(models={"mine": {**LLAMA, "chat_template": path}}).training_client
    with pytest.raises(NotFound, match=r"models.mine.chat_template: .*chat.jinja cannot be read"):
        client.start_session(SessionConfig("mine"))


def test_a_template_that_is_not_utf_8_is_refused(make_kitchen: MakeKitchen, tmp_path: Path) -> None:
    path = tmp_path / "chat.jinja"
    path.write_bytes(b"\xff")
    client = make_kitchen(models={"mine": {**LLAMA, "chat_template": path}}).training_client
    with pytest.raises(InvalidInput, match=r"models.mine.chat_template: .*is not UTF-8"):
        client.start_session(SessionConfig("mine"))


def test_a_chat_template_gives_a_list_of_ids() -> None:
    template = (
        "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    tokenizer = HuggingFaceTokenizer(byte_tokenizer(chat_template=template))
    messages: list[Message] = [{"role": "user", "content": "hi"}]
    assert tokenizer.apply_chat_template(messages) == list(b"user:hi;")
    prompted = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert prompted == list(b"user:hi;assistant:")
