"""What the training client and the completer have in common: where models come from and run."""

from __future__ import annotations

from typing import Any, Literal

from crucible_kitchen import AdapterOptions, Keyword, LocalPath
from pydantic import BaseModel, ConfigDict, Field, field_validator

from .byte_tokenizer import END_OF_TEXT


class RandomModel(BaseModel):
    """A model made here, with random weights and a tokenizer of bytes; see `ModelOptions.models`.

    Any key that is not listed here is a size, or any other field of the Transformers configuration
    of this type; one that the configuration does not know is an error.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )

    __pydantic_extra__: dict[str, Keyword] = Field(init=False)

    model_type: str = "llama"
    """An architecture that Transformers knows: `llama`, `qwen3`, `gpt2`, ..."""
    chat_template: LocalPath | None = None
    """A file that holds a Jinja template of conversations, such as those that models on the hub
    come with. Without one the model reads token ids, and messages are `role: content` lines."""
    special_tokens: tuple[str, ...] = (END_OF_TEXT,)
    """Tokens in addition to the 256 bytes, such as those that the chat template writes:
    `["<|im_start|>", "<|im_end|>"]`. Their ids begin at 256, and the last one is the end token."""

    @field_validator("special_tokens")
    @classmethod
    def _are_tokens(cls, tokens: tuple[str, ...]) -> tuple[str, ...]:
        if not tokens:
            raise ValueError("must not be empty: the last one is the end token")
        for index, token in enumerate(tokens):
            if len(token) < 2:
                raise ValueError(f"{token!r} has fewer than two characters, as the bytes have")
            if token in tokens[:index]:
                raise ValueError(f"{token!r} is there twice")
        return tokens

    @property
    def sizes(self) -> dict[str, Any]:
        """The fields of the Transformers configuration."""
        return dict(self.model_extra or {})


class ModelOptions(AdapterOptions):
    device: str = "auto"
    """Where to compute: `cpu`, `cuda`, `cuda:1`, `mps`. `auto` is the first there is of cuda, mps
    and cpu."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the computation. `auto` is bfloat16 on a GPU that supports it, else float32."""
    threads: int = Field(1, ge=1)
    """CPU threads of PyTorch, for the whole process. One is faster than two for small models, and
    the same number is needed for bit-equal results."""
    models: dict[str, RandomModel] = Field(default_factory=dict)
    """Models to make here rather than to load, by the name that a workflow uses, such as
    `{ tiny = { model_type = "llama", hidden_size = 96, num_hidden_layers = 2, ... } }`. Any other
    name is a local folder or a repository of the Hugging Face hub."""
    trust_remote_code: bool = False
    """Run Python code that comes with a model."""
