"""A service with a quota: so many requests in each window of time, as hubs have it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from crucible_kitchen import AdapterOptions, Call, HubClient, RateLimited, hookimpl, resource
from pydantic import Field


class Options(AdapterOptions):
    inner: HubClient
    """What answers requests within the quota."""
    requests: int = Field(ge=1)
    """Requests in a window, whoever sends them."""
    window: float = Field(default=300.0, gt=0)
    """Seconds of a window. Windows are fixed: each begins with all of its requests."""


@dataclass(slots=True)
class _Count:
    """What was asked for, in `window` and in all."""

    window: int = -1
    admitted: int = 0


@resource
def _count(opts: Options) -> _Count:
    return _Count()


@hookimpl
def around(opts: Options, call: Call) -> Any:
    count = _count(opts)
    number = int(time.monotonic() // opts.window)
    if number != count.window:
        count.window, count.admitted = number, 0
    if count.admitted >= opts.requests:
        left = (number + 1) * opts.window - time.monotonic()
        raise RateLimited(f"{opts.requests} requests were made in this window", retry_after=left)
    count.admitted += 1
    return call()
