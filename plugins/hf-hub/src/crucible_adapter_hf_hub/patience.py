"""How long a call may wait for the hub.

Left alone, huggingface_hub lists files and uploads without any limit of time, asks a hub that keeps
silent five times more for a minute each, and waits as long as a 429 says, five times over
(measured, 2.4.0). Here every request has the limit that the options set, and a hub that refuses,
fails or keeps silent is an error at once: whether to try again is for the caller to say, and
`retry` honours `retry_after`. What huggingface_hub does better than a caller could stays: a
download that is cut is continued where it stopped.

All of this goes through hooks on the one HTTP client that huggingface_hub has in a process. They
do nothing but inside `limited`, so calls of other libraries are as they were.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from crucible_kitchen import AdapterTimeout, Unavailable

from .failures import WAYS_OUT, explained, refusal


@dataclass(frozen=True, slots=True)
class _Limits:
    what: str
    timeout: float
    once: str
    asked: dict[str, float] = field(default_factory=dict)


_limits: ContextVar[_Limits | None] = ContextVar("limits", default=None)
_lock = threading.Lock()


@contextmanager
def limited(what: str, timeout: float, once: str = "") -> Iterator[None]:
    """Explain the failures of what is asked for inside; no request waits longer than `timeout`.

    Args:
        what: what it is about, for messages.
        timeout: seconds, for each step of a request: to connect, to send, to get the next bytes.
        once: the method of requests that are not made again when they fail.
    """
    from huggingface_hub import get_session

    client = get_session()
    with _lock:
        hooks = client.event_hooks
        if _before not in hooks["request"]:
            client.event_hooks = {
                "request": [*hooks["request"], _before],
                "response": [*hooks["response"], _after],
            }
    token = _limits.set(_Limits(what, timeout, once))
    try:
        with explained(what):
            yield
    finally:
        _limits.reset(token)


def _before(request: Any) -> None:
    limits = _limits.get()
    if limits is None:
        return
    phases = ("connect", "read", "write", "pool")
    request.extensions["timeout"] = dict.fromkeys(phases, limits.timeout)
    if request.method != limits.once:
        return
    now, url = time.monotonic(), str(request.url)
    if url in limits.asked:  # so it failed, without an answer
        if now - limits.asked[url] >= limits.timeout:
            raise AdapterTimeout(f"{limits.what}: no answer in {limits.timeout:g} s; {WAYS_OUT}")
        raise Unavailable(f"{limits.what}: the hub cannot be reached any more; {WAYS_OUT}")
    limits.asked[url] = now


def _after(response: Any) -> None:
    limits = _limits.get()
    if limits is not None and (response.status_code == 429 or response.status_code >= 500):
        raise refusal(response, limits.what)
