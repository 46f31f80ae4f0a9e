"""What is asked of the engine: prompts as token ids, and how to sample."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from crucible_kitchen import (
    EncodedTextChunk,
    InvalidInput,
    ModelInput,
    Prompt,
    SamplingParams,
    Unsupported,
)
from vllm import SamplingParams as VllmParams
from vllm.sampling_params import RequestOutputKind

from .described import Model

COLDEST, HOTTEST = 0.01, 2.0
"""vLLM raises temperatures below the first to it, and refuses those above the second."""

SEEDS = 2**63
"""Seeds are below this: -1 is no seed for vLLM, and it takes 64 bits."""


def sampling(model: Model, params: SamplingParams, seed: int | None, whole: bool) -> VllmParams:
    """Return the parameters of one request.

    Args:
        model: who answers.
        params: `n`, `seed` and `model` are not read.
        seed: of its random numbers; with None they are unpredictable.
        whole: whether the answer comes when it is complete, or token by token.

    Raises:
        Unsupported: a temperature that vLLM would replace; stop strings without a tokenizer.
    """
    check(model, params)
    stop = params.stop
    strings = [each for each in stop or () if isinstance(each, str)]
    tokens = [int(each) for each in stop or () if not isinstance(each, str)]
    # The model's own end tokens stay in force next to other stops; only `()` switches them off.
    ends = [] if stop == () else [*model.end_tokens]
    return VllmParams(
        max_tokens=int(params.max_tokens),
        temperature=float(params.temperature),
        top_p=float(params.top_p),
        top_k=0 if params.top_k == -1 else int(params.top_k),
        seed=None if seed is None else _folded(int(seed)),
        stop=strings,
        stop_token_ids=[*ends, *tokens],
        ignore_eos=stop == (),
        logprobs=0 if params.logprobs else None,
        flat_logprobs=True,
        detokenize=model.hf_tokenizer is not None,
        output_kind=RequestOutputKind.FINAL_ONLY if whole else RequestOutputKind.DELTA,
    )


def _folded(seed: int) -> int:
    """Return a seed in the range of the engine: itself, or a digest of what is outside of it,
    so that seeds which differ in their sign or by a power of 2 are not one.
    """
    if 0 <= seed < SEEDS:
        return seed
    digest = hashlib.blake2b(str(seed).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % SEEDS


def check(model: Model, params: SamplingParams) -> None:
    """Raise `Unsupported` for what vLLM would replace or cannot do; see `sampling`."""
    if 0 < params.temperature < COLDEST or params.temperature > HOTTEST:
        raise Unsupported(
            f"temperature {params.temperature:g}: vLLM samples at 0, and at {COLDEST:g} to "
            f"{HOTTEST:g}"
        )
    if any(isinstance(each, str) for each in params.stop or ()):
        _ = model.tokenizer


def scoring(last: int) -> VllmParams:
    """Return the parameters of a request that reads a sequence but for its last token, and asks for
    the log probabilities of all of its tokens but the first.
    """
    return VllmParams(
        max_tokens=1,
        temperature=0.0,
        prompt_logprobs=0,
        logprob_token_ids=[last],
        flat_logprobs=True,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def tokens_of(model: Model, prompt: Prompt, *, reply: bool) -> list[int]:
    """Return a prompt's token ids; messages go through the model's chat template.

    Args:
        model: whose tokenizer to use.
        prompt: messages, token ids or a `ModelInput`.
        reply: whether to append the beginning of the model's answer to the messages.

    Raises:
        InvalidInput: it is not a prompt, a message lacks a role or content that is text, the chat
            template refuses the messages, or the model does not know a token.
        Unsupported: an image, or messages for a model without a tokenizer or chat template.
    """
    if isinstance(prompt, Sequence) and prompt and isinstance(prompt[0], Mapping):
        for message in cast("Sequence[object]", prompt):
            _check_message(message)
        ids: list[int] = model.tokenizer.apply_chat_template(
            cast("Any", prompt), add_generation_prompt=reply
        )
    else:
        given = prompt if isinstance(prompt, ModelInput) else ModelInput.from_ints(prompt)  # type: ignore[arg-type]
        ids = [token for chunk in given.chunks for token in _tokens(chunk)]
    if not ids:
        raise InvalidInput("the prompt has no tokens")
    if min(ids) < 0 or max(ids) >= model.vocab_size:
        raise InvalidInput(
            f"the prompt holds tokens {min(ids)} to {max(ids)}; the vocabulary is 0 to "
            f"{model.vocab_size - 1}"
        )
    return ids


def _tokens(chunk: object) -> list[int]:
    if isinstance(chunk, EncodedTextChunk):
        return [int(token) for token in chunk.tokens]
    raise Unsupported(f"a {type(chunk).__name__} in a prompt: this adapter takes token ids only")


def _check_message(message: object) -> None:
    # A template would render what is missing as nothing, and a number as its digits.
    match message:
        case {"role": str(), "content": str()}:
            return
    raise InvalidInput(f"a message needs a `role` and a `content`, both text: {message!r:.200}")
