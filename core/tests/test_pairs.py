"""Pairs: how each form is read, and that nothing is guessed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from character_tokenizers import Characters, NoTemplate, Thinking
from crucible_kitchen import InvalidInput
from crucible_kitchen.workflows.rows.examples import (
    ChosenRejected,
    Conversation,
    PromptCompletion,
)
from crucible_kitchen.workflows.rows.judge import Counts, Judge
from crucible_kitchen.workflows.rows.pairs import PairReader
from crucible_kitchen.workflows.rows.rendering import Example, Renderer, marked

ASKED = {"role": "user", "content": "hi"}
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("yo", "no"))
SYSTEM = {"role": "system", "content": "be brief"}


def read(row: dict[str, Any], **templates: str) -> ChosenRejected:
    return PairReader(**templates).read(row)


def conversations(before: list[Any]) -> ChosenRejected:
    count = len(before)
    return ChosenRejected(Conversation([*before, GOOD], count), Conversation([*before, BAD], count))


def texts(prompt: str, chosen: str, rejected: str) -> ChosenRejected:
    return ChosenRejected(PromptCompletion(prompt, chosen), PromptCompletion(prompt, rejected))


# --- the forms ---


def test_texts_are_answers_to_the_text_of_the_prompt() -> None:
    assert read({"prompt": "a", "chosen": "b", "rejected": "c"}) == texts("a", "b", "c")


def test_templates_make_the_three_texts_of_any_fields() -> None:
    row = {"q": "2 + 2", "right": 4, "wrong": 5, "prompt": "other", "messages": [ASKED, GOOD]}
    found = read(row, prompt="{q} =", chosen=" {right}", rejected=" {wrong}")
    assert found == texts("2 + 2 =", " 4", " 5")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
        {"prompt": None, "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
        {"prompt": "hi ", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
        {"prompt": [ASKED], "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
        {"prompt": [ASKED], "chosen": GOOD, "rejected": BAD},
        {"prompt": json.dumps([ASKED]), "chosen": [GOOD], "rejected": json.dumps([BAD])},
    ],
)
def test_messages_are_answers_to_the_messages_before_them(row: dict[str, Any]) -> None:
    assert read(row) == conversations([ASKED])
    also = {"messages": [ASKED, GOOD], "text": "other", "completion": "other"}
    assert read({**also, **row}) == conversations([ASKED])


def test_a_template_of_one_field_may_name_messages() -> None:
    row = {"conversations": [ASKED], "good": GOOD, "bad": BAD}
    found = read(row, prompt="{conversations}", chosen="{good}", rejected="{bad}")
    assert found == conversations([ASKED])


def test_an_empty_prompt_is_none_and_says_that_the_sides_hold_it() -> None:
    row = {"prompt": 7, "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]}
    assert read(row, prompt="") == conversations([ASKED])
    assert read({**row, "prompt": ""}) == conversations([ASKED])
    with pytest.raises(InvalidInput, match="it has no prompt"):
        read({"prompt": " ", "chosen": "b", "rejected": "c"})


def test_the_system_message_belongs_to_the_prompt() -> None:
    whole = {"chosen": [SYSTEM, ASKED, GOOD], "rejected": [SYSTEM, ASKED, BAD]}
    assert read({"prompt": "hi", **whole}) == conversations([SYSTEM, ASKED])
    column = {"system": "be brief", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]}
    assert read(column) == conversations([SYSTEM, ASKED])


def test_earlier_answers_belong_to_the_prompt() -> None:
    before = [ASKED, GOOD, ASKED]
    row = {"chosen": [*before, GOOD], "rejected": [*before, BAD]}
    assert read(row) == conversations(before)


@pytest.mark.parametrize("prompt", [{}, {"prompt": "\n\nHuman: a\n\nAssistant:"}])
def test_dialogues_of_hh_rlhf_are_parted_behind_what_both_have(prompt: dict[str, str]) -> None:
    begin = "\n\nHuman: a\n\nAssistant:"
    row = {"chosen": f"{begin} so\n\nHuman: c\n\nAssistant: d", "rejected": f"{begin} sad"}
    found = read(prompt | row)
    assert found == texts(begin, " so\n\nHuman: c\n\nAssistant: d", " sad")


# --- what is refused ---


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, "it has no field 'rejected'; it has 'prompt', 'chosen'"),
        ({"prompt": "a", "chosen": 0, "rejected": 1}, "the field 'chosen' is a int, not a text"),
        ({"prompt": 1, "chosen": "b", "rejected": "c"}, "the field 'prompt' is a int"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "rejected side are the same"),
        ({"prompt": "a", "chosen": " ", "rejected": "b"}, "its chosen side is empty"),
        ({"prompt": "a", "chosen": "b", "rejected": ""}, "its rejected side is empty"),
        ({"question": "a", "chosen": "b", "rejected": "c"}, "no prompt: .* it has 'question'"),
        ({"prompt": "a", "chosen": "b", "rejected": [BAD]}, "rejected is a list of messages; they"),
        ({"prompt": [ASKED], "chosen": "b", "rejected": "c"}, "prompt is a list of messages, cho"),
        ({"prompt": "a", "chosen": [GOOD], "rejected": [BAD]}, "prompt is a text, and its chosen"),
        ({"question": "a", "chosen": [GOOD], "rejected": [BAD]}, "no prompt: .* do not begin ali"),
        ({"prompt": [], "chosen": [GOOD], "rejected": [BAD]}, "no prompt"),
        ({"chosen": [ASKED, GOOD], "rejected": [ASKED]}, "rejected side has no answer of its own"),
        ({"prompt": [ASKED], "chosen": [], "rejected": [BAD]}, "chosen side has no answer"),
        (
            {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD, ASKED, BAD]},
            "rejected side has messages of assistant, user, assistant after what both",
        ),
        (
            {"chosen": [ASKED, {**GOOD, "content": ""}], "rejected": [ASKED, BAD]},
            "its chosen side is empty",
        ),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: b"},
            "do not have the same prompt",
        ),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant:"},
            "its rejected side is empty",
        ),
    ],
)
def test_what_is_not_a_pair_is_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read(row)


def test_a_template_that_names_no_field_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no field 'better', which the template chosen = "):
        read({"prompt": "a", "chosen": "b", "rejected": "c"}, chosen="{better}")


# --- token sequences ---


def judge(tokenizer: Characters | None = None, **settings: Any) -> Judge:
    return Judge(PairReader(), Renderer(tokenizer or NoTemplate()), **settings)


def kept(judge: Judge, *rows: dict[str, Any]) -> list[Example]:
    return list(judge.all_of([(f"row {n}", row) for n, row in enumerate(rows)], "x"))


def test_both_sides_are_rendered_one_after_the_other() -> None:
    judging = judge()
    sides = kept(judging, {"prompt": "a", "chosen": "b", "rejected": "cd"})
    shown = [marked(side, judging.tokenizer) for side in sides]
    assert shown == ["a⟦b$⟧", "a⟦cd$⟧"]
    assert judging.counts == Counts(rows=1, sequences=2, tokens=7)


def test_only_the_answer_of_a_conversation_is_compared() -> None:
    judging = judge(Thinking())
    before = [ASKED, GOOD, ASKED]
    sides = kept(judging, {"chosen": [*before, GOOD], "rejected": [*before, BAD]})
    assert [marked(side, judging.tokenizer) for side in sides] == [
        "<user>hi;<assistant>yo;<user>hi;<assistant>⟦<think></think>yo;$⟧",
        "<user>hi;<assistant>yo;<user>hi;<assistant>⟦<think></think>no;$⟧",
    ]


PAIR = {"prompt": "a", "chosen": "b", "rejected": "cdef"}


def test_a_pair_that_is_too_long_on_one_side_is_an_error_that_names_it() -> None:
    with pytest.raises(InvalidInput, match="row 0 of x: it has 5 tokens, the longest input is 4"):
        kept(judge(max_length=4), PAIR)


def test_a_pair_that_is_too_long_on_one_side_is_dropped_whole() -> None:
    dropping = judge(max_length=4, too_long="drop")
    assert kept(dropping, PAIR) == []
    assert dropping.counts == Counts(rows=1, too_long=2)


def test_a_pair_is_cut_on_the_side_that_is_too_long() -> None:
    cutting = judge(max_length=4, too_long="truncate")
    assert [marked(e, cutting.tokenizer) for e in kept(cutting, PAIR)] == ["a⟦b$⟧", "a⟦cdef⟧"]
    assert cutting.counts == Counts(rows=1, sequences=2, tokens=8, truncated=1)


def test_a_pair_whose_sides_are_cut_to_the_same_is_left_out() -> None:
    cutting = judge(max_length=2, too_long="truncate")
    assert kept(cutting, {"prompt": "a", "chosen": "bcd", "rejected": "bce"}) == []
    assert cutting.counts == Counts(rows=1, truncated=2, nothing_left=2)
    cutting = judge(max_length=2, too_long="truncate")
    assert kept(cutting, {"prompt": "abc", "chosen": "d", "rejected": "e"}) == []
    assert cutting.counts == Counts(rows=1, truncated=2, nothing_left=2)


def test_sides_that_differ_in_the_tokens_of_their_prompt_are_refused_by_name() -> None:
    class Opened(Characters):
        prompt = "<assistant><think>"  # which an answer without a thought does not have

    thought = {"role": "assistant", "content": "<think>so</think>yo"}
    with pytest.raises(InvalidInput, match="row 0 of x: its sides do not have the same prompt"):
        kept(judge(Opened()), {"chosen": [ASKED, thought], "rejected": [ASKED, BAD]})


def test_sides_that_are_the_same_in_tokens_are_refused_by_name() -> None:
    class Lower(NoTemplate):
        def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
            return super().encode(text.lower())

    with pytest.raises(InvalidInput, match=r"row 0 of x: its chosen and its .*, token by token"):
        kept(judge(Lower()), {"prompt": "a", "chosen": "b", "rejected": "B"})
