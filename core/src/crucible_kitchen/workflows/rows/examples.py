"""Which shape a row has: a prompt and its completion, a conversation, plain text, or a pair.

A setting that is given is followed and never traded for another field. The shape is guessed, from
the names of fields in common use, only where none is given.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from ...chat.messages import (
    ChatMessage,
    conversation,
    is_conversation,
    is_conversation_text,
    is_list,
    parsed,
    tools_of,
)
from ...errors import InvalidInput

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PromptCompletion:
    """A text and its continuation."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Text:
    """A text that is learned as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation.

    Args:
        messages: the turns.
        first: the first turn that may be trained on.
        tools: JSON schemas of the tools that the model is shown, if any.
        kwargs: what else the chat template is given.
    """

    messages: list[ChatMessage]
    first: int = 0
    tools: list[dict[str, Any]] | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChosenRejected:
    """Two answers to one prompt, of which the first is the better one."""

    chosen: PromptCompletion | Conversation
    rejected: PromptCompletion | Conversation


Shape: TypeAlias = PromptCompletion | Text | Conversation | ChosenRejected


class Reader(Protocol):
    """Says what a row holds. Two readers that read differently have another `repr`."""

    def read(self, row: Row) -> Shape:
        """Return what a row holds.

        Raises:
            InvalidInput: it does not hold what is asked for.
        """
        ...


@dataclass(frozen=True, slots=True)
class RowReader:
    """How rows are read. A setting that is None was not given.

    Args:
        prompt, completion: templates over the fields of a row.
        messages_field: the field of a conversation.
        text_field: the field of plain text.
    """

    prompt: str | None = None
    completion: str | None = None
    messages_field: str | None = None
    text_field: str | None = None

    def read(self, row: Row) -> Shape:
        """Return what a row holds, according to the settings; a guess where none is given.

        Raises:
            InvalidInput: it lacks the fields that were named, or has none that are known.
        """
        row = filled_in(row)
        if self.messages_field is not None:
            return _conversation(row, self._field(row, "messages_field", self.messages_field))
        if self.prompt is not None or self.completion is not None:
            return prompt_completion(row, self.prompt, self.completion)
        if self.text_field is not None:
            return _text(self._field(row, "text_field", self.text_field), self.text_field)
        return guess(row)

    def _field(self, row: Row, setting: str, name: str) -> Any:
        if name not in row:
            raise InvalidInput(f"it has no field {name!r} ({setting}); it has {listed(row)}")
        return row[name]


def guess(row: Row) -> Shape:
    """Return what a row seems to hold, by the names of its fields; which shape was found is the
    class of what is returned.

    Raises:
        InvalidInput: no field has a name in common use.
    """
    row = filled_in(row)
    for name in ("messages", "conversations", "conversation"):
        # The other two may be the names of something else.
        if name in row and (name == "messages" or is_conversation(row[name])):
            return _conversation(row, row[name])
    if "prompt" in row and "completion" in row:
        return prompt_completion(row)
    if "instruction" in row and "output" in row:
        return alpaca(row)
    if "text" in row:
        return _text(row["text"], "text")
    raise InvalidInput(
        "it has no field 'messages', 'conversations' or 'text', and not both of 'prompt' and "
        f"'completion', or of 'instruction' and 'output'; it has {listed(row)}. Set prompt "
        "and completion to templates of its fields, or messages_field, or text_field"
    )


def prompt_completion(row: Row, prompt: str | None = None, completion: str | None = None) -> Shape:
    """Return the prompt and the completion that templates make of a row's fields. Where both are
    the fields themselves, and these are lists of messages, they are one conversation.

    Args:
        row: the row, without fields that are None.
        prompt: template of the prompt; None is the field of that name.
        completion: template of the completion; None is the field of that name.

    Raises:
        InvalidInput: a template does not fit the row.
    """
    prompt = "{prompt}" if prompt is None else prompt
    completion = "{completion}" if completion is None else completion
    if prompt == "{prompt}" and completion == "{completion}":
        both = [row.get(name) for name in ("prompt", "completion")]
        lists = [name for name in ("prompt", "completion") if is_list(row.get(name))]
        if len(lists) == 2 or all(map(is_conversation_text, both)):
            before = conversation(row["prompt"])
            return with_options(row, [*before, *conversation(row["completion"])], len(before))
        if lists:
            raise InvalidInput(
                "prompt and completion must both be texts, or both lists of messages; only "
                f"{lists[0]} is a list"
            )
    return PromptCompletion(written(prompt, row, "prompt"), written(completion, row, "completion"))


def filled_in(row: Row) -> Row:
    """Return a row without the fields that have no value: stores fill up uneven rows with them."""
    return {name: value for name, value in row.items() if value is not None}


def alpaca(row: Row) -> Conversation:
    """Return a row of instruction, input and output as a conversation, with its `system` and
    `history` (pairs of instruction and output) where it has them.
    """
    said = [("system", row.get("system"))]
    for pair in row.get("history") or ():
        if not (is_list(pair) and len(pair) == 2):
            raise InvalidInput(f"history is a list of pairs, not of {pair!r:.60}")
        said += [("user", pair[0]), ("assistant", pair[1])]
    asked = row["instruction"]
    if row.get("input"):
        asked = f"{asked}\n{row['input']}" if asked else row["input"]
    said += [("user", asked), ("assistant", row["output"])]
    messages = [
        {"role": role, "content": content}
        for place, (role, content) in enumerate(said)
        if content or place >= len(said) - 2
    ]
    return with_options(row, conversation(messages), 0)


def _conversation(row: Row, value: Any) -> Conversation:
    messages = conversation(value)
    if isinstance(system := row.get("system"), str) and system and not has_system(messages):
        messages = [{"role": "system", "content": system}, *messages]  # ShareGPT's column
    return with_options(row, messages, 0)


def has_system(messages: list[ChatMessage]) -> bool:
    return any(message["role"] == "system" for message in messages)


def with_options(row: Row, messages: list[ChatMessage], first: int) -> Conversation:
    """Return the conversation with what else the row says: its tools, and settings of the chat
    template.
    """
    kwargs = parsed(row.get("chat_template_kwargs") or {}, "chat_template_kwargs")
    if not isinstance(kwargs, Mapping):
        raise InvalidInput(f"chat_template_kwargs is a {type(kwargs).__name__}, not a table")
    given = {name: value for name, value in kwargs.items() if value is not None}
    return Conversation(messages, first, tools_of(row.get("tools")), given)


def _text(value: Any, name: str) -> Text:
    if not isinstance(value, str):
        raise InvalidInput(f"the field {name!r} is a {type(value).__name__}, not a text")
    return Text(value)


class _Templates(string.Formatter):
    """`str.format` that writes no list, table or null, whose form in a text would be Python's."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if value is None or isinstance(value, Mapping | bytes) or is_list(value):
            what = "null" if value is None else type(value).__name__
            raise TypeError(f"a {what} cannot be written into a text")
        return str(super().format_field(value, format_spec))


_TEMPLATES = _Templates()


def written(template: str, row: Row, setting: str) -> str:
    """Return what a template makes of a row's fields.

    Args:
        template: the template.
        row: the row, without fields that are None.
        setting: the setting that has the template, for messages.

    Raises:
        InvalidInput: it does not fit the row.
    """
    if template in row:  # and not the word itself, in every row
        raise InvalidInput(
            f"the template {setting} = {template!r} is the name of a field; its value is written "
            f"{{{template}}}"
        )
    name = template[1:-1]
    alone = name.isidentifier() and template == f"{{{name}}}"
    if alone and isinstance(value := row.get(name), str):  # a tenth of the time of formatting
        return value
    try:
        return _TEMPLATES.vformat(template, (), row)
    except KeyError as missing:
        raise InvalidInput(
            f"it has no field {missing}, which the template {setting} = {template!r} names; it has "
            f"{listed(row)}"
        ) from None
    except (IndexError, ValueError, AttributeError, TypeError) as error:
        raise InvalidInput(f"the template {setting} = {template!r} does not fit: {error}") from None


def listed(row: Row) -> str:
    """Return the names of a row's fields, for messages."""
    return ", ".join(map(repr, row)) or "nothing"
