"""The weights of a run, as a folder that other programs load."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import ConfigurationError, NotFound, explain_os_errors
from ..kitchen import Kitchen
from ..messages.spelling import listed
from ..types import SessionConfig
from ..version import __version__
from ..workflows.config import ModelConfig
from ..workflows.runs import RunRecord
from ..workflows.sessions import frozen

try:
    import fcntl
except ImportError:  # Windows, where what a kill leaves behind stays
    fcntl = None  # type: ignore[assignment]

ABOUT = "crucible.json"
"""The file of an exported folder that says which run its weights are of."""
_PARTIAL = ".crucible-export-"


@dataclass(frozen=True, slots=True)
class Exported:
    """A folder of weights.

    Args:
        folder: where it is.
        run_id: the run that they are of.
        checkpoint: the checkpoint that they are of.
        merged: whether it is a whole model, and not a low-rank update.
        differs: what the training client reports differently from the run, in words.
    """

    folder: Path
    run_id: str
    checkpoint: str
    merged: bool
    differs: tuple[str, ...]


def checkpoint_of(record: RunRecord, wanted: str | None = None) -> str:
    """Return the reference of a checkpoint of a run.

    Args:
        record: the run's.
        wanted: `last`, `best`, or a reference; None is the one that the run stands for, which is
            the best if it looks for one, else the last.

    Raises:
        ConfigurationError: there is none; or it is not one of this run, or not kept.
    """
    run_id, state = record.run_id, record.state
    if state.checkpoint is None or record.chosen is None:
        raise ConfigurationError(
            f"the run {run_id!r}, which is {record.status}, has no checkpoint yet"
        )
    best = state.standing.best
    if wanted is None:
        return record.chosen
    if wanted == "last":
        return state.checkpoint
    if wanted == "best":
        if best is None:
            raise ConfigurationError(
                f"the run {run_id!r} does not look for a best checkpoint: it was started without "
                "workflow.best_metric"
            )
        if best.checkpoint is None:
            raise ConfigurationError(
                f"no checkpoint of the run {run_id!r} is its best: its best evaluation, at step "
                f"{best.step}, was of weights that were not saved"
            )
        return best.checkpoint
    kept = {*record.checkpoints, state.checkpoint, *([best.checkpoint] if best else [])} - {None}
    if wanted not in kept:
        names = ["last", "best", *sorted(map(str, kept))]
        raise ConfigurationError(
            f"the run {run_id!r} keeps no checkpoint {wanted!r}; there is {listed(wanted, names)}"
        )
    return wanted


def export(
    kitchen: Kitchen,
    record: RunRecord,
    folder: str | Path,
    checkpoint: str | None = None,
    merge: bool = True,
) -> Exported:
    """Write the weights of a run to a folder: whole or not at all, even if the process is killed.

    Args:
        kitchen: its training client has the checkpoint.
        record: the run's.
        folder: where to; it is made.
        checkpoint: which weights, see `checkpoint_of`.
        merge: write a whole model; else a low-rank update alone, as an adapter of PEFT.

    Raises:
        ConfigurationError: there is no such checkpoint, the folder holds something, or the training
            client exports nothing.
        InvalidInput: without `merge`, the run has no update, or its base model has no name.
        AdapterError: a call failed.
    """
    client = kitchen.training_client
    reference = checkpoint_of(record, checkpoint)
    if not client.supports("export_weights"):
        raise ConfigurationError(
            f"the training client {client.adapter!r} exports no weights: it does not implement "
            "export_weights, which is optional"
        )
    about = {
        "run_id": record.run_id,
        "workflow": record.workflow,
        "checkpoint": reference,
        "packages": {"crucible-kitchen": __version__, **kitchen.packages()},
    }
    target = Path(folder)
    with _new_folder(target) as partial, _session(kitchen, record, reference) as session:
        differs = tuple(_differs(kitchen, session, record))
        client.export_weights(session, partial, merge)
        text = json.dumps(about, indent=2, ensure_ascii=False)
        (partial / ABOUT).write_text(text, encoding="utf-8")
        _share(partial)
    return Exported(target.absolute(), record.run_id, reference, merge, differs)


@contextlib.contextmanager
def _session(kitchen: Kitchen, record: RunRecord, checkpoint: str) -> Iterator[Any]:
    try:
        with frozen(kitchen.training_client, _config_of(record, checkpoint)) as session:
            yield session
    except NotFound as error:
        was = _adapter_of(record.adapters)
        if error.callback == "start_session" and was not in (None, kitchen.training_client.adapter):
            error.add_note(
                f"the run {record.run_id!r} was trained by the training client {was!r}, and "
                f"{kitchen.training_client.adapter!r} is configured here"
            )
        raise


def _config_of(record: RunRecord, checkpoint: str) -> SessionConfig:
    """Return what a session of the run is started with."""
    known = {key: value for key, value in record.config.items() if key in ModelConfig.model_fields}
    try:
        config = ModelConfig.model_validate(known).session()
    except ValidationError as error:
        raise ConfigurationError(
            f"the record of the run {record.run_id!r} does not say which model it trained: its "
            f"workflow {record.workflow!r} has other settings than those of ModelConfig"
        ) from error
    return replace(config, from_checkpoint=checkpoint)


def _adapter_of(adapters: Mapping[str, Any]) -> str | None:
    found = adapters.get("training_client")
    used = found.get("use") if isinstance(found, Mapping) else None
    return used if isinstance(used, str) else None


def _differs(kitchen: Kitchen, session: Any, record: RunRecord) -> Iterator[str]:
    """Yield what the training client reports otherwise than it did to the run."""
    before = record.depends_on.get("training_client", {})
    if not before or not kitchen.training_client.supports("get_info"):
        return
    now = kitchen.training_client.get_info(session)
    for name in before:
        if name in now and now[name] != before[name]:
            yield f"{name} was {before[name]!r} and is {now[name]!r}"


# --- a folder, whole or not at all ---


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Yield a folder to fill, which then gets its name at once. If the block fails nothing remains.

    What a killed process left next to it is removed.

    Raises:
        ConfigurationError: the folder holds something, or is a file.
        AdapterError: the file system refuses.
    """
    with explain_os_errors(f"{target} cannot be written"):
        _check_free(target)
        final = target.resolve()
        _remove_left(final.parent)
        made = [each for each in (final.parent, *final.parent.parents) if not each.exists()]
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.parent / f"{_PARTIAL}{uuid.uuid4().hex[:12]}"
        try:
            partial.mkdir()
            with _locked(partial):
                yield partial
                for path in (*(p for p in partial.rglob("*") if p.is_file()), partial):
                    _sync(path)
                _check_free(target)
                if final.exists():
                    final.rmdir()
                partial.rename(final)
            _sync(final.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            for folder in made:  # the innermost first
                with contextlib.suppress(OSError):  # it is used by now
                    folder.rmdir()
            raise


def _share(folder: Path) -> None:
    """Give all files the mode of one written here: some libraries make them for their owner alone,
    and the program that serves them may be another user's.
    """
    mode = stat.S_IMODE((folder / ABOUT).stat().st_mode)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _check_free(target: Path) -> None:
    if target.is_dir():
        if any(target.iterdir()):
            raise ConfigurationError(f"{target} is not empty; choose another folder, or empty it")
    elif os.path.lexists(target):
        raise ConfigurationError(f"{target} exists and is not a folder; choose another name")


def _remove_left(parent: Path) -> None:
    """Remove the unfinished folders of processes that have ended."""
    for path in parent.glob(f"{_PARTIAL}*") if fcntl else ():
        with contextlib.suppress(OSError), _locked(path):
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which the kernel frees when the process ends.

    Raises:
        OSError: another process holds it.
    """
    if not fcntl:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
