"""What rows hold becomes tokens and weights: what is trained on is exactly what was asked for."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from character_tokenizers import (
    EOS,
    Begun,
    Characters,
    NextRole,
    NoTemplate,
    Parts,
    Thinking,
    Tools,
    ToolsOfText,
    marked_text,
)
from crucible_kitchen import InvalidInput, end_of_turn
from crucible_kitchen.workflows.rows.examples import RowReader
from crucible_kitchen.workflows.rows.rendering import Example, Renderer, shared_prompt
from hypothesis import given
from hypothesis import strategies as st


def U(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def A(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


CHAT = [U("hi"), A("yo"), U("1?"), A("2")]
CALL = {"function": {"name": "weather", "arguments": {"city": "Oslo"}}}
CALLED = [U("Oslo?"), A(None, tool_calls=[CALL]), {"role": "tool", "content": "sun"}, A("Sunny.")]
TOOLS = [{"type": "function", "function": {"name": "weather"}}]


def rendered(
    row: Mapping[str, Any], tokenizer: Characters | None = None, **settings: Any
) -> list[str]:
    """Return every sequence of a row, with what is trained on in brackets."""
    renderer = Renderer(tokenizer or Characters(), **settings)
    return [marked_text(example) for example in renderer.render(RowReader().read(row))]


@pytest.mark.parametrize(
    ("row", "train_on", "expected"),
    [
        ({"prompt": "ab", "completion": "c"}, "all_assistant_messages", "ab[c$]"),
        ({"prompt": "ab", "completion": "c"}, "all_tokens", "[abc$]"),
        ({"text": "abc"}, "all_assistant_messages", "[abc$]"),
        (
            {"messages": CHAT},
            "all_assistant_messages",
            "<user>hi;<assistant>[yo;$]<user>1?;<assistant>[2;$]",
        ),
        (
            {"messages": CHAT},
            "last_assistant_message",
            "<user>hi;<assistant>yo;$<user>1?;<assistant>[2;$]",
        ),
        (
            {"prompt": CHAT[:3], "completion": CHAT[3:]},
            "all_assistant_messages",
            "<user>hi;<assistant>yo;$<user>1?;<assistant>[2;$]",
        ),
        ({"messages": CHAT[:2]}, "all_tokens", "[<user>hi;<assistant>yo;$]"),
    ],
)
def test_only_what_was_asked_for_is_trained_on(
    row: dict[str, Any], train_on: Any, expected: str
) -> None:
    class Ended(Characters):
        def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
            return super().write(messages, kwargs).replace("yo;", "yo;$").replace("2;", "2;$")

    assert rendered(row, Ended(), train_on=train_on) == [expected]


def test_without_a_chat_template_turns_are_lines_and_answers_end_with_the_end_token() -> None:
    assert rendered({"messages": CHAT}, NoTemplate()) == [
        "user: hi\nassistant:[ yo$]\nuser: 1?\nassistant:[ 2$]"
    ]


def test_the_begin_token_comes_once_and_a_prompt_is_not_ended() -> None:
    assert rendered({"prompt": "a", "completion": "b"}, Begun()) == ["^a[b$]"]
    assert rendered({"text": "ab"}, Begun()) == ["[^ab$]"]
    assert rendered({"messages": CHAT[:2]}, Begun()) == ["^user: hi\nassistant:[ yo$]"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "^ab$"}, "[^ab$]"),
        ({"text": "^ab$\n"}, "[^ab$\n]"),
        ({"prompt": "^a", "completion": "b$"}, "^a[b$]"),
    ],
)
def test_tokens_of_text_that_was_rendered_beforehand_are_not_doubled(
    row: dict[str, Any], expected: str
) -> None:
    assert rendered(row, Begun()) == [expected]


class Words(Characters):
    """Says that its words are apart, and has them so."""

    words_apart = True

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        if text != "a":  # with which it is found out how a text begins
            self.asked.append(text)
        return super().encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]


def test_of_a_prompt_only_the_last_word_is_encoded_twice() -> None:
    tokenizer = Words()
    assert rendered({"prompt": "to be or not", "completion": " to be"}, tokenizer) == [
        "to be or not[ to be$]"
    ]
    assert tokenizer.asked == ["to be or", " not", " not to be"]


def test_rows_that_are_looked_ahead_at_are_encoded_together() -> None:
    renderer = Renderer(tokenizer := Words())
    rows = [{"prompt": f"to be {n}", "completion": f" or {n}"} for n in range(3)]
    shapes = [RowReader().read(row) for row in [*rows, {"text": "not to be"}]]
    renderer.look_ahead(shapes)
    before = len(tokenizer.asked)
    found = [marked_text(example) for shape in shapes for example in renderer.render(shape)]
    assert found == [*(f"to be {n}[ or {n}$]" for n in range(3)), "[not to be$]"]
    assert len(tokenizer.asked) == before


# --- answers in a template ---


def test_an_answer_is_read_where_it_is_the_last_turn() -> None:
    assert rendered({"messages": CHAT}, Thinking()) == [
        "<user>hi;<assistant>[<think></think>yo;$]",
        "<user>hi;<assistant>yo;<user>1?;<assistant>[<think></think>2;$]",
    ]


def test_only_the_last_answer_of_such_a_template_can_be_trained_on() -> None:
    assert rendered({"messages": CHAT}, Thinking(), train_on="last_assistant_message") == [
        "<user>hi;<assistant>yo;<user>1?;<assistant>[<think></think>2;$]"
    ]


def test_a_template_that_ends_a_turn_with_nothing_gets_the_end_token() -> None:
    assert end_of_turn(Characters()) == EOS
    assert rendered({"messages": CHAT[:2]}) == ["<user>hi;<assistant>[yo;$]"]


@pytest.mark.parametrize("behind", ["", "\n", " \n", "\n$"])
def test_what_a_template_writes_behind_the_end_of_a_turn_is_not_trained_on(behind: str) -> None:
    """A model stops at the end of its turn, so nothing behind it is ever asked of it."""

    class Ended(Characters):
        def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
            return super().write(messages, kwargs).replace(";", f"${behind}")

    (shown,) = rendered({"messages": CHAT}, Ended())
    assert (
        shown
        == f"<user>hi${behind}<assistant>[yo$]{behind}<user>1?${behind}<assistant>[2$]{behind}"
    )


def test_a_turn_that_the_mark_of_the_next_role_ends_is_trained_to_end_with_it() -> None:
    assert rendered({"messages": CHAT}, NextRole()) == ["$hi<assistant>[yo$]1?<assistant>[2$]"]


def test_a_message_of_weight_0_is_not_trained_on() -> None:
    row = {"messages": [U("6*7?"), A("41", weight=0), U("Sure?"), A("42", weight=1)]}
    assert rendered(row, NextRole()) == ["$6*7?<assistant>41$Sure?<assistant>[42$]"]
    with pytest.raises(InvalidInput, match="train on; its roles are 'user', 'assistant'"):
        rendered({"messages": [U("a"), A("b", weight=0)]})
    with pytest.raises(InvalidInput, match="message 1 has weight 0, and train_on = 'all_tokens'"):
        rendered(row, train_on="all_tokens")


def test_an_answer_that_nothing_comes_before_is_refused() -> None:
    with pytest.raises(InvalidInput, match="nothing comes before the answer"):
        rendered({"messages": [A("yo")]})


class Opening(Characters):
    prompt = "<assistant><think>"


def test_a_prompt_that_opens_a_think_block_leaves_the_whole_answer_to_be_trained_on() -> None:
    # The answer begins as the think block does.
    assert rendered({"messages": [U("a"), A("<b>")]}, Opening()) == ["<user>a;<assistant>[<b>;$]"]
    thought = {"messages": [U("a"), A("<think>hm</think>b")]}
    assert rendered(thought, Opening()) == ["<user>a;<assistant><think>[hm</think>b;$]"]


class ForgetsThoughts(Characters):
    """Opens a think block, and leaves the thoughts of every answer out, as DeepSeek-R1's does."""

    prompt = "<assistant><think>"

    def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
        return "".join(
            f"<{m['role']}>{m['content'].rpartition('</think>')[2]}"
            + ("$" if m["role"] == "assistant" else ";")
            for m in messages
        )


def test_thoughts_that_a_template_leaves_out_continue_the_think_block_of_the_prompt() -> None:
    row = {"messages": [U("a"), A("<think>hm</think>b")]}
    assert rendered(row, ForgetsThoughts()) == ["<user>a;<assistant><think>[hm</think>b$]"]


class Verbatim(Opening):
    """Opens a think block, and writes what the answer says, as QwQ's does."""

    def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
        return super().write(messages, kwargs).replace("b;", "b$").replace("crucible;", "crucible$")


@pytest.mark.parametrize("template", [Verbatim, ForgetsThoughts])
def test_an_answer_whose_think_block_the_prompt_opens_continues_the_prompt(
    template: type[Characters],
) -> None:
    """As answers of a server are, whose prompt opened the block."""
    (shown,) = rendered({"messages": [U("a"), A("hm</think>b")]}, template())
    assert shown == "<user>a;<assistant><think>[hm</think>b$]"


class SystemInLastUser(Characters):
    """Puts the system's text into the last message, if that is the user's, as Mistral's do."""

    prompt = "!"

    def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
        told = [m["content"] for m in messages if m["role"] == "system"]
        turns = [m for m in messages if m["role"] != "system"]
        if turns[-1]["role"] == "user":
            turns[-1]["content"] = "".join([*told, turns[-1]["content"]])
        return "".join(
            f"!{m['content']}$" if m["role"] == "assistant" else f"<{m['content']}>" for m in turns
        )


def test_what_was_asked_is_the_prompt_where_the_answer_makes_the_template_rewrite_it() -> None:
    system = {"role": "system", "content": "Be kind. "}
    assert rendered({"messages": [system, *CHAT]}, SystemInLastUser()) == [
        "<Be kind. hi>![yo$]",
        "<hi>!yo$<Be kind. 1?>![2$]",
    ]


def test_a_template_that_leaves_out_what_a_row_says_is_refused() -> None:
    class Deaf(Characters):
        def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
            return super().write([m for m in messages if m["role"] != "system"], kwargs)

    class Terse(Characters):
        def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
            return super().write([{**m, "content": m["content"][:2]} for m in messages], kwargs)

    class Flat(Characters):
        def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
            return super().write(messages, kwargs).replace("\n", " ")

    for told in ("be nice", "i", "hi"):  # the last two are in the user's message as well
        row = {"messages": [{"role": "system", "content": told}, *CHAT]}
        for train_on in ("all_assistant_messages", "all_tokens"):
            with pytest.raises(InvalidInput, match="leaves out message 0, of role 'system'"):
                rendered(row, Deaf(), train_on=train_on)
    with pytest.raises(InvalidInput, match="leaves out message 0, of role 'system'"):
        rendered(
            {"messages": [{"role": "system", "content": "i"}, U("hi")]},
            Deaf(),
            train_on="all_tokens",
        )
    with pytest.raises(InvalidInput, match="leaves out the text of the answer"):
        rendered({"messages": [U("hi"), A("def f():\n    pass")]}, Flat())
    with pytest.raises(InvalidInput, match="leaves out the text of the answer: 'long'"):
        rendered({"messages": [U("hi"), A("long")]}, Terse())
    with pytest.raises(InvalidInput, match="leaves out reasoning_content of the answer: 'hm'"):
        rendered({"messages": [U("hi"), A("yo", reasoning_content="hm")]})


def test_an_error_of_a_template_says_that_it_is_the_template() -> None:
    class Strict(Characters):
        def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
            raise ValueError("no system messages, please")

    with pytest.raises(InvalidInput, match="chat template refuses these messages: no system"):
        rendered({"messages": CHAT}, Strict())


# --- what a template is given ---


def test_tools_of_a_row_and_the_calls_of_them_are_shown() -> None:
    row = {"messages": CALLED, "tools": TOOLS}
    call = '<assistant>[weather(city="Oslo");$]'
    assert rendered(row, Tools()) == [
        f"[weather]<user>Oslo?;{call}",
        '[weather]<user>Oslo?;<assistant>weather(city="Oslo");<tool>sun;<assistant>[Sunny.;$]',
    ]


def test_a_tool_call_is_given_as_the_template_takes_it() -> None:
    (first, _) = rendered({"messages": CALLED}, ToolsOfText())
    assert first == '<user>Oslo?;<assistant>[weather{"city": "Oslo"};$]'


def test_a_template_that_shows_one_of_several_calls_is_refused() -> None:
    class First(Tools):
        def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
            for message in messages:
                message["tool_calls"] = message.get("tool_calls", [])[:1]
            return super().write(messages, kwargs)

    calls = [{"function": {"name": "f", "arguments": {"x": x}}} for x in (1, 2)]
    with pytest.raises(InvalidInput, match="leaves out some of the answer's 2 calls of 'f'"):
        rendered({"messages": [U("?"), A(None, tool_calls=calls)]}, First())


def called(arguments: str) -> dict[str, Any]:
    return {
        "messages": [
            U("?"),
            A(None, tool_calls=[{"function": {"name": "f", "arguments": arguments}}]),
        ]
    }


def test_arguments_that_are_text_stay_as_they_were_written_where_the_template_takes_text() -> None:
    for arguments in ('{"x":1.10}', '{"x": 0.1234567890123456789}', '{ "x":"a"}'):
        assert rendered(called(arguments), ToolsOfText()) == [
            f"<user>?;<assistant>[f{arguments};$]"
        ]


def test_arguments_that_are_text_are_read_where_the_template_takes_a_table() -> None:
    assert rendered(called('{"x":"a", "y":1.10}'), Tools()) == [
        '<user>?;<assistant>[f(x="a",y="1.1");$]'
    ]
    with pytest.raises(InvalidInput, match="would lose digits"):
        rendered(called('{"x": 0.1234567890123456789}'), Tools())


def test_a_template_that_takes_both_is_given_the_text_where_a_number_is_written_otherwise() -> None:
    class Both(Tools):
        def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
            for message in messages:
                for call in message.pop("tool_calls", ()):
                    said = call["function"]["arguments"]
                    text = said if isinstance(said, str) else json.dumps(said)
                    message["content"] = call["function"]["name"] + text
            return super().write(messages, kwargs)

    assert rendered(called('{"x":1.10}'), Both()) == ['<user>?;<assistant>[f{"x":1.10};$]']
    assert rendered(called('{"x":1.1}'), Both()) == ['<user>?;<assistant>[f{"x": 1.1};$]']


def test_tools_that_a_template_does_not_show_are_refused() -> None:
    with pytest.raises(InvalidInput, match="leaves out the tool 'weather'"):
        rendered({"messages": CHAT, "tools": TOOLS})
    with pytest.raises(InvalidInput, match="leaves out a tool call of the answer: 'weather'"):
        rendered({"messages": CALLED})
    with pytest.raises(InvalidInput, match="leaves out a tool call of message 1, of role 'assist"):
        rendered({"messages": CALLED}, train_on="last_assistant_message")


def test_content_is_given_as_text_or_as_parts_as_the_template_wants_it() -> None:
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    for tokenizer in (Characters(), Parts()):
        for content in ("hi", parts):
            row = {"messages": [U(content), A("yo")]}
            assert rendered(row, tokenizer) == ["<user>hi;<assistant>[yo;$]"]


def test_settings_of_the_template_come_from_the_configuration_and_above_it_the_row() -> None:
    class Styled(Characters):
        def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
            return f"{kwargs['style']}:" + super().write(messages, kwargs)

    settings = {"chat_template_kwargs": {"style": "plain"}}
    assert rendered({"messages": CHAT[:2]}, Styled(), **settings) == [
        "plain:<user>hi;<assistant>[yo;$]"
    ]
    row = {"messages": CHAT[:2], "chat_template_kwargs": {"style": "bold"}}
    assert rendered(row, Styled(), **settings) == ["bold:<user>hi;<assistant>[yo;$]"]


@pytest.mark.parametrize("name", ["tokenize", "add_generation_prompt", "chat_template"])
def test_what_is_not_the_templates_cannot_be_set(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"chat_template_kwargs has '{name}'"):
        rendered({"messages": CHAT, "chat_template_kwargs": {name: True}})
    with pytest.raises(InvalidInput, match=f"chat_template_kwargs has '{name}'"):
        rendered({"messages": CHAT}, chat_template_kwargs={name: True})


def test_a_template_that_writes_the_date_is_given_the_day_of_the_run() -> None:
    class Dated(Characters):
        chat_template = 'Today is {{ strftime_now("%d %b %Y") }}.'
        given: Any = None

        def apply_chat_template(self, messages: Sequence[Any], **kwargs: Any) -> Any:
            self.given = kwargs.get("chat_template")
            return super().apply_chat_template(messages, **kwargs)

    tokenizer = Dated()
    renderer = Renderer(tokenizer, date=datetime.date(2026, 1, 2))
    assert renderer.template.writes_date
    renderer.render(RowReader().read({"messages": CHAT}))
    assert '"%d %b %Y": "02 Jan 2026"' in tokenizer.given
    assert tokenizer.given.endswith(Dated.chat_template)


# --- tokens ---


class Joining(Characters):
    """Joins `ab` in one token, and puts a space before every text, which `decode` takes away."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return super().encode(f" {text}".replace("ab", "\ue000"))

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        text = super().decode(token_ids, skip_special_tokens=skip_special_tokens)
        return text.replace("\ue000", "ab").removeprefix(" ")


def test_a_completion_continues_the_tokens_of_its_prompt_without_a_space_between() -> None:
    (example,) = Renderer(Joining()).render(RowReader().read({"prompt": "xa", "completion": "bc"}))
    assert Characters().decode(example.tokens.tolist()) == " xabc$"
    assert example.prompt_length == 3
    (example,) = Renderer(Joining()).render(RowReader().read({"prompt": "x", "completion": "ab"}))
    assert Characters().decode(example.tokens.tolist()) == " x\ue000$"


def test_a_tokenizer_may_lose_the_case_of_what_it_is_given() -> None:
    class Lower(Characters):
        def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
            return super().encode(text.lower())

    row = {"messages": [{"role": "system", "content": "Be Kind"}, U("Hi"), A("Yo")]}
    assert rendered(row, Lower()) == ["<system>be kind;<user>hi;<assistant>[yo;$]"]


def test_half_of_a_surrogate_pair_is_refused() -> None:
    class Strict(Characters):
        def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
            if "\ud83d" in text:
                raise TypeError("TextInputSequence must be str")  # as `tokenizers` says it
            return super().encode(text)

    for row in ({"prompt": "a\ud83d", "completion": "b"}, {"messages": [U("\ud83d"), A("b")]}):
        with pytest.raises(InvalidInput, match=r"has '\\ud83d', half of a surrogate pair"):
            rendered(row, Strict())


@given(st.text(max_size=20), st.text(max_size=20).filter(lambda text: "$" not in text))
def test_a_datum_predicts_each_next_token(prompt: str, completion: str) -> None:
    example = Renderer(Characters()).prompt_completion("p" + prompt, completion)
    datum = example.datum(scale=0.5)
    inputs = datum.loss_fn_inputs
    assert datum.model_input.to_ints() == example.tokens[:-1].tolist()
    assert inputs["target_tokens"].tolist() == example.tokens[1:].tolist()
    assert inputs["weights"].dtype == np.float32
    assert inputs["weights"].sum() == 0.5 * (len(completion) + 1)
    assert example.prompt_length == len(prompt) + 1
    assert example.end_token == EOS


@pytest.mark.parametrize("train_on", ["all_assistant_messages", "all_tokens"])
def test_the_last_answer_is_known_for_evaluation(train_on: Any) -> None:
    renderer = Renderer(Characters(), train_on=train_on)
    (*_, example) = renderer.render(RowReader().read({"messages": CHAT}))
    assert Characters().decode(example.tokens[example.prompt_length :].tolist()) == "2;$"
    assert example.end_token == EOS


def pair(first: str, second: str, answers: tuple[str, str] = ("a", "bc")) -> tuple[Example, ...]:
    render = Renderer(Characters()).prompt_completion
    return tuple(render(*side) for side in zip((first, second), answers, strict=True))


def test_both_sides_of_a_pair_must_have_the_prompt_in_common() -> None:
    assert shared_prompt(*pair("one", "one")) == 3
    for first, second in (("one", "two"), ("one", "o")):
        with pytest.raises(InvalidInput, match="its sides do not have the same prompt: 3 and"):
            shared_prompt(*pair(first, second))
    text = Renderer(Characters()).text("one")
    with pytest.raises(InvalidInput, match="one of its sides has no answer"):
        shared_prompt(text, *pair("one", "one")[:1])


WORDS = st.text("abcxyz \n", min_size=1, max_size=12).filter(str.strip)


@given(
    st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4),
    st.sampled_from([Characters(), Thinking(), NextRole(), NoTemplate(), Begun(), Parts()]),
)
def test_every_answer_is_trained_on_whole_and_nothing_that_was_asked(
    turns: list[tuple[str, str]], tokenizer: Characters
) -> None:
    # Upper case marks what was asked.
    messages = [m for asked, said in turns for m in (U(asked.upper()), A(said))]
    sequences = rendered({"messages": messages}, tokenizer)
    trained = [piece.split("]")[0] for text in sequences for piece in text.split("[")[1:]]
    assert len(trained) == len(turns)
    for (_, said), piece in zip(turns, trained, strict=True):
        assert said in piece
        assert piece.endswith("$")
        assert not any(letter in piece for letter in "ABCXYZ")
