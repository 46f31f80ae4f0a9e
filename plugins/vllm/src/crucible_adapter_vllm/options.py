"""What a user may set about the engine."""

from __future__ import annotations

from typing import Any, Literal

from crucible_kitchen import AdapterOptions
from pydantic import Field, field_validator

FIXED = frozenset(
    {
        "enable_log_requests",
        "generation_config",
        "load_format",
        "logprobs_mode",
        "runner",
        "skip_tokenizer_init",
        "tokenizer",
        "tokenizer_revision",
        "weight_transfer_config",
        "worker_extension_cls",
    }
)
"""Arguments of vLLM's engine that the promises of the adapter depend on."""


class Options(AdapterOptions):
    model: str | None = None
    """The model to use where a call names none: a local folder, or a repository of the Hugging Face
    hub. Without it the engine starts with the first weights that a training client publishes."""
    revision: str | None = None
    """Branch, tag or commit of `model`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of weights and computation. `auto` is bfloat16 on a GPU and float32 on a CPU, as in
    the `torch` adapters."""
    max_model_len: int | None = Field(default=None, ge=2)
    """The most tokens of a prompt and its answer; None is what the model was made for, which may
    need more memory for keys and values than there is."""
    gpu_memory_utilization: float = Field(default=0.4, gt=0, le=1)
    """Share of a GPU's memory that the engine takes, weights included. A trainer on the same GPU
    needs the rest; vLLM's own default, 0.92, is for a GPU of its own."""
    kv_cache_bytes: int | None = Field(default=None, ge=1)
    """Memory for keys and values; None is what `gpu_memory_utilization` leaves on a GPU, and 1 GiB
    on a CPU."""
    max_num_seqs: int = Field(default=256, ge=1)
    """The most answers that are computed at a time. All others wait in the engine."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that share each matrix."""
    enforce_eager: bool = False
    """Do not compile the model or capture CUDA graphs: a quicker start, slower sampling."""
    enable_prefix_caching: bool = True
    """Read what prompts have in common once, such as the prompt of a group of samples."""
    trust_remote_code: bool = False
    """Run Python code that comes with a model."""
    engine_args: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of vLLM's `AsyncEngineArgs`, such as
    `{ quantization = "fp8", cpu_offload_gb = 4 }`."""

    @field_validator("engine_args")
    @classmethod
    def _are_free(cls, given: dict[str, Any]) -> dict[str, Any]:
        for key in given:
            if key in _OPTIONS:
                raise ValueError(f"{key!r} is an option of the adapter: set it next to engine_args")
            if key in FIXED:
                raise ValueError(f"{key!r} is set by the adapter, and its promises depend on it")
        return given


_OPTIONS = Options.model_fields.keys() - {"engine_args", "kv_cache_bytes"} | {
    "kv_cache_memory_bytes",
    "seed",
}
"""Arguments of the engine that other options are for, or that the adapter chooses itself."""
