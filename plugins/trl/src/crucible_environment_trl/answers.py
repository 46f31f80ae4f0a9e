"""What a model said, as a message: TRL's own parser decides what is a tool call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def parsed(text: str, tool_format: str, tools: Any) -> tuple[dict[str, Any], bool]:
    """Return a completion as an assistant's message, and whether it has the form of one.

    A tool call that is broken makes the whole completion plain text, so the episode ends.

    Args:
        text: the completion.
        tool_format: the name of TRL's response template.
        tools: the schemas of the tools, by which arguments get their types.
    """
    from trl.chat_template_utils import parse_response

    reader = _Text(tool_format)
    # "" is what is written before the completion. The templates of models that reason may end in
    # an opening tag; what precedes the closing one is then read as content.
    message: dict[str, Any] = parse_response(reader, text, prefix="", tools=tools)
    return message, not reader.failed


class _Text:
    """What TRL's parser takes a tokenizer for, of text that is decoded already."""

    eos_token = ""

    def __init__(self, tool_format: str) -> None:
        from trl import chat_template_utils

        self.response_template: Mapping[str, Any] = getattr(
            chat_template_utils, f"{tool_format}_template"
        )
        self.failed = False

    def parse_response(self, text: str, *, prefix: str, tools: Any) -> dict[str, Any]:
        from transformers.utils.chat_parsing import parse_response

        message: dict[str, Any] = parse_response(
            text, self.response_template, prefix=prefix, tools=tools
        )
        return message

    def decode(self, text: str, **_: Any) -> str:
        """The way back to plain text, which TRL takes when the parser or a check has failed."""
        self.failed = True
        return text
