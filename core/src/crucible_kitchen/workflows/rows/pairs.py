r"""Pairs: a chosen and a rejected answer to one prompt, in the forms that people write.

| the sides are | the prompt is |
| --- | --- |
| texts | the text of `prompt`, once if both sides are HH-RLHF's and begin with it |
| texts of HH-RLHF's form, `\n\nHuman: ...\n\nAssistant: ...`, without a `prompt` | what both have up to the last `\n\nAssistant:` |
| messages, one for each side | the messages of `prompt` |
| whole conversations, without a `prompt` | the messages that both begin with |
| whole conversations that begin with `prompt` | that |

Anything else is an error: a prompt that is not found would train on answers to nothing.
"""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeAlias

from ...chat.messages import ChatMessage, conversation, is_conversation_text, is_list
from ...errors import InvalidInput
from .examples import (
    ChosenRejected,
    PromptCompletion,
    Row,
    filled_in,
    has_system,
    listed,
    with_options,
    written,
)

Held: TypeAlias = str | list[ChatMessage]
"""A text, or messages."""

_FIELD = re.compile(r"\{([^{}:!.\[\]]+)\}")
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_SET = "set prompt, chosen and rejected to templates of its fields, such as '{question}'"


@dataclass(frozen=True, slots=True)
class PairReader:
    """How pairs are read. A setting that is None was not given, and means the field of its name.

    Args:
        prompt, chosen, rejected: templates over the fields of a row. A template that is one field
            alone may name messages. An empty prompt says that the sides hold it.
    """

    prompt: str | None = None
    chosen: str | None = None
    rejected: str | None = None

    def read(self, row: Row) -> ChosenRejected:
        """Return the pair that a row holds.

        Raises:
            InvalidInput: it has none: names what is missing or does not fit.
        """
        row = filled_in(row)
        there = self.prompt is not None or "prompt" in row
        prompt = _held(row, "prompt", self.prompt) if there else None
        if isinstance(prompt, str) and not prompt.strip():
            prompt = None
        chosen = _held(row, "chosen", self.chosen)
        rejected = _held(row, "rejected", self.rejected)
        if chosen == rejected:
            raise InvalidInput("its chosen and its rejected side are the same")
        if isinstance(chosen, str) and isinstance(rejected, str) and not isinstance(prompt, list):
            return _texts(row, prompt, chosen, rejected)
        if isinstance(chosen, list) and isinstance(rejected, list):
            return _conversations(row, prompt, chosen, rejected)
        kinds = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        said = [f"{name} is {_kind(held)}" for name, held in kinds.items() if held is not None]
        raise InvalidInput(f"{', '.join(said)}; they must be texts, or lists of messages, alike")


def _held(row: Row, name: str, template: str | None) -> Held:
    """Return what a row has under a name, or what a template makes of it."""
    asked = f"{{{name}}}" if template is None else template
    field = _FIELD.fullmatch(asked)
    if template is None and name not in row:
        raise InvalidInput(f"it has no field {name!r}; it has {listed(row)}; {_SET}")
    if field is not None:
        value = row.get(field[1])
        if isinstance(value, Mapping):  # one message, as LLaMA-Factory writes a side
            return conversation([value])
        if is_list(value) or is_conversation_text(value):
            return conversation(value)
        if template is None and not isinstance(value, str):
            kind = type(value).__name__
            raise InvalidInput(f"the field {name!r} is a {kind}, not a text or a list of messages")
    return written(asked, row, name)


def _texts(row: Row, prompt: str | None, chosen: str, rejected: str) -> ChosenRejected:
    if prompt is None or (prompt.startswith(_HUMAN) and _begin(prompt, chosen, rejected)):
        prompt = prompt or _begun_alike(row, chosen, rejected)
        chosen, rejected = chosen.removeprefix(prompt), rejected.removeprefix(prompt)
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if not side.strip():
            raise InvalidInput(f"its {name} side is empty")
    return ChosenRejected(PromptCompletion(prompt, chosen), PromptCompletion(prompt, rejected))


def _begun_alike(row: Row, chosen: str, rejected: str) -> str:
    """Return the prompt that is a part of both sides, in HH-RLHF's form."""
    if not (chosen.startswith(_HUMAN) and rejected.startswith(_HUMAN)):
        raise InvalidInput(
            "it has no prompt: no field 'prompt', and its sides are not whole dialogues, as those "
            f"that begin with {_HUMAN!r}; it has {listed(row)}; {_SET}"
        )
    alike = sum(takewhile(bool, map(str.__eq__, chosen, rejected)))
    place = chosen.rfind(_ASSISTANT, 0, alike)
    if place < 0:
        raise InvalidInput(f"its sides do not have the same prompt up to an {_ASSISTANT!r}")
    return chosen[: place + len(_ASSISTANT)]


def _conversations(
    row: Row, prompt: Held | None, chosen: list[ChatMessage], rejected: list[ChatMessage]
) -> ChosenRejected:
    count = _messages_of_the_prompt(prompt, chosen, rejected)
    before = chosen[:count] if count else prompt
    if not isinstance(before, list) or not before:
        raise InvalidInput(
            "it has no prompt: no field 'prompt', and its sides are lists of messages that do not "
            f"begin alike; it has {listed(row)}; {_SET}"
        )
    system = row.get("system")  # ShareGPT's column
    if count and isinstance(system, str) and system and not has_system(before):
        before = [{"role": "system", "content": system}, *before]
    sides = []
    for name, side in (("chosen", chosen[count:]), ("rejected", rejected[count:])):
        _check_answer(name, side)
        sides.append(with_options(row, [*before, *side], len(before)))
    return ChosenRejected(*sides)


def _messages_of_the_prompt(
    prompt: Held | None, chosen: list[ChatMessage], rejected: list[ChatMessage]
) -> int:
    """Return with how many messages of the prompt both sides begin."""
    if isinstance(prompt, list):
        return len(prompt) if _begin(prompt, chosen, rejected) else 0
    if isinstance(prompt, str):
        for name, side in (("chosen", chosen), ("rejected", rejected)):
            asked = next((m["content"] for m in side if m["role"] != "system"), "")
            if asked.strip() != prompt.strip():
                raise InvalidInput(
                    f"its prompt is a text, and its {name} side is a list of messages that does "
                    "not begin with it; make the prompt a list of messages"
                )
    return sum(takewhile(bool, map(dict.__eq__, chosen, rejected)))


def _check_answer(name: str, side: list[ChatMessage]) -> None:
    """Refuse a side whose own messages are not one answer.

    Raises:
        InvalidInput: says what they are.
    """
    if not side:
        raise InvalidInput(f"its {name} side has no answer of its own")
    if len(side) > 1 or side[0]["role"] != "assistant":
        roles = ", ".join(message["role"] for message in side)
        raise InvalidInput(
            f"its {name} side has messages of {roles} after what both sides begin with; a side is "
            "one message of the assistant, and what comes before it is the prompt, the same in both"
        )
    if not side[0]["content"].strip() and "tool_calls" not in side[0]:
        raise InvalidInput(f"its {name} side is empty")


def _begin(prompt: Held, *sides: Held) -> bool:
    """Whether all sides begin with a prompt."""
    return all(side[: len(prompt)] == prompt for side in sides)


def _kind(held: Held) -> str:
    return "a text" if isinstance(held, str) else "a list of messages"
