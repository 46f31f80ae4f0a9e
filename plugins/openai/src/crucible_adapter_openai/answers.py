"""Answers of OpenAI's protocol, whole and in pieces, as completions.

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
    FinishReason,
    FloatArray,
    IntArray,
    Unavailable,
    Unsupported,
    Usage,
)

from .requests import Request
from .said import shown
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

_LOGPROBS = ("token_logprobs", "content", "refusal")

_TOO_LARGE = 2**31
"""Token ids and counts of tokens are smaller."""


def read(answer: object, request: Request) -> Completion:
    """Return the completion of a whole answer.

    Raises:
        Unsupported: token ids or log probabilities that were requested are missing, or the answer
            holds something other than text.
        Unavailable: the server broke off.
        AdapterError: the answer is not a completion.
    """
    choice = _choice(answer)
    if choice is None:
        raise AdapterError(f"the server answered without a completion: {shown(answer)}")
    part = _part(choice, request, left=request.max_tokens)
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
    """Yield the completion of a streamed answer as it arrives; closing it closes the events.

    Raises:
        Unavailable: the stream ended before the completion did. Otherwise as `read`.
    """
    stops = StopStrings(request.stop)
    finish_reason: str | None = None
    left = request.max_tokens
    no_tokens: IntArray | None = None
    no_logprobs: FloatArray | None = None
    with closing(events):
        for event in events:
            choice = _choice(event)
            if choice is None:  # an event that only has the usage
                continue
            part = _part(choice, request, left)
            left -= part.sampled
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
    finish_reason: str | None

    @property
    def sampled(self) -> int:
        """The number of its tokens, or 0 if the server does not say."""
        return max(
            (len(each) for each in (self.tokens, self.logprobs) if each is not None), default=0
        )


def _choice(answer: object) -> Mapping[str, Any] | None:
    """Return the choice of an answer or an event, or None for an event without one.

    Raises:
        Unavailable: it is an error; some gateways send errors with status 200, or in a stream.
        AdapterError: it is not of OpenAI's protocol, or not the one choice that was requested.
    """
    match answer:
        case {"error": error} if error:
            raise _error(error)
        case {"choices": [{"error": error}, *_]} if error:
            raise _error(error)
        case {"choices": [Mapping() as choice]}:
            index = choice.get("index")
            if index is not None and (type(index) is not int or index != 0):
                raise AdapterError(
                    f"the server sent choice {shown(index)}; only choice 0 was requested"
                )
            return choice
        case {"choices": [_, _, *_] as choices}:
            raise AdapterError(f"the server sent {len(choices)} choices; one was requested")
        case {"choices": None | []}:
            return None
        case {"choices": choices}:
            raise AdapterError(f"the server sent invalid choices: {shown(choices)}")
        case Mapping():
            return None
    raise AdapterError(
        f"the answer is not of OpenAI's protocol; is `base_url` right? It is: {shown(answer)}"
    )


def _error(given: object) -> Unavailable:
    return Unavailable(f"the server answered with an error: {shown(given)}")


def _part(choice: Mapping[str, Any], request: Request, left: int) -> _Part:
    """Read a choice of at most `left` tokens. Any of its fields may be null, or missing."""
    said = _given(choice.get("message"), choice.get("delta"))
    if not isinstance(said, Mapping | None):
        raise AdapterError(f"the server sent an invalid message: {shown(said)}")
    said = said or {}
    text, reasoning = _text(_given(choice.get("text"), said.get("content")))
    text = text or _plain(said.get("refusal"))  # in place of an answer; sampled as well
    # The name differs between DeepSeek, SGLang and vLLM; some servers send both.
    named = _given(said.get("reasoning_content"), said.get("reasoning"))
    reasoning = "".join(_text(named)) or reasoning
    tokens = _tokens(choice.get("token_ids"))
    logprobs = _logprobs(choice.get("logprobs")) if request.logprobs else None
    if tokens is not None and logprobs is not None and len(tokens) != len(logprobs):
        raise AdapterError(
            f"the server sent {len(logprobs)} log probabilities for {len(tokens)} tokens"
        )
    if text or reasoning or tokens or logprobs:
        if request.tokens and not tokens:
            raise _no_tokens()
        if request.logprobs and not logprobs:
            raise _no_logprobs()
    part = _Part(
        text=text,
        reasoning=reasoning,
        tokens=None if tokens is None else np.asarray(tokens, np.int64),
        logprobs=None if logprobs is None else np.asarray(logprobs, np.float32),
        finish_reason=_reason(choice.get("finish_reason")),
    )
    if part.sampled > left:
        raise AdapterError(
            f"the server sent more than the {request.max_tokens} tokens that were requested"
        )
    return part


def _given(*values: object) -> object:
    """Return the first value that is not null, missing or empty text."""
    return next((value for value in values if value is not None and value != ""), None)


def _text(content: object) -> tuple[str, str]:
    """Return the text of a content, and its reasoning.

    A content is text, null, or a list of parts: text, a refusal, reasoning (of Mistral's models,
    again a list of parts), or something that is not text.

    Raises:
        Unsupported: a part is not text.
        AdapterError: a text is not Unicode.
    """
    match content:
        case [*parts]:
            each = [_of_part(part) for part in parts]
            return "".join(text for text, _ in each), "".join(thought for _, thought in each)
        case Mapping():
            return _of_part(content)
    return _plain(content), ""


def _of_part(part: object) -> tuple[str, str]:
    match part:
        case {"type": "text" | "output_text", "text": text}:
            return _plain(text), ""
        case {"text": text, **others} if "type" not in others:
            return _plain(text), ""
        case {"type": "refusal", "refusal": text}:
            return _plain(text), ""
        case {"type": "thinking", "thinking": [*thoughts]}:
            return "", "".join(
                _plain(each.get("text") if isinstance(each, Mapping) else each) for each in thoughts
            )
        case {"type": "thinking", "thinking": thoughts}:
            return "", _plain(thoughts)
        case {"type": kind}:
            raise _no_text(kind)
    return _plain(part), ""


def _plain(text: object) -> str:
    """Return a text; null is "".

    Raises:
        Unsupported: it is neither text nor null.
        AdapterError: it has half of a character, which no file or tokenizer accepts.
    """
    if text is None:
        return ""
    if not isinstance(text, str):
        raise _no_text(text)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise AdapterError(
            f"the server sent text with a lone surrogate, half of a character: {shown(text)}"
        ) from None
    return text


def _no_text(what: object) -> Unsupported:
    return Unsupported(f"the answer holds {shown(what)}, which is not text; a completion is text")


def _tokens(given: Any) -> list[int] | None:
    match given:
        case None:
            return None
        case [*ids] if all(type(each) is int and 0 <= each < _TOO_LARGE for each in ids):
            return ids
    raise AdapterError(f"the server sent invalid token ids: {shown(given)}")


def _logprobs(given: object) -> list[float] | None:
    """Return the log probability of each token, or None if the server sends none.

    Raises:
        AdapterError: one of them is invalid. A number in its place would be trained on.
    """
    match given:
        case {"token_logprobs": [*values]}:  # of completions
            pass
        case {"content": [*tokens]} | {"refusal": [*tokens]}:  # of chat completions
            values = [each.get("logprob") if isinstance(each, Mapping) else each for each in tokens]
        case None:
            return None
        case Mapping() if all(given.get(field) is None for field in _LOGPROBS):
            return None
        case _:
            raise AdapterError(f"the server sent invalid log probabilities: {shown(given)}")
    for index, value in enumerate(values):
        if not _is_logprob(value):
            raise AdapterError(
                f"the server sent {shown(value)} as the log probability of token {index} of "
                f"{len(values)}, which is not one"
            )
    return values


def _is_logprob(value: object) -> bool:
    # OpenAI's protocol uses -9999 for a token that is not among the most likely ones. Rounding may
    # give slightly more than 0. A boolean is an int.
    return isinstance(value, int | float) and value is not False and -9999 < value < 1e-3


def _reason(given: object) -> str | None:
    """Return a finish reason as the server calls it; some servers send '' until they have one."""
    if given is None or given == "":
        return None
    if not isinstance(given, str):
        raise AdapterError(f"the server sent an invalid finish reason: {shown(given)}")
    return given


def _finish_reason(given: str | None) -> FinishReason:
    if given is None:
        raise Unavailable("the server broke off without a finish reason")
    reason = _FINISH_REASONS.get(given)
    if reason is None:  # "abort" of vLLM and SGLang, "insufficient_system_resource" of DeepSeek
        raise Unavailable(f"the server broke off: its finish reason is {shown(given)}")
    return reason


def _usage(answer: object) -> Usage | None:
    """Return the numbers of tokens read and written, or None unless the server sends both.

    Raises:
        AdapterError: they are not numbers of tokens.
    """
    usage = answer.get("usage") if isinstance(answer, Mapping) else None
    if not isinstance(usage, Mapping | None):
        raise AdapterError(f"the server sent an invalid usage: {shown(usage)}")
    counts = [(usage or {}).get(field) for field in ("prompt_tokens", "completion_tokens")]
    for count in counts:
        if count is not None and not (type(count) is int and 0 <= count < _TOO_LARGE):
            raise AdapterError(f"the server sent an invalid number of tokens: {shown(count)}")
    read, written = counts
    return None if read is None or written is None else Usage(read, written)


def _no_tokens() -> Unsupported:
    return Unsupported(
        "the server ignored `return_token_ids`, so a prompt of token ids cannot be answered with "
        "token ids; vLLM has it since 0.10.2"
    )


def _no_logprobs() -> Unsupported:
    return Unsupported("the server ignored `logprobs`: its answer has none")
