"""Complete anything with made-up words.

A completion is a function of the prompt and the seed. Tokens are those of `CharTokenizer`,
logprobs those of `kitchen_noop.language_model`, so they equal the noop training client's.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from crucible_kitchen import (
    AdapterError,
    Completion,
    CompletionChunk,
    EncodedTextChunk,
    FinishReason,
    FloatArray,
    InvalidInput,
    Message,
    ModelInput,
    Prompt,
    SamplingParams,
    Usage,
    helper,
    hookimpl,
)
from pydantic import Field

from .conditions import Conditions, fault, pause, round_trip, synthetic  # noqa: F401
from .language_model import LEAST_PROBABILITY, Weights, logprobs
from .published import find
from .tokenizer import TOKENIZER, CharTokenizer

_REQUEST_LATENCY = 0.005
_TOKEN_LATENCY = 0.0001
"""Seconds. A batch takes as long as its longest completion: its requests run in parallel."""

_CHUNK = 8
"""Tokens in a piece of a streamed completion."""

_WORDS = ("add", "both", "numbers", "carry", "one", "then", "check", "so", "the", "sum", "is")


class Options(Conditions):
    completion_text: str | None = None
    """Text of every completion; unset, words chosen by prompt and seed."""
    context_length: int = Field(default=32768, ge=2)
    """Limit of the tokens of a prompt and its completion together."""
    model: str = "noop"
    """Model of requests that do not name one."""


@hookimpl
def complete(opts: Options, prompt: Prompt, params: SamplingParams) -> Completion:
    completion = _complete(opts, prompt, params, _seed(params))
    round_trip(opts, _seconds(completion))
    return completion


@hookimpl
def complete_batch(
    opts: Options, prompts: Sequence[Prompt], params: SamplingParams
) -> list[Completion | AdapterError]:
    seed = _seed(params)
    results: list[Completion | AdapterError] = []
    for prompt in prompts:
        for _ in range(params.n):
            try:
                completion = _complete(opts, prompt, params, seed + len(results))
                results.append(fault(opts) or completion)
            except AdapterError as error:  # the result of this prompt alone
                results.append(error)
    pause(opts, max((_seconds(r) for r in results if isinstance(r, Completion)), default=0.0))
    return results


@hookimpl
def stream_complete(
    opts: Options, prompt: Prompt, params: SamplingParams
) -> Iterator[CompletionChunk]:
    whole = _complete(opts, prompt, params, _seed(params))
    assert whole.tokens is not None
    round_trip(opts, _REQUEST_LATENCY)
    for start in range(0, len(whole.tokens), _CHUNK):
        pause(opts, _CHUNK * _TOKEN_LATENCY)
        piece = slice(start, start + _CHUNK)
        yield CompletionChunk(
            text=whole.text[piece],  # a token is a character, so this is all of the text
            tokens=whole.tokens[piece],
            logprobs=None if whole.logprobs is None else whole.logprobs[piece],
            finish_reason=whole.finish_reason if piece.stop >= len(whole.tokens) else None,
        )


@hookimpl
def score(opts: Options, sequences: Sequence[Prompt], model: str | None) -> list[FloatArray]:
    weights = find(model or opts.model)
    round_trip(opts, _REQUEST_LATENCY)
    tokens = [np.asarray(_read(sequence).to_ints(), np.int64) for sequence in sequences]
    for index, ids in enumerate(tokens):
        if len(ids) - 1 > opts.context_length:  # the last token is predicted, not read
            raise InvalidInput(
                f"sequence {index} has {len(ids)} tokens, the context is {opts.context_length}"
            )
    return [logprobs(weights, ids[1:], np.arange(1, len(ids))) for ids in tokens]


@helper
def get_tokenizer(opts: Options, model: str | None = None) -> CharTokenizer:
    """Return the tokenizer of every noop model."""
    return TOKENIZER


def _complete(opts: Options, prompt: Prompt, params: SamplingParams, seed: int) -> Completion:
    weights = find(params.model or opts.model)
    given = _read(prompt)
    room = opts.context_length - given.length
    if room < 1:
        raise InvalidInput(
            f"the prompt has {given.length} tokens, which leaves no room in a context of "
            f"{opts.context_length}"
        )
    generator = random.Random(f"{_fingerprint(given)}/{'greedy' if _greedy(params) else seed}")
    generated = itertools.islice(_speech(opts, generator), min(params.max_tokens, room))
    return _until_stop(generated, given, params, weights)


def _greedy(params: SamplingParams) -> bool:
    """Say whether there is only one token to choose from."""
    return params.temperature == 0 or params.top_k == 1 or params.top_p <= LEAST_PROBABILITY


def _until_stop(
    generated: Iterator[int], prompt: ModelInput, params: SamplingParams, weights: Weights
) -> Completion:
    # The end token ends every completion, except with `stop=()`.
    ends = set() if params.stop == () else {TOKENIZER.eos_token_id}
    ends |= {stop for stop in params.stop or () if isinstance(stop, int)}
    strings = [stop for stop in params.stop or () if isinstance(stop, str)]
    tokens: list[int] = []
    text = ""
    finish_reason: FinishReason = "length"
    for token in generated:
        tokens.append(token)
        if token in ends:
            finish_reason = "stop"
            break
        text += TOKENIZER.decode([token], skip_special_tokens=True)
        if found := [stop for stop in strings if text.endswith(stop)]:
            text = text.removesuffix(max(found, key=len))
            finish_reason = "stop"
            break
    ids = np.asarray(tokens, np.int64)
    positions = np.arange(prompt.length, prompt.length + len(ids))
    return Completion(
        text=text,
        tokens=ids,
        logprobs=logprobs(weights, ids, positions) if params.logprobs else None,
        finish_reason=finish_reason,
        usage=Usage(prompt_tokens=prompt.length, completion_tokens=len(tokens)),
    )


def _speech(opts: Options, generator: random.Random) -> Iterator[int]:
    """Yield an endless sequence of tokens, with the end token after each sentence."""
    while True:
        text = opts.completion_text
        if text is None:
            words = generator.choices(_WORDS, k=4 + int(8 * generator.random()))
            text = f"{' '.join(words)} {int(200 * generator.random())}"
        yield from TOKENIZER.encode(text)
        yield TOKENIZER.eos_token_id


def _read(prompt: Prompt) -> ModelInput:
    """Return a prompt as the model reads it.

    Raises:
        InvalidInput: it is empty, or not a conversation, token ids or a `ModelInput`.
    """
    if not isinstance(prompt, ModelInput):
        if isinstance(prompt, Sequence) and len(prompt) and isinstance(prompt[0], Mapping):
            prompt = TOKENIZER.apply_chat_template(
                cast("Sequence[Message]", prompt), add_generation_prompt=True
            )
        try:
            prompt = ModelInput.from_ints(cast("Sequence[int]", prompt))
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"a prompt is a list of messages, a list of token ids or a ModelInput: {error}"
            ) from None
    if prompt.length == 0:
        raise InvalidInput("the prompt is empty")
    for chunk in prompt.chunks:
        if isinstance(chunk, EncodedTextChunk) and len(chunk.tokens) and chunk.tokens.min() < 0:
            raise InvalidInput(f"the prompt has the token {chunk.tokens.min()}; ids start at 0")
    return prompt


def _fingerprint(prompt: ModelInput) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for chunk in prompt.chunks:
        digest.update(
            chunk.tokens.astype("<i8").tobytes()
            if isinstance(chunk, EncodedTextChunk)
            else chunk.data
        )
    return digest.hexdigest()


def _seed(params: SamplingParams) -> int:
    return secrets.randbits(63) if params.seed is None else params.seed


def _seconds(completion: Completion) -> float:
    assert completion.usage is not None
    return _REQUEST_LATENCY + _TOKEN_LATENCY * completion.usage.completion_tokens


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import CompleterOptionalSpec, CompleterSpec

    import kitchen_noop.completer as this_module

    _: CompleterSpec[Options] = this_module
    _optional: CompleterOptionalSpec[Options] = this_module
