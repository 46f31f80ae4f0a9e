"""From prompts to completions and scores: find the model, tokenize, ask the engine."""

from __future__ import annotations

import asyncio
import queue
import threading
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from crucible_kitchen import (
    AdapterError,
    Completion,
    CompletionChunk,
    FloatArray,
    InvalidInput,
    Prompt,
    SamplingParams,
)

from . import answers, requests
from .described import LIVE, Model, describe
from .engine import Engine, Serving
from .failures import refused
from .tokenizer import HuggingFaceTokenizer

if TYPE_CHECKING:
    from vllm import SamplingParams as VllmParams
    from vllm.outputs import RequestOutput

    from .options import Options

T = TypeVar("T")

IN_FLIGHT = 1024
"""The most requests of one batch that are in the engine at a time, computed or waiting."""


class Sampler:
    """Asks one engine, which it starts when it is first needed. Thread-safe."""

    def __init__(self, opts: Options) -> None:
        self._opts = opts
        self._engine = Engine(opts)
        self._described: dict[str, Model] = {}
        self._describing = threading.Lock()

    def complete(self, prompt: Prompt, params: SamplingParams) -> Completion:
        model = self._model(params.model)
        requests.check(model, params)
        tokens = requests.tokens_of(model, prompt, reply=True)
        return self._engine.run(self._complete(model, tokens, params))

    async def _complete(
        self, model: Model, tokens: list[int], params: SamplingParams
    ) -> Completion:
        async with self._engine.serving(model) as now:
            return await self._answer(now, model, tokens, params, params.seed)

    def complete_batch(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[Completion | AdapterError]:
        model = self._model(params.model)
        requests.check(model, params)
        if not len(prompts):
            return []
        read: list[list[int] | AdapterError] = []
        for prompt in prompts:
            try:
                read.append(requests.tokens_of(model, prompt, reply=True))
            except AdapterError as error:
                read.append(error)
        return self._engine.run(self._complete_all(model, read, params))

    async def _complete_all(
        self, model: Model, read: Sequence[list[int] | AdapterError], params: SamplingParams
    ) -> list[Completion | AdapterError]:
        bound = asyncio.Semaphore(IN_FLIGHT)

        async def one(index: int, now: Serving) -> Completion | AdapterError:
            tokens = read[index // params.n]
            if isinstance(tokens, AdapterError):
                return tokens
            seed = None if params.seed is None else params.seed + index
            async with bound:
                try:
                    return await self._answer(now, model, tokens, params, seed)
                except AdapterError as error:
                    return error

        async with self._engine.serving(model) as now:
            return await _together(one(k, now) for k in range(len(read) * params.n))

    def stream(self, prompt: Prompt, params: SamplingParams) -> Iterator[CompletionChunk]:
        model = self._model(params.model)
        tokens = requests.tokens_of(model, prompt, reply=True)
        asked = requests.sampling(model, params, params.seed, whole=False)
        chunks: queue.SimpleQueue[CompletionChunk | None] = queue.SimpleQueue()

        # It goes on while the caller does not look, so that it never keeps weights from changing.
        async def pump() -> None:
            try:
                async with self._engine.serving(model) as now:
                    _check_room(tokens, now.context)
                    async for output in _outputs(now, tokens, asked):
                        chunks.put(answers.chunk(output, now.version, params.logprobs))
            finally:
                chunks.put(None)

        running = self._engine.submit(pump())
        try:
            while (chunk := chunks.get()) is not None:
                yield chunk
            running.result()
        finally:
            running.cancel()

    def score(self, sequences: Sequence[Prompt], model: str | None) -> list[FloatArray]:
        described = self._model(model)
        read = []
        for index, sequence in enumerate(sequences):
            try:
                read.append(requests.tokens_of(described, sequence, reply=False))
            except InvalidInput as error:
                raise InvalidInput(f"sequence {index}: {error.reason}") from None
        return self._engine.run(self._score_all(described, read)) if read else []

    async def _score_all(self, model: Model, read: Sequence[list[int]]) -> list[FloatArray]:
        bound = asyncio.Semaphore(IN_FLIGHT)

        async def one(tokens: list[int], now: Serving) -> FloatArray:
            if len(tokens) == 1:
                return np.zeros(0, np.float32)
            async with bound:
                asked = requests.scoring(tokens[-1])
                output = await _output(now, tokens[:-1], asked)
                return answers.score(output, tokens[-1], now.version)

        async with self._engine.serving(model) as now:
            for index, tokens in enumerate(read):
                if len(tokens) > now.context:
                    raise InvalidInput(
                        f"sequence {index} has {len(tokens)} tokens, and the engine reads "
                        f"{now.context}"
                    )
            return await _together(one(tokens, now) for tokens in read)

    def tokenizer(self, model: str | None) -> HuggingFaceTokenizer:
        return self._model(model).tokenizer

    def close(self) -> None:
        self._engine.close()

    async def _answer(
        self,
        now: Serving,
        model: Model,
        tokens: list[int],
        params: SamplingParams,
        seed: int | None,
    ) -> Completion:
        _check_room(tokens, now.context)
        asked = requests.sampling(model, params, seed, whole=True)
        output = await _output(now, tokens, asked)
        return answers.completion(output, now.version, params.logprobs)

    def _model(self, name: str | None) -> Model:
        """Return what is known of the model of this name."""
        opts = self._opts
        name = name if name is not None else opts.model
        if name is None:
            raise InvalidInput("no model: set the option `model`, or SamplingParams.model")
        if name.startswith(LIVE):  # it may have been withdrawn since
            return describe(name, None, opts.trust_remote_code)
        with self._describing:
            if name not in self._described:
                revision = opts.revision if name == opts.model else None
                self._described[name] = describe(name, revision, opts.trust_remote_code)
            return self._described[name]


def _check_room(tokens: Sequence[int], context: int) -> None:
    if len(tokens) >= context:
        raise InvalidInput(
            f"the prompt has {len(tokens)} tokens and the context is {context}: there is no room "
            "for an answer"
        )


async def _output(now: Serving, tokens: list[int], asked: VllmParams) -> RequestOutput:
    """Return the last output of a request."""
    last = None
    async for output in _outputs(now, tokens, asked):
        last = output
    if last is None:
        raise AdapterError("vLLM gave no answer")
    return last


async def _outputs(
    now: Serving, tokens: list[int], asked: VllmParams
) -> AsyncIterator[RequestOutput]:
    """Yield the outputs of a request. Leaving early ends it in the engine."""
    from vllm.inputs import tokens_input

    outputs = now.llm.generate(tokens_input(tokens), asked, request_id=uuid.uuid4().hex)
    try:
        async for output in outputs:
            yield output
    except Exception as error:
        raise refused(error) from error
    finally:
        await outputs.aclose()


async def _together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines side by side; return their results in order. The first failure ends all."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
