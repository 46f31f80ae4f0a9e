"""Sample on this machine with PyTorch, from the weights of a training client among others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from crucible_kitchen import (
    AdapterError,
    Completion,
    CompletionChunk,
    Prompt,
    SamplingParams,
    hookimpl,
    resource,
)
from crucible_kitchen.types import FloatArray
from pydantic import Field

from .options import ModelOptions

if TYPE_CHECKING:
    from .sampler import Sampler


class Options(ModelOptions):
    model: str | None = None
    """The model to use where a call names none: one of `models`, a local folder, or a repository
    of the Hugging Face hub."""
    revision: str | None = None
    """Branch, tag or commit of `model`."""
    seed: int = 0
    """Seed of the random weights of `models`."""
    max_loaded_models: int = Field(2, ge=1)
    """Models kept in memory; the one not used for longest makes room. Live weights of a training
    client do not count."""
    max_batch_tokens: int = Field(32768, ge=1)
    """Tokens, padding and answers included, whose keys and values are in memory at a time."""


@resource
def _sampler(opts: Options) -> Sampler:
    from .sampler import Sampler

    return Sampler(opts)


@hookimpl
def complete(opts: Options, prompt: Prompt, params: SamplingParams) -> Completion:
    return _sampler(opts).complete(prompt, params)


@hookimpl
def complete_batch(
    opts: Options, prompts: Sequence[Prompt], params: SamplingParams
) -> list[Completion | AdapterError]:
    return _sampler(opts).complete_batch(prompts, params)


@hookimpl
def stream_complete(
    opts: Options, prompt: Prompt, params: SamplingParams
) -> Iterator[CompletionChunk]:
    return _sampler(opts).stream(prompt, params)


@hookimpl
def score(opts: Options, sequences: Sequence[Prompt], model: str | None) -> list[FloatArray]:
    return _sampler(opts).score(sequences, model)


@hookimpl
def close(opts: Options) -> None:
    _sampler.pop(opts)


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import CompleterOptionalSpec, CompleterSpec

    import crucible_adapter_torch.completer as this_module

    _: CompleterSpec[Options] = this_module
    _o: CompleterOptionalSpec[Options] = this_module
