"""Weights that leave a session: to folders, and to other programs."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path

from crucible_kitchen import InvalidInput
from torch import Tensor

from ..adaptation import lora
from ..checkpoints import exports
from ..checkpoints.folders import new_folder
from ..models.language_model import LanguageModel
from .engine import Engine


def save(folder: Path, name: str, plain: LanguageModel) -> str:
    """Save a model with a name next to the checkpoints, and return the reference of its weights.

    Raises:
        Unauthorized, Unavailable, InvalidInput: see `new_folder`.
    """
    with new_folder(exports.exports_in(folder), name) as (partial, final):
        exports.write_name(partial, name)
        exports.write_model(partial, plain)
    return exports.reference_of(final)


def check(engine: Engine, folder: Path | None, merge: bool) -> None:
    """Check that weights can be exported to a folder, if one is given.

    Raises:
        InvalidInput: an update alone is wanted, and there is none, or nothing that it updates.
        OSError: the folder is missing, or cannot be read.
    """
    if folder is not None:
        os.scandir(folder).close()  # Transformers would make the folder, or write nothing
    if merge:
        return
    if engine.update is None:
        raise InvalidInput(
            "every weight is trained, so there is no update to export alone; export the whole model"
        )
    if engine.language.origin is None:
        raise InvalidInput(
            "an update alone needs a base model that other programs can load, and "
            f"{engine.language.name!r} was made here, or had an adapter merged into it; export the "
            "whole model"
        )


def write_update(folder: Path, engine: Engine, weights: Mapping[str, Tensor]) -> None:
    """Write a low-rank update, checked by `check`, with the weights given."""
    assert engine.language.origin is not None
    config = copy.copy(engine.update)
    config.base_model_name_or_path, config.revision = engine.language.origin
    config.inference_mode = True
    exports.write_update(folder, engine.language, config, lora.named_by_peft(weights))
