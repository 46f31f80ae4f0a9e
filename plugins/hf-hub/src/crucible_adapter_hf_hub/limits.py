"""Limits of seconds and bytes for requests to a hub, and of who receives the token.

By itself, huggingface_hub lists files and uploads without any limit of time, waits as long as a
429 says, holds an answer of any size in memory, names files of the cache by whatever ETag it
receives, and sends the token to any address that a listing names as its next page (measured,
2.4.0). Here each of these is an error at once: whether to try again is the caller's decision, and
`retry` honours `retry_after`. What huggingface_hub does better than a caller could remains: a
download that is cut is continued where it stopped.

All of this uses hooks on the one HTTP client that huggingface_hub has in a process. They affect
requests of a `Call`, not those of other libraries.
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

from .failures import WAYS_OUT, refusal, said, seconds_to_wait, translated

Result = TypeVar("Result")

_LONGEST_SLEEP = 60
"""Limit of the seconds that a library which waits by itself is asked to sleep."""

_LEAST = 1024
"""Bytes that have to arrive in `stall_timeout` during a transfer."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_XET = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]{1,18}")
_OURS = "crucible.call"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of time and size.

    Args:
        timeout: seconds for each step of a request: to connect, to send, to get the next bytes.
        answer_timeout: seconds until a request for information is answered, with all its pages.
        stall_timeout: seconds within which at least a KiB of a file has to arrive.
        answer_bytes: size of an answer, with all its pages; one page may have a quarter of
            that, since objects of JSON take many times their text in memory.
    """

    timeout: float = 10.0
    answer_timeout: float = 60.0
    stall_timeout: float = 60.0
    answer_bytes: int = 64 << 20


@dataclass(slots=True, eq=False)
class Call:
    """One or more requests to a hub with a common purpose.

    Args:
        what: the subject, for messages.
        home: the hub's address; only this host gets the token.
        limits: limits of time and size.
        most: limit of the bytes received in all; None for no limit.
        seconds: limit of the time in all; None while data arrives.
        elsewhere: whether the hub may redirect to another host, as it does for contents.
        library: whether a library interprets the answers. If so, it sees refusals itself, and may
            not download into its cache: the files that it needs are there already.
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
        """Run a function that makes the requests; return its result.

        It runs in a separate thread, which is abandoned when the time is over: a hub may send the
        head of an answer letter by letter, and nothing else ends that.

        Raises:
            AdapterTimeout: the call takes too long, or data stopped arriving.
            AdapterError: another failure, see `translated`.
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
        """Prepare a request, or raise the reason why it may not be sent."""
        if self.given_up:
            raise AdapterTimeout(f"{self.what}: was abandoned")
        origin, home = _origin(str(request.url)), _origin(self.home)
        content = request.extensions.get(_OURS, ("", False))[1] or "/resolve/" in request.url.path
        if origin != home:
            if not (self.elsewhere or content) or not _reachable(origin, home):
                raise Unavailable(
                    f"{self.what}: the hub redirects to another host, {said(request.url)}"
                )
            request.headers.pop("authorization", None)
            request.headers.pop("cookie", None)
        request.extensions[_OURS] = (self, content)
        phases = ("connect", "read", "write", "pool")
        request.extensions["timeout"] = dict.fromkeys(phases, self.limits.timeout)
        # A few compressed bytes may expand to gigabytes.
        request.headers["accept-encoding"] = "identity"

    def after(self, response: Any) -> None:
        """Accept an answer, or raise the reason why it is refused."""
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
                raise self._lie(f"{said(value)} as {name}, which is not a hash")
        if self.commit and headers.get("x-repo-commit", self.commit) != self.commit:
            raise self._lie(f"commit {headers['x-repo-commit']}, but {self.commit} was requested")
        # HEAD precedes a download into the cache, which would not be compared with the listing.
        if self.library and response.request.method == "HEAD" and response.status_code < 400:
            raise self._lie(f"a file that it does not list, {said(response.request.url.path)}")
        for name in ("content-length", "x-linked-size"):
            value = headers.get(name)
            if value is not None and not _NUMBER.fullmatch(value):
                raise self._lie(f"{said(value)} as {name}, which is not a size")
        for address in (route, links.get("next", {}).get("url")):
            if address and not self._is_home(address):
                raise self._lie(f"the address of another host, {said(address)}")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise self._lie(
                f"an answer encoded as {said(headers['content-encoding'])}, not requested"
            )
        if self.most is not None and response.request.method != "HEAD":
            self.count(0, int(headers.get("content-length", 0)))

    def count(self, count: int, more: int = 0) -> None:
        """Count received bytes; `more` are announced. Raises `Unavailable` if they are too many."""
        if self.given_up:
            raise AdapterTimeout(f"{self.what}: was abandoned")
        self.received += count
        if self.most is not None and self.received + more > self.most:
            raise self._large(self.most)

    def came(self, content: bool, seconds: float, count: int) -> bool:
        """Say whether an interval of the transfer ends here; raise if one answer sent too little or
        too much in it.
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
        return AdapterTimeout(f"{self.what}: no complete answer in {seconds:g} s; {WAYS_OUT}")

    def _stalled(self) -> AdapterTimeout:
        return AdapterTimeout(
            f"{self.what}: less than {_LEAST} bytes arrived in {self.limits.stall_timeout:g} s"
        )


_call: ContextVar[Call | None] = ContextVar("call", default=None)
_shared: list[Call] = []
_lock = threading.Lock()


@contextmanager
def calling(call: Call) -> Iterator[None]:
    """Assign the requests made in this block to a call, and translate its failures.

    Exceptions of a library are not translated. Since a library may start threads, requests that
    other threads make to this hub meanwhile are assigned to its call as well.
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
    """Translate failures. Unforeseen exceptions come from answers that are not a hub's."""
    with translated(what):
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
        f"{what}: the answer is not a hub's ({type(error).__name__}: {said(error)})",
        retryable=False,
    )


def _before(request: Any) -> None:
    call, _ = request.extensions.get(_OURS, (None, False))  # of the request that was redirected
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
    """Return the stream of an answer's body, whose bytes are counted for the call."""
    from huggingface_hub.utils import httpx

    class Counted(httpx.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            chunks = iter(stream)
            seconds, count = 0.0, 0  # of waiting, not of the reader
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
    except ValueError:  # not an address
        return ("", url, None)
    return (parts.scheme, (parts.hostname or "").lower(), port)


def _reachable(origin: tuple[str, str, int | None], home: tuple[str, str, int | None]) -> bool:
    """Say whether a hub's contents may be fetched from there: an encrypted hub's only encrypted."""
    return origin[0] == "https" or (origin[0] == "http" and home[0] == "http")


def _curb(headers: Any) -> None:
    """Limit how long a library waits by itself: it believes any number in the headers."""
    wait_for = seconds_to_wait(headers)
    for name in ("ratelimit", "ratelimit-policy", "retry-after"):
        headers.pop(name, None)
    if wait_for is not None:
        headers["retry-after"] = str(round(min(wait_for, _LONGEST_SLEEP)))
