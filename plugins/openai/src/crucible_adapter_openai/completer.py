"""Sample from OpenAI, vLLM, SGLang, Ollama, or any other server that speaks OpenAI's protocol.

A conversation goes to the server's chat completions, token ids go to its completions. Every
completion is a separate request, since only then is each sampled with the seed promised for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from crucible_kitchen import (
    Completion,
    CompletionChunk,
    Prompt,
    SamplingParams,
    hookimpl,
    resource,
)

from .answers import read, read_stream
from .options import Options
from .requests import Request, sampling_fields

if TYPE_CHECKING:
    from .server import Server


@resource
def _server(opts: Options) -> Server:
    from .server import Server

    return Server(opts)


@hookimpl
def complete(opts: Options, prompt: Prompt, params: SamplingParams) -> Completion:
    request = Request.of(opts, prompt, params, sampling_fields(opts, params), params.seed)
    return read(_server(opts).ask(request), request)


@hookimpl
def complete_batch(
    opts: Options, prompts: Sequence[Prompt], params: SamplingParams
) -> list[Completion | Exception]:
    sampling = sampling_fields(opts, params)  # raises what is wrong for every prompt
    server = _server(opts)

    def one(index: int) -> Completion | Exception:
        seed = None if params.seed is None else params.seed + index
        try:
            request = Request.of(opts, prompts[index // params.n], params, sampling, seed)
            return read(server.ask(request), request)
        except Exception as error:  # the result of this prompt alone
            return error

    return server.map(one, range(len(prompts) * params.n))


@hookimpl
def stream_complete(
    opts: Options, prompt: Prompt, params: SamplingParams
) -> Iterator[CompletionChunk]:
    request = Request.of(opts, prompt, params, sampling_fields(opts, params), params.seed)
    return read_stream(_server(opts).events(request), request)


@hookimpl
def ping(opts: Options) -> None:
    _server(opts).ping()


@hookimpl
def close(opts: Options) -> None:
    if server := _server.pop(opts):
        server.close()


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import CompleterSpec

    import crucible_adapter_openai.completer as this_module

    # `CompleterOptionalSpec` is not checked as a whole: OpenAI's protocol has nothing for `score`.
    _: CompleterSpec[Options] = this_module
