"""From prompts to completions and scores: find the model, tokenize, generate or score."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import numpy as np
import torch
from crucible_kitchen import (
    AdapterError,
    Completion,
    CompletionChunk,
    FloatArray,
    IntArray,
    InvalidInput,
    ModelInput,
    Prompt,
    SamplingParams,
)

from .. import live_weights
from ..devices import use_threads
from ..models import loading
from ..models.language_model import LanguageModel
from ..models.tokenizer import HuggingFaceTokenizer
from ..options import CompleterOptions
from ..passes.batches import by_row, pieces, token_array
from ..passes.scoring import target_logprobs
from .generation import Answer, check_tokens, generate

SCORED_TOKENS = 4096
"""The most tokens scored at a time: more is not faster, pads more, and some models make the logits
of all of them at once."""


class Sampler:
    """The models that a completer has loaded. Thread-safe."""

    def __init__(self, opts: CompleterOptions) -> None:
        self._opts = opts
        self._loaded: OrderedDict[str, LanguageModel] = OrderedDict()
        self._loading = threading.Lock()

    def complete(self, prompt: Prompt, params: SamplingParams) -> Completion:
        model = self._model(params.model)
        answer = Answer(model, tokens_of(model, prompt, reply=True), params, params.seed)
        for _ in generate(model, [answer], params, self._opts.max_batch_tokens):
            pass
        return answer.completion(params.logprobs)

    def complete_batch(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[Completion | AdapterError]:
        model = self._model(params.model)
        answers: list[Answer | AdapterError] = []
        for prompt in prompts:
            try:
                tokens = tokens_of(model, prompt, reply=True)
            except AdapterError as error:
                answers += [error] * params.n
                continue
            for _ in range(params.n):
                seed = None if params.seed is None else params.seed + len(answers)
                try:
                    answers.append(Answer(model, tokens, params, seed))
                except AdapterError as error:
                    answers.append(error)
        good = [answer for answer in answers if isinstance(answer, Answer)]
        for _ in generate(model, good, params, self._opts.max_batch_tokens):
            pass
        return [
            answer.error or answer.completion(params.logprobs)
            if isinstance(answer, Answer)
            else answer
            for answer in answers
        ]

    def stream(self, prompt: Prompt, params: SamplingParams) -> Iterator[CompletionChunk]:
        model = self._model(params.model)
        prompt_tokens = tokens_of(model, prompt, reply=True)
        answer = Answer(model, prompt_tokens, params, params.seed, shown=True)
        shown = 0
        for _ in generate(model, [answer], params, self._opts.max_batch_tokens):
            if answer.error is not None:
                raise answer.error
            text = answer.text_shown
            yield CompletionChunk(
                text=text[shown:],
                tokens=np.array(answer.tokens[-1:], np.int64),
                logprobs=np.array(answer.logprobs[-1:], np.float32) if params.logprobs else None,
                finish_reason=answer.finish_reason,
            )
            shown = len(text)

    @torch.inference_mode()
    def score(self, sequences: Sequence[Prompt], model: str | None) -> list[FloatArray]:
        language = self._model(model)
        tokens = [tokens_of(language, sequence, reply=False) for sequence in sequences]
        for index, ids in enumerate(tokens):
            _check_sequence(language, ids, f"sequence {index}")
        scored = [index for index, ids in enumerate(tokens) if len(ids) > 1]
        batch = pieces(
            [tokens[index][:-1] for index in scored],
            [tokens[index][1:] for index in scored],
            min(self._opts.max_batch_tokens, SCORED_TOKENS),
            steady=language.steady,
        )
        flat = []
        for piece in batch:
            with language.lock:
                flat.append(target_logprobs(language, piece).cpu().numpy())
        result = [np.zeros(0, np.float32) for _ in tokens]
        for index, logprobs in zip(scored, by_row(batch, flat), strict=True):
            result[index] = logprobs
        return result

    def tokenizer(self, model: str | None) -> HuggingFaceTokenizer:
        return self._model(model).need_tokenizer()

    def _model(self, name: str | None) -> LanguageModel:
        """Return the model of this name; load it if necessary."""
        opts = self._opts
        use_threads(opts.threads)
        name = name if name is not None else opts.model
        if name is None:
            raise InvalidInput("no model: set the option `model`, or SamplingParams.model")
        if name.startswith(live_weights.PREFIX):
            return live_weights.find(name)
        revision = opts.revision if name == opts.model else None
        with self._loading:
            if name not in self._loaded:
                self._loaded[name] = loading.load(opts, name, revision=revision, seed=opts.seed)
                if len(self._loaded) > opts.max_loaded_models:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(name)
            return self._loaded[name]


def tokens_of(model: LanguageModel, prompt: Prompt, *, reply: bool) -> IntArray:
    """Return a prompt's token ids, `(n,)`; messages go through the model's chat template.

    Args:
        model: whose tokenizer to use.
        prompt: messages, token ids or a `ModelInput`.
        reply: whether to append the beginning of the model's answer to the messages.

    Raises:
        InvalidInput: it is not a prompt, a message lacks a role or content that is text, or the
            chat template refuses the messages.
        Unsupported: an image, or messages for a model without a tokenizer or chat template.
    """
    if isinstance(prompt, ModelInput):
        return token_array(prompt)
    if isinstance(prompt, Sequence) and prompt and isinstance(prompt[0], Mapping):
        for message in cast("Sequence[object]", prompt):
            _check_message(message)
        ids = model.need_tokenizer().apply_chat_template(prompt, add_generation_prompt=reply)  # type: ignore[arg-type]
        return np.array(ids, np.int64)
    return token_array(ModelInput.from_ints(prompt))  # type: ignore[arg-type]


def _check_message(message: object) -> None:
    # A template would render what is missing as nothing, and a number as its digits.
    match message:
        case {"role": str(), "content": str()}:
            return
    raise InvalidInput(f"a message needs a `role` and a `content`, both text: {message!r:.200}")


def _check_sequence(model: LanguageModel, tokens: IntArray, where: str) -> None:
    try:
        check_tokens(model, tokens)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error.reason}") from None
    # The last token is predicted, not read.
    if model.context is not None and len(tokens) - 1 > model.context:
        raise InvalidInput(
            f"{where} has {len(tokens)} tokens, the model's context is {model.context}"
        )
