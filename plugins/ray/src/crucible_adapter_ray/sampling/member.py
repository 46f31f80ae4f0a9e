"""One actor that samples: asked, waited for, and ended."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import ray
from crucible_kitchen import AdapterError, Unavailable
from ray.exceptions import RayError, RayTaskError

from ..cluster import Cluster
from .actor import SamplingActor
from .options import CompleterOptions

T = TypeVar("T")

LOOK = 0.5
"""Seconds between two looks at whether the cluster is there, while an actor computes."""


class Member:
    """A member of a fleet. Thread-safe.

    Args:
        opts: of the completer.
        cluster: where it runs.
        gpus: how many it takes.

    Attributes:
        is_gone: whether it died, or was ended.
        calls: how many have not ended; the fleet counts them.
        process: its id, on its node.
    """

    def __init__(self, opts: CompleterOptions, cluster: Cluster, gpus: float) -> None:
        self.is_gone = False
        self.calls = self.process = 0
        self._opts, self._cluster, self._gpus = opts, cluster, gpus
        # Without a GPU of its own it must not take one that it happens to see.
        alone = opts.device == "auto" and not gpus
        here = opts.model_copy(update={"device": "cpu"} if alone else {})
        kind = ray.remote(SamplingActor).options(
            num_cpus=opts.cpus, num_gpus=gpus, scheduling_strategy="SPREAD"
        )
        self._actor = kind.remote(here, os.getcwd())
        self._ready = self._actor.ready.remote()

    @property
    def is_usable(self) -> bool:
        return not (self.is_gone or self._cluster.is_lost)

    def wait_until_ready(self, deadline: float) -> None:
        """Wait until it runs.

        Args:
            deadline: of `time.monotonic`.

        Raises:
            Unavailable: it does not by then, or it died.
        """
        self.process = self._wait(self._ready, lambda: ray.get(self._ready), deadline)

    def ask(self, method: str, *args: Any) -> ray.ObjectRef:
        """Have it call a method; return what `answer` waits for.

        Raises:
            Unavailable: the cluster is gone.
        """
        self._cluster.check()  # without it, Ray would start another one by itself, here and below
        return getattr(self._actor, method).remote(*args)

    def answer(self, asked: ray.ObjectRef) -> Any:
        """Wait for what it says.

        Raises:
            Unavailable: it died, or the cluster did.
            AdapterError: what it raised.
        """
        return self._wait(asked, partial(ray.get, asked))

    def stream(self, method: str, *args: Any) -> Iterator[Any]:
        """Yield what its generator yields. It goes on while the caller does not look, so that it
        never keeps another call waiting for longer; leaving early ends it.

        Raises:
            Unavailable, AdapterError: see `answer`.
        """
        self._cluster.check()
        items = getattr(self._actor, method).options(num_returns="streaming").remote(*args)
        try:
            while (ref := self._wait(items, lambda: next(items, None))) is not None:
                yield self.answer(ref)
        finally:
            if not self._cluster.is_lost:
                ray.cancel(items)

    def end(self) -> None:
        """End it, whatever it is doing."""
        self.is_gone = True
        if not self._cluster.is_lost:
            with contextlib.suppress(Exception):  # it is dead already, or Ray is
                ray.kill(self._actor)

    def _wait(self, asked: Any, get: Callable[[], T], deadline: float = math.inf) -> T:
        try:
            while True:
                self._cluster.check()
                if ray.wait([asked], timeout=LOOK, fetch_local=False)[0]:
                    return get()
                if time.monotonic() > deadline:
                    raise self._late()
        except RayError as error:
            failure = self._failure(error)
        # Not while Ray's is handled: it is of the class of what the actor raised as well, and would
        # be taken for an error of ours that led to this one.
        raise failure

    def _failure(self, error: RayError) -> AdapterError:
        if isinstance(error, RayTaskError):
            if isinstance(error.cause, AdapterError):
                return error.cause
            return AdapterError(f"a sampling actor failed: {brief(error)}")
        self.end()
        if self._cluster.is_lost:
            return self._cluster.gone()
        return Unavailable(
            f"a sampling actor (process {self.process}) died, and the next call starts another: "
            f"{brief(error)}"
        )

    def _late(self) -> Unavailable:
        opts = self._opts
        free = {name: ray.available_resources().get(name, 0) for name in ("CPU", "GPU")}
        return Unavailable(
            f"a sampling actor did not start within {opts.start_timeout:g} s (start_timeout). Each "
            f"of {opts.actors} takes {opts.cpus:g} processors and {self._gpus:g} GPUs of a node, "
            f"and the Ray cluster has {free['CPU']:g} and {free['GPU']:g} free: end what uses "
            "them, add nodes, or ask for fewer actors, cpus or gpus",
            no_effect=True,
        )


def brief(error: Exception) -> str:
    """Return what Ray says of the cause of an error, on a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:400]
