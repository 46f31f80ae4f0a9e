"""An answer as a model should say it: where it begins, and what ends its turn.

A template is a program that may write earlier turns differently later on, so each answer is read
from the rendering in which it is the last turn: what the model sees when it is asked for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import AdapterError, InvalidInput
from ..types import Tokenizer
from .messages import REASONING_FIELDS, ChatMessage
from .shown import bare, check_messages, check_tools, missing
from .style import PROBE
from .template import ChatTemplate, Rendering
from .tokenization import Tokenization

_NOT_ASKING = ("system", "developer", "assistant")  # roles whose mark does not end an answer


@dataclass(frozen=True, slots=True)
class Answer:
    """An assistant's message as the last turn of a conversation.

    Args:
        ids: token ids of the whole: what comes before the answer, its text, what ends the turn, and
            what the template writes behind that.
        start: the place in `ids` where the answer begins.
        end: the place of the token that ends the turn; None if nothing ends it.
        trained: for each of `ids`, whether it is trained on as a part of this answer. The last one
            is what ends the turn, for that is where a model stops when it is asked.
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


def answer(
    template: ChatTemplate,
    messages: Sequence[ChatMessage],
    following: ChatMessage | None = None,
) -> Answer:
    """Return the last message, which is an assistant's, as what a model should say.

    Where the template marks what is trained on (`{% generation %}`), the answer is that; otherwise
    it is what follows the prompt of the messages before.

    Args:
        template: the model's.
        messages: the turns up to the answer.
        following: the turn after it, if there is one.

    Raises:
        InvalidInput: nothing comes before it, the template refuses the messages, or it leaves out
            a part of what they say.
    """
    if len(messages) < 2:
        raise InvalidInput(
            "nothing comes before the answer, so there is nothing to ask it for; a greeting "
            "with weight = 0 is read and not trained on"
        )
    asked = template.render(messages[:-1], generate=True)
    whole = _parted(template, asked, template.render(messages))
    found = _divide(template, asked, whole, messages)
    said = template.tokens.decode([*itertools.compress(found.ids, found.trained)])
    left_out = missing(template.tokens, messages[-1], asked.text, said)
    closes = "</think>" in messages[-1]["content"].partition("<think>")[0]
    if left_out is not None or (closes and found.start < len(asked.ids)):
        opened = _continued(template, asked, messages[-1])
        if left_out is not None and opened is None:
            raise InvalidInput(left_out)
        found = opened or found
    check_messages(template, messages[:-1], asked)
    check_tools(template, whole)
    return _ended(template, found, messages, whole, following)


# --- where an answer begins ---


def _parted(template: ChatTemplate, asked: Rendering, whole: Rendering) -> Rendering:
    """Return a rendering in which no token joins the end of the prompt and the answer's beginning:
    in use the prompt's tokens are there before the answer's.
    """
    common, start = in_common(asked.ids, whole.ids), len(asked.ids)
    joined = common < start and whole.text.startswith(asked.text)
    if not joined or not template.ids_of_text:
        return whole
    ids = template.tokens.after(asked.text, whole.text[len(asked.text) :], asked.ids)
    if whole.trained is None:
        return Rendering([*asked.ids, *ids], whole.text)
    # Up to the border the new tokens have the flags of what was joined, behind it their own.
    border = len(ids) - in_common(ids[::-1], whole.ids[:common:-1])
    trained = [
        *whole.trained[:common],
        *[whole.trained[common - 1]] * (start - common),
        *[max(whole.trained[common:])] * border,
        *whole.trained[len(whole.ids) - len(ids) + border :],
    ]
    return Rendering([*asked.ids, *ids], whole.text, trained)


def _divide(
    template: ChatTemplate, asked: Rendering, whole: Rendering, messages: Sequence[ChatMessage]
) -> Answer:
    """Find where an answer begins, and which of its tokens are trained on."""
    start = written = in_common(asked.ids, whole.ids)
    if start < len(asked.ids):
        written = in_common(asked.ids, template.render(messages[:-1]).ids)
    if start < written:
        return _rewritten(template, asked, messages)
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
    content, decode = bare(messages[-1]["content"]), template.tokens.decode
    if content in bare(decode(whole.ids[written:])):
        while content not in bare(decode(whole.ids[start:])):
            start -= 1
    return _all_from(start, whole.ids)


def _rewritten(template: ChatTemplate, asked: Rendering, messages: Sequence[ChatMessage]) -> Answer:
    """Find an answer after a prompt that the template writes differently once the answer follows:
    Mistral's put the system's text into the last message, if it is a user's. The model is asked
    the prompt as it was; the answer is what follows the prompt's last message.
    """
    mark = f"{PROBE}-{PROBE}"
    turns = [*messages[:-2], {**messages[-2], "content": mark}]
    opening = template.render(turns, generate=True).text.rpartition(mark)[2]
    whole = template.render([*turns, messages[-1]])
    follows = whole.text.partition(mark)[2]
    if whole.trained is not None or not follows.startswith(opening):
        raise InvalidInput(
            "the chat template writes earlier turns differently once the answer follows, so "
            "what the model is asked is not known; are there two answers in a row?"
        )
    ids = template.tokens.after(asked.text, follows.removeprefix(opening), asked.ids)
    return _all_from(len(asked.ids), [*asked.ids, *ids])


def _continued(template: ChatTemplate, asked: Rendering, message: ChatMessage) -> Answer | None:
    """Return an answer as the continuation of a prompt that opens a think block, for templates
    that leave the thoughts of every answer out (DeepSeek-R1), and answers that do not open theirs;
    None if it is not one.
    """
    head, opens, content = message["content"].partition("<think>")
    if not opens and "</think>" in head:
        head, content = "", head
    reasoning = [message[name] for name in REASONING_FIELDS if message.get(name)]
    if reasoning and not content:
        content = f"{reasoning[0].rstrip()}\n</think>\n\n{message['content']}"
        head = ""
    token, written = turn_end(template)
    if (
        head.strip()
        or "tool_calls" in message
        or not (content and written and asked.text.rstrip().endswith("<think>"))
    ):
        return None
    if asked.text.endswith("\n"):
        content = content.removeprefix("\n")
    ids = template.tokens.after(asked.text, content, asked.ids)
    ended = [] if token is None else [token]
    return _all_from(len(asked.ids), [*asked.ids, *ids, *ended])


def _all_from(start: int, ids: list[int]) -> Answer:
    return Answer(ids, start, None, [False] * start + [True] * (len(ids) - start))


# --- what ends its turn ---


def end_of_turn(tokenizer: Tokenizer) -> int | None:
    """Return the token that ends an assistant's turn in the tokenizer's chat template; the end
    token if the template writes none, or if there is no template.

    It may differ from the tokenizer's end token, as in many base models that come with a template.
    A model that was trained on conversations must be stopped by it.
    """
    return turn_end(ChatTemplate(tokenizer))[0]


def turn_end(template: ChatTemplate) -> tuple[int | None, bool]:
    """Return the token that ends an assistant's turn, and whether the template also writes it
    behind the last one. Some (GLM) end a turn with the mark of the next role alone; others with
    nothing, so that the end token has to do.
    """
    return template.once("turn_end", lambda: _turn_end(replace(template, tools=None)))


def _turn_end(template: ChatTemplate) -> tuple[int | None, bool]:
    tokens = template.tokens
    if not template.exists:
        return tokens.eos, tokens.eos is not None
    turns: list[ChatMessage] = [
        {"role": "user", "content": PROBE},
        {"role": "assistant", "content": PROBE},
        {"role": "user", "content": PROBE},
    ]
    try:
        asked = template.render(turns[:1], generate=True)
        last = template.render(turns[:2])
        going = template.render(turns)
    except AdapterError:  # a template that refuses such a conversation
        return tokens.eos, False
    start, shared = in_common(asked.ids, last.ids), in_common(last.ids, going.ids)
    tail = [start + place for place in _tail(last.ids[start:], tokens)]
    if tail:
        kept = [place for place in tail if place < shared]
        return last.ids[(kept or tail)[-1]], True
    mark = _next_mark(template, turns, last)
    return (tokens.eos if mark is None else mark), False


def _ended(
    template: ChatTemplate,
    found: Answer,
    messages: Sequence[ChatMessage],
    whole: Rendering,
    following: ChatMessage | None,
) -> Answer:
    """Return an answer with what ends it: the token that the template writes there, or begins the
    next turn with; else the end token.
    """
    token, written = turn_end(template)
    said = found.ids[found.start :]
    tail = _tail(said, template.tokens)
    if written and token in said:
        first = [place for place in tail if said[place] == token][:1]
        end = found.start + (first[0] if first else _last(said, token))
    elif tail:
        end = found.start + tail[-1]
    else:
        if whole.ids[: len(found.ids)] == found.ids:
            after = whole.ids[len(found.ids) :][:1]  # where a mark leaves out the end
            if after and template.tokens.is_special(after[0]):
                token, written = after[0], True
        if not written and template.exists:
            if following is None and "tool_calls" in messages[-1]:
                following = {"role": "tool", "content": PROBE}
            if following is not None and following["role"] in _NOT_ASKING:
                following = None
            if following is not None:
                token = _next_mark(template, [*messages, following], whole) or token
        if token is None:
            return found
        return Answer([*found.ids, token], found.start, len(found.ids), [*found.trained, True])
    # Sampling stops at the end of the turn: what the template writes behind it, such as a line
    # break or a second end token, is never asked of the model.
    behind = len(found.ids) - end - 1
    return replace(found, end=end, trained=[*found.trained[:end], True, *[False] * behind])


def _next_mark(
    template: ChatTemplate, messages: Sequence[ChatMessage], whole: Rendering
) -> int | None:
    """Return the special token with which a template begins the last message, if it does."""
    try:
        going = template.render(messages).ids
    except AdapterError:
        return None
    place = len(whole.ids)
    goes_on = in_common(going, whole.ids) == place < len(going)
    return going[place] if goes_on and template.tokens.is_special(going[place]) else None


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


def in_common(first: list[int], second: list[int]) -> int:
    """Return how many ids two sequences have in common from their beginning."""
    known, stop = 0, min(len(first), len(second))
    if first[:stop] == second[:stop]:  # lists are compared much faster than their items
        return stop
    while stop - known > 1:
        middle = (known + stop) // 2
        if first[known:middle] == second[known:middle]:
            known = middle
        else:
            stop = middle
    return known


def _last(ids: Sequence[int], token: int | None) -> int:
    return max(place for place, found in enumerate(ids) if found == token)
