"""Limit concurrent calls and calls per second, first come, first served."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, Self

from crucible_kitchen import (
    AdapterOptions,
    BlobStore,
    Call,
    Completer,
    DatasetStore,
    HubClient,
    MetricsStore,
    Stream,
    TrainingClient,
    hookimpl,
    resource,
)
from pydantic import Field, model_validator

from .turns import FairSemaphore, Pace
from .wrapper import PortT, Wrapper


class LimitOptions(AdapterOptions, Generic[PortT]):
    inner: PortT
    """Where the calls go."""
    concurrency: int | None = Field(default=None, ge=1)
    """Calls at once; not set, unlimited. A stream is a call until it ends or is closed."""
    rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Calls a second, evenly spaced; not set, unlimited."""

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.concurrency is None and self.rate is None:
            raise ValueError("set concurrency, rate, or both; without them nothing is limited")
        return self


@resource
def _limits(opts: LimitOptions[Any]) -> tuple[FairSemaphore | None, Pace | None]:
    return (
        None if opts.concurrency is None else FairSemaphore(opts.concurrency),
        None if opts.rate is None else Pace(opts.rate),
    )


class Limit(Wrapper):
    """Limit concurrent calls and calls per second, first come, first served.

    A call inside a call of the same thread (while it writes, or has a stream open) takes no second
    slot, since it would wait for itself. Waiting for a result (`await_`) is not limited.
    """

    @hookimpl
    def around(self, opts: LimitOptions[Any], call: Call) -> Any:
        if call.name == "await_":  # waiting for a slot would exceed its timeout
            return call()
        slots, pace = _limits(opts)
        owner = slots.acquire() if slots is not None else None
        try:
            if pace is not None:
                pace.wait()
            result = call()
            if slots is not None and isinstance(result, Stream):
                result = LimitedStream(result, slots, owner)
                slots = None  # the stream releases it
        finally:
            if slots is not None:
                slots.release(owner)
        return result


class LimitedStream(Iterator[Any]):
    """A stream that holds a slot until it ends, fails, is closed, or is forgotten.

    Args:
        stream: the stream.
        slots: where the slot is from.
        owner: the owner of the slot, as `acquire` returned it.
    """

    def __init__(self, stream: Stream[Any], slots: FairSemaphore, owner: object) -> None:
        self._stream = stream
        self._slots: FairSemaphore | None = slots
        self._owner = owner

    def __next__(self) -> Any:
        return next(self._stream)  # the port closes this at its end or failure

    def close(self) -> None:
        """Free what the stream holds, and its slot."""
        try:
            self._stream.close()
        finally:
            self._release()

    def __del__(self) -> None:
        self._release()

    def _release(self) -> None:
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.release(self._owner)


training_client = Limit("limit", LimitOptions[TrainingClient])
dataset_store = Limit("limit", LimitOptions[DatasetStore])
blob_store = Limit("limit", LimitOptions[BlobStore])
hub_client = Limit("limit", LimitOptions[HubClient])
metrics_store = Limit("limit", LimitOptions[MetricsStore])
completer = Limit("limit", LimitOptions[Completer])
