"""Train on this machine with PyTorch, every weight or a low-rank update."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crucible_kitchen import (
    AdamParams,
    AdapterTimeout,
    Datum,
    ForwardBackwardResult,
    LocalPath,
    OptimStepResult,
    SessionConfig,
    Tokenizer,
    helper,
    hookimpl,
    resource,
)
from pydantic import Field

from .options import ModelOptions

if TYPE_CHECKING:
    from .session import Session


class Options(ModelOptions):
    checkpoint_dir: LocalPath = Path("checkpoints")
    """Folder of the checkpoints and of the weights that were saved with a name."""
    micro_batch_tokens: int = Field(4096, ge=1)
    """Tokens, padding included, computed at a time. More is faster until memory runs out; another
    value changes results by rounding."""
    deterministic: bool = False
    """Let PyTorch use deterministic algorithms alone, in the whole process, so that a run can be
    repeated to the bit on a GPU. The CPU needs no such thing."""
    adapter: Literal["merge", "continue"] = "merge"
    """What becomes of a PEFT adapter that is named as the model: `merge` adds it to its base
    model, and trains the result; `continue` trains the adapter itself, for which `lora` must be
    what it was made with."""


@resource
def _sessions(opts: Options) -> _Sessions:
    return _Sessions()


class _Sessions:
    """The sessions that are open."""

    def __init__(self) -> None:
        self._open: set[Session] = set()
        self._lock = threading.Lock()

    def add(self, session: Session) -> None:
        with self._lock:
            self._open.add(session)

    def close(self, session: Session) -> None:
        with self._lock:
            self._open.discard(session)
        session.close()

    def close_all(self) -> None:
        for session in tuple(self._open):
            self.close(session)


@hookimpl
def start_session(opts: Options, config: SessionConfig) -> Session:
    from .session import Session

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
) -> ForwardBackwardResult | OptimStepResult:
    done, _ = concurrent.futures.wait([future], timeout)
    if not done:
        raise AdapterTimeout(f"the operation is still running after {timeout} s; ask again")
    result: ForwardBackwardResult | OptimStepResult = future.result()
    return result


@hookimpl
def save_checkpoint(opts: Options, session: Session, path: str) -> str:
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
    from . import checkpoints

    return checkpoints.list_references(opts.checkpoint_dir, prefix)


@hookimpl
def delete_checkpoint(opts: Options, path: str) -> None:
    from . import checkpoints

    checkpoints.delete(opts.checkpoint_dir, path)


@hookimpl
def get_info(opts: Options, session: Session) -> Mapping[str, str | int | float | bool | None]:
    return session.get_info()


@hookimpl
def check_storage(opts: Options, session: Session, checkpoints: int) -> None:
    session.check_storage(checkpoints)


@hookimpl
def clean(opts: Options, prefix: str, keep: Sequence[str], dry_run: bool) -> Sequence[str]:
    from . import checkpoints

    return checkpoints.clean(opts.checkpoint_dir, prefix, keep, dry_run)


@hookimpl
def ping(opts: Options) -> None:
    from . import checkpoints

    folder = opts.checkpoint_dir
    checkpoints.check_storage({folder: 0, folder / checkpoints.SAMPLER: 0})
    checkpoints.warn_of_damage(folder)


@hookimpl
def close(opts: Options) -> None:
    if sessions := _sessions.pop(opts):
        sessions.close_all()


@helper
def get_tokenizer(opts: Options, session: Session) -> Tokenizer:
    """Return the tokenizer of the session's model.

    Its attribute `chat_template` is None for a model that has none; `tokenizer` is the
    Transformers tokenizer itself, and `model_vocab_size` the number of token ids that the model
    knows.

    Raises:
        Unsupported: the model's folder has no tokenizer.
    """
    return session.tokenizer


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import TrainingClientOptionalSpec, TrainingClientSpec

    import crucible_adapter_torch.training_client as this_module

    _: TrainingClientSpec[Options, Session, Future[Any]] = this_module
    _o: TrainingClientOptionalSpec[Options, Session, Future[ForwardBackwardResult]] = this_module
