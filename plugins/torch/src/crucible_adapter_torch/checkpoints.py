"""Checkpoints on disk: a folder of safetensors and JSON that appears complete or not at all.

A reference is the folder's name inside the configured folder: the label, encoded, and a suffix
that makes it unique. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import safetensors.torch
from crucible_kitchen import InvalidInput, NotFound
from torch import Tensor

PARTIAL = ".partial-"
FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What a checkpoint folder holds. Tensors are on the CPU.

    Args:
        weights: the trained weights by name.
        moments: the optimizer's state, see `Engine.moments`; empty if it was not asked for.
        facts: numbers and names: the state of randomness, what was trained.
    """

    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def save(folder: Path, label: str, checkpoint: Checkpoint) -> str:
    """Write a checkpoint and return its reference, new each time."""
    facts = {"format": FORMAT, "label": label, **checkpoint.facts}
    with new_folder(folder, label) as (partial, final):
        _save_tensors(partial / "weights.safetensors", checkpoint.weights)
        _save_tensors(partial / "moments.safetensors", checkpoint.moments)
        (partial / "state.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return final.name


def find(folder: Path, reference: str) -> Path:
    """Return the folder of a checkpoint.

    Raises:
        NotFound: there is none of this reference.
    """
    path = folder / reference
    if not _is_name(reference) or not os.path.isfile(path / "state.json"):
        raise NotFound(f"no checkpoint {reference!r} in {folder}")
    return path


def read(path: Path, *, with_moments: bool) -> Checkpoint:
    """Read the checkpoint in this folder.

    Raises:
        InvalidInput: it was written in another format, by another version.
    """
    facts = _facts(path)
    if facts["format"] != FORMAT:
        raise InvalidInput(
            f"checkpoint {path.name!r} has format {facts['format']}, this version reads {FORMAT}"
        )
    return Checkpoint(
        weights=safetensors.torch.load_file(path / "weights.safetensors"),
        moments=safetensors.torch.load_file(path / "moments.safetensors") if with_moments else {},
        facts=facts,
    )


def list_references(folder: Path, prefix: str) -> list[str]:
    """Return the references whose label starts with the prefix, oldest first."""
    labelled = []
    for path in (found.parent for found in folder.glob("*/state.json")):
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            if _is_name(path.name) and _facts(path)["label"].startswith(prefix):
                labelled.append(path.name)
    return sorted(labelled, key=lambda name: name.rsplit("-", 2)[1:])


def delete(folder: Path, reference: str) -> None:
    """Delete a checkpoint; one that does not exist is fine."""
    with contextlib.suppress(NotFound, FileNotFoundError):
        path = find(folder, reference)
        doomed = folder / f"{PARTIAL}{uuid.uuid4().hex}"  # it vanishes at once, not file by file
        path.rename(doomed)
        shutil.rmtree(doomed)


@contextlib.contextmanager
def new_folder(parent: Path, label: str) -> Iterator[tuple[Path, Path]]:
    """Give a folder to fill and the unique name that it gets, at once and durably, at the end.

    If the block fails nothing remains. A kill leaves at most a hidden folder `.partial-...`.
    """
    parent.mkdir(parents=True, exist_ok=True)
    # Percent-encoded, so that any label is a file name; cut, because a name has 255 bytes.
    encoded = quote(label, safe=" ", errors="surrogatepass").replace(".", "%2E")[:100]
    unique = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
    partial = parent / f"{PARTIAL}{unique}"
    final = parent / f"{encoded}-{unique}"
    partial.mkdir()
    try:
        yield partial, final
        for path in (*partial.iterdir(), partial):
            _sync(path)
        partial.rename(final)
        _sync(parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_name(reference: str) -> bool:
    """Say whether it can be a reference: one part of a path, not hidden."""
    return Path(reference).name == reference and not reference.startswith(".")


def _facts(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
    return facts


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(plain, path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
