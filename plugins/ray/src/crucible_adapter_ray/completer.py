"""Sample on the actors of a Ray cluster, including from the weights of a training client."""

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

from . import cluster, room
from .sampling.options import CompleterOptions as Options

if TYPE_CHECKING:
    from .sampling.sampler import Sampler


@resource
def _sampler(opts: Options) -> Sampler:
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
    """Return the tokenizer of a model, which an actor loads; `chat_template` is None if it has
    none.

    Raises:
        Unsupported: the model's folder has no tokenizer.
    """
    return _sampler(opts).tokenizer(model)


@hookimpl
def ping(opts: Options) -> None:
    cluster.ping(opts, lambda: room.demand("actors", opts.actors, opts).warn_if_too_large())


@hookimpl
def close(opts: Options) -> None:
    if sampler := _sampler.pop(opts):
        sampler.close()


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import CompleterOptionalSpec, CompleterSpec

    import crucible_adapter_ray.completer as this_module

    _: CompleterSpec[Options] = this_module
    _optional: CompleterOptionalSpec[Options] = this_module
