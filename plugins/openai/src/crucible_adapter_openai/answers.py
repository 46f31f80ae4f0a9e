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
        Unsupported: it lacks token ids or log probabilities that were asked for, or holds what is
            no text.
        Unavailable: the server broke off.
        AdapterError: it is no completion.
    """
    choice = _choice(answer)
    if choice is None:
        raise AdapterError(f"the server answered without a completion: {answer!r:.300}")
    part = _part(choice, request)
    if request.tokens and part.tokens is None:
        raise _no_tokens()
    if request.logprobs and part.logprobs is None:
        raise _no_logprobs()
    stops = StopStrings(request.stop)
    text = stops.feed(part.text) + stops.flush()
    return Completion(
        text=text,
        tokens=part.tokens,
        logprobs=part.logprobs,
        finish_reason="stop" if stops.found else _finish_reason(part.finish_reason),
        usage=_usage(answer),
        reasoning=part.reasoning or None,
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
            if part.tokens is not None:
                no_tokens = part.tokens[:0]
            if part.logprobs is not None:
                no_logprobs = part.logprobs[:0]
            text = stops.feed(part.text)
            if text or part.reasoning or part.tokens is not None or part.logprobs is not None:
                yield CompletionChunk(
                    text, part.tokens, part.logprobs, reasoning=part.reasoning or None
                )
    yield CompletionChunk(
        stops.flush(),
        no_tokens,
        no_logprobs,
        "stop" if stops.found else _finish_reason(finish_reason),
    )


class _Part(NamedTuple):
    text: str
    reasoning: str
    tokens: IntArray | None
    logprobs: FloatArray | None
    finish_reason: object


def _choice(answer: object) -> Mapping[str, Any] | None:
    """Return the first choice of an answer or of an event.

    Raises:
        Unavailable: it is an error; some gateways send those with status 200, or within a stream.
        AdapterError: it is nothing of OpenAI's protocol.
    """
    match answer:
        case {"error": error} if error:
            raise _error(error)
        case {"choices": [{"error": error}, *_]} if error:
            raise _error(error)
        case {"choices": [Mapping() as choice, *_]}:
            return choice
        case Mapping():
            return None
    raise AdapterError(
        f"the answer is not of OpenAI's protocol; is `base_url` right? It is {answer!r:.300}"
    )


def _error(given: object) -> Unavailable:
    return Unavailable(f"the server answered with an error: {given!r:.300}")


def _part(choice: Mapping[str, Any], request: Request) -> _Part:
    """Read a choice. Any field of it may be null, or missing."""
    said = choice.get("message") or choice.get("delta") or {}
    text, reasoning = _text(choice.get("text") or said.get("content"))
    text = text or _all_text(said.get("refusal"))  # said instead of an answer; it was sampled, too
    # DeepSeek, SGLang and vLLM name it so or so, and some servers say it twice, under both names.
    reasoning = _all_text(said.get("reasoning_content") or said.get("reasoning")) or reasoning
    tokens = _tokens(choice.get("token_ids"))
    logprobs = _logprobs(choice.get("logprobs")) if request.logprobs else None
    if tokens is not None and logprobs is not None and len(tokens) != len(logprobs):
        raise AdapterError(
            f"the server gave {len(logprobs)} log probabilities for {len(tokens)} tokens"
        )
    if text or reasoning or tokens or logprobs:
        if request.tokens and not tokens:
            raise _no_tokens()
        if request.logprobs and not logprobs:
            raise _no_logprobs()
    return _Part(
        text=text,
        reasoning=reasoning,
        tokens=None if tokens is None else np.asarray(tokens, np.int64),
        logprobs=None if logprobs is None else np.asarray(logprobs, np.float32),
        finish_reason=choice.get("finish_reason"),
    )


def _all_text(content: object) -> str:
    return "".join(_text(content))


def _text(content: object) -> tuple[str, str]:
    """Return the text of a content, and the thoughts among its parts.

    A content is text, null, or a list of parts: text, a refusal, thoughts (of Mistral's models,
    a list of parts again), or what no text can hold.

    Raises:
        Unsupported: there is such a part.
    """
    match content:
        case None:
            return "", ""
        case str():
            return content, ""
        case [*parts]:
            each = [_text(part) for part in parts]
            return "".join(text for text, _ in each), "".join(thought for _, thought in each)
        case {"type": "text" | "output_text", "text": text}:
            return _text(text)
        case {"text": text, **others} if "type" not in others:
            return _text(text)
        case {"type": "refusal", "refusal": text}:
            return _text(text)
        case {"type": "thinking", "thinking": thoughts}:
            return "", _all_text(thoughts)
    kind = content.get("type") if isinstance(content, Mapping) else content
    raise Unsupported(f"the answer holds what is no text, {kind!r:.100}; a completion is text")


def _tokens(given: Any) -> list[int] | None:
    match given:
        case None:
            return None
        case [*ids] if all(type(each) is int and each >= 0 for each in ids):
            return ids
    raise AdapterError(f"the server gave what are no token ids: {given!r:.200}")


def _logprobs(given: object) -> list[float] | None:
    """Return the log probability of each token, or None where the server gives none.

    Raises:
        AdapterError: one of them is none. A number in its place would be trained on.
    """
    match given:
        case {"token_logprobs": [*values]}:  # of completions
            pass
        case {"content": [*tokens]} | {"refusal": [*tokens]}:  # of chat completions
            values = [each.get("logprob") if isinstance(each, Mapping) else each for each in tokens]
        case _:
            return None
    for index, value in enumerate(values):
        if not _is_logprob(value):
            raise AdapterError(
                f"the server gave {value!r:.100} as the log probability of token {index} of "
                f"{len(values)}, which is no log probability"
            )
    return values


def _is_logprob(value: object) -> bool:
    # OpenAI's protocol has -9999 for a token that is not among the most likely ones. Rounding may
    # lead a little above 0. A boolean is an int.
    return isinstance(value, int | float) and value is not False and -9999 < value < 1e-3


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
