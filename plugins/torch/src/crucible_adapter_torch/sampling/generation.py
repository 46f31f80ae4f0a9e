"""Sampling, many answers at a time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from crucible_kitchen import AdapterError, Completion, IntArray, InvalidInput, SamplingParams, Usage
from torch import Tensor

from ..models.language_model import LanguageModel
from ..randomness import in_64_bits
from .choosing import sample
from .detokenizer import Detokenizer
from .reading import cacheable, reader, stage
from .slots import Slots


class Answer:
    """One answer while it is sampled. Its random numbers do not depend on the batch it is in.

    Args:
        model: the model that answers.
        prompt: token ids, `(n,)`.
        params: how to sample.
        seed: of its random numbers; with None they are unpredictable.
        shown: whether `text_shown` will be read while it grows.

    Raises:
        InvalidInput: the prompt is empty, holds an unknown token, or fills the context.
        Unsupported: a stop string for a model that has no tokenizer.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: IntArray,
        params: SamplingParams,
        seed: int | None,
        shown: bool = False,
    ) -> None:
        check_tokens(model, prompt)
        room = params.max_tokens if model.context is None else model.context - len(prompt)
        if room < 1:
            raise InvalidInput(
                f"the prompt has {len(prompt)} tokens and the model's context is "
                f"{model.context}: there is no room for an answer"
            )
        self.prompt = prompt
        self.limit = min(params.max_tokens, room)
        # NumPy takes none below 0, and any above.
        self.random = np.random.default_rng(in_64_bits(seed) if seed and seed < 0 else seed)
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.finish_reason: Literal["stop", "length"] | None = None
        self.error: AdapterError | None = None
        stop = params.stop
        strings = [s for s in stop or () if isinstance(s, str)]
        # The model's own end tokens stay in force next to other stops; only `()` switches them off.
        ends = frozenset(() if stop == () else model.end_tokens)
        self._stop_tokens = ends | {s for s in stop or () if not isinstance(s, str)}
        self._tokenizer = model.tokenizer
        readable = model.need_tokenizer() if strings else model.tokenizer
        self._text = Detokenizer(readable, strings) if readable and (strings or shown) else None

    def take(self, token: int, logprob: float) -> None:
        """Append a token, and end the answer if it was the last."""
        if not math.isfinite(logprob):
            self.error = AdapterError("the model's output is not finite; its weights have diverged")
            return
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if token in self._stop_tokens or (self._text is not None and self._text.add(token)):
            self.finish_reason = "stop"
        elif len(self.tokens) == self.limit:
            self.finish_reason = "length"

    @property
    def room(self) -> int:
        """The most tokens that the prompt and the answer can have together."""
        return len(self.prompt) + self.limit

    @property
    def ended(self) -> bool:
        return self.finish_reason is not None or self.error is not None

    @property
    def text_shown(self) -> str:
        """The text that no later token can change: all of it at the end. "" without a tokenizer."""
        if self._text is not None:
            return self._text.shown if self.finish_reason is None else self._text.text
        if self._tokenizer is None:
            return ""
        ended = self.finish_reason == "stop"
        tokens = self.tokens[:-1] if ended else self.tokens
        return self._tokenizer.decode(tokens, skip_special_tokens=True)

    def completion(self, logprobs: bool) -> Completion:
        """Return the finished answer, or raise the error that ended it."""
        if self.error is not None:
            raise self.error
        assert self.finish_reason is not None
        return Completion(
            text=self.text_shown,
            tokens=np.array(self.tokens, np.int64),
            logprobs=np.array(self.logprobs, np.float32) if logprobs else None,
            finish_reason=self.finish_reason,
            usage=Usage(len(self.prompt), len(self.tokens)),
        )


def check_tokens(model: LanguageModel, tokens: IntArray) -> None:
    """Raise `InvalidInput` if the prompt has no tokens, or one that the model does not know."""
    if len(tokens) == 0:
        raise InvalidInput("the prompt has no tokens")
    if tokens.min() < 0 or tokens.max() >= model.vocab_size:
        raise InvalidInput(
            f"the prompt holds tokens {tokens.min()} to {tokens.max()}; the vocabulary is 0 to "
            f"{model.vocab_size - 1}"
        )


def generate(
    model: LanguageModel, answers: Sequence[Answer], params: SamplingParams, budget: int
) -> Iterator[None]:
    """Finish the answers, one token of those that are being sampled at every step of the iterator.

    Logprobs are those of the model itself: temperature, top_p and top_k do not change them.
    If the model's output is not finite, the answer ends with an `error`.

    Args:
        model: the model that answers.
        answers: in any order; equal prompts are read once.
        params: how to sample.
        budget: the most tokens of prompts and answers, padding included, that are kept at a time;
            one answer at least is sampled.
    """
    if cacheable(model) == "slots":
        yield from _continuously(model, answers, params, budget)
        return
    for batch in batched(answers, budget):
        yield from _together(model, batch, params)


def _continuously(
    model: LanguageModel, answers: Sequence[Answer], params: SamplingParams, budget: int
) -> Iterator[None]:
    """Let waiting answers take the places of those that have ended."""
    # The longest first: no later one needs more room, and the last ones to end are short.
    waiting = deque(sorted(answers, key=lambda answer: -answer.room))
    active: list[Answer] = []
    slots = Slots(model)
    while waiting or active:
        if arriving := _arriving(active, waiting, budget):
            active += arriving
            slots.join(
                [answer.prompt for answer in arriving], max(answer.room for answer in active)
            )
        tokens = _take(active, slots.advance(), params)
        yield
        if any(answer.ended for answer in active):
            going = _closed_up(active)
            active = [active[row] for row in going]
            tokens = slots.keep(going, tokens)
        slots.append(tokens)


def _arriving(active: Sequence[Answer], waiting: deque[Answer], budget: int) -> list[Answer]:
    """Take what now fits from those that wait; nothing while it is little, since prompts are read
    the faster the more of them are read together.
    """
    if not waiting:
        return []
    widest = max(answer.room for answer in active or [waiting[0]])
    count = min(max(budget // widest, 1) - len(active), len(waiting))
    if active and count < min(len(waiting), max(1, len(active) // 8)):
        return []
    return [waiting.popleft() for _ in range(count)]


def _closed_up(active: Sequence[Answer]) -> list[int]:
    """Return the rows that go on, the last of them in the places of those that have ended."""
    going = [row for row, answer in enumerate(active) if not answer.ended]
    stay = [row for row in going if row < len(going)]
    move = iter(going[len(stay) :])
    kept = {*stay}
    return [row if row in kept else next(move) for row in range(len(going))]


def batched(answers: Sequence[Answer], budget: int) -> Iterator[list[Answer]]:
    """Group answers of similar prompt lengths, each group within a budget of padded tokens. A group
    has at least one answer.
    """
    batch: list[Answer] = []
    for answer in sorted(answers, key=lambda answer: len(answer.prompt)):
        room = max(a.limit for a in (*batch, answer)) + len(answer.prompt)
        if batch and (len(batch) + 1) * room > budget:
            yield batch
            batch = []
        batch.append(answer)
    if batch:
        yield batch


def _together(
    model: LanguageModel, answers: Sequence[Answer], params: SamplingParams
) -> Iterator[None]:
    """Begin all answers at once, and go on until the last has ended."""
    active = list(answers)
    state = reader(model, [answer.prompt for answer in active])
    now = stage(model, [len(answer.prompt) for answer in active])
    while True:
        tokens = _take(active, state.advance(), params)
        yield
        going = [i for i, answer in enumerate(active) if not answer.ended]
        if not going:
            return
        few = len(going) < len(active) if state.wasteful else 2 * len(going) <= len(active)
        if few:  # else it costs more than it saves
            active = [active[i] for i in going]
            tokens = state.keep(going, tokens)
        state.append(tokens)
        if model.steady is not None:
            rows = [np.array([*answer.prompt, *answer.tokens], np.int64) for answer in active]
            if stage(model, [len(row) for row in rows]) != now:
                now = stage(model, [len(row) for row in rows])
                state = reader(model, rows)


def _take(active: Sequence[Answer], logits: Tensor, params: SamplingParams) -> Tensor:
    """Give each answer its next token; return the tokens, `(B,)`."""
    uniforms = np.array([answer.random.random() for answer in active])
    tokens, logprobs = sample(logits, params, uniforms)
    for answer, token, logprob in zip(active, tokens.tolist(), logprobs.tolist(), strict=True):
        if not answer.ended:
            answer.take(token, logprob)
    return tokens
