"""What the engine answers, as the contract's values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from crucible_kitchen import (
    AdapterError,
    Completion,
    CompletionChunk,
    FinishReason,
    FloatArray,
    Unavailable,
    Usage,
)

if TYPE_CHECKING:
    from vllm.outputs import RequestOutput

_FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


def completion(output: RequestOutput, version: str, logprobs: bool) -> Completion:
    """Return a finished answer.

    Args:
        output: of one request for one answer.
        version: of the weights that it has to be sampled from.
        logprobs: whether they were asked for.

    Raises:
        AdapterError: it was sampled from other weights, or a log probability is not finite.
        Unavailable: the engine broke it off.
    """
    choice = output.outputs[0]
    check_version(choice, version)
    tokens = np.array(choice.token_ids, np.int64)
    return Completion(
        text=choice.text,
        tokens=tokens,
        logprobs=_logprobs(choice, len(tokens)) if logprobs else None,
        finish_reason=_finish_reason(choice.finish_reason),
        usage=Usage(len(output.prompt_token_ids or ()), len(tokens)),
    )


def chunk(output: RequestOutput, version: str, logprobs: bool) -> CompletionChunk:
    """Return a piece of an answer, of what is new in it."""
    choice = output.outputs[0]
    if choice.finish_reason is not None:
        check_version(choice, version)
    tokens = np.array(choice.token_ids, np.int64)
    return CompletionChunk(
        text=choice.text,
        tokens=tokens,
        logprobs=_logprobs(choice, len(tokens)) if logprobs else None,
        finish_reason=None
        if choice.finish_reason is None
        else _finish_reason(choice.finish_reason),
    )


def score(output: RequestOutput, last: int, version: str) -> FloatArray:
    """Return the log probabilities of the tokens of a sequence but the first, float32, of the
    answer to a `requests.scoring` of it.
    """
    choice = output.outputs[0]
    check_version(choice, version)
    read: Any = output.prompt_logprobs
    # Of each position the token that is there comes first; the first token has none.
    values = [read.logprobs[start] for start in read.start_indices[1:]]
    of_last: Any = choice.logprobs
    values.append(of_last.logprobs[of_last.token_ids.index(last)])
    return _finite(np.array(values, np.float32))


def check_version(choice: Any, version: str) -> None:
    """Raise `AdapterError` unless the whole answer was sampled from weights of this version."""
    others = {span.version for span in choice.weight_versions or ()} - {version}
    if others:
        raise AdapterError(
            f"the answer was sampled from other weights ({', '.join(sorted(others))}) than those "
            f"that were asked for ({version})"
        )


def _logprobs(choice: Any, count: int) -> FloatArray:
    given = choice.logprobs
    starts = [] if given is None else given.start_indices
    if len(starts) != count:
        raise AdapterError(f"vLLM gave {len(starts)} log probabilities for {count} tokens")
    return _finite(np.array([given.logprobs[start] for start in starts], np.float32))


def _finite(logprobs: FloatArray) -> FloatArray:
    if not np.isfinite(logprobs).all():
        raise AdapterError("the model's output is not finite; its weights have diverged")
    return logprobs


def _finish_reason(given: str | None) -> FinishReason:
    reason = _FINISH_REASONS.get(given or "")
    if reason is None:
        raise Unavailable(f"the engine broke the answer off: its finish reason is {given!r}")
    return reason
