"""The forms in which a chat template takes its input, found by trying.

A template drops or garbles what it does not expect: content in parts where it takes text, say. A
probe is a conversation that is written in each style until what it says stands in the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ..errors import AdapterError
from .messages import REASONING_FIELDS, ChatMessage, arguments_of

PROBE = "crucible"
"""A text that templates do not write by themselves."""

Write: TypeAlias = Callable[[list[ChatMessage]], str]
"""Returns the text that a template writes of styled messages; raises AdapterError if it refuses."""

_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Style:
    """The forms in which a template takes its input.

    Args:
        parts: content as a list of parts, not as text.
        no_content: an assistant's empty content is left out next to tool calls.
        thoughts_apart: an answer's think block in a field, not in its content.
        arguments_as_text: of tool calls, JSON text and not a dictionary.
        text_as_well: arguments that are text are written as they are.
    """

    parts: bool = False
    no_content: bool = False
    thoughts_apart: bool = False
    arguments_as_text: bool = False
    text_as_well: bool = False


def styled(message: ChatMessage, style: Style) -> ChatMessage:
    """Return a message as a template wants it.

    Raises:
        InvalidInput: the arguments of a tool call would lose digits.
    """
    given = {name: value for name, value in message.items() if name != "weight"}
    if style.thoughts_apart and _thinks(message):
        thoughts, _, said = message["content"].removeprefix("<think>").partition("</think>")
        given |= {"reasoning_content": thoughts.strip("\n"), "content": said.lstrip("\n")}
    if style.parts:
        given["content"] = [{"type": "text", "text": given["content"]}]
    if "tool_calls" in message:
        if style.no_content and not message["content"]:
            given["content"] = None
        give = _with_text if style.arguments_as_text else _with_table
        given["tool_calls"] = [give(call, style) for call in message["tool_calls"]]
    return given


def _thinks(message: ChatMessage) -> bool:
    """Whether an answer's content begins with a think block."""
    said = message["content"]
    apart = any(message.get(name) for name in REASONING_FIELDS)
    return message["role"] == "assistant" and not apart and _THOUGHT.match(said) is not None


def _with_text(call: Mapping[str, Any], style: Style) -> dict[str, Any]:
    function = dict(call["function"])
    if not isinstance(function["arguments"], str):
        function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": function}


def _with_table(call: Mapping[str, Any], style: Style) -> dict[str, Any]:
    arguments = arguments_of(call, as_text=style.text_as_well)
    return {**call, "function": {**call["function"], "arguments": arguments}}


def content_style(write: Write) -> Style:
    """Find out whether a template shows content that is text, or parts alone."""
    for style in (Style(), Style(parts=True)):
        if _shows(write, [{"role": "user", "content": PROBE}], style, PROBE):
            return replace(style, thoughts_apart=_thinks_twice(write, style))
    return Style()


def _thinks_twice(write: Write, style: Style) -> bool:
    """Whether a template writes its own think block before one in the content, but writes that one
    alone if it is given in a field.
    """
    thought = f"<think>\n{PROBE}\n</think>\n\nyes"
    turns: list[ChatMessage] = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": thought},
    ]
    apart = replace(style, thoughts_apart=True)
    once, twice = (f"<think>\n{between}</think>" for between in (f"{PROBE}\n", "\n"))
    return _shows(write, turns, style, once, twice) and _shows(write, turns, apart, once)


def call_style(write: Write, style: Style) -> Style:
    """Find out in which form a template of this style for content takes a tool call."""
    arguments = {"value": PROBE}
    # Mistral's templates want an id of nine characters.
    call = {"function": {"name": f"{PROBE}_call", "arguments": arguments}}
    turns: list[ChatMessage] = [
        {"role": "user", "content": "?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "crucible1", "type": "function", **call}],
        },
    ]
    for no_content in (False, True):
        for as_text in (False, True):
            tried = replace(style, no_content=no_content, arguments_as_text=as_text)
            for written in (f'"{PROBE}"', f">{PROBE}<"):
                if _shows(write, turns, tried, f"{PROBE}_call", written):
                    text = replace(tried, arguments_as_text=True)
                    as_it_is = json.dumps(arguments)
                    return replace(tried, text_as_well=_shows(write, turns, text, as_it_is))
    return style


def _shows(write: Write, messages: Sequence[ChatMessage], style: Style, *texts: str) -> bool:
    try:
        shown = write([styled(message, style) for message in messages])
    except AdapterError:
        return False
    as_python = style.parts and "'text'" in shown  # the list itself was written
    return not as_python and all(text in shown for text in texts)
