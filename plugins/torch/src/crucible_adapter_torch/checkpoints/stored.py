"""Checkpoints on disk: folders of safetensors and JSON.

A reference is the folder's name inside the configured folder: the label, encoded, and a suffix
that makes it unique. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from crucible_kitchen import AdapterError, InvalidInput, NotFound

from . import unfinished
from .facts import LARGEST_JSON, read_json
from .folders import is_name, listed, new_folder, translated

if TYPE_CHECKING:
    from torch import Tensor

    from .snapshots import Snapshot

FORMAT = 1
STATE = "state.json"
WEIGHTS = "weights.safetensors"
MOMENTS = "moments.safetensors"
TENSORS = (WEIGHTS, MOMENTS)

Rows: TypeAlias = Callable[[tuple[int, ...]], slice | None]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The content of a checkpoint folder. Tensors are on the CPU.

    Args:
        weights: the trained weights by name.
        moments: the optimizer's state, see `Engine.moments`; empty if it was not asked for.
        facts: numbers and names: the state of randomness, what was trained.
    """

    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def snapshot(weights: Mapping[str, Tensor], moments: Mapping[str, Tensor]) -> Snapshot:
    """Return the tensors of a checkpoint as they are now, to be saved by any thread."""
    from .snapshots import Snapshot

    return Snapshot({WEIGHTS: weights, MOMENTS: moments})


def save(folder: Path, label: str, tensors: Snapshot, facts: Mapping[str, Any]) -> str:
    """Write a checkpoint and return its reference, a new one each time.

    Args:
        folder: of the checkpoints.
        label: see `list_references`.
        tensors: see `snapshot`.
        facts: see `Checkpoint`.

    Raises:
        Unauthorized, Unavailable, InvalidInput: see `new_folder`.
    """
    from . import tensor_files

    with new_folder(folder, label) as (partial, final):
        digests = {name: tensor_files.write(partial / name, tensors, name) for name in TENSORS}
        whole = {"format": FORMAT, "label": label, "sha256": digests, **facts}
        text = json.dumps(whole, indent=1)
        if len(text) > LARGEST_JSON:  # or it could never be read
            raise InvalidInput(f"a label of {len(label)} characters is too long")
        (partial / STATE).write_text(text, encoding="utf-8")
    return final.name


def find(folder: Path, reference: str) -> Path:
    """Return the folder of a checkpoint.

    Raises:
        NotFound: no checkpoint has this reference.
    """
    path = folder / reference
    if not is_name(reference) or not os.path.isfile(path / STATE):
        raise NotFound(f"no checkpoint {reference!r} in {folder}")
    return path


def read(path: Path, *, with_moments: bool, rows: Rows = lambda shape: None) -> Checkpoint:
    """Read the checkpoint in this folder.

    Args:
        path: the folder.
        with_moments: whether to read those.
        rows: which rows to read of a tensor of this shape; None for all.

    Raises:
        NotFound: it was deleted meanwhile.
        InvalidInput: it was written in another format, by another version; or one of its files is
            missing, was changed, or cannot be read.
        Unauthorized, Unavailable: the file system refuses.
    """
    with translated(f"checkpoint {path.name!r} in {path.parent} cannot be read"):
        facts = read_facts(path)
    if facts["format"] != FORMAT:
        raise InvalidInput(
            f"checkpoint {path.name!r} has format {facts['format']}, this version reads {FORMAT}"
        )
    return Checkpoint(
        weights=_load_tensors(path, WEIGHTS, rows),
        moments=_load_tensors(path, MOMENTS, rows) if with_moments else {},
        facts=facts,
    )


def verify(path: Path, facts: Mapping[str, Any], *, with_moments: bool) -> None:
    """Check that the tensors in this folder are those that were saved, to the bit.

    Raises:
        InvalidInput: they are not.
    """
    digests = facts.get("sha256", {})  # older checkpoints have none
    if not isinstance(digests, dict):
        raise damage(path, STATE, "'sha256' should be a table")
    for name in TENSORS[: 1 + with_moments]:
        with translated(f"{path / name} cannot be read"):
            if name in digests and _digest(path / name) != digests[name]:
                raise damage(path, name, "its content is not what was saved")


def list_references(folder: Path, prefix: str) -> list[str]:
    """Return the references whose label starts with the prefix, oldest first.

    What is damaged, or not a checkpoint, is left out; see `inspection.damaged`.
    """
    labelled = [path.name for path, label in find_all(folder) if label.startswith(prefix)]
    return sorted(labelled, key=lambda name: name.rsplit("-", 2)[1:])


def delete(folder: Path, reference: str) -> None:
    """Delete a checkpoint; if it does not exist, do nothing."""
    with contextlib.suppress(NotFound), translated(f"{folder} cannot be changed"):
        unfinished.remove_whole(find(folder, reference))


def find_all(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the folders of the checkpoints and their labels, and pass over everything else."""
    for path in listed(folder):
        with contextlib.suppress(OSError, AdapterError):  # deleted meanwhile, among other reasons
            if is_name(path.name) and not path.is_symlink():
                yield path, read_facts(path)["label"]


def read_facts(path: Path) -> dict[str, Any]:
    """Read what a checkpoint says about itself: `format`, `label`, and what else was saved.

    Raises:
        InvalidInput: it is damaged.
        OSError: it is missing, or cannot be read.
    """
    try:
        facts = read_json(path / STATE)
        if not isinstance(facts, dict):
            raise ValueError("it is not a table")
        for key, kind in (("format", int), ("label", str)):
            if not isinstance(facts.get(key), kind):
                raise ValueError(f"{key!r} should be {kind.__name__}, it is {facts.get(key)!r:.80}")
    except ValueError as error:
        raise damage(path, STATE, str(error)) from error
    return facts


def damage(path: Path, file: str, reason: str) -> InvalidInput:
    """Return the error for a checkpoint with a file that is not as it was written."""
    return InvalidInput(
        f"checkpoint {path.name!r} in {path.parent} is damaged, or was changed: {file}: {reason}"
    )


def _load_tensors(path: Path, name: str, rows: Rows) -> dict[str, Tensor]:
    import safetensors

    file = path / name
    with translated(f"{file} cannot be read"):
        if not file.is_file():  # opening a pipe would wait for ever
            raise damage(path, name, "it is missing, or not a file")
        try:
            with safetensors.safe_open(file, "pt") as opened:
                return {key: _read_tensor(opened, key, rows) for key in opened.keys()}  # noqa: SIM118
        except safetensors.SafetensorError as error:
            raise damage(path, name, str(error)) from error


def _read_tensor(opened: Any, key: str, rows: Rows) -> Tensor:
    there = opened.get_slice(key)
    wanted = rows(tuple(there.get_shape()))
    tensor: Tensor
    if wanted is None:
        tensor = opened.get_tensor(key)
    elif wanted.start < wanted.stop:
        tensor = there[wanted]
    else:  # the library refuses to read no rows
        tensor = there[:1][:0]
    return tensor


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
