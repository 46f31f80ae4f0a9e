"""The six ports, as the authors of workflows call them.

Options are bound, so a call takes only the arguments of its callback. The contract of each
callback is in `hookspecs.py`; here are types and defaults. A callback that the adapter leaves out
raises `Unsupported`; `supports` says beforehand. Every failure is an `AdapterError`.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from .calls.port import Port
from .calls.streams import Stream
from .errors import AdapterError, InvalidInput
from .events import completions
from .events.calls import Reporter
from .hookspecs import (
    BlobStoreOptionalSpec,
    BlobStoreSpec,
    CompleterOptionalSpec,
    CompleterSpec,
    DatasetStoreOptionalSpec,
    DatasetStoreSpec,
    HubClientOptionalSpec,
    HubClientSpec,
    MetricsStoreOptionalSpec,
    MetricsStoreSpec,
    TrainingClientOptionalSpec,
    TrainingClientSpec,
)
from .types import (
    AdamParams,
    Completion,
    CompletionChunk,
    Datum,
    FloatArray,
    ForwardBackwardResult,
    Future,
    MetricEntry,
    OptimStepResult,
    Prompt,
    SamplingParams,
    SessionConfig,
    T_co,
    check_metric,
)

DEFAULT_ADAM = AdamParams()


class TrainingClient(Port):
    """Train a language model, one operation at a time."""

    name = "training_client"
    spec = TrainingClientSpec
    optional = TrainingClientOptionalSpec

    def start_session(self, config: SessionConfig) -> Any:
        return self._call(TrainingClientSpec.start_session, config=config)

    def forward_backward(
        self,
        session: Any,
        datums: Sequence[Datum],
        loss_fn: str = "cross_entropy",
        loss_fn_config: Mapping[str, float] | None = None,
    ) -> Future[ForwardBackwardResult]:
        return self._call(
            TrainingClientSpec.forward_backward,
            session=session,
            datums=datums,
            loss_fn=loss_fn,
            loss_fn_config=loss_fn_config,
        )

    def optim_step(
        self, session: Any, learning_rate: float, adam: AdamParams = DEFAULT_ADAM
    ) -> Future[OptimStepResult]:
        return self._call(
            TrainingClientSpec.optim_step,
            session=session,
            learning_rate=learning_rate,
            adam=adam,
        )

    def await_(self, future: Future[T_co], timeout: float | None = None) -> T_co:
        return self._call(TrainingClientSpec.await_, future=future, timeout=timeout)  # type: ignore[return-value]

    def save_checkpoint(self, session: Any, path: str) -> str:
        return self._call(TrainingClientSpec.save_checkpoint, session=session, path=path)

    def load_checkpoint(self, session: Any, path: str, with_optimizer: bool = True) -> None:
        self._call(
            TrainingClientSpec.load_checkpoint,
            session=session,
            path=path,
            with_optimizer=with_optimizer,
        )

    def close_session(self, session: Any) -> None:
        self._call(TrainingClientSpec.close_session, session=session)

    def forward(
        self,
        session: Any,
        datums: Sequence[Datum],
        loss_fn: str = "cross_entropy",
        loss_fn_config: Mapping[str, float] | None = None,
    ) -> Future[ForwardBackwardResult]:
        return self._call(
            TrainingClientOptionalSpec.forward,
            session=session,
            datums=datums,
            loss_fn=loss_fn,
            loss_fn_config=loss_fn_config,
        )

    def save_checkpoint_async(self, session: Any, path: str) -> Future[str]:
        return self._call(
            TrainingClientOptionalSpec.save_checkpoint_async, session=session, path=path
        )

    def save_weights_for_sampler(self, session: Any, name: str | None = None) -> str:
        return self._call(
            TrainingClientOptionalSpec.save_weights_for_sampler, session=session, name=name
        )

    def export_weights(self, session: Any, folder: str | PathLike[str], merge: bool = True) -> None:
        self._call(
            TrainingClientOptionalSpec.export_weights,
            session=session,
            folder=Path(folder),
            merge=merge,
        )

    def get_info(self, session: Any) -> Mapping[str, str | int | float | bool | None]:
        return self._call(TrainingClientOptionalSpec.get_info, session=session)

    def check_storage(self, session: Any, checkpoints: int = 1) -> None:
        self._call(
            TrainingClientOptionalSpec.check_storage, session=session, checkpoints=checkpoints
        )

    def list_checkpoints(self, prefix: str = "") -> Sequence[str]:
        return self._call(TrainingClientOptionalSpec.list_checkpoints, prefix=prefix)

    def delete_checkpoint(self, path: str) -> None:
        self._call(TrainingClientOptionalSpec.delete_checkpoint, path=path)


class DatasetStore(Port):
    """Load rows and select among them; handles are immutable."""

    name = "dataset_store"
    spec = DatasetStoreSpec
    optional = DatasetStoreOptionalSpec

    def load_dataset(
        self,
        dataset_id: str,
        split: str | None = None,
        name: str | None = None,
        revision: str | None = None,
        streaming: bool = False,
    ) -> Any:
        return self._call(
            DatasetStoreSpec.load_dataset,
            dataset_id=dataset_id,
            split=split,
            name=name,
            revision=revision,
            streaming=streaming,
        )

    def get_split(self, handle: Any, split: str) -> Any:
        return self._call(DatasetStoreSpec.get_split, handle=handle, split=split)

    def shuffle(self, handle: Any, seed: int, buffer_size: int | None = None) -> Any:
        return self._call(
            DatasetStoreSpec.shuffle, handle=handle, seed=seed, buffer_size=buffer_size
        )

    def take(self, handle: Any, count: int) -> Any:
        return self._call(DatasetStoreSpec.take, handle=handle, count=count)

    def skip(self, handle: Any, count: int) -> Any:
        return self._call(DatasetStoreSpec.skip, handle=handle, count=count)

    def select(self, handle: Any, selection: range | Sequence[int]) -> Any:
        return self._call(DatasetStoreSpec.select, handle=handle, selection=selection)

    def to_list(self, handle: Any) -> list[dict[str, Any]]:
        return self._call(DatasetStoreSpec.to_list, handle=handle)

    def stream(self, handle: Any, batch_size: int = 1000) -> Stream[list[dict[str, Any]]]:
        return self._stream(DatasetStoreOptionalSpec.stream, handle=handle, batch_size=batch_size)


class BlobStore(Port):
    """Keep bytes under names; a write is all or nothing."""

    name = "blob_store"
    spec = BlobStoreSpec
    optional = BlobStoreOptionalSpec

    def read(self, path: str) -> bytes:
        return self._call(BlobStoreSpec.read, path=path)

    def stream(self, path: str, chunk_size: int = 1 << 20) -> Stream[bytes]:
        return self._stream(BlobStoreSpec.stream, path=path, chunk_size=chunk_size)

    def write(self, path: str, data: bytes | Iterable[bytes] | BinaryIO) -> None:
        self._call(BlobStoreSpec.write, path=path, data=data)

    def exists(self, path: str) -> bool:
        return self._call(BlobStoreSpec.exists, path=path)

    def delete(self, path: str) -> None:
        self._call(BlobStoreOptionalSpec.delete, path=path)

    def list(self, prefix: str = "") -> Sequence[str]:
        return self._call(BlobStoreOptionalSpec.list, prefix=prefix)

    def read_range(self, path: str, start: int, end: int | None = None) -> bytes:
        return self._call(BlobStoreOptionalSpec.read_range, path=path, start=start, end=end)


class HubClient(Port):
    """Fetch models and data sets from a hub."""

    name = "hub_client"
    spec = HubClientSpec
    optional = HubClientOptionalSpec

    def download(
        self, repo_id: str, filename: str, repo_type: str = "model", revision: str = "main"
    ) -> Path:
        return self._call(
            HubClientSpec.download,
            repo_id=repo_id,
            filename=filename,
            repo_type=repo_type,
            revision=revision,
        )

    def snapshot(
        self,
        repo_id: str,
        repo_type: str = "model",
        revision: str = "main",
        allow_patterns: Sequence[str] | None = None,
        ignore_patterns: Sequence[str] | None = None,
    ) -> Path:
        return self._call(
            HubClientSpec.snapshot,
            repo_id=repo_id,
            repo_type=repo_type,
            revision=revision,
            allow_patterns=allow_patterns,
            ignore_patterns=ignore_patterns,
        )

    def list_files(
        self, repo_id: str, repo_type: str = "model", revision: str = "main"
    ) -> Sequence[str]:
        return self._call(
            HubClientSpec.list_files, repo_id=repo_id, repo_type=repo_type, revision=revision
        )

    def upload(
        self,
        repo_id: str,
        source: str | PathLike[str],
        path_in_repo: str = "",
        repo_type: str = "model",
        revision: str = "main",
        message: str | None = None,
    ) -> str:
        return self._call(
            HubClientOptionalSpec.upload,
            repo_id=repo_id,
            source=Path(source),
            path_in_repo=path_in_repo,
            repo_type=repo_type,
            revision=revision,
            message=message,
        )


class MetricsStore(Port):
    """Keep the numbers of runs."""

    name = "metrics_store"
    spec = MetricsStoreSpec
    optional = MetricsStoreOptionalSpec

    def record(
        self,
        run_id: str,
        metric: str,
        value: float,
        step: int | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self._call(
            MetricsStoreSpec.record,
            run_id=run_id,
            metric=metric,
            value=value,
            step=step,
            metadata=metadata,
        )

    def flush(self, run_id: str) -> None:
        self._call(MetricsStoreSpec.flush, run_id=run_id)

    def read(self, run_id: str) -> list[MetricEntry]:
        return self._call(MetricsStoreSpec.read, run_id=run_id)

    def record_many(
        self,
        run_id: str,
        metrics: Mapping[str, float],
        step: int | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record several numbers; one by one, all of them checked before, if the adapter has no
        quicker way.
        """
        if self.supports("record_many"):
            self._call(
                MetricsStoreOptionalSpec.record_many,
                run_id=run_id,
                metrics=metrics,
                step=step,
                metadata=metadata,
            )
            return
        try:
            for metric, value in metrics.items():
                check_metric(metric, value, step, metadata)
        except InvalidInput as error:
            raise self._errors.explain(error, "record_many") from None
        for metric, value in metrics.items():
            self.record(run_id, metric, value, step, metadata)

    def runs(self) -> Sequence[str]:
        return self._call(MetricsStoreOptionalSpec.runs)


class Completer(Port):
    """Sample from a language model."""

    name = "completer"
    spec = CompleterSpec
    optional = CompleterOptionalSpec
    reporter: ClassVar[Reporter | None] = completions

    def complete(self, prompt: Prompt, params: SamplingParams) -> Completion:
        if params.n != 1:
            raise self._errors.explain(
                InvalidInput(f"complete returns one completion, params.n is {params.n}"),
                "complete",
            )
        return self._call(CompleterSpec.complete, prompt=prompt, params=params)

    def complete_batch(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[Completion | AdapterError]:
        return self._call(CompleterSpec.complete_batch, prompts=prompts, params=params)

    def stream_complete(self, prompt: Prompt, params: SamplingParams) -> Stream[CompletionChunk]:
        if params.n != 1:
            raise self._errors.explain(
                InvalidInput(f"a stream holds one completion, params.n is {params.n}"),
                "stream_complete",
            )
        return self._stream(CompleterOptionalSpec.stream_complete, prompt=prompt, params=params)

    def score(
        self, sequences: Sequence[Prompt], model: str | None = None
    ) -> builtins.list[FloatArray]:
        return self._call(CompleterOptionalSpec.score, sequences=sequences, model=model)


PORTS: Mapping[str, type[Port]] = {
    port.name: port
    for port in (TrainingClient, DatasetStore, BlobStore, HubClient, MetricsStore, Completer)
}
"""The six ports by their names in configuration."""
