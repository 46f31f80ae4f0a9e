"""Requests to the server, and the threads that send those of a batch.

Threads, because the SDK's asynchronous client gets slower as the load grows: with 16, 64 and 128
requests in flight it made 210, 278 and 200 requests/s, this module 276, 662 and 719 (3.57.0, a
server that takes 50 ms, two busy cores; `python -m benchmarks completions --growth`, in `tests/`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar, cast

import httpx2
import openai
from crucible_kitchen import PING_TIMEOUT, AdapterError

from .budget import Budget, Client
from .failures import ERRORS, translated, unreadable
from .options import Options
from .requests import Request

T = TypeVar("T")
R = TypeVar("R")

_CONNECT_TIMEOUT = 5.0
"""Seconds to wait for a connection, the SDK's own default."""

_STREAM_BYTES_PER_TOKEN = 1024
"""Bytes by which a stream may exceed a whole answer: it repeats its frame with each token."""

_EVENTS = 256
"""Events that any stream may have: roles, usage, keep-alives."""

_MAX_CONTAINERS = 2**21
"""Limit of the lists and objects of an answer. Each `[]` of 3 bytes takes 80 bytes of memory;
a token with log probabilities has 3 of them."""

_NO_KEY = "EMPTY"
"""The key that is sent where none is set, as in vLLM's documentation."""


class Server:
    """An OpenAI-compatible server, as the options describe it. Safe from any thread."""

    def __init__(self, opts: Options) -> None:
        self._url = opts.base_url
        self._timeout = opts.timeout
        self._seconds = opts.answer_timeout or 10 * opts.timeout
        self._size = opts.max_answer_bytes
        self._event_size = opts.max_event_bytes
        self._events_per_token = opts.max_events_per_token
        self._client = openai.OpenAI(
            base_url=opts.base_url,
            api_key=opts.api_key.get_secret_value() if opts.api_key else _NO_KEY,
            timeout=openai.Timeout(opts.timeout, connect=min(opts.timeout, _CONNECT_TIMEOUT)),
            max_retries=opts.max_retries,
            http_client=Client(),
        )
        self._on_new_connections = self._client.with_options(
            http_client=Client(limits=httpx2.Limits(max_keepalive_connections=0))
        )
        self._workers = ThreadPoolExecutor(opts.max_concurrency, "crucible-openai")

    def ask(self, request: Request) -> object:
        """Send a request; return its answer as JSON, or as text if it is not JSON."""
        try:
            return self._read(self._post(request.path, request.body, self._size))
        except ERRORS as error:
            failure = translated(error, self._url, self._timeout)
        raise failure

    def events(self, request: Request) -> Generator[object]:
        """Send a request; yield the events of its answer as JSON. Closing it hangs up.

        A server that does not stream answers with one event: the whole answer.
        """
        size = self._size + _STREAM_BYTES_PER_TOKEN * request.max_tokens
        try:
            response = self._post(request.path, {**request.body, "stream": True}, size, stream=True)
            with closing(response):
                yield from self._events_of(response, request.max_tokens)
            return
        except ERRORS as error:
            failure = translated(error, self._url, self._timeout)
        raise failure

    def _events_of(self, response: httpx2.Response, max_tokens: int) -> Iterator[object]:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind.endswith("json") or kind == "text/html":
            response.read()
            yield self._read(response)
            return
        response.headers["content-type"] = "text/event-stream"  # some servers do not set it
        most = _EVENTS + self._events_per_token * max_tokens
        for count, event in enumerate(httpx2.EventSource(response, self._event_size), 1):
            if event.data.startswith("[DONE]"):
                return
            if count > most:
                raise AdapterError(
                    f"{self._url} did not end a stream after {most:g} events, although it was "
                    f"asked for at most {max_tokens} tokens; if so many are right, set the option "
                    "`max_events_per_token`"
                )
            if event.data:
                found = self._json(event.data)
                yield {"error": found} if event.event == "error" else found

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Return the function's results in order; `max_concurrency` calls run at a time."""
        return list(self._workers.map(function, items))

    def ping(self) -> None:
        """Return if the server lists its models."""
        budget = Budget(self._url, PING_TIMEOUT, self._size)
        try:
            with budget.current():
                answer = self._read(
                    self._on_new_connections.get(
                        "/models",
                        cast_to=httpx2.Response,
                        options={"timeout": PING_TIMEOUT, "max_retries": 0},
                    )
                )
        except ERRORS as error:
            failure = translated(error, self._url, PING_TIMEOUT)
        else:
            if isinstance(answer, dict):
                return
            failure = AdapterError(
                f"{self._url} does not answer with OpenAI's protocol; is `base_url` right?"
            )
        raise failure

    def _post(self, path: str, body: object, size: int, stream: bool = False) -> httpx2.Response:
        with Budget(self._url, self._seconds, size).current():
            return self._unless_hung_up(
                lambda client: cast(
                    "httpx2.Response",
                    client.post(
                        path,
                        body=body,
                        cast_to=httpx2.Response,
                        stream=stream,
                        stream_cls=openai.Stream[object],
                    ),
                )
            )

    def _read(self, response: httpx2.Response) -> object:
        """Return an answer as JSON, or as text if its content type is not JSON."""
        kind = response.headers.get("content-type", "json").partition(";")[0]
        if not kind.strip().lower().endswith("json"):
            return response.text
        if response.content.count(b"[") + response.content.count(b"{") > _MAX_CONTAINERS:
            raise AdapterError(
                f"{self._url} sent an answer of more than {_MAX_CONTAINERS} lists and objects"
            )
        return self._json(response.content)

    def _json(self, text: str | bytes) -> object:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            failure = unreadable(self._url, text, error)
        raise failure

    def _unless_hung_up(self, post: Callable[[openai.OpenAI], T]) -> T:
        """Send a request, and once more if the server hung up instead of answering.

        Servers close connections that they seemed to keep: uvicorn, on which vLLM, SGLang and
        `transformers serve` are built, after 5 s without a request, and after an exception, right
        behind the answer 500. A request that is sent at that moment is lost: in a batch in which
        every other prompt led to a 500, 23 of 100 good ones (uvicorn 0.54.0), and still 2 if the
        second attempt could use such a connection as well.
        """
        try:
            return post(self._client)
        except openai.APITimeoutError:
            raise
        except openai.APIConnectionError:
            return post(self._on_new_connections)

    def close(self) -> None:
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._client.close()
        self._on_new_connections.close()
