"""From prompts to completions and scores: find the model, tokenize, ask the server."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from crucible_kitchen import (
    AdapterError,
    Completion,
    FloatArray,
    InvalidInput,
    Prompt,
    SamplingParams,
)

from .. import facts, tokenizer
from ..failures import asked
from ..options import CompleterOptions
from ..servers.connection import connect
from ..tokenizer import HuggingFaceTokenizer
from . import answers, requests
from .requests import Reader, Stop
from .samplers import Samplers
from .together import Ask, together


class Sampler:
    """Asks one server. Thread-safe."""

    def __init__(self, opts: CompleterOptions) -> None:
        self._opts = opts
        self._server = connect(opts)
        self._samplers = Samplers(self._server, opts.max_loaded_weights)
        self._offered = self._server.models()
        self._readers: weakref.WeakKeyDictionary[Any, Reader] = weakref.WeakKeyDictionary()
        self._of_base: dict[str, Reader] = {}
        self._reading = threading.Lock()

    def complete(self, prompt: Prompt, params: SamplingParams) -> Completion:
        [result] = self.complete_batch([prompt], params)
        if isinstance(result, AdapterError):
            raise result
        return result

    def complete_batch(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[Completion | AdapterError]:
        """With a seed each completion is a request of its own, since servers do not promise how
        they count the seeds of several that are asked for at once.
        """
        with self._model(params.model) as (client, reader):
            stop = Stop.of(reader, params)
            each = params.n if params.seed is None else 1
            results: list[Completion | AdapterError] = []
            asks: list[Ask] = []
            asked_for: list[tuple[int, list[int]]] = []  # places of the results, and prompts
            for prompt in prompts:
                try:
                    tokens = requests.tokens_of(reader, prompt, reply=True)
                    room = requests.room_for(reader, tokens, params)
                except AdapterError as error:
                    results += [error] * params.n
                    continue
                for _ in range(params.n // each):
                    seed = None if params.seed is None else params.seed + len(results)
                    how = requests.sampling(params, stop, room, seed, self._server.kind)
                    asks.append(partial(client.sample, requests.model_input(tokens), each, how))
                    asked_for.append((len(results), tokens))
                    results += [_MISSING] * each
            found = self._together("nothing was sampled", asks)
        for (place, tokens), answer in zip(asked_for, found, strict=True):
            for k in range(each):
                results[place + k] = _completion(answer, k, tokens, params, stop, reader.tokenizer)
        return results

    def score(self, sequences: Sequence[Prompt], model: str | None) -> list[FloatArray]:
        with self._model(model) as (client, reader):
            read = [_sequence(reader, each, index) for index, each in enumerate(sequences)]
            long = [tokens for tokens in read if len(tokens) > 1]
            asks: list[Ask] = [
                partial(client.compute_logprobs, requests.model_input(tokens)) for tokens in long
            ]
            found = self._together("nothing was scored", asks)
        if failed := next((each for each in found if isinstance(each, AdapterError)), None):
            raise failed
        scored: Iterator[Any] = iter(found)
        return [
            answers.score(next(scored), len(tokens)) if len(tokens) > 1 else np.zeros(0, np.float32)
            for tokens in read
        ]

    def tokenizer(self, model: str | None) -> HuggingFaceTokenizer:
        with self._model(model) as (_, reader):
            return reader.tokenizer

    def ping(self) -> None:
        self._server.models()

    def close(self) -> None:
        self._samplers.close()
        self._server.close()

    def _together(self, what: str, asks: Sequence[Ask]) -> list[Any | AdapterError]:
        return together(
            what,
            asks,
            self._opts.max_concurrency,
            self._server.routes.check_reachable,
            self._opts.lost_after,
        )

    @contextmanager
    def _model(self, name: str | None) -> Iterator[tuple[Any, Reader]]:
        """Keep a model within the block; provide the SDK's client and what the model reads."""
        name = name if name is not None else self._opts.model
        if name is None:
            raise InvalidInput("no model: set the option `model`, or SamplingParams.model")
        with self._samplers.using(name) as client:
            yield client, self._reader(client)

    def _reader(self, client: Any) -> Reader:
        with self._reading:
            if (known := self._readers.get(client)) is not None:
                return known
            base = asked("the server does not say which model it is", client.get_base_model)
            if base not in self._of_base:
                self._of_base[base] = self._read(client, base)
            self._readers[client] = self._of_base[base]
            return self._of_base[base]

    def _read(self, client: Any, base: str) -> Reader:
        known = facts.of_model(base)
        limits = (self._opts.context_length, self._offered.get(base), known.context)
        context = min((limit for limit in limits if limit is not None), default=None)
        found = tokenizer.load(self._opts, client, context, known.vocab_size)
        return Reader(found, known.vocab_size or found.vocab_size, context)


_MISSING = AdapterError("the server did not answer")


def _completion(
    answer: Any,
    k: int,
    prompt: Sequence[int],
    params: SamplingParams,
    stop: Stop,
    tokenizer: HuggingFaceTokenizer,
) -> Completion | AdapterError:
    """Return the completion from sample k of an answer."""
    if isinstance(answer, AdapterError):
        return answer
    if k >= len(answer.sequences):
        return AdapterError(f"the server gave {len(answer.sequences)} samples, not {k + 1} or more")
    try:
        return answers.completion(answer.sequences[k], prompt, params, stop, tokenizer)
    except AdapterError as error:
        return error


def _sequence(reader: Reader, sequence: Prompt, index: int) -> list[int]:
    """Return the token ids of a sequence to score."""
    try:
        tokens = requests.tokens_of(reader, sequence, reply=False)
    except InvalidInput as error:
        raise InvalidInput(f"sequence {index}: {error.reason}") from None
    if reader.context is not None and len(tokens) > reader.context:
        raise InvalidInput(
            f"sequence {index} has {len(tokens)} tokens, and the model reads {reader.context}"
        )
    return tokens
