"""Sample on this machine with PyTorch, including from the weights of a training client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from crucible_kitchen import (
    AdapterError,
    Completion,
    CompletionChunk,
    FloatArray,
    Prompt,
    SamplingParams,
    hookimpl,
    resource,
)

from .options import CompleterOptions as Options

if TYPE_CHECKING:
    from .sampler import Sampler


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
    _optional: CompleterOptionalSpec[Options] = this_module
