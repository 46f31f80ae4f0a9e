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
    Tokenizer,
    helper,
    hookimpl,
    resource,
)

from .heavy_imports import collection_paused
from .options import CompleterOptions as Options

if TYPE_CHECKING:
    from .sampling.sampler import Sampler


@resource
def _sampler(opts: Options) -> Sampler:
    with collection_paused():
        from .sampling.sampler import Sampler

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


@helper
def get_tokenizer(opts: Options, model: str | None = None) -> Tokenizer:
    """Return the tokenizer of a model, which is loaded; `chat_template` is None if it has none.

    Raises:
        Unsupported: the model's folder has no tokenizer.
    """
    return _sampler(opts).tokenizer(model)


@hookimpl
def close(opts: Options) -> None:
    _sampler.pop(opts)


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import CompleterOptionalSpec, CompleterSpec

    import crucible_adapter_torch.completer as this_module

    _: CompleterSpec[Options] = this_module
    _optional: CompleterOptionalSpec[Options] = this_module
