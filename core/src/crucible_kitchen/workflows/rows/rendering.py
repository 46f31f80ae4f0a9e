"""Token sequences with a weight for each token, from what rows hold."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...chat import Answer, ChatMessage, ChatTemplate, answer, check_messages, in_common, weight_of
from ...errors import InvalidInput
from ...types import Datum, FloatArray, IntArray, ModelInput, Tokenizer
from ..config import TrainOn
from .examples import Conversation, PromptCompletion, Shape


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

    def render(self, shape: Shape) -> list[Example]:
        """Render what a row holds: one sequence, or several in the case of a conversation.

        Raises:
            InvalidInput: it cannot be rendered.
        """
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
        start = tokens.encode(prompt)
        before = tokens.begin(prompt, start)
        after = tokens.ended(tokens.after(prompt, completion, start), completion)
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
        template = self.template.with_(shape.kwargs, shape.tools)
        if self.train_on == "all_tokens":
            return [self._whole(template, shape.messages)]
        places = [
            place
            for place, message in enumerate(shape.messages)
            if message["role"] == "assistant" and place >= shape.first and weight_of(message)
        ]
        if not places:
            roles = ", ".join(dict.fromkeys(repr(message["role"]) for message in shape.messages))
            raise InvalidInput(
                f"it has no assistant message to train on; its roles are {roles or 'none'}"
            )
        if self.train_on == "last_assistant_message":
            places = places[-1:]
        sequences: list[tuple[Answer, list[bool]]] = []
        for place in places:
            following = shape.messages[place + 1 : place + 2]
            turn = answer(template, shape.messages[: place + 1], *following)
            flags = turn.trained
            if sequences and (kept := _kept(*sequences[-1], turn.prompt)):
                sequences.pop()
                before = [old or new for old, new in zip(kept, flags, strict=False)]
                flags = before + flags[len(kept) :]
            sequences.append((turn, flags))
        examples = [_example(turn.ids, flags) for turn, flags in sequences[:-1]]
        turn, flags = sequences[-1]
        return [*examples, _example(turn.ids, flags, turn.start, turn.end_token)]

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
