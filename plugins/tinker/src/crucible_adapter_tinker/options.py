"""What a user may set about a server of Tinker's API; both ports share it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from crucible_kitchen import AdapterOptions, FromEnv
from pydantic import Field, SecretStr, field_validator

Kind: TypeAlias = Literal["tinker", "skyrl", "tuft"]
"""The implementations of the API whose differences are known."""

SERVICE = "https://tinker.thinkingmachines.dev/services/tinker-prod"
"""Thinking Machines' own server."""


class ServerOptions(AdapterOptions):
    base_url: Annotated[str, FromEnv("TINKER_BASE_URL"), Field(pattern="^https?://")] = SERVICE
    """Root of the server, before `/api/v1`; by default Thinking Machines' service."""
    api_key: Annotated[SecretStr | None, FromEnv("TINKER_API_KEY")] = None
    """Key that the server requires; it begins with `tml-`. Without one, newer SDKs use what
    `tinker auth login` stored, and a SkyRL server, which asks for none, gets a made-up one."""
    project_id: Annotated[str | None, FromEnv("TINKER_PROJECT_ID")] = None
    """Project of the service in which the sessions are."""
    server: Literal["auto", "tinker", "skyrl", "tuft"] = "auto"
    """What answers at `base_url`: servers compute different things, and the adapter makes up for
    it. `auto` asks the server."""
    connect_timeout: float = Field(default=10.0, gt=0)
    """Seconds within which the server has to answer that it is there."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds for a call that waits by itself: for a model, a checkpoint, weights to sample from.
    It does not bound `await_`."""
    lost_after: float = Field(default=300.0, gt=0)
    """Seconds for which the server may be out of reach before an operation that waits for it fails.
    The SDK would wait for ever."""
    tokenizer: str | None = None
    """Tokenizer of the models: a local folder, or a repository of the Hugging Face hub; None is the
    one that belongs to the model."""

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, url: str) -> str:
        return url.rstrip("/")


class CompleterOptions(ServerOptions):
    model: str | None = None
    """The model to use where a call names none, as the server calls it."""
    context_length: int | None = Field(default=None, ge=2)
    """The most tokens that a prompt and its answer may have together, if that is less than what the
    server and the model's configuration say."""
    max_concurrency: int = Field(default=64, ge=1, le=1000)
    """The most requests of one batch that are in flight."""
    max_loaded_weights: int = Field(default=2, ge=1)
    """How many weights are kept ready to sample from, those in use aside. On SkyRL each takes one
    of the server's slots for models."""
