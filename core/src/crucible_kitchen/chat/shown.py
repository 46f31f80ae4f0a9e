"""Whether what the model reads contains what the row says.

A template may leave out what it does not know: a role, a field, the arguments of a call. What a
model is then trained on is not what the row says.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import AdapterError, InvalidInput
from .messages import REASONING_FIELDS, ChatMessage, arguments_of
from .style import PROBE
from .template import ChatTemplate, Rendering
from .tokenization import Tokenization

_TAGS = re.compile(r"</?think>")


class Shown:
    """What a template wrote, to be searched for what it should have written.

    White space around a text, and around its think tags, is the template's to choose; that within
    a text is not.

    Args:
        text: what it wrote.
        tokens: the model's.
    """

    def __init__(self, text: str, tokens: Tokenization) -> None:
        self._text = text
        self._tokens = tokens

    def has(self, text: str) -> bool:
        """Whether it holds a text: as it is, as JSON, or as the tokenizer gives it back."""
        return all(map(self._holds, filter(None, map(str.strip, _TAGS.split(text)))))

    def _holds(self, text: str) -> bool:
        if text in self._text:
            return True
        written = (json.dumps(text, ensure_ascii=ascii)[1:-1] for ascii in (False, True))
        if any(form in self._text for form in written):
            return True
        # Some tokenizers lose the case, the accents or the spaces of what they are given.
        return self._given_back(text) in self._given_back(self._text)

    def _given_back(self, text: str) -> str:
        return self._tokens.decode(self._tokens.encode(text)).strip()

    def ends(self, before: str, text: str) -> bool:
        """Whether it holds the rest of a text whose beginning ends what comes before it."""
        wanted, opened, shown = bare(text), bare(before[-200:]), bare(self._text)
        return any(
            opened.endswith(wanted[:cut]) and wanted[cut:] in shown
            for cut in range(1, min(len(wanted), 40) + 1)
        )


def bare(text: str) -> str:
    """Return a text without its white space."""
    return "".join(text.split())


def check_messages(
    template: ChatTemplate, messages: Sequence[ChatMessage], shown: Rendering
) -> None:
    """Refuse a conversation if the template leaves out a part of it.

    Args:
        template: what rendered it.
        messages: the turns.
        shown: their rendering.

    Raises:
        InvalidInput: a message or a tool call is not there.
    """
    text = Shown(shown.text, template.tokens)
    unseen = _unseen(template, messages)
    for index, message in enumerate(messages):
        # Thoughts of earlier turns may be forgotten.
        wanted = [("", message["content"].rpartition("</think>")[2]), *_calls(message)]
        for what, said in wanted:
            if not text.has(said) or (not what and index in unseen):
                raise InvalidInput(
                    f"the chat template leaves out {what and f'{what} of '}message {index}, "
                    f"of role {message['role']!r}: {_short(said)}"
                )


def check_tools(template: ChatTemplate, shown: Rendering) -> None:
    """Refuse tools that are not shown at all, not even by a call of them.

    Args:
        template: what rendered the conversation, with its tools.
        shown: the rendering.

    Raises:
        InvalidInput: a tool is not there.
    """
    text = Shown(shown.text, template.tokens)
    for tool in template.tools or ():
        name = tool.get("function", tool).get("name")
        if isinstance(name, str) and not text.has(name):
            raise InvalidInput(f"the chat template leaves out the tool {name!r}")


def missing(tokens: Tokenization, message: ChatMessage, asked: str, said: str) -> str | None:
    """Return what a template leaves out of an answer, as the reason to refuse it; None if it leaves
    out nothing.

    Args:
        tokens: the model's.
        message: the answer as the row has it.
        asked: the text of the prompt, with which the answer may begin.
        said: the text of what is trained on.
    """
    shown = Shown(said, tokens)
    for what, text in _texts(message):
        if not shown.has(text) and not shown.ends(asked, text):
            return (
                f"the chat template leaves out {what} of the answer: {_short(text)}. What is "
                "trained on would not be what the row says"
            )
    called = Counter(call["function"]["name"] for call in message.get("tool_calls", ()))
    for name, times in called.items():
        if 0 < said.count(name) < times:
            return f"the chat template leaves out some of the answer's {times} calls of {name!r}"
    return None


def _unseen(template: ChatTemplate, messages: Sequence[ChatMessage]) -> set[int]:
    """Return the places of messages that the template leaves out whatever they say: a short text,
    or one that is said twice, would be found elsewhere.
    """
    kind = tuple((m["role"], bool(m["content"]), "tool_calls" in m) for m in messages)

    def find() -> set[int]:
        marks = {place: f"{PROBE}{place}." for place, (_, says, _) in enumerate(kind) if says}
        probe = [{**m, "content": marks.get(i, "")} for i, m in enumerate(messages)]
        try:
            shown = template.render(probe).text
        except AdapterError:  # it looks into what is said
            return set()
        return {place for place, mark in marks.items() if mark not in shown}

    about = (kind, dict(template.kwargs), bool(template.tools))
    return template.once(f"unseen {about}", find)


def _texts(message: ChatMessage) -> list[tuple[str, str]]:
    """Return everything that an answer says, with what it is."""
    said = [("the text", message["content"])]
    for name in REASONING_FIELDS:
        if isinstance(message.get(name), str):
            said.append((name, message[name]))
    return [*said, *_calls(message)]


def _calls(message: ChatMessage) -> list[tuple[str, str]]:
    """Return what the tool calls of a message say, with what it is."""
    said = []
    for call in message.get("tool_calls", ()):
        said.append(("a tool call", call["function"]["name"]))
        arguments = arguments_of(call, as_text=True)
        if isinstance(arguments, Mapping):
            said += [("an argument", value) for value in _leaves(arguments)]
    return said


def _leaves(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [leaf for item in value.values() for leaf in _leaves(item)]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value] if isinstance(value, str) else []


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
