"""Train low-rank updates on Tinker, or on a server that speaks its API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
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

from .options import ServerOptions as Options

if TYPE_CHECKING:
    from .training.open_sessions import OpenSessions
    from .training.session import Session


@resource
def _sessions(opts: Options) -> OpenSessions:
    from .training.open_sessions import OpenSessions

    return OpenSessions(opts)


@hookimpl
def start_session(opts: Options, config: SessionConfig) -> Session:
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
def list_checkpoints(opts: Options, prefix: str) -> Sequence[str]:
    from .training.cleaning import references

    return references(_sessions(opts).server, prefix, "c")


@hookimpl
def delete_checkpoint(opts: Options, path: str) -> None:
    from .training.cleaning import delete

    delete(_sessions(opts).server, path)


@hookimpl
def get_info(opts: Options, session: Session) -> Mapping[str, str | int | float | bool | None]:
    return session.get_info()


@hookimpl
def clean(opts: Options, prefix: str, keep: Sequence[str], dry_run: bool) -> Sequence[str]:
    from .training.cleaning import clean

    return clean(_sessions(opts).server, prefix, keep, dry_run)


@hookimpl
def ping(opts: Options) -> None:
    _sessions(opts).server.models()


@hookimpl
def close(opts: Options) -> None:
    if sessions := _sessions.pop(opts):
        sessions.close_all()


@helper
def get_tokenizer(opts: Options, session: Session) -> Tokenizer:
    """Return the tokenizer of the session's model, or that of the option `tokenizer`.

    Its attribute `chat_template` is None if the model has none; `tokenizer` is the Transformers
    tokenizer itself, and `model_vocab_size` the number of token ids that the model knows.

    Raises:
        NotFound: there is none, or it cannot be loaded from here.
    """
    return session.get_tokenizer()


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import TrainingClientSpec

    import crucible_adapter_tinker.training_client as this_module

    # `TrainingClientOptionalSpec` is not checked as a whole: a server exports nothing to a folder,
    # and does not say how much it can store.
    _: TrainingClientSpec[Options, Session, Future[Any]] = this_module
