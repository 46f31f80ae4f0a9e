"""Sample on Tinker, or on a server that speaks its API, also from weights that were trained there.

The API has no streams: an answer comes when it is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crucible_kitchen import (
    AdapterError,
    Completion,
    FloatArray,
    Prompt,
    SamplingParams,
    Tokenizer,
    helper,
    hookimpl,
    resource,
)

from .options import CompleterOptions as Options

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
def score(opts: Options, sequences: Sequence[Prompt], model: str | None) -> list[FloatArray]:
    return _sampler(opts).score(sequences, model)


@helper
def get_tokenizer(opts: Options, model: str | None = None) -> Tokenizer:
    """Return the tokenizer of a model, or that of the option `tokenizer`.

    Raises:
        NotFound: there is none, or it cannot be loaded from here.
    """
    return _sampler(opts).tokenizer(model)


@hookimpl
def ping(opts: Options) -> None:
    _sampler(opts).ping()


@hookimpl
def close(opts: Options) -> None:
    if sampler := _sampler.pop(opts):
        sampler.close()


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import CompleterSpec

    import crucible_adapter_tinker.completer as this_module

    # `CompleterOptionalSpec` is not checked as a whole: the API has no streams.
    _: CompleterSpec[Options] = this_module
