"""Token sequences with a weight for each token, from what rows hold."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ...chat import Answer, ChatMessage, ChatTemplate, answer, check_messages, in_common, weight_of
from ...errors import AdapterError, InvalidInput
from ...types import Datum, FloatArray, IntArray, ModelInput, Tokenizer
from ..config import TrainOn
from .examples import ChosenRejected, Conversation, PromptCompletion, Shape, Text
from .layout import Layout, Layouts, Placed


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A sequence to learn from.

    Args:
        tokens: int64 `(n,)`, the whole sequence, at least 2.
        weights: float32 `(n,)`, 1 where the token is trained on, else 0. The first token is never
            predicted, so its weight has no effect.
        prompt_length: how many tokens come before the last answer; None if there is no answer.
        end_token: what ends that answer; None if nothing does.
    """

    tokens: IntArray
    weights: FloatArray
    prompt_length: int | None = None
    end_token: int | None = None

    def datum(self, scale: float = 1.0) -> Datum:
        """Return it shifted for next-token prediction, weights multiplied by `scale`."""
        return Datum(
            ModelInput.from_ints(self.tokens[:-1]),
            {"target_tokens": self.tokens[1:], "weights": self.weights[1:] * np.float32(scale)},
        )

    @property
    def prompt(self) -> IntArray:
        """The tokens before the last answer, int64 `(prompt_length,)`; all where there is none."""
        return self.tokens[: self.prompt_length]

    @property
    def trained_tokens(self) -> float:
        """The sum of the weights of the predicted tokens: how many of them are trained on."""
        return float(self.weights[1:].sum())


@dataclass(frozen=True, slots=True)
class _Draft:
    """The rendering of a conversation that has a layout."""

    layout: Layout
    text: str


class Renderer:
    """Renders what rows hold with a model's tokenizer. Nothing is left out and nothing is cut: what
    to do with a sequence that is too long is the caller's decision.

    Args:
        tokenizer: the model's.
        train_on: which tokens of a conversation count. A completion counts as an assistant
            message; plain text counts whole.
        chat_template_kwargs: further arguments of the chat template; a row's own override them.
        date: what a chat template that writes the date calls today; None is today.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        train_on: TrainOn = "all_assistant_messages",
        chat_template_kwargs: Mapping[str, Any] | None = None,
        date: datetime.date | None = None,
    ) -> None:
        self.template = ChatTemplate(tokenizer, chat_template_kwargs or {}, date=date)
        self._tokens = self.template.tokens
        self.train_on = train_on
        self._layouts = Layouts(self.template, partial(exactly, self.template))
        self._drafts: dict[int, tuple[Conversation, _Draft | None]] = {}

    def look_ahead(self, shapes: Iterable[Shape]) -> None:
        """Prepare what rows hold to be rendered next: their texts are encoded at once. Whatever is
        wrong with one of them, rendering it says so.
        """
        texts: list[str] = []
        self._drafts = {}
        for shape in shapes:
            sides = [shape.chosen, shape.rejected] if isinstance(shape, ChosenRejected) else [shape]
            for side in sides:
                if isinstance(side, PromptCompletion):
                    texts += self._tokens.parts(side.prompt, side.completion)
                elif isinstance(side, Text):
                    texts.append(side.text)
                else:
                    draft = self._draft(side)
                    self._drafts[id(side)] = (side, draft)
                    texts += [] if draft is None else [draft.text]
        self._tokens.encode_ahead(texts)

    def render(self, shape: Shape) -> list[Example]:
        """Render what a row holds: one sequence, or several in the case of a conversation. Of a
        pair two: the chosen side, then the rejected one.

        Raises:
            InvalidInput: it cannot be rendered.
        """
        if isinstance(shape, ChosenRejected):
            return self.pair(shape)
        if isinstance(shape, PromptCompletion):
            return [self.prompt_completion(shape.prompt, shape.completion)]
        if isinstance(shape, Conversation):
            return self.conversation(shape)
        return [self.text(shape.text)]

    def prompt_completion(self, prompt: str, completion: str) -> Example:
        """Render a text and its continuation, which ends with the end token.

        The completion is tokenized as the continuation of the prompt's tokens, for these are what
        the model is asked to continue.
        """
        tokens = self._tokens
        start, following = tokens.continued(prompt, completion)
        before = tokens.begin(prompt, start)
        after = tokens.ended(following, completion)
        flags = [self.train_on == "all_tokens"] * len(before) + [True] * len(after)
        end = after[-1] if after and after[-1] == tokens.eos else None
        return _example([*before, *after], flags, len(before), end)

    def text(self, text: str) -> Example:
        """Render plain text, which counts whole and ends with the end token."""
        ids = self._tokens.ended(self._tokens.begin(text), text)
        return _example(ids, [True] * len(ids))

    def conversation(self, shape: Conversation) -> list[Example]:
        """Render a conversation so that a model sees in training what it sees in use.

        An answer is learned from the rendering in which it is the last turn. Where the template
        does not write it differently later on, the next answer continues the same sequence;
        otherwise the next answer has its own sequence.

        Raises:
            InvalidInput: it has no answer to train on, or the template leaves out what it says.
        """
        template, messages = self.template.with_(shape.kwargs, shape.tools), shape.messages
        if self.train_on == "all_tokens":
            return [self._whole(template, messages)]
        places = self._places(shape)
        if not places:
            roles = ", ".join(dict.fromkeys(repr(message["role"]) for message in messages))
            raise InvalidInput(
                f"it has no assistant message to train on; its roles are {roles or 'none'}"
            )
        # What `exactly` returns, by one rendering alone, where that is certain.
        known = self._drafts.get(id(shape))
        draft = known[1] if known and known[0] is shape else self._draft(shape)
        placed = None
        if draft is not None:
            ids = self._tokens.encode(draft.text)
            placed = draft.layout.place(ids, self._tokens.special_among(ids))
        sequences = [placed] if placed else exactly(template, messages, places)
        return [_example(s.ids, s.trained, s.prompt_length, s.end_token) for s in sequences]

    def _places(self, shape: Conversation) -> list[int]:
        """Return the places of the messages that are trained on."""
        places = [
            place
            for place, message in enumerate(shape.messages)
            if message["role"] == "assistant" and place >= shape.first and weight_of(message)
        ]
        return places[-1:] if self.train_on == "last_assistant_message" else places

    def _draft(self, shape: Conversation) -> _Draft | None:
        """Render a conversation once; None if it has no layout."""
        if shape.kwargs or shape.tools or self.train_on == "all_tokens":
            return None
        layout = self._layouts.of(shape.messages, self._places(shape))
        if layout is None:
            return None
        try:
            text = self.template.text(shape.messages)
        except AdapterError:
            return None
        return _Draft(layout, text) if text and layout.fits(text, shape.messages) else None

    def pair(self, shape: ChosenRejected) -> list[Example]:
        """Render the chosen side of a pair, then the rejected one.

        Raises:
            InvalidInput: the sides differ in the tokens of their prompt, or not at all.
        """
        (chosen,), (rejected,) = self.render(shape.chosen), self.render(shape.rejected)
        shared_prompt(chosen, rejected)
        if np.array_equal(chosen.tokens, rejected.tokens):
            raise InvalidInput("its chosen and its rejected side are the same, token by token")
        return [chosen, rejected]

    def _whole(self, template: ChatTemplate, messages: Sequence[ChatMessage]) -> Example:
        for place, message in enumerate(messages):
            if not weight_of(message):
                raise InvalidInput(
                    f"message {place} has weight 0, and train_on = 'all_tokens' would train on it"
                )
        whole = template.render(messages)
        check_messages(template, messages, whole)
        ids = whole.ids
        if len(messages) < 2 or messages[-1]["role"] != "assistant":
            return _example(ids, [True] * len(ids))
        turn = answer(template, messages)
        if turn.ids[: len(ids)] == ids:  # with the end of the turn, where the template has none
            ids = turn.ids
        flags = [True] * len(ids)
        if ids[: turn.start] != turn.prompt:
            return _example(ids, flags)
        return _example(ids, flags, turn.start, turn.end_token)


def exactly(
    template: ChatTemplate, messages: Sequence[ChatMessage], places: Sequence[int]
) -> list[Placed]:
    """Return what is learned from a conversation: each answer as the continuation of its prompt.

    Args:
        template: the model's.
        messages: the turns.
        places: those that are trained on, at least one.

    Raises:
        InvalidInput: the template leaves out what the conversation says.
    """
    sequences: list[tuple[Answer, list[bool]]] = []
    for place in places:
        following = messages[place + 1 : place + 2]
        turn = answer(template, messages[: place + 1], *following)
        flags = turn.trained
        if sequences and (kept := _kept(*sequences[-1], turn.prompt)):
            sequences.pop()
            before = [old or new for old, new in zip(kept, flags, strict=False)]
            flags = before + flags[len(kept) :]
        sequences.append((turn, flags))
    found = [Placed(turn.ids, flags) for turn, flags in sequences[:-1]]
    turn, flags = sequences[-1]
    return [*found, Placed(turn.ids, flags, turn.start, turn.end_token)]


def shared_prompt(first: Example, second: Example) -> int:
    """Return the number of prompt tokens of two sequences that answer the same prompt, such as the
    chosen and the rejected side of a pair.

    Raises:
        InvalidInput: one has no answer, or their prompts differ in tokens, so that their answers
            cannot be compared.
    """
    lengths = (first.prompt_length, second.prompt_length)
    if lengths[0] is None or lengths[1] is None:
        raise InvalidInput("one of its sides has no answer")
    if not np.array_equal(first.tokens[: lengths[0]], second.tokens[: lengths[1]]):
        raise InvalidInput(
            f"its sides do not have the same prompt: {lengths[0]} and {lengths[1]} tokens come "
            "before their answers, and they differ"
        )
    return lengths[0]


def marked(example: Example, tokenizer: Tokenizer) -> str:
    """Return the text of a sequence, what is trained on between ⟦ and ⟧."""
    text, start = "", 0
    flags = [False, *(example.weights[1:] != 0).tolist()]
    for place in range(1, len(flags) + 1):
        if place == len(flags) or flags[place] != flags[start]:
            piece = tokenizer.decode(example.tokens[start:place].tolist())
            text += f"⟦{piece}⟧" if flags[start] else piece
            start = place
    return text


def _kept(turn: Answer, flags: list[bool], prompt: list[int]) -> list[bool] | None:
    """Return the flags of a later prompt that begins with a sequence, up to the end of its answer
    at least; None where it does not.
    """
    ids, end = turn.ids, turn.end
    if end is None or ids[: end + 1] != prompt[: end + 1]:
        return None
    kept = in_common(ids, prompt)
    return [*flags[:kept], *[False] * (len(prompt) - kept)]


def _example(
    ids: Sequence[int],
    flags: Sequence[bool],
    prompt_length: int | None = None,
    end_token: int | None = None,
) -> Example:
    return Example(
        np.asarray(ids, np.int64), np.asarray(flags, np.float32), prompt_length, end_token
    )
