"""Tokenizers of one token a character, with chat templates that do what real ones do."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from crucible_kitchen.workflows.rows.rendering import Example

EOS = 0


class Characters:
    """Its chat template is `<role>content;`."""

    eos_token_id = EOS
    vocab_size = 0x110001
    chat_template: str | None = "..."
    prompt = "<assistant>"  # the generation prompt

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [EOS if character == "$" else ord(character) + 1 for character in text]

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        special = "" if skip_special_tokens else "$"
        return "".join(chr(i - 1) if i else special for i in token_ids)

    def apply_chat_template(self, messages: Sequence[Any], **kwargs: Any) -> Any:
        text = self.write([dict(m) for m in messages], kwargs)
        text += self.prompt if kwargs.get("add_generation_prompt") else ""
        return self.encode(text) if kwargs.get("tokenize", True) else text

    def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
        return "".join(f"<{m['role']}>{m['content']};" for m in messages)


class NoTemplate(Characters):
    chat_template = None


class Begun(NoTemplate):
    """Begins a text with `^` and ends it with the end token, as `add_eos_token` has it."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        ids = super().encode(text)
        return [ord("^") + 1, *ids, EOS] if add_special_tokens else ids


class Thinking(Characters):
    """Writes a think block into the last answer, and takes it out of earlier ones."""

    def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
        for place, message in enumerate(messages):
            thought, _end, said = message["content"].rpartition("</think>")
            last = place == len(messages) - 1
            if message["role"] == "assistant":
                message["content"] = f"{thought or '<think>'}</think>{said}" if last else said
        return super().write(messages, kwargs)


class NextRole(Characters):
    """Ends a turn with nothing but the mark of the next role, a special token: `$`."""

    def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
        return "".join(
            f"${m['content']}" if m["role"] == "user" else f"<{m['role']}>{m['content']}"
            for m in messages
        )


class Parts(Characters):
    """Reads content that is a list of parts alone."""

    def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
        for message in messages:
            parts = [part for part in message["content"] if isinstance(part, dict)]
            message["content"] = "".join(part["text"] for part in parts)
        return super().write(messages, kwargs)


class Tools(Characters):
    """Shows the names of tools, and the calls of a message."""

    def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
        shown = "".join(f"[{tool['function']['name']}]" for tool in kwargs.get("tools", ()))
        for message in messages:
            for call in message.get("tool_calls", ()):
                function = call["function"]
                said = ",".join(f'{k}="{v}"' for k, v in function["arguments"].items())
                message["content"] = f"{message.get('content') or ''}{function['name']}({said})"
        return shown + super().write(messages, kwargs)


class ToolsOfText(Tools):
    """Takes arguments that are JSON text, and no content with a call, as DeepSeek's do."""

    def write(self, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
        for message in messages:
            calls = message.pop("tool_calls", None)
            if calls and message["content"] is None:
                said = [f"{c['function']['name']}{c['function']['arguments'] + ''}" for c in calls]
                message["content"] = "".join(said)
        return super().write(messages, kwargs)


def marked_text(example: Example) -> str:
    """Return the text of an example with what is trained on in brackets."""
    shown = Characters().decode(example.tokens.tolist())
    runs = itertools.groupby(zip(shown, example.weights, strict=True), key=lambda pair: pair[1])
    pieces = [(weight, "".join(c for c, _ in run)) for weight, run in runs]
    return "".join(f"[{text}]" if weight else text for weight, text in pieces)
