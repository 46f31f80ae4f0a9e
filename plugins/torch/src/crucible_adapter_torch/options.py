"""The options of both ports, most of which they share: where models come from and run.

The names of this module may be used by any package, whose options may derive from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from crucible_kitchen import AdapterOptions, Keyword, LocalPath
from pydantic import BaseModel, ConfigDict, Field, field_validator

END_OF_TEXT = "<|endoftext|>"
"""The token that ends a text of a model made here."""


class RandomModel(BaseModel):
    """A model made here, with random weights and a tokenizer of bytes; see `ModelOptions.models`.

    Any key that is not listed here is a size, or any other field of the Transformers configuration
    of this type. A key that the configuration does not know is an error.
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
    """A file with a Jinja template for conversations, like those that come with models on the hub.
    Without one, the model reads token ids, and messages are `role: content` lines."""
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
                raise ValueError(
                    f"{token!r} is too short: a special token has two characters or more"
                )
            if token in tokens[:index]:
                raise ValueError(f"{token!r} is listed twice")
        return tokens

    @property
    def sizes(self) -> dict[str, Any]:
        """The fields of the Transformers configuration."""
        return dict(self.model_extra or {})


class ModelOptions(AdapterOptions):
    device: str = "auto"
    """Where to compute: `cpu`, `cuda`, `cuda:1`, `mps`. `auto` is the first available of cuda, mps
    and cpu."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the computation. `auto` is bfloat16 on a GPU that supports it, else float32."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of PyTorch, for the whole process. One is faster than two for small models, and
    results are equal to the bit only for the same number of threads."""
    models: dict[str, RandomModel] = Field(default_factory=dict)
    """Models to make here rather than to load, by the name that a workflow uses, such as
    `{ tiny = { model_type = "llama", hidden_size = 96, num_hidden_layers = 2, ... } }`. Any other
    name is a local folder or a repository of the Hugging Face hub."""
    trust_remote_code: bool = False
    """Run Python code that comes with a model."""


class TrainingClientOptions(ModelOptions):
    checkpoint_dir: LocalPath = Field(default=Path("checkpoints"), examples=["runs/checkpoints"])
    """Folder of the checkpoints and of the weights that were saved with a name."""
    micro_batch_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = 4096
    """Tokens, padding included, computed at a time. More is faster until memory runs out; another
    value changes results by rounding. `auto` finds it where a session starts: on a GPU by doubling
    until memory runs out, up to 16,384; elsewhere 4,096, or less if the machine has too little
    memory for that. A checkpoint holds what was found, and who continues from it uses it."""
    deterministic: bool = False
    """Restrict PyTorch to deterministic algorithms, in the whole process, so that a run can be
    repeated to the bit on a GPU. The CPU does not need it."""
    adapter: Literal["merge", "continue"] = "merge"
    """What to do with a PEFT adapter named as the model: `merge` adds it to its base model and
    trains the result; `continue` trains the adapter itself, and `lora` must be as it was made."""
    base_dtype: Literal["auto", "float32", "bfloat16", "int8", "nf4"] = "auto"
    """What the frozen weights of a low-rank session are kept in; the update, its gradients and its
    moments are float32. `auto` is bfloat16 where the computation is bfloat16, else float32; weights
    that are bfloat16 on disk give the same results either way. `int8` and `nf4` are 8 and 4 bits;
    `nf4` needs bitsandbytes. A session without `lora` has no frozen weights: all are float32."""
    gradient_checkpointing: bool = False
    """Keep what goes into each layer alone, and compute the layer again for its gradient: much less
    memory for about a third more time, and the same results."""
    optimizer_state: Literal["float32", "8bit"] = "float32"
    """What AdamW's moments are kept in. `8bit` takes a quarter of the memory, needs bitsandbytes,
    and its steps are not quite AdamW's."""
    attn_implementation: str = "auto"
    """Transformers' attention: `sdpa`, `eager`, `flash_attention_2`, ...; `auto` is its choice."""
    compile: bool = False
    """Compile the layers with `torch.compile`, for rows of any length. The first passes take
    minutes, and on the CPU a C++ compiler; results differ by rounding."""


class CompleterOptions(ModelOptions):
    model: str | None = None
    """The model to use where a call names none: one of `models`, a local folder, or a repository
    of the Hugging Face hub."""
    revision: str | None = None
    """Branch, tag or commit of `model`."""
    seed: int = 0
    """Seed of the random weights of `models`."""
    max_loaded_models: int = Field(default=2, ge=1)
    """Models kept in memory; the least recently used makes room. Live weights of a training client
    do not count."""
    max_batch_tokens: int = Field(default=32768, ge=1)
    """Tokens, padding and answers included, whose keys and values are in memory at a time."""
