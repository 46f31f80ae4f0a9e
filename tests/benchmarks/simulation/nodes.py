"""Nodes that fail: a training client whose session ends when one of its nodes does.

Failures are a Poisson process in the time of `time.monotonic`, whatever the client does then: they
come during steps, saves and restarts alike. One ends the call that is being awaited, at its
instant, as it does where a rank that fails leaves the others in a collective; everything but
restoring then raises `SessionFailed`.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import Any

from crucible_kitchen import (
    AdapterOptions,
    AdapterTimeout,
    Call,
    SessionFailed,
    TrainingClient,
    Unavailable,
    helper,
    hookimpl,
    resource,
)
from pydantic import Field

REVIVING = ("load_checkpoint", "start_session")


class Options(AdapterOptions):
    inner: TrainingClient
    """What the nodes do."""
    mtbf: float = Field(gt=0)
    """Mean seconds between failures of any of them."""
    behind: bool = True
    """Whether a checkpoint is saved while the next steps run."""
    seed: int = 0
    """Seed of the failures."""


@dataclass(slots=True)
class _Nodes:
    """The nodes of one options object."""

    dice: random.Random
    mtbf: float
    began: float | None = None
    """When the first step began; no node fails before it."""
    next_failure: float = math.inf
    failures: int = 0
    down: bool = False

    def begin(self) -> None:
        if self.began is None:
            self.began = time.monotonic()
            self.next_failure = self.began + self.dice.expovariate(1 / self.mtbf)

    def fail_if_due(self, no_effect: bool = False) -> None:
        """Raise if a node has failed since this was last asked."""
        if time.monotonic() < self.next_failure:
            return
        while self.next_failure <= time.monotonic():
            self.next_failure += self.dice.expovariate(1 / self.mtbf)
            self.failures += 1
        self.down = True
        raise Unavailable("a node died, and with it the session", no_effect=no_effect)

    def failed(self) -> SessionFailed:
        return SessionFailed("a node of this session died; load a checkpoint to continue")


@resource
def _nodes(opts: Options) -> _Nodes:
    return _Nodes(random.Random(opts.seed), opts.mtbf)


@helper
def failures(opts: Options) -> int:
    """Return how often a node has failed."""
    return _nodes(opts).failures


@helper
def began(opts: Options) -> float:
    """Return when the first step began, in seconds."""
    return _nodes(opts).began or 0.0


@hookimpl
def around(opts: Options, call: Call) -> Any:
    nodes = _nodes(opts)
    if call.name == "close_session":
        return call()
    if call.name in REVIVING:
        nodes.down = False
    elif nodes.down:
        raise nodes.failed()
    if call.name == "forward_backward":
        nodes.begin()
    if call.name == "await_":
        return _awaited(opts, call.arguments["future"])
    result = call()
    nodes.fail_if_due(no_effect=call.name in REVIVING)  # what was begun is gone; `retry` may repeat
    if call.name == "save_checkpoint_async" and not opts.behind:
        _awaited(opts, result)
    return result


def _awaited(opts: Options, future: Any) -> Any:
    """Wait for a result, or for the next failure."""
    nodes = _nodes(opts)
    before = nodes.failures
    while True:
        try:
            result = opts.inner.await_(future, _left(nodes))
        except AdapterTimeout:
            result = None
        if nodes.failures > before:  # another thread was the first to notice
            raise nodes.failed()
        nodes.fail_if_due()
        if result is not None:
            return result


def _left(nodes: _Nodes) -> float | None:
    """Return the seconds to the next failure; None where no node fails yet."""
    left = nodes.next_failure - time.monotonic()
    return None if math.isinf(left) else max(left, 0.0)
