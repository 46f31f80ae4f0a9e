"""What the spans of a completer's calls say: the request, how much was sampled, why it ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ..types import Completion, CompletionChunk, SamplingParams
from .spans import Span

REPORTED_FIELDS = ("max_tokens", "temperature", "top_p", "top_k", "seed", "n")
"""The fields of `SamplingParams` that observers receive; `stop` is text of the user's."""


def request_attributes(opts: Any, callback: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the sampling parameters, the number of prompts and their kind."""
    params = arguments.get("params")
    if not isinstance(params, SamplingParams):
        return {}
    default = getattr(opts, "model", None)
    attributes: dict[str, Any] = {
        "model": params.model or (default if isinstance(default, str) else None),
        **{name: getattr(params, name) for name in REPORTED_FIELDS},
    }
    prompts = arguments.get("prompts", [arguments.get("prompt")])
    if isinstance(prompts, list | tuple) and prompts:
        attributes |= {"prompts": len(prompts), "prompt_kind": _kind(prompts[0])}
    if callback == "stream_complete":
        attributes["stream"] = True
    return attributes


def result_attributes(callback: str, result: Any) -> Mapping[str, Any]:
    """Return token counts and finish reasons, added up; for a batch, how many items failed."""
    results = result if isinstance(result, list) else [result]
    completions = [each for each in results if isinstance(each, Completion)]
    if not completions:
        return {"failed": len(results)} if callback == "complete_batch" else {}
    attributes: dict[str, Any] = {
        "finish_reasons": dict(Counter(str(each.finish_reason) for each in completions))
    }
    usages = [each.usage for each in completions if each.usage is not None]
    if usages:
        attributes["prompt_tokens"] = sum(usage.prompt_tokens for usage in usages)
        attributes["completion_tokens"] = sum(usage.completion_tokens for usage in usages)
    if callback == "complete_batch":
        attributes["failed"] = len(results) - len(completions)
    return attributes


def item_observer(span: Span) -> Callable[[CompletionChunk], None]:
    """Return a function that counts the tokens of chunks and keeps the finish reason."""
    tokens = 0

    def observe(chunk: CompletionChunk) -> None:
        nonlocal tokens
        if chunk.tokens is not None:
            tokens += len(chunk.tokens)
            span.set(completion_tokens=tokens)
        if chunk.finish_reason is not None:
            span.set(finish_reasons={str(chunk.finish_reason): 1})

    return observe


def _kind(prompt: Any) -> str:
    messages = isinstance(prompt, list | tuple) and prompt and isinstance(prompt[0], Mapping)
    return "messages" if messages else "tokens"
