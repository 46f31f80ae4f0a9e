"""What the training client and the completer have in common: where models come from and run."""

from __future__ import annotations

from typing import Any, Literal

from crucible_kitchen import AdapterOptions
from pydantic import BaseModel, ConfigDict, Field


class RandomModel(BaseModel):
    """A model made here, with random weights and a tokenizer of bytes; see `ModelOptions.models`.

    Every other key is a size, or any other field of the Transformers configuration of this type;
    one that the configuration does not know is an error.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )

    model_type: str = "llama"
    """An architecture that Transformers knows: `llama`, `qwen3`, `gpt2`, ..."""

    @property
    def sizes(self) -> dict[str, Any]:
        """The keys beside `model_type`."""
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
