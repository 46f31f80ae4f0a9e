"""Fail as a bad network does, on purpose and reproducibly: for tests and rehearsals."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
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
    Unavailable,
    hookimpl,
    resource,
)
from pydantic import Field, model_validator

from .wrapper import PortT, Wrapper


class FaultyOptions(AdapterOptions, Generic[PortT]):
    inner: PortT
    """Where the calls go."""
    failure_rate: float = Field(default=0.0, ge=0, le=1)
    """Probability that a call fails with `Unavailable`."""
    lost_answers: float = Field(default=0.0, ge=0, le=1)
    """Share of the failures that occur after the call took effect, so that only its answer is lost;
    the others occur before it, and report that nothing was done."""
    cut_streams: float = Field(default=0.0, ge=0, le=1)
    """Probability that a stream breaks off after its first, second or third item."""
    latency: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Seconds added to every call."""
    callbacks: tuple[str, ...] = ()
    """The callbacks that are affected; empty, all of them."""
    seed: int = 0
    """Seed of the failures: the n-th call of a callback has the same outcome in every run."""

    @model_validator(mode="after")
    def _callbacks_exist(self) -> Self:
        for name in self.callbacks:
            if not self.inner.supports(name):
                raise ValueError(f"callbacks: {self.inner.adapter} has no callback {name!r}")
        return self


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to a call.

    Args:
        fails: whether it fails.
        lost: whether a failure occurs after the call took effect.
        cut_after: the number of items after which its stream breaks off; None is never.
    """

    fails: bool
    lost: bool
    cut_after: int | None


class Dice:
    """Draws the fates of the calls, in order: each callback has its own sequence."""

    def __init__(self, opts: FaultyOptions[Any]) -> None:
        self._opts = opts
        self._of: dict[str, random.Random] = {}
        self._lock = threading.Lock()

    def roll(self, callback: str) -> Fate:
        opts = self._opts
        with self._lock:
            dice = self._of.setdefault(callback, random.Random(f"{opts.seed}/{callback}"))
            # The same number of draws for every call, so that options do not influence each other.
            fails, lost, cut, length = (dice.random() for _ in range(4))
        return Fate(
            fails < opts.failure_rate,
            lost < opts.lost_answers,
            1 + int(3 * length) if cut < opts.cut_streams else None,
        )


@resource
def _dice(opts: FaultyOptions[Any]) -> Dice:
    return Dice(opts)


class Faulty(Wrapper):
    """Fail as a bad network does, on purpose and reproducibly: for tests and rehearsals.

    With one thread, runs of equal calls under equal options fail at the same places. Under
    threads, the n-th call of a callback still has the same fate, but which call is the n-th
    depends on the threads.
    """

    @hookimpl
    def around(self, opts: FaultyOptions[Any], call: Call) -> Any:
        if opts.callbacks and call.name not in opts.callbacks:
            return call()
        fate = _dice(opts).roll(call.name)
        if opts.latency:
            time.sleep(opts.latency)
        if fate.fails and not fate.lost:
            raise Unavailable("failed on purpose, before anything was done", no_effect=True)
        result = call()
        if fate.fails:
            if isinstance(result, Stream):
                result.close()
            raise Unavailable("failed on purpose, after the call took effect: its answer is lost")
        if isinstance(result, Stream) and fate.cut_after is not None:
            return CutStream(result, fate.cut_after)
        return result


class CutStream(Iterator[Any]):
    """A stream that breaks off after `after` items, if it has more."""

    def __init__(self, stream: Stream[Any], after: int) -> None:
        self._stream = stream
        self._left = after

    def __next__(self) -> Any:
        item = next(self._stream)
        if not self._left:
            self.close()
            raise Unavailable("failed on purpose: the stream was cut")
        self._left -= 1
        return item

    def close(self) -> None:
        """Free what the stream holds."""
        self._stream.close()


training_client = Faulty("faulty", FaultyOptions[TrainingClient])
dataset_store = Faulty("faulty", FaultyOptions[DatasetStore])
blob_store = Faulty("faulty", FaultyOptions[BlobStore])
hub_client = Faulty("faulty", FaultyOptions[HubClient])
metrics_store = Faulty("faulty", FaultyOptions[MetricsStore])
completer = Faulty("faulty", FaultyOptions[Completer])
