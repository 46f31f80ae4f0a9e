"""Limits of one answer in bytes and seconds, counted where they are spent.

A timeout between two bytes does not stop a server that sends one now and then, in a body or in
headers, and 2 MB of gzip are 1.6 GB of text. So both are counted: every byte that comes from the
network and every byte of a decompressed body, whatever the status; every second spent waiting for
an answer or decoding it, but not those in which the reader of a stream does something else.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypeVar

import httpcore2
import httpx2
import openai
from crucible_kitchen import AdapterError, AdapterTimeout, Unavailable

T = TypeVar("T")

ENCODINGS = ("gzip", "deflate")
"""The encodings that the client requests and accepts. Others need a further package, which is not
worth a second set of bugs, and two combined are always an attack."""

ERROR_BYTES = 2**16
"""Bytes of an error that are read. Its status says which it is, and messages quote far less."""

_CURRENT: ContextVar[Budget] = ContextVar("budget of the current request of this thread")


class Budget:
    """What is left for one answer, shared by all attempts to get it.

    Args:
        url: the server, for messages.
        seconds: time for the whole answer.
        size: limit in bytes of the answer as received (with headers), and of its decompressed body.
    """

    def __init__(self, url: str, seconds: float, size: int) -> None:
        self._url = url
        self._seconds = seconds
        self._size = size
        self._came = 0
        self._spent = 0.0
        self._since = 0.0

    @contextmanager
    def current(self) -> Iterator[None]:
        """Charge requests that are sent in this block to this budget."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of this block."""
        self._since = time.monotonic()
        try:
            with self.current():
                yield
        finally:
            self._spent += time.monotonic() - self._since

    def wait(self, for_it: Callable[[float], T], timeout: float | None) -> T:
        """Wait at most `timeout` seconds, and no longer than the budget lasts."""
        left = self._seconds - self._spent - (time.monotonic() - self._since)
        if left <= 0:
            raise self._late()
        if timeout is not None and timeout <= left:
            return for_it(timeout)
        try:
            return for_it(left)
        except httpcore2.TimeoutException:
            raise self._late() from None

    def came(self, data: bytes) -> bytes:
        """Count bytes received from the network."""
        self._came += len(data)
        self.allow(self._came)
        return data

    def allow(self, size: int) -> None:
        """Raise if an answer of `size` bytes is too large."""
        if size > self._size:
            raise AdapterError(
                f"{self._url} sent an answer of more than {self._size} bytes; if it is right, set "
                "the option `max_answer_bytes`"
            )

    def broken(self, error: Exception) -> Unavailable:
        return Unavailable(f"{self._url} sent what cannot be decompressed: {error}")

    def encoded(self, encoding: str) -> AdapterError:
        return AdapterError(
            f"{self._url} answered with the content-encoding {encoding[:100]!r}; the request "
            f"accepts {', '.join(ENCODINGS)}"
        )

    def _late(self) -> AdapterTimeout:
        return AdapterTimeout(
            f"{self._url} did not finish its answer within {self._seconds:g} s; for a slower "
            "server, set a larger option `answer_timeout`"
        )


class Client(openai.DefaultHttpxClient):
    """The SDK's own client, charged to the current `Budget`, without redirects and cookies.

    Redirects: neither the key nor prompts may go to an address that a server names. Cookies: a
    server that sets a different one with each answer would fill the memory and every later request.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(
            headers={"accept-encoding": ", ".join(ENCODINGS)},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            **options,
        )
        # httpcore2 accepts a backend, but httpx2 has no parameter for it, and proxies from the
        # environment need httpx2's own transports.
        for transport in (self._transport, *self._mounts.values()):
            if isinstance(transport, httpx2.HTTPTransport):
                pool = transport._pool
                pool._network_backend = _Backend(pool._network_backend)

    def send(
        self, request: httpx2.Request, *, stream: bool = False, **options: Any
    ) -> httpx2.Response:
        budget = _CURRENT.get()
        options["follow_redirects"] = False
        with budget.running():
            response = super().send(request, stream=True, **options)
        try:
            bounded = _bounded(response, budget)
            if not stream:
                bounded.read()
        except BaseException:
            response.close()
            raise
        return bounded


def _bounded(response: httpx2.Response, budget: Budget) -> httpx2.Response:
    """Return a response whose body is decompressed, valid UTF-8, and counted."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", *ENCODINGS):
        raise budget.encoded(encoding)
    of_the_wire = ("content-encoding", "content-length", "transfer-encoding")
    headers = [each for each in response.headers.multi_items() if each[0] not in of_the_wire]
    bounded = httpx2.Response(
        response.status_code,
        headers=headers,
        stream=_Body(response, budget),
        request=response.request,
        extensions=response.extensions,
    )
    bounded.encoding = "utf-8"  # JSON has no other; `charset=zlib` would decompress again
    return bounded


class _Body(httpx2.SyncByteStream):
    def __init__(self, response: httpx2.Response, budget: Budget) -> None:
        self._response = response
        self._budget = budget

    def __iter__(self) -> Iterator[bytes]:
        # Strict, since text with replacements is a different text; errors are only quoted. "-sig",
        # since nothing else drops the byte order mark with which some servers begin a stream.
        good = self._response.is_success
        text = codecs.getincrementaldecoder("utf-8-sig")("strict" if good else "replace")
        pieces = self._response.iter_bytes()
        length = 0
        while True:
            with self._budget.running():
                try:
                    piece = next(pieces, None)
                except httpx2.DecodingError as error:
                    raise self._budget.broken(error) from None
                length += len(piece or b"")
                if good:
                    self._budget.allow(length)
                valid = text.decode(piece or b"", final=piece is None).encode()
            if valid:
                yield valid
            if piece is None or (length > ERROR_BYTES and not good):
                return

    def close(self) -> None:
        self._response.close()


class _Backend(httpcore2.NetworkBackend):
    def __init__(self, inner: httpcore2.NetworkBackend) -> None:
        self._inner = inner

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        return _Stream(self._inner.connect_tcp(host, port, timeout, local_address, socket_options))

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class _Stream(httpcore2.NetworkStream):
    """A connection that is charged to the request that uses it."""

    def __init__(self, inner: httpcore2.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        budget = _CURRENT.get()
        return budget.came(
            budget.wait(lambda seconds: self._inner.read(max_bytes, seconds), timeout)
        )

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        _CURRENT.get().wait(lambda seconds: self._inner.write(buffer, seconds), timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(self, *args: Any, **options: Any) -> httpcore2.NetworkStream:
        return _Stream(self._inner.start_tls(*args, **options))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
