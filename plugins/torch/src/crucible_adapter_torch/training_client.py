"""Train on this machine with PyTorch: every weight, or a low-rank update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_kitchen import (
    AdamParams,
    AdapterTimeout,
    Datum,
    ForwardBackwardResult,
    OptimStepResult,
    SessionConfig,
    Tokenizer,
    helper,
    hookimpl,
    resource,
)

from .checkpoints import cleaning, inspection, stored
from .checkpoints.exports import exports_in
from .heavy_imports import collection_paused
from .options import TrainingClientOptions as Options
from .training.open_sessions import OpenSessions

if TYPE_CHECKING:
    from .training.session import Session


@resource
def _sessions(opts: Options) -> OpenSessions:
    return OpenSessions()


@hookimpl
def start_session(opts: Options, config: SessionConfig) -> Session:
    with collection_paused():
        from .training.session import Session

    session = Session(opts, config)
    _sessions(opts).add(session)
    return session


@hookimpl
def forward_backward(
    opts: Options,
    session: Session,
    datums: Sequence[Datum],
    loss_fn: str,
    loss_fn_config: Mapping[str, float] | None,
) -> Future[ForwardBackwardResult]:
    return session.forward_backward(datums, loss_fn, loss_fn_config)


@hookimpl
def forward(
    opts: Options,
    session: Session,
    datums: Sequence[Datum],
    loss_fn: str,
    loss_fn_config: Mapping[str, float] | None,
) -> Future[ForwardBackwardResult]:
    return session.forward(datums, loss_fn, loss_fn_config)


@hookimpl
def optim_step(
    opts: Options, session: Session, learning_rate: float, adam: AdamParams
) -> Future[OptimStepResult]:
    return session.optim_step(learning_rate, adam)


@hookimpl
def await_(
    opts: Options, future: Future[Any], timeout: float | None
) -> ForwardBackwardResult | OptimStepResult | str:
    result: ForwardBackwardResult | OptimStepResult | str
    try:
        result = future.result(timeout)
    except TimeoutError:  # of the wait, or of the operation
        if not future.done():
            raise AdapterTimeout(
                f"the operation is still running after {timeout} s; await it again"
            ) from None
        result = future.result()
    return result


@hookimpl
def save_checkpoint(opts: Options, session: Session, path: str) -> str:
    return session.save_checkpoint(path).result()


@hookimpl
def save_checkpoint_async(opts: Options, session: Session, path: str) -> Future[str]:
    return session.save_checkpoint(path)


@hookimpl
def load_checkpoint(opts: Options, session: Session, path: str, with_optimizer: bool) -> None:
    session.load_checkpoint(path, with_optimizer)


@hookimpl
def close_session(opts: Options, session: Session) -> None:
    _sessions(opts).close(session)


@hookimpl
def save_weights_for_sampler(opts: Options, session: Session, name: str | None) -> str:
    return session.publish(name)


@hookimpl
def export_weights(opts: Options, session: Session, folder: Path, merge: bool) -> None:
    session.export(folder, merge)


@hookimpl
def list_checkpoints(opts: Options, prefix: str) -> Sequence[str]:
    return stored.list_references(opts.checkpoint_dir, prefix)


@hookimpl
def delete_checkpoint(opts: Options, path: str) -> None:
    stored.delete(opts.checkpoint_dir, path)


@hookimpl
def get_info(opts: Options, session: Session) -> Mapping[str, str | int | float | bool | None]:
    return session.get_info()


@hookimpl
def check_storage(opts: Options, session: Session, checkpoints: int) -> None:
    session.check_storage(checkpoints)


@hookimpl
def clean(opts: Options, prefix: str, keep: Sequence[str], dry_run: bool) -> Sequence[str]:
    return cleaning.clean(opts.checkpoint_dir, prefix, keep, dry_run)


@hookimpl
def ping(opts: Options) -> None:
    folder = opts.checkpoint_dir
    inspection.check_storage({folder: 0, exports_in(folder): 0})
    inspection.warn_of_damage(folder)


@hookimpl
def close(opts: Options) -> None:
    if sessions := _sessions.pop(opts):
        sessions.close_all()


@helper
def get_tokenizer(opts: Options, session: Session) -> Tokenizer:
    """Return the tokenizer of the session's model.

    Its attribute `chat_template` is None if the model has none; `tokenizer` is the Transformers
    tokenizer itself, and `model_vocab_size` the number of token ids that the model knows.

    Raises:
        Unsupported: the model's folder has no tokenizer.
    """
    return session.tokenizer


@helper
def storage_needed(opts: Options, session: Session) -> Mapping[str, int]:
    """Return how many bytes a checkpoint of the session takes, `checkpoint`, and its weights saved
    once with a name, `weights`; a little more than they do.
    """
    return session.storage_needed()


@helper
def memory_needed(opts: Options, config: SessionConfig, rows: int = 0) -> Mapping[str, int]:
    """Return how many bytes a session would take on its device: `weights`, `gradients`, `moments`,
    and `activations`, all else that a pass over `micro_batch_tokens` holds, or over the largest
    part of a batch of `rows` rows of `config.max_length` tokens; `loading` is what its weights take
    while they are loaded, and `available` what is free there now. Nothing is loaded but the
    configuration of the model.

    Raises:
        Unsupported: it cannot be known for this architecture.
        NotFound, InvalidInput, Unauthorized, Unavailable: see `start_session`.
    """
    from .training import budget

    return budget.outlook(opts, config, rows)


def look_for_model(opts: Options, config: SessionConfig) -> None:
    """Raise if a session's model has a plain name, and the hub says that there is none.

    For packages that start processes to load it. PyTorch is not imported.

    Raises:
        NotFound: see `start_session`.
    """
    from .models import presence

    presence.look_for(opts, config.model, config.revision)


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import TrainingClientOptionalSpec, TrainingClientSpec

    import crucible_adapter_torch.training_client as this_module

    _: TrainingClientSpec[Options, Session, Future[Any]] = this_module
    _optional: TrainingClientOptionalSpec[Options, Session, Future[Any]] = this_module
