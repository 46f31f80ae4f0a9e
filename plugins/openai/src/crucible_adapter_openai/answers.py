"""What comes back: answers of OpenAI's protocol, whole and in pieces, as completions.

They are read as plain JSON: with the SDK's typed objects a client makes 11 to 26 % fewer requests/s
(3.57.0, see `server.py`), and the fields that vLLM adds have no types.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
from crucible_kitchen import (
    AdapterError,
    Completion,
    CompletionChunk,
    Unavailable,
    Unsupported,
    Usage,
)
from crucible_kitchen.types import FinishReason, FloatArray, IntArray

from .requests import Request
from .stop_strings import StopStrings

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "tool_calls",  # OpenAI, before there were tools
    "eos_token": "stop",  # text-generation-inference
    "stop_sequence": "stop",  # the same
    "model_length": "length",  # Mistral
}


def read(answer: object, request: Request) -> Completion:
    """Return the completion of a whole answer.

    Raises:
        Unsupported: it lacks token ids or log probabilities that were asked for.
        Unavailable: the server broke off.
        AdapterError: it is no completion.
    """
    choice = _choice(answer)
    if choice is None:
        raise AdapterError(f"the server answered without a completion: {answer!r:.300}")
    part = _part(choice, request)
    stops = StopStrings(request.stop)
    text = stops.feed(part.text) + stops.flush()
    if request.tokens and part.tokens is None:
        raise _no_tokens()
    if request.logprobs and part.logprobs is None:
        raise _no_logprobs()
    return Completion(
        text=text,
        tokens=part.tokens,
        logprobs=part.logprobs,
        finish_reason="stop" if stops.found else _finish_reason(part.finish_reason),
        usage=_usage(answer),
    )


def read_stream(events: Generator[object], request: Request) -> Iterator[CompletionChunk]:
    """Yield the completion of a streamed answer as it comes; closing it closes the events.

    Raises:
        Unavailable: the stream ended, but the completion did not. Otherwise as `read`.
    """
    stops = StopStrings(request.stop)
    finish_reason: object = None
    no_tokens: IntArray | None = None
    no_logprobs: FloatArray | None = None
    with closing(events):
        for event in events:
            choice = _choice(event)
            if choice is None:  # an event of usage alone has none
                continue
            part = _part(choice, request)
            finish_reason = part.finish_reason or finish_reason
            if part.text and request.tokens and part.tokens is None:
                raise _no_tokens()
            if part.text and request.logprobs and part.logprobs is None:
                raise _no_logprobs()
            if part.tokens is not None:
                no_tokens = part.tokens[:0]
            if part.logprobs is not None:
                no_logprobs = part.logprobs[:0]
            text = stops.feed(part.text)
            if text or part.tokens is not None or part.logprobs is not None:
                yield CompletionChunk(text, part.tokens, part.logprobs)
    yield CompletionChunk(
        stops.flush(),
        no_tokens,
        no_logprobs,
        "stop" if stops.found else _finish_reason(finish_reason),
    )


class _Part(NamedTuple):
    text: str
    tokens: IntArray | None
    logprobs: FloatArray | None
    finish_reason: object


def _choice(answer: object) -> Mapping[str, Any] | None:
    """Return the first choice of an answer or of an event.

    Raises:
        Unavailable: it is an error; some gateways send those with status 200.
        AdapterError: it is nothing of OpenAI's protocol.
    """
    match answer:
        case {"choices": [Mapping() as choice, *_]}:
            return choice
        case {"error": error} if error:
            raise Unavailable(f"the server answered with an error: {error!r:.300}")
        case Mapping():
            return None
    raise AdapterError(
        f"the answer is not of OpenAI's protocol; is `base_url` right? It is {answer!r:.300}"
    )


def _part(choice: Mapping[str, Any], request: Request) -> _Part:
    said = choice.get("message") or choice.get("delta") or {}
    logprobs = _logprobs(choice.get("logprobs") or {}) if request.logprobs else None
    tokens = choice.get("token_ids")
    if tokens is not None and logprobs is not None and len(tokens) != len(logprobs):
        raise AdapterError(
            f"the server gave {len(logprobs)} log probabilities for {len(tokens)} tokens"
        )
    return _Part(
        text=choice.get("text") or said.get("content") or "",
        tokens=None if tokens is None else np.asarray(tokens, np.int64),
        logprobs=None if logprobs is None else np.asarray(logprobs, np.float32),
        finish_reason=choice.get("finish_reason"),
    )


def _logprobs(given: Mapping[str, Any]) -> list[float] | None:
    if (values := given.get("token_logprobs")) is not None:  # of completions
        return list(values)
    if (tokens := given.get("content")) is not None:  # of chat completions
        return [token["logprob"] for token in tokens]
    return None


def _finish_reason(given: object) -> FinishReason:
    if given is None:
        raise Unavailable("the server broke off: it gave no finish reason")
    reason = _FINISH_REASONS.get(str(given))
    if reason is None:  # "abort" of vLLM and SGLang, "insufficient_system_resource" of DeepSeek
        raise Unavailable(f"the server broke off: its finish reason is {given!r}")
    return reason


def _usage(answer: object) -> Usage | None:
    match answer:
        case {"usage": {"prompt_tokens": int(read), "completion_tokens": int(written)}}:
            return Usage(read, written)
    return None


def _no_tokens() -> Unsupported:
    return Unsupported(
        "the server ignored `return_token_ids`, so a prompt of token ids cannot be answered with "
        "token ids; vLLM has it since 0.10.2"
    )


def _no_logprobs() -> Unsupported:
    return Unsupported("the server ignored `logprobs`: its answer has none")
