"""Train on a platform through its SDK `my_client`, as docs/adapters/training-client.md explains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import my_client
import numpy as np
from crucible_kitchen import (
    AdamParams,
    AdapterError,
    AdapterOptions,
    AdapterTimeout,
    Datum,
    ForwardBackwardResult,
    FromEnv,
    InvalidInput,
    NotFound,
    OptimStepResult,
    SessionClosed,
    SessionConfig,
    SessionFailed,
    Unauthorized,
    Unavailable,
    Unsupported,
    hookimpl,
    validate_datums,
)
from pydantic import SecretStr


class Options(AdapterOptions):
    api_key: Annotated[SecretStr, FromEnv("MY_API_KEY")]
    """Key of the account."""
    base_url: str = "https://api.example.com"
    """Where the platform is."""


@dataclass(frozen=True, slots=True)
class Session:
    """A handle: identifies the run to the platform."""

    client: my_client.Client
    model: str
    started_at: datetime
    max_length: int | None


@dataclass(frozen=True, slots=True)
class Job:
    """A future: the id under which the platform keeps the result."""

    session: Session
    id: str


ERRORS: Mapping[type[Exception], type[AdapterError]] = {
    my_client.Unreachable: Unavailable,
    my_client.Forbidden: Unauthorized,
    my_client.Missing: NotFound,
    my_client.Refused: InvalidInput,
    my_client.Disconnected: SessionClosed,
    my_client.JobFailed: AdapterError,
    my_client.RunFailed: SessionFailed,
    TimeoutError: AdapterTimeout,
}


@contextmanager
def translated() -> Iterator[None]:
    """Raise errors of the SDK as errors of the contract."""
    try:
        yield
    except tuple(ERRORS) as error:
        raise ERRORS[type(error)](str(error)) from error


@hookimpl
def start_session(opts: Options, config: SessionConfig) -> Session:
    if config.lora is not None or config.revision is not None or not config.trainable:
        raise Unsupported("the platform trains all weights of its own models, and nothing else")
    with translated():
        client = my_client.connect(opts.base_url, opts.api_key.get_secret_value())
        client.create_run(config.model, seed=config.seed)
        if config.from_checkpoint is not None:
            client.load_checkpoint(config.from_checkpoint, config.with_optimizer)
    return Session(client, config.model, datetime.now(UTC), config.max_length)


@hookimpl
def forward_backward(
    session: Session,
    datums: Sequence[Datum],
    loss_fn: str,
    loss_fn_config: Mapping[str, float] | None,
) -> Job:
    with translated():
        vocab_size = session.client.vocab_size()
    config = validate_datums(  # the same refusals, in the same words, on every backend
        datums, loss_fn, loss_fn_config, vocab_size=vocab_size, max_length=session.max_length
    )
    batch = [serialize(datum) for datum in datums]
    with translated():
        return Job(session, session.client.submit_batch(batch, loss_fn, config))


@hookimpl
def optim_step(session: Session, learning_rate: float, adam: AdamParams) -> Job:
    with translated():
        return Job(session, session.client.apply_gradients(learning_rate, asdict(adam)))


@hookimpl
def await_(future: Job, timeout: float | None) -> ForwardBackwardResult | OptimStepResult:
    with translated():
        result = future.session.client.wait_for_job(future.id, timeout=timeout)
    if "grad_norm" in result:
        return OptimStepResult(result["grad_norm"])
    outputs = [{"logprobs": np.asarray(item, np.float32)} for item in result["logprobs"]]
    return ForwardBackwardResult(result["loss"], outputs)


@hookimpl
def save_checkpoint(session: Session, path: str) -> str:
    with translated():
        return session.client.save_checkpoint(path)


@hookimpl
def load_checkpoint(session: Session, path: str, with_optimizer: bool) -> None:
    with translated():
        session.client.load_checkpoint(path, with_optimizer)


@hookimpl
def close_session(session: Session) -> None:
    session.client.disconnect()


def serialize(datum: Datum) -> dict[str, Any]:
    """Return a datum as the platform takes it."""
    return {
        "model_input": datum.model_input.to_ints(),
        "loss_fn_inputs": {
            name: np.asarray(values).tolist() for name, values in datum.loss_fn_inputs.items()
        },
    }
