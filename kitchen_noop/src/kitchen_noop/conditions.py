"""The conditions that a noop imitates: how long a backend takes and how often it fails."""

from __future__ import annotations

import random
import time

from crucible_kitchen import AdapterOptions, Unavailable, helper, resource
from pydantic import Field


class Conditions(AdapterOptions):
    latency_scale: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Multiplies the simulated latency; 0 turns it off."""
    failure_rate: float = Field(default=0.0, ge=0, le=1)
    """Probability that a call fails with `Unavailable`, without effect, as with a busy server."""
    seed: int = 0
    """Seed of the failures: the n-th call has the same outcome in every run of one thread."""


@helper
def synthetic(opts: Conditions) -> str:
    """Return the reason why the conformance kit excuses a noop from some tests."""
    return "no backend, numbers that are made up, and a memory that ends with the kitchen"


def round_trip(opts: Conditions, seconds: float) -> None:
    """Take as long as a request to a backend, and fail as often.

    Args:
        opts: the conditions.
        seconds: how long it takes at `latency_scale` 1.

    Raises:
        Unavailable: this request is one of those that fail.
    """
    pause(opts, seconds)
    if failure := fault(opts):
        raise failure


def pause(opts: Conditions, seconds: float) -> None:
    """Sleep for the scaled time."""
    if opts.latency_scale:
        time.sleep(seconds * opts.latency_scale)


def fault(opts: Conditions) -> Unavailable | None:
    """Return the error of the next request, or None if it succeeds."""
    if not opts.failure_rate:
        return None
    if _dice(opts).random() >= opts.failure_rate:
        return None
    return Unavailable(f"a simulated failure: failure_rate is {opts.failure_rate}", no_effect=True)


@resource
def _dice(opts: Conditions) -> random.Random:
    return random.Random(opts.seed)  # one draw is safe under threads
