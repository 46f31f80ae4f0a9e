"""Train with several processes of PyTorch, on this machine or on a cluster, started by Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import crucible_adapter_torch.training_client as torch_client
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

from . import cluster, room
from .options import TrainingClientOptions as Options
from .training.checkpoints import checkpoints_of

if TYPE_CHECKING:
    from .training.open_sessions import OpenSessions
    from .training.session import Session


@resource
def _sessions(opts: Options) -> OpenSessions:
    from .training.open_sessions import OpenSessions  # which imports Ray

    return OpenSessions(opts)


@hookimpl
def start_session(opts: Options, config: SessionConfig) -> Session:
    torch_client.look_for_model(opts, config)  # before Ray is started for nothing
    return _sessions(opts).start(config)


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
    return checkpoints_of(opts).list(prefix)


@hookimpl
def delete_checkpoint(opts: Options, path: str) -> None:
    checkpoints_of(opts).delete(path)


@hookimpl
def get_info(opts: Options, session: Session) -> Mapping[str, str | int | float | bool | None]:
    return session.get_info()


@hookimpl
def check_storage(opts: Options, session: Session, checkpoints: int) -> None:
    session.check_storage(checkpoints)


@hookimpl
def clean(opts: Options, prefix: str, keep: Sequence[str], dry_run: bool) -> Sequence[str]:
    return checkpoints_of(opts).clean(prefix, keep, dry_run)


@hookimpl
def ping(opts: Options) -> None:
    torch_client.ping(opts)
    cluster.ping(opts, lambda: room.demand("workers", opts.workers, opts).warn_if_too_large())


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
    """Return how many bytes a session would take on the device of a worker with `strategy = "ddp"`:
    see the helper of the same name of the `torch` adapter. With `fsdp` its weights, gradients and
    moments are cut between the workers. What is `available` is of this machine.

    Raises:
        Unsupported: it cannot be known for this architecture.
        NotFound, InvalidInput, Unauthorized, Unavailable: see `start_session`.
    """
    needed = dict(torch_client.memory_needed(opts, config, rows))
    if opts.strategy == "fsdp":
        for part in ("weights", "gradients", "moments"):
            needed[part] = -(-needed[part] // opts.workers)
    return needed


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import TrainingClientOptionalSpec, TrainingClientSpec

    import crucible_adapter_ray.training_client as this_module

    _: TrainingClientSpec[Options, Session, Future[Any]] = this_module
    _optional: TrainingClientOptionalSpec[Options, Session, Future[Any]] = this_module
