"""Weights of a folder or the hub: all of them as the configuration wants them, or an error.

Transformers would fill what is missing with random numbers, and leave out what it does not know.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from crucible_kitchen import InvalidInput, NotFound, Unsupported
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from .files import find_file
from .presence import ADAPTER_CONFIG, Place
from .quiet import quiet

ADAPTER_WEIGHTS = "adapter_model.safetensors"

HARMLESS = re.compile(
    r"(^|\.)(rotary_emb\.inv_freq|position_ids|masked_bias|pooler\..*|cls\.seq_relationship\..*)$"
)
"""Buffers that older versions saved and newer ones compute, and heads that predict no token."""
WRAPPERS = {
    "_orig_mod.": "torch.compile puts before the names of what it compiles",
    "_fsdp_wrapped_module.": "FSDP puts into the names of what it wraps",
    "_checkpoint_wrapped_module.": "activation checkpointing puts into the names of what it wraps",
    "_forward_module.": "Lightning puts before the names of what it wraps",
    "module.": "DistributedDataParallel and DeepSpeed put before the names of what they wrap",
    "base_model.model.": "PEFT puts before the names of what it adapts",
}


def load(name: str, config: Any, dtype: torch.dtype, source: Mapping[str, Any]) -> Any:
    """Return the Transformers model with every weight of its folder or repository.

    Pickled weights are not read, since they can run code.

    Args:
        name: a folder, or a repository of the hub.
        config: its configuration.
        dtype: the precision of the weights, whatever it is on disk.
        source: its `Place`, and `trust_remote_code`.

    Raises:
        InvalidInput: the weights are not those of the configuration, or cannot be read.
    """
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            name,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named below
            **source,
        )
    except safetensors.SafetensorError as error:
        raise InvalidInput(f"the weights of model {name!r} cannot be read: {error}") from error
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # a part of a tensor that is put together from several
        raise InvalidInput(f"the weights of model {name!r} do not fit: {error}") from error
    _check(f"model {name!r} do not fit its configuration ({type(model).__name__})", **found)
    return model


def _check(
    whose: str,
    missing_keys: set[str],
    unexpected_keys: set[str],
    mismatched_keys: set[tuple[str, tuple[int, ...], tuple[int, ...]]],
    error_msgs: Sequence[str] = (),
) -> None:
    unexpected = {key for key in unexpected_keys if not HARMLESS.search(key)}
    shapes = [
        f"{key} is {tuple(there)} and should be {tuple(here)}"
        for key, there, here in mismatched_keys
    ]
    faults = [
        f"{len(names)} {fault} ({', '.join(sorted(names)[:3])}{', ...' * (len(names) > 3)})"
        for fault, names in (
            ("missing", missing_keys),
            ("not known to it", unexpected),
            ("of another shape", shapes),
        )
        if names
    ]
    if not faults and not error_msgs:
        return
    reason = "; ".join([*faults, *error_msgs])
    for prefix, why in WRAPPERS.items():
        if any(prefix in f".{key}" for key in unexpected):
            reason += (
                f". {prefix!r} is what {why}: save the model inside it, or remove that from the "
                "names in the file"
            )
            break
    raise InvalidInput(f"the weights of {whose}: {reason}")


# --- adapters of PEFT ---


@dataclass(frozen=True, eq=False)
class Adapter:
    """A PEFT adapter: an update of a base model.

    Args:
        name: the folder or repository.
        base: the model that it is an update of.
        base_revision: its branch, tag or commit.
        settings: the content of its `adapter_config.json`.
        tensors: its weights by PEFT's names.
    """

    name: str
    base: str
    base_revision: str | None
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def is_whole(name: str, at: Place) -> bool:
    """Whether a folder or repository has the weights of a whole model, as far as is known."""
    return any(
        find_file(name, file, at, certain=False)
        for file in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)
    )


def check_files(name: str, at: Place) -> None:
    """Check that it is known where the weights of a whole model are.

    Raises:
        Unavailable: the hub is not asked, and some of them are not in the cache.
        OSError: the hub does not answer; see `find_file`.
    """
    if find_file(name, SAFE_WEIGHTS_NAME, at):
        return
    index = find_file(name, SAFE_WEIGHTS_INDEX_NAME, at)
    if index and at["local_files_only"]:
        parts = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
        for file in sorted({*parts.values()}):
            find_file(name, file, at)


def read_adapter(name: str, at: Place) -> Adapter:
    """Read an adapter.

    Raises:
        InvalidInput: it names no base model, or its weights cannot be read.
        NotFound: it has no weights in safetensors.
        Unavailable: they are not in the cache, and the hub is away.
    """
    settings = json.loads(
        Path(str(find_file(name, ADAPTER_CONFIG, at))).read_text(encoding="utf-8")
    )
    file = find_file(name, ADAPTER_WEIGHTS, at)
    if file is None:
        raise NotFound(f"adapter {name!r} has no {ADAPTER_WEIGHTS}; a pickle is not read")
    base = settings.get("base_model_name_or_path")
    if not base:
        raise InvalidInput(
            f"adapter {name!r}: its {ADAPTER_CONFIG} names no base model "
            "(base_model_name_or_path); set it to the model that it is an update of"
        )
    try:
        tensors = safetensors.torch.load_file(file)
    except safetensors.SafetensorError as error:
        raise InvalidInput(f"the weights of adapter {name!r} cannot be read: {error}") from error
    return Adapter(name, base, settings.get("revision"), settings, tensors)


def merged(model: Any, adapter: Adapter) -> Any:
    """Return the base model with the update added to its weights: a plain model again.

    Raises:
        Unsupported: the update cannot be added, or changes a matrix that is used twice.
        InvalidInput: the update does not fit this model.
    """
    with quiet():
        import peft  # takes seconds

    kind = adapter.settings.get("peft_type", "?")
    known = {key: adapter.settings[key] for key in adapter.settings if key != "auto_mapping"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about what PEFT calls in Transformers
            wrapped = peft.get_peft_model(model, peft.PeftConfig.from_peft_type(**known))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"adapter {adapter.name!r} does not fit its base model {adapter.base!r}: {error}"
        ) from error
    if not hasattr(wrapped, "merge_and_unload"):
        raise Unsupported(f"adapter {adapter.name!r} ({kind}) cannot be merged into its base model")
    _refuse_tied(model, adapter)
    expected = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    given = adapter.tensors
    _check(
        f"adapter {adapter.name!r} do not fit its base model {adapter.base!r}",
        missing_keys=expected.keys() - given.keys(),
        unexpected_keys=given.keys() - expected.keys(),
        mismatched_keys={
            (key, tuple(given[key].shape), tuple(expected[key].shape))
            for key in expected.keys() & given.keys()
            if given[key].shape != expected[key].shape
        },
    )
    peft.set_peft_model_state_dict(wrapped, dict(given))
    return wrapped.merge_and_unload().requires_grad_(True)


def _refuse_tied(model: Any, adapter: Adapter) -> None:
    unembed, embed = model.get_output_embeddings(), model.get_input_embeddings()
    if unembed is None or unembed.weight is not embed.weight:
        return
    names = {id(module): name for name, module in model.named_modules()}
    tied = [names[id(layer)].rpartition(".")[2] for layer in (embed, unembed) if id(layer) in names]
    for key in adapter.tensors:
        if any(f".{name}." in key for name in tied):
            raise Unsupported(
                f"adapter {adapter.name!r} changes {key!r}, and this model uses one matrix to "
                "embed and unembed tokens: merged, it would change both"
            )
