"""What a model reads and says in an episode, as one sequence of token ids.

Observations are rendered once and appended; what was sampled stays as it was sampled. Nothing is
turned into text and tokenized again, so the trainer sees what the sampler saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...chat import ChatMessage, ChatTemplate
from ...chat.messages import conversation
from ...environments import Observation
from ...errors import InvalidInput
from ...types import Completion, FloatArray, IntArray

_MARKS = ("answer 0", "answer 1")
"""Two answers whose last token differs, so that renderings agree from what follows them on."""


class Transcript:
    """The tokens of one episode.

    Args:
        template: renders messages; its tokenizer encodes texts.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._messages: list[ChatMessage] = []
        self._tokens: list[int] = []
        self._sampled: list[bool] = []
        self._logprobs: list[float] = []

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def tokens(self) -> IntArray:
        """All token ids, int64 `(T,)`."""
        return np.array(self._tokens, np.int64)

    @property
    def sampled(self) -> NDArray[np.bool_]:
        """Which of them were sampled, S in all; bool `(T,)`."""
        return np.array(self._sampled, bool)

    @property
    def logprobs(self) -> FloatArray:
        """The log probabilities of the sampled ones, nats, float32 `(S,)`."""
        return np.array(self._logprobs, np.float32)

    @property
    def texts(self) -> tuple[str, str]:
        """What was asked first, and all that followed, as texts."""
        start = self._sampled.index(True) if True in self._sampled else len(self)
        decode = self._template.tokens.decode
        return decode(self._tokens[:start]), decode(self._tokens[start:])

    @property
    def speaks(self) -> bool:
        """Whether it is a conversation, in which a model ends its turn as the template does."""
        return bool(self._messages)

    def read(self, observation: Observation) -> None:
        """Append an observation: the first one, or what follows a completion.

        Raises:
            InvalidInput: it is not text, messages or token ids, there is nothing in it, or the chat
                template refuses it.
        """
        ids = self._ids(observation)
        if not ids:
            raise InvalidInput("nothing is asked: the observation has no tokens")
        self._tokens += ids
        self._sampled += [False] * len(ids)

    def say(self, completion: Completion) -> None:
        """Append a completion as it was sampled. It has token ids and their log probabilities."""
        assert completion.tokens is not None
        assert completion.logprobs is not None
        self._tokens += completion.tokens.tolist()
        self._sampled += [True] * len(completion.tokens)
        self._logprobs += completion.logprobs.tolist()
        if self._messages:
            self._messages.append({"role": "assistant", "content": completion.text})

    def forget(self) -> None:
        """Remove what was read since the last completion, which nothing will be said to."""
        while self._sampled and not self._sampled[-1]:
            self._sampled.pop()
            self._tokens.pop()

    def _ids(self, observation: Observation) -> list[int]:
        tokens = self._template.tokens
        if isinstance(observation, str):
            if not self._tokens:
                return tokens.begin(observation)
            return tokens.after(tokens.decode(self._tokens), observation, self._tokens)
        items: Sequence[Any] = list(observation)
        if items and isinstance(items[0], Mapping):
            return self._of_messages(conversation(items))
        if not all(isinstance(item, int | np.integer) for item in items):
            kind = type(items[0]).__name__
            raise InvalidInput(
                f"an observation is a text, messages or token ids, not a list of {kind}"
            )
        return [int(item) for item in cast("Sequence[int]", items)]

    def _of_messages(self, new: list[ChatMessage]) -> list[int]:
        before, self._messages = self._messages, [*self._messages, *new]
        if not self._tokens:
            return self._template.render(new, generate=True).ids
        if not before:
            raise InvalidInput("messages cannot follow an observation that was not of messages")
        # What follows an answer is the same whatever the answer is, and the renderings of two
        # answers share their end from there on. The answer itself stays as it was sampled.
        first, second = (
            self._template.render(
                [*before[:-1], {"role": "assistant", "content": mark}, *new], generate=True
            ).ids
            for mark in _MARKS
        )
        shared, length = 0, min(len(first), len(second))
        while shared < length and first[-1 - shared] == second[-1 - shared]:
            shared += 1
        if shared == length:
            raise InvalidInput("the chat template does not show what the assistant says")
        return self._unended(first[len(first) - shared :])

    def _unended(self, following: list[int]) -> list[int]:
        """Return what follows an answer without the end of the turn that the model itself said."""
        tokens, last = self._template.tokens, self._tokens[-1]
        if not tokens.is_special(last):
            return following[1:] if following[:1] == [last] else following
        marks = [
            *takewhile(lambda each: tokens.is_special(each) or tokens.is_blank(each), following)
        ]
        if last in marks:
            return following[marks.index(last) + 1 :]
        # It ended its turn with a mark of its own. The template's is the first of two in a row:
        # the second begins the next turn. One alone, as in GLM, does both and has to stay.
        two = sum(map(tokens.is_special, marks)) > 1 and tokens.is_special(marks[0])
        return following[1:] if two else following
