"""Checkpoints on disk: a folder of safetensors and JSON that appears complete or not at all.

A reference is the folder's name inside the configured folder: the label, encoded, and a suffix
that makes it unique. Nothing is ever unpickled.

Weights that were saved with a name are such folders, too, in the folder `sampler` beside them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from crucible_kitchen import (
    AdapterError,
    CrucibleWarning,
    InvalidInput,
    NotFound,
    Unavailable,
    check_writable,
    explain_os_errors,
)

from . import unfinished
from .unfinished import LARGEST_JSON, listed, read_json

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
STATE = "state.json"
WEIGHTS = "weights.safetensors"
MOMENTS = "moments.safetensors"

SAMPLER = "sampler"
NAME = "crucible.json"
"""The file that holds the name of saved weights. Transformers ignores it."""


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
    """Write a checkpoint and return its reference, new each time.

    Raises:
        Unauthorized, Unavailable, InvalidInput: see `new_folder`.
    """
    with new_folder(folder, label) as (partial, final):
        tensors = {WEIGHTS: checkpoint.weights, MOMENTS: checkpoint.moments}
        for name, each in tensors.items():
            _save_tensors(partial / name, each)
        digests = {name: _digest(partial / name) for name in tensors}
        facts = {"format": FORMAT, "label": label, "sha256": digests, **checkpoint.facts}
        text = json.dumps(facts, indent=1)
        if len(text) > LARGEST_JSON:  # or it would never be read
            raise InvalidInput(f"a label of {len(label)} characters is too long")
        (partial / STATE).write_text(text, encoding="utf-8")
    return final.name


def find(folder: Path, reference: str) -> Path:
    """Return the folder of a checkpoint.

    Raises:
        NotFound: there is none of this reference.
    """
    path = folder / reference
    if not _is_name(reference) or not os.path.isfile(path / STATE):
        raise NotFound(f"no checkpoint {reference!r} in {folder}")
    return path


def read(path: Path, *, with_moments: bool) -> Checkpoint:
    """Read the checkpoint in this folder.

    Raises:
        NotFound: it was deleted meanwhile.
        InvalidInput: it was written in another format, by another version; or a file of it is
            missing, was changed, or cannot be read.
        Unauthorized, Unavailable: the file system refuses.
    """
    with _explained(f"checkpoint {path.name!r} in {path.parent} cannot be read"):
        facts = _facts(path)
    if facts["format"] != FORMAT:
        raise InvalidInput(
            f"checkpoint {path.name!r} has format {facts['format']}, this version reads {FORMAT}"
        )
    return Checkpoint(
        weights=_load_tensors(path, WEIGHTS),
        moments=_load_tensors(path, MOMENTS) if with_moments else {},
        facts=facts,
    )


def verify(path: Path, facts: Mapping[str, Any], *, with_moments: bool) -> None:
    """See that the tensors in this folder are those that were saved, to the bit.

    Raises:
        InvalidInput: they are not.
    """
    digests = facts.get("sha256", {})  # older checkpoints have none
    if not isinstance(digests, dict):
        raise damage(path, STATE, "'sha256' should be a table")
    for name in (WEIGHTS, MOMENTS)[: 1 + with_moments]:
        with _explained(f"{path / name} cannot be read"):
            if name in digests and _digest(path / name) != digests[name]:
                raise damage(path, name, "its contents are not those that were saved")


def list_references(folder: Path, prefix: str) -> list[str]:
    """Return the references whose label starts with the prefix, oldest first.

    What is damaged, or no checkpoint, is left out; see `damaged`.
    """
    labelled = [path.name for path, label in _checkpoints(folder) if label.startswith(prefix)]
    return sorted(labelled, key=lambda name: name.rsplit("-", 2)[1:])


def delete(folder: Path, reference: str) -> None:
    """Delete a checkpoint; one that does not exist is fine."""
    with (
        contextlib.suppress(NotFound),
        _explained(f"{folder} cannot be changed"),
    ):
        unfinished.remove_whole(find(folder, reference))


def damaged(folder: Path) -> Iterator[str]:
    """Say of each thing among the checkpoints why it is none, or cannot be loaded."""
    for name in _listed(folder):
        if name.startswith(".") or name == SAMPLER:
            continue
        path = folder / name
        try:
            if path.is_symlink() or not path.is_dir():
                raise InvalidInput(f"{name!r} in {folder} is no folder")
            _facts(path)
            for file in (WEIGHTS, MOMENTS):
                if not (path / file).is_file():
                    raise InvalidInput(f"checkpoint {name!r} in {folder} has no file {file}")
        except AdapterError as error:
            yield error.reason
        except OSError as error:
            yield f"{name!r} in {folder} cannot be read: {error.strerror}"


def warn_of_damage(folder: Path) -> None:
    """Warn of what is damaged, or no checkpoint, among the checkpoints: of each, up to ten."""
    found = [*damaged(folder)]
    for reason in found[:10]:
        warnings.warn(reason, CrucibleWarning, stacklevel=3)
    if found[10:]:
        more = f"{len(found) - 10} more in {folder} are damaged, or no checkpoints"
        warnings.warn(more, CrucibleWarning, stacklevel=3)


def clean(folder: Path, prefix: str, keep: Sequence[str], dry_run: bool) -> list[str]:
    """Remove what killed processes left; see `AdapterSpec.clean`.

    Returns:
        The references of what was complete, and the paths of what was not.
    """
    kept = {PurePath(reference).name for reference in keep}
    removed = []

    def remove(path: Path, name: str, how: Callable[[Path], None]) -> None:
        try:
            if not dry_run:
                how(path)
            removed.append(name)
        except OSError as error:
            warnings.warn(
                f"{str(path)!r} was left behind, and cannot be removed: {error.strerror or error}",
                CrucibleWarning,
                stacklevel=3,
            )

    if prefix:
        whole = [(path, path.name, label) for path, label in _checkpoints(folder)]
        saved = [(path, weights_of(path), label) for path, label in _exports(folder / SAMPLER)]
        for path, reference, label in (*whole, *saved):
            if label.startswith(prefix) and path.name not in kept:
                remove(path, reference, unfinished.remove_whole)
    for parent in (folder, folder / SAMPLER):
        with _explained(f"{parent} cannot be read"):
            for path in unfinished.left(parent, prefix):
                remove(path, str(path), unfinished.remove)
    return removed


def check_storage(needed: Mapping[Path, int]) -> None:
    """Try whether each place can be written and has space; leave nothing.

    Args:
        needed: for each place, how many bytes are to be saved there.

    Raises:
        Unauthorized, InvalidInput: nothing can be saved in one of them.
        Unavailable: the disk has no space for all of it.
    """
    wanted: Counter[int] = Counter()
    for place, size in needed.items():
        check_writable(place)
        there = next(each for each in (place, *place.parents) if each.exists())
        disk, free = there.stat().st_dev, shutil.disk_usage(there).free
        wanted[disk] += size
        if wanted[disk] > free:
            raise Unavailable(
                f"not all can be saved in {place}: {wanted[disk]:,} bytes are needed on its disk, "
                f"and {free:,} are free; free space there, or set checkpoint_dir to another folder",
                no_effect=True,
            )


@contextlib.contextmanager
def new_folder(parent: Path, label: str) -> Iterator[tuple[Path, Path]]:
    """Give a folder to fill and the unique name that it gets, at once and durably, at the end.

    If the block fails nothing remains. What a kill leaves is found by `clean`.

    Raises:
        Unauthorized: the folder may not be written.
        InvalidInput: there can be no such folder.
        NotFound: it has just been removed.
        Unavailable: the disk is full, or fails.
    """
    # Percent-encoded, so that any label is a file name; cut, because a name has 255 bytes.
    encoded = quote(label, safe=" ", errors="surrogatepass").replace(".", "%2E")[:100]
    with (
        _explained(f"nothing was saved in {parent} (see the option checkpoint_dir)"),
        unfinished.claimed(parent, label) as partial,
    ):
        final = parent / f"{encoded}-{partial.name.removeprefix(unfinished.PARTIAL)}"
        partial.mkdir()
        yield partial, final
        for path in (*partial.iterdir(), partial):
            _sync(path)
        partial.rename(final)
        try:
            _sync(parent)
        except OSError:
            unfinished.remove_whole(final)
            raise


def write_name(folder: Path, name: str) -> None:
    """Note in a folder of weights the name that they are saved with."""
    (folder / NAME).write_text(json.dumps({"name": name}), encoding="utf-8")


def weights_of(folder: Path) -> str:
    """Return the reference of the weights in a folder, which any process can load."""
    return str(folder.absolute())


def _is_name(reference: str) -> bool:
    """Say whether it can be a reference: one part of a path, not hidden."""
    return Path(reference).name == reference and not reference.startswith(".")


def _listed(folder: Path) -> list[str]:
    with _explained(f"{folder} cannot be read"):
        return listed(folder)


def _checkpoints(folder: Path) -> Iterator[tuple[Path, str]]:
    """Find the checkpoints and their labels, whatever else lies beside them."""
    for path in map(folder.joinpath, _listed(folder)):
        with contextlib.suppress(OSError, AdapterError):  # one of them deleted meanwhile
            if _is_name(path.name) and not path.is_symlink():
                yield path, _facts(path)["label"]


def _exports(folder: Path) -> Iterator[tuple[Path, str]]:
    """Find the weights that were saved with a name. Older versions did not note it."""
    for path in map(folder.joinpath, _listed(folder)):
        with contextlib.suppress(OSError, ValueError):
            if _is_name(path.name) and not path.is_symlink():
                found = read_json(path / NAME)
                if isinstance(found, dict) and isinstance(found.get("name"), str):
                    yield path, found["name"]


def _facts(path: Path) -> dict[str, Any]:
    """Read what a checkpoint says about itself.

    Raises:
        InvalidInput: it is damaged.
        OSError: it is missing, or cannot be read.
    """
    try:
        facts = read_json(path / STATE)
        if not isinstance(facts, dict):
            raise ValueError("it is no table")
        for key, kind in (("format", int), ("label", str)):
            if not isinstance(facts.get(key), kind):
                raise ValueError(f"{key!r} should be {kind.__name__}, it is {facts.get(key)!r:.80}")
    except ValueError as error:
        raise damage(path, STATE, str(error)) from error
    return facts


def damage(path: Path, file: str, reason: str) -> InvalidInput:
    """Return the error of a checkpoint of which a file is not as it was written."""
    return InvalidInput(
        f"checkpoint {path.name!r} in {path.parent} is damaged, or was changed: {file}: {reason}"
    )


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    import safetensors.torch

    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(plain, path)


def _load_tensors(path: Path, name: str) -> dict[str, Tensor]:
    import safetensors.torch

    file = path / name
    with _explained(f"{file} cannot be read"):
        if not file.is_file():  # to open a pipe would wait for ever
            raise damage(path, name, "it is missing, or no file")
        try:
            tensors: dict[str, Tensor] = safetensors.torch.load_file(file)
        except safetensors.SafetensorError as error:
            raise damage(path, name, str(error)) from error
    return tensors


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what the operating system refuses into what the contract says.

    Libraries in Rust, as safetensors and tokenizers, have errors of their own for it.
    """
    with explain_os_errors(what, no_effect=True):
        try:
            yield
        except (AdapterError, OSError):
            raise
        except Exception as error:
            if found := re.search(r"\(os error (\d+)\)", str(error)):
                raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
            raise
