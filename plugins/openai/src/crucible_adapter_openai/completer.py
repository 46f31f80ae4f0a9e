"""Sample from OpenAI, vLLM, SGLang, Ollama, or whatever else speaks OpenAI's protocol.

A conversation goes to the server's chat completions, token ids go to its completions. Every
completion is a request of its own, since only then is each sampled with the seed promised for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from crucible_kitchen import (
    AdapterOptions,
    Completion,
    CompletionChunk,
    FromEnv,
    Prompt,
    SamplingParams,
    hookimpl,
    resource,
)
from pydantic import Field, SecretStr

from .answers import read, read_stream
from .requests import Request, sampling_fields

if TYPE_CHECKING:
    from .server import Server


class Options(AdapterOptions):
    base_url: Annotated[str, FromEnv("OPENAI_BASE_URL"), Field(pattern="^https?://")] = (
        "https://api.openai.com/v1"
    )
    """Root of the server's API. It mostly ends in `/v1`."""
    api_key: Annotated[SecretStr | None, FromEnv("OPENAI_API_KEY")] = None
    """Key that the server asks for. Most local servers ask for none."""
    model: str | None = None
    """The model of requests that name none, as the server calls it."""
    extensions: bool = False
    """Send what vLLM and SGLang take beside OpenAI's parameters. Prompts of token ids, `top_k`,
    stop tokens and `stop=()` need it; other servers refuse or ignore it."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What chat requests call the limit of tokens. OpenAI's reasoning models take the second alone,
    many servers know only the first."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of every request, such as `chat_template_kwargs`. They replace others."""
    max_concurrency: int = Field(64, ge=1, le=1000)
    """Requests of batches in flight at a time. Calls of `complete` and streams come on top."""
    timeout: float = Field(60.0, gt=0)
    """Seconds to wait for the server's next sign of life: for a completion that is not streamed,
    all the time that it takes."""
    answer_timeout: float | None = Field(None, gt=0)
    """Seconds to wait for all of one answer, whole or streamed, repeats by `max_retries` included;
    None is ten times `timeout`. Time that the reader of a stream takes does not count."""
    max_answer_bytes: int = Field(2**25, ge=2**10)
    """Bytes of one answer at most, of an error as well, decompressed. 128k tokens with their
    log probabilities take about 16 MB. A stream may have 1 KiB more for each of `max_tokens`."""
    max_event_bytes: int = Field(2**23, ge=2**10)
    """Bytes of one event of a stream at most. The first may repeat the token ids of the prompt."""
    max_events_per_token: float = Field(16.0, gt=0)
    """Events that a stream may have for each of `max_tokens`, and 256 more. One that goes on is
    from a server that ignores the limit."""
    max_retries: int = Field(0, ge=0)
    """Times that a single request is sent again after a passing failure."""


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
    sampling = sampling_fields(opts, params)  # what is wrong here is wrong for every prompt
    server = _server(opts)

    def one(index: int) -> Completion | Exception:
        seed = None if params.seed is None else params.seed + index
        try:
            request = Request.of(opts, prompts[index // params.n], params, sampling, seed)
            return read(server.ask(request), request)
        except Exception as error:  # it is the result of this prompt alone
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

    _: CompleterSpec[Options] = this_module
