"""What is trained on with a chat template, checked against the text of the conversation.

Nothing here is taken from the code under test: the prompts come from Transformers, the texts from
the conversation, and what ends a turn from what is known of the family.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from crucible_kitchen import InvalidInput
from crucible_kitchen.workflows.rows.examples import RowReader
from crucible_kitchen.workflows.rows.rendering import Example, Renderer

from .conversations import Kind, Message
from .families import Family

DATE = datetime.date(2026, 5, 4)
_TODAY = re.compile(r"strftime_now\((['\"])(.*?)\1\)")


@dataclass(frozen=True)
class Run:
    """Tokens in a row that are trained on.

    Args:
        start: the place of the first.
        text: theirs.
    """

    start: int
    text: str


@cache
def outcome(family: Family, kind: Kind) -> list[Example] | str:
    """Return the sequences of a conversation, or why it is refused."""
    renderer = Renderer(family.tokenizer, kind.train_on, date=DATE)
    try:
        return renderer.render(RowReader().read(kind.row))
    except InvalidInput as error:
        return error.reason


def runs(family: Family, example: Example) -> Iterator[Run]:
    flags = [False, *(example.weights[1:] > 0).tolist(), False]
    tokens = example.tokens.tolist()
    start = 0
    for place in range(1, len(flags)):
        if flags[place] and not flags[place - 1]:
            start = place
        if flags[place - 1] and not flags[place]:
            yield Run(start, family.tokenizer.decode(tokens[start:place]))


def prompt(family: Family, kind: Kind, place: int) -> list[int]:
    """Return the ids that Transformers gives a model which is asked for an answer."""
    messages = [_as_wanted(family, message) for message in kind.messages[:place]]
    ids: list[int] = family.tokenizer.tokenizer.apply_chat_template(
        messages,
        tools=list(kind.tools) or None,
        add_generation_prompt=True,
        return_dict=False,
        chat_template=_TODAY.sub(lambda day: repr(DATE.strftime(day[2])), family.source),
    )
    return ids


def _as_wanted(family: Family, message: Message) -> dict[str, Any]:
    changed = dict(message)
    if family.thoughts_apart and (message["content"] or "").startswith("<think>"):
        thoughts, content = message["content"].removeprefix("<think>\n").split("\n</think>\n\n")
        changed |= {"reasoning_content": thoughts, "content": content}
    if "tool_calls" in message:
        changed["content"] = family.call_content
        if family.arguments_as_text:
            changed["tool_calls"] = [_with_text(call) for call in message["tool_calls"]]
    elif family.parts:
        changed["content"] = [{"type": "text", "text": message["content"]}]
    return changed


def _with_text(call: Mapping[str, Any]) -> dict[str, Any]:
    arguments = json.dumps(call["function"]["arguments"])
    return {**call, "function": {**call["function"], "arguments": arguments}}


def said(message: Message) -> list[str]:
    """Return the texts of a message that have to be trained on."""
    thoughts, _, content = (message["content"] or "").rpartition("</think>")
    texts = [thoughts.removeprefix("<think>").strip(), message.get("reasoning_content", "")]
    for call in message.get("tool_calls", ()):
        texts += [call["function"]["name"], *map(str, call["function"]["arguments"].values())]
    return [text for text in [*texts, content.strip()] if text]


def check(family: Family, kind: Kind, examples: list[Example]) -> None:
    """Raise AssertionError where something else is trained on than a conversation's answers."""
    found = []
    for example in examples:
        for run in runs(family, example):
            place = _answer(kind, run)
            found.append(place)
            _check_run(family, kind, place, run)
            _check_prompt(family, kind, place, example, run)
        tokens = example.tokens.tolist()
        tokenizer = family.tokenizer.tokenizer
        begins, ends = tokenizer.bos_token_id, tokenizer.eos_token_id
        if begins != ends and family.name != "Llama 2":  # which begins each turn with it
            assert begins not in tokens[1:], "one begin token, in front"
        assert tokens[-2:].count(ends) <= 1, "one end token"
    assert found == kind.answers, "each answer is trained on once"
    last = examples[-1]
    assert last.end_token is not None
    assert family.tokenizer.decode([last.end_token]) == _end(family, kind.messages[-1])


def _answer(kind: Kind, run: Run) -> int:
    """Return the place of the one message that a run holds."""
    places = [
        place
        for place, message in enumerate(kind.messages)
        if message["role"] == "assistant" and said(message)[-1] in run.text
    ]
    assert len(places) == 1, f"one answer, not {places} in {run.text!r}"
    return places[0]


def _end(family: Family, message: Message) -> str:
    return family.call_end or family.end if "tool_calls" in message else family.end


def _check_run(family: Family, kind: Kind, place: int, run: Run) -> None:
    begin = 0
    for text in said(kind.messages[place]):
        begin = run.text.find(text, begin)
        assert begin >= 0, f"{text!r} is not in {run.text!r}"
        begin += len(text)
    end = _end(family, kind.messages[place])
    assert run.text[begin:].endswith(end), "what is trained on ends with the end of the turn"
    for other, message in enumerate(kind.messages):
        if other != place and message["content"]:
            assert message["content"] not in run.text, f"message {other} in {run.text!r}"


def _check_prompt(family: Family, kind: Kind, place: int, example: Example, run: Run) -> None:
    """The model sees in training what it sees in use."""
    decode = family.tokenizer.decode
    asked = prompt(family, kind, place)
    covered = len(asked) if family.marked else 0  # marks may cover the prompt's end
    shown = example.tokens[: max(run.start, covered)].tolist()
    unasked, given = _exception(family.unasked, kind), _exception(family.given, kind)
    common = 0
    while common < min(len(asked), len(shown)) and asked[common] == shown[common]:
        common += 1
    assert decode(asked[common:]) in ("", unasked), "the prompt's end"
    assert decode(shown[common : run.start]) in ("", given), "what stands before the answer"


def _exception(known: Mapping[str, str], kind: Kind) -> str:
    return known.get(kind.name, known.get("", ""))
