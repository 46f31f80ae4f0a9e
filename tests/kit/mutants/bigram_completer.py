"""A completer whose numbers are right: it samples from a bigram model over bytes.

The mutants of sampling are made of it, since the noop has words and no distribution.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from crucible_kitchen import (
    AdapterError,
    AdapterOptions,
    Completion,
    FinishReason,
    FloatArray,
    InvalidInput,
    ModelInput,
    NotFound,
    Prompt,
    SamplingParams,
    Usage,
    hookimpl,
)
from numpy.typing import NDArray

Floats = NDArray[np.float64]

VOCABULARY = 258
END, TURN = 256, 257


class Options(AdapterOptions):
    context_length: int = 512
    """Most tokens of a prompt and its completion."""


def _weights() -> Floats:
    weights = 2 * np.random.default_rng(0).normal(size=(VOCABULARY, VOCABULARY))
    weights[:, 32:127] += 3  # mostly text
    weights[:, END] += 4
    return weights


WEIGHTS = _weights()


@hookimpl
def complete(opts: Options, prompt: Prompt, params: SamplingParams) -> Completion:
    return _complete(opts, prompt, params, _first_seed(params))


@hookimpl
def complete_batch(
    opts: Options, prompts: Sequence[Prompt], params: SamplingParams
) -> list[Completion | AdapterError]:
    seed = _first_seed(params)
    results: list[Completion | AdapterError] = []
    for prompt in prompts:
        for _ in range(params.n):
            try:
                results.append(_complete(opts, prompt, params, seed + len(results)))
            except AdapterError as error:
                results.append(error)
    return results


@hookimpl
def score(opts: Options, sequences: Sequence[Prompt], model: str | None) -> list[FloatArray]:
    _check_model(model)
    scores = []
    for sequence in sequences:
        ids = _read(sequence)
        found = [_logprobs(ids[:size])[ids[size]] for size in range(1, len(ids))]
        scores.append(np.array(found, np.float32))
    return scores


def _first_seed(params: SamplingParams) -> int:
    return secrets.randbits(60) if params.seed is None else params.seed


def _complete(opts: Options, prompt: Prompt, params: SamplingParams, seed: int) -> Completion:
    _check_model(params.model)
    ids = _read(prompt)
    given, room = len(ids), opts.context_length - len(ids)
    if room < 1:
        raise InvalidInput(f"the prompt has {given} tokens, the context {opts.context_length}")
    digest = hashlib.sha256(str(seed).encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
    ends = set() if params.stop == () else {END}
    ends |= {stop for stop in params.stop or () if isinstance(stop, int)}
    strings = [stop for stop in params.stop or () if isinstance(stop, str)]
    tokens: list[int] = []
    logprobs: list[float] = []
    reason: FinishReason = "length"
    text = ""
    while len(tokens) < min(params.max_tokens, room):
        known = _logprobs([*ids, *tokens])
        tokens.append(_choose(known, params, generator))
        logprobs.append(known[tokens[-1]])
        if tokens[-1] in ends:
            reason = "stop"
            break
        text = _text(tokens)
        if places := [text.index(stop) for stop in strings if stop in text]:
            text, reason = text[: min(places)], "stop"
            break
    return Completion(
        text=text,
        tokens=np.array(tokens, np.int64),
        logprobs=np.array(logprobs, np.float32) if params.logprobs else None,
        finish_reason=reason,
        usage=Usage(given, len(tokens)),
    )


def _choose(logprobs: Floats, params: SamplingParams, generator: np.random.Generator) -> int:
    if params.temperature == 0:
        return int(logprobs.argmax())
    scaled = logprobs / params.temperature
    order = np.argsort(-scaled, kind="stable")
    if params.top_k > 0:
        order = order[: params.top_k]
    shares = np.exp(scaled[order] - scaled[order[0]])
    sums = np.cumsum(shares / shares.sum())
    kept = int(np.searchsorted(sums, params.top_p)) + 1
    place = int(np.searchsorted(sums[:kept] / sums[:kept][-1], generator.random(), "right"))
    return int(order[min(place, len(order) - 1)])


def _logprobs(ids: Sequence[int]) -> Floats:
    """Return the log probability of each token after these, `(V,)`, in nats."""
    all_of_it = sum((place + 1) * token for place, token in enumerate(ids)) % VOCABULARY
    logits = WEIGHTS[ids[-1]] + 0.5 * WEIGHTS[all_of_it]
    logits = logits - logits.max()
    found: Floats = logits - np.log(np.exp(logits).sum())
    return found


def _text(tokens: Sequence[int]) -> str:
    return bytes(token for token in tokens if token < END).decode("utf-8", "replace")


def _check_model(model: str | None) -> None:
    if model is not None:
        raise NotFound(f"no model {model!r}; there is one, without a name")


def _read(prompt: Any) -> list[int]:
    if isinstance(prompt, ModelInput):
        ids = prompt.to_ints()
    elif isinstance(prompt, str) or not isinstance(prompt, Sequence | np.ndarray):
        raise InvalidInput(f"a prompt is messages, token ids or a ModelInput, not {prompt!r}")
    elif len(prompt) and isinstance(prompt[0], Mapping):
        ids = [token for message in prompt for token in _turn(message)] + [TURN]
    else:
        ids = [_token(each) for each in prompt]
    if not ids:
        raise InvalidInput("the prompt is empty")
    if min(ids) < 0 or max(ids) >= VOCABULARY:
        raise InvalidInput(f"token ids are 0 to {VOCABULARY - 1}")
    return ids


def _turn(message: Any) -> list[int]:
    try:
        role, content = message["role"].encode(), message["content"].encode()
    except (TypeError, KeyError, AttributeError):
        raise InvalidInput(f"a message has a role and content that are text: {message!r}") from None
    return [TURN, *role, ord("\n"), *content]


def _token(each: Any) -> int:
    if isinstance(each, bool) or not isinstance(each, int | np.integer):
        raise InvalidInput(f"a token id is an integer, not {each!r}")
    return int(each)
