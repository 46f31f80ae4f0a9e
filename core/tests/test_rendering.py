"""Rows become tokens and weights: what is trained on is exactly what was asked for."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from crucible_kitchen import InvalidInput
from crucible_kitchen.workflows.rendering import Renderer, chat_tokens
from hypothesis import given
from hypothesis import strategies as st

EOS = 0


class Characters:
    """A tokenizer of one token a character; its chat template is `<role>content;`."""

    eos_token_id = EOS
    vocab_size = 0x110001
    chat_template: str | None = "..."

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [ord(character) + 1 for character in text]

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        return "".join(chr(i - 1) if i else "$" for i in token_ids)

    def apply_chat_template(self, messages: Sequence[Any], **kwargs: Any) -> list[int]:
        text = "".join(f"<{m['role']}>{m['content']};" for m in messages)
        return self.encode(text + ("<assistant>" if kwargs.get("add_generation_prompt") else ""))


class NoTemplate(Characters):
    chat_template = None


class Forgetful(Characters):
    """Its template drops the content of all but the last answer, as some that think do."""

    def apply_chat_template(self, messages: Sequence[Any], **kwargs: Any) -> list[int]:
        last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=-1)
        kept = [
            m if m["role"] != "assistant" or i == last else {**m, "content": ""}
            for i, m in enumerate(messages)
        ]
        return super().apply_chat_template(kept, **kwargs)


class Hiding(Characters):
    """Its template shows an answer only where it is the last turn."""

    def apply_chat_template(self, messages: Sequence[Any], **kwargs: Any) -> list[int]:
        earlier = [{**m, "content": ""} for m in messages[:-1] if m["role"] == "assistant"]
        kept = [
            earlier.pop(0) if m["role"] == "assistant" and i < len(messages) - 1 else m
            for i, m in enumerate(messages)
        ]
        return super().apply_chat_template(kept, **kwargs)


def renderer(tokenizer: Characters | None = None, **changed: Any) -> Renderer:
    settings = {
        "prompt": "{prompt}",
        "completion": "{completion}",
        "messages_field": "messages",
        "text_field": "text",
        "train_on": "all_assistant_messages",
        "max_length": None,
        "too_long": "error",
        **changed,
    }
    return Renderer(tokenizer or Characters(), **settings)


def trained(row: Mapping[str, Any], tokenizer: Characters | None = None, **changed: Any) -> str:
    """Return the text of a row with what is trained on in brackets."""
    example = renderer(tokenizer, **changed).render([row], "rows")[0]
    shown = Characters().decode(example.tokens.tolist())
    runs = itertools.groupby(zip(shown, example.weights, strict=True), key=lambda pair: pair[1])
    pieces = [(weight, "".join(c for c, _ in run)) for weight, run in runs]
    return "".join(f"[{text}]" if weight else text for weight, text in pieces)


CHAT = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yo"},
    {"role": "user", "content": "1?"},
    {"role": "assistant", "content": "2"},
]


@pytest.mark.parametrize(
    ("row", "changed", "expected"),
    [
        ({"prompt": "ab", "completion": "c"}, {}, "ab[c$]"),
        ({"prompt": "ab", "completion": "c"}, {"train_on": "all_tokens"}, "[abc$]"),
        ({"text": "abc"}, {}, "[abc$]"),
        ({"q": "a", "a": "b"}, {"prompt": "{q}\n", "completion": " {a}"}, "a\n[ b$]"),
        ({"messages": CHAT}, {}, "<user>hi;<assistant>[yo;]<user>1?;<assistant>[2;]"),
        (
            {"messages": CHAT},
            {"train_on": "last_assistant_message"},
            "<user>hi;<assistant>yo;<user>1?;<assistant>[2;]",
        ),
        (
            {"prompt": CHAT[:3], "completion": CHAT[3:]},
            {},
            "<user>hi;<assistant>yo;<user>1?;<assistant>[2;]",
        ),
        ({"chat": CHAT[:2]}, {"messages_field": "chat"}, "<user>hi;<assistant>[yo;]"),
    ],
)
def test_only_what_was_asked_for_is_trained_on(row, changed, expected: str) -> None:
    assert trained(row, **changed) == expected


def test_without_a_chat_template_turns_are_lines_and_answers_end_with_eos() -> None:
    assert trained({"messages": CHAT[:3]}, NoTemplate()) == "user: hi\nassistant:[ yo$]\nuser: 1?"
    shown = Characters().decode(chat_tokens(NoTemplate(), CHAT[:3], generate=True))
    assert shown == "user: hi\nassistant: yo$\nuser: 1?\nassistant:"


@pytest.mark.parametrize("tokenizer", [Forgetful(), Hiding()])
def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer: Characters) -> None:
    with pytest.raises(InvalidInput, match='train_on = "all_tokens"'):
        trained({"messages": CHAT}, tokenizer)


@pytest.mark.parametrize("tokenizer", [Forgetful(), Hiding()])
def test_every_token_of_such_a_template_can_be_trained_on(tokenizer: Characters) -> None:
    shown = Characters().decode(tokenizer.apply_chat_template(CHAT))
    assert trained({"messages": CHAT}, tokenizer, train_on="all_tokens") == f"[{shown}]"


def test_a_template_that_rewrites_an_answer_before_the_last_question_is_refused() -> None:
    with pytest.raises(InvalidInput, match='train_on = "all_tokens"'):
        trained({"messages": CHAT[:3]}, Hiding())


def test_where_every_token_counts_the_last_answer_is_still_known() -> None:
    (example,) = renderer(train_on="all_tokens").render([{"messages": CHAT}], "rows")
    assert Characters().decode(example.tokens[example.prompt_length :].tolist()) == "2;"
    assert example.answer == "2"


def test_a_field_without_a_value_is_a_field_that_is_not_there() -> None:
    row = {"messages": None, "prompt": None, "completion": None, "text": "abc"}
    assert trained(row) == "[abc$]"
    with pytest.raises(InvalidInput, match="has no field 'completion'"):
        trained({"prompt": "a", "completion": None})


@pytest.mark.parametrize(
    ("row", "changed", "message"),
    [
        ({"prompt": CHAT[:1], "completion": "2"}, {}, "only prompt is a list"),
        ({"prompt": "1?", "completion": CHAT[1:2]}, {}, "only completion is a list"),
        ({"messages": ["hi"]}, {}, "message 0 is a str, not a table of role and content"),
        ({"messages": [{"role": "user"}]}, {}, "the content of message 0 is missing"),
        (
            {"messages": [{"from": "human", "value": "hi"}]},
            {},
            "the role of message 0 is missing, .* the message has 'from', 'value'",
        ),
        (
            {"messages": [*CHAT, {"role": "user", "content": [{"type": "text"}]}]},
            {},
            "the content of message 4 is a list, it must be a text",
        ),
        ({"messages": "hi"}, {}, "has no field 'prompt'"),
        ({"a": ["x"]}, {"prompt": "{a[b]}"}, r"the template '\{a\[b\]\}' or .* does not fit"),
        ({"a": "x"}, {"prompt": "{a"}, "does not fit"),
        ({"a": "x"}, {"prompt": "{a.b}"}, "does not fit"),
    ],
)
def test_a_row_that_does_not_fit_is_named_rather_than_guessed_at(
    row: dict[str, Any], changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=f"row 0 of rows.*{message}"):
        renderer(**changed).render([row], "rows")


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_datum_predicts_each_next_token(prompt: str, completion: str) -> None:
    example = renderer().render([{"prompt": "p" + prompt, "completion": completion}], "rows")[0]
    datum = example.datum(scale=0.5)
    inputs = datum.loss_fn_inputs
    assert datum.model_input.to_ints() == example.tokens[:-1].tolist()
    assert inputs["target_tokens"].tolist() == example.tokens[1:].tolist()
    assert inputs["weights"].dtype == np.float32
    assert inputs["weights"].sum() == 0.5 * (len(completion) + 1)
    assert example.prompt_length == len(prompt) + 1
    assert example.answer == completion


def test_prompt_and_completion_are_tokenized_apart() -> None:
    class Merging(Characters):
        def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
            return [999 if part == "ab" else ord(part) + 1 for part in text.replace("ab", "\u0001")]

    example = renderer(Merging()).render([{"prompt": "a", "completion": "b"}], "rows")[0]
    assert example.tokens.tolist() == [ord("a") + 1, ord("b") + 1, EOS]


LONG = [{"text": "ab"}, {"text": "abcdef"}]


def test_a_row_that_is_too_long_is_an_error_that_names_it() -> None:
    with pytest.raises(InvalidInput, match="row 1 of rows has 6 tokens, the longest input is 4"):
        renderer(max_length=4).render(LONG, "rows")


def test_a_row_that_is_too_long_can_be_dropped() -> None:
    assert len(renderer(max_length=4, too_long="drop").render(LONG, "rows")) == 1


def test_a_row_that_is_too_long_can_be_cut() -> None:
    cut = renderer(max_length=4, too_long="truncate").render(LONG, "rows")[1]
    assert cut.datum().model_input.length == 4
    assert cut.tokens.tolist() == Characters().encode("abcde")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "it has no rows"),
        ([{"question": "a"}], "row 0 of rows has no field 'prompt'.*it has 'question'"),
        ([{"messages": CHAT[:1]}], "row 0 of rows has no assistant message"),
        ([{"text": ""}], "fewer than two tokens"),
    ],
)
def test_rows_that_cannot_be_learnt_from_are_named(rows, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        renderer().render(rows, "rows")


def test_nothing_is_left_after_dropping_every_row() -> None:
    with pytest.raises(InvalidInput, match="every row is too long"):
        renderer(max_length=1, too_long="drop").render(LONG, "rows")


def test_a_cut_that_leaves_nothing_to_train_on_is_named() -> None:
    row = {"prompt": "abcdef", "completion": "g"}
    with pytest.raises(InvalidInput, match="row 0 of rows has no token to train on"):
        renderer(max_length=4, too_long="truncate").render([row], "rows")
