"""What a hub may take of this process (seconds, bytes), and who sees the token.

Left alone, huggingface_hub lists files and uploads without any limit of time, waits as long as a
429 says, holds an answer of any size in memory, names files of the cache by whatever ETag it is
told, and sends the token to any address that the next page of a listing is said to have (measured,
2.4.0). Here each of these is an error at once: whether to try again is for the caller to say, and
`retry` honours `retry_after`. What huggingface_hub does better than a caller could stays: a
download that is cut is continued where it stopped.

All of this goes through hooks on the one HTTP client that huggingface_hub has in a process. They
do nothing but for the requests of a `Call`, so those of other libraries are as they were.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from crucible_kitchen import AdapterError, AdapterTimeout, Unavailable

from .failures import WAYS_OUT, explained, refusal, said, seconds_to_wait

Result = TypeVar("Result")

LONGEST_SLEEP = 60
"""Seconds that a library which waits by itself sleeps at most, whatever a hub says."""

_LEAST = 1024  # bytes that come in `stall_timeout` while a transfer goes on
_COMMIT = re.compile(r"[0-9a-f]{40}")
_XET = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]{1,18}")
_OURS = "crucible.call"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much.

    Args:
        timeout: seconds for each step of a request: to connect, to send, to get the next bytes.
        answer_timeout: seconds until a question is answered whole, every page of it.
        stall_timeout: seconds in which at least a KiB of a file comes.
        answer_bytes: what a question may be answered with, every page of it together; one page
            a quarter of that, since objects of JSON take many times their text in memory.
    """

    timeout: float = 10.0
    answer_timeout: float = 60.0
    stall_timeout: float = 60.0
    answer_bytes: int = 64 << 20


@dataclass(slots=True, eq=False)
class Call:
    """Something that is wanted of a hub, in one request or several.

    Args:
        what: what it is about, for messages.
        home: the hub's address; no other host gets the token.
        limits: how long and how much.
        most: bytes that may come in all; None for no limit.
        seconds: that it may take in all; None for as long as something comes.
        elsewhere: whether the hub may send on to another host, as it does for contents.
        library: whether a library makes of an answer what it likes. If so, refusals are left to
            it, and it gets no file to put into its cache: those that it needs are there already.
        commit: the one commit that is asked about, if it is known.
    """

    what: str
    home: str
    limits: Limits
    most: int | None = None
    seconds: float | None = None
    elsewhere: bool = False
    library: bool = False
    commit: str = ""
    received: int = 0
    given_up: bool = False

    def run(self, function: Callable[[], Result]) -> Result:
        """Return what the function returns, which makes the requests.

        It runs in a thread of its own, which is left alone when the time is over: a hub may send
        the head of an answer letter by letter, and nothing else ends that.

        Raises:
            AdapterTimeout: the call takes longer than it may, or nothing comes any more.
            AdapterError: what went wrong, as `explained` says it.
        """
        done: Future[Result] = Future()

        def work() -> None:
            try:
                with calling(self):
                    result = function()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(result)

        threading.Thread(target=copy_context().run, args=(work,), daemon=True).start()
        try:
            before = 0
            while not wait([done], self.seconds or self.limits.stall_timeout).done:
                if self.seconds:
                    raise self._late(self.seconds)
                if self.received - before < _LEAST:
                    raise self._stalled()
                before = self.received
            return done.result()
        finally:
            self.given_up = True

    # --- hooks ---

    def before(self, request: Any) -> None:
        """Let a request go out, or raise why it may not."""
        if self.given_up:
            raise AdapterTimeout(f"{self.what}: was given up")
        origin, home = _origin(str(request.url)), _origin(self.home)
        content = request.extensions.get(_OURS, ("", False))[1] or "/resolve/" in request.url.path
        if origin != home:
            if not (self.elsewhere or content) or not _reachable(origin, home):
                raise Unavailable(
                    f"{self.what}: the hub sends on to another host, {said(request.url)}"
                )
            request.headers.pop("authorization", None)
            request.headers.pop("cookie", None)
        request.extensions[_OURS] = (self, content)
        phases = ("connect", "read", "write", "pool")
        request.extensions["timeout"] = dict.fromkeys(phases, self.limits.timeout)
        # A few bytes may stand for gigabytes. What is sent as it is has the size that it has.
        request.headers["accept-encoding"] = "identity"

    def after(self, response: Any) -> None:
        """Let an answer in, or raise why it may not."""
        if response.status_code >= 400 and not self.library:
            raise refusal(response, self.what)
        self._check(response)
        if self.library:
            _curb(response.headers)
        _, content = response.request.extensions[_OURS]
        response.stream = _counted(self, response.stream, content)

    def _check(self, response: Any) -> None:
        headers, links = response.headers, response.links
        route = links.get("xet-auth", {}).get("url") or headers.get("x-xet-refresh-route")
        for name, form in (("x-repo-commit", _COMMIT), ("x-xet-hash", _XET)):
            value = headers.get(name)
            if value is not None and not form.fullmatch(value):
                raise self._lie(f"{said(value)} as {name}, which is no hash")
        if self.commit and headers.get("x-repo-commit", self.commit) != self.commit:
            raise self._lie(f"commit {headers['x-repo-commit']}, and {self.commit} was asked for")
        # HEAD comes before a download into the cache, where nothing would be compared any more.
        if self.library and response.request.method == "HEAD" and response.status_code < 400:
            raise self._lie(f"a file that it does not list, {said(response.request.url.path)}")
        for name in ("content-length", "x-linked-size"):
            value = headers.get(name)
            if value is not None and not _NUMBER.fullmatch(value):
                raise self._lie(f"{said(value)} as {name}, which is no size")
        for address in (route, links.get("next", {}).get("url")):
            if address and not self._is_home(address):
                raise self._lie(f"another host to go on at, {said(address)}")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise self._lie(f"an answer encoded as {said(headers['content-encoding'])}, unasked")
        if self.most is not None and response.request.method != "HEAD":
            self.count(0, int(headers.get("content-length", 0)))

    def count(self, count: int, more: int = 0) -> None:
        """Note that bytes came. Raises `Unavailable` if, with what is announced, too many do."""
        if self.given_up:
            raise AdapterTimeout(f"{self.what}: was given up")
        self.received += count
        if self.most is not None and self.received + more > self.most:
            raise self._large(self.most)

    def came(self, content: bool, seconds: float, count: int) -> bool:
        """Say whether a stretch of the transfer ends here; raise if what came of one answer in it
        is too little or too much.
        """
        if not content and count > self.limits.answer_bytes // 4:
            raise self._large(self.limits.answer_bytes // 4)
        if content and seconds >= self.limits.stall_timeout:
            if count < _LEAST:
                raise self._stalled()
            return True
        if not content and seconds >= self.limits.answer_timeout:
            raise self._late(self.limits.answer_timeout)
        return False

    def _is_home(self, address: str) -> bool:
        return _origin(address) in (_origin(self.home), ("https", "huggingface.co", 443))

    def _lie(self, reason: str) -> Unavailable:
        return Unavailable(f"{self.what}: the hub sends {reason}", retryable=False)

    def _large(self, most: int) -> Unavailable:
        return Unavailable(f"{self.what}: the hub sends more than {most:,} bytes", retryable=False)

    def _late(self, seconds: float) -> AdapterTimeout:
        return AdapterTimeout(f"{self.what}: no whole answer in {seconds:g} s; {WAYS_OUT}")

    def _stalled(self) -> AdapterTimeout:
        return AdapterTimeout(
            f"{self.what}: less than {_LEAST} bytes came in {self.limits.stall_timeout:g} s"
        )


_call: ContextVar[Call | None] = ContextVar("call", default=None)
_shared: list[Call] = []
_lock = threading.Lock()


@contextmanager
def calling(call: Call) -> Iterator[None]:
    """Make the requests inside those of a call, and explain what goes wrong with them.

    What a library raises is left as it is; and as it may start threads, those that other threads
    make to this hub meanwhile are taken for its own.
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
        if call.library:
            _shared.append(call)
    token = _call.set(call)
    try:
        with contextlib.nullcontext() if call.library else _understood(call.what):
            yield
    finally:
        _call.reset(token)
        if call.library:
            with _lock:
                _shared.remove(call)


@contextmanager
def _understood(what: str) -> Iterator[None]:
    """Explain failures. What nobody foresaw comes of an answer that is none."""
    with explained(what):
        try:
            yield
        except (AdapterError, json.JSONDecodeError):
            raise
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            raise _nonsense(what, error) from error


def _nonsense(what: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"{what}: what answers is no hub ({type(error).__name__}: {said(error)})",
        retryable=False,
    )


def _before(request: Any) -> None:
    call, _ = request.extensions.get(_OURS, (None, False))  # of what led here by a redirect
    call = call or _call.get()
    if call is None and _shared and _origin(str(request.url)) == _origin(_shared[-1].home):
        call = _shared[-1]
    if call is not None:
        call.before(request)


def _after(response: Any) -> None:
    call, _ = response.request.extensions.get(_OURS, (None, False))
    if call is not None:
        call.after(response)


def _counted(call: Call, stream: Any, content: bool) -> Any:
    """Return the stream of an answer's body; what comes counts for the call."""
    from huggingface_hub.utils import httpx

    class Counted(httpx.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            chunks = iter(stream)
            seconds, count = 0.0, 0  # of waiting: whoever reads may take their time
            while True:
                started = time.monotonic()
                chunk = next(chunks, None)
                if chunk is None:
                    return
                call.count(len(chunk))
                seconds, count = seconds + time.monotonic() - started, count + len(chunk)
                if call.came(content, seconds, count):
                    seconds, count = 0.0, 0
                yield chunk

        def close(self) -> None:
            stream.close()

    return Counted()


def _origin(url: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:  # nobody's
        return ("", url, None)
    return (parts.scheme, (parts.hostname or "").lower(), port)


def _reachable(origin: tuple[str, str, int | None], home: tuple[str, str, int | None]) -> bool:
    """Say whether contents of a hub may be there: what is encrypted stays so."""
    return origin[0] == "https" or (origin[0] == "http" and home[0] == "http")


def _curb(headers: Any) -> None:
    """Say to libraries that wait by themselves how long: they believe any number."""
    wait_for = seconds_to_wait(headers)
    for name in ("ratelimit", "ratelimit-policy", "retry-after"):
        headers.pop(name, None)
    if wait_for is not None:
        headers["retry-after"] = str(round(min(wait_for, LONGEST_SLEEP)))
