"""A conversation that is rendered once is learned from as one that is rendered turn by turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from character_tokenizers import Characters, NextRole, Thinking
from crucible_kitchen import InvalidInput
from crucible_kitchen.chat.tokenization import Tokenization
from crucible_kitchen.workflows.rows.examples import Conversation
from crucible_kitchen.workflows.rows.layout import RARE, Placed
from crucible_kitchen.workflows.rows.rendering import Example, Renderer, exactly
from hypothesis import given
from hypothesis import strategies as st


class Ended(Characters):
    """Ends each turn with the end token and a line break, as ChatML does."""

    chat_template = "{{ '<think>' in message.content }}{{ '<quote>' }}"
    renderings = 0

    def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
        self.renderings += 1
        return super().write(messages, kwargs).replace(";", "$\n")


class Quoting(Ended):
    """Writes a quote, and white space around a text, differently where it is in the last turn."""

    def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
        messages[-1]["content"] = messages[-1]["content"].replace("<quote>", "<QUOTE>")
        messages[-1]["content"] = messages[-1]["content"].strip()
        return super().write(messages, kwargs)


class Flat(Ended):
    """Writes a tab as a space."""

    def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
        return super().write(messages, kwargs).replace("\t", " ")


class Spaced(Ended):
    """Begins an answer with a space, which is a part of no prompt."""

    def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
        return super().write(messages, kwargs).replace("<assistant>", "<assistant> ")


class Joining(Ended):
    """Joins what a prompt ends with and what some answers begin with in one token."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return super().encode(text.replace(">ab", "\ue000"))

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        text = super().decode(token_ids, skip_special_tokens=skip_special_tokens)
        return text.replace("\ue000", ">ab")


class Marked(Ended):
    """Begins each turn with a special token, `^`, and writes no end token."""

    def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
        self.renderings += 1
        return "".join(f"^<{m['role']}>{m['content']}\n" for m in messages)

    prompt = "^<assistant>"

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        text = super().decode(token_ids, skip_special_tokens=skip_special_tokens)
        return text.replace("^", "") if skip_special_tokens else text


def turns(*said: str) -> Conversation:
    roles = ("user", "assistant")
    return Conversation([{"role": roles[n % 2], "content": one} for n, one in enumerate(said)])


def familiar(tokenizer: Characters, count: int) -> Renderer:
    """Return a renderer that has seen conversations of as many messages."""
    renderer = Renderer(tokenizer)
    for number in range(RARE + 1):
        renderer.render(turns(*(f"known {number}" for _ in range(count))))
    return renderer


def seen(example: Example) -> Placed:
    flags = [*map(bool, example.weights.tolist())]
    return Placed(example.tokens.tolist(), flags, example.prompt_length, example.end_token)


@pytest.mark.parametrize("count", [2, 8, 40])
@pytest.mark.parametrize("template", [Ended, Spaced, Marked])
def test_a_conversation_of_a_familiar_kind_is_rendered_once(
    template: type[Characters], count: int
) -> None:
    tokenizer = template()
    renderer = familiar(tokenizer, count)
    calls = []
    write = tokenizer.write
    tokenizer.write = lambda *given: calls.append(given) or write(*given)  # type: ignore
    renderer.render(turns(*(f"new {place}" for place in range(count))))
    assert len(calls) == 1


def test_a_kind_that_is_rare_is_not_looked_into() -> None:
    tokenizer = Ended()
    renderer = Renderer(tokenizer)
    renderer.render(turns("a", "b", "c", "d"))
    before = tokenizer.renderings
    renderer.render(turns("a", "b", "c", "d"))
    assert tokenizer.renderings - before == 2 * 2  # each answer's prompt, and with the answer


@pytest.mark.parametrize("said", ["a <quote>", "<quote>", " a", "a\n", "", "a<think>b</think>c"])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_what_a_template_may_look_for_is_rendered_exactly(said: str, place: int) -> None:
    renderer = familiar(Quoting(), 4)
    texts = ["a", "b", "c", "d"]
    texts[place] = said
    shape = turns(*texts)
    fresh = Renderer(Quoting()).render
    try:
        expected = [seen(example) for example in fresh(shape)]
    except Exception as error:
        with pytest.raises(type(error)):
            renderer.render(shape)
    else:
        assert [seen(example) for example in renderer.render(shape)] == expected


def test_an_answer_that_the_template_changes_is_refused() -> None:
    renderer = familiar(Flat(), 4)
    with pytest.raises(InvalidInput, match="leaves out the text of the answer"):
        renderer.render(turns("a", "b", "c", "d\te"))


def test_a_token_that_joins_a_prompt_and_its_answer_is_taken_apart() -> None:
    renderer = familiar(Joining(), 4)
    found = [seen(example) for example in renderer.render(turns("a", "ab", "c", "d"))]
    assert found == exactly(renderer.template, turns("a", "ab", "c", "d").messages, [1, 3])
    assert [len(one.ids) for one in found] != [len(found[0].ids)]


def test_end_tokens_within_a_text_do_not_move_the_answers() -> None:
    renderer = familiar(Ended(), 4)
    shape = turns("a$", "$b", "c$d", "e$f")
    found = [seen(example) for example in renderer.render(shape)]
    assert found == exactly(renderer.template, shape.messages, [1, 3])


@pytest.mark.parametrize("said", ["d$", "$d", "d$e", "d^", "^d"])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_special_token_that_the_template_does_not_write_is_seen_in_a_text(
    said: str, place: int
) -> None:
    renderer = familiar(Marked(), 4)
    texts = ["a", "b", "c", "e"]
    texts[place] = said
    found = [seen(example) for example in renderer.render(turns(*texts))]
    assert found == exactly(renderer.template, turns(*texts).messages, [1, 3])


def test_of_tokens_that_were_seen_the_tokenizer_is_not_asked_again() -> None:
    tokens = Tokenization(Marked())
    text = [*tokens.encode("^abc$ d")]
    assert tokens.special_among(text) == {*tokens.encode("^$")}
    asked = []
    decode = tokens._tokenizer.decode
    tokens._tokenizer.decode = lambda ids, **kw: asked.append(ids) or decode(ids, **kw)  # type: ignore
    assert tokens.special_among([*text, *text]) == {*tokens.encode("^$")}
    assert not asked
    assert tokens.special_among(tokens.encode("abxy^")) == {*tokens.encode("^")}
    assert asked == 2 * [tokens.encode("xy")]


TEXTS = st.text("abx^ \n$;<>/quote", min_size=1, max_size=10)


@given(
    st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3),
    st.sampled_from([Ended, Quoting, Spaced, Joining, NextRole, Thinking, Characters, Marked]),
    st.sampled_from(["all_assistant_messages", "last_assistant_message"]),
)
def test_the_tokens_and_the_mask_are_those_of_the_exact_way(
    pairs: list[tuple[str, str]], template: type[Characters], train_on: Any
) -> None:
    shape = turns(*(text for pair in pairs for text in pair))
    renderer = Renderer(template(), train_on)
    for _ in range(RARE + 1):
        renderer.render(turns(*("known" for _ in shape.messages)))
    places = [*range(1, len(shape.messages), 2)]
    try:
        expected = exactly(
            renderer.template, shape.messages, places if train_on[0] == "a" else places[-1:]
        )
    except Exception as error:
        with pytest.raises(type(error)):
            renderer.render(shape)
    else:
        assert [seen(example) for example in renderer.render(shape)] == expected
