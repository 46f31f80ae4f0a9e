"""What a user may set about a server of OpenAI's protocol."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from crucible_kitchen import AdapterOptions, FromEnv
from pydantic import Field, SecretStr


class Options(AdapterOptions):
    base_url: Annotated[str, FromEnv("OPENAI_BASE_URL"), Field(pattern="^https?://")] = (
        "https://api.openai.com/v1"
    )
    """Root of the server's API, which usually ends in `/v1`."""
    api_key: Annotated[SecretStr | None, FromEnv("OPENAI_API_KEY")] = None
    """Key that the server requires. Most local servers do not need one."""
    model: str | None = None
    """Model of requests that do not name one, as the server calls it."""
    extensions: bool = False
    """Send what vLLM and SGLang accept in addition to OpenAI's parameters. Prompts of token ids,
    `top_k`, stop tokens and `stop=()` need it; other servers refuse or ignore it."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Name of the limit of tokens in chat requests. OpenAI's reasoning models accept only
    `max_completion_tokens`, many servers only `max_tokens`."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Additional fields of every request, such as `chat_template_kwargs`. They override others."""
    max_concurrency: int = Field(default=64, ge=1, le=1000)
    """Requests of batches in flight at a time. Calls of `complete` and streams are not counted."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds to wait for the next bytes from the server. A completion that is not streamed has to
    be complete within them."""
    answer_timeout: float | None = Field(default=None, gt=0)
    """Seconds to wait for the end of one answer, whole or streamed, including repeats by
    `max_retries`; None is ten times `timeout`. Time spent by the reader of a stream does not
    count."""
    max_answer_bytes: int = Field(default=2**25, ge=2**10)
    """Largest answer in bytes, decompressed, errors included. 128k tokens with their log
    probabilities take about 16 MB. A stream may have 1 KiB more for each of `max_tokens`."""
    max_event_bytes: int = Field(default=2**23, ge=2**10)
    """Largest event of a stream in bytes. The first may repeat the token ids of the prompt."""
    max_events_per_token: float = Field(default=16.0, gt=0)
    """Events that a stream may have for each of `max_tokens`, plus 256. A longer stream is from a
    server that ignores the limit."""
    max_retries: int = Field(default=0, ge=0)
    """Number of times that a request is sent again after a temporary failure."""
