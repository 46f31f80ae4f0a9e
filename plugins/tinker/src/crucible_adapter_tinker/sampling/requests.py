"""What is asked of the server: prompts as token ids, and how to sample."""

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

from ..options import Kind
from ..tokenizer import HuggingFaceTokenizer

SEEDS = 2**31
"""Seeds are below this: JAX, on which SkyRL samples, has 32 bits."""


@dataclass(frozen=True, eq=False)
class Reader:
    """What a model reads, and where it stops.

    Args:
        tokenizer: of the model.
        vocab_size: token ids are below it.
        context: the most tokens that it reads and writes; None if unknown.
    """

    tokenizer: HuggingFaceTokenizer
    vocab_size: int
    context: int | None


@dataclass(frozen=True, eq=False)
class Stop:
    """Where an answer ends.

    Args:
        tokens: at any of these, which is the last of the answer.
        strings: before the first of these in the text.
        told: what to tell a server that takes strings: these, and the tokens as text.
    """

    tokens: frozenset[int]
    strings: tuple[str, ...]
    told: tuple[str, ...]

    @classmethod
    def of(cls, reader: Reader, params: SamplingParams) -> Stop:
        stop: Sequence[str | int] | None = params.stop
        strings = tuple(each for each in stop or () if isinstance(each, str))
        tokens = {int(each) for each in stop or () if not isinstance(each, str)}
        # The model's own end tokens stay in force next to other stops; only `()` switches them off.
        ends = () if stop == () else reader.tokenizer.end_tokens
        told = (*strings, *(reader.tokenizer.decode([each]) for each in ends))
        return cls(frozenset(tokens.union(ends)), strings, tuple(filter(None, told)))


def tokens_of(reader: Reader, prompt: Prompt, *, reply: bool) -> list[int]:
    """Return a prompt's token ids; messages go through the model's chat template.

    Args:
        reader: the model that is asked.
        prompt: messages, token ids or a `ModelInput`.
        reply: whether to append the beginning of the model's answer to the messages.

    Raises:
        InvalidInput: it is not a prompt, a message lacks a role or content that is text, the chat
            template refuses the messages, or the model does not know a token.
        Unsupported: an image, or messages for a model without a chat template.
    """
    if isinstance(prompt, Sequence) and prompt and isinstance(prompt[0], Mapping):
        for message in cast("Sequence[object]", prompt):
            _check_message(message)
        ids: list[int] = reader.tokenizer.apply_chat_template(
            cast("Any", prompt), add_generation_prompt=reply
        )
    else:
        given = prompt if isinstance(prompt, ModelInput) else ModelInput.from_ints(prompt)  # type: ignore[arg-type]
        ids = [token for chunk in given.chunks for token in _tokens(chunk)]
    if not ids:
        raise InvalidInput("the prompt has no tokens")
    if min(ids) < 0 or max(ids) >= reader.vocab_size:
        raise InvalidInput(
            f"the prompt holds tokens {min(ids)} to {max(ids)}; the vocabulary is 0 to "
            f"{reader.vocab_size - 1}"
        )
    return ids


def room_for(reader: Reader, tokens: Sequence[int], params: SamplingParams) -> int:
    """Return how many tokens the answer may have.

    Raises:
        InvalidInput: the prompt fills the context.
    """
    if reader.context is None:
        return params.max_tokens
    room = reader.context - len(tokens)
    if room < 1:
        raise InvalidInput(
            f"the prompt has {len(tokens)} tokens and the context is {reader.context}: there is "
            "no room for an answer"
        )
    return min(params.max_tokens, room)


def sampling(params: SamplingParams, stop: Stop, room: int, seed: int | None, kind: Kind) -> Any:
    """Return the SDK's parameters of one request.

    A server takes strings to stop at or tokens, not both, and SkyRL 0.3 stops at no end token that
    it is not told of. So where an answer ends is decided by `answers`, and what the server is told
    only saves it work.

    Args:
        params: how to sample; `n`, `stop`, `seed` and `model` are not read.
        stop: where the answer ends.
        room: the most tokens to generate.
        seed: of the random numbers; with None they are unpredictable.
        kind: of the server.
    """
    from tinker import types

    # SkyRL looks for strings when all is generated, so there the tokens save more.
    told = list(stop.told) if stop.strings and kind != "skyrl" else sorted(stop.tokens)
    return types.SamplingParams(
        max_tokens=room,
        temperature=float(params.temperature),
        top_p=float(params.top_p),
        top_k=int(params.top_k),
        seed=None if seed is None else _folded(int(seed)),
        stop=told,
    )


def _folded(seed: int) -> int:
    """Return a seed in the range of the servers: itself, or a digest of what is outside of it,
    so that seeds which differ in their sign or by a power of 2 are not one.
    """
    if 0 <= seed < SEEDS:
        return seed
    digest = hashlib.blake2b(str(seed).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % SEEDS


def model_input(tokens: Sequence[int]) -> Any:
    """Return token ids as the SDK's input of a model."""
    from tinker import types

    return types.ModelInput.from_ints(list(tokens))


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
