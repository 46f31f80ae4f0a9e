"""A tokenizer's chat template: what a model is shown, and which part of it is an answer.

A template is a program that may write earlier turns differently later on, so each answer is read
from the rendering in which it is the last turn: what the model sees when it is asked for it.
"""

from __future__ import annotations

import datetime
import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .chat import REASONING_FIELDS, ChatMessage, arguments_of
from .errors import AdapterError, InvalidInput, Unsupported
from .tokenization import Tokenization
from .types import Tokenizer

_NOT_ASKING = ("system", "developer", "assistant")  # roles whose mark does not end an answer
_PROBE = "crucible"  # a text that no template writes by itself
_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_TAGS = re.compile(r"</?think>")
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


@dataclass(frozen=True, slots=True)
class Answer:
    """An assistant's message as the last turn of a conversation.

    Args:
        ids: token ids of the whole: what comes before the answer, its text, what ends the turn, and
            what the template writes behind that.
        start: the place in `ids` where the answer begins.
        end: the place of the token that ends the turn; None where nothing ends it.
        trained: for each of `ids`, whether it is trained on as a part of this answer.
    """

    ids: list[int]
    start: int
    end: int | None
    trained: list[bool]

    @property
    def prompt(self) -> list[int]:
        """The ids before the answer."""
        return self.ids[: self.start]

    @property
    def end_token(self) -> int | None:
        """What ends the turn."""
        return None if self.end is None else self.ids[self.end]


@dataclass(frozen=True, slots=True)
class _Style:
    """How a template wants what it can be given in several ways."""

    parts: bool = False  # content as a list of parts, not as text
    no_content: bool = False  # an assistant's empty content is left out beside tool calls
    thoughts_apart: bool = False  # an answer's think block in a field, not in its content
    arguments_as_text: bool = False  # of tool calls, JSON text and not a dictionary
    text_as_well: bool = False  # arguments that are text are written as they are


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer's chat template, or plain `role: content` lines where it has none.

    Args:
        tokenizer: the model's.
        kwargs: what else the template is given: `enable_thinking`, `reasoning_effort`, ...
        tools: JSON schemas of the tools that the model is shown.
        date: what a template that writes the date calls today; None is today.

    Raises:
        InvalidInput: `kwargs` has what is not the template's.
    """

    tokenizer: Tokenizer
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Mapping[str, Any]] | None = None
    date: datetime.date | None = None
    _shared: dict[str, Any] = field(default_factory=dict)  # found out once, for any kwargs

    def __post_init__(self) -> None:
        if ours := _OURS & self.kwargs.keys():
            listed = ", ".join(map(repr, sorted(ours)))
            raise InvalidInput(f"chat_template_kwargs has {listed}, which cannot be set")

    def with_(
        self, kwargs: Mapping[str, Any], tools: Sequence[Mapping[str, Any]] | None
    ) -> ChatTemplate:
        """Return the template with these kwargs above its own, and these tools."""
        if not kwargs and not tools:
            return self
        return replace(self, kwargs={**self.kwargs, **kwargs}, tools=tools)

    @property
    def exists(self) -> bool:
        """Whether the tokenizer has a template."""
        return bool(getattr(self.tokenizer, "chat_template", True))

    @property
    def writes_date(self) -> bool:
        """Whether the template writes the date of the day."""
        return "strftime_now" in self._source

    @property
    def tokens(self) -> Tokenization:
        tokens: Tokenization = self._once("tokens", lambda: Tokenization(self.tokenizer))
        return tokens

    # --- rendering ---

    def render(self, messages: Sequence[ChatMessage], *, generate: bool = False) -> Rendering:
        """Return what a model reads of a conversation.

        Args:
            messages: the turns, as `chat.conversation` returns them.
            generate: whether the assistant is to speak next.

        Raises:
            InvalidInput: the template refuses these messages.
            Unsupported: tools, where there is no template.
        """
        if not self.exists:
            return self._lines(messages, generate)
        style = self._style(messages)
        return self._apply([_styled(message, style) for message in messages], generate)

    def _apply(self, messages: list[ChatMessage], generate: bool) -> Rendering:
        options = dict(self.kwargs)
        if self.tools:
            options["tools"] = list(self.tools)
        if generate:
            options["add_generation_prompt"] = True
        if self.writes_date and self.date is not None:
            options["chat_template"] = _dated(self._source, self.date)
        if self._marked and not generate:
            marked = self._call(
                messages, return_dict=True, return_assistant_tokens_mask=True, **options
            )
            ids = list(marked["input_ids"])
            return Rendering(ids, self.tokens.decode(ids), marked["assistant_masks"])
        if self._once("ids", lambda: self._ids_differ(messages, options)):
            ids = list(self._call(messages, **options))
            return Rendering(ids, self.tokens.decode(ids))
        text = str(self._call(messages, tokenize=False, **options))
        return Rendering(self.tokens.encode(text), text)

    def _ids_differ(self, messages: list[ChatMessage], options: Mapping[str, Any]) -> bool:
        """Whether the ids of a rendering are other than those of its text."""
        text = self._call(messages, tokenize=False, **options)
        return not isinstance(text, str) or self.tokens.encode(text) != list(
            self._call(messages, **options)
        )

    def _call(self, messages: list[ChatMessage], **options: Any) -> Any:
        try:
            return self.tokenizer.apply_chat_template(messages, **options)  # type: ignore[arg-type]
        except AdapterError:
            raise
        except Exception as error:  # each template has checks, and exceptions, of its own
            raise InvalidInput(f"the chat template refuses these messages: {error}") from error

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

    # --- answers ---

    def answer(
        self, messages: Sequence[ChatMessage], following: ChatMessage | None = None
    ) -> Answer:
        """Return the last message, which is an assistant's, as what a model is to say.

        Where the template marks what is trained on (`{% generation %}`), it is that; else what
        follows the prompt of the messages before.

        Args:
            messages: the turns up to the answer.
            following: the turn after it, if there is one.

        Raises:
            InvalidInput: nothing comes before it, the template refuses the messages, or it leaves
                out a part of what they say.
        """
        if len(messages) < 2:
            raise InvalidInput(
                "nothing comes before the answer, so there is nothing to ask it for; a greeting "
                "with weight = 0 is read and not trained on"
            )
        asked = self.render(messages[:-1], generate=True)
        whole = self._parted(asked, self.render(messages))
        answer = self._divide(asked, whole, messages)
        said = self.tokens.decode([*itertools.compress(answer.ids, answer.trained)])
        missing = self._missing(messages[-1], asked.text, said)
        closes = "</think>" in messages[-1]["content"].partition("<think>")[0]
        if missing is not None or (closes and answer.start < len(asked.ids)):
            opened = self._continued(asked, messages[-1])
            if missing is not None and opened is None:
                raise InvalidInput(missing)
            answer = opened or answer
        self.check_shown(messages[:-1], asked)
        self._check_tools(whole)
        return self._ended(answer, messages, whole, following)

    def _parted(self, asked: Rendering, whole: Rendering) -> Rendering:
        """Return a rendering in which no token joins the end of the prompt and the answer's
        beginning: in use the prompt's tokens are there before the answer's.
        """
        common, start = _common(asked.ids, whole.ids), len(asked.ids)
        joined = common < start and whole.text.startswith(asked.text)
        if not joined or self._shared.get("ids", True):
            return whole
        ids = self.tokens.after(asked.text, whole.text[len(asked.text) :], asked.ids)
        if whole.trained is None:
            return Rendering([*asked.ids, *ids], whole.text)
        # Up to the border the new tokens have the flags of what was joined, behind it their own.
        border = len(ids) - _common(ids[::-1], whole.ids[:common:-1])
        trained = [
            *whole.trained[:common],
            *[whole.trained[common - 1]] * (start - common),
            *[max(whole.trained[common:])] * border,
            *whole.trained[len(whole.ids) - len(ids) + border :],
        ]
        return Rendering([*asked.ids, *ids], whole.text, trained)

    def _divide(
        self, asked: Rendering, whole: Rendering, messages: Sequence[ChatMessage]
    ) -> Answer:
        """Find where an answer begins, and which of its tokens are trained on."""
        start = told = _common(asked.ids, whole.ids)
        if start < len(asked.ids):
            told = _common(asked.ids, self.render(messages[:-1]).ids)
        if start < told:
            return self._rewritten(asked, messages)
        flags = [*map(bool, whole.trained or ())]
        if any(flags[start:]):
            first = flags.index(True, start)
            while flags[first - 1]:  # the mark covers what the prompt ends with
                first -= 1
            end = _last(flags, True) + 1
            return Answer(whole.ids[:end], start, None, [False] * first + flags[first:end])
        if start == len(asked.ids):
            return _all_from(start, whole.ids)
        # The prompt opens something that the answer does not have: a think block, say.
        content = _bare(messages[-1]["content"])
        if content in _bare(self.tokens.decode(whole.ids[told:])):
            while content not in _bare(self.tokens.decode(whole.ids[start:])):
                start -= 1
        return _all_from(start, whole.ids)

    def _rewritten(self, asked: Rendering, messages: Sequence[ChatMessage]) -> Answer:
        """Find an answer after a prompt that the template then writes differently: Mistral's put
        the system's text into the last message, if it is a user's. What a model is asked is the
        prompt as it was; the answer is what follows the prompt's last message.
        """
        mark = f"{_PROBE}-{_PROBE}"
        turns = [*messages[:-2], {**messages[-2], "content": mark}]
        opening = self.render(turns, generate=True).text.rpartition(mark)[2]
        whole = self.render([*turns, messages[-1]])
        follows = whole.text.partition(mark)[2]
        if whole.trained is not None or not follows.startswith(opening):
            raise InvalidInput(
                "the chat template writes earlier turns differently once the answer follows, so "
                "what the model is asked is not known; are there two answers in a row?"
            )
        ids = self.tokens.after(asked.text, follows.removeprefix(opening), asked.ids)
        return _all_from(len(asked.ids), [*asked.ids, *ids])

    def _continued(self, asked: Rendering, message: ChatMessage) -> Answer | None:
        """Return an answer as the continuation of a prompt that opens a think block, for templates
        that leave the thoughts of every answer out (DeepSeek-R1), and answers that do not open
        theirs; None where there is no such.
        """
        head, opens, content = message["content"].partition("<think>")
        if not opens and "</think>" in head:
            head, content = "", head
        reasoning = [message[name] for name in REASONING_FIELDS if message.get(name)]
        if reasoning and not content:
            content = f"{reasoning[0].rstrip()}\n</think>\n\n{message['content']}"
            head = ""
        token, written = self.turn_end
        if (
            head.strip()
            or "tool_calls" in message
            or not (content and written and asked.text.rstrip().endswith("<think>"))
        ):
            return None
        if asked.text.endswith("\n"):
            content = content.removeprefix("\n")
        ids = self.tokens.after(asked.text, content, asked.ids)
        ended = [] if token is None else [token]
        return _all_from(len(asked.ids), [*asked.ids, *ids, *ended])

    def _ended(
        self,
        answer: Answer,
        messages: Sequence[ChatMessage],
        whole: Rendering,
        following: ChatMessage | None,
    ) -> Answer:
        """Return an answer with what ends it: the token that the template writes there, or begins
        the next turn with; else the end token.
        """
        token, written = self.turn_end
        said = answer.ids[answer.start :]
        tail = _tail(said, self.tokens)
        if written and token in said:
            end = answer.start + _last(said, token)
        elif tail:
            end = answer.start + tail[-1]
        else:
            if whole.ids[: len(answer.ids)] == answer.ids:
                after = whole.ids[len(answer.ids) :][:1]  # where a mark leaves out the end
                if after and self.tokens.is_special(after[0]):
                    token, written = after[0], True
            if not written and self.exists:
                if following is None and "tool_calls" in messages[-1]:
                    following = {"role": "tool", "content": _PROBE}
                if following is not None and following["role"] in _NOT_ASKING:
                    following = None
                if following is not None:
                    token = self._next_mark([*messages, following], whole) or token
            if token is None:
                return answer
            return Answer(
                [*answer.ids, token], answer.start, len(answer.ids), [*answer.trained, True]
            )
        trained = list(answer.trained)
        trained[end] = True
        return replace(answer, end=end, trained=trained)

    def _next_mark(self, messages: Sequence[ChatMessage], whole: Rendering) -> int | None:
        """Return the special token with which a template begins the last message, if it does."""
        try:
            going = self.render(messages).ids
        except AdapterError:
            return None
        place = len(whole.ids)
        if _common(going, whole.ids) == place < len(going) and self.tokens.is_special(going[place]):
            return going[place]
        return None

    @property
    def turn_end(self) -> tuple[int | None, bool]:
        """The token that ends an assistant's turn, and whether a template writes it behind the
        last one, too. Some (GLM) end a turn with the mark of the next role alone; others with
        nothing, so that the end token has to do.
        """
        found: tuple[int | None, bool] = self._once("turn_end", self._turn_end)
        return found

    def _turn_end(self) -> tuple[int | None, bool]:
        eos = self.tokens.eos
        if not self.exists:
            return eos, eos is not None
        plain = replace(self, tools=None)
        turns: list[ChatMessage] = [
            {"role": "user", "content": _PROBE},
            {"role": "assistant", "content": _PROBE},
            {"role": "user", "content": _PROBE},
        ]
        try:
            asked = plain.render(turns[:1], generate=True)
            last = plain.render(turns[:2])
            going = plain.render(turns)
        except AdapterError:  # a template that knows no such conversation
            return eos, False
        start, shared = _common(asked.ids, last.ids), _common(last.ids, going.ids)
        tail = [start + place for place in _tail(last.ids[start:], self.tokens)]
        if tail:
            kept = [place for place in tail if place < shared]
            return last.ids[(kept or tail)[-1]], True
        mark = plain._next_mark(turns, last)
        return (eos if mark is None else mark), False

    # --- what the template leaves out ---

    def check_shown(self, messages: Sequence[ChatMessage], shown: Rendering) -> None:
        """Refuse a conversation of which the template leaves out what a model is to be told.

        Args:
            messages: the turns.
            shown: their rendering.

        Raises:
            InvalidInput: a message or a tool call is not there.
        """
        text = _Shown(shown.text, self.tokens)
        unseen = self._unseen(messages)
        for index, message in enumerate(messages):
            # Thoughts of earlier turns may be forgotten.
            told = [("", message["content"].rpartition("</think>")[2]), *_calls(message)]
            for what, said in told:
                if not text.has(said) or (not what and index in unseen):
                    raise InvalidInput(
                        f"the chat template leaves out {what and f'{what} of '}message {index}, "
                        f"of role {message['role']!r}: {_short(said)}"
                    )

    def _check_tools(self, shown: Rendering) -> None:
        """Refuse tools of which nothing is shown, neither what they are nor a call of them."""
        text = _Shown(shown.text, self.tokens)
        for tool in self.tools or ():
            name = tool.get("function", tool).get("name")
            if isinstance(name, str) and not text.has(name):
                raise InvalidInput(f"the chat template leaves out the tool {name!r}")

    def _unseen(self, messages: Sequence[ChatMessage]) -> set[int]:
        """Return the places of messages that the template leaves out whatever they say: a short
        text, or one that is said twice, would be found elsewhere.
        """
        kind = tuple((m["role"], bool(m["content"]), "tool_calls" in m) for m in messages)

        def find() -> set[int]:
            marks = {place: f"{_PROBE}{place}." for place, (_, says, _) in enumerate(kind) if says}
            probe = [{**m, "content": marks.get(i, "")} for i, m in enumerate(messages)]
            try:
                shown = self.render(probe).text
            except AdapterError:  # it looks into what is said
                return set()
            return {place for place, mark in marks.items() if mark not in shown}

        about = (kind, dict(self.kwargs), bool(self.tools))
        found: set[int] = self._once(f"unseen {about}", find)
        return found

    def _missing(self, message: ChatMessage, asked: str, said: str) -> str | None:
        """Return what the template leaves out of an answer, if it does."""
        shown = _Shown(said, self.tokens)
        for what, text in _texts(message):
            if not shown.has(text) and not shown.ends(asked, text):
                return (
                    f"the chat template leaves out {what} of the answer: {_short(text)}. What is "
                    "trained on would not be what the row says"
                )
        called = Counter(call["function"]["name"] for call in message.get("tool_calls", ()))
        for name, times in called.items():
            if 0 < said.count(name) < times:
                return (
                    f"the chat template leaves out some of the answer's {times} calls of {name!r}"
                )
        return None

    # --- what kind of template it is ---

    @property
    def _source(self) -> str:
        template = getattr(self.tokenizer, "chat_template", None)
        if isinstance(template, Mapping):  # several by name, chosen as Transformers does
            name = "tool_use" if self.tools and "tool_use" in template else "default"
            template = template.get(name)
        return template if isinstance(template, str) else ""

    @property
    def _marked(self) -> bool:
        return _MARKS.search(self._source) is not None

    def _style(self, messages: Sequence[ChatMessage]) -> _Style:
        style: _Style = self._once("style", self._probe_content)
        if any("tool_calls" in message for message in messages):
            calling: _Style = self._once("calls", lambda: self._probe_calls(style))
            return calling
        return style

    def _probe_content(self) -> _Style:
        """Find out whether the template shows content that is text, or parts alone."""
        for style in (_Style(), _Style(parts=True)):
            if self._shows([{"role": "user", "content": _PROBE}], style, _PROBE):
                return replace(style, thoughts_apart=self._thinks_twice(style))
        return _Style()

    def _thinks_twice(self, style: _Style) -> bool:
        """Whether the template writes a think block of its own before one in the content, and
        that one where it is given in a field.
        """
        thought = f"<think>\n{_PROBE}\n</think>\n\nyes"
        turns: list[ChatMessage] = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": thought},
        ]
        apart = replace(style, thoughts_apart=True)
        once, twice = (f"<think>\n{between}</think>" for between in (f"{_PROBE}\n", "\n"))
        return self._shows(turns, style, once, twice) and self._shows(turns, apart, once)

    def _probe_calls(self, style: _Style) -> _Style:
        """Find out how the template is to be given a tool call."""
        arguments = {"value": _PROBE}
        # Mistral's templates want an id of nine characters.
        call = {"function": {"name": f"{_PROBE}_call", "arguments": arguments}}
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
                for written in (f'"{_PROBE}"', f">{_PROBE}<"):
                    if self._shows(turns, tried, f"{_PROBE}_call", written):
                        text = replace(tried, arguments_as_text=True)
                        as_it_is = json.dumps(arguments)
                        return replace(tried, text_as_well=self._shows(turns, text, as_it_is))
        return style

    def _shows(self, messages: Sequence[ChatMessage], style: _Style, *texts: str) -> bool:
        try:
            shown = self._apply([_styled(message, style) for message in messages], False).text
        except AdapterError:
            return False
        as_python = style.parts and "'text'" in shown  # the list itself was written
        return not as_python and all(text in shown for text in texts)

    def _once(self, name: str, find: Any) -> Any:
        if name not in self._shared:
            self._shared[name] = find()
        return self._shared[name]


def _all_from(start: int, ids: list[int]) -> Answer:
    return Answer(ids, start, None, [place >= start for place in range(len(ids))])


def _styled(message: ChatMessage, style: _Style) -> ChatMessage:
    """Return a message as a template wants it."""
    styled = {name: value for name, value in message.items() if name != "weight"}
    if style.thoughts_apart and _thinks(message):
        thoughts, _, said = message["content"].removeprefix("<think>").partition("</think>")
        styled |= {"reasoning_content": thoughts.strip("\n"), "content": said.lstrip("\n")}
    if style.parts:
        styled["content"] = [{"type": "text", "text": styled["content"]}]
    if "tool_calls" in message:
        if style.no_content and not message["content"]:
            styled["content"] = None
        give = _with_text if style.arguments_as_text else _with_table
        styled["tool_calls"] = [give(call, style) for call in message["tool_calls"]]
    return styled


def _thinks(message: ChatMessage) -> bool:
    """Whether an answer's content begins with a think block."""
    said = message["content"]
    apart = any(message.get(name) for name in REASONING_FIELDS)
    return message["role"] == "assistant" and not apart and _THOUGHT.match(said) is not None


def _with_text(call: Mapping[str, Any], style: _Style) -> dict[str, Any]:
    function = dict(call["function"])
    if not isinstance(function["arguments"], str):
        function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": function}


def _with_table(call: Mapping[str, Any], style: _Style) -> dict[str, Any]:
    arguments = arguments_of(call, as_text=style.text_as_well)
    return {**call, "function": {**call["function"], "arguments": arguments}}


def _dated(source: str, date: datetime.date) -> str:
    """Return a template in which the day is `date`, whatever day it is."""
    written = {form: date.strftime(form) for _, form in _DATE.findall(source)}
    iso = json.dumps(date.isoformat())  # for a form that is not a literal
    macro = f"{json.dumps(written)}.get(form, {iso})"
    return (
        f"{{%- macro strftime_now(form) -%}}{{{{ {macro} }}}}{{%- endmacro %}}{{{{ '' }}}}{source}"
    )


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


class _Shown:
    """What a template wrote, to be searched for what it was to write.

    White space around a text, and around its think tags, is the template's to choose; that within
    a text is not.
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
        wanted, opened, shown = _bare(text), _bare(before[-200:]), _bare(self._text)
        return any(
            opened.endswith(wanted[:cut]) and wanted[cut:] in shown
            for cut in range(1, min(len(wanted), 40) + 1)
        )


def _bare(text: str) -> str:
    return "".join(text.split())


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many ids two sequences begin with alike."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))


def _last(ids: Sequence[int], token: int | None) -> int:
    return max(place for place, found in enumerate(ids) if found == token)


def _tail(ids: Sequence[int], tokens: Tokenization) -> list[int]:
    """Return the places of the first special tokens in a row behind the text of an answer."""
    place = len(ids)
    while place and (tokens.is_special(ids[place - 1]) or tokens.is_blank(ids[place - 1])):
        place -= 1
    while place < len(ids) and not tokens.is_special(ids[place]):
        place += 1
    first = place
    while place < len(ids) and tokens.is_special(ids[place]):
        place += 1
    return list(range(first, place))


def end_of_turn(tokenizer: Tokenizer) -> int | None:
    """Return the token that ends an assistant's turn in the tokenizer's chat template; the end
    token where the template writes none, or where there is no template.

    It may differ from the tokenizer's end token, as in many base models that come with a template.
    A model that was trained on conversations must be stopped by it.
    """
    return ChatTemplate(tokenizer).turn_end[0]
