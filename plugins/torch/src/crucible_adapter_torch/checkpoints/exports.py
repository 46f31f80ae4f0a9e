"""Weights as folders that Transformers, or any other program, can load.

Those that were saved with a name lie in the folder `sampler` next to the checkpoints.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .facts import read_json
from .folders import is_name, listed

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.language_model import LanguageModel

FOLDER = "sampler"
NAME = "crucible.json"
"""The file that holds the name of saved weights. Transformers ignores it."""


def exports_in(checkpoint_dir: Path) -> Path:
    """Return the folder of the saved weights."""
    return checkpoint_dir / FOLDER


def write_name(folder: Path, name: str) -> None:
    """Record in a folder of weights the name that they are saved with."""
    (folder / NAME).write_text(json.dumps({"name": name}), encoding="utf-8")


def reference_of(folder: Path) -> str:
    """Return the reference of the weights in a folder, which any process can load."""
    return str(folder.absolute())


def find_all(checkpoint_dir: Path) -> Iterator[tuple[Path, str]]:
    """Yield the folders of saved weights and their names. Older versions did not record it."""
    for path in listed(exports_in(checkpoint_dir)):
        with contextlib.suppress(OSError, ValueError):
            if is_name(path.name) and not path.is_symlink():
                found = read_json(path / NAME)
                if isinstance(found, dict) and isinstance(found.get("name"), str):
                    yield path, found["name"]


def write_model(folder: Path, language: LanguageModel) -> None:
    """Write a whole model, its generation configuration and its tokenizer.

    Args:
        folder: where to.
        language: the model, which belongs to this function from then on.
    """
    from ..models.quiet import quiet

    language.model.generation_config = _generation(language)
    with quiet():
        language.model.save_pretrained(folder)
    _write_tokenizer(folder, language)


def write_update(
    folder: Path, language: LanguageModel, config: Any, tensors: Mapping[str, Tensor]
) -> None:
    """Write a low-rank update as an adapter of PEFT, with what is needed to use it.

    Args:
        folder: where to.
        language: the model that it updates.
        config: PEFT's configuration of the update.
        tensors: its weights by PEFT's names.
    """
    import safetensors.torch

    from ..models.weights import ADAPTER_WEIGHTS

    config.save_pretrained(folder)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(plain, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    if (generation := _generation(language)) is not None:
        generation.save_pretrained(folder)
    _write_tokenizer(folder, language)


def _generation(language: LanguageModel) -> Any:
    """Return a copy of the generation configuration, which names all tokens that end an answer."""
    config = copy.deepcopy(language.model.generation_config)
    if (ends := language.end_tokens) and config is not None:
        config.eos_token_id = ends[0] if len(ends) == 1 else [*ends]
    return config


def _write_tokenizer(folder: Path, language: LanguageModel) -> None:
    if language.tokenizer is not None:
        language.tokenizer.tokenizer.save_pretrained(folder)
