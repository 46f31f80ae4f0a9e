"""Conversations as people write them, brought into one form: what a chat template takes.

A message is a `role` and a `content`, or, in ShareGPT's form, `from` and `value`. Content is text
or a list of text parts; with tool calls it may be missing. A conversation, its tools or the
arguments of a call may be JSON text.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias, TypeGuard

from ..errors import InvalidInput

ChatMessage: TypeAlias = dict[str, Any]
"""A message with a `role` that is text and a `content` that is text, empty where it had none. Its
`tool_calls` have a function with a name and arguments: a dictionary, or text as it was written."""

SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "tool": "tool",
    "function_response": "tool",
    "observation": "tool",
}
"""The roles that `from` names. `function_call` is an assistant's message as well."""

REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Fields in which a message may hold what the assistant thought before it answered."""


def is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages, or JSON text of one."""
    return is_list(value) or (isinstance(value, str) and value.lstrip()[:1] == "[")


def is_conversation_text(value: Any) -> bool:
    """Whether a value is JSON text of a list of messages, and could be nothing else."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return False
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(value)
        return bool(found) and all(
            isinstance(item, dict) and ("role" in item or "from" in item) for item in found
        )
    return False


def conversation(value: Any) -> list[ChatMessage]:
    """Return the messages of a conversation.

    Raises:
        InvalidInput: it is not a list of messages, or one of them says nothing that is text. The
            error names the message.
    """
    values = parsed(value, "the conversation")
    if not is_list(values):
        raise InvalidInput(f"a conversation is a list of messages, not a {type(value).__name__}")
    return [_message(item, f"message {index}") for index, item in enumerate(values)]


def parsed(value: Any, what: str) -> Any:
    """Return a value, or what it says where it is JSON text.

    Raises:
        InvalidInput: it is text, and not JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{what} is a text that is not JSON: {error}") from None


def tools_of(value: Any) -> list[dict[str, Any]] | None:
    """Return the tools that a row shows, as a template takes them; None where it has none.

    Raises:
        InvalidInput: it is not a list of tables, nor JSON text of one.
    """
    if isinstance(value, str) and not value.strip():
        return None
    tools = parsed(value, "tools")
    if tools is None or (is_list(tools) and not tools):
        return None
    if not is_list(tools) or not all(map(_is_tool, tools)):
        raise InvalidInput(f"tools are a list of JSON schemas, not {tools!r:.60}")
    return [dict(tool) for tool in tools]


def _is_tool(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("function", value), Mapping)


def weight_of(message: Mapping[str, Any]) -> float:
    """Return 1 if a message is trained on and 0 if not, as its `weight` says; 1 if it has none."""
    weight = message.get("weight")
    return 1.0 if weight is None else float(weight)


def _message(value: Any, where: str) -> ChatMessage:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{where} is a {type(value).__name__}, not a table of role and content")
    message = {name: item for name, item in value.items() if item is not None}
    if "role" not in message and "from" in message:
        message = _from_sharegpt(message, where)
    if not isinstance(message.get("role"), str):
        raise InvalidInput(_not_text("role", message, where))
    if "weight" in message and message["weight"] not in (0, 1):
        raise InvalidInput(f"{where}: weight is {message['weight']!r}; it must be 0 or 1")
    if "function_call" in message:
        raise InvalidInput(f"{where} has a function_call, which is now a list of tool_calls")
    if "tool_calls" in message:
        message["tool_calls"] = _tool_calls(message["tool_calls"], where)
        if not message["tool_calls"]:
            del message["tool_calls"]
    message["content"] = _content(message, where)
    return message


def _from_sharegpt(message: ChatMessage, where: str) -> ChatMessage:
    speaker = message.pop("from")
    value = message.pop("value", None)
    if speaker == "function_call":
        call = parsed(value, f"{where}: the function call")
        return {**message, "role": "assistant", "tool_calls": call if is_list(call) else [call]}
    if speaker not in SHAREGPT_ROLES:
        known = ", ".join(SHAREGPT_ROLES)
        raise InvalidInput(f"{where} is from {speaker!r}; known are {known} and function_call")
    said = {} if value is None else {"content": value}
    return {**message, "role": SHAREGPT_ROLES[speaker], **said}


def _content(message: ChatMessage, where: str) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if is_list(content):
        return "".join(_part(part, where) for part in content)
    if content is None and message["role"] == "assistant" and "tool_calls" in message:
        return ""
    raise InvalidInput(_not_text("content", message, where))


def _part(part: Any, where: str) -> str:
    match part:
        case str():
            return part
        case {"type": "text", "text": str(text)}:
            return text
        case {"text": str(text)} if part.get("type") is None:
            return text
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise InvalidInput(f"{where} has a part of type {kind!r}; only text can be trained on")


def _not_text(name: str, message: ChatMessage, where: str) -> str:
    has = f"is a {type(message[name]).__name__}" if name in message else "is missing"
    listed = ", ".join(map(repr, message)) or "nothing"
    return f"the {name} of {where} {has}, it must be a text; the message has {listed}"


def _tool_calls(value: Any, where: str) -> list[dict[str, Any]]:
    calls = parsed(value, f"{where}: tool_calls")
    if not is_list(calls):
        raise InvalidInput(f"{where}: tool_calls is a {type(calls).__name__}, not a list")
    return [_tool_call(call, where) for call in calls]


def _tool_call(value: Any, where: str) -> dict[str, Any]:
    call = dict(value) if isinstance(value, Mapping) else {}
    function = call.get("function", call)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InvalidInput(f"{where}: a tool call has a function with a name: {value!r:.80}")
    function = dict(function)
    function.setdefault("arguments", {})
    if "function" not in call:
        return {"type": "function", "function": function}
    return {"type": "function", **call, "function": function}


def arguments_of(call: Mapping[str, Any], *, as_text: bool) -> Any:
    """Return the arguments of a tool call, as a dictionary where they are JSON text of one.

    Args:
        call: the tool call.
        as_text: whether they may stay text where a dictionary would write a number differently.

    Raises:
        InvalidInput: a number of the text would be another one in a dictionary.
    """
    arguments = call["function"]["arguments"]
    if not isinstance(arguments, str):
        return arguments
    try:
        found = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    if not isinstance(found, dict):
        return arguments
    if as_text and not _same(arguments, found, str):
        return arguments
    if not _same(arguments, found, Decimal):
        raise InvalidInput(
            "the chat template takes arguments of a tool call as a table, in which a number of "
            f"{arguments!r:.80} would lose digits"
        )
    return found


def _same(text: str, found: Any, number: Callable[[str], Any]) -> bool:
    """Whether what was found in JSON text is written with the same numbers."""
    again = json.loads(json.dumps(found), parse_float=number)
    return bool(json.loads(text, parse_float=number) == again)
