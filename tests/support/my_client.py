"""The SDK of the imaginary platform of docs/adapters/training-client.md, and the platform.

What a user sees of it is `Client`; behind it a bigram model is trained.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bigram_training_client as bigram
import numpy as np
from crucible_kitchen import (
    AdamParams,
    AdapterError,
    AdapterTimeout,
    Datum,
    InvalidInput,
    ModelInput,
    NotFound,
    SessionClosed,
    SessionConfig,
    SessionFailed,
)


class Unreachable(Exception):
    """The platform does not answer."""


class Forbidden(Exception):
    """The key does not belong to an account."""


class Missing(Exception):
    """The model or the checkpoint does not exist."""


class Refused(Exception):
    """The request makes no sense."""


class Disconnected(Exception):
    """The client was disconnected."""


class JobFailed(Exception):
    """A job failed."""


class RunFailed(Exception):
    """A job of the run failed, so this one was not begun."""


def connect(base_url: str, api_key: str) -> Client:
    if not base_url.startswith("file:"):
        raise Unreachable(f"{base_url} does not answer")
    if api_key != "sk-valid":
        raise Forbidden("unknown key")
    return Client(Path(base_url.removeprefix("file:")))


class Client:
    """One run on the platform, and its jobs."""

    def __init__(self, folder: Path) -> None:
        self._opts = bigram.Options(checkpoint_dir=folder, models={"any": 40})
        self._jobs: dict[str, Any] = {}

    def create_run(self, model: str, seed: int) -> None:
        self._run = self._ask(bigram.start_session, config=SessionConfig(model, seed=seed))

    def vocab_size(self) -> int:
        return len(self._run.state.weights)

    def submit_batch(
        self, batch: Sequence[Mapping[str, Any]], loss_fn: str, config: Mapping[str, float]
    ) -> str:
        datums = [
            Datum(
                ModelInput.from_ints(item["model_input"]),
                {
                    name: np.asarray(v, np.int64 if name == "target_tokens" else np.float32)
                    for name, v in item["loss_fn_inputs"].items()
                },
            )
            for item in batch
        ]
        return self._job(
            bigram.forward_backward,
            session=self._run,
            datums=datums,
            loss_fn=loss_fn,
            loss_fn_config=dict(config) or None,
        )

    def apply_gradients(self, learning_rate: float, adam: Mapping[str, float]) -> str:
        return self._job(
            bigram.optim_step,
            session=self._run,
            learning_rate=learning_rate,
            adam=AdamParams(**adam),
        )

    def wait_for_job(self, job: str, timeout: float | None = None) -> dict[str, Any]:
        result = self._ask(bigram.await_, future=self._jobs[job], timeout=timeout)
        if hasattr(result, "grad_norm"):
            return {"grad_norm": result.grad_norm}
        logprobs = [output["logprobs"].tolist() for output in result.outputs]
        return {"loss": result.loss, "logprobs": logprobs}

    def save_checkpoint(self, label: str) -> str:
        return str(self._ask(bigram.save_checkpoint, session=self._run, path=label))

    def load_checkpoint(self, reference: str, with_optimizer: bool) -> None:
        self._ask(
            bigram.load_checkpoint,
            session=self._run,
            path=reference,
            with_optimizer=with_optimizer,
        )

    def disconnect(self) -> None:
        bigram.close_session(self._opts, self._run)

    def _job(self, callback: Any, **arguments: Any) -> str:
        job = uuid.uuid4().hex
        self._jobs[job] = self._ask(callback, **arguments)
        return job

    def _ask(self, callback: Any, **arguments: Any) -> Any:
        try:
            return callback(self._opts, **arguments)
        except NotFound as error:
            raise Missing(str(error)) from None
        except InvalidInput as error:
            raise Refused(str(error)) from None
        except SessionClosed as error:
            raise Disconnected(str(error)) from None
        except SessionFailed as error:
            raise RunFailed(str(error)) from None
        except AdapterTimeout as error:
            raise TimeoutError(str(error)) from None
        except AdapterError as error:
            raise JobFailed(str(error)) from None
