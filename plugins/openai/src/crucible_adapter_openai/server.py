"""The server at the other end: requests to it, and the threads that send those of a batch.

Threads, because the SDK's asynchronous client is slower the more it has to do. With 16, 64 and 256
in flight it made 91, 60 and 30 requests/s, the SDK in threads 214, 234 and 165, and this module
240, 286 and 224 (3.57.0, a server that takes 50 ms, two busy cores; the program is in
`benchmarks/`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar, cast

import httpx2
import openai
from crucible_kitchen import AdapterError

from .budget import Budget, Client
from .failures import ERRORS, explanation, unreadable
from .requests import Request

if TYPE_CHECKING:
    from .completer import Options

T = TypeVar("T")
R = TypeVar("R")

CONNECT_SECONDS = 5.0
"""The longest wait for a connection, the SDK's own default."""

PING_SECONDS = 5.0
"""The longest wait for an answer to a ping."""

STREAM_BYTES_PER_TOKEN = 1024
"""How much longer than a whole answer a stream may be: it repeats its frame with each token."""

EVENTS = 256
"""Events that a stream may have whatever was asked for: roles, usage, signs of life."""

MAX_CONTAINERS = 2**21
"""Lists and objects of an answer at most. Each `[]` of 3 bytes takes 80 of memory; tokens with
log probabilities have 3 each."""

NO_KEY = "EMPTY"
"""What is sent as the key where there is none: vLLM's documentation has it so."""


class Server:
    """An OpenAI-compatible server under some options. Safe from any thread."""

    def __init__(self, opts: Options) -> None:
        self._url = opts.base_url
        self._timeout = opts.timeout
        self._seconds = opts.answer_timeout or 10 * opts.timeout
        self._size = opts.max_answer_bytes
        self._event_size = opts.max_event_bytes
        self._events_per_token = opts.max_events_per_token
        self._client = openai.OpenAI(
            base_url=opts.base_url,
            api_key=opts.api_key.get_secret_value() if opts.api_key else NO_KEY,
            timeout=openai.Timeout(opts.timeout, connect=min(opts.timeout, CONNECT_SECONDS)),
            max_retries=opts.max_retries,
            http_client=Client(),
        )
        self._on_new_connections = self._client.with_options(
            http_client=Client(limits=httpx2.Limits(max_keepalive_connections=0))
        )
        self._workers = ThreadPoolExecutor(opts.max_concurrency, "crucible-openai")

    def ask(self, request: Request) -> object:
        """Send a request; return its answer as JSON, or as text if it is no JSON."""
        try:
            return self._read(self._post(request.path, request.body, self._size))
        except ERRORS as error:
            failure = explanation(error, self._url, self._timeout)
        raise failure

    def events(self, request: Request) -> Generator[object]:
        """Send a request; yield the events of its answer as JSON. Closing it hangs up.

        A server that does not stream answers with one event: the whole answer.
        """
        size = self._size + STREAM_BYTES_PER_TOKEN * request.max_tokens
        try:
            response = self._post(request.path, {**request.body, "stream": True}, size, stream=True)
            with closing(response):
                yield from self._events_of(response, request.max_tokens)
            return
        except ERRORS as error:
            failure = explanation(error, self._url, self._timeout)
        raise failure

    def _events_of(self, response: httpx2.Response, max_tokens: int) -> Iterator[object]:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind.endswith("json") or kind == "text/html":
            response.read()
            yield self._read(response)
            return
        response.headers["content-type"] = "text/event-stream"  # some servers say nothing
        most = EVENTS + self._events_per_token * max_tokens
        for count, event in enumerate(httpx2.EventSource(response, self._event_size), 1):
            if event.data.startswith("[DONE]"):
                return
            if count > most:
                raise AdapterError(
                    f"{self._url} did not end a stream after {most:g} events, although it was "
                    f"asked for {max_tokens} tokens at most; if they are what it should send, set "
                    "the option `max_events_per_token`"
                )
            if event.data:
                found = self._json(event.data)
                yield {"error": found} if event.event == "error" else found

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Return the function's results in order, as many at a time as may be in flight."""
        return list(self._workers.map(function, items))

    def ping(self) -> None:
        """Return if the server lists its models."""
        budget = Budget(self._url, PING_SECONDS, self._size)
        try:
            with budget.current():
                answer = self._read(
                    self._on_new_connections.get(
                        "/models",
                        cast_to=httpx2.Response,
                        options={"timeout": PING_SECONDS, "max_retries": 0},
                    )
                )
        except ERRORS as error:
            failure = explanation(error, self._url, PING_SECONDS)
        else:
            if isinstance(answer, dict):
                return
            failure = AdapterError(
                f"what answers at {self._url} is no API of OpenAI's protocol; is `base_url` right?"
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
        """Return an answer as JSON, or as text if it does not even claim to be JSON."""
        kind = response.headers.get("content-type", "json").partition(";")[0]
        if not kind.strip().lower().endswith("json"):
            return response.text
        if response.content.count(b"[") + response.content.count(b"{") > MAX_CONTAINERS:
            raise AdapterError(
                f"{self._url} sent an answer of more than {MAX_CONTAINERS} lists and objects"
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
        `transformers serve` are built, after 5 s without a request, and upon an exception, right
        behind the answer 500. A request that crosses that is lost: of a batch in which every other
        prompt was one for a 500, 23 of 100 good ones (uvicorn 0.54.0), and still 2 where the
        second attempt could meet such a connection, too.
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
