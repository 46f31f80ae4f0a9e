"""The server at the other end: requests to it, and the threads that send those of a batch.

Threads, because the SDK's asynchronous client is slower the more it has to do. With 16, 64 and 256
in flight it made 91, 60 and 30 requests/s, the SDK in threads 214, 234 and 165, and this module
240, 286 and 224 (3.57.0, a server that takes 50 ms, two busy cores; the program is in
`benchmarks/`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import httpx2
import openai
from crucible_kitchen import AdapterError

from .failures import explained
from .requests import Request

if TYPE_CHECKING:
    from .completer import Options

T = TypeVar("T")
R = TypeVar("R")

CONNECT_SECONDS = 5.0
"""The longest wait for a connection, the SDK's own default."""

PING_SECONDS = 5.0
"""The longest wait for an answer to a ping."""

NO_KEY = "EMPTY"
"""What is sent as the key where there is none: vLLM's documentation has it so."""


class Server:
    """An OpenAI-compatible server under some options. Safe from any thread."""

    def __init__(self, opts: Options) -> None:
        self._url = opts.base_url
        self._timeout = opts.timeout
        self._client = openai.OpenAI(
            base_url=opts.base_url,
            api_key=opts.api_key.get_secret_value() if opts.api_key else NO_KEY,
            timeout=openai.Timeout(opts.timeout, connect=min(opts.timeout, CONNECT_SECONDS)),
            max_retries=opts.max_retries,
        )
        self._on_new_connections = self._client.with_options(
            http_client=openai.DefaultHttpxClient(limits=httpx2.Limits(max_keepalive_connections=0))
        )
        self._workers = ThreadPoolExecutor(opts.max_concurrency, "crucible-openai")

    def ask(self, request: Request) -> object:
        """Send a request; return its answer as JSON."""
        with explained(self._url, self._timeout):
            return self._unless_hung_up(
                lambda client: client.post(request.path, body=request.body, cast_to=object)
            )

    def events(self, request: Request) -> Generator[object]:
        """Send a request; yield the events of its answer as JSON. Closing it hangs up."""
        with explained(self._url, self._timeout):
            stream = self._unless_hung_up(
                lambda client: client.post(
                    request.path,
                    body={**request.body, "stream": True},
                    cast_to=object,
                    stream=True,
                    stream_cls=openai.Stream[object],
                )
            )
            with stream:
                yield from stream

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Return the function's results in order, as many at a time as may be in flight."""
        return list(self._workers.map(function, items))

    def ping(self) -> None:
        """Return if the server lists its models."""
        with explained(self._url, PING_SECONDS):
            answer = self._on_new_connections.get(
                "/models", cast_to=object, options={"timeout": PING_SECONDS, "max_retries": 0}
            )
        if not isinstance(answer, dict):
            raise AdapterError(
                f"what answers at {self._url} is no API of OpenAI's protocol; is `base_url` right?"
            )

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
