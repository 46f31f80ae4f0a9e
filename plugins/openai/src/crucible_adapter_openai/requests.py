"""What is sent: prompts and sampling parameters as fields of OpenAI's protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from crucible_kitchen import (
    EncodedTextChunk,
    InvalidInput,
    ModelInput,
    Prompt,
    SamplingParams,
    Unsupported,
)

from .options import Options

CHAT = "/chat/completions"
COMPLETIONS = "/completions"

_LIMITS = ("max_tokens", "max_completion_tokens")
"""The names of the limit of tokens. `extra_body` may set another one than the parameters do."""

_NEUTRAL = {
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Values without effect. vLLM and SGLang fill in what a request omits from the model's
generation_config.json. Qwen's, for example, has a top_k of 20 and, in some versions, a repetition
penalty: not what was asked for."""

SEEDS = 2**31
"""Seeds are below this: PyTorch on a CPU, as behind `transformers serve`, reads 32 bits."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, and what its answer must hold.

    Args:
        path: the endpoint, relative to the API's root.
        body: the fields, without `stream`.
        stop: strings at which the text ends.
        tokens: whether the answer must have token ids.
        logprobs: whether the answer must have log probabilities.
        max_tokens: the largest number of tokens the answer may have.
    """

    path: str
    body: Mapping[str, Any]
    stop: tuple[str, ...]
    tokens: bool
    logprobs: bool
    max_tokens: int

    @classmethod
    def of(
        cls,
        opts: Options,
        prompt: Prompt,
        params: SamplingParams,
        sampling: Mapping[str, Any],
        seed: int | None,
    ) -> Request:
        """Make the request for one completion, given the `sampling_fields` of the call.

        Raises:
            InvalidInput: not a prompt.
            Unsupported: a prompt that cannot be sent.
        """
        messages = _messages(prompt)
        if messages is not None:
            path = CHAT
            body = {"messages": messages, opts.max_tokens_field: int(params.max_tokens)}
            logprobs: bool | int = True
        else:
            path = COMPLETIONS
            body = {"prompt": _token_ids(opts, prompt), "max_tokens": int(params.max_tokens)}
            logprobs = 1  # how many per token; some servers read 0 as none
        if params.logprobs:
            body["logprobs"] = logprobs
        if seed is not None:
            body["seed"] = _folded(int(seed))
        body = {**body, **sampling, **opts.extra_body}
        return cls(
            path=path,
            body=body,
            stop=tuple(stop for stop in params.stop or () if isinstance(stop, str)),
            tokens=messages is None,
            logprobs=params.logprobs,
            max_tokens=max(
                (limit for field in _LIMITS if isinstance(limit := body.get(field), int)),
                default=params.max_tokens,
            ),
        )


def _folded(seed: int) -> int:
    """Return a seed that every server reads whole: itself, or a digest of a negative or a large
    one, so that seeds which differ in their sign or by a power of 2 are not one.
    """
    if 0 <= seed < SEEDS:
        return seed
    digest = hashlib.blake2b(str(seed).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % SEEDS


def sampling_fields(opts: Options, params: SamplingParams) -> dict[str, Any]:
    """Return the fields that say how to sample, which depend on neither the prompt nor the seed.

    They are sent even if they equal OpenAI's defaults, because servers have their own.

    Raises:
        InvalidInput: no model is named.
        Unsupported: without `extensions` the protocol has no field for a parameter.
    """
    model = params.model or opts.model
    if model is None:
        raise InvalidInput("no model is named: set the option `model`, or `SamplingParams.model`")
    fields: dict[str, Any] = {
        "model": model,
        "temperature": float(params.temperature),
        "top_p": float(params.top_p),
    }
    extensions: dict[str, Any] = {}
    if params.top_k != -1:
        extensions["top_k"] = int(params.top_k)
    if params.stop == ():
        extensions["ignore_eos"] = True
    elif params.stop and isinstance(params.stop[0], str):
        fields["stop"] = list(params.stop)
    elif params.stop:
        extensions["stop_token_ids"] = [int(stop) for stop in params.stop]
    if opts.extensions:
        return {**fields, **_NEUTRAL, "top_k": -1, "return_token_ids": True, **extensions}
    if extensions:
        raise Unsupported(
            f"OpenAI's protocol has no field {next(iter(extensions))!r}, which "
            f"top_k={params.top_k}, stop={params.stop!r} needs; "
            "set the option `extensions` if the server is vLLM or SGLang"
        )
    return fields


def _messages(prompt: Prompt) -> list[dict[str, Any]] | None:
    """Return a conversation as it is sent, or None for a prompt of token ids."""
    if not (isinstance(prompt, Sequence) and len(prompt) and isinstance(prompt[0], Mapping)):
        return None
    for message in cast("Sequence[Any]", prompt):
        if not (
            isinstance(message, Mapping)
            and isinstance(message.get("role"), str)
            and isinstance(message.get("content"), str)
        ):
            raise InvalidInput(f"a message has a `role` and a `content`, both text: {message!r}")
    return [dict(message) for message in cast("Sequence[Mapping[str, Any]]", prompt)]


def _token_ids(opts: Options, prompt: Prompt) -> list[int]:
    if not isinstance(prompt, ModelInput):
        try:
            prompt = ModelInput.from_ints(cast("Sequence[int]", prompt))
        except InvalidInput as error:
            raise InvalidInput(
                f"a prompt is a list of messages, a list of token ids or a ModelInput: {error}"
            ) from None
    if any(not isinstance(chunk, EncodedTextChunk) for chunk in prompt.chunks):
        raise Unsupported("the prompt holds an image, and completions accept only token ids")
    ids = prompt.to_ints()
    if not ids:
        raise InvalidInput("the prompt is empty")
    if min(ids) < 0:
        raise InvalidInput(f"the prompt has the token {min(ids)}; ids start at 0")
    if not opts.extensions:
        raise Unsupported(
            "a prompt of token ids needs a server that answers with token ids, for which OpenAI's "
            "protocol has no field; set the option `extensions` if the server is vLLM or SGLang"
        )
    return ids
