"""A tokenizer's chat template: what a model reads of a conversation."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from ..errors import AdapterError, InvalidInput, Unsupported
from ..types import Tokenizer
from .messages import ChatMessage
from .style import Style, call_style, content_style, styled
from .tokenization import Tokenization

T = TypeVar("T")

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
# Arguments of `apply_chat_template` that are not settings of a template.
_OURS = {
    *("conversation", "messages", "chat_template", "add_generation_prompt", "tokenize"),
    *("continue_final_message", "return_dict", "return_assistant_tokens_mask", "return_tensors"),
    *("padding", "truncation", "max_length", "tokenizer_kwargs"),
}
_DATE = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")


@dataclass(frozen=True, slots=True)
class Rendering:
    """A conversation as a model reads it.

    Args:
        ids: its token ids.
        text: its text, special tokens included.
        trained: where the template marks what is trained on, a flag for each id; else None.
    """

    ids: list[int]
    text: str
    trained: Sequence[int] | None = None


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer's chat template, or plain `role: content` lines where it has none.

    Args:
        tokenizer: the model's.
        kwargs: further arguments of the template: `enable_thinking`, `reasoning_effort`, ...
        tools: JSON schemas of the tools that the model is shown.
        date: what a template that writes the date calls today; None is today.

    Raises:
        InvalidInput: `kwargs` has an argument that is not the template's.
    """

    tokenizer: Tokenizer
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Mapping[str, Any]] | None = None
    date: datetime.date | None = None
    _shared: dict[str, Any] = field(default_factory=dict)  # found once, whatever `with_` sets

    def __post_init__(self) -> None:
        if ours := _OURS & self.kwargs.keys():
            listed = ", ".join(map(repr, sorted(ours)))
            raise InvalidInput(f"chat_template_kwargs has {listed}, which cannot be set")

    def with_(
        self, kwargs: Mapping[str, Any], tools: Sequence[Mapping[str, Any]] | None
    ) -> ChatTemplate:
        """Return the template with these tools, and these kwargs overriding its own."""
        if not kwargs and not tools:
            return self
        return replace(self, kwargs={**self.kwargs, **kwargs}, tools=tools)

    @property
    def exists(self) -> bool:
        """Whether the tokenizer has a template."""
        return bool(getattr(self.tokenizer, "chat_template", True))

    @property
    def writes_date(self) -> bool:
        """Whether the template, or another one of the tokenizer's, writes the date of the day."""
        template = getattr(self.tokenizer, "chat_template", None)
        named = template.values() if isinstance(template, Mapping) else [template]
        return any("strftime_now" in one for one in named if isinstance(one, str))

    @property
    def today(self) -> datetime.date:
        """What the template calls today."""
        return self.date or datetime.date.today()

    @property
    def tokens(self) -> Tokenization:
        """How the tokenizer encodes and decodes text."""
        return self.once("tokens", lambda: Tokenization(self.tokenizer))

    @property
    def ids_of_text(self) -> bool:
        """Whether the ids of a rendering are those of its text; False until it is known."""
        return bool(self._shared.get("ids_of_text"))

    def once(self, name: str, find: Callable[[], T]) -> T:
        """Return what `find` returns; it is called once for all templates that share this cache.

        Args:
            name: of the result; it must name the kwargs and tools that matter to it.
            find: computes it.
        """
        if name not in self._shared:
            self._shared[name] = find()
        found: T = self._shared[name]
        return found

    def render(self, messages: Sequence[ChatMessage], *, generate: bool = False) -> Rendering:
        """Return what a model reads of a conversation.

        Args:
            messages: the turns, as `messages.conversation` returns them.
            generate: whether the assistant speaks next.

        Raises:
            InvalidInput: the template refuses these messages.
            Unsupported: tools, and the tokenizer has no template.
        """
        if not self.exists:
            return self._lines(messages, generate)
        style = self._style(messages)
        return self._apply([styled(message, style) for message in messages], generate)

    def text(self, messages: Sequence[ChatMessage]) -> str | None:
        """Return the text of a conversation, special tokens included; None if the ids of a
        rendering are not those of its text, or there is no template.

        Raises:
            InvalidInput: the template refuses these messages.
        """
        if not self.exists:
            return None
        style, options = self._style(messages), self._options(generate=False)
        given = [styled(message, style) for message in messages]
        if not self._ids_of_text(given, options):
            return None
        return str(self._call(given, tokenize=False, **options))

    @property
    def constants(self) -> frozenset[str]:
        """The texts that the template's own expressions name, without white space around them."""
        return self.once(f"constants {self._source}", lambda: _constants(self._source))

    def _style(self, messages: Sequence[ChatMessage]) -> Style:
        def write(turns: list[ChatMessage]) -> str:
            return self._apply(turns, generate=False).text

        style = self.once("style", lambda: content_style(write))
        if any("tool_calls" in message for message in messages):
            return self.once("calls", lambda: call_style(write, style))
        return style

    def _options(self, generate: bool) -> dict[str, Any]:
        options = dict(self.kwargs)
        if self.tools:
            options["tools"] = list(self.tools)
        if generate:
            options["add_generation_prompt"] = True
        if self.writes_date and self.date is not None:
            options["chat_template"] = _dated(self._source, self.date)
        return options

    def _apply(self, messages: list[ChatMessage], generate: bool) -> Rendering:
        options = self._options(generate)
        if self.marked and not generate:
            marked = self._call(
                messages, return_dict=True, return_assistant_tokens_mask=True, **options
            )
            ids = list(marked["input_ids"])
            return Rendering(ids, self.tokens.decode(ids), marked["assistant_masks"])
        if not self._ids_of_text(messages, options):
            ids = list(self._call(messages, **options))
            return Rendering(ids, self.tokens.decode(ids))
        text = str(self._call(messages, tokenize=False, **options))
        return Rendering(self.tokens.encode(text), text)

    def _ids_of_text(self, messages: list[ChatMessage], options: Mapping[str, Any]) -> bool:
        """Whether the ids of a rendering are those of its text, found with these messages first."""

        def agree() -> bool:
            text = self._call(messages, tokenize=False, **options)
            ids = list(self._call(messages, **options))
            return isinstance(text, str) and self.tokens.encode(text) == ids

        return self.once("ids_of_text", agree)

    def _call(self, messages: list[ChatMessage], **options: Any) -> Any:
        try:
            return self.tokenizer.apply_chat_template(messages, **options)  # type: ignore[arg-type]
        except AdapterError:
            raise
        except Exception as error:  # each template has its own checks and exceptions
            raise InvalidInput(f"the chat template refuses these messages: {error}") from error

    @property
    def _source(self) -> str:
        template = getattr(self.tokenizer, "chat_template", None)
        if isinstance(template, Mapping):  # several by name, chosen as Transformers does
            name = "tool_use" if self.tools and "tool_use" in template else "default"
            template = template.get(name)
        return template if isinstance(template, str) else ""

    @property
    def marked(self) -> bool:
        """Whether the template itself marks what is trained on (`{% generation %}`)."""
        source = self._source
        return self.once(f"marked {source}", lambda: _MARKS.search(source) is not None)

    def _lines(self, messages: Sequence[ChatMessage], generate: bool) -> Rendering:
        """Render as lines, an assistant's ended by the end token, with the begin token before."""
        if self.tools or any("tool_calls" in message for message in messages):
            raise Unsupported("the tokenizer has no chat template, so it cannot show tools")
        tokens = self.tokens
        ids: list[int] = []
        text = line = ""
        for index, message in enumerate(messages):
            line += f"\n{message['role']}:" if index else f"{message['role']}:"
            if message["role"] == "assistant":
                ids, line = self._line(ids, line), f" {message['content']}"
                ids = tokens.ended([*ids, *tokens.after(":", line)], line)
                text, line = tokens.decode(ids), ""
            else:
                line += f" {message['content']}"
        if generate:
            line += "\nassistant:" if messages else "assistant:"
        return Rendering(self._line(ids, line), text + line)

    def _line(self, ids: list[int], line: str) -> list[int]:
        if not ids:
            return self.tokens.begin(line)
        before = self.tokens.decode(ids[-1:])
        return [*ids, *self.tokens.after(before, line)] if line else ids


_IN_QUOTES = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'", re.DOTALL)


def _constants(source: str) -> frozenset[str]:
    try:
        from jinja2 import Environment, TemplateSyntaxError
    except ImportError:  # the tokenizer renders by itself: whatever is in quotes may be one
        return frozenset(text.strip() for pair in _IN_QUOTES.findall(source) for text in pair)
    try:
        tokens = list(Environment().lexer.tokenize(source))
    except TemplateSyntaxError:  # not Jinja: nothing is known of it
        return frozenset()
    return frozenset(token.value.strip() for token in tokens if token.type == "string")


def _dated(source: str, date: datetime.date) -> str:
    """Return a template in which the day is `date`, whatever day it is."""
    written = {form: date.strftime(form) for _, form in _DATE.findall(source)}
    iso = json.dumps(date.isoformat())  # for a form that is not a literal
    macro = f"{json.dumps(written)}.get(form, {iso})"
    return (
        f"{{%- macro strftime_now(form) -%}}{{{{ {macro} }}}}{{%- endmacro %}}{{{{ '' }}}}{source}"
    )
