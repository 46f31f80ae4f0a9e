"""What the server answers, as the contract's values."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
from crucible_kitchen import (
    AdapterError,
    Completion,
    FinishReason,
    FloatArray,
    SamplingParams,
    Unsupported,
    Usage,
)

from ..tokenizer import HuggingFaceTokenizer
from .requests import Stop


def completion(
    sequence: Any,
    prompt: Sequence[int],
    params: SamplingParams,
    stop: Stop,
    tokenizer: HuggingFaceTokenizer,
) -> Completion:
    """Return one answer, ended where the caller said: the server may have gone on.

    Args:
        sequence: the SDK's.
        prompt: token ids of what was asked.
        params: how it was asked.
        stop: where an answer ends.
        tokenizer: of the model.

    Raises:
        Unsupported: log probabilities were asked for and not given, or the server stopped at a
            token though it was told to stop at none.
        AdapterError: an answer that makes no sense.
    """
    given: list[int] = sequence.tokens
    if not given:
        raise AdapterError("the server gave an answer without a token")
    end = next((k + 1 for k, token in enumerate(given) if token in stop.tokens), None)
    tokens, reason = given[:end], _finish_reason(sequence, end is not None, params)
    # A server may leave out the token at which it stopped; then all that it gave is text.
    text = _text(tokenizer, tokens if end is None else tokens[:-1])
    if stop.strings and any(each in text for each in stop.strings):
        tokens, text = _cut(tokenizer, tokens, stop.strings)
        reason = "stop"
    return Completion(
        text=text,
        tokens=np.array(tokens, np.int64),
        logprobs=_logprobs(sequence, len(given))[: len(tokens)] if params.logprobs else None,
        finish_reason=reason,
        usage=Usage(len(prompt), len(tokens)),
    )


def score(logprobs: Sequence[float | None] | None, size: int) -> FloatArray:
    """Return the log probabilities of a sequence's tokens but the first, float32 `(size - 1,)`.

    Args:
        logprobs: of the server: for each token, none or NaN for the first; or for each but it.
        size: how many tokens the sequence has.

    Raises:
        Unsupported: the server gave none.
        AdapterError: they are not as many as the tokens, or not finite.
    """
    if logprobs is None:
        raise Unsupported("this server does not score sequences: it gave no log probabilities")
    if len(logprobs) not in (size - 1, size):
        raise AdapterError(f"the server gave {len(logprobs)} log probabilities for {size} tokens")
    values = logprobs[len(logprobs) - (size - 1) :]
    return _finite(np.array([np.nan if each is None else each for each in values], np.float32))


def _finish_reason(sequence: Any, ended: bool, params: SamplingParams) -> FinishReason:
    said = getattr(sequence.stop_reason, "value", sequence.stop_reason)
    if ended or (said == "stop" and params.stop != ()):
        return "stop"
    if said == "stop":
        raise Unsupported("this server stops at the model's end token, even with `stop=()`")
    if said != "length":
        raise AdapterError(f"the server ended an answer for an unknown reason: {said!r}")
    return "length"


def _text(tokenizer: HuggingFaceTokenizer, tokens: Sequence[int]) -> str:
    return tokenizer.decode(tokens, skip_special_tokens=True)


def _cut(
    tokenizer: HuggingFaceTokenizer, tokens: list[int], strings: Sequence[str]
) -> tuple[list[int], str]:
    """Return the tokens up to the one that completes the first stop string, and the text before it.

    Strings are looked for in the text of growing beginnings, so that how the tokens cut the text
    does not matter; once one has come it stays, so this is a binary search.
    """

    def comes(size: int) -> bool:
        text = _text(tokenizer, tokens[:size])
        return any(each in text for each in strings)

    size = bisect_left(range(len(tokens)), True, key=comes)
    text = _text(tokenizer, tokens[:size])
    first = min(place for each in strings if (place := text.find(each)) >= 0)
    return tokens[:size], text[:first]


def _logprobs(sequence: Any, count: int) -> FloatArray:
    given = sequence.logprobs
    if given is None:
        raise Unsupported("this server gives no log probabilities of what it samples")
    if len(given) != count:
        raise AdapterError(f"the server gave {len(given)} log probabilities for {count} tokens")
    return _finite(np.array(given, np.float32))


def _finite(logprobs: FloatArray) -> FloatArray:
    if not np.isfinite(logprobs).all():
        raise AdapterError("a log probability is not finite; the model's weights have diverged")
    return logprobs
